//! Filters and waiting: what changed since the client last asked.
//!
//! A filter remembers what it last told about each object. A wait compares that with the present state, so
//! nothing has to be recorded when something changes: the state only says *that* it did.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vsphere_vim_types::{
    Any, DynamicProperty, ManagedObjectReference, MissingProperty, MoRef, ObjectUpdate, ObjectUpdateKind,
    PropertyChange, PropertyChangeOp, PropertyFilterSpec, PropertyFilterUpdate, UpdateSet,
};

use crate::Fault;
use crate::world::{State, World};

use super::partial;
use super::select::{self, Sight};

/// Filters per collector, as a server bounds them.
const MAX_FILTERS: usize = 1000;

/// A property collector of a session.
#[derive(Default)]
pub(crate) struct Collector {
    version: u64,
    filters: BTreeMap<String, Filter>,
    cancelled: u64,
}

/// A filter of a collector.
pub(crate) struct Filter {
    pub(crate) spec: Arc<PropertyFilterSpec>,
    /// Changes inside a value are told by themselves.
    pub(crate) partial: bool,
    told: BTreeMap<ManagedObjectReference, Told>,
}

/// What the client was told of an object.
struct Told {
    values: BTreeMap<String, Any>,
    missing: Vec<MissingProperty>,
}

/// What a waiting client asked for.
pub(crate) struct WaitFor {
    /// The collector's id.
    pub(crate) collector: String,
    /// The version that the client has; empty to begin anew.
    pub(crate) version: String,
    /// How long to wait for a change; `None` waits as long as the connection lasts.
    pub(crate) patience: Option<Duration>,
    /// Objects in one answer.
    pub(crate) max_objects: usize,
}

impl Collector {
    pub(crate) fn filter(&self, id: &str) -> Option<&Filter> {
        self.filters.get(id)
    }

    /// References to the filters, as the `filter` property shows them.
    pub(crate) fn filter_references(&self) -> Any {
        let filter = |id: &String| ManagedObjectReference::of("PropertyFilter", id);
        crate::inventory::references(self.filters.keys().map(filter).collect())
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &String> {
        self.filters.keys()
    }

    pub(crate) fn add(&mut self, id: String, spec: PropertyFilterSpec, partial: bool) -> Result<(), Fault> {
        select::check(&spec)?;
        if self.filters.len() >= MAX_FILTERS {
            return Err(Fault::invalid_request("too many filters"));
        }
        self.filters.insert(id, Filter { spec: Arc::new(spec), partial, told: BTreeMap::new() });
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: &str) -> bool {
        self.filters.remove(id).is_some()
    }

    pub(crate) fn cancel_waits(&mut self) {
        self.cancelled += 1;
    }

    /// Whatever version a client has, it is too old from now on.
    pub(crate) fn expire_versions(&mut self) {
        self.version += 1;
    }
}

/// Answers when something changed or the client's patience ends (`None`).
pub(crate) async fn wait(world: &Arc<World>, session: &str, wanted: WaitFor) -> Result<Option<UpdateSet>, Fault> {
    let mut changes = world.changes();
    let deadline = wanted.patience.map(|patience| Instant::now() + patience);
    let mut cancelled = None;
    let mut begin = wanted.version.is_empty();
    loop {
        changes.borrow_and_update();
        {
            let mut state = world.lock();
            let collector = collector(&mut state, session, &wanted.collector)?;
            if *cancelled.get_or_insert(collector.cancelled) != collector.cancelled {
                return Err(Fault::new("RequestCanceled", "The request was canceled."));
            }
            if begin {
                collector.filters.values_mut().for_each(|filter| filter.told.clear());
                begin = false;
            } else if !wanted.version.is_empty() && wanted.version != collector.version.to_string() {
                return Err(Fault::new("InvalidCollectorVersion", "The collector version is not valid."));
            }
            if let Some(update) = collect(world, &mut state, session, &wanted)? {
                return Ok(Some(update));
            }
        }
        let changed = changes.changed();
        let woken = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, changed).await.is_ok_and(|changed| changed.is_ok()),
            None => changed.await.is_ok(),
        };
        if !woken {
            return Ok(None);
        }
    }
}

