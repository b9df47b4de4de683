//! A connection of the library: where disks are opened, and what is done to disks by path.

use std::{fmt, ptr, sync::Arc};

use super::{
    answer::{Answer, answer},
    disk::Disk,
    error::{Error, Result},
    library::{Library, check, need, pointer},
    progress::{self, Progress},
    spec::{ConnectSpec, ConnectTexts, CreateSpec},
    text, worker,
};
use crate::{
    constants::OpenFlags,
    types::{ConnectionHandle, Sectors},
};

/// A connection. Cheap to clone; disks keep it. It ends when the last clone and the last disk are gone.
#[doc(alias = "VixDiskLibConnection")]
#[doc(alias = "VixDiskLib_Disconnect")]
#[derive(Clone)]
pub struct Connection {
    raw: Arc<RawConnection>,
}

/// A pointer of the library's.
///
/// The manual lets handles move between threads as long as calls on one handle do not overlap. Each is used by one
/// thread only: a connection's by that of the library, a disk's by its own.
pub(super) struct Handle<T>(pub(super) *mut T);

// SAFETY: see the type: moving is what the manual allows.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: a shared reference gives away the pointer's value only; what is done with it, one thread does.
unsafe impl<T> Sync for Handle<T> {}

pub(super) struct RawConnection {
    handle: Handle<crate::types::ConnectionObject>,
    name: String,
    library: Library,
}

/// What a connection was made with, as the library tells it. Never the password.
#[doc(alias = "VixDiskLib_GetConnectParams")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectedTo {
    /// The server.
    pub server: Option<String>,
    /// The virtual machine.
    pub vm: Option<String>,
    /// Ports of the management service and of NFC.
    pub ports: (u32, u32),
}

impl RawConnection {
    /// On the library's thread.
    pub(super) fn open(library: Library, spec: &ConnectSpec) -> Result<Self> {
        let api = library.api();
        let texts = ConnectTexts::new(api, spec)?;
        let mut handle: ConnectionHandle = ptr::null_mut();
        let (snapshot, transports) = (pointer(texts.snapshot.as_ref()), pointer(texts.transports.as_ref()));
        // SAFETY: the library is begun; parameters and texts live during the call, and it stores a handle if it succeeds.
        let error =
            unsafe { (api.connect_ex)(texts.as_ptr(), texts.read_only.into(), snapshot, transports, &mut handle) };
        let name = spec.name();
        check(api, "VixDiskLib_ConnectEx", &name, error)?;
        if handle.is_null() {
            return Err(Error::Nothing { function: "VixDiskLib_ConnectEx" });
        }
        Ok(Self { handle: Handle(handle), name, library })
    }

    pub(super) fn library(&self) -> &Library {
        &self.library
    }
}

/// Ends the connection on the library's thread. Its disks are closed: each keeps the connection until after that.
impl Drop for RawConnection {
    fn drop(&mut self) {
        let (handle, name, library) = (Handle(self.handle.0), std::mem::take(&mut self.name), self.library.clone());
        let _ended = self.library.on_opener(move || {
            let handle = handle;
            // SAFETY: connected by this library, without disks, and disconnected once.
            let error = unsafe { (library.api().disconnect)(handle.0) };
            // A failure is in the library's log; nobody is left to tell.
            check(library.api(), "VixDiskLib_Disconnect", &name, error)
        });
    }
}

impl Connection {
    pub(super) fn new(raw: RawConnection) -> Self {
        Self::from_raw(Arc::new(raw))
    }

    pub(super) fn from_raw(raw: Arc<RawConnection>) -> Self {
        Self { raw }
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.raw.library
    }

    /// The library's own handle, for calls of other libraries of VMware's. It is valid as long as this, a clone or a
    /// disk is kept, and used [on the library's thread](Library::on_opener) only.
    pub fn as_ptr(&self) -> ConnectionHandle {
        self.raw.handle.0
    }

    /// Opens a disk: `[ds] dir/x.vmdk`, a file of this machine, or the id of a first class disk.
    #[doc(alias = "VixDiskLib_Open")]
    pub fn open(&self, path: &str, flags: OpenFlags) -> Answer<Disk> {
        let (asker, answer) = answer();
        let (raw, path) = (Arc::clone(&self.raw), path.to_owned());
        let _done = self.raw.library.on_opener(move || {
            worker::open(raw, path, flags, asker);
            Ok(())
        });
        answer
    }

    /// Creates a disk of this machine.
    #[doc(alias = "VixDiskLib_Create")]
    pub fn create(&self, path: &str, spec: CreateSpec, progress: Option<Progress>) -> Answer<()> {
        let path = path.to_owned();
        self.on_opener(move |raw| {
            let (api, text, params) = (raw.library.api(), text::to_c("path", &path)?, spec.to_c());
            let (report, data) = progress::to_c(progress.as_ref());
            // SAFETY: connected; text, parameters and listener live during the call.
            let error = unsafe { (api.create)(raw.handle.0, text.as_ptr(), &params, report, data) };
            check(api, "VixDiskLib_Create", &path, error)
        })
    }

