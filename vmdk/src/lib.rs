//! VMDK virtual disks: read, map, write and check.
//!
//! ```no_run
//! use vmdk::{CopyOptions, CreateKind, CreateSpec, Disk, OpenOptions, convert};
//!
//! # fn main() -> vmdk::Result<()> {
//! let source = Disk::open("web.vmdk", &OpenOptions::new())?;
//! let mut first = [0; 512];
//! source.read_at(0, &mut first)?;
//! for entry in source.map(0..source.capacity()) {
//!     let entry = entry?;
//!     println!("{:?} is {:?}", entry.range, entry.kind);
//! }
//! let spec = CreateSpec::new(source.capacity(), CreateKind::MonolithicSparse);
//! convert(&source, "copy.vmdk", &spec, &CopyOptions::new())?.close()
//! # }
//! ```
//!
//! # Formats
//! | Format | Read, map | Write in place | Create |
//! |---|---|---|---|
//! | raw | yes | yes | yes |
//! | `monolithicFlat`, `twoGbMaxExtentFlat`, `vmfs` and its variants | yes | yes | all but the old names |
//! | `monolithicSparse`, `twoGbMaxExtentSparse` (KDMV) | yes | yes | yes |
//! | `custom` with flat, sparse and `ZERO` extents | yes | yes, but not into `ZERO` | no |
//! | children of the above (snapshot chains) | yes | yes, flat excepted | sparse ([`create_child`]) |
//! | `streamOptimized` | yes, by position; and as a stream ([`stream`]) | no | as a stream |
//! | `vmfsSparse` (COWD), `seSparse` | yes; with a journal to replay only if asked | no: ESXi alone does | no |
//! | raw device mappings, devices of a host, `vsanSparse` | refused, saying where the bytes are | | |
//!
//! # Modules
//! - [`descriptor`]: the text descriptor, edited without loss
//! - [`layout`]: binary headers, parsed and checked without I/O
//! - [`source`]: positioned byte sources ([`ReadAt`], [`WriteAt`])
//! - [`Disk`]: one virtual disk with its extents and parents
//! - `AsyncDisk` (feature `async`): the same to read, over sources behind a network
//! - [`create`](create()), [`create_child`]: new disks
//! - [`grow`], [`rename`], [`unlink`]: upkeep of disks with all their files
//! - [`copy`](copy()), [`convert`]: whole disks from one image to another
//! - [`stream`]: `streamOptimized` disks, written and read forward
//! - [`check`](mod@check): what is wrong with a disk, and how bad it is
//! - [`repair`]: what can be put right, in a copy or in place
//! - `ova` (feature `ova`): OVF packages and OVA archives
//! - [`Image`]: the object-safe view of a disk that other crates take
//!
//! Everything in an image file is taken as hostile: header fields bound no allocation unchecked, arithmetic
//! is checked, names in descriptors cannot leave the directory unless [`PathPolicy::Any`] says so.
//!
//! Formats, opening and the walk through a chain are plain code without I/O. [`Disk`] drives it with blocking
//! positioned reads through `&self`, `AsyncDisk` with futures that any executor can poll; there is no runtime and no
//! global state.

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

mod cache;
pub mod check;
mod copy;
mod create;
pub mod descriptor;
mod disk;
mod error;
mod extent;
mod grains;
mod image;
pub mod layout;
#[cfg(feature = "ova")]
pub mod ova;
pub mod repair;
pub mod source;
pub mod stream;
mod upkeep;

pub use crate::{
    copy::{Copied, CopyOptions, convert, copy},
    create::{ChildSpec, CreateKind, CreateSpec, MAX_CAPACITY, create, create_child},
    descriptor::{AdapterType, Cid, CreateType, Descriptor, DiskUuid},
    disk::{Access, Disk, Format, LinkInfo, LocalFiles, MapIter, OpenOptions, PathPolicy, Resolver},
    error::{ChainProblem, Error, Result},
    image::{Image, MapEntry, MapKind},
    source::{FileSource, Handle, MemSource, ReadAt, SourceMap, SourceRun, WriteAt},
    upkeep::{GrowOptions, grow, rename, unlink},
};
#[cfg(feature = "async")]
pub use crate::{
    disk::AsyncDisk,
    source::{AsyncReadAt, AsyncResolver, SourceHint},
};

/// Bytes of a sector, the unit of all sizes and offsets inside VMDK files.
pub const SECTOR: u64 = 512;
