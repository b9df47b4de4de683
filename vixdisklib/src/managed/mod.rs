//! Disks on datastores that the server looks after: making, removing, growing and copying them.
//!
//! What is done here goes through the server's disk manager and its file service, whatever transport the data of open
//! disks take.

mod put;
mod upload;

use vmdk::AdapterType;
use vsphere_nfc::NfcOptions;
use vsphere_vim::{
    Method, MoRef, Poly, Vim,
    datastore::{Datastore, DatastorePath},
    methods::{CopyVirtualDisk_Task, CreateVirtualDisk_Task, DeleteVirtualDisk_Task, ExtendVirtualDisk_Task},
    mo,
    types::{FileBackedVirtualDiskSpec, VirtualDiskSpec},
};

use self::upload::receive;
use crate::{
    clone::CloneJob,
    create::{CreateSpec, DiskKind},
    error::{Error, Result},
    mode::TransportMode,
    progress::{Progress, tell},
};

/// A disk's place on a datastore.
pub(crate) struct ManagedPath {
    pub(crate) vim: Vim,
    pub(crate) store: Datastore,
    pub(crate) path: DatastorePath,
}

impl ManagedPath {
    /// Finds the datastore of `[ds1] web/web.vmdk`.
    pub(crate) async fn locate(vim: &Vim, path: &str) -> Result<Self> {
        let failed = |source| Error::Server {
            operation: "finding the datastore",
            of: path.to_owned(),
            source: Box::new(source),
        };
        let path: DatastorePath = path.parse().map_err(failed)?;
        let store = vim.find_datastore(path.datastore(), None).await.map_err(failed)?;
        Ok(Self { vim: vim.clone(), store, path })
    }

    /// Lets the server make an empty disk.
    pub(crate) async fn create(&self, spec: &CreateSpec) -> Result<()> {
        let args = CreateVirtualDisk_Task {
            name: self.path.to_string(),
            datacenter: Some(self.store.datacenter().clone()),
            spec: Poly::new(self.disk_spec(spec)?),
            ..Default::default()
        };
        self.run("creating", args, None).await
    }

    /// Lets the server remove a disk with its extents.
    pub(crate) async fn unlink(&self) -> Result<()> {
        let args = DeleteVirtualDisk_Task {
            name: self.path.to_string(),
            datacenter: Some(self.store.datacenter().clone()),
            ..Default::default()
        };
        self.run("removing", args, None).await
    }

    /// Lets the server make a disk larger, up to whole KiB. What is added is not zeroed before it is used.
    pub(crate) async fn grow(&self, capacity: u64, progress: Option<Progress>) -> Result<()> {
        let args = ExtendVirtualDisk_Task {
            name: self.path.to_string(),
            datacenter: Some(self.store.datacenter().clone()),
            new_capacity_kb: i64::try_from(capacity.div_ceil(1024)).unwrap_or(i64::MAX),
            eager_zero: Some(false),
            ..Default::default()
        };
        self.run("growing", args, progress).await
    }

    /// Lets the server copy a disk of its own to this place.
    ///
    /// A kind is asked for only where the caller wants one: vCenter is documented to refuse the specification.
    pub(crate) async fn copy_from(&self, from: &Self, spec: Option<&CreateSpec>, options: CopyOptions) -> Result<()> {
        let args = CopyVirtualDisk_Task {
            source_name: from.path.to_string(),
            source_datacenter: Some(from.store.datacenter().clone()),
            dest_name: self.path.to_string(),
            dest_datacenter: Some(self.store.datacenter().clone()),
            dest_spec: spec.map(|spec| Ok::<_, Error>(Poly::new(self.disk_spec(spec)?))).transpose()?,
            force: Some(options.overwrite),
            ..Default::default()
        };
        self.run("copying to", args, options.progress).await
    }

