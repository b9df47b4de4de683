//! What a volume says of how it was left; ntfs-3g has to see the same.

use std::{fs, os::unix::fs::FileExt, process::Command};

use vixmntapi::fs::{Consistency, ExtentKind, open};

use super::{
    find,
    image::{Image, set},
};
use crate::{
    disks::raw,
    peers::{peer, run},
};

/// Our doubts, after the volume has been said to be clean where there are none; and whether ntfs-3g would write to it.
fn told(image: &Image) -> (Vec<String>, Option<i32>) {
    let info = open(&raw(image.path())).unwrap().unwrap().info();
    assert_eq!(info.consistency == Consistency::Clean, info.doubts.is_empty(), "{info:?}");
    let probe = peer("ntfs-3g.probe").map(|probe| Command::new(probe).arg("--readwrite").arg(image.path()).status());
    (info.doubts, probe.map(|status| status.unwrap().code().unwrap()))
}

fn is_told(image: &Image, doubt: Option<&str>, of_ntfs_3g: i32) {
    let (doubts, status) = told(image);
    assert_eq!(doubts.len(), usize::from(doubt.is_some()), "{doubts:?}");
    assert!(doubts.iter().zip(doubt).all(|(said, wanted)| said.contains(wanted)), "{doubts:?}: {doubt:?}");
    assert!(status.is_none_or(|status| status == of_ntfs_3g), "ntfs-3g.probe: {status:?}");
}

/// Makes the first page of the log one that Windows writes: the file system uses it, and the last checkpoint was so many
/// bytes ago.
fn open_log(image: &Image, bytes: u64, is_closed: bool) {
    let fs = open(&raw(image.path())).unwrap().unwrap();
    let log = fs.clone().open(find(&fs, "$LogFile"), None).unwrap();
    let ExtentKind::Stored(at) = log.extents(0..4096).unwrap()[0].kind else { panic!("it is stored") };
    // Numbers of 41 bits of rounds for a log of 4 MiB and more.
    let place_bits = 64 - (log.size() / 8).leading_zeros();
    let end = (3 << place_bits) | (0x20_0000 / 8);
    let mut page = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| page[at..][..bytes.len()].copy_from_slice(bytes);
    put(0, b"RSTR\x1e\0\x09\0");
    put(0x10, &4096_u32.to_le_bytes());
    put(0x14, &4096_u32.to_le_bytes());
    put(0x18, &[0x30, 0, 1, 0, 1, 0]);
    put(0x30, &u64::to_le_bytes(end));
    // One client, none free, the first in use.
    put(0x38, &[1, 0, 0xff, 0xff, 0, 0, if is_closed { 2 } else { 0 }, 0]);
    put(0x40, &(64 - place_bits).to_le_bytes());
    put(0x44, &[0xe0, 0, 0x40, 0]);
    put(0x48, &log.size().to_le_bytes());
    put(0x54, &[0x30, 0, 0x40, 0]);
    put(0x70, &u64::to_le_bytes(end - bytes / 8));
    put(0x78, &u64::to_le_bytes(end - bytes / 8));
    put(0x80, &[0xff; 4]);
    put(0x8c, &[8, 0, 0, 0]);
    put(0x90, b"N\0T\0F\0S\0");
    // The update sequence: write 1, and zeros that it took the place of.
    put(0x1e, &[1, 0]);
    for sector in 1..=8 {
        put(sector * 512 - 2, &[1, 0]);
    }
    let file = fs::OpenOptions::new().write(true).open(image.path()).unwrap();
    for copy in 0..2 {
        file.write_all_at(&page, at + copy * 4096).unwrap();
    }
}

#[test]
fn a_log_that_was_not_closed_says_how_much_was_written_since_the_last_checkpoint() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    is_told(&image, None, 0);
    open_log(&image, 0x1_2340, true);
    is_told(&image, None, 0);
    open_log(&image, 0x1_2340, false);
    is_told(&image, Some("at least 74560 bytes of its log"), 15);
    open_log(&image, 0, false);
    is_told(&image, Some("its log is not closed"), 15);
}

#[test]
fn a_hibernated_windows_is_seen_by_its_file() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    for (head, doubt, status) in
        [(&b"hibr"[..], Some("hibernated"), 14), (b"HIBR", Some("hibernated"), 14), (b"\0\0\0\0", None, 0)]
    {
        let Some(mount) = image.mount() else { return };
        let path = mount.path().join("hiberfil.sys");
        fs::write(&path, [head, &[0; 5000]].concat()).unwrap();
        // Hidden and of the system.
        set(&path, "system.ntfs_attrib_be", &6_u32.to_be_bytes());
        drop(mount);
        is_told(&image, doubt, status);
        if doubt.is_some() {
            // ntfs-3g mounts it only when it may take the file away.
            let point = tempfile::tempdir().unwrap();
            let Some(program) = peer("ntfs-3g") else { return };
            run(program, &[&"-o", &"remove_hiberfile", &image.path(), &point.path()]);
            run("umount", &[&point.path()]);
            super::image::wait(image.path());
        }
    }
}

#[test]
fn a_volume_that_is_to_be_checked_and_a_log_that_nobody_can_read_are_told() {
    let (Some(image), Some(fix)) = (Image::new(&["-c", "4096"], 64), peer("ntfsfix")) else { return };
    run(&fix, &[&image.path()]);
    let (doubts, _) = told(&image);
    assert!(matches!(&*doubts, [doubt] if doubt.contains("to be checked")), "{doubts:?}");
    run(&fix, &[&"-d", &image.path()]);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    let log = fs.clone().open(find(&fs, "$LogFile"), None).unwrap();
    let ExtentKind::Stored(at) = log.extents(0..4096).unwrap()[0].kind else { panic!("it is stored") };
    let file = fs::OpenOptions::new().write(true).open(image.path()).unwrap();
    file.write_all_at(&[7; 8192], at).unwrap();
    let (doubts, _) = told(&image);
    assert!(matches!(&*doubts, [doubt] if doubt.contains("nobody knows")), "{doubts:?}");
}
