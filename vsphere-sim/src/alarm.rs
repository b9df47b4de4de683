//! Alarms: conditions set up on an entity, and the machines for which they hold.
//!
//! Nothing is evaluated. Whoever runs the simulator says when a condition holds; how that shows in the inventory and in
//! the event log is as on vCenter.

use std::collections::BTreeMap;
use std::sync::Arc;

use vsphere_vim_types::{AlarmState, Any, DateTime, Element, ManagedEntityStatus, ManagedObjectReference};

use crate::events::Happened;
use crate::handle::VmHandle;
use crate::inventory;
use crate::world::{State, World};
use crate::{Error, Result};

/// An alarm of the simulated vCenter: from [`Simulator::declare_alarm`](crate::Simulator::declare_alarm) and
/// [`VmHandle::declare_alarm`].
#[derive(Clone)]
pub struct AlarmHandle {
    world: Arc<World>,
    id: String,
}

impl AlarmHandle {
    /// The managed object id: `alarm-1001`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Says how the alarm's condition stands for a machine, and which event has changed it, if one has.
    ///
    /// # Errors
    /// [`Error::NoSuch`] when the alarm does not watch that machine.
    pub fn set(&self, vm: &VmHandle, status: ManagedEntityStatus, event: Option<i32>) -> Result<()> {
        let mut state = self.world.lock();
        let entity = ManagedObjectReference::of("VirtualMachine", vm.id());
        let of_other = || Error::NoSuch { what: "alarm that watches", name: vm.id().into() };
        let watched = state.alarms.get(&self.id).filter(|alarm| alarm.watches(&self.world, &state, &entity));
        let alarm = watched.ok_or_else(of_other)?;
        let before = alarm.status(vm.id());
        let name = inventory::name(&self.world, &state, &entity).ok_or_else(of_other)?;
        let message = format!("Alarm '{}' on {name} changed from {before} to {status}", alarm.name);
        let argument = |kind: &str| {
            let reference = Element::new("entity", entity.value()).with_attribute("type", entity.type_name());
            Element::new(kind, "").with_child(Element::new("name", &name)).with_child(reference)
        };
        let (from, to) = (Element::new("from", before.as_str()), Element::new("to", status.as_str()));
        let fields = vec![alarm.argument(), argument("source"), argument("entity"), from, to];
        let kind = "AlarmStatusChangedEvent";
        let told = Happened { kind, user: String::new(), about: entity, name, message, chain: None, fields };
        state.record(&self.world, told);

        let standing = Standing { status, since: DateTime::now(), event, acknowledged: None };
        if let Some(alarm) = state.alarms.get_mut(&self.id) {
            alarm.standings.insert(vm.id().into(), standing);
        }
        let health = worst(state.alarms.values().map(|alarm| alarm.status(vm.id())));
        if let Some(vm) = state.vms.get_mut(vm.id()) {
            vm.health = health;
        }
        drop(state);
        self.world.touch();
        Ok(())
    }

    /// Takes note of it for a machine, as a user.
    ///
    /// # Errors
    /// [`Error::NoSuch`] when it has not gone off there.
    pub fn acknowledge(&self, vm: &VmHandle, user: &str) -> Result<()> {
        let mut state = self.world.lock();
        let standing = state.alarms.get_mut(&self.id).and_then(|alarm| alarm.standings.get_mut(vm.id()));
        let standing = standing.filter(|standing| standing.has_gone_off());
        let standing = standing.ok_or_else(|| Error::NoSuch { what: "alarm gone off at", name: vm.id().into() })?;
        standing.acknowledged = Some((user.into(), DateTime::now()));
        drop(state);
        self.world.touch();
        Ok(())
    }
}

impl std::fmt::Debug for AlarmHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlarmHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An alarm as the server keeps it.
pub(crate) struct Alarm {
    id: String,
    name: String,
    /// Where it is set up. It watches what lies in that, too.
    entity: ManagedObjectReference,
    created: DateTime,
    /// The event that told of its making.
    event: i32,
    /// How its condition stands, by machine.
    standings: BTreeMap<String, Standing>,
}

/// How the condition stands for one machine.
struct Standing {
    status: ManagedEntityStatus,
    since: DateTime,
    event: Option<i32>,
    /// By whom and when.
    acknowledged: Option<(String, DateTime)>,
}

/// Sets an alarm up on an entity.
pub(crate) fn declare(world: &Arc<World>, entity: ManagedObjectReference, name: &str) -> Result<AlarmHandle> {
    // Hosts have no alarms: vCenter watches them.
    if world.personality() != crate::Personality::VCenter {
        return Err(Error::NoSuch { what: "alarm manager for", name: name.into() });
    }
    let mut state = world.lock();
    let id = format!("alarm-{}", state.next_serial());
    let mut alarm = Alarm {
        id: id.clone(),
        name: name.into(),
        entity: entity.clone(),
        created: DateTime::now(),
        event: 0,
        standings: BTreeMap::new(),
    };
    let told = Happened {
        kind: "AlarmCreatedEvent",
        user: world.settings.username.clone(),
        name: inventory::name(world, &state, &entity).unwrap_or_default(),
        about: entity,
        message: format!("Created alarm '{name}'"),
        chain: None,
        fields: vec![alarm.argument()],
    };
    alarm.event = state.record(world, told);
    state.alarms.insert(id.clone(), alarm);
    drop(state);
    world.touch();
    Ok(AlarmHandle { world: world.clone(), id })
}

