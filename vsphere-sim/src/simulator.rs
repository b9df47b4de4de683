//! A running simulator and what a test may ask of it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::alarm::{self, AlarmHandle};
use crate::builder::SimulatorBuilder;
use crate::endpoint::Endpoint;
use crate::fcd::FcdHandle;
use crate::files::{self, FilePath, FolderCounters};
use crate::handle::{Guest, VmHandle};
use crate::inject::Faults;
use crate::nfc::NfcServer;
use crate::personality::Fixed;
use crate::report::Leftovers;
use crate::tls::Identity;
use crate::world::World;
use crate::{Error, Result};

/// A simulated vCenter or ESXi host with its 902 server. Dropping it stops it.
///
/// ```no_run
/// # async fn run() -> vsphere_sim::Result<()> {
/// use vsphere_sim::{DiskSpec, Simulator, VmSpec};
/// let sim = Simulator::builder().vm(VmSpec::new("web").disk(DiskSpec::empty(64 << 20))).start().await?;
/// println!("{} {}", sim.url(), sim.thumbprint_sha256());
/// sim.guest("web")?.disk(2000)?.write_at(0, b"written by the guest")?;
/// assert!(sim.leftovers().is_clean());
/// # Ok(()) }
/// ```
pub struct Simulator {
    world: Arc<World>,
    identity: Identity,
    endpoint: Endpoint,
    nfc: NfcServer,
    stop: watch::Sender<bool>,
    advertise: Option<IpAddr>,
}

impl Simulator {
    /// A simulator to be: add VMs, then [`start`](SimulatorBuilder::start).
    pub fn builder() -> SimulatorBuilder {
        SimulatorBuilder::default()
    }

    pub(crate) fn new(
        world: Arc<World>,
        identity: Identity,
        endpoint: Endpoint,
        nfc: NfcServer,
        stop: watch::Sender<bool>,
        advertise: Option<IpAddr>,
    ) -> Self {
        Self { world, identity, endpoint, nfc, stop, advertise }
    }

    /// The endpoint's URL: `https://127.0.0.1:40001/sdk`.
    pub fn url(&self) -> String {
        let mut address = self.endpoint.address;
        if let Some(advertise) = self.advertise {
            address.set_ip(advertise);
        }
        format!("https://{address}/sdk")
    }

    /// Where the HTTPS endpoint listens.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Where the 902 server listens.
    pub fn nfc_address(&self) -> SocketAddr {
        self.nfc.local_addr()
    }

    /// SHA-1 of the certificate, upper-case hex with colons.
    pub fn thumbprint_sha1(&self) -> String {
        self.identity.sha1()
    }

    /// SHA-256 of the certificate, upper-case hex with colons.
    pub fn thumbprint_sha256(&self) -> String {
        self.identity.sha256()
    }

    /// The certificate, to be trusted as a CA file.
    pub fn certificate_pem(&self) -> &str {
        self.identity.pem()
    }

    /// Who may log in.
    pub fn username(&self) -> &str {
        &self.world.settings.username
    }

    /// With which password.
    pub fn password(&self) -> &str {
        &self.world.settings.password
    }

    /// A VM by its name.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub fn vm(&self, name: &str) -> Result<VmHandle> {
        let state = self.world.lock();
        let vm = state.vms.values().find(|vm| vm.name() == name);
        let vm = vm.ok_or_else(|| Error::NoSuch { what: "VM", name: name.into() })?;
        Ok(VmHandle::new(self.world.clone(), vm.id.clone()))
    }

    /// The inside of a VM, by its name: what its guest does to its disks.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub fn guest(&self, name: &str) -> Result<Guest> {
        Ok(self.vm(name)?.guest())
    }

    /// The inside of a First Class Disk, by its id: what whoever uses it does to its bytes.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub fn first_class_disk(&self, id: &str) -> Result<FcdHandle> {
        let state = self.world.lock();
        let disk = state.fcds.get(id).ok_or_else(|| Error::NoSuch { what: "first class disk", name: id.into() })?;
        Ok(FcdHandle::new(id, disk.store.clone()))
    }

    /// Sets up an alarm on the root folder: it watches every machine.
    ///
    /// # Errors
    /// [`Error::NoSuch`] on a host, which has no alarms.
    pub fn declare_alarm(&self, name: &str) -> Result<AlarmHandle> {
        alarm::declare(&self.world, self.world.fixed(Fixed::RootFolder), name)
    }

    /// What is to go wrong at SOAP calls.
    pub fn faults(&self) -> &Faults {
        &self.world.faults
    }

    /// The 902 server: its counters, its behaviour, its faults.
    pub fn nfc(&self) -> &NfcServer {
        &self.nfc
    }

    /// What went through `/folder` so far.
    pub fn folder(&self) -> &FolderCounters {
        &self.world.folder
    }

    /// Where a file that a client stores as `[ds1] PATH` lies on this machine. A file that a test puts there, however
    /// large and sparse, is served like one that was uploaded. Missing folders are made.
    ///
    /// # Errors
    /// [`Error::NoSuch`] for a path that leaves the datastore, and when its folder cannot be made.
    pub fn stored_file(&self, path: &str) -> Result<PathBuf> {
        let refused = || Error::NoSuch { what: "place in the datastore for", name: path.into() };
        let host = files::host_path(&self.world, &FilePath::new(&self.world, path).ok_or_else(refused)?);
        if let Some(folder) = host.parent() {
            std::fs::create_dir_all(folder).map_err(|_| refused())?;
        }
        Ok(host)
    }

    /// Ends all sessions, as if they had been idle for too long.
    pub fn expire_sessions(&self) {
        self.world.lock().end_all_sessions();
        self.world.touch();
    }

    /// Says that nobody has these privileges, and that everybody has all others. Nothing is refused for that.
    pub fn tell_missing_privileges(&self, privileges: &[&str]) {
        self.world.lock().missing_privileges = privileges.iter().map(|&name| name.to_owned()).collect();
    }

    /// How often somebody has logged in.
    pub fn logins(&self) -> u64 {
        self.world.lock().sessions.opened()
    }

    /// Makes the versions of all waits for updates too old: the next one fails with `InvalidCollectorVersion`.
    pub fn expire_versions(&self) {
        self.world.lock().sessions.collectors_mut().for_each(|collector| collector.expire_versions());
        self.world.touch();
    }

    /// What clients have left behind at this moment. A client that has just closed a connection may be ahead of the
    /// server, which has yet to see it: [`Simulator::settled`] gives it time.
    pub fn leftovers(&self) -> Leftovers {
        Leftovers::of(&self.world, self.nfc.counters().connections_open())
    }

    /// What clients have left behind, asked again until there is nothing or `within` has gone by.
    pub async fn settled(&self, within: Duration) -> Leftovers {
        self.settled_in(within, |left| left).await
    }

    /// The same for who looks at a part of it, or forgives a part: of what is left, what `view` makes of it counts.
    pub async fn settled_in(&self, within: Duration, view: impl Fn(Leftovers) -> Leftovers) -> Leftovers {
        let end = tokio::time::Instant::now() + within;
        loop {
            let left = view(self.leftovers());
            if left.is_clean() || tokio::time::Instant::now() >= end {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends all connections and frees the ports.
    ///
    /// # Cancel safety
    /// When the future is dropped, the simulator stops all the same.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let Self { endpoint, nfc, .. } = self;
        if let Err(error) = endpoint.task.await {
            tracing::debug!(%error, "endpoint");
        }
        nfc.shutdown().await;
    }
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").field("url", &self.url()).field("nfc", &self.nfc_address()).finish_non_exhaustive()
    }
}
