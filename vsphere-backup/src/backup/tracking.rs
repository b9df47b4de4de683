//! Whether change tracking is believed: known defects of hosts, and what earlier backups found.
//!
//! On top of [`plan::decide`], which knows change ids and disks, stands what is known of the host that tracks the
//! changes and of the disk's own record. A disk whose tracking was found wrong is not believed by any later backup
//! until one has read all of it and compared what was called unchanged.

use vsphere_vim::{MoRef, PropertyPath, Vim, VirtualDiskInfo, mo, types::AboutInfo};

use crate::{engine::Trust, repository::DiskRecord};

use super::plan::{self, Decision};

/// The version of an ESXi host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl HostVersion {
    /// Asks the host that a machine runs on. `None` when it cannot be told: the host counts as one of the defective
    /// versions then only where the defect shows in the disk itself.
    pub(crate) async fn of(vim: &Vim, host: Option<&MoRef<mo::HostSystem>>) -> Option<Self> {
        let path = PropertyPath::<mo::HostSystem, AboutInfo>::new("summary.config.product");
        match vim.get_optional(host?, path).await {
            Ok(product) => Self::parse(&product?.version),
            Err(error) => {
                tracing::info!(%error, "the host's version is not known");
                None
            }
        }
    }

    /// Tells whether a host has the defect of KB 2090639: wrong areas after a tracked disk grew across a border.
    pub(crate) fn errs_after_growth(self) -> bool {
        self.major < 6
    }

    fn parse(version: &str) -> Option<Self> {
        let mut numbers = version.split('.').map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

/// What is known of a disk's change tracking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracking<'a> {
    pub(crate) host: Option<HostVersion>,
    /// The disk in the point that the backup builds on.
    pub(crate) base: Option<&'a DiskRecord>,
    /// The disk in the machine's newest point, which may be another one.
    pub(crate) newest: Option<&'a DiskRecord>,
    pub(crate) restored: bool,
    /// What a backup found that came later than the base and did not come to its end, or than the newest point.
    pub(crate) found_wrong: Option<&'a str>,
    /// The backup itself enabled tracking.
    pub(crate) enabled_now: bool,
    /// What the caller asked for.
    pub(crate) trust: Trust,
}

/// How a disk is read, and how far its change tracking is believed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) decision: Decision,
    pub(crate) trust: Trust,
    /// Why tracking is not believed, until all was compared.
    pub(crate) distrust: Option<String>,
}

impl Tracking<'_> {
    /// Decides how a disk of a snapshot is read.
    pub(crate) fn choose(self, disk: &VirtualDiskInfo) -> Choice {
        let of_points = [self.newest, self.base].into_iter().flatten().find_map(|record| record.distrust.clone());
        let distrust = of_points.or_else(|| self.found_wrong.map(str::to_owned));
        // What the base was found to lack is in it when it says so itself.
        let found_since = self.found_wrong.filter(|_| self.base.is_some_and(|base| base.distrust.is_none()));
        let decision = match (plan::decide(disk, self.base, self.restored, self.host), found_since) {
            (Decision::Incremental { .. }, Some(found)) => {
                Decision::full(format!("its change tracking was found wrong since: {found}"))
            }
            (Decision::Incremental { .. }, _) if self.host.is_some_and(loses_changes) => Decision::full(
                "its host is an ESXi 6.0, whose change tracking loses what changes while a snapshot is consolidated \
                 (VMware KB 2136854)",
            ),
            (Decision::Full { .. }, _)
                if self.enabled_now && self.base.is_some_and(|base| base.change_id.is_none()) =>
            {
                Decision::full("change tracking was enabled by this backup: the next one reads what changed")
            }
            (decided, _) => decided,
        };
        // What is read in full needs no trust, and gives none back: nothing was compared.
        let trust = if distrust.is_some() { Trust::VerifyAll } else { self.trust };
        Choice { decision, trust, distrust }
    }
}

/// Tells whether a host has the defect of KB 2136854. Patches mend it, which a version does not tell.
fn loses_changes(host: HostVersion) -> bool {
    (host.major, host.minor) == (6, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(HostVersion::parse("6.0.0"), Some(HostVersion { major: 6, minor: 0 }));
        assert_eq!(HostVersion::parse("8.0.3.1"), Some(HostVersion { major: 8, minor: 0 }));
        assert_eq!(HostVersion::parse(""), None);
        assert_eq!(HostVersion::parse("eight"), None);
        assert!(
            loses_changes(HostVersion { major: 6, minor: 0 }) && !loses_changes(HostVersion { major: 6, minor: 5 })
        );
    }
}
