//! A simulator in a process of its own, so that the client's time is the client's.

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{Credentials, Vim};

/// The argument that makes this program the simulator.
pub(crate) const SERVE: &str = "--simulate";
/// The machine.
pub(crate) const MACHINE: &str = "bench";
const READY: &str = "simulating:";

/// The other process. Dropping it ends it.
pub(crate) struct World {
    child: Child,
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
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the simulator has no output")?;
        let mut lines = BufReader::new(output).lines();
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(READY)));
        let line = line.ok_or("the simulator did not start")??;
        let mut words = line.split(' ').skip(1).map(str::to_owned);
        let mut next = || words.next().ok_or("the simulator said too little");
        Ok(Self { child, url: next()?, user: next()?, password: next()?, sha1: next()?, sha256: next()?, vm: next()? })
    }

    /// Logs in.
    pub(crate) async fn connect(&self) -> Result<Vim, Box<dyn Error>> {
        let credentials = Credentials::password(&self.user, self.password.as_str());
        Ok(Vim::builder(&self.url).credentials(credentials).thumbprint(self.sha256.parse()?).connect().await?)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs in the other process until its input ends.
pub(crate) fn serve(image: &Path) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _simulator = runtime.block_on(async {
        let machine = VmSpec::new(MACHINE).power(Power::Off).disk(DiskSpec::raw_file(image));
        let simulator = Simulator::builder().vm(machine).start().await?;
        let vm = simulator.vm(MACHINE)?.id().to_owned();
        println!(
            "{READY} {} {} {} {} {} {vm}",
            simulator.url(),
            simulator.username(),
            simulator.password(),
            simulator.thumbprint_sha1(),
            simulator.thumbprint_sha256(),
        );
        io::stdout().flush()?;
        Ok::<_, Box<dyn Error>>(simulator)
    })?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
