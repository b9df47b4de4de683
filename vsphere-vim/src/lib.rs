//! Async client for the vSphere Web Services API (`urn:vim25` over SOAP), made for backup programs.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails may panic"))]

mod builder;
mod call;
mod client;
mod endpoint;
pub mod error;
pub mod property;
mod retry;
mod secret;
mod session;
pub mod task;
pub mod transport;
pub mod trust;
pub mod version;

pub use vsphere_vim_types as types;
pub use vsphere_vim_types::{
    Any, DateTime, ManagedObjectReference, Method, MoRef, Poly, PropertyPath, methods, mo,
};

pub use self::{
    builder::VimBuilder,
    call::CallOptions,
    client::Vim,
    endpoint::Endpoint,
    error::{Error, Result},
    retry::RetryPolicy,
    secret::{Credentials, Secret},
    trust::{Thumbprint, TlsTrust},
};
