//! Walking down the inventory along a pattern, level by level.

use std::collections::{HashMap, HashSet};

use vsphere_vim_types::{ManagedObjectReference, MoRef, PropertyPath, mo};

use super::glob::{self, Step};
use crate::{
    client::Vim,
    error::{Error, Result},
    property::Property,
};

/// Something in the inventory and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct InventoryEntry {
    /// Its path from the root, as `FindByInventoryPath` takes it: `dc1/vm/web`.
    pub path: String,
    /// The object, of whatever type.
    pub object: ManagedObjectReference,
}

impl Vim {
    /// Every object whose path fits a pattern, in the order of their paths.
    ///
    /// The pattern has the levels of an inventory path: `dc*/vm/**/web-?` or `*/host/*/Resources/backup*`. `*` is any
    /// text and `?` any character of a name, `[a-c]` one of some, `[!a-c]` none of them, `**` any number of levels.
    /// A slash within a name is written `%2f`. Only what the pattern needs is read: names that are spelled out at its
    /// beginning cost one call, every level with wildcards two or three, however many objects there are.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a malformed pattern, or one that leads to more than a million objects.
    ///
    /// # Privileges
    /// `System.View`; objects that the account may not see are not found.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn find_inventory(&self, pattern: &str) -> Result<Vec<InventoryEntry>> {
        let malformed = |why| Error::invalid_input("inventory pattern", why);
        let steps = glob::parse(pattern).map_err(malformed)?;
        let spelled = steps.iter().take_while(|step| matches!(step, Step::Name(_))).count();
        let (start, rest) = self.start(pattern, spelled, &steps).await?;
        let mut level: Vec<InventoryEntry> = start.into_iter().collect();
        let mut steps = rest.iter().peekable();
        while let Some(step) = steps.next() {
            level = match step {
                Step::AnyDepth => {
                    // Several in a row mean what one means.
                    while steps.next_if_eq(&&Step::AnyDepth).is_some() {}
                    self.everything_below(level).await?
                }
                named => {
                    let children = self.children_of(&level).await?;
                    children.into_iter().filter(|(_, name)| named.matches(name)).map(|(entry, _)| entry).collect()
                }
            };
        }
        level.sort();
        // `**` reaches an object on several ways.
        level.dedup();
        Ok(level)
    }

    /// The object that the names at the beginning lead to, and the steps that remain.
    async fn start<'s>(
        &self,
        pattern: &str,
        spelled: usize,
        steps: &'s [Step],
    ) -> Result<(Option<InventoryEntry>, &'s [Step])> {
        let root = InventoryEntry { path: String::new(), object: self.root().into() };
        // A backslash is the pattern's own escape, which the server does not know.
        if spelled == 0 || pattern.contains('\\') {
            return Ok((Some(root), steps));
        }
        let names: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).take(spelled).collect();
        let path = names.join("/");
        let found = self.find_by_inventory_path(&path).await?;
        Ok((found.map(|object| InventoryEntry { path, object }), &steps[spelled..]))
    }

    /// The entries and everything below them.
    async fn everything_below(&self, level: Vec<InventoryEntry>) -> Result<Vec<InventoryEntry>> {
        let mut seen: HashSet<ManagedObjectReference> = HashSet::new();
        let mut all = Vec::new();
        let mut open = level;
        while !open.is_empty() {
            open.retain(|entry| seen.insert(entry.object.clone()));
            let next = self.children_of(&open).await?;
            all.append(&mut open);
            open = next.into_iter().map(|(entry, _)| entry).collect();
            if all.len() + open.len() > MOST {
                return Err(Error::invalid_input("inventory pattern", "it leads to more than a million objects"));
            }
        }
        Ok(all)
    }

    /// What is directly below the entries, with names.
    async fn children_of(&self, parents: &[InventoryEntry]) -> Result<Vec<(InventoryEntry, String)>> {
        let mut below: Vec<(&str, ManagedObjectReference)> = Vec::new();
        for (child, parent) in self.references_of(parents).await? {
            below.push((&parents[parent].path, child));
        }
        if below.len() > MOST {
            return Err(Error::invalid_input("inventory pattern", "it leads to more than a million objects"));
        }
        let names = self.names_of(below.iter().map(|(_, child)| child.cast()).collect()).await?;
        Ok(below
            .into_iter()
            .filter_map(|(parent, object)| {
                let name = names.get(&object)?.clone();
                let path = if parent.is_empty() { name.clone() } else { format!("{parent}/{name}") };
                Some((InventoryEntry { path, object }, name))
            })
            .collect())
    }

    /// The references that the containers among the entries hold, each with its container's place in the list.
    async fn references_of(&self, parents: &[InventoryEntry]) -> Result<Vec<(ManagedObjectReference, usize)>> {
        type Many<T> = PropertyPath<T, Vec<MoRef<mo::ManagedEntity>>>;
        type One<T> = PropertyPath<T, MoRef<mo::ManagedEntity>>;
        const OF_DATACENTER: [One<mo::Datacenter>; 4] = [
            PropertyPath::new("vmFolder"),
            PropertyPath::new("hostFolder"),
            PropertyPath::new("datastoreFolder"),
            PropertyPath::new("networkFolder"),
        ];
        const HOSTS: Many<mo::ComputeResource> = PropertyPath::new("host");
        const ROOT_POOL: One<mo::ComputeResource> = PropertyPath::new("resourcePool");
        const POOLS: Many<mo::ResourcePool> = PropertyPath::new("resourcePool");
        const VMS: Many<mo::ResourcePool> = PropertyPath::new("vm");

        let places: HashMap<&ManagedObjectReference, usize> =
            parents.iter().enumerate().map(|(at, parent)| (&parent.object, at)).collect();
        let mut found = Vec::new();
        let mut hold = |parent: ManagedObjectReference, children: Vec<MoRef<mo::ManagedEntity>>| {
            if let Some(at) = places.get(&parent) {
                found.extend(children.into_iter().map(|child| (child.erase(), *at)));
            }
        };
        let folders = of_type::<mo::Folder>(parents);
        let mut rows = self.properties::<mo::Folder>().of(&folders).select((mo::Folder::CHILD_ENTITY,)).stream();
        while let Some(row) = rows.try_next().await? {
            hold(row.object.erase(), row.values.0.present().unwrap_or_default());
        }
        let datacenters = of_type::<mo::Datacenter>(parents);
        let [vm, host, datastore, network] = OF_DATACENTER;
        let query = self.properties::<mo::Datacenter>().of(&datacenters).select((vm, host, datastore, network));
        let mut rows = query.stream();
        while let Some(row) = rows.try_next().await? {
            let (vm, host, datastore, network) = row.values;
            let folders = [vm, host, datastore, network].into_iter().filter_map(Property::present);
            hold(row.object.erase(), folders.collect());
        }
        let computes = of_type::<mo::ComputeResource>(parents);
        let mut rows = self.properties::<mo::ComputeResource>().of(&computes).select((HOSTS, ROOT_POOL)).stream();
        while let Some(row) = rows.try_next().await? {
            let (hosts, pool) = row.values;
            let mut children = hosts.present().unwrap_or_default();
            children.extend(pool.present());
            hold(row.object.erase(), children);
        }
        let pools = of_type::<mo::ResourcePool>(parents);
        let mut rows = self.properties::<mo::ResourcePool>().of(&pools).select((POOLS, VMS)).stream();
        while let Some(row) = rows.try_next().await? {
            let (pools, vms) = row.values;
            let mut children = pools.present().unwrap_or_default();
            children.extend(vms.present().unwrap_or_default());
            hold(row.object.erase(), children);
        }
        Ok(found)
    }

    /// The names of objects; those that may not be read or have gone are not in the answer.
    async fn names_of(
        &self,
        objects: Vec<MoRef<mo::ManagedEntity>>,
    ) -> Result<HashMap<ManagedObjectReference, String>> {
        let mut names = HashMap::new();
        let query = self.properties().of(&objects).select((mo::ManagedEntity::NAME,));
        match query.collect().await {
            Ok(rows) => {
                let named = rows.into_iter().filter_map(|row| Some((row.object.erase(), row.values.0.present()?)));
                names.extend(named);
            }
            // One that goes away fails the question for all: then each is asked by itself.
            Err(error) if error.is_fault("ManagedObjectNotFound") => {
                for object in objects {
                    match self.get_optional(&object, mo::ManagedEntity::NAME).await {
                        Ok(name) => names.extend(name.map(|name| (object.erase(), name))),
                        Err(error) if error.is_fault("ManagedObjectNotFound") => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(names)
    }
}

fn of_type<T: vsphere_vim_types::Managed>(entries: &[InventoryEntry]) -> Vec<MoRef<T>> {
    entries.iter().filter(|entry| entry.object.is_a::<T>()).map(|entry| entry.object.cast()).collect()
}

/// Objects that one search may look at.
const MOST: usize = 1_000_000;
