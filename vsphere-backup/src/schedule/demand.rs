//! What a machine waits for.

use std::sync::Arc;

use vsphere_vim::{
    MoRef, PropertyPath, Vim,
    mo::{self, VirtualMachine},
    property::Property,
    property_struct,
};

use super::queue::Resource;
use crate::{error::Result, server};

/// Where a machine is, which decides what it has to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Demand {
    /// The vCenter or host that the machine is reached through.
    pub vcenter: String,
    /// Its host, if that is known.
    pub host: Option<String>,
    /// Its datastores.
    pub datastores: Vec<String>,
}

property_struct! {
    struct Place of VirtualMachine {
        host: Property<MoRef<mo::HostSystem>> = PropertyPath::<_, MoRef<mo::HostSystem>>::new("runtime.host"),
        datastores: Property<Vec<MoRef<mo::Datastore>>> = VirtualMachine::DATASTORE,
    }
}

impl Demand {
    /// Asks a server where a machine is. One that is gone needs no more than the server.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server).
    ///
    /// # Privileges
    /// `System.Read` on the machine.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn of(vim: &Vim, vm: &MoRef<VirtualMachine>) -> Result<Self> {
        let wrong = || server::failed("reading where the machine is", vm.value());
        let found = vim.properties().of(std::slice::from_ref(vm)).select_as::<Place>().collect().await;
        let rows = match found {
            Err(error) if error.is_fault("ManagedObjectNotFound") => Vec::new(),
            found => found.map_err(wrong())?,
        };
        match rows.into_iter().next() {
            None => Ok(Self::at(vim, None, Vec::new())),
            Some(row) => {
                let place = row.values.map_err(wrong())?;
                Ok(Self::at(vim, place.host.present(), place.datastores.present().unwrap_or_default()))
            }
        }
    }

    /// Returns the demand of a machine whose place is known.
    pub(crate) fn at(vim: &Vim, host: Option<MoRef<mo::HostSystem>>, datastores: Vec<MoRef<mo::Datastore>>) -> Self {
        Self {
            vcenter: server::server_name(vim),
            host: host.map(|host| host.value().to_owned()),
            datastores: datastores.iter().map(|datastore| datastore.value().to_owned()).collect(),
        }
    }

    pub(super) fn resources(&self) -> Vec<Resource> {
        // References such as `host-9` are unique within a vCenter only.
        let of = |name: &str| -> Arc<str> { format!("{}/{name}", self.vcenter).into() };
        let host = self.host.iter().map(|host| Resource::Host(of(host)));
        let datastores = self.datastores.iter().map(|datastore| Resource::Datastore(of(datastore)));
        host.chain(datastores).chain([Resource::VCenter(self.vcenter.as_str().into())]).collect()
    }
}
