//! New disks of every kind: their files, their descriptors, and what is left of a creation that fails.

use std::{fs, path::Path};

use vmdk::{
    AdapterType, Cid, CreateKind, CreateSpec, CreateType, Descriptor, Disk, DiskUuid, Error, OpenOptions, create,
    descriptor::Geometry,
    layout::{SparseFlags, SparseHeader},
};

use crate::support::{assert_is, holey, peer, run};

const MIB: u64 = 1 << 20;

const KINDS: [CreateKind; 6] = [
    CreateKind::Flat,
    CreateKind::Vmfs,
    CreateKind::MonolithicSparse,
    CreateKind::TwoGbMaxExtentFlat,
    CreateKind::TwoGbMaxExtentSparse,
    CreateKind::Raw,
];

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_kind_has_vmwares_file_names_also_with_spaces_and_letters_of_the_world() {
    let expected: [&[&str]; 6] = [
        &["Диск 1 ü-flat.vmdk", "Диск 1 ü.vmdk"],
        &["Диск 1 ü-flat.vmdk", "Диск 1 ü.vmdk"],
        &["Диск 1 ü.vmdk"],
        &["Диск 1 ü-f001.vmdk", "Диск 1 ü-f002.vmdk", "Диск 1 ü-f003.vmdk", "Диск 1 ü.vmdk"],
        &["Диск 1 ü-s001.vmdk", "Диск 1 ü-s002.vmdk", "Диск 1 ü-s003.vmdk", "Диск 1 ü.vmdk"],
        &["Диск 1 ü.vmdk"],
    ];
    for (kind, expected) in KINDS.into_iter().zip(expected) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Диск 1 ü.vmdk");
        let capacity = 4096 * MIB + 512;
        let disk = create(&path, &CreateSpec::new(capacity, kind)).unwrap();
        disk.write_at(4092 * MIB - 3, b"across").unwrap();
        disk.write_at(capacity - 3, b"end").unwrap();
        disk.close().unwrap();
        assert_eq!(names(dir.path()), expected, "{kind:?}");
        if kind == CreateKind::Raw {
            continue;
        }
        let disk = Disk::open(&path, &OpenOptions::new()).unwrap();
        let mut buf = [0; 8];
        disk.read_at(4092 * MIB - 4, &mut buf).unwrap();
        assert_eq!(&buf, b"\0across\0", "{kind:?}");
        disk.read_at(capacity - 8, &mut buf).unwrap();
        assert_eq!(&buf, b"\0\0\0\0\0end", "{kind:?}");
        assert_eq!(disk.capacity(), capacity);
        if peer("qemu-img") {
            let info = run("qemu-img", dir.path(), &["info", "--output=json", "-f", "vmdk", "Диск 1 ü.vmdk"]);
            assert!(info.contains(&format!("\"virtual-size\": {capacity}")), "{kind:?}: {info}");
        }
    }
}

#[test]
fn qemu_img_agrees_on_disks_of_every_kind_and_grain_size() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = holey(5 * 1024 * 1024 + 3 * 512, 21);
    fs::write(dir.path().join("raw"), &content).unwrap();
    let specs = KINDS.into_iter().map(|kind| CreateSpec::new(content.len() as u64, kind));
    let grains = [4096_u64, 16384, 1 << 20].into_iter().flat_map(|grain| {
        let of = |kind| CreateSpec::new(content.len() as u64, kind).grain_bytes(grain).zeroed_grains(grain == 16384);
        [of(CreateKind::MonolithicSparse), of(CreateKind::TwoGbMaxExtentSparse)]
    });
    for (index, spec) in specs.chain(grains).enumerate() {
        let name = format!("disk {index}.vmdk");
        let path = dir.path().join(&name);
        let disk = create(&path, &spec).unwrap();
        disk.write_at(0, &content).unwrap();
        assert_is(&disk, &content);
        disk.close().unwrap();
        let format = if index == 5 { "raw" } else { "vmdk" };
        let text = run("qemu-img", dir.path(), &["compare", "-f", "raw", "-F", format, "raw", &name]);
        assert!(text.contains("identical"), "{spec:?}: {text}");
        if index != 0 && index != 1 && index != 3 && index != 5 {
            run("qemu-img", dir.path(), &["check", "-f", "vmdk", &name]);
        }
    }
}

