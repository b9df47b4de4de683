//! What is backed up and how, decided from plain facts: no server, no repository is asked here.

use vsphere_cbt::{ChangeId, Continuity, Growth};
use vsphere_vim::VirtualDiskInfo;

use super::condition::Condition;
use crate::repository::{BackupMode, DiskRecord, LeftOut};

use super::tracking::HostVersion;

/// How a disk will be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// All of it.
    Full {
        /// Why not only the changes.
        reason: String,
    },
    /// What changed since the parent.
    Incremental {
        /// The parent's change id.
        since: ChangeId,
        /// Something to be warned of.
        warning: Option<String>,
    },
}

impl Decision {
    pub(super) fn full(reason: impl Into<String>) -> Self {
        Self::Full { reason: reason.into() }
    }

    /// Says how the disk will be read, and why.
    pub(super) fn told(self) -> (BackupMode, String) {
        match self {
            Self::Full { reason } => (BackupMode::Full, reason),
            Self::Incremental { since, .. } => {
                (BackupMode::Incremental, format!("changes since {} are known", since.as_str()))
            }
        }
    }
}

/// Why a disk stays out that the caller left out.
pub(crate) fn excluded() -> &'static str {
    Condition::Excluded.what().trim_end_matches('.')
}

pub(super) fn left_out(disk: &VirtualDiskInfo, reason: impl Into<String>) -> LeftOut {
    LeftOut { key: disk.key.0, label: disk.label.clone(), reason: reason.into() }
}

/// Decides how a disk of a snapshot is read, given the same disk in the parent point and whether it was restored since.
///
/// A disk is the same when the machine, the device key and the backing's uuid are: paths change. `host` is whose change
/// tracking it is; one that is not known may have any defect that the disk itself shows.
pub(crate) fn decide(
    disk: &VirtualDiskInfo,
    base: Option<&DiskRecord>,
    restored: bool,
    host: Option<HostVersion>,
) -> Decision {
    let (uuid, change_id) = (disk.backing.uuid.as_deref(), disk.backing.change_id.as_deref());
    decide_tracked(Tracked { key: disk.key.0, uuid, change_id, capacity: disk.capacity }, base, restored, host)
}

/// A disk of a snapshot, of a machine's or of its own, as far as reading its changes goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracked<'a> {
    pub(super) key: i32,
    pub(super) uuid: Option<&'a str>,
    pub(super) change_id: Option<&'a str>,
    /// In bytes.
    pub(super) capacity: u64,
}

/// As [`decide`], of any disk.
pub(super) fn decide_tracked(
    disk: Tracked<'_>,
    base: Option<&DiskRecord>,
    restored: bool,
    host: Option<HostVersion>,
) -> Decision {
    let Some(base) = base else {
        return Decision::full("there is no earlier point of this disk");
    };
    if restored {
        return Decision::full("it was restored since the last backup, which change tracking may not have seen");
    }
    if let (Some(then), Some(now)) = (&base.backing_uuid, disk.uuid)
        && !then.eq_ignore_ascii_case(now)
    {
        return Decision::full("another disk was attached at its place");
    }
    if base.backing_uuid.is_some() != disk.uuid.is_some() {
        return Decision::full("it cannot be told whether it is the same disk");
    }
    let Some(now) = disk.change_id else {
        return Decision::full("its changes are not tracked");
    };
    let Some(since) = &base.change_id else {
        return Decision::full("its changes were not tracked at the last backup");
    };
    let (Ok(now), Ok(since)) = (now.parse::<ChangeId>(), since.parse::<ChangeId>()) else {
        return Decision::full("a change id could not be understood");
    };
    match now.follows(&since) {
        Continuity::Unbroken => {}
        Continuity::Reset => {
            return Decision::full(
                "change tracking was reset, as a hard power-off or a crash of the host does (VMware KB 1020128)",
            );
        }
        Continuity::Reverted => return Decision::full("the disk was reverted to an earlier state"),
        _ => return Decision::full("its change ids do not follow each other"),
    }
    let warning = match Growth::between(base.capacity, disk.capacity) {
        Growth::Same => None,
        Growth::Grown { crosses_128_gib: true, .. } if host.is_none_or(HostVersion::errs_after_growth) => {
            return Decision::full(
                "it grew across a multiple of 128 GiB, after which hosts before ESXi 6.0 report wrong areas \
                 (VMware KB 2090639)",
            );
        }
        Growth::Grown { .. } => Some(format!(
            "disk {} grew from {} to {} bytes; its new part is read whole",
            disk.key, base.capacity, disk.capacity
        )),
        _ => return Decision::full("it is smaller than at the last backup"),
    };
    Decision::Incremental { since, warning }
}

