//! The managed objects: which exist, what they contain, what their properties are.

pub(crate) mod container;
pub(crate) mod fixed;
mod schema;

use vsphere_vim_types::{Any, ManagedObjectReference, mo};

use crate::alarm::{self, Alarm};
use crate::collector::{Collector, Filter};
use crate::personality::Fixed;
use crate::service::EventCollector;
use crate::task::Task;
use crate::view::View;
use crate::vm::{self, Snapshot, Vm};
use crate::world::{State, World};

pub(crate) use container::{Container, ContainerKind};
pub(crate) use schema::{check_path, property_names};

/// A managed object that exists.
pub(crate) enum Object<'a> {
    Fixed(Fixed),
    Vm(&'a Vm),
    Snapshot(&'a Vm, &'a Snapshot),
    Task(&'a Task),
    Lease(&'a crate::lease::Lease),
    /// A folder or vApp that a client made.
    Container(&'a Container),
    /// A view of the session.
    View(&'a View),
    /// A property collector of the session.
    Collector(&'a Collector),
    /// A filter of one.
    Filter(&'a Filter),
    Alarm(&'a Alarm),
    /// An event collector of the session.
    EventCollector(&'a EventCollector),
}

/// Whether the managed type `name` is `ancestor` or extends it.
pub(crate) fn is_a(name: &str, ancestor: &str) -> bool {
    name == ancestor || ancestor == "ManagedObject" || mo::bases(name).contains(&ancestor)
}

/// Finds an object as the session `session` sees it.
pub(crate) fn find<'a>(
    world: &World,
    state: &'a State,
    session: Option<&str>,
    object: &ManagedObjectReference,
) -> Option<Object<'a>> {
    let id = object.value();
    match object.type_name() {
        "VirtualMachine" => state.vms.get(id).map(Object::Vm),
        "VirtualMachineSnapshot" => {
            let vm = state.vm_of_snapshot(id)?;
            vm.snapshots.get(id).map(|snapshot| Object::Snapshot(vm, snapshot))
        }
        "HttpNfcLease" => state.leases.get(id).map(Object::Lease),
        "Alarm" => state.alarms.get(id).map(Object::Alarm),
        "Task" => state.tasks.get(id).map(Object::Task),
        _ => {
            if let Some(fixed) = world.personality().find(object) {
                return Some(Object::Fixed(fixed));
            }
            if let Some(container) = state.containers.get(id).filter(|container| container.reference() == *object) {
                return Some(Object::Container(container));
            }
            let session = state.sessions.get(session?)?;
            if let Some(view) = session.views.get(id) {
                return Some(Object::View(view));
            }
            if let Some(collector) = session.event_collectors.get(id) {
                return Some(Object::EventCollector(collector));
            }
            let collector = session.collectors.get(id).map(Object::Collector);
            collector
                .or_else(|| session.collectors.values().find_map(|collector| collector.filter(id)).map(Object::Filter))
        }
    }
}

/// The inventory objects directly inside `object`.
pub(crate) fn children(world: &World, state: &State, object: &ManagedObjectReference) -> Vec<ManagedObjectReference> {
    let fixed = |list: &[Fixed]| list.iter().map(|one| world.fixed(*one)).collect();
    match world.personality().find(object) {
        Some(Fixed::RootFolder) => fixed(&[Fixed::Datacenter]),
        Some(Fixed::Datacenter) => {
            fixed(&[Fixed::VmFolder, Fixed::HostFolder, Fixed::DatastoreFolder, Fixed::NetworkFolder])
        }
        Some(Fixed::VmFolder) => container::inside(state, object),
        Some(Fixed::HostFolder) => fixed(&[Fixed::ComputeResource]),
        Some(Fixed::DatastoreFolder) => fixed(&[Fixed::Datastore]),
        Some(Fixed::NetworkFolder) => fixed(&[Fixed::Network]),
        Some(Fixed::ComputeResource) => fixed(&[Fixed::ResourcePool, Fixed::Host]),
        Some(_) => Vec::new(),
        None => match state.containers.get(object.value()) {
            Some(own) if own.is_folder() => container::inside(state, object),
            Some(_) => container::vms_in(state, object).into_iter().chain(container::vapps_of(state, object)).collect(),
            None => Vec::new(),
        },
    }
}

/// The folder, datacenter or resource that contains `object` in the inventory tree.
pub(crate) fn parent(world: &World, state: &State, object: &ManagedObjectReference) -> Option<ManagedObjectReference> {
    let parent = match world.personality().find(object) {
        Some(Fixed::Datacenter) => Fixed::RootFolder,
        Some(Fixed::VmFolder | Fixed::HostFolder | Fixed::DatastoreFolder | Fixed::NetworkFolder) => Fixed::Datacenter,
        Some(Fixed::ComputeResource) => Fixed::HostFolder,
        Some(Fixed::Host | Fixed::ResourcePool) => Fixed::ComputeResource,
        Some(Fixed::Datastore) => Fixed::DatastoreFolder,
        Some(Fixed::Network) => Fixed::NetworkFolder,
        Some(_) => return None,
        None if object.type_name() == "VirtualMachine" => return Some(state.vms.get(object.value())?.parent.clone()),
        None => return Some(state.containers.get(object.value())?.parent().clone()),
    };
    Some(world.fixed(parent))
}

/// What contains `object` in the inventory tree, the nearest first.
pub(crate) fn ancestors(world: &World, state: &State, object: &ManagedObjectReference) -> Vec<ManagedObjectReference> {
    std::iter::successors(parent(world, state, object), |at| parent(world, state, at)).collect()
}

/// The name of an inventory object.
pub(crate) fn name(world: &World, state: &State, object: &ManagedObjectReference) -> Option<String> {
    match world.personality().find(object) {
        Some(fixed) => Some(world.personality().name(fixed).to_owned()),
        None => match state.vms.get(object.value()) {
            Some(vm) => Some(vm.name().to_owned()),
            None => state.containers.get(object.value()).map(|container| container.name.clone()),
        },
    }
}

/// Every VM.
pub(crate) fn vms(state: &State) -> Vec<ManagedObjectReference> {
    state.vms.values().map(Vm::reference).collect()
}

/// Whether reading the object's properties is denied, for itself or for what contains it.
pub(crate) fn denied(world: &World, state: &State, object: &ManagedObjectReference) -> bool {
    let denied = |at: &ManagedObjectReference| state.denied.contains(at);
    denied(object) || ancestors(world, state, object).iter().any(denied)
}

/// The value of a top-level property of an object that exists; `Null` where it is unset.
pub(crate) fn property(
    world: &World,
    state: &State,
    session: Option<&str>,
    reference: &ManagedObjectReference,
    object: &Object<'_>,
    name: &str,
) -> Any {
    if let Some(value) = entity_property(world, state, reference, name) {
        return value;
    }
    match object {
        Object::Fixed(fixed) => fixed::property(world, state, session, *fixed, name),
        Object::Vm(vm) => vm_property(world, vm, name),
        Object::Snapshot(vm, snapshot) => snapshot_property(world, vm, snapshot, name),
        Object::Lease(lease) => lease_property(world, lease, name),
        Object::Container(container) => container.property(world, state, name),
        Object::Task(task) if name == "info" => Any::of(&task.to_wire()),
        Object::View(view) => match name {
            "view" => references(view.members(world, state)),
            "container" => Any::MoRef(view.container.clone()),
            "type" => Any::of(&view.types),
            "recursive" => Any::Bool(view.recursive),
            _ => Any::Null,
        },
        Object::Collector(collector) if name == "filter" => collector.filter_references(),
        Object::Filter(filter) => match name {
            "spec" => Any::of(&*filter.spec),
            "partialUpdates" => Any::Bool(filter.partial),
            _ => Any::Null,
        },
        Object::Alarm(alarm) if name == "info" => alarm.info(world),
        Object::EventCollector(collector) => match name {
            "filter" => Any::of(&collector.filter),
            "latestPage" => Any::of(&collector.latest_page(&state.events)),
            _ => Any::Null,
        },
        Object::Task(_) | Object::Collector(_) | Object::Alarm(_) => Any::Null,
    }
}

/// An `ArrayOfManagedObjectReference`; unset when empty.
pub(crate) fn references(list: Vec<ManagedObjectReference>) -> Any {
    if list.is_empty() {
        return Any::Null;
    }
    Any::Array { item: "ManagedObjectReference".into(), items: list.into_iter().map(Any::MoRef).collect() }
}

/// What every inventory object has.
fn entity_property(world: &World, state: &State, object: &ManagedObjectReference, property: &str) -> Option<Any> {
    if !is_a(object.type_name(), "ManagedEntity") {
        return None;
    }
    Some(match property {
        "name" => name(world, state, object).map_or(Any::Null, Any::String),
        // A VM in a vApp has no folder; parentVApp names what it has.
        "parent" => parent(world, state, object)
            .filter(|parent| object.type_name() != "VirtualMachine" || parent.type_name() != "VirtualApp")
            .map_or(Any::Null, Any::MoRef),
        "overallStatus" if let Some(vm) = state.vms.get(object.value()) => Any::of(&vm.health),
        "overallStatus" | "configStatus" => Any::Enum { type_name: "ManagedEntityStatus", value: "green".into() },
        "effectiveRole" => Any::Array { item: "int".into(), items: vec![Any::Int(-1)] },
        "recentTask" => references(
            state
                .tasks
                .values()
                .filter(|task| task.entity() == object && !task.is_done())
                .map(Task::reference)
                .collect(),
        ),
        "disabledMethod" => match state.vms.get(object.value()) {
            Some(vm) => {
                let methods: std::collections::BTreeSet<_> =
                    vm.disabled.keys().map(|(_, method)| method.clone()).collect();
                Any::of(&methods.into_iter().collect::<Vec<String>>())
            }
            None => Any::Null,
        },
        "declaredAlarmState" => Any::of(&alarm::declared(world, state, object)),
        "triggeredAlarmState" => Any::of(&alarm::triggered(world, state, object)),
        "alarmActionsEnabled" => Any::Bool(true),
        _ => return None,
    })
}

fn vm_property(world: &World, vm: &Vm, name: &str) -> Any {
    let fixed = |object| references(vec![world.fixed(object)]);
    match name {
        "capability" => Any::of(&vm::config::capability(vm)),
        "config" => Any::of(&vm::config::config(world, vm, None)),
        "layoutEx" => Any::of(&vm::files::layout(world, vm)),
        "runtime" => Any::of(&vm::summary::runtime(world, vm)),
        "guest" => Any::of(&vm::summary::guest(vm)),
        "summary" => Any::of(&vm::summary::summary(world, vm)),
        "guestHeartbeatStatus" => Any::of(&vm::summary::heartbeat(vm)),
        "snapshot" => vm::snapshot::info(vm).as_ref().map_or(Any::Null, Any::of),
        "rootSnapshot" => references(vm::snapshot::children(vm, None).into_iter().map(Snapshot::reference).collect()),
        "resourcePool" if vm.template => Any::Null,
        "resourcePool" | "parentVApp" if vm.parent.type_name() == "VirtualApp" => Any::MoRef(vm.parent.clone()),
        "resourcePool" => Any::MoRef(world.fixed(Fixed::ResourcePool)),
        "datastore" => fixed(Fixed::Datastore),
        "network" => fixed(Fixed::Network),
        _ => Any::Null,
    }
}

fn lease_property(world: &World, lease: &crate::lease::Lease, name: &str) -> Any {
    match name {
        "state" => Any::of(&lease.state()),
        "info" => lease.info(world).as_ref().map_or(Any::Null, Any::of),
        "error" => lease.error().map_or(Any::Null, |fault| Any::of(&fault.localized())),
        "initializeProgress" => Any::Int(if lease.is_held() { 100 } else { 0 }),
        "transferProgress" => Any::Int(lease.percent),
        "mode" => Any::String("pushOrGet".into()),
        _ => Any::Null,
    }
}

fn snapshot_property(world: &World, vm: &Vm, snapshot: &Snapshot, name: &str) -> Any {
    match name {
        "config" => Any::of(&vm::config::config(world, vm, Some(snapshot))),
        "childSnapshot" => {
            references(vm::snapshot::children(vm, Some(&snapshot.id)).into_iter().map(Snapshot::reference).collect())
        }
        "vm" => Any::MoRef(vm.reference()),
        _ => Any::Null,
    }
}
