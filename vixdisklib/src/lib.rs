//! Virtual disks of VMware vSphere, local and remote: connections and disks that close themselves.
//!
//! ```no_run
//! use vixdisklib::{Access, Connection};
//! use vsphere_vim::{MoRef, Vim, mo};
//!
//! # async fn example(vim: Vim, vm: MoRef<mo::VirtualMachine>) -> vixdisklib::Result<()> {
//! let disks = Connection::connect(&vim, &vm, Access::ReadOnly, "nbdssl").await?;
//! let disk = disks.open("[ds1] web/web.vmdk").await?;
//! println!("{} bytes over {}", disk.capacity(), disk.transport());
//! for range in disk.allocated(0..disk.capacity()).await?.areas {
//!     let len = (range.end - range.start).min(1 << 20) as usize;
//!     let bytes = disk.read_at(range.start, len).await?; // `&self`: have many in flight
//!     # let _ = bytes;
//! }
//! disk.close().await
//! # }
//! ```
//!
//! # Transports
//! | Name | What | Disks are named by |
//! |---|---|---|
//! | `nbdssl` | NFC over port 902, encrypted | datastore path: `[ds1] web/web.vmdk` |
//! | `nbd` | the same with the data in clear; used only where it is named | datastore path |
//! | `file` | files of this machine: VMDK of all kinds, raw | file path |
//! | `https` | files of a datastore through the server's `/folder`, for reading ([`https`]) | datastore path |
//! | `san`, `hotadd` | the SAN, or a disk attached to this VM: by VMware's library, feature `vddk` | datastore path |
//!
//! [`TransportList::default`] is what this version can use, in VMware's order. A list such as `nbdssl:nbd` is tried
//! from left to right for every disk; [`Disk::transport`] tells which it was and [`Disk::passed_over`] why the ones
//! before it were not. A certificate that is not the expected one ends the search:
//! nothing falls back to clear text because of it.
//!
//! # VixDiskLib's functions
//! What VMware's library does, what does it here, and over which transports. *Server* means that the server does it, for
//! disks on its datastores, whatever transport their data take; what a transport does not offer it refuses by name
//! ([`Error::NotOffered`]).
//!
//! | VixDiskLib_ | Here | `file` | `nbd`, `nbdssl` | `https` | VMware's library |
//! |---|---|---|---|---|---|
//! | Init, InitEx | nothing to do | | | | `vddk::Library::load` |
//! | Exit | nothing to do | | | | `vddk::Library::shut_down` |
//! | ListTransportModes | [`Connection::list_transport_modes`] | | | | `vddk::Library::transport_modes` |
//! | Connect, ConnectEx | [`Connection::local`], [`Connection::connect`], [`ConnectionOptions::snapshot`] | yes | yes | yes | yes; told the server by `ConnectionOptions::vddk_server` |
//! | Disconnect | dropping the last clone of a connection | | | | yes, of each disk |
//! | AllocateConnectParams, GetConnectParams, FreeConnectParams | Rust values; [`Disk::connection`] | | | | |
//! | PrepareForAccess, EndAccess | [`access::prepare_for_access`], [`access::end_access`] | not needed | vCenter | vCenter | vCenter; ours, not the library's |
//! | Cleanup | [`access::clean_up`] | not needed | vCenter | vCenter | `vddk::Library::clean_up` |
//! | Open | [`Connection::open`], [`Connection::open_with`] | yes | yes; a single link where the host has the asynchronous layer | for reading | yes |
//! | Close | [`Disk::close`] | yes | yes | yes | yes |
//! | GetTransportMode | [`Disk::transport`] | yes | yes | yes | what the library says |
//! | GetInfo, FreeInfo | [`Disk::info`] | yes | yes | yes | yes |
//! | Read, ReadAsync | [`Disk::read_at`], many at once | yes | yes | yes, with read-ahead | yes |
//! | Write, WriteAsync | [`Disk::write_at`], many at once | yes | yes | no: [`https::upload_disk`] | yes |
//! | Flush | [`Disk::flush`] | syncs | every write is confirmed | nothing to do | yes |
//! | Wait | [`Disk::wait`] | yes | yes | yes | yes |
//! | QueryAllocatedBlocks, FreeBlockList | [`Disk::allocated`], [`Disk::allocated_in_chunks`] | yes | when open for reading | yes | when open for reading |
//! | ReadMetadata | [`Disk::metadata`] | yes | yes | yes | yes |
//! | GetMetadataKeys | [`Disk::metadata_keys`] | yes | those of VMware's programs | yes | yes |
//! | WriteMetadata | [`Disk::set_metadata`] | yes | no: clone it | no | yes |
//! | Create | [`Connection::create`] | all but stream-optimized | server: thin, thick | no: [`https::upload_disk`] | over `file` |
//! | CreateChild | [`Disk::create_child`] | yes | no: create a snapshot | no | yes |
//! | Clone | [`clone_disk`] | all kinds, from anywhere | server, or thick and thin stored as a whole, over `/folder` where the host refuses | the source | the source; over `file` the target, by our own |
//! | SpaceNeededForClone | [`Disk::space_needed_for_clone`] | yes | yes | yes | yes, by [`Disk::allocated`] |
//! | Unlink | [`Connection::unlink`] | yes | server | no | over `file` |
//! | Rename | [`rename`] | yes | no | no | no |
//! | Grow | [`Connection::grow`] | yes | server | no | over `file` |
//! | Shrink | [`Disk::shrink`] | yes | no | no | yes |
//! | Defragment | [`Disk::defragment`] | base disks in one sparse file | no | no | yes |
//! | CheckRepair | [`Connection::check_repair`] | yes | no | no | over `file`, by our own |
//! | IsAttachPossible, Attach | [`Disk::is_attach_possible`], [`Disk::attach`] | the child | the parent | the parent | the parent |
//! | GetErrorText, FreeErrorText | [`Error`]: `Display`, [`Error::hint`] | | | | the library's words are in the error |
//!
//! Functions that free memory, and `Init` and its like but for VMware's library, have a counterpart in the C interface
//! only. The last column is what that library does where it is used ([feature `vddk`](#modules)): over `san` and
//! `hotadd`, or over all but `https`. What it cannot do over a transport it refuses with an error code of its own.
//!
//! A [`lease`] is no transport: it reads or writes whole disks from front to back. Of the functions above it has
//! the counterparts of `Connect` ([`lease::LeaseSource::of_vm`], [`lease::LeaseSource::of_snapshot`]), `Open` and `Read`
//! ([`lease::LeaseSource::read`], [`lease::LeaseDisk::next`]), `GetInfo` ([`lease::LeaseDisk::capacity`],
//! [`lease::LeaseDisk::descriptor`]), `Create` with a new VM ([`lease::LeaseTarget::import`]), `Write`
//! ([`lease::LeaseTarget::write`]), `Clone` of an open disk to it ([`lease::LeaseTarget::write_disk`]) and `Close`
//! ([`lease::LeaseSource::complete`], [`lease::LeaseTarget::complete`]), and no other.
//!
//! # Modules
//! - [`Connection`], [`ConnectionOptions`]: where disks come from
//! - [`Disk`], [`DiskInfo`], [`Allocation`]: positioned reads and writes, in bytes
//! - [`TransportMode`], [`TransportList`]: the names above
//! - [`DiskBackend`]: something of the caller's own as a [`Disk`]
//! - `blocking` (feature `blocking`): the same for callers without async
//! - [`CreateSpec`], [`DiskKind`], [`clone_disk`], [`rename`]: disks as a whole
//! - [`access`]: a VM that must not move while it is read
//! - [`Governor`], [`GovernorLimits`]: limits, bandwidth and turns of many disks
//! - `vddk` (feature `vddk`): VMware's library, loaded at run time, for `san` and `hotadd` or for everything
//! - `nbd` (feature `nbd-server`): any disk for qemu, nbdcopy and the Linux kernel
//! - [`https`]: settings and errors of the transport, and whole disks put into a datastore
//! - [`lease`]: whole disks read and written from front to back, without port 902

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))] // Lists of one range are what tests expect.