#[test]
fn what_the_spec_says_is_in_header_and_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let uuid: DiskUuid = "60 00 C2 9c 44 9c 3d 2f-90 8f 02 f5 a3 6a b7 9d".parse().unwrap();
    let path = dir.path().join("s.vmdk");
    let spec = CreateSpec::new(8 * MIB, CreateKind::MonolithicSparse)
        .adapter_type(AdapterType::Ide)
        .hardware_version(21)
        .zeroed_grains(true)
        .grain_bytes(16384)
        .uuid(uuid)
        .cid(Cid(0x00c0_ffee));
    let disk = create(&path, &spec).unwrap();
    let descriptor = disk.descriptor().unwrap();
    assert_eq!(descriptor.cid().unwrap(), Cid(0x00c0_ffee));
    assert_eq!(descriptor.create_type(), Some(CreateType::MonolithicSparse));
    let ddb = |key| descriptor.ddb_get(key).unwrap().into_owned();
    assert_eq!(ddb("adapterType"), "ide");
    assert_eq!(ddb("virtualHWVersion"), "21");
    assert_eq!(ddb("uuid"), "60 00 C2 9c 44 9c 3d 2f-90 8f 02 f5 a3 6a b7 9d");
    assert_eq!(ddb("geometry.heads"), "16");
    let header = SparseHeader::parse(fs::read(&path).unwrap()[..512].try_into().unwrap(), "s").unwrap();
    assert_eq!((header.version, header.grain_sectors), (2, 32));
    assert!(header.flags.has(SparseFlags::ZEROED_GRAINS));
    let thick = CreateSpec::new(MIB, CreateKind::Vmfs).thin(false).to_descriptor("x.vmdk").unwrap();
    let thin = CreateSpec::new(MIB, CreateKind::Vmfs).to_descriptor("x.vmdk").unwrap();
    assert_eq!((thick.ddb_get("thinProvisioned"), thin.ddb_get("thinProvisioned").as_deref()), (None, Some("1")));
}

#[test]
fn a_restored_disk_has_the_descriptor_of_the_one_it_replaces() {
    let old = "# Disk DescriptorFile\nversion=3\nencoding=\"UTF-8\"\nCID=a1b2c3d4\nparentCID=ffffffff\n\
        createType=\"vmfs\"\n\n# Extent description\nRW 16384 VMFS \"old-flat.vmdk\"\n\n\
        # Change Tracking File\nchangeTrackPath=\"old-ctk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
        ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"64\"\n\
        ddb.geometry.sectors = \"32\"\nddb.longContentID = \"11112222333344445555666a1b2c3d4\"\n\
        ddb.uuid = \"60 00 C2 9c 44 9c 3d 2f-90 8f 02 f5 a3 6a b7 9d\"\nddb.virtualHWVersion = \"19\"\n";
    let spec = CreateSpec::new(8 * MIB, CreateKind::Vmfs).like(Descriptor::parse(old.as_bytes()).unwrap()).thin(false);
    let new = spec.cid(Cid(1)).to_descriptor("new name.vmdk").unwrap();
    let text = new.to_string();
    assert!(text.contains("RW 16384 VMFS \"new name-flat.vmdk\"\n") && text.contains("version=1\n"), "{text}");
    assert!(!text.contains("ctk") && !text.contains("old"), "{text}");
    assert_eq!(Geometry::of(&new).unwrap(), Geometry { cylinders: 1, heads: 64, sectors: 32 });
    assert_eq!(new.ddb_get("uuid").unwrap(), "60 00 C2 9c 44 9c 3d 2f-90 8f 02 f5 a3 6a b7 9d");
    assert!(CreateSpec::new(MIB, CreateKind::Raw).to_descriptor("x").is_err());
}

#[test]
fn creation_never_overwrites_and_leaves_nothing_behind_when_it_fails() {
    for (kind, second) in [
        (CreateKind::Flat, "x-flat.vmdk"),
        (CreateKind::Vmfs, "x.vmdk"),
        (CreateKind::MonolithicSparse, "x.vmdk"),
        (CreateKind::TwoGbMaxExtentFlat, "x-f002.vmdk"),
        (CreateKind::TwoGbMaxExtentSparse, "x.vmdk"),
        (CreateKind::Raw, "x.vmdk"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(second), "mine").unwrap();
        let error = create(dir.path().join("x.vmdk"), &CreateSpec::new(3 << 30, kind)).unwrap_err();
        assert!(
            matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists),
            "{error}"
        );
        assert_eq!(names(dir.path()), [second], "{kind:?}");
        assert_eq!(fs::read(dir.path().join(second)).unwrap(), b"mine");
    }
}

#[test]
fn sizes_options_and_names_outside_of_the_format_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = |capacity| CreateSpec::new(capacity, CreateKind::MonolithicSparse);
    let specs = [0, 511, 513, (62 << 40) + 512].map(sparse).into_iter();
    let grains = [0, 2048, 4097, 3 * 4096, 64 << 20].map(|bytes| sparse(MIB).grain_bytes(bytes));
    // Sixteen million tables and more.
    let small = [sparse(62 << 40).grain_bytes(4096)];
    for spec in specs.chain(grains).chain(small) {
        let error = create(dir.path().join("y.vmdk"), &spec).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{spec:?}: {error}");
    }
    for name in ["a\"b.vmdk", "a\nb.vmdk"] {
        let error = create(dir.path().join(name), &sparse(MIB)).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{name:?}: {error}");
    }
    assert!(names(dir.path()).is_empty());
    let raw = create(dir.path().join("odd.img"), &CreateSpec::new(1001, CreateKind::Raw)).unwrap();
    raw.write_at(1000, b"z").unwrap();
    assert_eq!(Disk::open_raw(dir.path().join("odd.img"), vmdk::Access::ReadOnly).unwrap().capacity(), 1001);
}
