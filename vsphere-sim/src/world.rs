//! Everything the simulated server knows, behind one lock.
//!
//! Handlers lock the state briefly, never across an `await` and never while disk data is copied. Whoever changes something calls
//! [`World::touch`], which wakes the property filters that wait for updates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use vsphere_vim_types::ManagedObjectReference;

use crate::alarm::Alarm;
use crate::events::EventLog;
use crate::fcd::Fcd;
use crate::files::{DeltaFormat, FolderCounters};
use crate::inject::Faults;
use crate::inventory::Container;
use crate::personality::{Fixed, Personality};
use crate::session::Sessions;
use crate::storage::{Datastore, DiskStore, TrackingOptions};
use crate::sts::TokenService;
use crate::task::Task;
use crate::ticket::Tickets;
use crate::vm::Vm;

/// Settings that do not change while the simulator runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) personality: Personality,
    pub(crate) username: String,
    pub(crate) password: String,
    /// A session unused for this long is gone.
    pub(crate) idle_timeout: Duration,
    /// A session older than this is gone, however busy.
    pub(crate) max_age: Duration,
    /// How long every task takes at least.
    pub(crate) task_delay: Duration,
    /// Objects per answer when the client names no limit.
    pub(crate) default_page: usize,
    /// Whether the first wait of a filter that selects nothing is answered at once.
    pub(crate) answer_first: bool,
    /// What `NfcGetServerNfcLibVersion` says.
    pub(crate) nfc_lib_version: Option<u32>,
    /// A ticket not used for this long is worthless.
    pub(crate) ticket_lifetime: Duration,
    /// How disks track changes.
    pub(crate) tracking: TrackingOptions,
    /// How the datastore's files behave.
    pub(crate) files: FileOptions,
    /// How First Class Disks are listed.
    pub(crate) fcd: FcdOptions,
    /// How leases behave.
    pub(crate) leases: crate::lease::LeaseConfig,
    /// Whether tests may reach inside over HTTP.
    pub(crate) control: bool,
    /// Extensions by key, with the certificate registered for each in DER form.
    pub(crate) extensions: Vec<(String, Vec<u8>)>,
    /// How long a token lives at most.
    pub(crate) token_lifetime: Duration,
}

/// How the datastore's files behave where real hosts differ or are not known.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileOptions {
    /// Extents of a machine that is not off are refused, as field reports say of ESXi 8. Default: yes.
    pub lock_running_disks: bool,
    /// With which HTTP status they are refused. Default: 500.
    pub locked_status: u16,
    /// Whether the files of snapshots are missing: HTTP status 404. Default: no.
    pub hide_deltas: bool,
    /// In which format the extents of snapshots are. Default: seSparse.
    pub deltas: DeltaFormat,
    /// Whether the datastore keeps disks as objects (vSAN): descriptors, and no extents behind them. Default: no.
    pub object_storage: bool,
    /// What becomes of the header `Range`. Default: what it asks for.
    pub ranges: RangeAnswers,
}

/// How `/folder` answers a request for a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RangeAnswers {
    /// With the range.
    #[default]
    Honest,
    /// With the whole file and status 200, as a server that knows no ranges.
    Ignored,
    /// With status 206 and the range one sector further on, said so.
    Shifted,
    /// With status 206 and half of the range, said so.
    Halved,
    /// With status 206 and the range, and no `Content-Range`.
    Unsaid,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            lock_running_disks: true,
            locked_status: 500,
            hide_deltas: false,
            deltas: DeltaFormat::default(),
            object_storage: false,
            ranges: RangeAnswers::default(),
        }
    }
}

/// How the storage lifecycle service lists First Class Disks, where real ones are not known.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FcdOptions {
    /// Whether the list is in the order of ids; a part of it is the list's beginning. Default: yes.
    pub listed_in_order: bool,
    /// Most disks in one answer, whatever is asked for. Default: 1000.
    pub most_listed: usize,
}

impl Default for FcdOptions {
    fn default() -> Self {
        Self { listed_in_order: true, most_listed: 1000 }
    }
}

