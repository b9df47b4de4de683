//! Row 12: fragments in every compression, alone and mixed in one read.

use vsphere_nfc::{CompressionWish, Mode};
use vsphere_sim::nfc::{NfcFile, ReplyCompression};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, patient};

pub(super) const WISHES: [CompressionWish; 4] =
    [CompressionWish::None, CompressionWish::Zlib, CompressionWish::FastLz, CompressionWish::SkipZ];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_and_any_mixture_gives_the_same_bytes() {
    let text = b"a disk is mostly text. ".repeat(50_000);
    let mut content = [pattern(0, MIB), text, vec![0; MIB as usize]].concat();
    content.truncate(content.len() / 512 * 512);
    let disk = MemoryDisk::new(content.len() as u64);
    disk.write_at(0, &content).unwrap();
    let host = Host::reading(disk).await;
    for size in [32 * 1024, 128 * 1024] {
        for answer in [ReplyCompression::AsWished, ReplyCompression::Mixed] {
            host.server.configure(|config| (config.compression, config.fragment_size) = (answer, Some(size)));
            for wish in WISHES {
                let options = patient().buffers(256 * 1024, 4).compression(wish);
                let disk = host.open(Mode::ReadOnly, options).await.unwrap();
                let bytes = disk.read_at(0, content.len()).await.unwrap();
                assert!(bytes == content, "{size} {answer:?} {wish:?}");
            }
        }
    }
}
