//! A client in Python, written from the layouts of VMware's own Java client and not from our code.

use std::process::Command;

use vsphere_sim::nfc::{HostVersion, NfcServerConfig};

use super::super::disk::{MIB, MemoryDisk};
use super::super::host::identity_with;
use super::store::Shelf;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nfc/classic_client.py");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_in_another_language_stores_and_fetches_files_and_disks() {
    let has_python = Command::new("python3").args(["-c", "import ssl"]).output();
    if !has_python.is_ok_and(|output| output.status.success()) {
        eprintln!("PEER MISSING: python3 with ssl. This test proves nothing; run scripts/install-peers");
        assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "python3 is required");
        return;
    }
    for version in [HostVersion::Apache2015, HostVersion::Esxi80] {
        let mut config = NfcServerConfig::default();
        config.version = version;
        // VMware's client knows TLS 1.2 only.
        let shelf = Shelf::start_with(identity_with(&[&rustls::version::TLS12]), config).await;
        shelf.store.add_disk("[ds1] random.vmdk", MemoryDisk::new(MIB), &[]);
        for service in ["vpxa-nfc", "vpxa-nfcssl"] {
            let port = shelf.server.local_addr().port().to_string();
            let thumbprint = shelf.server.identity().thumbprint_sha1();
            let command = async move {
                let mut command = Command::new("python3");
                command.args([SCRIPT, &port, &thumbprint, service]);
                tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
            };
            let output = command.await;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{service}: {text}{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), 9, "{text}");
            // What it wrote by synchronous access, and what it stored.
            assert_eq!(shelf.store.disk("[ds1] random.vmdk").memory.bytes(4096..8192), [0x5A; 4096]);
            let stored = shelf.store.disk("[] /vmfs/volumes/ds1/peer/disk.vmdk");
            assert_eq!(*stored.ddb.lock().unwrap(), [("adapterType".to_owned(), "lsilogic".to_owned())]);
            assert!(stored.new.as_ref().is_some_and(|new| new.thin && new.adapter == Some("lsilogic")));
            assert!(shelf.store.files.lock().unwrap().is_empty());
        }
    }
}