/// What is new for the client, if anything.
fn collect(world: &World, state: &mut State, session: &str, wanted: &WaitFor) -> Result<Option<UpdateSet>, Fault> {
    let filters: Vec<(String, Arc<PropertyFilterSpec>)> = collector(state, session, &wanted.collector)?
        .filters
        .iter()
        .map(|(id, filter)| (id.clone(), filter.spec.clone()))
        .collect();
    let mut room = wanted.max_objects;
    let mut set = UpdateSet::default();
    for (id, spec) in filters {
        let sight = Sight { world, state, session: Some(session) };
        // Objects that are gone take their filter's start along: the filter then selects nothing.
        let selected = match select::select(sight, &spec) {
            Ok(selected) => selected,
            Err(fault) if fault.name() == "ManagedObjectNotFound" => Vec::new(),
            Err(fault) => return Err(fault),
        };
        let shown: Vec<_> = selected
            .into_iter()
            .filter_map(|object| Some((object.clone(), select::read(sight, &spec, &object)?)))
            .collect();
        let Some(filter) = collector(state, session, &wanted.collector)?.filters.get_mut(&id) else { continue };
        let (updates, truncated) = filter.compare(shown, &mut room);
        if !updates.is_empty() {
            set.filter_set.push(PropertyFilterUpdate {
                filter: MoRef::new(&id),
                object_set: updates,
                ..Default::default()
            });
        }
        if truncated {
            set.truncated = Some(true);
            break;
        }
    }
    // The first answer gives a version in any case, so that there is one to go on from.
    let first = wanted.version.is_empty() && world.settings.answer_first;
    if set.filter_set.is_empty() && !first {
        return Ok(None);
    }
    let collector = collector(state, session, &wanted.collector)?;
    collector.version += 1;
    set.version = collector.version.to_string();
    Ok(Some(set))
}

impl Filter {
    /// Compares the present with what was told, and remembers it as told. At most `room` objects.
    fn compare(
        &mut self,
        present: Vec<(ManagedObjectReference, select::Shown)>,
        room: &mut usize,
    ) -> (Vec<ObjectUpdate>, bool) {
        let mut updates = Vec::new();
        let here: HashSet<&ManagedObjectReference> = present.iter().map(|(object, _)| object).collect();
        let gone: Vec<_> = self.told.keys().filter(|object| !here.contains(object)).cloned().collect();
        for obj in gone {
            if *room == 0 {
                return (updates, true);
            }
            *room -= 1;
            self.told.remove(&obj);
            updates.push(ObjectUpdate { kind: ObjectUpdateKind::Leave, obj, ..Default::default() });
        }
        for (obj, shown) in present {
            let before = self.told.get(&obj);
            let (change_set, missing_set) = self.changes(before, &shown);
            let kind = if before.is_none() { ObjectUpdateKind::Enter } else { ObjectUpdateKind::Modify };
            if before.is_some() && change_set.is_empty() && missing_set.is_empty() {
                continue;
            }
            if *room == 0 {
                return (updates, true);
            }
            *room -= 1;
            let values = shown.present.into_iter().map(|property| (property.name, property.val)).collect();
            self.told.insert(obj.clone(), Told { values, missing: shown.missing });
            updates.push(ObjectUpdate { kind, obj, change_set, missing_set, ..Default::default() });
        }
        (updates, false)
    }

    /// What is new of an object, and what of it can no longer be read.
    fn changes(&self, before: Option<&Told>, now: &select::Shown) -> (Vec<PropertyChange>, Vec<MissingProperty>) {
        let Some(before) = before else {
            let assign = |property: &DynamicProperty| {
                change(&property.name, PropertyChangeOp::Assign, Some(property.val.clone()))
            };
            return (now.present.iter().map(assign).collect(), now.missing.clone());
        };
        let mut changes = Vec::new();
        for property in &now.present {
            match before.values.get(&property.name) {
                Some(old) if *old == property.val => {}
                Some(old) if self.partial => changes.extend(partial::changes(&property.name, old, &property.val)),
                _ => changes.push(change(&property.name, PropertyChangeOp::Assign, Some(property.val.clone()))),
            }
        }
        let present = |path: &str| now.present.iter().any(|property| property.name == path);
        let missing = |path: &str| now.missing.iter().any(|missing| missing.path == path);
        // What became unset, and what can be read again and is not set.
        let told = before.values.keys().chain(before.missing.iter().map(|missing| &missing.path));
        for path in told.filter(|path| !present(path) && !missing(path)) {
            let op = match self.partial {
                false => PropertyChangeOp::Assign,
                // Something inside another value: that is what went.
                true if path.contains(['.', '[']) => PropertyChangeOp::IndirectRemove,
                true => PropertyChangeOp::Remove,
            };
            changes.push(change(path, op, None));
        }
        let missing = match before.missing == now.missing {
            true => Vec::new(),
            false => now.missing.clone(),
        };
        (changes, missing)
    }
}

fn change(name: &str, op: PropertyChangeOp, val: Option<Any>) -> PropertyChange {
    PropertyChange { name: name.into(), op, val, ..Default::default() }
}

fn collector<'a>(state: &'a mut State, session: &str, id: &str) -> Result<&'a mut Collector, Fault> {
    let reference = ManagedObjectReference::of("PropertyCollector", id);
    let session = state.sessions.get_mut(session).ok_or_else(|| Fault::not_authenticated(&reference))?;
    session.collectors.get_mut(id).ok_or_else(|| Fault::not_found(&reference))
}
