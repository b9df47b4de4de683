//! HttpNfcLease: disks exported and imported over HTTPS, for as long as the client says that it is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use vsphere_vim_types::{
    HttpNfcLeaseDeviceUrl, HttpNfcLeaseInfo, HttpNfcLeaseManifestEntry, HttpNfcLeaseState, ManagedObjectReference,
    MoRef,
};

use crate::Fault;
use crate::storage::{DiskStore, NodeHandle, NodeId};
use crate::world::{State, World};

/// Leases that are over and still have properties.
const KEPT: usize = 1024;

/// How leases behave where real servers differ, are not known, or have more time than a test.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseConfig {
    /// A lease of which nothing is heard for this long is lost. Default: 5 minutes.
    pub timeout: Duration,
    /// How long a lease prepares. Default: no time.
    pub ready_after: Duration,
    /// Whether URLs have `*` for a host, as vCenter's may; else the endpoint's own address. Default: yes.
    pub star_host: bool,
    /// Whether there are manifests. Default: yes.
    pub manifest: bool,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), ready_after: Duration::ZERO, star_host: true, manifest: true }
    }
}

/// One lease.
pub(crate) struct Lease {
    pub(crate) id: String,
    entity: ManagedObjectReference,
    /// The VM, for exports of snapshots too.
    vm: String,
    pub(crate) import: bool,
    /// The part of the URLs that nobody can guess.
    token: String,
    pub(crate) devices: Vec<Device>,
    phase: Phase,
    timeout: Duration,
    heard: Instant,
    pub(crate) percent: i32,
    /// What was sent of each device to its end: bytes and SHA-1.
    pub(crate) sent: BTreeMap<String, (u64, String)>,
}

/// One disk of a lease.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) key: String,
    pub(crate) import_key: String,
    pub(crate) file: String,
    pub(crate) handle: Arc<NodeHandle>,
}

enum Phase {
    Preparing { until: Instant },
    Ready,
    Done,
    Failed(Fault),
}

/// What is to be leased.
pub(crate) struct NewLease {
    pub(crate) entity: ManagedObjectReference,
    pub(crate) vm: String,
    pub(crate) import: bool,
    /// Disks: number on the controller, store, layer.
    pub(crate) disks: Vec<(i32, Arc<DiskStore>, NodeId)>,
    /// The machine's name, for import keys.
    pub(crate) name: String,
}

/// Makes a lease and watches over its time.
pub(crate) fn open(world: &Arc<World>, new: NewLease) -> Result<MoRef<vsphere_vim_types::mo::HttpNfcLease>, Fault> {
    let access = if new.import { crate::storage::Access::ReadWrite } else { crate::storage::Access::ReadOnly };
    let mut devices = Vec::new();
    for (number, (unit, store, node)) in new.disks.iter().enumerate() {
        devices.push(Device {
            key: format!("/{}/VirtualLsiLogicController0:{unit}", new.vm),
            import_key: format!("/{}/VirtualLsiLogicController0:{unit}", new.name),
            file: format!("disk-{number}.vmdk"),
            handle: Arc::new(store.open(*node, access).map_err(|error| Fault::storage(&error))?),
        });
    }
    let config = &world.settings.leases;
    let mut state = world.lock();
    if state.leases.values().any(|lease| lease.vm == new.vm && lease.is_held()) {
        return Err(Fault::new("InvalidState", "The operation is not allowed in the current state: a lease exists"));
    }
    if state.leases.len() >= KEPT {
        state.leases.retain(|_, lease| lease.is_held());
    }
    let id = format!("session[{}]{}", crate::ids::uuid(), crate::ids::uuid());
    let lease = Lease {
        id: id.clone(),
        entity: new.entity,
        vm: new.vm,
        import: new.import,
        token: crate::ids::uuid(),
        devices,
        phase: Phase::Preparing { until: Instant::now() + config.ready_after },
        timeout: config.timeout,
        heard: Instant::now() + config.ready_after,
        percent: 0,
        sent: BTreeMap::new(),
    };
    state.leases.insert(id.clone(), lease);
    drop(state);
    world.touch();
    tokio::spawn(watch(Arc::downgrade(world), id.clone()));
    Ok(MoRef::new(&id))
}

/// Fails the lease when nothing is heard of it.
async fn watch(world: Weak<World>, id: String) {
    loop {
        let due = {
            let Some(world) = world.upgrade() else { return };
            let state = world.lock();
            let Some(lease) = state.leases.get(&id).filter(|lease| lease.is_held()) else { return };
            lease.heard + lease.timeout
        };
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
            continue;
        }
        let Some(world) = world.upgrade() else { return };
        let gone = tokio::task::spawn_blocking(move || {
            fail(&world, &id, Fault::new("Timedout", "The lease has timed out"));
        });
        let _ = gone.await;
        return;
    }
}

