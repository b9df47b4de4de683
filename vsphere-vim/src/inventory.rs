//! Finding virtual machines and everything else in the inventory, and knowing them again.
//!
//! A reference (`vm-42`) is unique on one server and changes when the machine is registered anew. What identifies a
//! machine over years is its `instanceUuid`, together with the server's own id. [`VmRef`] holds all of them.

mod folders;
mod glob;
mod identity;
mod lookup;
mod machines;
mod vapp;
mod walk;

pub use self::{
    identity::VmRef,
    lookup::VmLookup,
    machines::VirtualMachines,
    vapp::{VApp, VAppMember},
    walk::InventoryEntry,
};
