//! What is so about the host and the datastores of a machine.

use std::collections::BTreeSet;

use vsphere_vim::{MoRef, VirtualDiskInfo, mo, types::DatastoreSummary};

use super::{
    Backup,
    condition::{Condition, Finding, Subject},
};

impl Backup {
    /// Looks at the datastores of the disks that would be backed up.
    pub(super) async fn datastores(&self, disks: &[&VirtualDiskInfo]) -> Vec<Finding> {
        let stores: BTreeSet<&str> =
            disks.iter().filter_map(|disk| disk.backing.datastore.as_ref()).map(|store| store.value()).collect();
        let mut found = Vec::new();
        for id in stores {
            let store: MoRef<mo::Datastore> = MoRef::new(id);
            let here: Vec<&VirtualDiskInfo> = disks
                .iter()
                .filter(|disk| disk.backing.datastore.as_ref().is_some_and(|own| own.value() == id))
                .copied()
                .collect();
            match self.vim.get(&store, mo::Datastore::SUMMARY).await {
                Ok(summary) => found.extend(datastore(&summary, &here)),
                Err(error) => tracing::debug!(%error, "a datastore cannot be read"),
            }
        }
        found
    }
}

/// Says what is so about a datastore with these disks on it.
pub(super) fn datastore(summary: &DatastoreSummary, disks: &[&VirtualDiskInfo]) -> Vec<Finding> {
    let at = |condition, detail: String| Finding::new(condition, Subject::Datastore(summary.name.clone()), detail);
    let mut found = Vec::new();
    if !summary.accessible {
        found.push(at(Condition::DatastoreInaccessible, String::new()));
    }
    let total = disks.iter().fold(0u64, |sum, disk| sum.saturating_add(disk.capacity));
    let free = u64::try_from(summary.free_space).unwrap_or(0);
    if free < total / SNAPSHOT_SHARE {
        found.push(at(Condition::LittleSpace, format!("{free} bytes free for disks of {total} bytes")));
    }
    if OBJECT_STORES.iter().any(|kind| summary.type_.eq_ignore_ascii_case(kind)) {
        let of = |disk: &&VirtualDiskInfo| {
            Finding::new(Condition::ObjectStorage, Subject::Disk(disk.key.0), summary.type_.as_str())
        };
        found.extend(disks.iter().map(of));
    }
    found
}

/// Returns the known defects of a host's version.
pub(super) fn defects(version: &str) -> Vec<Finding> {
    let major = version.split('.').next().unwrap_or_default();
    let condition = match major {
        "4" | "5" => Condition::DefectKb2090639,
        "6" if version.starts_with("6.0") => Condition::DefectKb2136854,
        _ => return Vec::new(),
    };
    vec![Finding::new(condition, Subject::Server, format!("version {version}"))]
}

/// A snapshot may grow up to the size of its disks while they are read; a tenth of it is what to worry below.
const SNAPSHOT_SHARE: u64 = 10;

/// Datastores whose disks have no flat file.
const OBJECT_STORES: &[&str] = &["vsan", "vvol", "vsanD"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defects_are_told_by_the_host_s_version() {
        let codes = |version: &str| defects(version).iter().map(|finding| finding.condition.code()).collect::<Vec<_>>();
        assert_eq!(codes("5.5.0"), ["kb-2090639"]);
        assert_eq!(codes("4.1"), ["kb-2090639"]);
        assert_eq!(codes("6.0.0"), ["kb-2136854"]);
        for sound in ["6.5.0", "6.7.0", "8.0.3", "60.0", "", "x"] {
            assert_eq!(codes(sound), [""; 0], "{sound:?}");
        }
    }
}
