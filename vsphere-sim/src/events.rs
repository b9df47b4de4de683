//! The event log: what has happened, as vCenter tells it. Tasks write it when they begin and when they have succeeded.

use std::collections::VecDeque;

use vsphere_vim_types::{
    DateTime, Element, EntityEventArgument, Event, EventFilterSpec, EventFilterSpecRecursionOption,
    ManagedObjectReference, MoRef, Poly, VmEventArgument,
};

use crate::inventory;
use crate::world::{State, World};

/// Events kept; older ones are forgotten.
const KEPT: usize = 10_000;

/// Everything that has happened, oldest first.
#[derive(Default)]
pub(crate) struct EventLog {
    events: VecDeque<Record>,
    last_key: i32,
}

/// An event, what it is about, and what that was in when it happened.
struct Record {
    event: Poly<Event>,
    about: ManagedObjectReference,
    inside: Vec<ManagedObjectReference>,
}

/// What has happened.
pub(crate) struct Happened {
    /// The event's type: `VmPoweredOnEvent`.
    pub(crate) kind: &'static str,
    pub(crate) user: String,
    pub(crate) about: ManagedObjectReference,
    /// The entity's name.
    pub(crate) name: String,
    pub(crate) message: String,
    /// The event that began the chain; `None` for one that begins its own.
    pub(crate) chain: Option<i32>,
    /// What only this type of event has.
    pub(crate) fields: Vec<Element>,
}

impl State {
    /// Writes an event down; returns its key.
    pub(crate) fn record(&mut self, world: &World, happened: Happened) -> i32 {
        let inside = inventory::ancestors(world, self, &happened.about);
        self.events.record(happened, inside)
    }
}

impl EventLog {
    fn record(&mut self, happened: Happened, mut inside: Vec<ManagedObjectReference>) -> i32 {
        // What is gone was where the chain's beginning says.
        if inside.is_empty()
            && let Some(first) = self.events.iter().rev().find(|first| Some(first.event.key) == happened.chain)
            && first.about == happened.about
        {
            inside = first.inside.clone();
        }
        self.last_key += 1;
        let key = self.last_key;
        let vm = (happened.about.type_name() == "VirtualMachine").then(|| VmEventArgument {
            vm: MoRef::new(happened.about.value()),
            base: EntityEventArgument { name: happened.name, ..Default::default() },
        });
        let mut event = Event {
            key,
            chain_id: happened.chain.unwrap_or(key),
            created_time: DateTime::now(),
            user_name: happened.user,
            vm,
            full_formatted_message: Some(happened.message),
            ..Default::default()
        };
        event.unknown.set_type_name(happened.kind);
        happened.fields.into_iter().for_each(|field| event.unknown.push(field));
        self.events.push_back(Record { event: Poly::new(event), about: happened.about, inside });
        if self.events.len() > KEPT {
            self.events.pop_front();
        }
        key
    }

    /// The events with keys above `after` that `filter` wants, oldest first.
    pub(crate) fn matching<'a>(
        &'a self,
        filter: &'a EventFilterSpec,
        after: i32,
    ) -> impl DoubleEndedIterator<Item = &'a Poly<Event>> {
        let newer = self.events.iter().filter(move |record| record.event.key > after);
        newer.filter(move |record| record.matches(filter)).map(|record| &record.event)
    }
}

impl Record {
    fn matches(&self, filter: &EventFilterSpec) -> bool {
        let event = &self.event;
        let types = &filter.event_type_id;
        let typed = types.is_empty() || types.iter().any(|wanted| event.is_a(wanted));
        let chained = filter.event_chain_id.is_none_or(|chain| chain == event.chain_id);
        let users = filter.user_name.as_ref().map_or(&[][..], |users| &users.user_list);
        let caused = users.is_empty() || users.contains(&event.user_name);
        let at = event.created_time.unix_nanos();
        let timely = filter.time.as_ref().is_none_or(|time| {
            time.begin_time.is_none_or(|begin| begin.unix_nanos() <= at)
                && time.end_time.is_none_or(|end| at <= end.unix_nanos())
        });
        let about = filter.entity.as_ref().is_none_or(|entity| {
            let wanted = entity.entity.as_untyped();
            let itself = self.about == *wanted;
            match entity.recursion {
                EventFilterSpecRecursionOption::Self_ => itself,
                EventFilterSpecRecursionOption::Children => self.inside.contains(wanted),
                _ => itself || self.inside.contains(wanted),
            }
        });
        typed && chained && caused && timely && about
    }
}

/// The event that a method leaves behind when its task has succeeded, and how it is told.
pub(crate) fn of_method(method: &str) -> Option<(&'static str, &'static str)> {
    Some(match method {
        "CreateVM_Task" | "CreateChildVM_Task" => ("VmCreatedEvent", "was created"),
        "RegisterVM_Task" | "RegisterChildVM_Task" => ("VmRegisteredEvent", "was registered"),
        "PowerOnVM_Task" => ("VmPoweredOnEvent", "is powered on"),
        "PowerOffVM_Task" => ("VmPoweredOffEvent", "is powered off"),
        "SuspendVM_Task" => ("VmSuspendedEvent", "is suspended"),
        "ResetVM_Task" => ("VmResettingEvent", "is reset"),
        "ReconfigVM_Task" => ("VmReconfiguredEvent", "was reconfigured"),
        "Rename_Task" => ("VmRenamedEvent", "was renamed"),
        "CloneVM_Task" => ("VmClonedEvent", "was cloned"),
        "Destroy_Task" => ("VmRemovedEvent", "was removed"),
        _ => return None,
    })
}
