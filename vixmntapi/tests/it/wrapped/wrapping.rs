//! What lies between a disk and a file system.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use vmdk::{CopyOptions, CreateKind, CreateSpec};

use crate::{
    lvm,
    peers::{peer, run},
};

const MIB: u64 = 1 << 20;

/// What is around a file system.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrapping {
    /// Nothing: it begins with the disk.
    None,
    /// The second primary partition of an MBR.
    Mbr,
    /// The second logical partition within an extended one.
    Logical,
    /// The second partition of a GPT.
    Gpt,
    /// A logical volume on a disk of its own.
    Lvm,
    /// A logical volume over two disks: one of them whole, of the other a partition.
    LvmOfTwo,
}

impl Wrapping {
    pub(super) const ALL: [Self; 6] = [Self::None, Self::Mbr, Self::Logical, Self::Gpt, Self::Lvm, Self::LvmOfTwo];

    /// Makes the raw disks of an image in a folder, and says which volume of them it is. `None` where there is no
    /// sfdisk, which is said.
    pub(super) fn around(self, image: &Path, folder: &Path) -> Option<(Vec<PathBuf>, String)> {
        let size = image.metadata().unwrap().len();
        let mib = size.div_ceil(MIB);
        let disk = folder.join("0.img");
        let made = match self {
            Self::None => {
                put(image, 0..size, &create(&disk, size.next_multiple_of(512)), 0);
                (vec![disk], "disk0".into())
            }
            Self::Mbr => {
                let starts = partition(&disk, mib + 4, &format!("label: dos\nsize=1M,type=83\nsize={mib}M,type=83\n"))?;
                put(image, 0..size, &open(&disk), starts[1]);
                (vec![disk], "disk0p2".into())
            }
            Self::Logical => {
                let script = format!("label: dos\nsize=1M\ntype=extended\nsize=1M,type=83\nsize={mib}M,type=83\n");
                let starts = partition(&disk, mib + 9, &script)?;
                put(image, 0..size, &open(&disk), starts[3]);
                (vec![disk], "disk0p6".into())
            }
            Self::Gpt => {
                let starts = partition(&disk, mib + 4, &format!("label: gpt\nsize=1M\nsize={mib}M\n"))?;
                put(image, 0..size, &open(&disk), starts[1]);
                (vec![disk], "disk0p2".into())
            }
            Self::Lvm => {
                let heads = lvm::linear_group(&[mib as usize]);
                let file = create(&disk, (mib + 1) * MIB);
                file.write_all_at(&heads[0], 0).unwrap();
                put(image, 0..size, &file, MIB);
                (vec![disk], "lvm/vg0/linear".into())
            }
            Self::LvmOfTwo => {
                let first = mib / 3 + 1;
                let heads = lvm::linear_group(&[first as usize, (mib - first) as usize]);
                let file = create(&disk, (first + 1) * MIB);
                file.write_all_at(&heads[0], 0).unwrap();
                put(image, 0..first * MIB, &file, MIB);
                let second = folder.join("1.img");
                let rest = mib - first + 1;
                let starts = partition(&second, rest + 4, &format!("label: gpt\nsize=1M\nsize={rest}M\n"))?;
                let file = open(&second);
                file.write_all_at(&heads[1], starts[1]).unwrap();
                put(image, first * MIB..size, &file, starts[1] + MIB);
                (vec![disk, second], "lvm/vg0/linear".into())
            }
        };
        Some(made)
    }
}

/// As what a disk is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A sparse VMDK of ours.
    Sparse,
    /// A stream-optimised VMDK of qemu-img.
    Stream,
}

impl Form {
    pub(super) const ALL: [Self; 2] = [Self::Sparse, Self::Stream];

    /// Converts a raw disk. `None` where there is no qemu-img, which is said.
    pub(super) fn of(self, raw: &Path) -> Option<PathBuf> {
        let path = raw.with_extension("vmdk");
        match self {
            Self::Sparse => {
                let disk = vmdk::Disk::open_raw(raw, vmdk::Access::ReadOnly).unwrap();
                let spec = CreateSpec::new(disk.capacity(), CreateKind::MonolithicSparse);
                vmdk::convert(&disk, &path, &spec, &CopyOptions::default()).unwrap().close().unwrap();
            }
            Self::Stream => {
                let option = "subformat=streamOptimized";
                run(
                    peer("qemu-img")?,
                    &[&"convert", &"-f", &"raw", &"-O", &"vmdk", &"-o", &option, &raw, &path.as_path()],
                );
            }
        }
        Some(path)
    }
}

fn create(path: &Path, size: u64) -> File {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    file
}

fn open(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

/// Makes a disk with partitions; where they begin, in bytes, in the order of their numbers.
fn partition(disk: &Path, mib: u64, script: &str) -> Option<Vec<u64>> {
    let sfdisk = peer("sfdisk")?;
    create(disk, mib * MIB);
    let mut child = Command::new(&sfdisk).arg("-q").arg(disk).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    let dump = run(sfdisk, &[&"-d", &disk]);
    let starts = dump.lines().filter_map(|line| line.split_once("start=")?.1.split(',').next()?.trim().parse().ok());
    Some(starts.map(|sector: u64| sector * 512).collect())
}

/// Copies a part of an image to a place, but for what is zero there.
fn put(image: &Path, range: std::ops::Range<u64>, to: &File, at: u64) {
    let from = File::open(image).unwrap();
    let mut buffer = vec![0; MIB as usize];
    for offset in range.clone().step_by(MIB as usize) {
        let buffer = &mut buffer[..(range.end - offset).min(MIB) as usize];
        from.read_exact_at(buffer, offset).unwrap();
        if buffer.iter().any(|byte| *byte != 0) {
            to.write_all_at(buffer, at + offset - range.start).unwrap();
        }
    }
}
