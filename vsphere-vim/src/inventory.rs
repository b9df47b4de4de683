//! Finding virtual machines, and knowing one again.
//!
//! A reference (`vm-42`) is unique on one server and changes when the machine is registered anew. What identifies a
//! machine over years is its `instanceUuid`, together with the server's own id. [`VmRef`] holds all of them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use vsphere_vim_types::{ManagedObjectReference, MoRef, PropertyPath, methods, mo};

use crate::{
    client::Vim,
    error::{Error, Result},
    property::{Property, Rows},
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
}

impl fmt::Display for VmLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InventoryPath(path) => write!(f, "virtual machine {path:?}"),
            Self::InstanceUuid(uuid) => write!(f, "virtual machine with instanceUuid {uuid}"),
            Self::BiosUuid(uuid) => write!(f, "virtual machine with BIOS uuid {uuid}"),
            Self::MoRef(value) => write!(f, "virtual machine {value}"),
        }
    }
}

/// A virtual machine and everything that identifies it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct VmRef {
    /// The reference on this server, now.
    pub moref: MoRef<mo::VirtualMachine>,
    /// The display name; not unique.
    pub name: String,
    /// Unique within the vCenter Server; `None` while the configuration is not readable.
    pub instance_uuid: Option<String>,
    /// The BIOS id; the fallback on servers before 4.0.
    pub bios_uuid: Option<String>,
    /// The id of the vCenter Server or host that the reference belongs to.
    pub server_uuid: Option<String>,
}

impl VmRef {
    fn new(moref: MoRef<mo::VirtualMachine>, values: Identity, server_uuid: Option<&str>) -> Self {
        let (name, instance_uuid, bios_uuid) = values;
        Self {
            name: name.present().unwrap_or_else(|| moref.value().to_owned()),
            moref,
            instance_uuid: instance_uuid.present(),
            bios_uuid: bios_uuid.present(),
            server_uuid: server_uuid.map(str::to_owned),
        }
    }

    /// True when `other` is the same machine, as far as ids can tell: by instance id if both have one, else by
    /// server and reference, else by BIOS id.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        if let (Some(own), Some(other)) = (&self.instance_uuid, &other.instance_uuid) {
            return own.eq_ignore_ascii_case(other);
        }
        if self.server_uuid.is_some() && self.server_uuid == other.server_uuid {
            return self.moref == other.moref;
        }
        matches!((&self.bios_uuid, &other.bios_uuid), (Some(own), Some(other)) if own.eq_ignore_ascii_case(other))
    }
}

impl fmt::Display for VmRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.moref.value())
    }
}

/// The properties behind [`VmRef`].
const IDENTITY: (VmPath<String>, VmPath<String>, VmPath<String>) =
    (mo::VirtualMachine::NAME, VmPath::new("config.instanceUuid"), VmPath::new("config.uuid"));

type VmPath<V> = PropertyPath<mo::VirtualMachine, V>;

type IdentityPaths = (VmPath<String>, VmPath<String>, VmPath<String>);

type Identity = (Property<String>, Property<String>, Property<String>);

/// The virtual machines of the inventory, one by one: a [`Stream`], with [`VirtualMachines::try_next`] for those
/// without stream combinators.
#[derive(Debug)]
pub struct VirtualMachines {
    rows: Rows<mo::VirtualMachine, IdentityPaths>,
    server_uuid: Option<String>,
}

impl VirtualMachines {
    /// The next machine; `None` at the end.
    ///
    /// # Errors
    /// As [`Rows::try_next`].
    ///
    /// # Cancel safety
    /// Cancel safe: no machine is lost.
    pub async fn try_next(&mut self) -> Result<Option<VmRef>> {
        let row = self.rows.try_next().await?;
        Ok(row.map(|row| VmRef::new(row.object, row.values, self.server_uuid.as_deref())))
    }
}