    /// Deletes a disk with its extents.
    #[doc(alias = "VixDiskLib_Unlink")]
    pub fn unlink(&self, path: &str) -> Answer<()> {
        let path = path.to_owned();
        self.on_opener(move |raw| {
            let (api, text) = (raw.library.api(), text::to_c("path", &path)?);
            let function = need(api.unlink, "VixDiskLib_Unlink")?;
            // SAFETY: connected; the text lives during the call.
            let error = unsafe { function(raw.handle.0, text.as_ptr()) };
            check(api, "VixDiskLib_Unlink", &path, error)
        })
    }

    /// Makes a disk larger.
    #[doc(alias = "VixDiskLib_Grow")]
    pub fn grow(&self, path: &str, capacity: Sectors, update_geometry: bool, progress: Option<Progress>) -> Answer<()> {
        let path = path.to_owned();
        self.on_opener(move |raw| {
            let (api, text) = (raw.library.api(), text::to_c("path", &path)?);
            let function = need(api.grow, "VixDiskLib_Grow")?;
            let (report, data) = progress::to_c(progress.as_ref());
            // SAFETY: connected; text and listener live during the call.
            let error =
                unsafe { function(raw.handle.0, text.as_ptr(), capacity, update_geometry.into(), report, data) };
            check(api, "VixDiskLib_Grow", &path, error)
        })
    }

    /// Checks a sparse disk, and repairs it if asked to.
    #[doc(alias = "VixDiskLib_CheckRepair")]
    pub fn check_repair(&self, path: &str, repair: bool) -> Answer<()> {
        let path = path.to_owned();
        self.on_opener(move |raw| {
            let (api, text) = (raw.library.api(), text::to_c("path", &path)?);
            let function = need(api.check_repair, "VixDiskLib_CheckRepair")?;
            // SAFETY: connected; the text lives during the call.
            let error = unsafe { function(raw.handle.0, text.as_ptr(), repair.into()) };
            check(api, "VixDiskLib_CheckRepair", &path, error)
        })
    }

    /// Copies a disk of another connection of the same library to this one. The capacity of `spec` is not looked at.
    ///
    /// It holds up every other opening and closing of the library until it is done.
    #[doc(alias = "VixDiskLib_Clone")]
    pub fn clone_disk(
        &self,
        path: &str,
        from: &Self,
        from_path: &str,
        spec: CreateSpec,
        progress: Option<Progress>,
        overwrite: bool,
    ) -> Answer<()> {
        let (path, from_path, from) = (path.to_owned(), from_path.to_owned(), from.clone());
        self.on_opener(move |raw| {
            let (api, params) = (raw.library.api(), spec.to_c());
            let (to_text, from_text) = (text::to_c("path", &path)?, text::to_c("path", &from_path)?);
            let function = need(api.clone, "VixDiskLib_Clone")?;
            let (report, data) = progress::to_c(progress.as_ref());
            let (to_text, from_text) = (to_text.as_ptr(), from_text.as_ptr());
            let (to, from, overwrite) = (raw.handle.0, from.raw.handle.0, overwrite.into());
            // SAFETY: both connected, by the one library there is; texts, parameters and listener live during the call.
            let error = unsafe { function(to, to_text, from, from_text, &params, report, data, overwrite) };
            check(api, "VixDiskLib_Clone", &path, error)
        })
    }

    /// What the library says it is connected to.
    #[doc(alias = "VixDiskLib_GetConnectParams")]
    #[doc(alias = "VixDiskLib_FreeConnectParams")]
    pub fn connected_to(&self) -> Answer<ConnectedTo> {
        self.on_opener(move |raw| {
            let api = raw.library.api();
            let function = need(api.get_connect_params, "VixDiskLib_GetConnectParams")?;
            let mut params = ptr::null_mut();
            // SAFETY: connected; it stores a pointer if it succeeds.
            let error = unsafe { function(raw.handle.0, &mut params) };
            check(api, "VixDiskLib_GetConnectParams", &raw.name, error)?;
            if params.is_null() {
                return Err(Error::Nothing { function: "VixDiskLib_GetConnectParams" });
            }
            // SAFETY: the library's structure, which has the base in every version; copied before it is freed.
            let base = unsafe { params.cast::<crate::types::ConnectParamsBase>().read() };
            // SAFETY: the structure's texts, not freed yet.
            let server = unsafe { text::from_c(base.server_name) };
            // SAFETY: as above.
            let vm = unsafe { text::from_c(base.vmx_spec) };
            // SAFETY: given by the same library, and freed once.
            unsafe { (api.free_connect_params)(params) };
            Ok(ConnectedTo { server, vm, ports: (base.port, base.nfc_host_port) })
        })
    }

    fn on_opener<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RawConnection) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        let raw = Arc::clone(&self.raw);
        self.raw.library.on_opener(move || work(&raw))
    }
}

impl RawConnection {
    pub(super) fn handle(&self) -> ConnectionHandle {
        self.handle.0
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("to", &self.raw.name).finish_non_exhaustive()
    }
}
