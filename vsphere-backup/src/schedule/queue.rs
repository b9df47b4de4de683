//! Who may begin next: a pure state machine.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::ScheduleLimits;

/// Something of which only so much may be in use at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Resource {
    /// This process.
    Proxy,
    VCenter(Arc<str>),
    Host(Arc<str>),
    Datastore(Arc<str>),
}

impl Resource {
    /// Tells whether machines that need it can be kept from it by others that need less.
    fn is_narrow(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Datastore(_))
    }

    /// Tells whether who needs so much of it never gets it unless it is kept.
    fn has_to_be_kept(&self, count: u32) -> bool {
        self.is_narrow() || count > 1
    }
}

/// One that waits or runs. Those of a job are numbered, and the numbers of all jobs run side by side: so jobs take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket {
    turn: u64,
    arrival: u64,
}

/// A job, by the order of its registration.
pub(super) type JobId = u64;

/// Jobs take turns, and the first in the order that finds all it needs begins. Whoever finds its host or a datastore in
/// use is passed over, but at most [`PATIENCE`] times by others behind it that take of these: from then on nobody behind
/// it gets any of them, so that they become free. Nobody else is kept waiting by that: who needs other hosts and datastores
/// goes on.
///
/// So nobody starves. Its place in the order is given at arrival, and whoever arrives later comes behind it once the
/// turn has come to it: only so many can be before it.
///
/// Places of the process and of a vCenter need no such care for who needs one of them. Whoever gives back a host or a
/// datastore gives back one of either too, and the first in the order gets it. For a set, whose machines begin at once, they
/// are kept too, as soon as nothing else is missing.
///
/// A set that is larger than a limit begins when nobody else uses any of it, and nobody else does while it runs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    limits: ScheduleLimits,
    arrived: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    running: BTreeMap<Ticket, Needs>,
    used: HashMap<Resource, u32>,
    /// By job, the turn of the one that arrived last.
    turns: HashMap<JobId, u64>,
    /// The latest turn of any that began. A job that comes, or comes back, goes on from here: it has saved up nothing.
    turn: u64,
    /// Of these nothing is given out for now.
    held: HashSet<Resource>,
    closed: bool,
}

/// How much of what.
type Needs = BTreeMap<Resource, u32>;

#[derive(Debug)]
struct Waiting {
    needs: Needs,
    passed: u32,
}

