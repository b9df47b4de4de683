//! What the tests ask of qemu-img and qemu-io.

use std::{fs, path::Path, sync::OnceLock};

use proptest::{prelude::*, sample::select};
use tempfile::TempDir;
use vmdk::{Disk, MapEntry, MapKind};

use super::changes::{Change, store_patterns};
use crate::support::{peer, run};

/// A directory of disks and the programs that work on them.
pub(super) struct Qemu(TempDir);

impl Qemu {
    /// `None` where the peer is missing, which was said.
    pub(super) fn new() -> Option<Self> {
        static HERE: OnceLock<bool> = OnceLock::new();
        HERE.get_or_init(|| peer("qemu-img") && peer("qemu-io")).then(|| {
            let dir = tempfile::tempdir().unwrap();
            store_patterns(dir.path());
            Self(dir)
        })
    }

    pub(super) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn create(&self, name: &str, capacity: u64, options: &str) {
        self.img(&["create", "-q", "-f", "vmdk", "-o", options, name, &capacity.to_string()]);
    }

    pub(super) fn create_child(&self, name: &str, parent: &str, capacity: u64, options: &str) {
        let capacity = capacity.to_string();
        self.img(&["create", "-q", "-f", "vmdk", "-b", parent, "-F", "vmdk", "-o", options, name, &capacity]);
    }

    /// Makes a disk with this content.
    pub(super) fn convert(&self, content: &[u8], name: &str, options: &str) {
        fs::write(self.dir().join("raw"), content).unwrap();
        self.img(&["convert", "-f", "raw", "-O", "vmdk", "-o", options, "raw", name]);
    }

    /// Makes all changes, in one process.
    pub(super) fn change(&self, name: &str, capacity: u64, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let commands: Vec<_> = changes.iter().map(|change| change.command(capacity)).collect();
        let mut args = vec!["-f", "vmdk"];
        args.extend(commands.iter().flat_map(|command| ["-c", command.as_str()]));
        args.push(name);
        let said = run("qemu-io", self.dir(), &args);
        assert!(!said.contains("failed"), "{said}");
    }

    /// Fails unless the peer finds this content in the disk.
    pub(super) fn assert_is(&self, format: &str, name: &str, content: &[u8]) {
        fs::write(self.dir().join("raw"), content).unwrap();
        self.assert_same("raw", "raw", format, name);
    }

    /// Fails unless the peer finds the same content in both disks, and the same size.
    pub(super) fn assert_same(&self, format: &str, name: &str, other_format: &str, other: &str) {
        let said = self.img(&["compare", "-f", format, "-F", other_format, name, other]);
        assert!(said.contains("identical") && !said.contains("size mismatch"), "{said}");
    }

    /// Fails unless the peer finds the disk sound.
    pub(super) fn check(&self, name: &str) {
        self.img(&["check", "-f", "vmdk", name]);
    }

    /// Fails unless the peer has the same map, layers and compression included. It knows no holes of flat files.
    pub(super) fn assert_maps(&self, name: &str, disk: &Disk) {
        let said = self.img(&["map", "--output=json", "-f", "vmdk", name]);
        let mut theirs = Vec::<MapEntry>::new();
        for entry in said.split('}').filter(|entry| entry.contains("start")) {
            let [start, len, depth] = ["start", "length", "depth"].map(|name| field(entry, name).parse().unwrap());
            let kind = match (field(entry, "data"), field(entry, "present")) {
                ("true", _) => MapKind::Data,
                (_, "true") => MapKind::Zero,
                _ => MapKind::Unallocated,
            };
            let entry = MapEntry::new(start..start + len, kind)
                .in_layer(depth as usize)
                .compressed(field(entry, "compressed") == "true");
            match theirs.last_mut() {
                Some(last)
                    if (last.kind, last.layer, last.compressed) == (entry.kind, entry.layer, entry.compressed) =>
                {
                    last.range.end = entry.range.end;
                }
                _ => theirs.push(entry),
            }
        }
        assert_eq!(disk.map(0..disk.capacity()).map(|entry| entry.unwrap()).collect::<Vec<_>>(), theirs);
    }

    pub(super) fn img(&self, args: &[&str]) -> String {
        run("qemu-img", self.dir(), args)
    }
}

/// A disk that can be created empty and written by qemu-io.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) subformat: &'static str,
    zeroed_grain: bool,
    pub(super) adapter: &'static str,
}

impl Made {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let subformat =
            select(&["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"][..]);
        (subformat, any::<bool>(), select(&["ide", "buslogic", "lsilogic", "legacyESX"][..]))
            .prop_map(|(subformat, zeroed_grain, adapter)| Self { subformat, zeroed_grain, adapter })
    }

    /// One that can have a parent.
    pub(super) fn any_child() -> impl Strategy<Value = Self> {
        (select(&["monolithicSparse", "twoGbMaxExtentSparse"][..]), any::<bool>())
            .prop_map(|(subformat, zeroed_grain)| Self { subformat, zeroed_grain, adapter: "ide" })
    }

    pub(super) fn is_flat(&self) -> bool {
        self.subformat.ends_with("Flat")
    }

    /// Whether there may be grains that are zero without being stored.
    pub(super) fn has_zeroed_grains(&self) -> bool {
        self.zeroed_grain && !self.is_flat()
    }

    /// The options for qemu-img.
    pub(super) fn options(&self) -> String {
        let zeroed_grain = if self.has_zeroed_grains() { "on" } else { "off" };
        format!("subformat={},zeroed_grain={zeroed_grain},adapter_type={}", self.subformat, self.adapter)
    }
}

/// A value of a flat JSON object.
fn field<'a>(entry: &'a str, name: &str) -> &'a str {
    let (_, value) = entry.split_once(&format!("\"{name}\": ")).unwrap();
    value.split(',').next().unwrap()
}
