//! Importing: a new machine whose disks are filled from streams.

use std::{io, sync::Arc};

use vsphere_vim_types::{
    ImportSpec, MoRef, Poly, VirtualMachineConfigSpec, VirtualMachineImportSpec, methods::ImportVApp, mo,
};

use super::{Lease, LeaseDevice, LeaseOptions};
use crate::{
    client::Vim,
    error::{Error, Result, TransportError, TransportErrorKind},
    transport::{
        SESSION_COOKIE,
        stream::{StreamRequest, StreamVerb, Upload},
    },
};

/// What is to be imported, and where to.
#[derive(Clone, Debug)]
#[must_use]
pub struct ImportRequest {
    spec: Poly<ImportSpec>,
    pool: MoRef<mo::ResourcePool>,
    folder: Option<MoRef<mo::Folder>>,
    host: Option<MoRef<mo::HostSystem>>,
}

impl ImportRequest {
    /// A machine made from `config`, in the resources of `pool`. Its disks are those of the specification, and begin
    /// empty.
    #[doc(alias = "VirtualMachineImportSpec")]
    pub fn machine(config: VirtualMachineConfigSpec, pool: MoRef<mo::ResourcePool>) -> Self {
        Self::new(Poly::new(VirtualMachineImportSpec { config_spec: config, ..Default::default() }), pool)
    }

    /// Any specification, such as the one that `OvfManager.CreateImportSpec` makes of an OVF descriptor.
    pub fn new(spec: Poly<ImportSpec>, pool: MoRef<mo::ResourcePool>) -> Self {
        Self { spec, pool, folder: None, host: None }
    }

    /// The folder for the machine. Needed on vCenter, unless `pool` is a vApp.
    pub fn folder(self, folder: MoRef<mo::Folder>) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// The host for the machine; needed in clusters without DRS.
    pub fn host(self, host: MoRef<mo::HostSystem>) -> Self {
        Self { host: Some(host), ..self }
    }
}

impl Vim {
    /// Makes a machine and leases its disks for filling.
    ///
    /// # Errors
    /// [`Error::Fault`] with `DuplicateName`, `InvalidName`, `InvalidDatastore`, `InsufficientResourcesFault`, … when the
    /// server refuses the specification, at once or as the lease's own error; [`Error::TimedOut`] when it does not
    /// become ready.
    ///
    /// # Privileges
    /// `VApp.Import`, and those of making the machine.
    ///
    /// # Cancel safety
    /// A dropped future aborts the lease in the background, if the server had answered, and with it the machine.
    #[doc(alias = "ImportVApp")]
    pub async fn import(&self, request: ImportRequest, options: LeaseOptions) -> Result<ImportLease> {
        let ImportRequest { spec, pool, folder, host } = request;
        let lease = self.invoke(&pool, ImportVApp { spec, folder, host, ..Default::default() }).await?;
        Ok(ImportLease { lease: Lease::take(self, lease, &options).await? })
    }
}

/// A lease on disks to be filled. Dropping it aborts it, and the server removes the machine.
#[derive(Debug)]
pub struct ImportLease {
    lease: Lease,
}

impl ImportLease {
    /// The files that can be written.
    pub fn devices(&self) -> &[LeaseDevice] {
        &self.lease.devices
    }

    /// The machine that is being made.
    pub fn machine(&self) -> MoRef<mo::VirtualMachine> {
        self.lease.entity.cast()
    }

    /// States how many bytes will be written in all, for the progress that people see. Without it the progress is
    /// measured against the disks' capacity.
    pub fn expect(&self, bytes: u64) {
        self.lease.shared.expect(bytes);
    }

    /// Fills a disk with a `streamOptimized` VMDK, or writes another file as it is.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection breaks, the host refuses the data or the source fails; the lease's own
    /// failure when it is lost. The same device may be written again from the beginning.
    ///
    /// # Cancel safety
    /// A dropped future leaves the disk half written.
    pub async fn upload(&self, device: &LeaseDevice, upload: Upload) -> Result<()> {
        let shared = Arc::clone(&self.lease.shared);
        if let Some(failure) = shared.failure() {
            return Err(failure);
        }
        let counted = Arc::clone(&shared);
        let upload = upload.inspect(move |piece| {
            counted.add(piece.len() as u64);
            Ok::<(), io::Error>(())
        });
        // Disks are posted as streams; other files are put, over an older one if need be.
        let mut request = if device.is_disk {
            StreamRequest::new(StreamVerb::Post, device.target.clone())
                .header("content-type", "application/x-vnd.vmware-streamVmdk")
        } else {
            StreamRequest::new(StreamVerb::Put, device.target.clone())
                .header("content-type", "application/octet-stream")
                .header("overwrite", "t")
        };
        if device.target.is_on_server() {
            request.cookie = self.lease.vim.session().cookie_for_use().map(|cookie| (SESSION_COOKIE, cookie));
        }
        request.body = Some(upload);
        let response = tokio::select! {
            biased;
            () = shared.lost() => {
                let unknown = || Error::transport(OPERATION, TransportError::new(TransportErrorKind::Disconnected, "the lease is lost"));
                return Err(shared.failure().unwrap_or_else(unknown));
            }
            response = self.lease.vim.stream(OPERATION, request) => response?,
        };
        if (200..300).contains(&response.status) {
            return Ok(());
        }
        let kind = TransportErrorKind::HttpStatus(response.status);
        let text = format!("{}: {}", device.key, response.explanation().await);
        Err(Error::transport(OPERATION, TransportError::new(kind, text)))
    }

    /// Ends the lease: the machine is whole. Returns it.
    ///
    /// # Errors
    /// The lease's own failure when it is lost, and those of [`Vim::invoke`]. After an error the lease is aborted.
    ///
    /// # Cancel safety
    /// A dropped future aborts the lease in the background, if it was not completed.
    #[doc(alias = "HttpNfcLeaseComplete")]
    pub async fn complete(mut self) -> Result<MoRef<mo::VirtualMachine>> {
        self.lease.complete().await?;
        Ok(self.machine())
    }

    /// Gives the lease up, and with it the machine, and waits until the server knows.
    ///
    /// # Cancel safety
    /// A dropped future may leave the lease to time out.
    #[doc(alias = "HttpNfcLeaseAbort")]
    pub async fn abort(mut self) {
        self.lease.abort().await;
    }
}

const OPERATION: &str = "upload of a leased device";
