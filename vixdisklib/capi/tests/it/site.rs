//! A simulated vCenter for programs that know only C.

use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};

/// A vCenter with a machine `web` that is off and has a disk of 32 MiB with 5s at 1 MiB.
///
/// It lives on a runtime of its own, because the programs that talk to it block the test.
pub(crate) struct Site {
    runtime: tokio::runtime::Runtime,
    sim: Simulator,
}

pub(crate) const PATH: &str = "[ds1] web/web.vmdk";

impl Site {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let vm = VmSpec::new("web").disk(DiskSpec::empty(32 << 20)).power(Power::Off);
        let sim = runtime.block_on(Simulator::builder().vm(vm).start()).unwrap();
        sim.guest("web").unwrap().disk(2000).unwrap().write_at(1 << 20, &[5; 200_000]).unwrap();
        Self { runtime, sim }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        let url = self.sim.url();
        let rest = url.strip_prefix("https://").unwrap_or(&url);
        rest.split('/').next().unwrap().to_owned()
    }

    pub(crate) fn thumbprint_sha1(&self) -> String {
        self.sim.thumbprint_sha1()
    }

    pub(crate) fn thumbprint_sha256(&self) -> String {
        self.sim.thumbprint_sha256()
    }

    pub(crate) fn user(&self) -> &str {
        self.sim.username()
    }

    pub(crate) fn password(&self) -> &str {
        self.sim.password()
    }

    pub(crate) fn moref(&self) -> String {
        self.sim.vm("web").unwrap().id().to_owned()
    }

    /// Checks that sessions, locks and connections of the programs are gone, and ends.
    pub(crate) fn end(self) {
        for _ in 0..100 {
            if self.sim.leftovers().is_clean() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let left = self.sim.leftovers();
        assert!(left.is_clean(), "{left:?}");
        self.runtime.block_on(self.sim.shutdown());
    }
}
