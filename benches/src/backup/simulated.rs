//! The simulator of these questions, in a process of its own: a tracked machine whose guest writes when it is told to.

use std::error::Error;
use std::ffi::OsStr;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use vsphere_sim::{DiskSpec, Simulator, VmSpec};

use super::image;
use crate::process::{self, Server};

/// The argument that makes this program that simulator; images follow.
pub(crate) const SERVE: &str = "--simulate-tracked";
const MACHINE: &str = "bench";

/// The other process. Dropping it ends it.
pub(super) struct Tracked {
    server: Server,
    /// What a client needs: address, user, password, thumbprint, machine.
    pub(super) access: Vec<String>,
}

impl Tracked {
    /// Starts a machine with a disk for each image. The images stay as they are.
    pub(super) fn start(images: &[PathBuf]) -> Result<Self, Box<dyn Error>> {
        let arguments = std::iter::once(OsStr::new(SERVE)).chain(images.iter().map(|path| path.as_os_str()));
        let (server, access) = Server::start(arguments)?;
        Ok(Self { server, access })
    }

    /// Has the guest make the changes of a round to the first disk.
    pub(super) fn change(&mut self, round: u64) -> Result<(), Box<dyn Error>> {
        self.server.ask(&round.to_string())?;
        Ok(())
    }
}

/// Runs in the other process until its input ends; each line of it is a round of changes.
pub(crate) fn serve(images: &[impl AsRef<Path>]) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let machine = images
        .iter()
        .fold(VmSpec::new(MACHINE).change_tracking(true), |machine, image| machine.disk(DiskSpec::raw_file(image)));
    let simulator = runtime.block_on(Simulator::builder().vm(machine).start())?;
    let machine = simulator.vm(MACHINE)?;
    process::announce(&[
        simulator.url(),
        simulator.username().to_owned(),
        simulator.password().to_owned(),
        simulator.thumbprint_sha256(),
        machine.id().to_owned(),
    ])?;
    for line in std::io::stdin().lock().lines() {
        let round = line?.trim().parse()?;
        let disk = machine.disk(machine.disks()[0])?;
        for (at, bytes) in image::changes(disk.capacity(), round) {
            disk.write_at(at, &bytes)?;
        }
        process::announce(&[])?;
    }
    runtime.block_on(simulator.shutdown());
    Ok(())
}