pub mod access;
mod allocation;
mod attach;
mod backend;
#[cfg(feature = "blocking")]
pub mod blocking;
mod clone;
mod connection;
mod create;
mod disk;
mod error;
mod governor;
pub mod https;
mod info;
pub mod lease;
mod machine;
mod managed;
mod mode;
#[cfg(feature = "nbd-server")]
pub mod nbd;
mod open;
mod options;
mod progress;
mod transport;
mod upkeep;
#[cfg(all(feature = "vddk", unix))]
pub mod vddk;

pub use vsphere_nfc::CompressionWish;

pub use self::{
    allocation::{Allocation, AllocationBasis, Holes},
    backend::{BackendError, BackendFuture, DiskBackend},
    clone::{CloneOptions, clone_disk},
    connection::Connection,
    create::{CreateSpec, DiskKind},
    disk::Disk,
    error::{AttachProblem, Attempt, Error, Result},
    governor::{Governor, GovernorLimits, GovernorUsage},
    info::{DiskInfo, Geometry},
    machine::ListedDisk,
    mode::{TransportList, TransportMode},
    open::{Access, OpenOptions},
    options::ConnectionOptions,
    progress::Progress,
    transport::{DatastoreTickets, VmTickets},
    upkeep::{CheckOutcome, rename},
};
