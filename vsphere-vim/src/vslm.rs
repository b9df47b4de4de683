//! Storage lifecycle management (VSLM): vCenter's service for First Class Disks wherever they lie.
//!
//! It is a SOAP service of its own (`/vslm/sdk`, namespace `urn:vslm`) that takes the main service's session. [`Vslm::invoke`]
//! calls any method of it.

mod task;

use std::{fmt, sync::Arc};

use vsphere_vim_types::{ManagedObjectReference, Method, MoRef, VslmServiceInstanceContent, methods, mo};

pub use self::task::VslmWait;
use crate::{
    call::CallOptions,
    client::{Service, Vim},
    error::{Error, Result},
    version::WireVersion,
};

/// The storage lifecycle management service of a vCenter Server. Clones share the session of the [`Vim`] that made it.
#[derive(Clone)]
pub struct Vslm {
    vim: Vim,
    inner: Arc<Inner>,
}

struct Inner {
    service: Service,
    version: WireVersion,
    content: VslmServiceInstanceContent,
}

impl Vim {
    /// Opens the storage lifecycle management service in this session.
    ///
    /// The service publishes no list of versions that is known to us; the newest one that belongs to the main
    /// service's release is spoken. [`Vim::vslm_version`] says otherwise.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on ESXi and before vCenter 6.7 U2.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vCenter 6.7 U2.
    #[doc(alias = "VslmServiceInstance")]
    pub async fn vslm(&self) -> Result<Vslm> {
        let newest = VERSIONS.iter().find(|version| self.version().is_at_least(version));
        let version = newest.ok_or_else(|| Error::unsupported(SERVICE, "it came with vCenter Server 6.7 U2"))?;
        self.vslm_version(WireVersion::new(version)?).await
    }

    /// Opens the storage lifecycle management service in a version of the caller's choice.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on ESXi; a fault when the service does not know the version.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn vslm_version(&self, version: WireVersion) -> Result<Vslm> {
        if !self.is_vcenter() {
            return Err(Error::unsupported(SERVICE, "an ESXi host does not offer it"));
        }
        let service = Service::beside(PATH, NAMESPACE, &version);
        let instance = MoRef::<mo::VslmServiceInstance>::new("ServiceInstance");
        let options = CallOptions::default();
        let content = self.invoke_at(&service, &instance, methods::RetrieveContent::default(), options).await?;
        Ok(Vslm { vim: self.clone(), inner: Arc::new(Inner { service, version, content }) })
    }
}

impl Vslm {
    /// What the service is made of.
    #[doc(alias = "VslmServiceInstanceContent")]
    pub fn content(&self) -> &VslmServiceInstanceContent {
        &self.inner.content
    }

    /// The version of the service that is spoken.
    pub fn version(&self) -> &WireVersion {
        &self.inner.version
    }

    /// The connection that it belongs to.
    pub fn vim(&self) -> &Vim {
        &self.vim
    }

    /// Calls a method of one of the service's objects.
    ///
    /// Methods whose names end in `_Task` return a task of the service; follow it with [`Vslm::wait`].
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// As [`Vim::invoke`].
    pub async fn invoke<M: Method>(&self, this: &MoRef<M::Target>, args: M) -> Result<M::Output> {
        self.vim.invoke_at(&self.inner.service, this, args, CallOptions::default()).await
    }

    /// Waits until a task of the service has ended. Await the returned [`VslmWait`], after adding progress,
    /// cancellation or a limit.
    #[doc(alias = "VslmQueryInfo")]
    pub fn wait<'a>(&self, task: &MoRef<mo::VslmTask>) -> VslmWait<'a> {
        VslmWait::new(self.clone(), task.clone())
    }

    /// The service's manager of First Class Disks, for calls that have no method here.
    #[doc(alias = "VslmVStorageObjectManager")]
    pub fn disk_manager(&self) -> MoRef<mo::VslmVStorageObjectManager> {
        self.inner.content.v_storage_object_manager.clone()
    }
}

impl fmt::Debug for Vslm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manager: &ManagedObjectReference = self.inner.content.v_storage_object_manager.as_untyped();
        f.debug_struct("Vslm").field("vim", &self.vim).field("manager", manager).finish_non_exhaustive()
    }
}

const SERVICE: &str = "storage lifecycle management (VSLM)";
const NAMESPACE: &str = "urn:vslm";
const PATH: &str = "/vslm/sdk";

/// The versions of the service, newest first; they are numbered as those of the main service.
const VERSIONS: [&str; 6] = ["9.0.0.0", "7.0.2.0", "7.0.1.0", "7.0.0.0", "6.7.3", "6.7.2"];
