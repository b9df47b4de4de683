//! A simulator in a process of its own, so that the client's time is the client's.

use std::error::Error;
use std::path::Path;

use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{Credentials, Vim};

use crate::process::{self, Server};

/// The argument that makes this program the simulator.
pub(crate) const SERVE: &str = "--simulate";
/// The machine.
pub(crate) const MACHINE: &str = "bench";

/// The other process. Dropping it ends it.
pub(crate) struct World {
    _server: Server,
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) sha1: String,
    sha256: String,
    pub(crate) vm: String,
}

impl World {
    /// Starts a simulator with one machine, off, whose disk has the bytes of `image`.
    pub(crate) fn start(image: &Path) -> Result<Self, Box<dyn Error>> {
        let (server, words) = Server::start([SERVE.as_ref(), image.as_os_str()])?;
        let [url, user, password, sha1, sha256, vm] =
            words.try_into().map_err(|_| "the simulator said something else")?;
        Ok(Self { _server: server, url, user, password, sha1, sha256, vm })
    }

    /// Logs in.
    pub(crate) async fn connect(&self) -> Result<Vim, Box<dyn Error>> {
        let credentials = Credentials::password(&self.user, self.password.as_str());
        Ok(Vim::builder(&self.url).credentials(credentials).thumbprint(self.sha256.parse()?).connect().await?)
    }
}

/// Runs in the other process until its input ends.
pub(crate) fn serve(image: &Path) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _simulator = runtime.block_on(async {
        let machine = VmSpec::new(MACHINE).power(Power::Off).disk(DiskSpec::raw_file(image));
        let simulator = Simulator::builder().vm(machine).start().await?;
        let vm = simulator.vm(MACHINE)?.id().to_owned();
        process::announce(&[
            simulator.url(),
            simulator.username().to_owned(),
            simulator.password().to_owned(),
            simulator.thumbprint_sha1(),
            simulator.thumbprint_sha256(),
            vm,
        ])?;
        Ok::<_, Box<dyn Error>>(simulator)
    })?;
    Ok(process::until_left()?)
}
