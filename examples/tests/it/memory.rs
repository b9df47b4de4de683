//! Memory stays bounded whatever the disk's size.

use examples::guest_fs::Noise;
use vsphere_sim::DiskSpec;

use crate::support::{Site, run};

const GIB: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_disk_of_64_gib_is_backed_up_in_less_than_256_mib() {
    let site = Site::with(DiskSpec::empty(64 * GIB)).await;
    // Data all over the disk, to the last sector: 256 places of 1 MiB.
    let mut noise = Noise::new(3);
    for place in 0..256 {
        site.disk().write_at(place * GIB / 4, &noise.bytes(1 << 20)).unwrap();
    }
    site.disk().write_at(64 * GIB - 512, &noise.bytes(512)).unwrap();

    let full = peak(&site);
    site.disk().write_at(33 * GIB + 12_345 * 512, &noise.bytes(4096)).unwrap();
    let incremental = peak(&site);
    println!("figure: peak memory of a backup of 64 GiB sparse: full {full} bytes, incremental {incremental} bytes");
    assert!(full < 256 << 20 && incremental < 256 << 20, "full {full}, incremental {incremental}");
    assert_eq!(site.points().await.len(), 2);
    site.assert_clean();
}

/// Runs a backup in a process of its own; gives the most memory that it held.
fn peak(site: &Site) -> u64 {
    let output = run(&mut site.backup());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("peak memory: ")).unwrap_or_else(|| panic!("{text}"));
    line.split(' ').next().unwrap().parse().unwrap()
}
