//! Rows 10 and 11: fragments of reads in every legal form and in illegal ones.

use std::sync::Arc;

use vsphere_nfc::{CompressionWish, Mode};
use vsphere_sim::nfc::{FragmentOrder, NfcServerConfig};

use super::disk::{MIB, MemoryDisk};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_in_any_order_and_size_are_put_together() {
    for order in [FragmentOrder::InOrder, FragmentOrder::Reversed, FragmentOrder::Shuffled] {
        for size in [512, 1536, 65536] {
            for wish in [CompressionWish::None, CompressionWish::Zlib] {
                let mut config = NfcServerConfig::default();
                config.fragment_order = order;
                config.fragment_size = Some(size);
                let host = Host::start(MemoryDisk::filled(4 * MIB, MIB), false, config).await;
                let mut options = patient().buffers(256 * 1024, 4).compression(wish);
                options.quirks.max_request = Some(640 * 1024);
                let disk = Arc::new(host.open(Mode::ReadOnly, options).await.unwrap());
                // Several callers at once, so that fragments of different requests mix.
                let mut readers = tokio::task::JoinSet::new();
                for at in [0, 512, MIB - 4096, 2 * MIB] {
                    let disk = Arc::clone(&disk);
                    readers.spawn(async move { (at, disk.read_at(at, (MIB + 512) as usize).await.unwrap()) });
                }
                while let Some(read) = readers.join_next().await {
                    let (at, bytes) = read.unwrap();
                    assert!(bytes == host.disk.bytes(at..at + MIB + 512), "{order:?} {size} {wish:?} {at}");
                }
            }
        }
    }
}
