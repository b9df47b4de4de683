//! The NBD server: against clients of others, against a client that misbehaves, and on the simulator.

mod client;
mod devices;
mod hostile;
mod peers;
mod remote;
mod requests;

use std::{path::Path, sync::Arc};

use tempfile::TempDir;
use vixdisklib::{
    Access, Connection, Disk,
    nbd::{NbdServer, RunningNbdServer},
};
use vmdk::{ChildSpec, CreateKind, CreateSpec, create, create_child};

const MIB: u64 = 1 << 20;

/// A chain of three: a base with data at 1 MiB, a child at 4 MiB, and a grandchild that zeroes part of the first.
struct Chain {
    folder: TempDir,
    /// What the grandchild reads as.
    content: Vec<u8>,
}

impl Chain {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut content = vec![0; 16 << 20];
        let at = |name: &str| folder.path().join(name);
        let spec = CreateSpec::new(content.len() as u64, CreateKind::MonolithicSparse);
        let base = create(at("base.vmdk"), &spec).unwrap();
        write(&base, &mut content, MIB, &noise(700_000, 1));
        base.close().unwrap();
        let child = create_child(at("base.vmdk"), at("child.vmdk"), &ChildSpec::new()).unwrap();
        write(&child, &mut content, 4 * MIB, &noise(300_000, 2));
        child.close().unwrap();
        let top = create_child(at("child.vmdk"), at("top.vmdk"), &ChildSpec::new().zeroed_grains(true)).unwrap();
        top.zero_at(MIB + 65536..MIB + 2 * 65536).unwrap();
        content[(1 << 20) + 65536..][..65536].fill(0);
        write(&top, &mut content, 15 * MIB, &noise(1 << 20, 3));
        top.close().unwrap();
        Self { folder, content }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    async fn open(&self, access: Access) -> Arc<Disk> {
        Arc::new(Connection::local(access).open(self.path("top.vmdk")).await.unwrap())
    }

    /// Serves the grandchild as `top` on TCP.
    async fn serve(&self, access: Access) -> RunningNbdServer {
        NbdServer::bind("127.0.0.1:0").export("top", self.open(access).await).serve().await.unwrap()
    }
}

fn write(disk: &vmdk::Disk, content: &mut [u8], at: u64, bytes: &[u8]) {
    disk.write_at(at, bytes).unwrap();
    content[at as usize..][..bytes.len()].copy_from_slice(bytes);
}

/// Bytes of which none is zero, different for every seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 32) as u8 | 1
    };
    (0..len).map(|_| next(&mut state)).collect()
}

fn raw(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
