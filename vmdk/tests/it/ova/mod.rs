//! OVF packages: ours against themselves, others' programs, others' habits, and damage.

mod descriptor;
mod hostile;
mod peers;
mod reading;
mod writing;

use std::io::Read;

use vmdk::{
    CreateKind, CreateSpec, Disk, create,
    ova::{DiskController, DiskSpec, NetworkSpec, OvaReader, OvfSpec, Verification},
};

use crate::support::holey;

/// Two disks of odd sizes, with their content.
pub(super) struct Disks {
    _dir: tempfile::TempDir,
    pub(super) disks: [Disk; 2],
    pub(super) contents: [Vec<u8>; 2],
}

impl Disks {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let contents = [holey(3 * 1024 * 1024 + 512, 61), holey(65536, 62)];
        let disks = [0, 1].map(|index: usize| {
            let content = &contents[index];
            let spec = CreateSpec::new(content.len() as u64, CreateKind::MonolithicSparse);
            let disk = create(dir.path().join(format!("{index}.vmdk")), &spec).unwrap();
            disk.write_at(0, content).unwrap();
            disk
        });
        Self { _dir: dir, disks, contents }
    }

    /// A machine with both.
    pub(super) fn spec(&self) -> OvfSpec {
        OvfSpec::new("web & co")
            .guest_os("ubuntu64Guest", 94)
            .processors(2)
            .memory_mib(2048)
            .annotation("said \"<hello>\"")
            .disk(DiskSpec::new("disk1.vmdk", self.disks[0].capacity()).at(DiskController::ParaVirtual, 0, 0))
            .disk(DiskSpec::new("disk 2.vmdk", self.disks[1].capacity()).at(DiskController::Ide, 1, 1))
            .network(NetworkSpec::new("VM Network"))
            .network(NetworkSpec::new("Backup & DMZ").adapter("E1000"))
    }
}

/// A tar of these members, made by hand, so that it can be wrong.
pub(super) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        bytes.extend(header(name, content.len() as u64, b'0'));
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A ustar header.
pub(super) fn header(name: &str, size: u64, kind: u8) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    if size < 1 << 33 {
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    sign(&mut block);
    block
}

/// Sets a header's checksum.
pub(super) fn sign(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A descriptor that references files, given as `id href attributes`.
pub(super) fn descriptor(files: &[(&str, &str, &str)]) -> Vec<u8> {
    let files: String =
        files.iter().map(|(id, href, more)| format!("<o:File o:id='{id}' o:href='{href}' {more}/>")).collect();
    let disks = "<o:DiskSection><o:Info/><o:Disk o:diskId='d' o:capacity='1' o:fileRef='f'/></o:DiskSection>";
    let disks = if files.contains("o:id='f'") { disks } else { "" };
    format!(
        "<?xml version='1.0'?><o:Envelope xmlns:o='http://schemas.dmtf.org/ovf/envelope/1'>\
         <o:References>{files}</o:References>{disks}</o:Envelope>"
    )
    .into_bytes()
}

/// A file's name and bytes.
pub(super) type Named = (String, Vec<u8>);

/// What a forward reader gets out of an archive: names and bytes.
pub(super) fn forward(archive: impl Read) -> vmdk::Result<(Vec<Named>, Verification)> {
    let mut reader = OvaReader::open(archive, "test.ova")?;
    let mut files = Vec::new();
    while let Some(mut file) = reader.next_file()? {
        let name = file.name().to_owned();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| vmdk::Error::io("read", &name, None, error))?;
        files.push((name, bytes));
    }
    Ok((files, reader.finish()?))
}
