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
//! Formats are told by their content: `createType` in a descriptor is only a hint, as other programs write it freely.
//!
//! | Format | Read, map | Write in place | Create | Grow | Check | Repair |
//! |---|---|---|---|---|---|---|
//! | raw | yes | yes | yes | yes | - | - |
//! | `monolithicFlat`, `vmfs` | yes; holes by `SEEK_HOLE` | yes | yes | yes | yes | chains |
//! | `vmfsThin`, `vmfsPreallocated`, `vmfsEagerZeroedThick` and other old names | as `vmfs` | as `vmfs` | as `vmfs` | as `vmfs` | yes | chains |
//! | `twoGbMaxExtentFlat` | yes | yes | yes | yes | yes | chains |
//! | `monolithicSparse`, `twoGbMaxExtentSparse` (`KDMV`, versions 1 to 3) | yes | yes | yes | yes | yes | yes |
//! | `custom`: flat, sparse and `ZERO` extents | yes | yes, but not into `ZERO` | no | its last extent | yes | sparse extents |
//! | `streamOptimized`, tables behind or in front | yes, by position; forward and damaged ones by [`stream`] | no | by [`stream`] | no | yes, with checksums | yes, from markers |
//! | `vmfsSparse` (`COWD`) | yes | no: ESXi alone does | no | no | yes | no second copy to repair from |
//! | `seSparse` 2.1 | yes; with a waiting journal only if asked | no: ESXi alone does | no | no | yes | no second copy to repair from |
//! | `vmfsRDM`, `vmfsRDMP`, `vmfsRaw`, `fullDevice`, `partitionedDevice`, `vsanSparse` | refused, saying where the bytes are and what to do | | | | | |
//!
//! All of them stand in chains: a child may lie over any other kind. New children are `KDMV` ([`create_child`]).
//! Disks have up to 62 TB; metadata in memory is bounded by [`OpenOptions::cache_bytes`], whatever the size.
//!
//! # What goes wrong with other readers
//! `ZERO` extents are not skipped, zeroed grains hide the parent, unmapped grains of `seSparse` are zero and not the
//! parent's, content ids are compared when a chain is opened and not at the first read through it, keys are found
//! without regard to case and never inside of comments. Reading past the end of a file is an error: a truncated disk
//! never looks like an empty one.
//!
//! # From one format to another
//! ```no_run
//! use vmdk::{ChildSpec, Disk, OpenOptions, check, create_child, stream};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any chain as one stream, for an OVA or a lease; packed on all processors, to a sink that cannot seek.
//! let chain = Disk::open("web-000002.vmdk", &OpenOptions::new())?;
//! let sink = std::fs::File::create("web-export.vmdk")?;
//! stream::export(&chain, sink, &stream::StreamSpec::new(chain.capacity()))?;
//!
//! // Is it sound? Deep: every grain is inflated and its checksum compared.
//! let report = check::check("web-export.vmdk", &check::CheckOptions::new().deep(true))?;
//! assert!(report.is_clean(), "{report}");
//!
//! // Something to write into, while the export stays as it is.
//! let scratch = create_child("web-export.vmdk", "scratch.vmdk", &ChildSpec::new())?;
//! scratch.write_at(0, &[0; 512])?;
//! scratch.close()?;
//! # Ok(())
//! # }
//! ```
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
