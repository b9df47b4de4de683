//! VMware's library, loaded at run time and kept from misuse.
//!
//! ```no_run
//! use vixdisklib_sys::{OpenFlags, load::{ConnectSpec, Library, LibraryOptions}};
//!
//! # fn example() -> Result<(), vixdisklib_sys::load::Error> {
//! let library = Library::load("/usr/lib/vmware-vix-disklib", LibraryOptions::default())?;
//! let local = library.connect(ConnectSpec::local()).wait()?;
//! let disk = local.open("/images/a.vmdk", OpenFlags::READ_ONLY).wait()?;
//! let first = disk.read(0, 1).wait()?; // or `.await`
//! # let _ = first;
//! disk.close().wait()
//! # }
//! ```
//!
//! # What makes misuse impossible
//! - `InitEx` runs once a process: loading again gives the library that is there, or an error that says why not.
//! - Connecting, opening, closing and whatever else opens files runs on one thread of the library's own, as VMware's
//!   manual asks. Each disk has a thread of its own that makes all calls on its handle, one after the other.
//! - A [`Disk`] keeps its [`Connection`], a [`Connection`] its [`Library`]: drop them in any order.
//! - Buffers of asynchronous calls belong to this crate until the library is done with them. What the library gets as
//!   "user data" is a number, not an address: a second or late call finds nothing and does nothing.
//! - A panic never passes through C.
//!
//! Every operation returns an [`Answer`], which is a future and can also be waited for.

mod answer;
mod api;
mod config;
mod connection;
mod disk;
mod error;
mod info;
mod library;
mod log;
mod opener;
mod pair;
mod pending;
mod progress;
mod registry;
pub mod search;
mod spec;
mod text;
mod worker;

pub use self::{
    answer::Answer,
    api::Api,
    config::Config,
    connection::Connection,
    disk::Disk,
    error::{Error, Failure, Result},
    info::DiskInfo,
    library::{Leftovers, Library, LibraryOptions},
    log::{LOG_FUNCTIONS, LogLevel, LogSink},
    pair::{attach, is_attach_possible},
    progress::Progress,
    search::Attempt,
    spec::{ConnectSpec, CreateSpec, Login, Object},
};
