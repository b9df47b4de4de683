//! Starting a simulator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::endpoint::Endpoint;
use crate::inject::Faults;
use crate::lease::LeaseConfig;
use crate::nfc::{NfcIdentity, NfcServer, NfcServerConfig};
use crate::personality::Personality;
use crate::simulator::Simulator;
use crate::spec::VmSpec;
use crate::storage::{Datastore, DiskOptions, TrackingOptions};
use crate::tls::Identity;
use crate::vm;
use crate::vm::create::{self, NewVm};
use crate::world::{FcdOptions, FileOptions, Settings, World};
use crate::{Error, Result};

/// The name of the only datastore.
const DATASTORE: &str = "ds1";

/// What the simulator is to be; made by [`Simulator::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct SimulatorBuilder {
    vms: Vec<VmSpec>,
    personality: Personality,
    listen: SocketAddr,
    nfc_listen: SocketAddr,
    advertise: Option<IpAddr>,
    data_dir: Option<PathBuf>,
    username: String,
    password: String,
    idle_timeout: Duration,
    max_age: Duration,
    task_delay: Duration,
    page_size: usize,
    answer_first: bool,
    ticket_lifetime: Duration,
    tracking: TrackingOptions,
    nfc: NfcServerConfig,
    files: FileOptions,
    fcd: FcdOptions,
    leases: LeaseConfig,
    control: bool,
    extensions: Vec<(String, Vec<u8>)>,
    token_lifetime: Duration,
}

impl Default for SimulatorBuilder {
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            vms: Vec::new(),
            personality: Personality::default(),
            listen: loopback,
            nfc_listen: loopback,
            advertise: None,
            data_dir: None,
            username: "administrator@vsphere.local".into(),
            password: "simulated".into(),
            idle_timeout: Duration::from_secs(30 * 60),
            max_age: Duration::from_secs(24 * 60 * 60),
            task_delay: Duration::ZERO,
            page_size: usize::MAX,
            answer_first: true,
            ticket_lifetime: Duration::from_secs(5 * 60),
            tracking: TrackingOptions::default(),
            nfc: NfcServerConfig::default(),
            files: FileOptions::default(),
            fcd: FcdOptions::default(),
            leases: LeaseConfig::default(),
            control: false,
            extensions: Vec::new(),
            token_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl SimulatorBuilder {
    /// One virtual machine more.
    pub fn vm(mut self, vm: VmSpec) -> Self {
        self.vms.push(vm);
        self
    }

    /// Which server to be. Default: a vCenter.
    pub fn personality(mut self, personality: Personality) -> Self {
        self.personality = personality;
        self
    }

    /// Where the HTTPS endpoint listens. Default: a free port on 127.0.0.1.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Where the 902 server listens. Default: a free port on 127.0.0.1.
    pub fn nfc_listen(mut self, address: SocketAddr) -> Self {
        self.nfc_listen = address;
        self
    }

    /// The address that tickets name, where the listening address is none that clients can dial (`0.0.0.0`).
    pub fn advertise(mut self, address: IpAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// Where layers are kept. Default: a temporary directory that goes away with the simulator.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// Who may log in. Default: `administrator@vsphere.local` with `simulated`.
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.username = username.into();
        self.password = password.into();
        self
    }

    /// How long an unused session lives. Default: 30 minutes.
    pub fn session_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long any session lives. Default: a day.
    pub fn session_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How long every task takes at least. Default: no time.
    pub fn task_delay(mut self, delay: Duration) -> Self {
        self.task_delay = delay;
        self
    }

    /// Objects in one answer of `RetrievePropertiesEx` when the client names no limit. Default: all.
    pub fn page_size(mut self, objects: usize) -> Self {
        self.page_size = objects.max(1);
        self
    }

    /// Whether the first `WaitForUpdatesEx` of filters that select nothing is answered at once, with a version only,
    /// instead of when something is selected. Default: yes, as vcsim does. Real servers: unknown.
    pub fn answer_first_wait(mut self, at_once: bool) -> Self {
        self.answer_first = at_once;
        self
    }

    /// How long an unused 902 ticket is good for. Default: 5 minutes. Real hosts: unknown.
    pub fn ticket_lifetime(mut self, lifetime: Duration) -> Self {
        self.ticket_lifetime = lifetime;
        self
    }

    /// Granularity, page size and doubtful points of change tracking.
    pub fn tracking(mut self, options: TrackingOptions) -> Self {
        self.tracking = options;
        self
    }

    /// How the 902 server behaves.
    pub fn nfc(mut self, config: NfcServerConfig) -> Self {
        self.nfc = config;
        self
    }

    /// How the datastore's files behave.
    pub fn files(mut self, options: FileOptions) -> Self {
        self.files = options;
        self
    }

    /// How First Class Disks are listed.
    pub fn first_class_disks(mut self, options: FcdOptions) -> Self {
        self.fcd = options;
        self
    }

    /// How leases behave.
    pub fn leases(mut self, config: LeaseConfig) -> Self {
        self.leases = config;
        self
    }

    /// Whether `/sim/...` on the HTTPS port lets tests in other processes and languages play the guest, end
    /// sessions and list what is left, without a login. Default: no.
    pub fn control(mut self, control: bool) -> Self {
        self.control = control;
        self
    }

    /// An extension that may log in with this certificate (PEM, the first in it). With one or more of them the HTTPS
    /// endpoint asks clients for a certificate, as vCenter does behind its SDK tunnel.
    ///
    /// # Panics
    /// When the text holds no certificate.
    pub fn extension(mut self, key: &str, certificate_pem: &str) -> Self {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).expect("a certificate in PEM form");
        self.extensions.push((key.into(), certificate.to_vec()));
        self
    }

