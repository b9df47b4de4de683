//! Async client for the vSphere Web Services API (`urn:vim25` over SOAP), made for backup programs.
//!
//! vCenter Server and ESXi from 4.0 on; one session shared by all tasks, which survives its own end; typed calls and
//! typed property rows; tasks with progress; and what a backup needs of virtual machines as plain values.
//! What was run against which servers is in the project's `STATUS.md`.
//!
//! ```no_run
//! use vsphere_vim::{CreateSnapshotOptions, Credentials, RemoveSnapshotOptions, Thumbprint, Vim, VmLookup};
//!
//! # async fn example(secret: String) -> vsphere_vim::Result<()> {
//! // TLS trust is always stated; nothing is trusted silently.
//! let pin: Thumbprint = "5D:9A:0C:...".parse()?;
//! let vim = Vim::builder("https://vc.example/sdk")
//!     .credentials(Credentials::password("svc-backup@vsphere.local", secret))
//!     .thumbprint(pin)
//!     .connect()
//!     .await?;
//!
//! let vm = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await?;
//! let options = CreateSnapshotOptions::new("nightly").description("backup program, run 7").quiesce(true);
//! let snapshot = vim.create_snapshot(&vm.moref, options).await?;
//! for disk in vim.snapshot_disks(&snapshot).await? {
//!     println!("{} {} bytes, change id {:?}", disk.label, disk.capacity, disk.backing.change_id);
//! }
//! vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await?;
//! vim.logout().await
//! # }
//! ```
//!
//! # Map
//! - [`Vim`]: the connection, made by [`Vim::builder`]. Everything below hangs on it as methods.
//! - [`trust`], [`transport`], [`version`]: how bytes get to the right server in the right dialect.
//! - [`credentials`], [`sts`]: who logs in, and tokens from vCenter's token service.
//! - [`Vim::invoke`], [`Vim::invoke_dynamic`]: any method, typed or by name; [`types`] is the data model.
//! - [`property`]: typed paths in, typed rows out, page by page; [`Vim::get`] and [`Vim::read`] for one object.
//! - [`watch`]: the same rows followed: what entered, changed and left; [`Vim::inventory`]: the tree in memory.
//! - [`task`]: [`Vim::wait`] with progress, cancellation and limits.
//! - [`inventory`]: finding virtual machines and all else, and knowing them again; folders and vApps.
//! - [`vm`]: life cycle, details, power, configuration, snapshots, changed areas; [`device`]: devices and changes to
//!   them; [`config_spec`]: from a kept configuration to a new machine.
//! - [`datastore`]: files in datastores, and what Windows said about a quiesced snapshot.
//! - [`lease`]: whole disks exported and imported as streams.
//! - [`fcd`]: First Class Disks of vCenter, ESXi and the storage lifecycle service ([`vslm`]).
//! - [`events`]: what has happened on the server, from its history or as it happens; [`alarms`]: what has gone off.
//! - [`nfc_ticket`]: tickets for disk data over port 902; [`method_lock`]: keeping a machine in its place.
//! - [`error`]: whose fault it is, whether retry helps, what to do next.
//!
//! # Absent on purpose
//! The crate reads no environment and no files, but for a CA file that the caller names and the operating system's
//! roots when the caller asks for them. There is no mode that accepts any certificate.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails may panic"))]

pub mod alarms;
mod builder;
mod call;
mod client;
pub mod config_spec;
pub mod credentials;
pub mod datastore;
pub mod device;
mod endpoint;
pub mod error;
pub mod events;
pub mod fcd;
mod gate;
pub mod inventory;
pub mod lease;
pub mod method_lock;
pub mod nfc_ticket;
mod paged;
pub mod property;
mod retry;
mod secret;
mod session;
pub mod sts;
pub mod task;
pub mod transport;
pub mod trust;
pub mod version;
pub mod vm;
pub mod vslm;
pub mod watch;

pub use vsphere_vim_types as types;
pub use vsphere_vim_types::{Any, DateTime, ManagedObjectReference, Method, MoRef, Poly, PropertyPath, methods, mo};

pub use self::{
    builder::VimBuilder,
    call::CallOptions,
    client::{SessionInfo, Vim},
    credentials::Credentials,
    device::{DeviceKey, VirtualDiskInfo},
    endpoint::Endpoint,
    error::{Error, Result},
    gate::{NewerFields, NewerMethods},
    inventory::{VmLookup, VmRef},
    nfc_ticket::{DiskAccess, NfcTicket},
    retry::RetryPolicy,
    secret::Secret,
    trust::{Thumbprint, TlsTrust},
    vm::{CreateSnapshotOptions, PowerState, RemoveSnapshotOptions},
    vslm::Vslm,
};
