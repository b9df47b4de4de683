//! Machines as packages.

use vmdk::ova::OvfPackage;
use vsphere_backup::{CancelToken, Error, FileFormat, Restore};

use crate::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_becomes_an_ova_with_its_hardware_and_every_byte() {
    let site = Site::new().await;
    let content = [site.content(2000), site.content(2001)];
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let path = site.folder.path().join("web.ova");
    let report = Restore::of(&point).to_ova(&path).await.unwrap();
    assert!(report.disks.len() == 2 && report.disks.iter().all(|disk| disk.verified));
    let package = OvfPackage::open(&path).unwrap();
    let verified = package.verify().unwrap();
    assert_eq!(verified.verified.len(), 3, "{verified:?}");
    let descriptor = package.descriptor();
    let xml = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    assert!(xml.contains(r#"vmw:key="firmware" vmw:value="bios""#), "{xml:.4000}");
    assert_eq!(descriptor.systems.len(), 1);
    for (disk, content) in descriptor.disks.iter().zip(&content) {
        let image = package.open_disk(&disk.id).unwrap();
        let mut bytes = vec![0; image.capacity() as usize];
        image.read_at(0, &mut bytes).unwrap();
        assert!(bytes == *content, "{}", disk.id);
    }
    assert!(matches!(Restore::of(&point).to_ova(&path).await, Err(Error::File { .. })), "an existing file is kept");
    Restore::of(&point).disk(2001).overwrite(true).to_ova(&path).await.unwrap();
    assert_eq!(OvfPackage::open(&path).unwrap().descriptor().disks.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_or_damaged_export_says_so_and_leaves_no_file() {
    let site = Site::new().await;
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let path = site.folder.path().join("web.ova");
    let cancel = CancelToken::new();
    cancel.cancel();
    let cancelled = Restore::of(&point).cancel(&cancel).to_ova(&path).await;
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    // The middle of every pack.
    let packs = std::fs::read_dir(site.folder.path().join("repo/packs")).unwrap();
    let mut folders: Vec<_> = packs.map(|entry| entry.unwrap().path()).collect();
    while let Some(found) = folders.pop() {
        if found.is_dir() {
            folders.extend(std::fs::read_dir(found).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let mut bytes = std::fs::read(&found).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&found).unwrap();
        std::fs::write(&found, bytes).unwrap();
    }
    let ova = Restore::of(&point).to_ova(&path).await;
    assert!(matches!(ova, Err(Error::DamagedChunk { .. })), "{ova:?}");
    let stream = Restore::of(&point).disk(2000).to_file(2000, &path, FileFormat::VmdkStreamOptimized).await;
    assert!(matches!(stream, Err(Error::DamagedChunk { .. })), "{stream:?}");
    assert!(!path.exists());
}