/// The simulated server.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) faults: Arc<Faults>,
    pub(crate) tickets: Tickets,
    pub(crate) tokens: TokenService,
    pub(crate) datastore: Datastore,
    /// Where the 902 server listens and the SHA-1 thumbprint of its certificate; set once it runs.
    pub(crate) nfc: OnceLock<(SocketAddr, String)>,
    /// Where the HTTPS endpoint listens; set once it runs.
    pub(crate) https: OnceLock<SocketAddr>,
    /// What went through `/folder`.
    pub(crate) folder: Arc<FolderCounters>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// What changes.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) vms: BTreeMap<String, Vm>,
    pub(crate) events: EventLog,
    /// Alarms by id.
    pub(crate) alarms: BTreeMap<String, Alarm>,
    /// First Class Disks by id.
    pub(crate) fcds: BTreeMap<String, Fcd>,
    /// VMs whose files are there but which are not in the inventory, by the path of their configuration file.
    pub(crate) shelved: BTreeMap<String, Vm>,
    /// Disks whose files are there but which no VM holds.
    pub(crate) loose_disks: Vec<Arc<DiskStore>>,
    /// Folders and vApps that clients have made, by id.
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) tasks: BTreeMap<String, Task>,
    pub(crate) sessions: Sessions,
    pub(crate) leases: BTreeMap<String, crate::lease::Lease>,
    pub(crate) http_tickets: crate::http_ticket::HttpTickets,
    /// Objects (and what they contain) whose properties may not be read.
    pub(crate) denied: Vec<ManagedObjectReference>,
    /// Privileges that nobody has. They are only told, nothing is refused for them.
    pub(crate) missing_privileges: Vec<String>,
    serial: u32,
}

impl World {
    pub(crate) fn new(settings: Settings, faults: Arc<Faults>, datastore: Datastore) -> Self {
        let tickets = Tickets::new(settings.ticket_lifetime);
        let tokens = TokenService::new(settings.token_lifetime);
        // Fixed objects have low numbers; what is created later starts above them, as on a small vCenter.
        let state = Mutex::new(State { serial: 1000, ..State::default() });
        Self {
            settings,
            faults,
            tickets,
            tokens,
            datastore,
            nfc: OnceLock::new(),
            https: OnceLock::new(),
            folder: Arc::default(),
            state,
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn personality(&self) -> Personality {
        self.settings.personality
    }

    pub(crate) fn fixed(&self, object: Fixed) -> ManagedObjectReference {
        self.settings.personality.fixed(object)
    }

    /// The state. Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A handler that panicked has left at worst a half-made task; the others are better served than not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that a client may watch.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Wakes whenever [`touch`](Self::touch) is called.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl State {
    /// A number not used before.
    pub(crate) fn next_serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// Ends a session with everything that was to end with it.
    pub(crate) fn end_session(&mut self, key: &str) {
        self.sessions.close(key);
        self.lift_locks();
    }

    /// Ends all sessions.
    pub(crate) fn end_all_sessions(&mut self) {
        self.sessions.close_all();
        self.lift_locks();
    }

    /// Counts a call on a session; false when it is over.
    pub(crate) fn use_session(&mut self, key: &str, settings: &Settings) -> bool {
        let live = self.sessions.use_now(key, settings.idle_timeout, settings.max_age);
        if !live {
            self.lift_locks();
        }
        live
    }

    /// Lifts the method locks of sessions that are over.
    fn lift_locks(&mut self) {
        let sessions = &self.sessions;
        for vm in self.vms.values_mut() {
            vm.disabled.retain(|(source, method), lock| {
                let stays = lock.session.as_ref().is_none_or(|key| sessions.get(key).is_some());
                if !stays {
                    tracing::debug!(source, method, reason = lock.reason, "the lock ends with its session");
                }
                stays
            });
        }
    }

    /// The VM with a snapshot of that id.
    pub(crate) fn vm_of_snapshot(&self, id: &str) -> Option<&Vm> {
        self.vms.values().find(|vm| vm.snapshots.contains_key(id))
    }
}
