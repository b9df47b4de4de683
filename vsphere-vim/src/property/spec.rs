//! What to read and how to walk there.
//!
//! These are the API's own specs with the types of a program: a traversal goes along a typed property, recursion is
//! by name, and a name that nothing bears is found before the server is asked.

use std::collections::BTreeSet;

use vsphere_vim_types::{self as types, Managed, ManagedObjectReference, Poly, PropertyPath, mo};

use crate::error::{Error, Result};

/// Which properties of which type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct PropertySpec {
    type_name: String,
    all: bool,
    paths: Vec<String>,
}

impl PropertySpec {
    /// No property yet of `T` and of the types that extend it: the objects are only listed.
    pub fn of<T: Managed>() -> Self {
        Self::of_type(T::TYPE)
    }

    /// The same for a type by its wire name.
    pub fn of_type(type_name: &str) -> Self {
        Self { type_name: type_name.to_owned(), all: false, paths: Vec::new() }
    }

    /// Adds a property.
    pub fn path<T, V>(self, path: PropertyPath<T, V>) -> Self {
        self.path_named(path.as_str())
    }

    /// Adds a property by its path, which may be nested and keyed: `config.hardware.device[2000].backing`.
    pub fn path_named(mut self, path: &str) -> Self {
        if !self.paths.iter().any(|known| known == path) {
            self.paths.push(path.to_owned());
        }
        self
    }

    /// Reads every property. Costly; for tools that look at everything.
    pub fn all(self) -> Self {
        Self { all: true, ..self }
    }

    pub(crate) fn type_name(&self) -> &str {
        &self.type_name
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// True when the spec holds for objects of this one's type, as far as the model knows.
    pub(crate) fn is_about(&self, object: &ManagedObjectReference) -> bool {
        let own = object.type_name();
        own == self.type_name || mo::bases(own).contains(&self.type_name.as_str())
    }

    fn to_wire(&self) -> types::PropertySpec {
        types::PropertySpec {
            type_: self.type_name.clone(),
            all: Some(self.all),
            path_set: self.paths.clone(),
            ..Default::default()
        }
    }
}

/// How to walk on from an object: a traversal, or the name of one to go through again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectionSpec {
    /// The traversal of that name in the same [`ObjectSpec`]: recursion.
    Named(String),
    /// A traversal.
    Traverse(TraversalSpec),
}

impl SelectionSpec {
    /// Refers to a traversal by name.
    pub fn named(name: &str) -> Self {
        Self::Named(name.to_owned())
    }

    fn to_wire(&self) -> Poly<types::SelectionSpec> {
        match self {
            Self::Named(name) => Poly::new(types::SelectionSpec { name: Some(name.clone()), ..Default::default() }),
            Self::Traverse(traversal) => Poly::new(traversal.to_wire()),
        }
    }

    fn names(&self, defined: &mut BTreeSet<String>, used: &mut BTreeSet<String>) {
        match self {
            Self::Named(name) => {
                used.insert(name.clone());
            }
            Self::Traverse(traversal) => {
                defined.extend(traversal.name.clone());
                traversal.then.iter().for_each(|next| next.names(defined, used));
            }
        }
    }
}

impl From<TraversalSpec> for SelectionSpec {
    fn from(traversal: TraversalSpec) -> Self {
        Self::Traverse(traversal)
    }
}

/// One step: from objects of a type along one of their reference properties.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TraversalSpec {
    name: Option<String>,
    type_name: String,
    path: String,
    skip: bool,
    then: Vec<SelectionSpec>,
}

impl TraversalSpec {
    /// Goes from every `T` along a property that holds references.
    pub fn along<T: Managed, V>(path: PropertyPath<T, V>) -> Self {
        Self::along_named(T::TYPE, path.as_str())
    }

    /// The same by wire names.
    pub fn along_named(type_name: &str, path: &str) -> Self {
        Self { name: None, type_name: type_name.to_owned(), path: path.to_owned(), skip: false, then: Vec::new() }
    }

    /// Gives the step a name, so that [`SelectionSpec::named`] can refer to it.
    pub fn name(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Leaves the objects that the step leads to out of the result; the walk still goes on from them.
    pub fn skip(self) -> Self {
        Self { skip: true, ..self }
    }

    /// Walks on from the objects that the step leads to.
    pub fn then(mut self, next: impl Into<SelectionSpec>) -> Self {
        self.then.push(next.into());
        self
    }

    /// Walks on through traversals by their names.
    pub fn then_named<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.then.extend(names.into_iter().map(SelectionSpec::named));
        self
    }

    fn to_wire(&self) -> types::TraversalSpec {
        let mut wire = types::TraversalSpec {
            type_: self.type_name.clone(),
            path: self.path.clone(),
            skip: Some(self.skip),
            select_set: self.then.iter().map(SelectionSpec::to_wire).collect(),
            ..Default::default()
        };
        wire.name = self.name.clone();
        wire
    }
}

/// Where to begin, and how to walk on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ObjectSpec {
    object: ManagedObjectReference,
    skip: bool,
    select: Vec<SelectionSpec>,
}

impl ObjectSpec {
    /// Begins at `object`.
    pub fn from(object: impl Into<ManagedObjectReference>) -> Self {
        Self { object: object.into(), skip: false, select: Vec::new() }
    }

    /// Leaves the start object itself out of the result.
    pub fn skip(self) -> Self {
        Self { skip: true, ..self }
    }

    /// Walks on from the start object.
    pub fn then(mut self, next: impl Into<SelectionSpec>) -> Self {
        self.select.push(next.into());
        self
    }

    /// Walks through the whole inventory below the start object: see [`whole_inventory`].
    pub fn through_inventory(mut self) -> Self {
        self.select.extend(whole_inventory().into_iter().map(SelectionSpec::from));
        self
    }

