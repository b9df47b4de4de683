//! Async client for the vSphere Web Services API (`urn:vim25` over SOAP), made for backup programs.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails may panic"))]

mod builder;
mod call;
mod client;
pub mod device;
mod endpoint;
pub mod error;
pub mod inventory;
pub mod method_lock;
pub mod nfc_ticket;
pub mod property;
mod retry;
mod secret;
mod session;
pub mod task;
pub mod transport;
pub mod trust;
pub mod version;
pub mod vm;

pub use vsphere_vim_types as types;
pub use vsphere_vim_types::{
    Any, DateTime, ManagedObjectReference, Method, MoRef, Poly, PropertyPath, methods, mo,
};

pub use self::{
    builder::VimBuilder,
    call::CallOptions,
    client::Vim,
    device::{DeviceKey, VirtualDiskInfo},
    endpoint::Endpoint,
    error::{Error, Result},
    inventory::{VmLookup, VmRef},
    nfc_ticket::{DiskAccess, NfcTicket},
    retry::RetryPolicy,
    secret::{Credentials, Secret},
    trust::{Thumbprint, TlsTrust},
    vm::{CreateSnapshotOptions, PowerState, RemoveSnapshotOptions},
};
