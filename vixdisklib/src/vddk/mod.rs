//! VMware's own library, where it is installed: for `san` and `hotadd`, or for everything. Feature `vddk`.
//!
//! ```no_run
//! use vixdisklib::{Access, Connection, ConnectionOptions, vddk::{self, Library, VddkUse}};
//! # async fn example(vim: vsphere_vim::Vim, vm: vsphere_vim::MoRef<vsphere_vim::mo::VirtualMachine>) -> vixdisklib::Result<()> {
//! let library = Library::load("/usr/lib/vmware-vix-disklib", vddk::LibraryOptions::default()).await?;
//! let server = vddk::Server::of_session("52:A4:01:..");
//! let options = ConnectionOptions::new().vddk(library, VddkUse::WhatWeLack).vddk_server(server);
//! let disks = Connection::connect_with(&vim, &vm, Access::ReadOnly, "hotadd:nbdssl", options).await?;
//! # let _ = disks;
//! # Ok(())
//! # }
//! ```
//!
//! The library is begun once a process, and its log goes to `tracing` under the target `vddk`. Which rules it asks for,
//! and how they are kept, is told in [`vixdisklib_sys::load`].

mod library;
mod server;

pub use vixdisklib_sys::{
    VixCode, VixError,
    load::{Config, Error as LibraryError, Failure, Leftovers, LibraryOptions, LogLevel, Login},
};

pub(crate) use self::library::Choice;
pub use self::{
    library::{Library, VddkUse},
    server::Server,
};
