//! Volumes: what may hold a file system.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{DiskSet, Mounted};
use crate::{
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::{self, FileName, FileSystem, FileSystemInfo},
    part::{Partition, Scheme},
};

/// Names a volume within its set; the same whenever the same disks are opened in the same order: `disk0`, `disk0p2`,
/// `lvm/vg0/root`, `md/3e7d…`, `ldm/Group/Volume1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(String);

impl VolumeId {
    pub(super) fn new(id: String) -> Self {
        Self(id)
    }

    #[cfg(all(test, feature = "fuse", target_os = "linux"))]
    pub(crate) fn of_test(id: &str) -> Self {
        Self(id.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Of which kind a volume is.
#[doc(alias = "VixVolumeType")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VolumeKind {
    /// A whole disk: it has no partition table.
    Disk,
    /// A partition of an MBR.
    #[doc(alias = "VIXMNTAPI_BASIC_PARTITION")]
    Mbr,
    /// A partition of a GPT.
    #[doc(alias = "VIXMNTAPI_GPT_PARTITION")]
    Gpt,
    /// A volume of Windows' dynamic disks.
    #[doc(alias = "VIXMNTAPI_DYNAMIC_VOLUME")]
    Dynamic {
        /// The disk group.
        group: String,
        /// The volume's name there.
        name: String,
        /// The volume's id, as it is stored.
        guid: [u8; 16],
        /// The drive letter that Windows is to give it when it sees it for the first time.
        letter: Option<String>,
    },
    /// A logical volume of LVM2.
    #[doc(alias = "VIXMNTAPI_LVM_VOLUME")]
    Lvm {
        /// The volume group.
        group: String,
        /// The volume's name there.
        name: String,
    },
    /// An array of Linux md.
    Md {
        /// The array's name, without the host's; empty in old metadata.
        name: String,
        /// The array's id as `mdadm` writes it.
        uuid: String,
    },
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contents {
    /// Files.
    FileSystem(FileSystemInfo),
    /// Swap space of Linux.
    Swap {
        /// The name that somebody gave it.
        label: Option<String>,
        /// Its id, as `blkid` writes it.
        uuid: Option<String>,
    },
    /// Nothing that is known here.
    Unknown,
}

/// Where a partition is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionPlace {
    /// The number of its disk in the set, from 0 on; `None` for a partition in an array.
    pub disk: Option<usize>,
    /// What the table says of it.
    pub partition: Partition,
}

/// How a volume is encrypted that was opened with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encryption {
    /// `LUKS1`, `LUKS2`.
    pub scheme: &'static str,
    /// The id of what is encrypted, as `blkid` writes it.
    pub uuid: String,
}

/// All there is to know of a volume.
#[doc(alias = "VixVolumeInfo")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its id in the set.
    pub id: VolumeId,
    /// Of which kind it is.
    pub kind: VolumeKind,
    /// In bytes.
    pub size: u64,
    /// What it holds.
    pub contents: Contents,
    /// What is missing of it, where something is.
    pub degraded: Option<String>,
    /// How it is encrypted, if it was opened with a key.
    pub encryption: Option<Encryption>,
    /// Whether a [`Mounted`] of it is in use.
    pub is_mounted: bool,
    /// The folders of this computer in which its files are for all programs, while a mount of the feature `fuse` makes
    /// them so.
    #[doc(alias = "symbolicLink")]
    pub folders: Vec<PathBuf>,
    /// Where the guest mounts it, as far as that was [noted](DiskSet::note_mount_points).
    #[doc(alias = "inGuestMountPoints")]
    pub mount_points: Vec<FileName>,
}

/// A volume of a set, which it keeps open.
#[doc(alias = "VixVolumeHandle")]
#[derive(Clone)]
pub struct Volume {
    set: DiskSet,
    number: usize,
}

/// Asks for the other volumes of a set.
type Others<'a> = &'a dyn Fn() -> Vec<Arc<dyn Device>>;

