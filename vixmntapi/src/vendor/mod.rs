//! VMware's own library, where it is installed. Feature `vendor`; Linux only, as a library for Windows cannot be loaded here.
//!
//! Nothing of it is needed to build: it is found at run time. It was never run with VMware's own library here, only with
//! libraries of the same interface that tests make.
//!
//! ```no_run
//! use vixmntapi::vendor::{ConnectSpec, DiskLibrary, DiskLibraryOptions, LibraryOptions, VixMntapi};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = "/usr/lib/vmware-vix-disklib";
//! let disks = DiskLibrary::load(directory, DiskLibraryOptions::default())?;
//! let vendor = VixMntapi::load(&disks, directory, LibraryOptions::default())?;
//! let connection = disks.connect(ConnectSpec::local()).wait()?;
//! let set = vendor.open(&connection, &["/images/web.vmdk"])?;
//! for volume in set.volumes()? {
//!     let mounted = volume.mount()?;
//!     for entry in std::fs::read_dir(mounted.folder())? {
//!         println!("{}", entry?.path().display());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Programs with `vixdisklib` and its feature `vddk` have the disk library already: `vddk::Library::as_sys` is what
//! [`VixMntapi::load`] takes. All calls block, dropping too, until VMware's library is done; never call them from a task of
//! an async runtime. They come one after the other, on the thread on which disks are opened and closed.
//!
//! The calls are those of [`set`](crate::set), and so are the lifetimes: a [`Mounted`] keeps its [`Volume`], that its
//! [`DiskSet`], that its connection. What is dropped last dismounts, closes and frees, in the order that VMware asks for.
//! A program that wants to choose at run time takes the types of [`backend`](crate::backend).
//!
//! Files are those of a folder that VMware's library has mounted: read them with [`std::fs`] below [`Mounted::folder`],
//! or as a [`FileSystem`](crate::fs::FileSystem) by [`Mounted::file_system`], which everything of this crate takes, and
//! which never follows a link out of the volume.
//!
//! # What it can do, and the reader of this project
//! | | VMware's on Windows | VMware's on Linux | [`set`](crate::set) |
//! |---|---|---|---|
//! | how | driver `vstor2-mntapi` | FUSE, loop devices, the kernel's file systems; root | in this process |
//! | disks of a set | any number | exactly one | any number |
//! | volumes | MBR, GPT, dynamic disks (several disks: read-only) | partitions only; no LVM, no swap, no extended partition | MBR, GPT, LVM2, md, dynamic disks |
//! | file systems | FAT, NTFS, ReFS (read-only) | what the kernel of the proxy mounts | ext2 to 4, XFS, Btrfs, NTFS, FAT, exFAT, ISO 9660 |
//! | guests of the other family | no | no | yes |
//! | what is installed | Windows, its first boot entry; the system volume mounted before | nothing | Linux and Windows, all installations |
//! | where the guest mounts it | yes | not told | yes |
//! | journal of a volume that was in use | the system's, which wants to write | the kernel's, which wants to write | replayed in memory |
//! | transports | all | before VDDK 6.7.1 `file` and `nbd` | all, and recovery points of backups |
//! | at the same time | one program a machine | one program a machine | any number |
//!
//! Known before the library is asked, and then refused with the reason: several disks on Linux, a set of open disks where
//! there is no `OpenDiskSet`, asking what is installed on Linux, writing to a set that was opened for reading
//! ([`LibraryError::Limit`], [`LibraryError::NotThere`]). The rest is the library's answer.
//!
//! This module opens disks for reading and mounts for reading, as all of this crate. That the mount is read-only does not
//! override how disks are opened: both are asked for. Where VMware's library has to write (a dirty file system, the
//! systems of dynamic disks), put a child in front of the disk and use [`vixmntapi_sys::load`].

mod folder;
mod library;
mod seen;
mod set;

pub use vixdisklib_sys::load::{
    ConnectSpec, Connection, Library as DiskLibrary, LibraryOptions as DiskLibraryOptions, Login, Object,
};
pub use vixmntapi_sys::{
    OpenFlags, OsFamily, VixCode, VixError, VolumeType,
    load::{Error as LibraryError, Failure, LibraryOptions, OsInfo, Proxy, SetInfo, VolumeInfo},
};

pub use self::{
    library::VixMntapi,
    set::{DiskSet, Mounted, Volume},
};
