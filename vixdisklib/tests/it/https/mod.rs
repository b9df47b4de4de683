//! The transport `https`: chains read by ranges, refusals, and whole disks put into a datastore.

mod chain;
mod refusals;
mod upload;

use vixdisklib::{Access, Connection, ConnectionOptions, https::HttpsOptions};
use vsphere_sim::{DiskSpec, FileOptions, Power, Simulator, VmSpec};
use vsphere_vim::Vim;

use crate::lab;

const MIB: u64 = 1 << 20;
const BASE: &str = "[ds1] web/web.vmdk";

/// A simulator with one VM `web` with a disk of 32 MiB, a client, and a connection to the VM over `https`.
struct Site {
    sim: Simulator,
    vim: Vim,
}

impl Site {
    async fn new(power: Power, files: FileOptions) -> Self {
        let vm = VmSpec::new("web").disk(DiskSpec::empty(32 * MIB)).power(power);
        let sim = Simulator::builder().vm(vm).files(files).start().await.unwrap();
        let vim = lab::connect(&sim).await;
        Self { sim, vim }
    }

    async fn connect(&self, options: HttpsOptions) -> Connection {
        self.connect_over("https", Access::ReadOnly, options).await.unwrap()
    }

    async fn connect_over(&self, list: &str, access: Access, options: HttpsOptions) -> vixdisklib::Result<Connection> {
        let vm = lab::machine(&self.sim, "web");
        let options = ConnectionOptions::new().https(options);
        Connection::connect_with(&self.vim, &vm, access, list, options).await
    }

    fn guest_writes(&self, at: u64, bytes: &[u8]) {
        self.sim.guest("web").unwrap().disk(2000).unwrap().write_at(at, bytes).unwrap();
    }

    async fn close(self) {
        lab::close(self.vim, self.sim).await;
    }
}

fn files(set: impl FnOnce(&mut FileOptions)) -> FileOptions {
    let mut files = FileOptions::default();
    set(&mut files);
    files
}

/// What went wrong with a file.
fn https_error(error: vixdisklib::Error) -> vixdisklib::https::HttpsError {
    match error {
        vixdisklib::Error::Https { source, .. } => *source,
        other => panic!("{other}: {other:?}"),
    }
}