/// `declaredAlarmState`: how all alarms stand that watch an entity.
pub(crate) fn declared(world: &World, state: &State, entity: &ManagedObjectReference) -> Vec<AlarmState> {
    let watching = state.alarms.values().filter(|alarm| alarm.watches(world, state, entity));
    watching.map(|alarm| alarm.state(entity)).collect()
}

/// `triggeredAlarmState`: the alarms that have gone off at an entity and at what lies in it.
pub(crate) fn triggered(world: &World, state: &State, entity: &ManagedObjectReference) -> Vec<AlarmState> {
    let inside = |vm: &ManagedObjectReference| {
        vm == entity || inventory::ancestors(world, state, vm).iter().any(|above| above == entity)
    };
    let mut found = Vec::new();
    for alarm in state.alarms.values() {
        let gone_off = alarm.standings.iter().filter(|(_, standing)| standing.has_gone_off());
        // A machine that has left the inventory has taken its alarms with it.
        let vms = gone_off.filter_map(|(vm, _)| state.vms.get(vm)).map(|vm| vm.reference());
        found.extend(vms.filter(inside).map(|vm| alarm.state(&vm)));
    }
    found
}

/// Alarms that are set up on an entity itself; all for `None`.
pub(crate) fn set_up_on(state: &State, entity: Option<&ManagedObjectReference>) -> Vec<ManagedObjectReference> {
    let wanted = state.alarms.values().filter(|alarm| entity.is_none_or(|entity| alarm.entity == *entity));
    wanted.map(Alarm::reference).collect()
}

impl Alarm {
    fn reference(&self) -> ManagedObjectReference {
        ManagedObjectReference::of("Alarm", &self.id)
    }

    fn watches(&self, world: &World, state: &State, entity: &ManagedObjectReference) -> bool {
        self.entity == *entity || inventory::ancestors(world, state, entity).contains(&self.entity)
    }

    /// Unknown until somebody has said it.
    fn status(&self, vm: &str) -> ManagedEntityStatus {
        self.standings.get(vm).map_or(ManagedEntityStatus::Gray, |standing| standing.status.clone())
    }

    fn state(&self, entity: &ManagedObjectReference) -> AlarmState {
        let standing = self.standings.get(entity.value());
        let acknowledged = standing.and_then(|standing| standing.acknowledged.clone());
        AlarmState {
            key: format!("{}.{}", self.id, entity.value()),
            entity: entity.cast(),
            alarm: self.reference().cast(),
            overall_status: self.status(entity.value()),
            time: standing.map_or(self.created, |standing| standing.since),
            acknowledged: Some(acknowledged.is_some()),
            acknowledged_time: acknowledged.as_ref().map(|(_, at)| *at),
            acknowledged_by_user: acknowledged.map(|(user, _)| user),
            event_key: standing.and_then(|standing| standing.event),
            ..Default::default()
        }
    }

    /// `AlarmInfo`, whose types the model does not have.
    pub(crate) fn info(&self, world: &World) -> Any {
        let text = |name: &str, text: &str| Element::new(name, text).with_type("xsd:string");
        let reference = |name: &str, to: &ManagedObjectReference| {
            Element::new(name, to.value()).with_type("ManagedObjectReference").with_attribute("type", to.type_name())
        };
        let expression = Element::new("expression", "")
            .with_type("EventAlarmExpression")
            .with_child(Element::new("eventType", "EventEx"))
            .with_child(Element::new("eventTypeId", "vsphere-sim.said"))
            .with_child(Element::new("objectType", "VirtualMachine"));
        let info = Element::new("info", "")
            .with_type("AlarmInfo")
            .with_child(text("name", &self.name))
            .with_child(text("description", ""))
            .with_child(Element::new("enabled", "true").with_type("xsd:boolean"))
            .with_child(expression)
            .with_child(text("key", &self.id))
            .with_child(reference("alarm", &self.reference()))
            .with_child(reference("entity", &self.entity))
            .with_child(Element::new("lastModifiedTime", &self.created.to_string()).with_type("xsd:dateTime"))
            .with_child(text("lastModifiedUser", &world.settings.username))
            .with_child(Element::new("creationEventId", &self.event.to_string()).with_type("xsd:int"));
        Any::Dynamic(info)
    }

    /// The alarm as events name it.
    fn argument(&self) -> Element {
        let reference = Element::new("alarm", &self.id).with_attribute("type", "Alarm");
        Element::new("alarm", "").with_child(Element::new("name", &self.name)).with_child(reference)
    }
}

impl Standing {
    fn has_gone_off(&self) -> bool {
        matches!(self.status, ManagedEntityStatus::Yellow | ManagedEntityStatus::Red)
    }
}

/// The health of an entity whose alarms stand like this.
fn worst(standings: impl Iterator<Item = ManagedEntityStatus>) -> ManagedEntityStatus {
    standings.fold(ManagedEntityStatus::Green, |worst, next| match (&worst, &next) {
        (_, ManagedEntityStatus::Red) | (ManagedEntityStatus::Green, ManagedEntityStatus::Yellow) => next,
        _ => worst,
    })
}