    /// How long a token of the security token service lives at most. Default: 30 days.
    pub fn token_lifetime(mut self, longest: Duration) -> Self {
        self.token_lifetime = longest;
        self
    }

    /// Starts the simulator on the current tokio runtime.
    ///
    /// # Errors
    /// [`Error::Storage`] when a disk cannot be used, [`Error::Listen`] when a port is taken.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start(self) -> Result<Simulator> {
        let identity = Identity::generate(self.listen.ip())?;
        let tls = identity.server_config()?;
        let https = if self.extensions.is_empty() { tls.clone() } else { identity.asking_server_config()? };
        let listener =
            TcpListener::bind(self.listen).await.map_err(|source| Error::Listen { address: self.listen, source })?;
        let vms = self.vms.clone();
        let settings = Settings {
            personality: self.personality,
            username: self.username,
            password: self.password,
            idle_timeout: self.idle_timeout,
            max_age: self.max_age,
            task_delay: self.task_delay,
            default_page: self.page_size,
            answer_first: self.answer_first,
            nfc_lib_version: self.nfc.gates().library_version,
            ticket_lifetime: self.ticket_lifetime,
            tracking: self.tracking,
            files: self.files,
            fcd: self.fcd,
            leases: self.leases,
            control: self.control,
            extensions: self.extensions,
            token_lifetime: self.token_lifetime,
        };
        let data_dir = self.data_dir;
        let made = tokio::task::spawn_blocking(move || make_world(settings, data_dir.as_deref(), &vms)).await;
        let world = made.map_err(|_| Error::Interrupted("creating the disks"))??;

        let nfc_identity = NfcIdentity::new(identity.certificate(), tls.clone());
        let backend = Arc::new(Backend(world.clone()));
        let listening = |source| Error::Listen { address: self.nfc_listen, source };
        let nfc = NfcServer::bind(self.nfc_listen, nfc_identity, backend, self.nfc).await.map_err(listening)?;
        let mut dial = nfc.local_addr();
        if let Some(address) = self.advertise {
            dial.set_ip(address);
        }
        // Set once, here: the world is not shared with a client yet.
        let _ = world.nfc.set((dial, identity.sha1()));

        let (stop, stopped) = watch::channel(false);
        if let Ok(mut address) = listener.local_addr() {
            if let Some(advertise) = self.advertise {
                address.set_ip(advertise);
            }
            let _ = world.https.set(address);
        }
        let endpoint = Endpoint::start(world.clone(), listener, https, stopped)?;
        Ok(Simulator::new(world, identity, endpoint, nfc, stop, self.advertise))
    }
}

fn make_world(settings: Settings, data_dir: Option<&Path>, vms: &[VmSpec]) -> Result<Arc<World>> {
    let datastore = match data_dir {
        Some(directory) => Datastore::at(DATASTORE, &directory.join(DATASTORE))?,
        None => Datastore::temporary(DATASTORE)?,
    };
    let world = Arc::new(World::new(settings, Arc::new(Faults::default()), datastore));
    for spec in vms {
        add_vm(&world, spec)?;
    }
    Ok(world)
}

fn add_vm(world: &World, spec: &VmSpec) -> Result<()> {
    let new = NewVm {
        name: spec.name.clone(),
        annotation: spec.annotation.clone(),
        guest_id: spec.guest_id.clone(),
        memory_mb: spec.memory_mb,
        cpus: spec.cpus,
        hardware_version: spec.hardware_version,
        power: spec.power,
        tracking: spec.tracking,
        reuse_folder: true,
    };
    let mut state = world.lock();
    let mut vm = create::new(world, &mut state, new);
    vm.settings.devices = vm::hardware::usual_devices(world, spec.disks.len());
    vm.guest = spec.guest;
    vm.settings.key.clone_from(&spec.key);
    vm.settings.nvram.clone_from(&spec.nvram);
    if spec.nvram.is_some() {
        vm.settings.extra.insert("nvram".into(), format!("{}.nvram", vm.file_name));
    }
    vm.settings.devices.extend(spec.devices.iter().map(|device| (device.key, device.clone())));
    for disk in &spec.disks {
        let none_left = || Error::NoSuch { what: "free unit for a disk of", name: spec.name.clone() };
        let options = DiskOptions { write_through: disk.write_through, tracking: world.settings.tracking.clone() };
        let (source, label) = (&disk.source, disk.label.as_deref());
        let key = vm::reconfigure::attach(world, &mut vm, source, &options, disk.mode, label)?.ok_or_else(none_left)?;
        // Tracking from the beginning: as if the VM had been through its stun already.
        if let Some(made) = vm.settings.disks.get_mut(&key) {
            made.backing = disk.backing;
            made.store.stun();
        }
    }
    state.vms.insert(vm.id.clone(), vm);
    Ok(())
}
