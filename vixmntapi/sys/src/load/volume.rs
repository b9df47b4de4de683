//! Volumes of a set, and mounting them.

use std::{fmt, path::Path};

use super::{
    error::{Error, Result},
    info::VolumeInfo,
    set::DiskSet,
};
use crate::{OpenFlags, VixCode};

/// A volume of a set, which it keeps open.
#[doc(alias = "VixVolumeHandle")]
#[derive(Clone)]
pub struct Volume {
    set: DiskSet,
    number: usize,
}

/// How a volume is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MountMode {
    /// For reading. This does not override how the set was opened: only [`OpenFlags::READ_ONLY`] keeps the disk itself
    /// from being written to.
    ReadOnly,
    /// For reading and writing.
    ReadWrite,
}

/// A mounted volume. It is dismounted when its last user is gone; see [`Mounted::dismount`].
pub struct Mounted {
    volume: Volume,
    info: VolumeInfo,
    /// Set once somebody has seen to the dismounting.
    is_done: bool,
}

/// How a volume is mounted, by whom.
#[derive(Default)]
pub(super) struct MountState {
    users: usize,
    mode: Option<MountMode>,
    /// Still mounted, without a user: dismounting failed.
    pub(super) is_left: bool,
}

impl Volume {
    pub(super) fn new(set: DiskSet, number: usize) -> Self {
        Self { set, number }
    }

    /// Its number in the set, from 0 on.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The set that it is of.
    pub fn set(&self) -> &DiskSet {
        &self.set
    }

    /// What the library says of it. Paths and mount points are known while it is mounted.
    ///
    /// # Errors
    /// The library's own.
    #[doc(alias = "VixMntapi_GetVolumeInfo")]
    #[doc(alias = "VixMntapi_FreeVolumeInfo")]
    pub fn info(&self) -> Result<VolumeInfo> {
        self.set.inner.volume_info(self.number)
    }

    /// Mounts the volume, or joins those who have it mounted. One that the library has mounted by itself counts as
    /// mounted. The disk is locked meanwhile.
    ///
    /// On Linux it takes root, FUSE and loop devices. Swap space, extended partitions and members of volume groups cannot
    /// be mounted; neither, for reading only, a file system that was not unmounted cleanly, unless a child disk takes the
    /// writes.
    ///
    /// # Errors
    /// [`Error::Limit`] for writing to a set that was opened for reading, [`Error::MountedOtherwise`], and the library's
    /// own.
    #[doc(alias = "VixMntapi_MountVolume")]
    pub fn mount(&self, mode: MountMode) -> Result<Mounted> {
        if mode == MountMode::ReadWrite && self.set.flags().contains(OpenFlags::READ_ONLY) {
            let why = "its set was opened for reading only";
            return Err(Error::Limit { what: "mounting a volume for writing", why });
        }
        // Locked while the library works: nobody may dismount what somebody else is about to use.
        let inner = &self.set.inner;
        let mut mounts = inner.mounts();
        let state = &mut mounts.volumes[self.number];
        match state.mode {
            Some(mounted) if state.users > 0 && mounted != mode => {
                let mode = if mounted == MountMode::ReadOnly { "for reading" } else { "for writing" };
                return Err(Error::MountedOtherwise { volume: self.number, mode });
            }
            Some(_) if state.users > 0 => {}
            _ => {
                self.ask_to_mount(mode)?;
                *state = MountState { users: 0, mode: Some(mode), is_left: false };
            }
        }
        match inner.volume_info(self.number) {
            Ok(info) => {
                state.users += 1;
                Ok(Mounted { volume: self.clone(), info, is_done: false })
            }
            Err(error) => {
                if state.users == 0 {
                    state.is_left = inner.dismount(self.number, false).is_err();
                }
                Err(error)
            }
        }
    }

    fn ask_to_mount(&self, mode: MountMode) -> Result<()> {
        let (inner, volume) = (&self.set.inner, self.set.inner.volume(self.number));
        let read_only = mode == MountMode::ReadOnly;
        let error = inner.library.call(move |api| {
            let volume = volume;
            // SAFETY: a volume of an open set, which the caller keeps.
            unsafe { (api.mount_volume)(volume.0, read_only.into()) }
        })?;
        if error.code() == VixCode::MNTAPI_VOLUME_ALREADY_MOUNTED {
            return Ok(());
        }
        inner.library.check("VixMntapi_MountVolume", &inner.volume_name(self.number), error)
    }

    /// One user less; the last one dismounts. What cannot be dismounted is so by force when the set is closed.
    fn leave(&self, force: bool) -> Result<()> {
        let inner = &self.set.inner;
        let mut mounts = inner.mounts();
        let state = &mut mounts.volumes[self.number];
        state.users -= 1;
        if state.users > 0 {
            return Ok(());
        }
        let dismounted = inner.dismount(self.number, force);
        state.is_left = dismounted.is_err();
        dismounted
    }
}

impl Mounted {
    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// What the library said of it when it was mounted.
    pub fn info(&self) -> &VolumeInfo {
        &self.info
    }

    /// Where its files are: on Linux a folder of this machine, on Windows the path of a device.
    pub fn folder(&self) -> Option<&Path> {
        self.info.symbolic_link.as_deref()
    }

    /// Dismounts the volume, if this is its last use. Dropping does the same without force, and cannot tell how it went.
    /// A volume that is still in use stays mounted until its set is closed, and is then dismounted by force.
    ///
    /// # Errors
    /// The library's own, such as [`VixCode::MNTAPI_OPEN_HANDLES`].
    #[doc(alias = "VixMntapi_DismountVolume")]
    pub fn dismount(mut self, force: bool) -> Result<()> {
        self.is_done = true;
        self.volume.leave(force)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.is_done {
            // A failure is in the library's log, and the set's end tries again.
            let _ = self.volume.leave(false);
        }
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("number", &self.number).field("set", &self.set).finish()
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounted").field("volume", &self.volume.number).field("folder", &self.folder()).finish()
    }
}
