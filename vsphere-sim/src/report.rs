//! What clients left behind: a backup that ended well leaves nothing.

use crate::world::World;

/// Things that a client made and did not clean up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// Snapshots, as `VM/snapshot`.
    pub snapshots: Vec<String>,
    /// Disabled methods, as `VM/method by source`.
    pub locks: Vec<String>,
    /// VMs whose disks wait for consolidation.
    pub unconsolidated: Vec<String>,
    /// Sessions that are logged in.
    pub sessions: usize,
    /// Views, filters and own property collectors of those sessions.
    pub session_objects: usize,
    /// Retrievals that were begun and neither finished nor cancelled.
    pub retrievals: usize,
    /// 902 tickets that could still be used.
    pub tickets: usize,
    /// Connections to the 902 server.
    pub nfc_connections: u64,
    /// Disk layers open through the 902 server.
    pub open_layers: u32,
    /// Leases that are neither completed nor lost.
    pub leases: usize,
    /// Tasks that have not ended.
    pub tasks: usize,
}

impl Leftovers {
    /// Whether there is nothing.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn of(world: &World, nfc_connections: u64) -> Self {
        let state = world.lock();
        let mut left = Leftovers { nfc_connections, tickets: world.tickets.outstanding(), ..Self::default() };
        for vm in state.vms.values() {
            left.snapshots.extend(vm.snapshots.values().map(|snapshot| format!("{}/{}", vm.name(), snapshot.name)));
            left.locks.extend(vm.disabled.keys().map(|(source, method)| format!("{}/{method} by {source}", vm.name())));
            if vm.consolidation_needed() {
                left.unconsolidated.push(vm.name().to_owned());
            }
            left.open_layers += vm.all_stores().iter().map(|store| store.open_handles()).sum::<u32>();
        }
        for disk in state.fcds.values() {
            let shown = disk.snapshots.iter().map(|snapshot| format!("{}/{}", disk.name, snapshot.description));
            left.snapshots.extend(shown);
        }
        for (_, session) in state.sessions.all() {
            left.sessions += 1;
            left.retrievals += session.pages.len();
            let default = world.fixed(crate::personality::Fixed::PropertyCollector);
            let own = session.collectors.keys().filter(|id| *id != default.value()).count();
            let filters: usize = session.collectors.values().map(|collector| collector.filters().count()).sum();
            left.session_objects += session.views.len() + own + filters + session.event_collectors.len();
        }
        left.leases = state.leases.values().filter(|lease| lease.is_held()).count();
        left.tasks = state.tasks.values().filter(|task| !task.is_done()).count();
        left
    }
}

impl std::fmt::Display for Leftovers {
    /// One line a thing; nothing when there is nothing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lists =
            [("snapshot", &self.snapshots), ("method lock", &self.locks), ("to be consolidated", &self.unconsolidated)];
        for (what, list) in lists {
            for one in list {
                writeln!(f, "{what}: {one}")?;
            }
        }
        let counts = [
            ("sessions", self.sessions as u64),
            ("views, filters and collectors", self.session_objects as u64),
            ("unfinished retrievals", self.retrievals as u64),
            ("unused tickets", self.tickets as u64),
            ("connections to the 902 server", self.nfc_connections),
            ("open disk layers", u64::from(self.open_layers)),
            ("open leases", self.leases as u64),
            ("unfinished tasks", self.tasks as u64),
        ];
        counts.iter().filter(|(_, count)| *count > 0).try_for_each(|(what, count)| writeln!(f, "{what}: {count}"))
    }
}
