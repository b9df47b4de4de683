//! Descriptors of open disks: what is listed, what an edit leaves behind, what tracking forbids.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use vmdk::{ChildSpec, CreateKind, CreateSpec, Disk, Error, OpenOptions, create, create_child};

const MIB: u64 = 1 << 20;

#[test]
fn the_list_of_a_chain_has_each_key_once_the_childs_first() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let base = create(at("b.vmdk"), &CreateSpec::new(MIB, CreateKind::Flat)).unwrap();
    base.ddb_set("comment", "base").unwrap();
    base.close().unwrap();
    let child = create_child(at("b.vmdk"), at("c.vmdk"), &ChildSpec::new()).unwrap();
    child.ddb_set("Comment", "child").unwrap();
    let list = child.ddb_list();
    let value = |key: &str| {
        let found: Vec<_> = list.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key)).collect();
        assert_eq!(found.len(), 1, "{key}: {list:?}");
        found[0].1.clone()
    };
    assert_eq!(
        (value("comment"), value("geometry.heads"), value("adapterType")),
        ("child".into(), "255".into(), "lsilogic".into())
    );
}

#[test]
fn an_edited_text_descriptor_is_a_new_file_in_the_place_of_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create(at("real.vmdk"), &CreateSpec::new(MIB, CreateKind::Flat)).unwrap().close().unwrap();
    fs::set_permissions(at("real.vmdk"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(at("real.vmdk"), at("before")).unwrap();
    symlink("real.vmdk", at("link.vmdk")).unwrap();
    let disk = Disk::open(at("link.vmdk"), &OpenOptions::new().writable()).unwrap();
    disk.ddb_set("comment", "longer than before").unwrap();
    // The next edits go to the new file, in place or not.
    disk.write_at(0, b"x").unwrap();
    let cid = disk.descriptor().unwrap().cid().unwrap();
    disk.ddb_set("uuid", "60 00").unwrap();
    disk.close().unwrap();
    assert!(fs::symlink_metadata(at("link.vmdk")).unwrap().is_symlink());
    assert_eq!(fs::metadata(at("real.vmdk")).unwrap().permissions().mode() & 0o777, 0o640);
    let (old, new) = (fs::read_to_string(at("before")).unwrap(), fs::read_to_string(at("real.vmdk")).unwrap());
    assert!(!old.contains("comment") && new.contains("comment") && new.contains(&format!("CID={cid}")), "{new}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "something is left behind");
    assert_eq!(Disk::open(at("real.vmdk"), &OpenOptions::new()).unwrap().ddb_get("uuid").as_deref(), Some("60 00"));
}

#[test]
fn change_tracking_is_dropped_from_a_disk_that_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create(at("d.vmdk"), &CreateSpec::new(MIB, CreateKind::Vmfs)).unwrap().close().unwrap();
    let text = fs::read_to_string(at("d.vmdk")).unwrap();
    let tracked = text.replace("version=1", "version=3").replace(
        "# The Disk Data Base",
        "# Change Tracking File\nchangeTrackPath=\"d-ctk.vmdk\"\n\n# The Disk Data Base",
    );
    fs::write(at("d.vmdk"), tracked).unwrap();
    let disk = Disk::open(at("d.vmdk"), &OpenOptions::new().writable()).unwrap();
    assert!(disk.strip_change_tracking().unwrap() && !disk.strip_change_tracking().unwrap());
    disk.close().unwrap();
    assert_eq!(fs::read_to_string(at("d.vmdk")).unwrap(), text);
    let disk = Disk::open(at("d.vmdk"), &OpenOptions::new()).unwrap();
    assert!(matches!(disk.strip_change_tracking(), Err(Error::ReadOnly { .. })));
}

#[test]
fn an_uncompressed_version_3_extent_is_written_unless_its_changes_are_tracked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap();
    disk.write_at(0, b"old").unwrap();
    disk.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4] = 3;
    fs::write(&path, &bytes).unwrap();
    let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
    disk.write_at(MIB - 3, b"new").unwrap();
    disk.close().unwrap();
    track(&path);
    assert_eq!(fs::read(&path).unwrap()[4], 3);
    let error = Disk::open(&path, &OpenOptions::new().writable()).unwrap_err();
    assert!(matches!(&error, Error::NotSupported { reason, .. } if reason.contains("changeTrackPath")), "{error}");
    let disk = Disk::open(&path, &OpenOptions::new()).unwrap();
    let mut buf = [0; 3];
    disk.read_at(MIB - 3, &mut buf).unwrap();
    assert_eq!(&buf, b"new");
}

/// Makes the embedded descriptor name a tracking file.
fn track(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let line = b"changeTrackPath=\"s-ctk.vmdk\"\n";
    let end = 512 + bytes[512..].iter().position(|&byte| byte == 0).unwrap();
    bytes[end..end + line.len()].copy_from_slice(line);
    fs::write(path, bytes).unwrap();
}