/// What a set knows of a volume.
pub(super) struct Found {
    pub(super) id: VolumeId,
    pub(super) kind: VolumeKind,
    pub(super) size: u64,
    /// The volume's bytes, or why there are none.
    pub(super) device: Result<Arc<dyn Device>>,
    pub(super) degraded: Option<String>,
    pub(super) encryption: Option<Encryption>,
    /// Whether keys were tried on it.
    pub(super) was_tried: bool,
    pub(super) place: Option<PartitionPlace>,
    pub(super) contents: OnceLock<Contents>,
    /// The file system while somebody uses it.
    pub(super) open: Mutex<Option<Weak<dyn FileSystem>>>,
    pub(super) mounts: AtomicUsize,
    pub(super) folders: Mutex<Vec<PathBuf>>,
}

impl Found {
    pub(super) fn new(id: String, kind: VolumeKind, size: u64, device: Result<Arc<dyn Device>>) -> Self {
        Self {
            id: VolumeId::new(id),
            kind,
            size,
            device,
            degraded: None,
            encryption: None,
            was_tried: false,
            place: None,
            contents: OnceLock::new(),
            open: Mutex::new(None),
            mounts: AtomicUsize::new(0),
            folders: Mutex::default(),
        }
    }

    /// A partition of a disk of the set, or of an array.
    pub(super) fn partition(
        of: &str,
        disk: Option<usize>,
        scheme: Scheme,
        partition: Partition,
        device: Result<Arc<dyn Device>>,
    ) -> Self {
        let kind = if scheme == Scheme::Mbr { VolumeKind::Mbr } else { VolumeKind::Gpt };
        let Range { start, end } = partition.range;
        let id = format!("{of}p{}", partition.number);
        let place = Some(PartitionPlace { disk, partition });
        Self { place, ..Self::new(id, kind, end.saturating_sub(start), device) }
    }

    fn device(&self) -> Result<Arc<dyn Device>> {
        self.device.as_ref().map(Arc::clone).map_err(Error::duplicate)
    }

    /// The file system, opened once for all who use it at the same time.
    fn file_system(&self, others: Others<'_>) -> Result<Option<Arc<dyn FileSystem>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open.as_ref().and_then(Weak::upgrade) {
            return Ok(Some(opened));
        }
        let found = fs::open_among(&self.device()?, others)?;
        *open = found.as_ref().map(Arc::downgrade);
        Ok(found)
    }

    fn contents(&self, others: Others<'_>) -> Result<Contents> {
        if let Some(contents) = self.contents.get() {
            return Ok(contents.clone());
        }
        let contents = match self.file_system(others)? {
            Some(found) => Contents::FileSystem(found.info()),
            None => swap(&*self.device()?)?.unwrap_or(Contents::Unknown),
        };
        Ok(self.contents.get_or_init(|| contents).clone())
    }
}

impl Volume {
    pub(super) fn new(set: &DiskSet, number: usize) -> Self {
        Self { set: set.clone(), number }
    }

    /// Its id in the set.
    pub fn id(&self) -> &VolumeId {
        &self.found().id
    }

    /// Of which kind it is.
    pub fn kind(&self) -> &VolumeKind {
        &self.found().kind
    }

    /// In bytes, as its table or group says.
    pub fn size(&self) -> u64 {
        self.found().size
    }

    /// The partition that it is, if it is one.
    pub fn partition(&self) -> Option<&PartitionPlace> {
        self.found().place.as_ref()
    }

    /// What is missing of it: a member of a mirror, which costs nothing, a disk, whose bytes cannot be read, or a key
    /// that fits.
    pub fn degraded(&self) -> Option<&str> {
        self.found().degraded.as_deref()
    }

    /// How it is encrypted, if it was opened with a key.
    pub fn encryption(&self) -> Option<&Encryption> {
        self.found().encryption.as_ref()
    }

