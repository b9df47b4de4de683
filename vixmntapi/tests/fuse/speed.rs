//! Figures, by hand: `cargo test --release -p vixmntapi --features fuse --test fuse -- --ignored --nocapture speed`.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::Instant,
};

use crate::{
    peers::{Mount, run},
    support::{Filled, Mounted, run_in},
    tree::{Tree, noise},
};

#[test]
#[ignore = "figures: cargo test --release -p vixmntapi --features fuse --test fuse -- --ignored --nocapture speed"]
fn speed_beside_the_kernels_own_mount() {
    let tree = Tree::new().many(20_000);
    let large = tree.path().join("large");
    let piece = noise(1 << 20);
    let mut file = File::create(&large).unwrap();
    for number in 0..512_u64 {
        std::io::Write::write_all(&mut file, &number.to_le_bytes()).unwrap();
        std::io::Write::write_all(&mut file, &piece[8..]).unwrap();
    }
    for format in [&["mkfs.ext4", "-q", "-F"][..], &["mkfs.xfs", "-q", "-f"]] {
        let Some(filled) = Filled::new(format, tree.path(), |_| ()) else { return };
        // Both read an image that is not in memory.
        for round in 0..2 {
            let Some(kernel) = Mount::new(&filled.image, "ro") else { return };
            drop_caches();
            figures(&format!("{} kernel {round}", format[0]), kernel.path());
            drop(kernel);
            drop_caches();
            let Some(ours) = Mounted::of(filled.files()) else { return };
            figures(&format!("{} fuse {round}", format[0]), ours.path());
        }
    }
}

fn drop_caches() {
    run("sync", &[]);
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

fn figures(what: &str, folder: &Path) {
    let clock = Instant::now();
    let lines = run_in(folder, "ls", &["-lR", "many"]).iter().filter(|byte| **byte == b'\n').count();
    let listing = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    let names = run_in(folder, "find", &["many"]).iter().filter(|byte| **byte == b'\n').count();
    let again = clock.elapsed().as_secs_f64();
    assert_eq!((lines, names), (20_002, 20_001));
    let mut file = File::open(folder.join("large")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    let clock = Instant::now();
    while let Ok(len @ 1..) = file.read(&mut buffer) {
        read += len;
    }
    let seconds = clock.elapsed().as_secs_f64();
    assert_eq!(read, 512 << 20);
    println!(
        "figure: {what}: ls -lR {listing:.3} s, find again {again:.3} s, read {:.0} MB/s",
        read as f64 / 1e6 / seconds
    );
}