impl Queue {
    pub(super) fn new(limits: ScheduleLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn set_limits(&mut self, limits: ScheduleLimits) {
        self.limits = limits;
    }

    /// Stops giving out anything, or begins again.
    pub(super) fn set_closed(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// Stops giving out a resource, or begins again.
    pub(super) fn hold(&mut self, resource: Resource, hold: bool) {
        if hold {
            self.held.insert(resource);
        } else {
            self.held.remove(&resource);
        }
    }

    /// Gives out everything again that was held.
    pub(super) fn release_held(&mut self) {
        self.held.clear();
    }

    pub(super) fn is_held(&self, resource: &Resource) -> bool {
        self.held.contains(resource)
    }

    #[cfg(test)]
    fn push(&mut self, job: JobId, needs: impl IntoIterator<Item = Resource>) -> Ticket {
        self.push_all(job, [needs])
    }

    /// Lets machines wait that are to begin at once; of each, what it needs beside a place in this process.
    pub(super) fn push_all<N>(&mut self, job: JobId, machines: impl IntoIterator<Item = N>) -> Ticket
    where
        N: IntoIterator<Item = Resource>,
    {
        self.arrived += 1;
        let last = self.turns.entry(job).or_default();
        *last = self.turn.max(*last) + 1;
        let ticket = Ticket { turn: *last, arrival: self.arrived };
        let mut needs = Needs::new();
        for machine in machines {
            let once: BTreeSet<_> = machine.into_iter().chain([Resource::Proxy]).collect();
            once.into_iter().for_each(|resource| *needs.entry(resource).or_default() += 1);
        }
        self.waiting.insert(ticket, Waiting { needs, passed: 0 });
        ticket
    }

    /// Lets the next one begin, if one may.
    pub(super) fn start(&mut self) -> Option<Ticket> {
        if self.closed {
            return None;
        }
        let mut reserved: BTreeSet<&Resource> = BTreeSet::new();
        let mut skipped = Vec::new();
        let mut chosen = None;
        for (&ticket, one) in &self.waiting {
            let is_free = one.needs.iter().all(|(resource, &count)| self.is_free(resource, count));
            if is_free && one.needs.keys().all(|resource| !reserved.contains(resource)) {
                chosen = Some(ticket);
                break;
            }
            skipped.push(ticket);
            reserved.extend(self.kept_for(one));
        }
        let ticket = chosen?;
        let Waiting { needs, .. } = self.waiting.remove(&ticket)?;
        for ticket in skipped {
            if let Some(one) = self.waiting.get_mut(&ticket)
                && one
                    .needs
                    .iter()
                    .any(|(resource, &count)| resource.has_to_be_kept(count) && needs.contains_key(resource))
            {
                one.passed = (one.passed + 1).min(PATIENCE);
            }
        }
        for (resource, count) in &needs {
            *self.used.entry(resource.clone()).or_default() += count;
        }
        self.turn = self.turn.max(ticket.turn);
        self.running.insert(ticket, needs);
        Some(ticket)
    }

    /// Takes back what one has, whether it runs or waits.
    pub(super) fn end(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
        for (resource, count) in self.running.remove(&ticket).into_iter().flatten() {
            if let Some(used) = self.used.get_mut(&resource) {
                *used -= count;
                if *used == 0 {
                    self.used.remove(&resource);
                }
            }
        }
    }

    /// Forgets a job's turns.
    pub(super) fn forget(&mut self, job: JobId) {
        self.turns.remove(&job);
    }

    /// Returns how many machines run and how many wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        let machines = |needs: &Needs| needs.get(&Resource::Proxy).map_or(0, |&count| count as usize);
        let waiting = self.waiting.values().map(|one| machines(&one.needs));
        (self.running.values().map(machines).sum(), waiting.sum())
    }

    /// Returns the lowest limit of machines at work that what began exceeds.
    pub(super) fn exceeded(&self, ticket: Ticket) -> Option<u32> {
        let needs = self.running.get(&ticket)?.iter();
        // Its snapshots are there at once, or it were no set; how many are read at once is another matter.
        let at_work = needs.filter(|(resource, _)| !matches!(resource, Resource::Datastore(_)));
        at_work
            .filter(|&(resource, &count)| count > self.limit(resource))
            .map(|(resource, _)| self.limit(resource))
            .min()
    }

    /// Returns what nobody behind `one` gets.
    fn kept_for<'a>(&'a self, one: &'a Waiting) -> impl Iterator<Item = &'a Resource> {
        // What waits for a held resource can wait for long, and keeps nobody from the others.
        let is_patient = one.passed < PATIENCE || one.needs.keys().any(|resource| self.held.contains(resource));
        let mut narrow = one.needs.iter().filter(|(resource, _)| resource.is_narrow());
        let lacks_narrow = narrow.any(|(resource, &count)| !self.is_free(resource, count));
        let keeps = move |resource: &Resource, count| {
            !is_patient && resource.has_to_be_kept(count) && (resource.is_narrow() || !lacks_narrow)
        };
        one.needs.iter().filter(move |&(resource, &count)| keeps(resource, count)).map(|(resource, _)| resource)
    }

    /// Tells whether there is so much of a resource; a set that is larger than the limit gets what there is.
    fn is_free(&self, resource: &Resource, count: u32) -> bool {
        let (used, limit) = (self.used.get(resource).copied().unwrap_or(0), self.limit(resource));
        used.saturating_add(count.min(limit)) <= limit && !self.held.contains(resource)
    }

    fn limit(&self, resource: &Resource) -> u32 {
        let limit = match resource {
            Resource::Proxy => self.limits.machines,
            Resource::VCenter(_) => self.limits.per_vcenter,
            Resource::Host(_) => self.limits.per_host,
            Resource::Datastore(_) => self.limits.per_datastore,
        };
        limit.max(1)
    }
}

/// How often one is passed over by others behind it that take of what it needs.
pub(super) const PATIENCE: u32 = 8;

#[cfg(test)]
mod tests;
