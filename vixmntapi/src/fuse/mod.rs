//! Mounts for other programs: a volume, or all of a set, as a folder of this computer. Feature `fuse`, on Linux.
//!
//! ```no_run
//! use vixmntapi::{fuse::FuseMount, set::DiskSet};
//!
//! # fn example() -> vixmntapi::Result<()> {
//! let set = DiskSet::builder().vmdk("web.vmdk")?.open()?;
//! let mut mount = FuseMount::of_volume(&set.volume("disk0p1")?)?.threads(4).at("/mnt/web")?;
//! // find, tar and rsync work in /mnt/web now.
//! mount.unmount()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is read-only. Programs see what the guest's kernel would show: modes, owners, times to the nanosecond,
//! hard links by their numbers, holes, extended attributes and ACLs. Numbers of files are the guest's, and the same in
//! each mount. Of NTFS the security descriptor is the attribute `system.ntfs_acl` and the file attributes are
//! `system.ntfs_attrib_be`, unlisted, as ntfs-3g has it; alternate streams and times of creation are not shown.
//!
//! What cannot be read is an error of the call that needs it (`EIO`; `EOPNOTSUPP` for what is not supported, `ENOKEY`
//! for what is encrypted), and is logged with its reason. A directory with a name that no file here can have, such as
//! `a/b`, is listed without it, and its list ends with `EIO`.
//!
//! # What a guest may do to this computer
//! Mounts are `nosuid`, `nodev` and `noexec`, and only the user who mounts sees them, unless [more is
//! allowed](FuseMountBuilder::access). One thing is as with every mount: **symbolic links are followed by this computer's
//! kernel**, so an absolute link of the guest leads to a file of this computer. Copy with programs that do not follow
//! links (`tar`, `rsync -a`, `cp -a`), or by [`copy`](crate::copy).
//!
//! # How a mount ends
//! [`FuseMount::unmount`] ends it, or says why it cannot. Dropping ends it too, of a panic as well; when a program still
//! uses it, the folder is freed at once and the program is served until it has done. The library handles no signals: the
//! program does, and drops the mount (see the example `mount`).
//!
//! A process that is killed by SIGKILL leaves a dead mount, in which every call fails with `ENOTCONN`. Clear it by
//! `fusermount3 -u -z FOLDER`, or as root by `umount -l FOLDER`; mounting there before says so.
//!
//! A reader that panics is logged and costs its call (`EIO`); the mount goes on. A disk that does not answer holds up
//! one [thread](FuseMountBuilder::threads) for each call that waits for it.

mod attributes;
mod directory;
mod handles;
mod ids;
mod mounting;
mod protocol;
mod session;
mod source;

use std::{
    fmt,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fuser::{Config, Errno, SessionACL};

use self::{
    handles::Handles,
    ids::Ids,
    mounting::{Ending, Flags, Listed},
    session::Session,
    source::{Slot, Source},
};
use crate::{
    error::{Error, Result},
    fs::{FileName, FileSystem, NodeId, Timestamp},
    set::{Contents, InFolder, Mounted, Volume},
};

/// A folder in which files of a guest are, until this is dropped.
#[derive(Debug)]
pub struct FuseMount {
    folder: PathBuf,
    /// As the system listed it when it was made; `None` when it lists none.
    listed: Option<Listed>,
    session: Option<JoinHandle<io::Result<()>>>,
    /// Where the kernel asks, to know whether it still does.
    device: OwnedFd,
    /// The volumes, which are in use until then.
    volumes: Vec<InFolder>,
}

/// Who may use a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// The user who mounts, whatever the guest's permissions say: who restores reads all.
    #[default]
    Owner,
    /// Everybody, as far as the guest's owners, permissions and ACLs allow the same numbers of users and groups here.
    #[doc(alias = "allow_other")]
    #[doc(alias = "default_permissions")]
    Everyone,
    /// Everybody, everything.
    EveryoneUnchecked,
}

/// What to mount, and how.
#[must_use]
pub struct FuseMountBuilder {
    source: Source,
    /// The volumes behind the slots, as far as there are any.
    mounted: Vec<(usize, Mounted)>,
    threads: usize,
    access: Access,
    exec: bool,
    name: String,
}

