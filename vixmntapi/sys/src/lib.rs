//! The C interface of VMware's VixMntapi, the library of the VDDK that mounts the volumes of virtual disks: types and
//! functions.
//!
//! Nothing of VMware's is needed to build this crate, and nothing is linked. The declarations are made by hand from
//! public documentation; VMware's headers were not at hand and are not copied. Errors, connections and disks are those
//! of [`vixdisklib_sys`], as VMware has it.
//!
//! ```
//! use vixmntapi_sys::{FUNCTIONS, VixCode, VixError};
//!
//! assert_eq!(FUNCTIONS.len(), 15);
//! assert_eq!(VixError(24305).code(), VixCode::MNTAPI_VOLUME_ALREADY_MOUNTED);
//! ```
//!
//! # Modules
//! - [`types`]: handles and structures, laid out as in C
//! - [`constants`]: kinds of volumes, families of operating systems
//! - [`functions`]: the 15 functions as Rust types, and as the table [`FUNCTIONS`]
//! - [`layout`]: sizes and offsets of the structures as a table
#![cfg_attr(feature = "load", doc = "- [`load`]: VMware's library, loaded at run time and kept from misuse")]
#![cfg_attr(not(feature = "load"), doc = "- `load` (feature): VMware's library, loaded at run time")]
//!
//! # Features
//! - `load` (default): the module of that name. Without it, this crate is declarations.

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

pub mod constants;
#[macro_use]
pub mod functions;
pub mod layout;
#[cfg(all(feature = "load", unix))]
pub mod load;
pub mod types;

pub use vixdisklib_sys::{OpenFlags, VixCode, VixError};

pub use self::{
    constants::{OsFamily, VolumeType},
    functions::FUNCTIONS,
    types::*,
};
