//! The operating systems on a set of disks, and where they mount its volumes.
//!
//! ```no_run
//! # fn example() -> vixmntapi::Result<()> {
//! let set = vixmntapi::set::DiskSet::builder().vmdk("web.vmdk")?.open()?;
//! let report = set.os_info();
//! for system in &report.systems {
//!     println!("{} on {}", system.name, system.root);
//!     for mount in &system.mounts {
//!         println!("  {} is {:?}", mount.point, mount.volume);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Everything is read from the guest's files: `os-release` and its relatives, `fstab`, a program's header; the registry's
//! hives. Windows before NT is not looked for.

mod fstab;
mod hive;
mod linux;
mod marvin;
mod names;
mod replay;
mod subvolume;
mod windows;

use std::collections::BTreeSet;

use self::names::Names;
use crate::{
    error::Error,
    fs::FileName,
    set::{DiskSet, Mounted, Problem, VolumeId},
};

/// What is installed on a set of disks.
#[derive(Debug)]
#[non_exhaustive]
pub struct OsReport {
    /// All installations, in the order of the volumes that they are on. There may be several, and none.
    pub systems: Vec<OsInfo>,
    /// Volumes that could not be looked at, and files that should have told something. There may be more systems then.
    pub problems: Vec<Problem>,
}

/// An installed operating system.
#[doc(alias = "VixOsInfo")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OsInfo {
    /// The volume with its root directory, or its system directory.
    pub root: VolumeId,
    /// Of which family it is.
    pub family: OsFamily,
    /// As it calls itself to people: `Debian GNU/Linux 12 (bookworm)`, `Windows Server 2022 Standard`.
    pub name: String,
    /// Who makes it: `Microsoft`, or the id of a distribution such as `debian`.
    pub vendor: String,
    /// Its version: `12`, `22.04`; `10.0.20348.1234` of Windows.
    pub version: Option<String>,
    /// The first two numbers of its version.
    #[doc(alias = "majorVersion")]
    #[doc(alias = "minorVersion")]
    pub major_minor: (u32, u32),
    /// Its edition or variant, such as `ServerStandard` or `server`.
    pub edition: Option<String>,
    /// What processors it is for.
    pub architecture: Option<Architecture>,
    /// The name of the machine.
    pub host_name: Option<String>,
    /// The kernels of a Linux, the newest last.
    pub kernels: Vec<String>,
    /// What installs packages on a Linux: `dpkg`, `rpm`, `apk`, `pacman`.
    pub package_manager: Option<&'static str>,
    /// Its directory on its volume: `/`, `/Windows`.
    #[doc(alias = "osFolder")]
    pub directory: FileName,
    /// The [subvolume](crate::set::Mounted::subvolume) that is its root directory, by its path from the root of all;
    /// `None` when it is the one that is mounted when none is named.
    pub subvolume: Option<FileName>,
    /// Where it mounts what, its own root as well.
    pub mounts: Vec<GuestMount>,
    /// Whether some of this may be older than what the guest last had: a registry that was neither written back whole nor into
    /// its logs.
    pub may_be_stale: bool,
}

/// A family of operating systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OsFamily {
    /// Windows since NT.
    Windows,
    /// Linux.
    Linux,
}

/// What processors a system is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// 32 bits of Intel.
    X86,
    /// 64 bits of AMD and Intel.
    X86_64,
    /// 32 bits of Arm.
    Arm,
    /// 64 bits of Arm.
    Aarch64,
    /// 64 bits of POWER.
    Ppc64,
    /// IBM Z.
    S390x,
    /// 64 bits of RISC-V.
    Riscv64,
}

impl Architecture {
    /// Whether a program of it has addresses of 64 bits.
    #[doc(alias = "osIs64Bit")]
    pub fn is_64_bit(self) -> bool {
        !matches!(self, Self::X86 | Self::Arm)
    }
}

