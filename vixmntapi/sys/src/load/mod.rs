//! VMware's library, loaded at run time and kept from misuse.
//!
//! ```no_run
//! use vixdisklib_sys::load::{ConnectSpec, Library as DiskLibrary, LibraryOptions as DiskLibraryOptions};
//! use vixmntapi_sys::{OpenFlags, load::{Library, LibraryOptions, MountMode}};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = "/usr/lib/vmware-vix-disklib";
//! let disks = DiskLibrary::load(directory, DiskLibraryOptions::default())?;
//! let library = Library::load(&disks, directory, LibraryOptions::default())?;
//! let local = disks.connect(ConnectSpec::local()).wait()?;
//! let set = library.open_disks(&local, &["/images/a.vmdk"], OpenFlags::READ_ONLY)?;
//! for volume in set.volumes()? {
//!     let mounted = volume.mount(MountMode::ReadOnly)?;
//!     println!("{:?}", mounted.folder());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What makes misuse impossible
//! - `Init` runs once a process, and only on a disk library that is begun: loading again gives the library that is
//!   there, or an error that says why not. `Exit` comes when it was shut down and its last user is gone, and before that
//!   of the disk library, which it keeps.
//! - All calls run on the one thread on which the disk library opens and closes disks: they overlap neither with each
//!   other nor with that, whatever threads they are made from. They block until they are done.
//! - A [`Mounted`] keeps its [`Volume`], that its [`DiskSet`], that its connection or disks and the [`Library`]: drop
//!   them in any order. The calls come in this one: dismount, free the handles, close the set.
//! - What the library tells is copied and freed at once.
//! - What a platform cannot do is refused before the library is asked, where that is known: [`Error::Limit`].

mod api;
mod error;
mod info;
mod library;
mod limits;
mod registry;
mod search;
mod set;
mod text;
mod volume;

pub use self::{
    api::Api,
    error::{Error, Failure, Result},
    info::{OsInfo, SetInfo, VolumeInfo},
    library::{Library, LibraryOptions},
    limits::Proxy,
    set::DiskSet,
    volume::{MountMode, Mounted, Volume},
};
pub use vixdisklib_sys::load::Attempt;
