//! Quickstart on file systems made by others, checked by others: mkfs and fsck of ext4 and NTFS, qemu-img.

use std::path::Path;
use std::process::Command;

use examples::guest_fs::Noise;

use crate::support::{example, peer, run};

const FILES: usize = 3000;

/// A folder with a tree of several thousand files.
fn make_tree(root: &Path) {
    let mut noise = Noise::new(99);
    for number in 0..FILES {
        let folder = root.join(format!("d{}", number % 40)).join(format!("e{}", number % 7));
        std::fs::create_dir_all(&folder).unwrap();
        let len = usize::try_from(noise.number() % 24_000).unwrap();
        std::fs::write(folder.join(format!("file {number}.txt")), noise.bytes(len)).unwrap();
    }
}

pub(crate) fn ext4(folder: &Path) -> Option<std::path::PathBuf> {
    let mkfs = peer("mkfs.ext4")?;
    let (tree, image) = (folder.join("tree"), folder.join("ext4.img"));
    make_tree(&tree);
    std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    run(Command::new(mkfs).args(["-q", "-F", "-d"]).arg(&tree).arg(&image));
    Some(image)
}

fn ntfs(folder: &Path) -> Option<std::path::PathBuf> {
    let (mkfs, copy) = (peer("mkfs.ntfs")?, peer("ntfscp")?);
    let image = folder.join("ntfs.img");
    std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    run(Command::new(mkfs).args(["-q", "-Q", "-F"]).arg(&image));
    let (tree, mount) = (folder.join("tree"), folder.join("mnt"));
    make_tree(&tree);
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("ntfs-3g").arg(&image).arg(&mount).status().is_ok_and(|status| status.success());
    if mounted {
        let copied = Command::new("cp").arg("-r").arg(&tree).arg(&mount).status();
        run(Command::new("umount").arg(&mount));
        assert!(copied.unwrap().success(), "the tree was not copied");
    } else {
        // No FUSE here: file by file, all into the root folder.
        eprintln!("ntfs-3g cannot mount here; the files go in one by one");
        let source = folder.join("one");
        for number in 0..FILES {
            std::fs::write(&source, Noise::new(number as u64).bytes(number % 24_000)).unwrap();
            run(Command::new(&copy).args(["-q", "-f"]).arg(&image).arg(&source).arg(format!("file{number}.txt")));
        }
    }
    Some(image)
}

/// Quickstart with the image in every form; gives the restored raw image.
fn quickstart(folder: &Path, image: &Path) -> Option<std::path::PathBuf> {
    let qemu = peer("qemu-img")?;
    let sparse = folder.join("disk.vmdk");
    run(Command::new(&qemu)
        .args(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicSparse"])
        .arg(image)
        .arg(&sparse));
    for (disk, format, kept) in [(image, "raw", "restored.img"), (&*sparse, "sparse", "restored.vmdk")] {
        let keep = folder.join(format);
        let output =
            run(example("quickstart").arg("--disk").arg(disk).arg("--keep").arg(&keep).args(["--format", format]));
        assert!(String::from_utf8_lossy(&output.stdout).trim_end().ends_with("verified"));
        let form = if format == "raw" { "raw" } else { "vmdk" };
        let compared =
            run(Command::new(&qemu).args(["compare", "-f", "raw", "-F", form]).arg(image).arg(keep.join(kept)));
        assert!(String::from_utf8_lossy(&compared.stdout).contains("identical"));
    }
    // The user's own image is as it was.
    run(Command::new(&qemu).args(["compare", "-f", "raw", "-F", "vmdk"]).arg(image).arg(&sparse));
    Some(folder.join("raw").join("restored.img"))
}

#[test]
fn an_ext4_file_system_comes_back_identical_and_clean() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(image), Some(fsck)) = (ext4(folder.path()), peer("e2fsck")) else { return };
    let Some(restored) = quickstart(folder.path(), &image) else { return };
    run(Command::new(fsck).arg("-fn").arg(&restored));
}

#[test]
fn an_ntfs_file_system_comes_back_identical_and_clean() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(image), Some(fix)) = (ntfs(folder.path()), peer("ntfsfix")) else { return };
    let Some(restored) = quickstart(folder.path(), &image) else { return };
    run(Command::new(fix).arg("-n").arg(&restored));
}
