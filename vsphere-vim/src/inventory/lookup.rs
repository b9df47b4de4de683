//! Finding virtual machines by what people and backups know of them.

use std::fmt;

use vsphere_vim_types::{ManagedObjectReference, MoRef, methods, mo};

use super::VmRef;
use crate::{
    client::Vim,
    error::{Error, Result},
};

/// How a virtual machine is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmLookup {
    /// `datacenter/vm/folder/name`; on an ESXi host the datacenter is `ha-datacenter`. A slash within a name is
    /// written `%2f`.
    InventoryPath(String),
    /// The id that is unique within a vCenter Server, in the canonical form with hyphens.
    InstanceUuid(String),
    /// The id that the guest sees in its BIOS. Clones may share it.
    BiosUuid(String),
    /// The reference's value, such as `vm-42`.
    MoRef(String),
    /// A pattern of an inventory path: `dc*/vm/**/web-?`. See [`Vim::find_inventory`](crate::Vim::find_inventory).
    Pattern(String),
    /// The guest's DNS name, as VMware Tools last reported it.
    DnsName(String),
    /// An address of the guest, as VMware Tools last reported it.
    Ip(String),
    /// The path of the configuration file: `[datastore] folder/name.vmx`.
    DatastorePath(String),
}

impl fmt::Display for VmLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InventoryPath(path) => write!(f, "virtual machine {path:?}"),
            Self::InstanceUuid(uuid) => write!(f, "virtual machine with instanceUuid {uuid}"),
            Self::BiosUuid(uuid) => write!(f, "virtual machine with BIOS uuid {uuid}"),
            Self::MoRef(value) => write!(f, "virtual machine {value}"),
            Self::Pattern(pattern) => write!(f, "a virtual machine matching {pattern:?}"),
            Self::DnsName(name) => write!(f, "virtual machine with DNS name {name}"),
            Self::Ip(address) => write!(f, "virtual machine with address {address}"),
            Self::DatastorePath(path) => write!(f, "virtual machine with file {path:?}"),
        }
    }
}

impl Vim {
    /// The object at a path of the inventory, of whatever type; `None` when there is none.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Privileges
    /// `System.View`; objects that the account may not see are not found.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "FindByInventoryPath")]
    pub async fn find_by_inventory_path(&self, path: &str) -> Result<Option<ManagedObjectReference>> {
        let inventory_path = path.trim_matches('/').to_owned();
        let args = methods::FindByInventoryPath { inventory_path, ..Default::default() };
        let found = self.invoke(&self.search_index()?, args).await?;
        Ok(found.map(|entity| entity.erase()))
    }

    /// Finds one virtual machine.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, [`Error::Ambiguous`] with the candidates when there are several,
    /// [`Error::InvalidInput`] when a path leads to another kind of object.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn find_vm(&self, lookup: &VmLookup) -> Result<VmRef> {
        let mut found = self.find_vms(lookup).await?;
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(Error::not_found(lookup.to_string())),
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                found.push(last);
                let candidates = found.iter().map(ToString::to_string).collect();
                Err(Error::Ambiguous { what: lookup.to_string().into(), candidates })
            }
        }
    }

    /// Finds all virtual machines that answer to a description; none is no error.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a path leads to another kind of object, or a pattern is malformed.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "FindAllByUuid")]
    #[doc(alias = "FindAllByDnsName")]
    #[doc(alias = "FindAllByIp")]
    #[doc(alias = "FindByDatastorePath")]
    pub async fn find_vms(&self, lookup: &VmLookup) -> Result<Vec<VmRef>> {
        let candidates: Vec<MoRef<mo::VirtualMachine>> = match lookup {
            VmLookup::InventoryPath(path) => match self.find_by_inventory_path(path).await? {
                Some(found) if !found.is_a::<mo::VirtualMachine>() => {
                    let why = format!("{path:?} is a {}, not a virtual machine", found.type_name());
                    return Err(Error::invalid_input("inventory path", why));
                }
                found => found.iter().map(ManagedObjectReference::cast).collect(),
            },
            VmLookup::InstanceUuid(uuid) => self.find_by_uuid(uuid, true).await?,
            VmLookup::BiosUuid(uuid) => self.find_by_uuid(uuid, false).await?,
            VmLookup::MoRef(value) => vec![MoRef::new(value)],
            VmLookup::Pattern(pattern) => {
                let found = self.find_inventory(pattern).await?.into_iter().map(|entry| entry.object);
                found.filter(|object| object.is_a::<mo::VirtualMachine>()).map(|object| object.cast()).collect()
            }
            VmLookup::DnsName(name) => {
                let dns_name = name.trim().to_owned();
                let args = methods::FindAllByDnsName { dns_name, vm_search: true, ..Default::default() };
                self.invoke(&self.search_index()?, args).await?.iter().map(MoRef::cast).collect()
            }
            VmLookup::Ip(address) => {
                let ip = address.trim().to_owned();
                let args = methods::FindAllByIp { ip, vm_search: true, ..Default::default() };
                self.invoke(&self.search_index()?, args).await?.iter().map(MoRef::cast).collect()
            }
            VmLookup::DatastorePath(path) => self.find_by_datastore_path(path).await?,
        };
        let mut found: Vec<VmRef> = Vec::new();
        for moref in candidates {
            // A machine is below its folder and below its resource pool.
            if found.iter().any(|known| known.moref == moref) {
                continue;
            }
            match self.vm_identity(&moref).await {
                Ok(vm) => found.push(vm),
                // It went away between the search and the question.
                Err(error) if error.is_fault("ManagedObjectNotFound") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn find_by_uuid(&self, uuid: &str, instance: bool) -> Result<Vec<MoRef<mo::VirtualMachine>>> {
        let index = self.search_index()?;
        let (uuid, instance_uuid) = (uuid.trim().to_owned(), Some(instance));
        // FindByUuid picks any of several; only the other call tells that there are several. It came with 4.0.
        if !instance && self.version().is_at_least("4.0") {
            let args =
                methods::FindAllByUuid { uuid: uuid.clone(), vm_search: true, instance_uuid, ..Default::default() };
            match self.invoke(&index, args).await {
                Ok(found) => return Ok(found.iter().map(MoRef::cast).collect()),
                Err(error) if error.is_fault("MethodNotFound") => {}
                Err(error) => return Err(error),
            }
        }
        let args = methods::FindByUuid { uuid, vm_search: true, instance_uuid, ..Default::default() };
        Ok(self.invoke(&index, args).await?.iter().map(MoRef::cast).collect())
    }

    /// The search is by datacenter, since datastores of several datacenters may have one name.
    async fn find_by_datastore_path(&self, path: &str) -> Result<Vec<MoRef<mo::VirtualMachine>>> {
        let index = self.search_index()?;
        let mut datacenters = self.properties::<mo::Datacenter>().select((mo::Datacenter::NAME,)).stream();
        let mut found: Vec<MoRef<mo::VirtualMachine>> = Vec::new();
        while let Some(datacenter) = datacenters.try_next().await? {
            let (datacenter, path) = (datacenter.object, path.to_owned());
            let args = methods::FindByDatastorePath { datacenter, path, ..Default::default() };
            match self.invoke(&index, args).await {
                Ok(vm) => found.extend(vm),
                // The datastore is not one of that datacenter's.
                Err(error) if error.is_fault("InvalidDatastore") => {}
                Err(error) => return Err(error),
            }
        }
        found.dedup();
        Ok(found)
    }

    pub(super) fn search_index(&self) -> Result<MoRef<mo::SearchIndex>> {
        self.manager("SearchIndex", self.content().search_index.as_ref())
    }
}
