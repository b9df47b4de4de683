//! The virtual machines of an inventory, one by one.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use vsphere_vim_types::{MoRef, PropertyPath, mo};

use super::{
    VmRef,
    identity::{IDENTITY, IdentityPaths},
};
use crate::{client::Vim, error::Result, property::Rows};

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
    /// Every virtual machine of the inventory, templates and vApps' machines included.
    pub fn virtual_machines(&self) -> VirtualMachines {
        let rows = self.properties().under(self.root()).select(IDENTITY).stream();
        VirtualMachines { rows, server_uuid: self.server_uuid().map(str::to_owned) }
    }

    /// The identity of a virtual machine whose reference is known.
    ///
    /// # Errors
    /// [`Error::Fault`](crate::Error::Fault) with `ManagedObjectNotFound` when it is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn vm_identity(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<VmRef> {
        let values = self.read(vm, IDENTITY).await?;
        Ok(VmRef::new(vm.clone(), values, self.server_uuid()))
    }

    /// The templates of the inventory.
    ///
    /// # Errors
    /// As [`VirtualMachines::try_next`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "config.template")]
    pub async fn templates(&self) -> Result<Vec<VmRef>> {
        const TEMPLATE: PropertyPath<mo::VirtualMachine, bool> = PropertyPath::new("config.template");
        let (name, instance, bios) = IDENTITY;
        let mut rows = self.properties().under(self.root()).select((name, instance, bios, TEMPLATE)).stream();
        let mut templates = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let (name, instance, bios, template) = row.values;
            if template.present() == Some(true) {
                templates.push(VmRef::new(row.object, (name, instance, bios), self.server_uuid()));
            }
        }
        Ok(templates)
    }
}