#[cfg(test)]
mod tests {
    use vsphere_vim::types::{Poly, VirtualDevice, VirtualDisk, VirtualDiskFlatVer2BackingInfo};

    use super::*;
    use crate::repository::TreeRoot;

    fn disk(change: impl FnOnce(&mut VirtualDisk, &mut VirtualDiskFlatVer2BackingInfo)) -> VirtualDiskInfo {
        let mut backing = VirtualDiskFlatVer2BackingInfo {
            disk_mode: "persistent".into(),
            uuid: Some("6000c29a-1".into()),
            change_id: Some("52 de ad/9".into()),
            ..Default::default()
        };
        backing.file_name = "[ds1] web/web.vmdk".into();
        let mut disk = VirtualDisk { capacity_in_kb: 1 << 20, ..Default::default() };
        disk.key = 2000;
        change(&mut disk, &mut backing);
        disk.backing = Some(Poly::new(backing));
        let devices: Vec<Poly<VirtualDevice>> = vec![Poly::new(disk)];
        VirtualDiskInfo::all_of(&devices).remove(0)
    }

    fn base(change: impl FnOnce(&mut DiskRecord)) -> DiskRecord {
        let mut record = DiskRecord {
            key: 2000,
            label: String::new(),
            backing_uuid: Some("6000C29A-1".into()),
            path: "[ds9] moved/web.vmdk".into(),
            capacity: 1 << 30,
            change_id: Some("52 de ad/7".into()),
            root: TreeRoot::Zero,
            mode: BackupMode::Full,
            reason: String::new(),
            bytes: Default::default(),
            distrust: None,
            metadata: Default::default(),
        };
        change(&mut record);
        record
    }

    fn reason(disk: &VirtualDiskInfo, base: Option<&DiskRecord>) -> String {
        match decide(disk, base, false, None) {
            Decision::Full { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_that_moved_is_still_the_same() {
        let decision = decide(&disk(|_, _| {}), Some(&base(|_| {})), false, None);
        let since = "52 de ad/7".parse().unwrap();
        assert_eq!(decision, Decision::Incremental { since, warning: None });
    }

    #[test]
    fn every_doubt_means_a_full_backup_with_its_reason() {
        let plain = disk(|_, _| {});
        assert!(reason(&plain, None).contains("no earlier point"));
        assert!(
            matches!(decide(&plain, Some(&base(|_| {})), true, None), Decision::Full { reason } if reason.contains("restored"))
        );
        let other = base(|base| base.backing_uuid = Some("6000c29b".into()));
        assert!(reason(&plain, Some(&other)).contains("another disk"));
        let unknown = base(|base| base.backing_uuid = None);
        assert!(reason(&plain, Some(&unknown)).contains("same disk"));
        let untracked = disk(|_, backing| backing.change_id = Some(String::new()));
        assert!(reason(&untracked, Some(&base(|_| {}))).contains("not tracked"));
        let first = base(|base| base.change_id = None);
        assert!(reason(&plain, Some(&first)).contains("at the last backup"));
        let reset = base(|base| base.change_id = Some("99/7".into()));
        assert!(reason(&plain, Some(&reset)).contains("reset"));
        let later = base(|base| base.change_id = Some("52 de ad/10".into()));
        assert!(reason(&plain, Some(&later)).contains("reverted"));
        let garbage = base(|base| base.change_id = Some("*".into()));
        assert!(reason(&plain, Some(&garbage)).contains("understood"));
        let larger = base(|base| base.capacity = 2 << 30);
        assert!(reason(&plain, Some(&larger)).contains("smaller"));
        let grown = disk(|disk, _| disk.capacity_in_kb = 200 << 20);
        assert!(reason(&grown, Some(&base(|_| {}))).contains("128 GiB"), "nobody knows the host");
    }

    #[test]
    fn growth_across_a_border_is_believed_of_hosts_without_the_defect_only() {
        let grown = disk(|disk, _| disk.capacity_in_kb = 200 << 20);
        let on = |major, minor| decide(&grown, Some(&base(|_| {})), false, Some(HostVersion { major, minor }));
        for (major, minor) in [(4, 1), (5, 0), (5, 5)] {
            assert!(matches!(on(major, minor), Decision::Full { reason } if reason.contains("2090639")));
        }
        for (major, minor) in [(6, 0), (6, 7), (8, 0)] {
            assert!(matches!(on(major, minor), Decision::Incremental { warning: Some(_), .. }));
        }
    }

    #[test]
    fn growth_within_a_border_is_incremental_with_a_warning() {
        let grown = disk(|disk, _| disk.capacity_in_kb = 2 << 20);
        let decision = decide(&grown, Some(&base(|_| {})), false, None);
        assert!(matches!(decision, Decision::Incremental { warning: Some(_), .. }));
    }
}
