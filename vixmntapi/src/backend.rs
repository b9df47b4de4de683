//! One set of calls for both readers: that of this project, and VMware's where the feature `vendor` has it.
//!
//! ```no_run
//! use vixmntapi::{backend::DiskSet, find::{Find, Pattern}};
//!
//! fn passwords(set: &DiskSet) -> vixmntapi::Result<()> {
//!     for volume in set.volumes()? {
//!         let mounted = volume.mount()?;
//!         println!("{}: {:?}", volume.name(), mounted.exists("etc/shadow")?);
//!         for found in Find::new(mounted.file_system(), Pattern::new("**/id_rsa")?) {
//!             println!("  {}", found?.path);
//!         }
//!     }
//!     Ok(())
//! }
//! # fn example() -> vixmntapi::Result<()> {
//! passwords(&vixmntapi::set::DiskSet::builder().vmdk("web.vmdk")?.open()?.into())
//! # }
//! ```
//!
//! What only one of them can do is behind [`DiskSet::embedded`] and `DiskSet::vendor`.

use std::{path::Path, sync::Arc};

#[cfg(all(feature = "vendor", target_os = "linux"))]
use crate::vendor;
use crate::{
    error::Result,
    fs::{Content, Entries, FileName, FileSystem, Metadata, NodeId},
    os::{Architecture, OsFamily},
    set,
};

/// Disks that are read together, by one of the readers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DiskSet {
    /// Read by this project.
    Embedded(set::DiskSet),
    /// Read by VMware's library.
    #[cfg(all(feature = "vendor", target_os = "linux"))]
    Vendor(vendor::DiskSet),
}

/// A volume of a set, which it keeps open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Volume {
    /// Read by this project.
    Embedded(set::Volume),
    /// Read by VMware's library.
    #[cfg(all(feature = "vendor", target_os = "linux"))]
    Vendor(vendor::Volume),
}

/// A mounted volume, which it keeps so.
#[derive(Debug)]
#[non_exhaustive]
pub enum Mounted {
    /// Read by this project.
    Embedded(set::Mounted),
    /// Mounted by VMware's library.
    #[cfg(all(feature = "vendor", target_os = "linux"))]
    Vendor(vendor::Mounted),
}

/// What both readers tell of a volume.
#[doc(alias = "VixVolumeInfo")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeFacts {
    /// As [`Volume::name`].
    pub name: String,
    /// How it is made.
    pub kind: VolumeKind,
    /// Whether it is mounted.
    pub is_mounted: bool,
    /// Where the guest mounts it, as far as that is known.
    pub mount_points: Vec<FileName>,
}

/// How a volume is made.
#[doc(alias = "VixVolumeType")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VolumeKind {
    /// A whole disk.
    Disk,
    /// A partition of an MBR.
    Mbr,
    /// A partition of a GPT.
    Gpt,
    /// A volume of Windows' dynamic disks.
    Dynamic,
    /// A logical volume of LVM2.
    Lvm,
    /// Another kind.
    Other,
}

/// What both readers tell of an installed system.
#[doc(alias = "VixOsInfo")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OsFacts {
    /// Of which family it is, where that is known.
    pub family: Option<OsFamily>,
    /// The first two numbers of its version.
    pub version: (u32, u32),
    /// Whether it has 64 bits, where that is known.
    pub is_64_bit: Option<bool>,
    /// Who makes it.
    pub vendor: Option<String>,
    /// Its edition or variant.
    pub edition: Option<String>,
    /// Its directory on its volume.
    pub directory: Option<FileName>,
}

