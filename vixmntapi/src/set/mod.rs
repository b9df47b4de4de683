//! Sets of disks: what volumes they hold together, and mounting those.
//!
//! ```no_run
//! use vixmntapi::set::DiskSet;
//!
//! # fn example() -> vixmntapi::Result<()> {
//! let set = DiskSet::builder().vmdk("web.vmdk")?.vmdk("web_1.vmdk")?.open()?;
//! for volume in set.volumes()? {
//!     println!("{} {} bytes {:?}", volume.id(), volume.size(), volume.contents());
//! }
//! let root = set.volume("lvm/vg0/root")?.mount()?;
//! println!("{}", String::from_utf8_lossy(&root.read("/etc/os-release", 64 << 10)?));
//! # Ok(())
//! # }
//! ```
//!
//! Any [`vmdk::Image`] is a disk: files, `vixdisklib::Disk::image` (a snapshot over the network, a chain of files, an
//! attached disk) and, because it is such a disk too, the disk of a recovery point of a backup. Reads block the calling
//! thread; never call them from a task of an async runtime.
//!
//! # Volume managers
//! | | read | listed and named |
//! |---|---|---|
//! | LVM2 | linear, striped, RAID 0, mirrors, RAID 1, RAID 10 | thin volumes, snapshots, caches, RAID 4 to 6, VDO |
//! | Linux md 0.90, 1.0, 1.1, 1.2 | linear, RAID 0, RAID 1, RAID 10 with copies side by side | RAID 4 to 6, other RAID 10, arrays between two forms |
//! | Windows' dynamic disks | simple, spanned, striped, mirrored | RAID-5 |
//! | LUKS1, LUKS2 | AES with XTS or CBC, with a key and the feature `luks` | other ciphers, volumes that are being encrypted |
//! | BitLocker | | all |
//!
//! A copy that is not in step with the others is not read. What lies on a disk that is missing is an error of the reads
//! that need it; [`Volume::degraded`] tells what is missing.
//!
//! # Who keeps what open
//! A [`Mounted`] owns its [`Volume`], that the set, that the disks: whichever is dropped last closes. There is no order
//! to keep and nothing that could be used after it was closed.
//!
//! # VMware's functions
//! | VixMntapi | here |
//! |---|---|
//! | `Init`, `Exit` | nothing: there is no state of the process |
//! | `OpenDiskSet`, `OpenDisks` | [`DiskSet::builder`], [`DiskSetBuilder::open`]; any number of disks on any system |
//! | `CloseDiskSet` | drop |
//! | `GetDiskSetInfo`, `FreeDiskSetInfo` | [`DiskSet::disks`] |
//! | `GetVolumeHandles`, `FreeVolumeHandles` | [`DiskSet::volumes`] |
//! | `MountVolume` | [`Volume::mount`]: any number at once, by many threads; with a path on the proxy, module `fuse` |
//! | `DismountVolume` | [`Mounted::dismount`], or drop |
//! | `GetVolumeInfo`, `FreeVolumeInfo` | [`Volume::info`], mounted or not |
//! | `GetOsInfo`, `FreeOsInfo` | [`DiskSet::os_info`]: all systems, of Linux too, with their mounts |

mod builder;
mod discover;
mod mounted;
mod path;
mod volume;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[cfg(all(feature = "fuse", target_os = "linux"))]
pub(crate) use self::mounted::InFolder;
pub(crate) use self::mounted::read_whole;
#[cfg(all(feature = "vendor", target_os = "linux"))]
pub(crate) use self::path::{Last, Resolver};
pub use self::{
    builder::DiskSetBuilder,
    mounted::Mounted,
    volume::{Contents, Encryption, PartitionPlace, Volume, VolumeId, VolumeInfo, VolumeKind},
};
use self::{discover::Layout, volume::Found};
use crate::{
    device::{CacheFigures, Device, PageCache},
    error::{Error, Result},
    fs::FileName,
    part::Table,
    volume::luks::Keys,
};

