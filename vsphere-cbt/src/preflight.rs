//! What stands in the way of change tracking, found out without changing anything.

use std::fmt;

use vsphere_vim::device::{BackingKind, DeviceKey, SnapshotObstacle, VirtualDiskInfo};

use crate::{
    change_id::ChangeId,
    error::{Error, Result},
};

/// A virtual machine's state as far as change tracking is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preflight {
    /// The server says that this VM's disks can be tracked.
    #[doc(alias = "changeTrackingSupported")]
    pub supported: bool,
    /// Version of the virtual hardware: 19 for `vmx-19`. `None` when it is not understood.
    pub hardware_version: Option<u32>,
    /// Tracking is switched on. Change ids appear only after the next snapshot, power-on or migration.
    #[doc(alias = "changeTrackingEnabled")]
    pub enabled: bool,
    /// Snapshots that exist, without those that an interrupted attempt to enable tracking left behind.
    pub snapshots: usize,
    /// The virtual disks in the order of the hardware.
    pub disks: Vec<DiskTracking>,
}

/// Change tracking of one virtual disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskTracking {
    /// The disk.
    pub key: DeviceKey,
    /// Its name in the vSphere Client, such as `Hard disk 1`.
    pub label: String,
    /// Its present change id; `None` while it is not tracked.
    pub change_id: Option<ChangeId>,
    /// Why the disk can never be tracked; `None` when it can.
    pub untrackable: Option<Untrackable>,
}

/// Why a disk can never be tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Untrackable {
    /// Snapshots leave the disk out, and tracking hangs on snapshots.
    NoSnapshots(SnapshotObstacle),
    /// A kind of backing that has no change ids.
    Backing(BackingKind),
}

/// What makes enabling impossible or unwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blocker {
    /// The server says that tracking is not supported for this VM.
    NotSupported,
    /// The virtual hardware is older than version 7.
    HardwareTooOld {
        /// Its version.
        version: u32,
    },
    /// The VM has snapshots. Disks in them stay untracked, and `*` reports too much for the disk's whole life.
    Snapshots {
        /// How many.
        count: usize,
    },
}

impl Preflight {
    /// What stands in the way of enabling, worst first. Empty when nothing does.
    pub fn blockers(&self) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        if !self.supported {
            blockers.push(Blocker::NotSupported);
        }
        if let Some(version) = self.hardware_version.filter(|version| *version < MIN_HARDWARE_VERSION) {
            blockers.push(Blocker::HardwareTooOld { version });
        }
        if self.snapshots > 0 {
            blockers.push(Blocker::Snapshots { count: self.snapshots });
        }
        blockers
    }

    /// True when tracking is on and every disk that can be tracked has a change id.
    pub fn is_active(&self) -> bool {
        self.enabled && self.waiting().next().is_none()
    }

    /// Disks that could be tracked and have no change id (yet).
    pub fn waiting(&self) -> impl Iterator<Item = &DiskTracking> {
        self.disks.iter().filter(|disk| disk.untrackable.is_none() && disk.change_id.is_none())
    }
}

impl DiskTracking {
    /// What a disk's description says about tracking.
    ///
    /// # Errors
    /// [`Error::ChangeId`] when the server gave it a change id that is none.
    pub fn of(disk: &VirtualDiskInfo) -> Result<Self> {
        let change_id = match disk.backing.change_id.as_deref() {
            None => None,
            Some(text) => Some(text.parse().map_err(|source| {
                let of = format!("disk {} ({})", disk.key, disk.label);
                Error::ChangeId { of, source }
            })?),
        };
        let untrackable = match &disk.backing.kind {
            _ if change_id.is_some() => None, // The server knows better.
            kind @ (BackingKind::FlatVer1 | BackingKind::SparseVer1 | BackingKind::LocalPMem) => {
                Some(Untrackable::Backing(kind.clone()))
            }
            _ => disk.snapshot_obstacle().map(Untrackable::NoSnapshots),
        };
        Ok(Self { key: disk.key, label: disk.label.clone(), change_id, untrackable })
    }
}

impl fmt::Display for Untrackable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshots(obstacle) => obstacle.fmt(f),
            Self::Backing(kind) => write!(f, "disks of kind {kind:?} have no change ids"),
        }
    }
}

impl Blocker {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotSupported => "the host or the kind of VM does not offer change tracking: take full backups",
            Self::HardwareTooOld { .. } => "upgrade the virtual hardware while the VM is powered off",
            Self::Snapshots { .. } => {
                "remove the snapshots first, or allow them and expect disks to stay untracked until they are gone"
            }
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("the server says that it is not supported"),
            Self::HardwareTooOld { version } => {
                write!(f, "its virtual hardware has version {version}, and {MIN_HARDWARE_VERSION} is needed")
            }
            Self::Snapshots { count: 1 } => f.write_str("it has a snapshot"),
            Self::Snapshots { count } => write!(f, "it has {count} snapshots"),
        }
    }
}

/// The number in `vmx-19`.
pub(crate) fn hardware_version(text: &str) -> Option<u32> {
    text.strip_prefix("vmx-")?.parse().ok()
}

/// The first virtual hardware with change tracking (ESX 4.0).
const MIN_HARDWARE_VERSION: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn preflight() -> Preflight {
        Preflight { supported: true, hardware_version: Some(19), enabled: false, snapshots: 0, disks: Vec::new() }
    }

    #[test]
    fn a_modern_machine_without_snapshots_has_no_blockers() {
        assert_eq!(preflight().blockers(), []);
        assert_eq!(Preflight { hardware_version: None, ..preflight() }.blockers(), [], "unknown is not too old");
    }

    #[test]
    fn everything_in_the_way_is_named() {
        let bad = Preflight { supported: false, hardware_version: Some(4), snapshots: 2, ..preflight() };
        let text: Vec<_> = bad.blockers().iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 3);
        assert!(text[1].contains("version 4") && text[2].contains("2 snapshots"), "{text:?}");
    }

    #[test]
    fn tracking_is_active_when_all_disks_that_can_have_an_id() {
        let disk = |key, change_id: Option<&str>, untrackable| DiskTracking {
            key: DeviceKey(key),
            label: String::new(),
            change_id: change_id.map(|text| text.parse().unwrap()),
            untrackable,
        };
        let tracked = disk(2000, Some("a/1"), None);
        let raw = disk(2001, None, Some(Untrackable::NoSnapshots(SnapshotObstacle::PhysicalRdm)));
        let on = Preflight { enabled: true, disks: vec![tracked.clone(), raw], ..preflight() };
        assert!(on.is_active());
        let waiting = Preflight { disks: vec![tracked, disk(2002, None, None)], ..on };
        assert!(!waiting.is_active());
        assert_eq!(waiting.waiting().map(|disk| disk.key).collect::<Vec<_>>(), [DeviceKey(2002)]);
    }

    #[test]
    fn hardware_versions_are_read() {
        assert_eq!(hardware_version("vmx-19"), Some(19));
        assert_eq!(hardware_version("vmx-07"), Some(7));
        assert_eq!(hardware_version("xvm-1"), None);
    }
}
