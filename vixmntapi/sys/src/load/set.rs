//! An open set of disks, and what is kept of it.

use std::{
    fmt, ptr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use vixdisklib_sys::load::{Connection, Disk};

use super::{
    error::{Error, Result},
    info::{OsInfo, SetInfo, VolumeInfo},
    library::Library,
    text::to_c,
    volume::{MountState, Volume},
};
use crate::{
    OpenFlags, VixError,
    types::{DiskSetHandle, DiskSetObject, VolumeHandle, VolumeObject},
};

/// An open set of disks. Cheap to clone; volumes keep it. It is closed when the last of them is gone.
#[doc(alias = "VixDiskSetHandle")]
#[derive(Clone)]
pub struct DiskSet {
    pub(super) inner: Arc<Inner>,
}

/// A pointer of the library's, on its way to the one thread that uses it.
pub(super) struct Handle<T>(pub(super) *mut T);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

// SAFETY: what is pointed to is used on the thread of the disk library only; elsewhere the pointer is a number.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

pub(super) struct Inner {
    handle: Handle<DiskSetObject>,
    pub(super) name: String,
    pub(super) flags: OpenFlags,
    volumes: OnceLock<Handles>,
    /// Taken to list the volumes once.
    listing: Mutex<()>,
    /// How each volume is mounted, in the order of the handles.
    mounts: Mutex<Mounts>,
    pub(super) library: Library,
    /// What the library reads through, kept until after the set is closed.
    _read_through: ReadThrough,
}

/// What a set reads through.
enum ReadThrough {
    Connection { _kept: Connection },
    Disks { _kept: Vec<Disk> },
}

/// The library's array of handles, and what is in it.
struct Handles {
    array: Handle<VolumeHandle>,
    handles: Vec<Handle<VolumeObject>>,
}

#[derive(Default)]
pub(super) struct Mounts {
    pub(super) volumes: Vec<MountState>,
    /// The library has mounted something by itself.
    looked_for_systems: bool,
}

impl DiskSet {
    pub(super) fn open_disks(
        library: &Library,
        connection: &Connection,
        paths: &[&str],
        flags: OpenFlags,
    ) -> Result<Self> {
        library.proxy().check_disks(paths.len())?;
        library.check_same("connection", connection.library())?;
        let texts = paths.iter().map(|path| to_c("path of a disk", path)).collect::<Result<Vec<_>>>()?;
        let connected = Handle(connection.as_ptr());
        let opened = library.call(move |api| {
            let connected = connected;
            let names: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
            let mut set: DiskSetHandle = ptr::null_mut();
            // SAFETY: connected, by the library on whose thread this is, and kept by the caller, who waits; the texts
            // and their array live during the call, and it stores a handle if it succeeds.
            let error = unsafe { (api.open_disks)(connected.0, names.as_ptr(), names.len(), flags.0, &mut set) };
            (error, Handle(set))
        })?;
        let kept = ReadThrough::Connection { _kept: connection.clone() };
        Self::opened(library, "VixMntapi_OpenDisks", paths.join(", "), flags, opened, kept)
    }

    pub(super) fn open_disk_set(library: &Library, disks: Vec<Disk>, flags: OpenFlags) -> Result<Self> {
        let open = library.api().open_disk_set.ok_or(Error::NotThere { symbol: "VixMntapi_OpenDiskSet" })?;
        if disks.is_empty() {
            library.proxy().check_disks(0)?;
        }
        for disk in &disks {
            library.check_same("disk", disk.connection().library())?;
            disk.idle().wait()?;
        }
        let handles: Vec<_> = disks.iter().map(|disk| Handle(disk.as_ptr())).collect();
        let opened = library.call(move |_| {
            let mut handles: Vec<_> = handles.iter().map(|handle| handle.0).collect();
            let mut set: DiskSetHandle = ptr::null_mut();
            // SAFETY: open disks, idle, owned by the caller, who waits; the array lives during the call, and it stores a
            // handle if it succeeds.
            let error = unsafe { open(handles.as_mut_ptr(), handles.len(), flags.0, &mut set) };
            (error, Handle(set))
        })?;
        let name = disks.iter().map(Disk::path).collect::<Vec<_>>().join(", ");
        let kept = ReadThrough::Disks { _kept: disks };
        Self::opened(library, "VixMntapi_OpenDiskSet", name, flags, opened, kept)
    }

    fn opened(
        library: &Library,
        function: &'static str,
        name: String,
        flags: OpenFlags,
        (error, handle): (VixError, Handle<DiskSetObject>),
        kept: ReadThrough,
    ) -> Result<Self> {
        library.check(function, &name, error)?;
        if handle.0.is_null() {
            return Err(Error::Answer { function, what: "no set".into() });
        }
        let inner = Inner {
            handle,
            name,
            flags,
            volumes: OnceLock::new(),
            listing: Mutex::new(()),
            mounts: Mutex::default(),
            library: library.clone(),
            _read_through: kept,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.inner.library
    }

    /// How it was opened.
    pub fn flags(&self) -> OpenFlags {
        self.inner.flags
    }

    /// What the library says of it.
    ///
    /// # Errors
    /// The library's own.
    #[doc(alias = "VixMntapi_GetDiskSetInfo")]
    #[doc(alias = "VixMntapi_FreeDiskSetInfo")]
    pub fn info(&self) -> Result<SetInfo> {
        let handle = self.inner.handle;
        let (error, info) = self.inner.library.call(move |api| {
            let handle = handle;
            let mut info = ptr::null_mut();
            // SAFETY: an open set, which the caller keeps; it stores a pointer if it succeeds.
            let error = unsafe { (api.get_disk_set_info)(handle.0, &mut info) };
            if !error.is_ok() || info.is_null() {
                return (error, None);
            }
            // SAFETY: given by this library, not freed yet.
            let copy = unsafe { SetInfo::copy(info) };
            // SAFETY: given by this library, and freed once.
            unsafe { (api.free_disk_set_info)(info) };
            (error, Some(copy))
        })?;
        self.inner.answer("VixMntapi_GetDiskSetInfo", error, info)
    }

    /// Its volumes. The library is asked once.
    ///
    /// # Errors
    /// The library's own.
    #[doc(alias = "VixMntapi_GetVolumeHandles")]
    #[doc(alias = "VixMntapi_FreeVolumeHandles")]
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let count = self.inner.handles()?.handles.len();
        Ok((0..count).map(|number| Volume::new(self.clone(), number)).collect())
    }

    /// What is installed: a Windows, as its first boot entry says. Its system volume and the one that it boots from have
    /// to be mounted before. The library mounts the former by itself too; that ends with the set.
    ///
    /// # Errors
    /// [`Error::Limit`] on Linux, and the library's own.
    #[doc(alias = "VixMntapi_GetOsInfo")]
    #[doc(alias = "VixMntapi_FreeOsInfo")]
    pub fn os_info(&self) -> Result<OsInfo> {
        self.inner.library.proxy().check_os_info()?;
        self.inner.mounts().looked_for_systems = true;
        let handle = self.inner.handle;
        let (error, info) = self.inner.library.call(move |api| {
            let handle = handle;
            let mut info = ptr::null_mut();
            // SAFETY: an open set, which the caller keeps; it stores a pointer if it succeeds.
            let error = unsafe { (api.get_os_info)(handle.0, &mut info) };
            if !error.is_ok() || info.is_null() {
                return (error, None);
            }
            // SAFETY: given by this library, not freed yet.
            let copy = unsafe { OsInfo::copy(info) };
            // SAFETY: given by this library, and freed once.
            unsafe { (api.free_os_info)(info) };
            (error, Some(copy))
        })?;
        self.inner.answer("VixMntapi_GetOsInfo", error, info)
    }

    /// Closes the set, if this is its last use, and says what went wrong. It is closed all the same.
    ///
    /// # Errors
    /// The library's own.
    #[doc(alias = "VixMntapi_CloseDiskSet")]
    pub fn close(self) -> Result<()> {
        match Arc::into_inner(self.inner) {
            Some(mut inner) => inner.end(),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// The handles of the volumes, asked for once.
    fn handles(&self) -> Result<&Handles> {
        let _one_asks = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = self.volumes.get() {
            return Ok(handles);
        }
        let set = self.handle;
        let (error, handles) = self.library.call(move |api| {
            let set = set;
            let (mut count, mut array) = (0, ptr::null_mut());
            // SAFETY: an open set, which the caller keeps; it stores a count and a pointer if it succeeds.
            let error = unsafe { (api.get_volume_handles)(set.0, &mut count, &mut array) };
            if !error.is_ok() || (array.is_null() && count > 0) {
                return (error, None);
            }
            if count > MOST_VOLUMES {
                // SAFETY: given by this library, and freed once.
                unsafe { (api.free_volume_handles)(array) };
                return (error, None);
            }
            // SAFETY: the library's array, of that many handles.
            let handles = (0..count).map(|number| Handle(unsafe { array.wrapping_add(number).read() }));
            let handles: Vec<_> = handles.collect();
            (error, Some(Handles { array: Handle(array), handles }))
        })?;
        let handles = self.answer("VixMntapi_GetVolumeHandles", error, handles)?;
        self.mounts().volumes.resize_with(handles.handles.len(), MountState::default);
        Ok(self.volumes.get_or_init(|| handles))
    }

    /// The handle of a volume that was listed.
    pub(super) fn volume(&self, number: usize) -> Handle<VolumeObject> {
        let handles = self.volumes.get().map_or(&[][..], |handles| &handles.handles);
        // Volumes are made with numbers below the length of the list, which never changes.
        handles[number]
    }

    pub(super) fn mounts(&self) -> MutexGuard<'_, Mounts> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer<T>(&self, function: &'static str, error: VixError, answer: Option<T>) -> Result<T> {
        self.library.check(function, &self.name, error)?;
        answer.ok_or_else(|| Error::Answer { function, what: "nothing, or what cannot be".into() })
    }

    /// What is known of a volume, be it mounted or not.
    pub(super) fn volume_info(&self, number: usize) -> Result<VolumeInfo> {
        let (volume, proxy) = (self.volume(number), self.library.proxy());
        let (error, info) = self.library.call(move |api| {
            let volume = volume;
            let mut info = ptr::null_mut();
            // SAFETY: a volume of an open set, which the caller keeps; it stores a pointer if it succeeds.
            let error = unsafe { (api.get_volume_info)(volume.0, &mut info) };
            if !error.is_ok() || info.is_null() {
                return (error, None);
            }
            // SAFETY: given by this library, for that system, not freed yet.
            let copy = unsafe { VolumeInfo::copy(info, proxy) };
            // SAFETY: given by this library, and freed once.
            unsafe { (api.free_volume_info)(info) };
            (error, Some(copy))
        })?;
        let name = self.volume_name(number);
        self.library.check("VixMntapi_GetVolumeInfo", &name, error)?;
        info.unwrap_or_else(|| Err(Error::Answer { function: "VixMntapi_GetVolumeInfo", what: "nothing".into() }))
    }

    /// Dismounts a volume of the set.
    pub(super) fn dismount(&self, number: usize, force: bool) -> Result<()> {
        let volume = self.volume(number);
        let error = self.library.call(move |api| {
            let volume = volume;
            // SAFETY: a volume of an open set, which the caller keeps.
            unsafe { (api.dismount_volume)(volume.0, force.into()) }
        })?;
        self.library.check("VixMntapi_DismountVolume", &self.volume_name(number), error)
    }

    pub(super) fn volume_name(&self, number: usize) -> String {
        format!("volume {number} of {}", self.name)
    }

    /// Dismounts what is left, frees the handles and closes the set. Nobody uses it any more. The first error counts.
    fn end(&mut self) -> Result<()> {
        if self.handle.0.is_null() {
            return Ok(());
        }
        let mut result = Ok(());
        let (looked, left) = {
            let mounts = self.mounts();
            (mounts.looked_for_systems, mounts.volumes.iter().map(|state| state.is_left).collect::<Vec<_>>())
        };
        // What the library mounted by itself is among the volumes, listed or not.
        let count = if looked { self.handles().map_or(0, |handles| handles.handles.len()) } else { left.len() };
        for number in 0..count {
            let is_mounted = || self.volume_info(number).is_ok_and(|info| info.is_mounted);
            if left.get(number) == Some(&true) || (looked && is_mounted()) {
                result = result.and(self.dismount(number, true));
            }
        }
        let array = self.volumes.take().map(|handles| handles.array).filter(|array| !array.0.is_null());
        let set = std::mem::replace(&mut self.handle, Handle(ptr::null_mut()));
        let closed = self.library.call(move |api| {
            let (set, array) = (set, array);
            if let Some(array) = array {
                // SAFETY: given by this library, and freed once; no volume is left.
                unsafe { (api.free_volume_handles)(array.0) };
            }
            // SAFETY: an open set without volumes in use, closed once. What it reads through is still there.
            unsafe { (api.close_disk_set)(set.0) }
        });
        let closed = closed.and_then(|error| self.library.check("VixMntapi_CloseDiskSet", &self.name, error));
        result.and(closed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A failure is in the library's log; nobody is left to tell.
        let _ = self.end();
    }
}

impl fmt::Debug for DiskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskSet")
            .field("disks", &self.inner.name)
            .field("flags", &self.inner.flags)
            .finish_non_exhaustive()
    }
}

/// More partitions than a table has room for, on more disks than a machine.
const MOST_VOLUMES: usize = 1 << 16;
