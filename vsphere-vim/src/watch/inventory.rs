//! The inventory in memory, kept up to date.
//!
//! [`Vim::inventory`] reads names, parents and ids of everything once and follows them from then on: paths, children,
//! machines below a folder and look-ups cost no call. Only what is selected is kept; further properties are added
//! with [`InventoryBuilder::also`]. Nothing runs in the background: the inventory is as new as its last
//! [`refresh`](Inventory::refresh) or [`next_change`](Inventory::next_change).
//!
//! ```no_run
//! use vsphere_vim::{Vim, mo::VirtualMachine};
//!
//! # async fn example(vim: Vim) -> vsphere_vim::Result<()> {
//! let mut inventory = vim.inventory().also(VirtualMachine::RUNTIME).open().await?;
//! if let Some(folder) = inventory.tree().find("dc1/vm/production") {
//!     for vm in inventory.tree().vms_below(&folder.object) {
//!         let state = inventory.get(&vm, VirtualMachine::RUNTIME).present().map(|runtime| runtime.power_state);
//!         println!("{} {state:?}", inventory.tree().path(vm.as_untyped()).unwrap_or_default());
//!     }
//! }
//! while let Some(change) = inventory.next_change().await? {
//!     println!("{change:?}");
//! }
//! # Ok(())
//! # }
//! ```

mod tree;

use std::fmt;

use vsphere_vim_types::{FromAny, Managed, ManagedObjectReference, MoRef, PropertyPath, mo};

pub use self::tree::{Node, Tree};
use super::{
    WatchWaker,
    follow::{Follower, News, Plan},
    machine::Output,
};
use crate::{
    client::Vim,
    error::Result,
    property::{FilterSpec, ObjectSpec, Property, PropertySpec, UpdateCall, pages::Source},
};

impl Vim {
    /// Begins to describe an inventory in memory: everything below the root, names, parents and ids.
    pub fn inventory(&self) -> InventoryBuilder {
        InventoryBuilder {
            vim: self.clone(),
            root: self.root().into(),
            also: Vec::new(),
            page_size: Some(1000),
            call: None,
        }
    }
}

/// What an [`Inventory`] holds; made by [`Vim::inventory`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `open` is awaited"]
pub struct InventoryBuilder {
    vim: Vim,
    root: ManagedObjectReference,
    also: Vec<(&'static str, &'static str)>,
    page_size: Option<u32>,
    call: Option<UpdateCall>,
}

impl InventoryBuilder {
    /// Only what is below this folder, datacenter, compute resource or resource pool, and itself.
    pub fn under(self, root: impl Into<ManagedObjectReference>) -> Self {
        Self { root: root.into(), ..self }
    }

    /// Keeps one more property of all objects of a type.
    pub fn also<T: Managed, V>(mut self, path: PropertyPath<T, V>) -> Self {
        self.also.push((T::TYPE, path.as_str()));
        self
    }

    /// Objects in one answer; the server may send fewer. 1000 unless stated, `None` leaves it to the server.
    pub fn page_size(self, objects: impl Into<Option<u32>>) -> Self {
        Self { page_size: objects.into().map(|size| size.max(1)), ..self }
    }

    /// Follows with this call, whatever the server's version.
    pub fn updates_by(self, call: UpdateCall) -> Self {
        Self { call: Some(call), ..self }
    }

    /// Reads the inventory.
    ///
    /// # Errors
    /// As [`Watch::check`](super::Watch::check).
    ///
    /// # Privileges
    /// `System.View`. What the account may not see is not there; the tree then has several tops.
    ///
    /// # Cancel safety
    /// Cancel safe: what the server holds is destroyed in the background.
    pub async fn open(self) -> Result<Inventory> {
        let sources = self.sources();
        let plan = Plan { sources, by_name: false, call: self.call, page_size: self.page_size };
        let mut inventory = Inventory { follower: Follower::new(&self.vim, plan), tree: Tree::default() };
        inventory.refresh().await?;
        Ok(inventory)
    }

    /// One filter for the tree. A type that extends one of its types gets a filter of its own: what a server does
    /// with two specs for one object is not written down.
    fn sources(&self) -> Vec<Source> {
        let new = self.vim.version().is_at_least(IDS_SINCE);
        let mut tree: Vec<PropertySpec> = TYPES
            .iter()
            .filter(|kind| new || **kind != mo::DistributedVirtualSwitch::TYPE)
            .map(|kind| PropertySpec::of_type(kind).path_named(NAME).path_named(PARENT))
            .collect();
        let mut others: Vec<PropertySpec> = Vec::new();
        let ids = [
            (mo::VirtualMachine::TYPE, PARENT_VAPP),
            (mo::VirtualMachine::TYPE, INSTANCE_UUID),
            (mo::VirtualApp::TYPE, PARENT_FOLDER),
        ];
        for (kind, path) in ids.into_iter().filter(|_| new).chain(self.also.iter().copied()) {
            let list = if TYPES.contains(&kind) { &mut tree } else { &mut others };
            match list.iter_mut().find(|spec| spec.type_name() == kind) {
                Some(spec) => *spec = spec.clone().path_named(path),
                None => list.push(PropertySpec::of_type(kind).path_named(path)),
            }
        }
        let start = || ObjectSpec::from(self.root.clone()).through_inventory();
        let filter = |specs: Vec<PropertySpec>| {
            Source::Filter(specs.into_iter().fold(FilterSpec::new(), FilterSpec::read).start(start()))
        };
        std::iter::once(tree).chain(others.into_iter().map(|spec| vec![spec])).map(filter).collect()
    }
}

