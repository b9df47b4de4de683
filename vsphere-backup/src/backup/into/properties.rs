//! What a point in a store says beside its disks, as texts by name.

use std::collections::BTreeMap;

use super::super::{Backup, machine::Machine, objects::Objects};
use super::disk::StoredInSink;
use crate::{
    error::{Error, Result},
    repository::{
        BackupMode, Consistency, DiskRecord, Fallback, LeftOut, PointId, TreeRoot, VmId, hex, now_micros,
        storage::BoxFuture,
    },
    store::{IN_HEX, OBJECT, PointMeta},
};

/// The properties of a point under way.
#[derive(Debug)]
pub(super) struct Properties(BTreeMap<String, String>);

impl Properties {
    pub(super) fn of(
        backup: &Backup,
        job: &str,
        machine: &Machine,
        consistency: Consistency,
        fallbacks: &[Fallback],
    ) -> Self {
        let mut all = Self(BTreeMap::new());
        all.put_text(JOB, job);
        all.put_text("vm.name", &machine.details.identity.name);
        all.put_text("vm.moRef", backup.vm.value());
        all.put_text("consistency", consistency_name(consistency));
        for fallback in fallbacks {
            all.put_text(&format!("fallback.{}", fallback.way), &fallback.reason);
        }
        all
    }

    pub(super) fn add_disk(&mut self, disk: &StoredInSink) {
        let (info, report) = (&disk.info, &disk.report);
        let mut put = |name: &str, value: &str| self.put_text(&of_disk(report.key, name), value);
        put("label", &info.label);
        put("path", &info.base_disk_name().unwrap_or_default());
        put(MODE, mode_name(report.mode));
        put("reason", &report.reason);
        if let Some(uuid) = &info.backing.uuid {
            put(UUID, uuid);
        }
        for (name, value) in &disk.metadata {
            put(&format!("metadata.{name}"), value);
        }
    }

    pub(super) fn leave_out_disk(&mut self, disk: &LeftOut) {
        self.put_text(&format!("leftOut.{}", disk.key), &disk.reason);
    }

    pub(super) fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    fn put_text(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }
}

impl Objects for Properties {
    fn put<'a>(&'a mut self, name: &'a str, content: Vec<u8>) -> BoxFuture<'a, Result<()>> {
        match String::from_utf8(content) {
            Ok(text) => self.put_text(&format!("{OBJECT}{name}"), &text),
            Err(other) => self.put_text(&format!("{OBJECT}{name}{IN_HEX}"), &hex(other.as_bytes())),
        }
        Box::pin(async { Ok(()) })
    }

    fn leave_out(&mut self, name: &str, reason: &str) {
        self.put_text(&format!("objectLeftOut.{name}"), reason);
    }
}

/// Returns a disk of a point as the decision about its changes wants it. Where it is stored the store knows.
pub(super) fn record_of(point: &PointMeta, key: i32) -> Option<DiskRecord> {
    let disk = point.disks.iter().find(|disk| disk.key == key)?;
    let text = |name: &str| point.properties.get(&of_disk(key, name)).cloned();
    Some(DiskRecord {
        key,
        label: text("label").unwrap_or_default(),
        backing_uuid: text(UUID),
        path: text("path").unwrap_or_default(),
        capacity: disk.capacity,
        change_id: disk.change_id.clone(),
        root: TreeRoot::Zero,
        mode: if text(MODE).as_deref() == Some(FULL) { BackupMode::Full } else { BackupMode::Incremental },
        reason: text("reason").unwrap_or_default(),
        bytes: Default::default(),
        distrust: None,
        metadata: BTreeMap::new(),
    })
}

/// Tells whether every disk of a point was read in full.
pub(super) fn is_full(point: &PointMeta) -> bool {
    let full = |key| point.properties.get(&of_disk(key, MODE)).is_some_and(|mode| mode == FULL);
    point.disks.iter().all(|disk| full(disk.key))
}

/// Tells whether a job committed a point.
pub(super) fn is_of_job(point: &PointMeta, job: &str) -> bool {
    point.properties.get(JOB).is_some_and(|of| of == job)
}

/// Makes the identity of a point that is younger than the last, whatever the clock says.
pub(super) fn next_id(vm: &VmId, last: Option<&PointMeta>) -> Result<PointId> {
    let now = PointId::new(vm.clone(), now_micros())?;
    match last {
        Some(last) if name_of(&now) <= last.name => {
            let there = PointId::parse(&format!("{vm}/{}", last.name.replace('_', ".")));
            let there = there.map_err(|_| {
                Error::invalid(format!("the store's point {} of {vm} sorts behind any name by today's date", last.name))
            })?;
            PointId::new(vm.clone(), there.micros().saturating_add(1))
        }
        _ => Ok(now),
    }
}

/// Names a point for a store, whose names have no dots.
pub(super) fn name_of(id: &PointId) -> String {
    id.name().replace('.', "_")
}

fn of_disk(key: i32, name: &str) -> String {
    format!("disk.{key}.{name}")
}

fn mode_name(mode: BackupMode) -> &'static str {
    match mode {
        BackupMode::Full => FULL,
        BackupMode::Incremental => "incremental",
    }
}

fn consistency_name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Crash => "crash",
        Consistency::FileSystem => "fileSystem",
        Consistency::Application => "application",
        Consistency::PoweredOff => "poweredOff",
    }
}

const JOB: &str = "job";
const FULL: &str = "full";
const MODE: &str = "mode";
const UUID: &str = "uuid";

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str) -> PointMeta {
        PointMeta { vm: "vm".into(), name: name.into(), disks: Vec::new(), properties: BTreeMap::new() }
    }

    #[test]
    fn names_grow_even_when_the_clock_is_put_back() {
        let vm = VmId::parse("vm").unwrap();
        let first = name_of(&next_id(&vm, None).unwrap());
        assert!(first.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{first}");
        let late = "29991231T235959_999998Z-ffffffffffffffff";
        let next = name_of(&next_id(&vm, Some(&point(late))).unwrap());
        assert!(next.as_str() > late && next.starts_with("29991231T235959_999999Z-"), "{next}");
        assert!(next_id(&vm, Some(&point("zz-of-somebody-else"))).is_err());
    }

    #[tokio::test]
    async fn small_files_come_back_whether_they_are_text_or_not() {
        let mut properties = Properties(BTreeMap::new());
        properties.put("vmx", b"a = \"b\"".to_vec()).await.unwrap();
        properties.put("nvram", vec![0, 0xff, 7]).await.unwrap();
        let point = PointMeta { properties: properties.into_map(), ..point("1") };
        assert_eq!(point.object("vmx").unwrap(), b"a = \"b\"");
        assert_eq!(point.object("nvram").unwrap(), [0, 0xff, 7]);
        assert_eq!(point.object("vss"), None);
    }
}