impl FuseMount {
    /// Begins the mount of a volume.
    ///
    /// # Errors
    /// As [`Volume::mount`].
    #[doc(alias = "VixMntapi_MountVolume")]
    pub fn of_volume(volume: &Volume) -> Result<FuseMountBuilder> {
        let mounted = volume.mount()?;
        let builder = Self::of_files(mounted.file_system().clone()).name(volume.id().as_str());
        Ok(FuseMountBuilder { mounted: vec![(0, mounted)], ..builder })
    }

    /// Begins the mount of several volumes, such as all [of a set](crate::set::DiskSet::volumes): each in a folder with
    /// its id as name, `.` standing for `/` (`lvm.vg0.root`). Volumes without files, such as swap space, are left out. A
    /// volume that cannot be read has a folder that fails with its error.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none.
    pub fn of_volumes(volumes: impl IntoIterator<Item = Volume>) -> Result<FuseMountBuilder> {
        let with_files = |volume: &Volume| !matches!(volume.contents(), Ok(Contents::Swap { .. } | Contents::Unknown));
        let volumes: Vec<_> = volumes.into_iter().filter(with_files).collect();
        if volumes.is_empty() {
            return Err(Error::Invalid("there is no volume with files".into()));
        }
        let mut slots = Vec::new();
        let mut mounted = Vec::new();
        for (name, volume) in source::folder_names(volumes.iter().map(Volume::id)).into_iter().zip(&volumes) {
            let files = volume.mount().map(|opened| {
                let files = opened.file_system().clone();
                mounted.push((slots.len(), opened));
                files
            });
            slots.push(Slot::new(name, files));
        }
        Ok(FuseMountBuilder { mounted, ..FuseMountBuilder::new(slots, true) })
    }

    /// Begins the mount of a file system from anywhere.
    pub fn of_files(files: Arc<dyn FileSystem>) -> FuseMountBuilder {
        FuseMountBuilder::new(vec![Slot::new(FileName::default(), Ok(files))], false)
    }

    /// The folder, without links in its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it is there still: somebody else may have unmounted it.
    pub fn is_mounted(&self) -> bool {
        self.session.is_some() && mounting::is_connected(&self.device)
    }

    /// Ends the mount. When that cannot be, it stays, and can be tried again. Once it has ended, this does nothing.
    ///
    /// # Errors
    /// [`Error::Local`]: a program still has a file or its working directory in it, or something is mounted over it.
    #[doc(alias = "VixMntapi_DismountVolume")]
    pub fn unmount(&mut self) -> Result<()> {
        if self.is_mounted() && self.is_listed().map_err(|error| self.error(error))? {
            mounting::unmount_unused(&self.folder).map_err(|error| self.error(error))?;
        }
        self.end();
        Ok(())
    }

    /// Whether the folder shows this mount, which is still there; an error when it is hidden under another. As long as a
    /// mount is there, no other gets the number of its device.
    fn is_listed(&self) -> io::Result<bool> {
        let Some(listed) = &self.listed else { return Ok(true) };
        let there = mounting::at(&self.folder);
        if there.last() == Some(listed) || !there.contains(listed) {
            return Ok(there.last() == Some(listed));
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "something else is mounted over it"))
    }

    /// Waits for the threads, which end with the mount: but not for ever, because it may be copied to where we do not see
    /// it, such as into a container, or be in use after somebody else has freed the folder.
    fn end(&mut self) {
        let folder = self.folder.display();
        self.volumes.clear();
        let Some(session) = self.session.take() else { return };
        let patience = Instant::now() + PATIENCE;
        while !session.is_finished() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !session.is_finished() {
            tracing::warn!(%folder, "what was mounted is still in use, and is served to the end");
            return;
        }
        match session.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%folder, %error, "a mount ended by an error"),
            Err(_) => tracing::error!(%folder, "the thread of a mount panicked"),
        }
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Local { operation: "unmount", path: self.folder.display().to_string(), source }
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        let Err(error) = self.unmount() else { return };
        let folder = self.folder.display();
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        match self.is_listed().and_then(|_| mounting::unmount(&self.folder, Ending::Lazy)) {
            Ok(()) => {
                tracing::warn!(%folder, reason, "a mount is in use: its folder is free, and whoever uses it is served to the end")
            }
            Err(error) => tracing::error!(%folder, reason, %error, "a mount stays until this process ends"),
        }
    }
}