/// Where a guest mounts something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestMount {
    /// A path of Linux, or `C:` of Windows.
    pub point: FileName,
    /// The volume of the set; `None` when it is not there, or not a volume at all.
    pub volume: Option<VolumeId>,
    /// What the guest says to mount: the first field of a line of `fstab`; the name in Windows' `MountedDevices`.
    pub source: String,
    /// The file system that the guest expects, if it says so.
    pub kind: Option<String>,
    /// The subvolume or other options of a line of `fstab`.
    pub options: String,
}

impl DiskSet {
    /// Finds the operating systems on all volumes and where they mount what, and notes that as
    /// [`VolumeInfo::mount_points`](crate::set::VolumeInfo::mount_points). Nothing has to be mounted before.
    #[doc(alias = "VixMntapi_GetOsInfo")]
    #[doc(alias = "VixMntapi_FreeOsInfo")]
    pub fn os_info(&self) -> OsReport {
        let volumes = self.volumes_until_damage();
        let names = Names::of(self, &volumes);
        let mut report = OsReport { systems: Vec::new(), problems: Vec::new() };
        for problem in self.problems() {
            report.problems.push(Problem { place: problem.place.clone(), error: problem.error.duplicate() });
        }
        let mut seen = BTreeSet::new();
        for volume in &volumes {
            let mounted = match volume.mount() {
                Ok(mounted) => mounted,
                // It holds no files.
                Err(Error::Invalid(_)) => continue,
                Err(error) => {
                    report.problems.push(Problem { place: volume.id().to_string(), error });
                    continue;
                }
            };
            let info = mounted.file_system().info();
            if info.devices > 1 && !seen.insert(info.uuid) {
                continue;
            }
            let mut look = Look { mounted: &mounted, names: &names, problems: &mut report.problems };
            report.systems.extend(windows::find(&mut look));
            match linux::find(&mut look) {
                Some(system) => report.systems.push(system),
                None => report.systems.extend(subvolume::find(&mut look)),
            }
        }
        self.note(&report.systems);
        report
    }

    /// Notes the mount points of all systems; of a volume that several mount, all points are told.
    fn note(&self, systems: &[OsInfo]) {
        for volume in self.volumes_until_damage() {
            let mounts = systems.iter().flat_map(|system| &system.mounts);
            let here = mounts.filter(|mount| mount.volume.as_ref() == Some(volume.id()));
            let mut points: Vec<_> = here.map(|mount| mount.point.clone()).collect();
            points.sort();
            points.dedup();
            self.note_mount_points(volume.id(), points);
        }
    }
}

/// A volume that is looked at.
struct Look<'a> {
    mounted: &'a Mounted,
    names: &'a Names,
    problems: &'a mut Vec<Problem>,
}

impl Look<'_> {
    /// What `read` gives; nothing where that fails, which is noted.
    fn note<T>(&mut self, what: &str, read: crate::Result<T>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) if error.is_absence() => None,
            Err(error) => {
                let place = format!("{what} of {}", self.mounted.volume().id());
                self.problems.push(Problem { place, error });
                None
            }
        }
    }

    fn exists(&mut self, path: &str) -> bool {
        let found = self.mounted.exists(path);
        self.note(path, found).unwrap_or_default()
    }

    /// A small file; nothing where it is not.
    fn read(&mut self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.mounted.read(path, LARGEST_TEXT);
        self.note(path, bytes)
    }

    fn read_text(&mut self, path: &str) -> Option<String> {
        self.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a directory, in no order.
    fn list(&mut self, path: &str) -> Vec<String> {
        let entries = self.mounted.read_dir(path);
        let Some(entries) = self.note(path, entries) else { return Vec::new() };
        let names = entries.take(MOST_NAMES).collect::<crate::Result<Vec<_>>>();
        let entries = self.note(path, names).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
    }
}

/// The numbers that a version begins with.
fn major_minor(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|char: char| !char.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Bytes of the largest text that is read.
const LARGEST_TEXT: u64 = 1 << 20;
/// Names of a directory that are looked at.
const MOST_NAMES: usize = 10_000;