    /// A name that is used but not defined.
    fn dangling_name(&self) -> Option<String> {
        let (mut defined, mut used) = (BTreeSet::new(), BTreeSet::new());
        self.select.iter().for_each(|next| next.names(&mut defined, &mut used));
        used.difference(&defined).next().cloned()
    }

    fn to_wire(&self) -> types::ObjectSpec {
        types::ObjectSpec {
            obj: self.object.clone(),
            skip: Some(self.skip),
            select_set: self.select.iter().map(SelectionSpec::to_wire).collect(),
            ..Default::default()
        }
    }
}

/// What to read, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct FilterSpec {
    properties: Vec<PropertySpec>,
    objects: Vec<ObjectSpec>,
}

impl FilterSpec {
    /// Reads nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds properties of a type.
    pub fn read(mut self, properties: PropertySpec) -> Self {
        self.properties.push(properties);
        self
    }

    /// Adds a start object.
    pub fn start(mut self, objects: ObjectSpec) -> Self {
        self.objects.push(objects);
        self
    }

    pub(crate) fn properties(&self) -> &[PropertySpec] {
        &self.properties
    }

    /// True when there is no start object: there is nothing to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Takes out an object that is listed for its own sake; false when it is not.
    pub(crate) fn strike_out(&mut self, object: &ManagedObjectReference) -> bool {
        let before = self.objects.len();
        self.objects.retain(|start| start.object != *object || !start.select.is_empty());
        self.objects.len() < before
    }

    /// The spec as the server takes it.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a recursion names a traversal that does not exist: the server would silently
    /// find less.
    pub fn to_wire(&self) -> Result<types::PropertyFilterSpec> {
        if let Some(name) = self.objects.iter().find_map(ObjectSpec::dangling_name) {
            return Err(Error::invalid_input("filter", format!("no traversal is named {name:?}")));
        }
        Ok(types::PropertyFilterSpec {
            prop_set: self.properties.iter().map(PropertySpec::to_wire).collect(),
            object_set: self.objects.iter().map(ObjectSpec::to_wire).collect(),
            ..Default::default()
        })
    }
}

/// The way through the whole inventory from any folder, datacenter, compute resource or resource pool.
///
/// It is the static traversal of VMware's backup guide with the vApps added, the same on vCenter and ESXi: folders of
/// every kind, compute resources with hosts, resource pools and vApps with their virtual machines. An object reached
/// on two ways is reported once.
pub fn whole_inventory() -> Vec<TraversalSpec> {
    use mo::{ComputeResource, Datacenter, Folder, ResourcePool, VirtualApp};
    const FOLDER: &str = "folder";
    const POOLS: &str = "resourcePools";
    const POOL_VMS: &str = "resourcePoolVms";
    const APP_POOLS: &str = "vAppPools";
    const APP_VMS: &str = "vAppVms";
    const COMPUTE: [&str; 2] = ["computePool", "computeHost"];
    const DATACENTER: [&str; 4] = ["vmFolder", "hostFolder", "datastoreFolder", "networkFolder"];
    let pools = [POOLS, POOL_VMS, APP_POOLS, APP_VMS];

    vec![
        TraversalSpec::along(Folder::CHILD_ENTITY)
            .name(FOLDER)
            .then_named([FOLDER])
            .then_named(DATACENTER)
            .then_named(COMPUTE)
            .then_named(pools),
        TraversalSpec::along(Datacenter::VM_FOLDER).name(DATACENTER[0]).then_named([FOLDER]),
        TraversalSpec::along(Datacenter::HOST_FOLDER).name(DATACENTER[1]).then_named([FOLDER]),
        TraversalSpec::along(Datacenter::DATASTORE_FOLDER).name(DATACENTER[2]).then_named([FOLDER]),
        TraversalSpec::along(Datacenter::NETWORK_FOLDER).name(DATACENTER[3]).then_named([FOLDER]),
        TraversalSpec::along(ComputeResource::RESOURCE_POOL).name(COMPUTE[0]).then_named(pools),
        TraversalSpec::along(ComputeResource::HOST).name(COMPUTE[1]),
        TraversalSpec::along(ResourcePool::RESOURCE_POOL).name(POOLS).then_named(pools),
        TraversalSpec::along(ResourcePool::VM).name(POOL_VMS),
        TraversalSpec::along_named(VirtualApp::TYPE, ResourcePool::RESOURCE_POOL.as_str())
            .name(APP_POOLS)
            .then_named(pools),
        TraversalSpec::along_named(VirtualApp::TYPE, ResourcePool::VM.as_str()).name(APP_VMS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> ManagedObjectReference {
        ManagedObjectReference::of("Folder", "group-d1")
    }

    #[test]
    fn every_recursion_of_the_inventory_traversal_has_a_target() {
        let filter = FilterSpec::new()
            .read(PropertySpec::of::<mo::VirtualMachine>())
            .start(ObjectSpec::from(root()).through_inventory());
        assert!(filter.to_wire().is_ok());
    }

    #[test]
    fn a_name_without_a_traversal_is_refused() {
        let walk = TraversalSpec::along(mo::Folder::CHILD_ENTITY).name("folder").then_named(["fodler"]);
        let error = FilterSpec::new().start(ObjectSpec::from(root()).then(walk)).to_wire().unwrap_err();
        assert!(error.to_string().contains("fodler"), "{error}");
    }

    #[test]
    fn a_path_is_asked_for_once() {
        let spec = PropertySpec::of::<mo::VirtualMachine>().path_named("name").path_named("name");
        assert_eq!(spec.to_wire().path_set, ["name"]);
    }
}