impl DiskSet {
    /// All volumes.
    ///
    /// # Errors
    /// Those of [`set::DiskSet::volumes`] or `vendor::DiskSet::volumes`.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        Ok(match self {
            Self::Embedded(set) => set.volumes()?.into_iter().map(Volume::Embedded).collect(),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(set) => set.volumes()?.into_iter().map(Volume::Vendor).collect(),
        })
    }

    /// What is installed. VMware's library tells one Windows at most, and none on Linux.
    ///
    /// # Errors
    /// The first problem of [`set::DiskSet::os_info`] when no system was found; those of `vendor::DiskSet::os_info`.
    pub fn os_info(&self) -> Result<Vec<OsFacts>> {
        match self {
            Self::Embedded(set) => {
                let report = set.os_info();
                match report.problems.into_iter().next() {
                    Some(problem) if report.systems.is_empty() => Err(problem.error),
                    _ => Ok(report.systems.into_iter().map(OsFacts::from).collect()),
                }
            }
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(set) => {
                let info = set.os_info()?;
                let is_there = info.family != vendor::OsFamily::NO_OS;
                Ok(is_there.then(|| info.into()).into_iter().collect())
            }
        }
    }

    /// The set as this project reads it, with all that only this can do.
    pub fn embedded(&self) -> Option<&set::DiskSet> {
        match self {
            Self::Embedded(set) => Some(set),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(_) => None,
        }
    }

    /// The set as VMware's library has it.
    #[cfg(all(feature = "vendor", target_os = "linux"))]
    pub fn vendor(&self) -> Option<&vendor::DiskSet> {
        match self {
            Self::Embedded(_) => None,
            Self::Vendor(set) => Some(set),
        }
    }
}

impl Volume {
    /// A name within its set: the [id](set::VolumeId), or the number that VMware's library gives it.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(volume) => volume.id().to_string(),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(volume) => format!("volume{}", volume.number()),
        }
    }

    /// What is known of it.
    ///
    /// # Errors
    /// Those of [`set::Volume::info`] or `vendor::Volume::info`.
    pub fn info(&self) -> Result<VolumeFacts> {
        Ok(match self {
            Self::Embedded(volume) => {
                let info = volume.info()?;
                let (kind, mount_points) = ((&info.kind).into(), info.mount_points);
                VolumeFacts { name: self.name(), kind, is_mounted: info.is_mounted, mount_points }
            }
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(volume) => {
                let info = volume.info()?;
                let mount_points = info.guest_mount_points.into_iter().map(FileName::new).collect();
                let kind = info.volume_type.into();
                VolumeFacts { name: self.name(), kind, is_mounted: info.is_mounted, mount_points }
            }
        })
    }

    /// Mounts it for reading.
    ///
    /// # Errors
    /// Those of [`set::Volume::mount`] or `vendor::Volume::mount`.
    pub fn mount(&self) -> Result<Mounted> {
        Ok(match self {
            Self::Embedded(volume) => Mounted::Embedded(volume.mount()?),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(volume) => Mounted::Vendor(volume.mount()?),
        })
    }
}

impl Mounted {
    /// Its files, for all that this crate does with them.
    pub fn file_system(&self) -> &Arc<dyn FileSystem> {
        match self {
            Self::Embedded(mounted) => mounted.file_system(),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(mounted) => mounted.file_system(),
        }
    }