    async fn run<M>(&self, operation: &'static str, args: M, progress: Option<Progress>) -> Result<()>
    where
        M: Method<Output = MoRef<mo::Task>, Target = mo::VirtualDiskManager>,
    {
        let manager = self.vim.content().virtual_disk_manager.clone();
        let failed = |source| self.failed(operation, source);
        let missing = || failed(vsphere_vim::Error::NotFound { what: "the server's VirtualDiskManager".into() });
        let manager = manager.ok_or_else(missing)?;
        let task = self.vim.invoke(&manager, args).await.map_err(failed)?;
        let report = |done: vsphere_vim::task::TaskProgress| {
            tell(progress.as_ref(), done.percent.unwrap_or(0).into(), 100);
        };
        self.vim.wait(&task).on_progress(report).await.map_err(failed)?;
        tell(progress.as_ref(), 1, 1);
        Ok(())
    }

    fn failed(&self, operation: &'static str, source: vsphere_vim::Error) -> Error {
        Error::Server { operation, of: self.path.to_string(), source: Box::new(source) }
    }

    fn disk_spec(&self, spec: &CreateSpec) -> Result<FileBackedVirtualDiskSpec> {
        let disk_type = match spec.kind {
            DiskKind::VmfsFlat => "preallocated",
            DiskKind::VmfsThin => "thin",
            _ => return Err(not_a_managed_kind()),
        };
        let adapter_type = match spec.adapter {
            Some(AdapterType::Ide) => "ide",
            Some(AdapterType::BusLogic) => "busLogic",
            _ => "lsiLogic",
        };
        Ok(FileBackedVirtualDiskSpec {
            capacity_kb: i64::try_from(spec.capacity.div_ceil(1024)).unwrap_or(i64::MAX),
            base: VirtualDiskSpec {
                disk_type: disk_type.into(),
                adapter_type: adapter_type.into(),
                ..Default::default()
            },
            ..Default::default()
        })
    }
}

/// Makes a disk with the data of another one: by the server itself where it has both, else through this machine.
pub(crate) async fn clone_to(to: ManagedPath, job: &CloneJob, way: &Way<'_>) -> Result<()> {
    if let Some(vim) = &job.server
        && !are_different_servers(vim, &to.vim)
        && builds_upon(job, &to.path).await?
    {
        // Replacing it would remove what is to be read.
        return Err(Error::Exists { operation: "clone to", path: to.path.to_string() });
    }
    let Some(vim) = job.server.as_ref().filter(|vim| is_same_server(vim, &to.vim)) else {
        return receive(&to, job, way).await;
    };
    let from = ManagedPath::locate(vim, &job.name).await?;
    let spec = job.options.kind.map(|kind| job.spec(kind));
    let options = CopyOptions { overwrite: job.options.overwrite, progress: job.options.progress.clone() };
    match to.copy_from(&from, spec.as_ref(), options).await {
        // The disk of a running VM is locked for the server too, but not for who reads a snapshot; and not every server
        // copies to every kind.
        Err(error) if is_unable(&error) => {
            tracing::info!(from = %from.path, to = %to.path, %error, "the server does not copy; the data travels");
            receive(&to, job, way).await
        }
        done => done,
    }
}

/// Whether the source is that disk, or has it below it.
async fn builds_upon(job: &CloneJob, path: &DatastorePath) -> Result<bool> {
    let chain = job.source.chain().await?;
    // However they are written.
    let mut files = std::iter::once(&job.name).chain(&chain).filter_map(|file| file.parse::<DatastorePath>().ok());
    Ok(files.any(|file| file == *path))
}

fn is_same_server(one: &Vim, other: &Vim) -> bool {
    match (one.server_uuid(), other.server_uuid()) {
        (None, None) => one.endpoint() == other.endpoint(),
        (one, other) => one == other,
    }
}

/// Only vCenters have an id: a host may be reached by several names, and be one of a vCenter's.
fn are_different_servers(one: &Vim, other: &Vim) -> bool {
    one.server_uuid().zip(other.server_uuid()).is_some_and(|(one, other)| one != other)
}

fn is_unable(error: &Error) -> bool {
    let unable = ["NotSupported", "FileLocked", "InvalidDiskFormat", "MethodNotFound"];
    error.vim().is_some_and(|error| unable.iter().any(|fault| error.is_fault(fault)))
        || matches!(error, Error::NotOffered { .. })
}

/// How port 902 is reached, where data travel over it.
pub(crate) struct Way<'a> {
    pub(crate) mode: TransportMode,
    pub(crate) options: &'a NfcOptions,
}

/// How a copy on the server is made.
pub(crate) struct CopyOptions {
    pub(crate) overwrite: bool,
    pub(crate) progress: Option<Progress>,
}

/// Hosts make disks of their own kinds only.
pub(crate) fn not_a_managed_kind() -> Error {
    Error::NotOffered {
        operation: "make disks of this kind on a datastore",
        mode: TransportMode::Https,
        hint: "choose VmfsFlat or VmfsThin",
    }
}
