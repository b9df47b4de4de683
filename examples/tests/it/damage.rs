//! Damage on the repository's disk: found by programs, told exactly, and never written to a machine.

use std::path::{Path, PathBuf};

use examples::guest_fs::Noise;
use vsphere_sim::{DiskSpec, Power};

use crate::support::{Site, content, run};

/// Every pack of the repository.
fn packs(repository: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(repository.join("packs")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_told_with_disk_offset_and_chunk_and_reaches_no_machine() {
    let site = Site::with(DiskSpec::empty(16 << 20)).await;
    let data = Noise::new(21).bytes(4 << 20);
    site.disk().write_at(6 << 20, &data).unwrap();
    run(&mut site.backup());
    let stored = content(&site.disk());

    let pack = packs(&site.path("repository")).pop().unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&pack, bytes).unwrap();

    let told = |mut command: std::process::Command| {
        let output = command.output().unwrap();
        assert!(!output.status.success(), "damage went unnoticed: {command:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let mut check = crate::support::example("check");
    check.arg("--repository").arg(site.path("repository"));
    let text = told(check);
    assert!(text.contains("disk 2000, offset ") && text.contains("chunk "), "{text}");

    // The guest changed everything; the restore stops at the damage, and what it did write is right.
    let changed = Noise::new(22).bytes(16 << 20);
    site.disk().write_at(0, &changed).unwrap();
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    let mut restore = site.program("restore");
    restore.arg("--full");
    let text = told(restore);
    assert!(text.contains("2000"), "{text}");
    let now = content(&site.disk());
    for (at, byte) in now.iter().enumerate() {
        assert!(*byte == stored[at] || *byte == changed[at], "byte {at} is neither the point's nor the guest's");
    }
    site.assert_clean();
}
