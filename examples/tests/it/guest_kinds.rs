//! Disks of every file system that guests have, made by the tools of others.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{peer, run};

/// Images in a folder, with the name of their file system as the reader gives it. What this machine cannot make is left
/// out, and that is said; `tree` becomes the files that are in each.
pub(crate) fn all(folder: &Path, tree: &Path) -> Vec<(&'static str, PathBuf)> {
    make_tree(tree);
    let kinds: [(&'static str, Maker); 7] = [
        ("ext3", |image, tree| {
            format("mkfs.ext3", &["-q", "-d", tree.to_str().unwrap()], image, 64)?;
            Some(())
        }),
        ("xfs", |image, tree| by_mount("mkfs.xfs", &["-q"], image, 320, tree)),
        ("btrfs", |image, tree| by_mount("mkfs.btrfs", &["-q"], image, 128, tree)),
        ("ntfs", |image, tree| {
            format("mkfs.ntfs", &["-q", "-Q", "-F"], image, 64)?;
            mounted(Command::new(peer("ntfs-3g")?).arg(image), tree)
        }),
        ("vfat", |image, tree| {
            format("mkfs.fat", &["-F", "32"], image, 64)?;
            for entry in std::fs::read_dir(tree).unwrap() {
                let mut mcopy = Command::new(peer("mcopy")?);
                // It takes names for what its locale says.
                mcopy.env("LC_ALL", "C.UTF-8").args(["-s", "-i"]).arg(image).arg(entry.unwrap().path()).arg("::");
                run(&mut mcopy);
            }
            Some(())
        }),
        ("exfat", |image, tree| {
            format("mkfs.exfat", &[], image, 64)?;
            let output = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
            if !output.status.success() {
                eprintln!("NO LOOP DEVICES: exFAT is not tried");
                return None;
            }
            let device = String::from_utf8(output.stdout).unwrap();
            let done = mounted(Command::new(peer("mount.exfat-fuse")?).arg(device.trim()), tree);
            run(Command::new("losetup").args(["--detach", device.trim()]));
            done
        }),
        ("iso9660", |image, tree| {
            run(Command::new(peer("xorriso")?).args(["-as", "mkisofs", "-R", "-quiet", "-o"]).arg(image).arg(tree));
            // Disks are whole sectors, and not so small.
            let len = std::fs::metadata(image).unwrap().len();
            std::fs::File::options().write(true).open(image).unwrap().set_len(len.next_multiple_of(1 << 20)).unwrap();
            Some(())
        }),
    ];
    let made = kinds.into_iter().filter_map(|(kind, make)| {
        let image = folder.join(format!("{kind}.img"));
        make(&image, tree)?;
        Some((kind, image))
    });
    made.collect()
}

/// Fills an image; `None` when this machine cannot, which is said.
type Maker = fn(&Path, &Path) -> Option<()>;

/// Some folders, names of several scripts, sizes around the edges of blocks.
fn make_tree(tree: &Path) {
    for (number, name) in ["plain", "with space", "größe", "漢字", "deep/er/and/deeper"].into_iter().enumerate() {
        let folder = tree.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (step, len) in [0, 1, 511, 4096, 65_537, 300_000].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..len).map(|at: u32| (at / 7 + at * (number as u32 + 3)) as u8).collect();
            std::fs::write(folder.join(format!("file {step}.bin")), bytes).unwrap();
        }
    }
}

fn format(program: &str, arguments: &[&str], image: &Path, mib: u64) -> Option<()> {
    let program = peer(program)?;
    std::fs::File::create(image).unwrap().set_len(mib << 20).unwrap();
    run(Command::new(program).args(arguments).arg(image));
    Some(())
}

/// Lets the kernel write a tree.
fn by_mount(program: &str, arguments: &[&str], image: &Path, mib: u64, tree: &Path) -> Option<()> {
    format(program, arguments, image, mib)?;
    mounted(Command::new("mount").args(["-o", "loop"]).arg(image), tree)
}

/// Copies a tree to where a command mounts something; the folder is its last argument.
fn mounted(command: &mut Command, tree: &Path) -> Option<()> {
    let point = tempfile::tempdir().unwrap();
    if !command.arg(point.path()).status().is_ok_and(|status| status.success()) {
        eprintln!("CANNOT MOUNT: {command:?} is not tried");
        return None;
    }
    let copied = Command::new("cp").arg("-r").arg(tree.join(".")).arg(point.path()).status();
    run(Command::new("umount").arg(point.path()));
    assert!(copied.unwrap().success(), "the tree was not copied");
    Some(())
}