impl FuseMountBuilder {
    fn new(slots: Vec<Slot>, is_set: bool) -> Self {
        Self {
            source: Source { slots, is_set },
            mounted: Vec::new(),
            threads: THREADS,
            access: Access::default(),
            exec: false,
            name: "vixmntapi".into(),
        }
    }

    /// How many threads answer, 1 to 64: so many calls are worked on at once. 8, unless it is set.
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = count.clamp(1, MAX_THREADS);
        self
    }

    /// Who may use it: [`Access::Owner`], unless it is set. For others than root, `/etc/fuse.conf` has to allow the rest.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Lets programs of the guest be run. setuid and devices stay without effect.
    pub fn executable(mut self) -> Self {
        self.exec = true;
        self
    }

    /// The name that `mount` and `df` show as its source; the id of a volume, unless it is set.
    #[doc(alias = "fsname")]
    pub fn name(mut self, name: &str) -> Self {
        self.name = mounting::plain_name(name);
        self
    }

    /// Shows another directory as the folder's root, of a single file system: such as a
    /// [subvolume](FileSystem::subvolumes).
    pub fn root(mut self, directory: NodeId) -> Self {
        if let [slot] = &mut *self.source.slots
            && !self.source.is_set
        {
            slot.root = directory;
        }
        self
    }

    /// Mounts on a folder of this computer, which has to be there. What is in it is hidden as long.
    ///
    /// # Errors
    /// [`Error::Local`]: there is no such folder, another volume or what was left of one is mounted there, this computer
    /// has no FUSE, or lets this user not mount.
    pub fn at(self, folder: impl AsRef<Path>) -> Result<FuseMount> {
        let local = |operation, source| {
            let path = folder.as_ref().display().to_string();
            Error::Local { operation, path, source }
        };
        let Self { source, mounted, threads, access, exec, name } = self;
        let ids = Ids::new(source.slots.iter().map(|slot| slot.root).collect(), source.is_set)?;
        let folder = mounting::folder(folder.as_ref()).map_err(|error| local("mount on", error))?;
        let folders: Vec<_> = source.slots.iter().map(|slot| source.path(&folder, slot)).collect();
        let session = Session {
            source,
            ids,
            files: Handles::new(),
            directories: Handles::new(),
            checks_permissions: access == Access::Everyone,
            since: now(),
        };
        let flags =
            Flags { allow_other: access != Access::Owner, default_permissions: access == Access::Everyone, exec, name };
        let device = mounting::mount(&folder, &flags).map_err(|error| local("mount on", error))?;
        let listed = mounting::at(&folder).pop();
        let started = device.try_clone().and_then(|device| serve(session, device, threads, access));
        let session = started.map_err(|error| {
            drop(mounting::unmount(&folder, Ending::Lazy));
            local("mount on", error)
        })?;
        let in_folder =
            |(slot, mounted): (usize, Mounted)| InFolder::new(mounted, folders.get(slot).unwrap_or(&folder).clone());
        let volumes = mounted.into_iter().map(in_folder).collect();
        Ok(FuseMount { folder, listed, session: Some(session), device, volumes })
    }
}

impl fmt::Debug for FuseMountBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FuseMountBuilder")
            .field("name", &self.name)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// Starts to answer the kernel.
fn serve(session: Session, device: OwnedFd, threads: usize, access: Access) -> io::Result<JoinHandle<io::Result<()>>> {
    let acl = if access == Access::Owner { SessionACL::Owner } else { SessionACL::All };
    let mut config = Config::default();
    config.n_threads = Some(threads);
    // Each thread gets a queue of its own where the device can be opened once more.
    config.clone_fd = File::options().read(true).write(true).open("/dev/fuse").is_ok();
    let session = fuser::Session::from_fd(session, device, acl, config)?;
    std::thread::Builder::new().name("vixmntapi-fuse".into()).spawn(move || session.run())
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(now.as_secs() as i64, now.subsec_nanos())
}

/// Why a question has no answer.
enum Failure {
    /// The guest's files or disks are at fault; it is logged.
    Guest(Error),
    /// The question is; the kernel gets this number.
    Code(Errno),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Guest(error)
    }
}

/// Answers that wait for disks at once: enough for programs that read side by side.
const THREADS: usize = 8;
const MAX_THREADS: usize = 64;
/// For threads to end after the mount has.
const PATIENCE: Duration = Duration::from_secs(5);
