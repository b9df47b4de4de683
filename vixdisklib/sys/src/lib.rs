//! The C interface of VMware's VixDiskLib, the disk library of the VDDK: types and functions.
//!
//! Nothing of VMware's is needed to build this crate, and nothing is linked. The declarations are made by hand from
//! public documentation; VMware's headers were not at hand and are not copied.
//!
//! ```
//! use vixdisklib_sys::{FUNCTIONS, VixCode, VixError};
//!
//! let error = VixError(0x0003_0000_0000_0000 | 16052);
//! assert_eq!(error.code(), VixCode::DISK_KEY_NOTFOUND);
//! assert_eq!(error.code().name(), Some("VIX_E_DISK_KEY_NOTFOUND"));
//! assert_eq!(FUNCTIONS.len(), 43);
//! ```
//!
//! # Modules
//! - [`types`]: scalars, handles, callbacks and structures, laid out as in C
//! - [`constants`]: kinds of disks, adapters and credentials, flags of opening
//! - [`code`]: what [`VixError`] says, whether trying again helps, and what to do
//! - [`functions`]: the 43 functions as Rust types, and as the table [`FUNCTIONS`]
//! - [`layout`]: sizes and offsets of the structures as a table
//! - [`shape`]: what of a signature matters to a caller in machine code
#![cfg_attr(feature = "load", doc = "- [`load`]: VMware's library, loaded at run time and kept from misuse")]
#![cfg_attr(not(feature = "load"), doc = "- `load` (feature): VMware's library, loaded at run time")]
//!
//! # Features
//! - `load` (default): the module of that name. Without it, this crate is declarations and depends on nothing.

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

pub mod code;
pub mod constants;
#[macro_use]
pub mod functions;
pub mod layout;
#[cfg(all(feature = "load", unix))]
pub mod load;
pub mod shape;
pub mod types;

pub use self::{
    code::{VixCode, VixError},
    constants::{AdapterType, CredType, DiskType, HwVersion, OpenFlags, SpecType},
    functions::{FUNCTIONS, Function, Need},
    types::*,
};