impl Stream for VirtualMachines {
    type Item = Result<VmRef>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let row = ready!(Pin::new(&mut this.rows).poll_next(cx));
        Poll::Ready(row.map(|row| row.map(|row| VmRef::new(row.object, row.values, this.server_uuid.as_deref()))))
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
    /// [`Error::NotFound`] when there is none, [`Error::InvalidInput`] when several have the BIOS id or when the path
    /// leads to another kind of object.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "FindByUuid")]
    #[doc(alias = "FindAllByUuid")]
    pub async fn find_vm(&self, lookup: &VmLookup) -> Result<VmRef> {
        let not_found = || Error::not_found(lookup.to_string());
        let moref = match lookup {
            VmLookup::InventoryPath(path) => {
                let found = self.find_by_inventory_path(path).await?.ok_or_else(not_found)?;
                if !found.is_a::<mo::VirtualMachine>() {
                    let why = format!("{path:?} is a {}, not a virtual machine", found.type_name());
                    return Err(Error::invalid_input("inventory path", why));
                }
                found.cast()
            }
            VmLookup::InstanceUuid(uuid) => self.find_by_uuid(uuid, true).await?.ok_or_else(not_found)?,
            VmLookup::BiosUuid(uuid) => self.find_by_uuid(uuid, false).await?.ok_or_else(not_found)?,
            VmLookup::MoRef(value) => MoRef::new(value),
        };
        match self.vm_identity(&moref).await {
            Err(error) if error.is_fault("ManagedObjectNotFound") => Err(not_found()),
            other => other,
        }
    }

    /// The identity of a virtual machine whose reference is known.
    ///
    /// # Errors
    /// [`Error::Fault`] with `ManagedObjectNotFound` when it is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn vm_identity(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<VmRef> {
        let values = self.read(vm, IDENTITY).await?;
        Ok(VmRef::new(vm.clone(), values, self.server_uuid()))
    }

    /// Every virtual machine of the inventory, templates and vApps' machines included.
    pub fn virtual_machines(&self) -> VirtualMachines {
        let rows = self.properties().under(self.root()).select(IDENTITY).stream();
        VirtualMachines { rows, server_uuid: self.server_uuid().map(str::to_owned) }
    }

    async fn find_by_uuid(&self, uuid: &str, instance: bool) -> Result<Option<MoRef<mo::VirtualMachine>>> {
        let index = self.search_index()?;
        let (uuid, instance_uuid) = (uuid.trim().to_owned(), Some(instance));
        // FindByUuid picks any of several; only the other call tells that there are several. It came with 4.0.
        if instance || !self.version().is_at_least("4.0") {
            let args = methods::FindByUuid { uuid, vm_search: true, instance_uuid, ..Default::default() };
            return Ok(self.invoke(&index, args).await?.map(|entity| entity.cast()));
        }
        let args = methods::FindAllByUuid { uuid, vm_search: true, instance_uuid, ..Default::default() };
        let found = self.invoke(&index, args).await?;
        match &found[..] {
            [] => Ok(None),
            [only] => Ok(Some(only.cast())),
            several => {
                let values: Vec<_> = several.iter().map(|entity| entity.value().to_owned()).collect();
                let why = format!("several virtual machines have it: {}", values.join(", "));
                Err(Error::invalid_input("BIOS uuid", why))
            }
        }
    }

    fn search_index(&self) -> Result<MoRef<mo::SearchIndex>> {
        self.manager("SearchIndex", self.content().search_index.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(moref: &str, instance: Option<&str>, server: Option<&str>) -> VmRef {
        VmRef {
            moref: MoRef::new(moref),
            name: "web".into(),
            instance_uuid: instance.map(str::to_owned),
            bios_uuid: Some("b".into()),
            server_uuid: server.map(str::to_owned),
        }
    }

    #[test]
    fn the_instance_id_decides_before_the_reference() {
        assert!(vm("vm-1", Some("A"), Some("s")).is_same_machine(&vm("vm-2", Some("a"), Some("s"))));
        assert!(!vm("vm-1", Some("A"), Some("s")).is_same_machine(&vm("vm-1", Some("b"), Some("s"))));
        assert!(!vm("vm-1", None, Some("s")).is_same_machine(&vm("vm-2", Some("b"), Some("s"))));
        assert!(vm("vm-1", None, None).is_same_machine(&vm("vm-2", None, None)), "the BIOS id is the last resort");
    }
}