/// Ends a lease as a failure; what was imported goes away. False when it is over already.
pub(crate) fn fail(world: &World, id: &str, fault: Fault) -> bool {
    let imported = {
        let mut state = world.lock();
        let Some(lease) = state.leases.get_mut(id).filter(|lease| lease.is_held()) else { return false };
        lease.phase = Phase::Failed(fault);
        lease.devices.clear();
        lease.import.then(|| lease.vm.clone())
    };
    if let Some(vm) = imported
        && let Err(fault) = crate::vm::create::destroy(world, &vm)
    {
        tracing::warn!(fault = fault.name(), vm, "an aborted import left its machine");
    }
    world.touch();
    true
}

impl Lease {
    /// Whether it is neither done nor lost.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. } | Phase::Ready)
    }

    pub(crate) fn state(&self) -> HttpNfcLeaseState {
        match &self.phase {
            Phase::Preparing { until } if *until > Instant::now() => HttpNfcLeaseState::Initializing,
            Phase::Preparing { .. } | Phase::Ready => HttpNfcLeaseState::Ready,
            Phase::Done => HttpNfcLeaseState::Done,
            Phase::Failed(_) => HttpNfcLeaseState::Error,
        }
    }

    pub(crate) fn error(&self) -> Option<&Fault> {
        match &self.phase {
            Phase::Failed(fault) => Some(fault),
            _ => None,
        }
    }

    /// The client is there.
    pub(crate) fn hear(&mut self) -> Result<(), Fault> {
        match (&self.phase, self.state()) {
            (Phase::Failed(fault), _) => Err(fault.clone()),
            (_, HttpNfcLeaseState::Ready) => {
                self.phase = Phase::Ready;
                self.heard = Instant::now();
                Ok(())
            }
            _ => Err(Fault::new("InvalidState", "The operation is not allowed in the current state.")),
        }
    }

    /// Ends it as a success.
    pub(crate) fn complete(&mut self) -> Result<(), Fault> {
        self.hear()?;
        self.phase = Phase::Done;
        self.devices.clear();
        Ok(())
    }

    /// `info`; there from the moment that the lease is ready.
    pub(crate) fn info(&self, world: &World) -> Option<HttpNfcLeaseInfo> {
        if self.state() != HttpNfcLeaseState::Ready {
            return None;
        }
        let (_, thumbprint) = world.nfc.get().cloned().unzip();
        let host = match world.https.get() {
            Some(address) if !world.settings.leases.star_host => address.to_string(),
            _ => "*".to_owned(),
        };
        let device = |device: &Device| HttpNfcLeaseDeviceUrl {
            key: device.key.clone(),
            import_key: device.import_key.clone(),
            url: format!("https://{host}/nfc/{}/{}", self.token, device.file),
            ssl_thumbprint: thumbprint.clone().unwrap_or_default(),
            disk: Some(true),
            target_id: Some(device.file.clone()),
            // How well a disk compresses is not known before.
            file_size: None,
            ..Default::default()
        };
        let capacity = self.devices.iter().map(|device| device.handle.capacity().unwrap_or(0)).sum::<u64>();
        Some(HttpNfcLeaseInfo {
            lease: MoRef::new(&self.id),
            entity: self.entity.cast(),
            device_url: self.devices.iter().map(device).collect(),
            total_disk_capacity_in_kb: (capacity / 1024) as i64,
            lease_timeout: i32::try_from(self.timeout.as_secs().max(1)).unwrap_or(i32::MAX),
            ..Default::default()
        })
    }

    pub(crate) fn manifest(&self) -> Vec<HttpNfcLeaseManifestEntry> {
        let entry = |device: &Device| {
            let (size, sha1) = self.sent.get(&device.key).cloned()?;
            Some(HttpNfcLeaseManifestEntry {
                key: device.key.clone(),
                sha1,
                size: size as i64,
                disk: true,
                capacity: device.handle.capacity().ok().map(|capacity| capacity as i64),
                ..Default::default()
            })
        };
        self.devices.iter().filter_map(entry).collect()
    }
}

/// The ready lease and its device behind `/nfc/TOKEN/FILE`.
pub(crate) fn find<'a>(state: &'a mut State, path: &str) -> Option<(&'a mut Lease, Device)> {
    let (token, file) = path.strip_prefix("/nfc/")?.split_once('/')?;
    let lease = state.leases.values_mut().find(|lease| lease.token == token)?;
    lease.hear_of_transfer()?;
    let device = lease.devices.iter().find(|device| device.file == file)?.clone();
    Some((lease, device))
}

impl Lease {
    /// A transfer that begins is no sign of life in itself: the client has to report progress.
    fn hear_of_transfer(&mut self) -> Option<()> {
        (self.state() == HttpNfcLeaseState::Ready).then_some(())
    }
}