    /// The set that it is of.
    pub fn set(&self) -> &DiskSet {
        &self.set
    }

    /// What it holds; found out once.
    ///
    /// # Errors
    /// [`Error::Encrypted`], [`Error::Unsupported`], [`Error::Damaged`], [`Error::Read`].
    pub fn contents(&self) -> Result<Contents> {
        self.found().contents(&|| self.others())
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when its volume manager keeps it in a way that is not read here, [`Error::Damaged`] when
    /// its disk ends before it.
    pub fn device(&self) -> Result<Arc<dyn Device>> {
        self.found().device()
    }

    /// All there is to know of it.
    ///
    /// # Errors
    /// As [`Volume::contents`].
    #[doc(alias = "VixMntapi_GetVolumeInfo")]
    #[doc(alias = "VixMntapi_FreeVolumeInfo")]
    pub fn info(&self) -> Result<VolumeInfo> {
        let found = self.found();
        Ok(VolumeInfo {
            id: found.id.clone(),
            kind: found.kind.clone(),
            size: found.size,
            contents: found.contents(&|| self.others())?,
            degraded: found.degraded.clone(),
            encryption: found.encryption.clone(),
            is_mounted: found.mounts.load(Ordering::Relaxed) > 0,
            folders: found.folders.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            mount_points: self.mount_points(),
        })
    }

    /// Opens its file system. Everything is read-only; a journal is replayed in memory.
    ///
    /// # Errors
    /// As [`Volume::contents`]; [`Error::Invalid`] when it holds no files.
    #[doc(alias = "VixMntapi_MountVolume")]
    pub fn mount(&self) -> Result<Mounted> {
        if let Some(files) = self.found().file_system(&|| self.others())? {
            return Ok(Mounted::new(self.clone(), files));
        }
        let what = match self.contents()? {
            Contents::Swap { .. } => "swap space",
            _ => "nothing that is known",
        };
        Err(Error::Invalid(format!("{} holds no files but {what}", self.id())))
    }

    /// The other volumes of the set, among which may be those that its file system is on as well.
    fn others(&self) -> Vec<Arc<dyn Device>> {
        let others = self.set.0.volumes.iter().enumerate().filter(|(number, _)| *number != self.number);
        others.filter_map(|(_, found)| found.device().ok()).collect()
    }

    /// Where the guest mounts it, as far as that was noted.
    pub(super) fn mount_points(&self) -> Vec<FileName> {
        self.set.mount_points().get(self.id()).cloned().unwrap_or_default()
    }

    pub(super) fn found(&self) -> &Found {
        // Volumes are made with numbers below the length of the list, which never changes.
        &self.set.0.volumes[self.number]
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { id, kind, size, .. } = self.found();
        f.debug_struct("Volume").field("id", id).field("kind", kind).field("size", size).finish_non_exhaustive()
    }
}

/// Swap space by the signature at the end of its first page; see `mkswap(8)`.
fn swap(device: &dyn Device) -> Result<Option<Contents>> {
    for page in [4096, 8192, 16384, 65536] {
        if device.size() < page {
            break;
        }
        let signature: [u8; 10] = device.read_array(page - 10)?;
        if signature == *b"SWAPSPACE2" {
            // After 1024 bytes for boot loaders: version, last page, bad pages, then the id and the name.
            let [_, uuid @ .., _] = device.read_array::<34>(1024 + 11)?;
            let (uuid, label) = uuid.split_at(16);
            let label = String::from_utf8_lossy(crate::bytes::until_nul(label)).into_owned();
            let uuid = uuid.first_chunk().filter(|uuid| **uuid != [0; 16]).map(crate::bytes::uuid_text);
            return Ok(Some(Contents::Swap { label: Some(label).filter(|label| !label.is_empty()), uuid }));
        }
        if signature == *b"SWAP-SPACE" {
            return Ok(Some(Contents::Swap { label: None, uuid: None }));
        }
    }
    Ok(None)
}