    /// The folder of this machine in which its files are; `None` without VMware's library, which needs none.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Embedded(_) => None,
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(mounted) => Some(mounted.folder()),
        }
    }

    /// Finds what a path names, at the end of all links, which stay in the volume.
    ///
    /// # Errors
    /// As [`set::Mounted::lookup`].
    pub fn lookup(&self, path: impl AsRef<[u8]>) -> Result<NodeId> {
        match self {
            Self::Embedded(mounted) => mounted.lookup(path),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(mounted) => mounted.lookup(path),
        }
    }

    /// Finds what a path names, be it a link.
    ///
    /// # Errors
    /// As [`Mounted::lookup`].
    pub fn lookup_link(&self, path: impl AsRef<[u8]>) -> Result<NodeId> {
        match self {
            Self::Embedded(mounted) => mounted.lookup_link(path),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(mounted) => mounted.lookup_link(path),
        }
    }

    /// Whether a path names something, at the end of all links.
    ///
    /// # Errors
    /// As [`Mounted::lookup`], but for what says that there is nothing.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.lookup(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_absence() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What there is to know of a file, at the end of all links.
    ///
    /// # Errors
    /// As [`Mounted::lookup`].
    pub fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        self.file_system().metadata(self.lookup(path)?)
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// As [`Mounted::lookup`].
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Entries> {
        self.file_system().clone().read_dir(self.lookup(path)?)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`Mounted::lookup`] and [`FileSystem::open`].
    pub fn open(&self, path: impl AsRef<[u8]>) -> Result<Arc<dyn Content>> {
        self.file_system().clone().open(self.lookup(path)?, None)
    }

    /// Reads a whole file of at most `limit` bytes: for configuration, not for data.
    ///
    /// # Errors
    /// As [`Mounted::open`]; [`Error::Invalid`](crate::Error::Invalid) when it is larger.
    pub fn read(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        set::read_whole(&*self.open(path)?, path, limit)
    }

    /// Ends the use of the volume, and tells how that went; dropping cannot tell.
    ///
    /// # Errors
    /// Those of `vendor::Mounted::dismount`.
    pub fn dismount(self) -> Result<()> {
        match self {
            Self::Embedded(mounted) => {
                mounted.dismount();
                Ok(())
            }
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor(mounted) => mounted.dismount(),
        }
    }
}

impl From<set::DiskSet> for DiskSet {
    fn from(set: set::DiskSet) -> Self {
        Self::Embedded(set)
    }
}

#[cfg(all(feature = "vendor", target_os = "linux"))]
impl From<vendor::DiskSet> for DiskSet {
    fn from(set: vendor::DiskSet) -> Self {
        Self::Vendor(set)
    }
}

impl From<&set::VolumeKind> for VolumeKind {
    fn from(kind: &set::VolumeKind) -> Self {
        match kind {
            set::VolumeKind::Disk => Self::Disk,
            set::VolumeKind::Mbr => Self::Mbr,
            set::VolumeKind::Gpt => Self::Gpt,
            set::VolumeKind::Dynamic { .. } => Self::Dynamic,
            set::VolumeKind::Lvm { .. } => Self::Lvm,
            _ => Self::Other,
        }
    }
}

#[cfg(all(feature = "vendor", target_os = "linux"))]
impl From<vendor::VolumeType> for VolumeKind {
    fn from(kind: vendor::VolumeType) -> Self {
        match kind {
            vendor::VolumeType::BASIC_PARTITION => Self::Mbr,
            vendor::VolumeType::GPT_PARTITION => Self::Gpt,
            vendor::VolumeType::DYNAMIC_VOLUME => Self::Dynamic,
            vendor::VolumeType::LVM_VOLUME => Self::Lvm,
            _ => Self::Other,
        }
    }
}

impl From<crate::os::OsInfo> for OsFacts {
    fn from(info: crate::os::OsInfo) -> Self {
        let is_64_bit = info.architecture.map(|of| !matches!(of, Architecture::X86 | Architecture::Arm));
        Self {
            family: Some(info.family),
            version: info.major_minor,
            is_64_bit,
            vendor: Some(info.vendor).filter(|vendor| !vendor.is_empty()),
            edition: info.edition,
            directory: Some(info.directory),
        }
    }
}

#[cfg(all(feature = "vendor", target_os = "linux"))]
impl From<vendor::OsInfo> for OsFacts {
    fn from(info: vendor::OsInfo) -> Self {
        Self {
            family: (info.family == vendor::OsFamily::WINDOWS).then_some(OsFamily::Windows),
            version: info.version,
            is_64_bit: Some(info.is_64_bit),
            vendor: info.vendor,
            edition: info.edition,
            // With `/` between names, as in all of this crate.
            directory: info.directory.map(|path| {
                FileName::new(path.into_iter().map(|byte| if byte == b'\\' { b'/' } else { byte }).collect::<Vec<_>>())
            }),
        }
    }
}
