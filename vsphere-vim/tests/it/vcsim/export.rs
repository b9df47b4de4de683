//! A lease for a snapshot's export. This version of vcsim has none, so `scripts/vcsim/export.go` adds the method; the
//! session, the lease and its states, and everything on the wire are vcsim's.

use std::io::Write as _;

use vsphere_vim::{CreateSnapshotOptions, RemoveSnapshotOptions, lease::LeaseOptions};

use super::Vcsim;

#[tokio::test]
async fn a_snapshots_disk_is_exported_over_a_lease() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let Some(vcsim) = Vcsim::start(&["-export", file.path().to_str().unwrap()]) else { return };
    let vim = vcsim.connect().await;
    let vm = vim.virtual_machines().try_next().await.unwrap().unwrap().moref;
    let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("export")).await.unwrap();

    let lease = vim.export_snapshot(&snapshot, LeaseOptions::default()).await.unwrap();
    let device = lease.devices()[0].clone();
    assert!(device.is_disk && device.host().is_none(), "{device:?}");
    let mut disk = lease.download(&device).await.unwrap();
    assert_eq!(disk.len(), Some(bytes.len() as u64));
    let mut got = Vec::new();
    while let Some(piece) = disk.try_next().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert!(got == bytes, "{} bytes of {}", got.len(), bytes.len());
    let report = lease.complete().await.unwrap();
    assert_eq!((report.files.len(), report.checked()), (1, 0), "it has no manifests");

    // A second one is given up by dropping it.
    drop(vim.export_snapshot(&snapshot, LeaseOptions::default()).await.unwrap());
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    vim.logout().await.unwrap();
}