/// What happened to the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InventoryChange {
    /// An object is there.
    Entered(ManagedObjectReference),
    /// These properties of an object have changed: the name, the parent, or what was selected besides.
    Changed(ManagedObjectReference, Vec<String>),
    /// An object is gone; this is what was known of it.
    Left(Node),
    /// A [`WatchWaker`] was used. Nothing is new.
    Woken,
}

/// The inventory in memory; made by [`InventoryBuilder::open`].
///
/// Dropping it destroys what the server holds for it, in the background; [`Inventory::close`] waits for that.
pub struct Inventory {
    follower: Follower,
    tree: Tree,
}

impl Inventory {
    /// The tree as it was last heard of.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A property that was selected with [`InventoryBuilder::also`]; absent when it was not.
    pub fn get<T: Managed, V: FromAny>(&self, object: &MoRef<T>, path: PropertyPath<T, V>) -> Property<V> {
        let row = self.follower.machine().property(object.as_untyped(), path.as_str());
        row.map_or(Property::Absent, |mut row| row.take(path.as_str()))
    }

    /// Takes in what has happened until now, without waiting for more.
    ///
    /// # Errors
    /// As [`Watch::check`](super::Watch::check).
    ///
    /// # Cancel safety
    /// Cancel safe: no change is lost.
    #[doc(alias = "CheckForUpdates")]
    pub async fn refresh(&mut self) -> Result<Vec<InventoryChange>> {
        let news = self.follower.check().await?;
        Ok(news.into_iter().filter_map(|news| self.take(news)).collect())
    }

    /// Waits for the next change and takes it in.
    ///
    /// # Errors
    /// As [`Watch::try_next`](super::Watch::try_next).
    ///
    /// # Cancel safety
    /// Cancel safe: no change is lost.
    #[doc(alias = "WaitForUpdatesEx")]
    pub async fn next_change(&mut self) -> Result<Option<InventoryChange>> {
        loop {
            match std::future::poll_fn(|cx| self.follower.poll_next(cx)).await.transpose()? {
                None => return Ok(None),
                Some(news) => {
                    if let Some(change) = self.take(news) {
                        return Ok(Some(change));
                    }
                }
            }
        }
    }

    /// A handle with which another task can end the present wait.
    pub fn waker(&self) -> WatchWaker {
        WatchWaker(self.follower.bell())
    }

    /// Destroys what the server holds for the inventory, and waits for that.
    ///
    /// # Cancel safety
    /// When the future is dropped, it happens in the background.
    pub async fn close(self) {
        self.follower.close().await;
    }

    fn take(&mut self, news: News) -> Option<InventoryChange> {
        Some(match news {
            News::Woken => InventoryChange::Woken,
            News::Output(Output::Entered(object)) => {
                self.put(&object)?;
                InventoryChange::Entered(object)
            }
            News::Output(Output::Changed(object, paths)) => {
                self.put(&object)?;
                InventoryChange::Changed(object, paths)
            }
            News::Output(Output::Left(object)) => InventoryChange::Left(self.tree.remove(&object)?),
            News::Output(Output::Complete | Output::Unclear { .. }) => return None,
        })
    }

    fn put(&mut self, object: &ManagedObjectReference) -> Option<()> {
        let mut row = self.follower.row(object)?;
        let mut reference = |path: &str| row.take::<ManagedObjectReference>(path).present();
        let (parent, vapp, folder) = (reference(PARENT), reference(PARENT_VAPP), reference(PARENT_FOLDER));
        // A machine in a vApp has no other parent, or has its folder as one.
        let (parent, folder) = if vapp.is_some() { (vapp, parent.or(folder)) } else { (parent, folder) };
        self.tree.put(Node {
            object: object.clone(),
            // Without permission to read it, it has at least an id.
            name: row.take(NAME).present().unwrap_or_else(|| object.value().to_owned()),
            parent,
            folder,
            instance_uuid: row.take(INSTANCE_UUID).present(),
        });
        Some(())
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inventory").field("objects", &self.tree.len()).finish_non_exhaustive()
    }
}

/// The types of the tree; none extends another.
const TYPES: [&str; 9] = [
    mo::Folder::TYPE,
    mo::Datacenter::TYPE,
    mo::ComputeResource::TYPE,
    mo::HostSystem::TYPE,
    mo::ResourcePool::TYPE,
    mo::VirtualMachine::TYPE,
    mo::Datastore::TYPE,
    mo::Network::TYPE,
    mo::DistributedVirtualSwitch::TYPE,
];

const NAME: &str = "name";
const PARENT: &str = "parent";
const PARENT_VAPP: &str = "parentVApp";
const PARENT_FOLDER: &str = "parentFolder";
const INSTANCE_UUID: &str = "config.instanceUuid";

/// vApps, distributed switches and instance ids came with vSphere 4.0.
const IDS_SINCE: &str = "4.0";