/// Disks that are read together, and the volumes on them. Clones are the same set.
#[doc(alias = "VixDiskSetHandle")]
#[doc(alias = "VixMntapi_Init")]
#[doc(alias = "VixMntapi_Exit")]
#[doc(alias = "VixMntapi_CloseDiskSet")]
#[derive(Clone)]
pub struct DiskSet(Arc<Inner>);

struct Inner {
    disks: Vec<SetDisk>,
    cache: Arc<PageCache>,
    volumes: Vec<Found>,
    problems: Vec<Problem>,
    mount_points: Mutex<BTreeMap<VolumeId, Vec<FileName>>>,
}

/// A disk of a set.
#[doc(alias = "VixDiskSetInfo")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetDisk {
    /// The disk, read through the cache of the set.
    pub device: Arc<dyn Device>,
    /// Its partition table, as far as it makes sense; `None` when it could not be read at all.
    pub table: Option<Table>,
}

/// Something that hides volumes: a damaged partition table, metadata of a volume manager that nobody understands.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// Where it is: a disk, or a group of volumes.
    pub place: String,
    /// What is wrong.
    pub error: Error,
}

impl DiskSet {
    /// Begins a set.
    pub fn builder() -> DiskSetBuilder {
        DiskSetBuilder::default()
    }

    fn new(disks: Vec<Arc<dyn Device>>, cache: Arc<PageCache>, keys: &Keys) -> Self {
        let Layout { tables, volumes, problems } = discover::discover(&disks, keys);
        let disks = disks.into_iter().zip(tables).map(|(device, table)| SetDisk { device, table }).collect();
        Self(Arc::new(Inner { disks, cache, volumes, problems, mount_points: Mutex::default() }))
    }

    /// The disks, in the order in which they were added.
    #[doc(alias = "VixMntapi_GetDiskSetInfo")]
    #[doc(alias = "VixMntapi_FreeDiskSetInfo")]
    pub fn disks(&self) -> &[SetDisk] {
        &self.0.disks
    }

    /// All volumes: partitions, disks without partitions, logical volumes, arrays, volumes of dynamic disks. What others
    /// are made of (physical volumes, members of arrays) is no volume. A volume that cannot be read is there as well;
    /// [`Volume::contents`] tells why.
    ///
    /// # Errors
    /// The first of [`DiskSet::problems`], because then there may be volumes that are not among these.
    #[doc(alias = "VixMntapi_GetVolumeHandles")]
    #[doc(alias = "VixMntapi_FreeVolumeHandles")]
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        match self.0.problems.first() {
            None => Ok(self.volumes_until_damage()),
            Some(problem) => Err(problem.error.duplicate()),
        }
    }

    /// The volumes that are in no doubt, whatever [`DiskSet::problems`] there are.
    pub fn volumes_until_damage(&self) -> Vec<Volume> {
        (0..self.0.volumes.len()).map(|number| Volume::new(self, number)).collect()
    }

    /// What hides volumes.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    /// Finds a volume by its id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn volume(&self, id: &str) -> Result<Volume> {
        let number = self.0.volumes.iter().position(|found| found.id.as_str() == id);
        let number = number.ok_or_else(|| Error::NotFound(format!("volume {id}")))?;
        Ok(Volume::new(self, number))
    }

    /// Notes where the guest mounts a volume, as [`VolumeInfo::mount_points`] then tells it: paths of Linux, `C:` of
    /// Windows. Whoever reads the guest's configuration calls it; links to drive letters are then followed.
    pub fn note_mount_points(&self, volume: &VolumeId, points: Vec<FileName>) {
        self.mount_points().insert(volume.clone(), points);
    }

    /// What the cache of the set did so far.
    pub fn cache_figures(&self) -> CacheFigures {
        self.0.cache.figures()
    }

    fn mount_points(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Vec<FileName>>> {
        self.0.mount_points.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DiskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let volumes = self.0.volumes.iter().map(|found| &found.id);
        let volumes: Vec<_> = volumes.collect();
        f.debug_struct("DiskSet").field("disks", &self.0.disks.len()).field("volumes", &volumes).finish_non_exhaustive()
    }
}
