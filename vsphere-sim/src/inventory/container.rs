//! Folders of VMs and vApps: what clients make to keep order.

use vsphere_vim_types::{Any, ManagedObjectReference, VAppConfigInfo, VAppEntityConfigInfo};

use crate::Fault;
use crate::personality::{Fixed, Personality};
use crate::world::{State, World};

use super::references;

/// A folder or vApp.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The folder that shows it.
    pub(crate) folder: ManagedObjectReference,
    pub(crate) kind: ContainerKind,
}

/// What a container is.
pub(crate) enum ContainerKind {
    Folder,
    VApp {
        /// The resource pool or vApp that it takes its resources from.
        pool: ManagedObjectReference,
        uuid: String,
        annotation: String,
        /// In which order its members start.
        order: Vec<VAppEntityConfigInfo>,
    },
}

impl Container {
    pub(crate) fn reference(&self) -> ManagedObjectReference {
        let kind = if self.is_folder() { "Folder" } else { "VirtualApp" };
        ManagedObjectReference::of(kind, &self.id)
    }

    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.kind, ContainerKind::Folder)
    }

    /// What contains it in the tree: a folder's folder, a vApp's pool.
    pub(super) fn parent(&self) -> &ManagedObjectReference {
        match &self.kind {
            ContainerKind::Folder => &self.folder,
            ContainerKind::VApp { pool, .. } => pool,
        }
    }

    /// A property other than those of every inventory object.
    pub(super) fn property(&self, world: &World, state: &State, name: &str) -> Any {
        let own = self.reference();
        match (&self.kind, name) {
            (ContainerKind::Folder, "childType") => Any::of(&CHILD_TYPES.map(str::to_owned).to_vec()),
            (ContainerKind::Folder, "childEntity") => references(inside(state, &own)),
            (ContainerKind::VApp { .. }, "vm") => references(vms_in(state, &own)),
            (ContainerKind::VApp { .. }, "resourcePool") => references(vapps_of(state, &own)),
            (ContainerKind::VApp { .. }, "parentFolder") => Any::MoRef(self.folder.clone()),
            (ContainerKind::VApp { .. }, "owner") => Any::MoRef(world.fixed(Fixed::ComputeResource)),
            (ContainerKind::VApp { pool, .. }, "parentVApp") if pool.type_name() == "VirtualApp" => {
                Any::MoRef(pool.clone())
            }
            (ContainerKind::VApp { uuid, annotation, order, .. }, "vAppConfig") => {
                let members = vms_in(state, &own).into_iter().chain(vapps_of(state, &own));
                let entry = |member: ManagedObjectReference| {
                    let set =
                        order.iter().find(|entry| entry.key.as_ref().is_some_and(|key| *key.as_untyped() == member));
                    set.cloned()
                        .unwrap_or_else(|| VAppEntityConfigInfo { key: Some(member.cast()), ..Default::default() })
                };
                Any::of(&VAppConfigInfo {
                    entity_config: members.map(entry).collect(),
                    annotation: annotation.clone(),
                    instance_uuid: Some(uuid.clone()),
                    ..Default::default()
                })
            }
            _ => Any::Null,
        }
    }
}

/// VMs and containers that a folder shows.
pub(super) fn inside(state: &State, folder: &ManagedObjectReference) -> Vec<ManagedObjectReference> {
    let containers = state.containers.values().filter(|container| container.folder == *folder);
    let nested = |container: &&Container| match &container.kind {
        ContainerKind::Folder => true,
        // A vApp within another is shown there.
        ContainerKind::VApp { pool, .. } => pool.type_name() != "VirtualApp",
    };
    vms_in(state, folder).into_iter().chain(containers.filter(nested).map(Container::reference)).collect()
}

/// VMs directly in a folder or vApp.
pub(super) fn vms_in(state: &State, container: &ManagedObjectReference) -> Vec<ManagedObjectReference> {
    state.vms.values().filter(|vm| vm.parent == *container).map(crate::vm::Vm::reference).collect()
}

/// vApps directly below a pool or vApp.
pub(super) fn vapps_of(state: &State, parent: &ManagedObjectReference) -> Vec<ManagedObjectReference> {
    let vapps = state.containers.values().filter(|container| !container.is_folder() && container.parent() == parent);
    vapps.map(Container::reference).collect()
}

/// Whether VMs can be put into it.
pub(crate) fn is_vm_folder(world: &World, state: &State, object: &ManagedObjectReference) -> bool {
    *object == world.fixed(Fixed::VmFolder)
        || state.containers.get(object.value()).is_some_and(|found| found.is_folder() && found.reference() == *object)
}

/// The name has to be one, and no other object in the container may have it.
pub(crate) fn check_name(
    state: &State,
    container: &ManagedObjectReference,
    name: &str,
    except: Option<&ManagedObjectReference>,
) -> Result<(), Fault> {
    if name.is_empty() || name.len() > 80 {
        return Err(Fault::new("InvalidName", "The name is empty or too long").field("name", name));
    }
    let mut others = inside(state, container);
    others.extend(vapps_of(state, container));
    let named = |object: &ManagedObjectReference| match state.vms.get(object.value()) {
        Some(vm) => vm.name() == name,
        None => state.containers.get(object.value()).is_some_and(|container| container.name == name),
    };
    match others.into_iter().find(|object| Some(object) != except && named(object)) {
        Some(other) => Err(Fault::new("DuplicateName", &format!("The name '{name}' already exists."))
            .field("name", name)
            .object_field("object", &other)),
        None => Ok(()),
    }
}

/// Makes a folder in a folder.
pub(crate) fn create_folder(
    world: &World,
    parent: &ManagedObjectReference,
    name: &str,
) -> Result<ManagedObjectReference, Fault> {
    let mut state = world.lock();
    if world.personality() != Personality::VCenter {
        return Err(Fault::not_supported("a host without vCenter has no folders to make"));
    }
    if !is_vm_folder(world, &state, parent) {
        return Err(Fault::not_supported("this folder holds no folders that can be made"));
    }
    check_name(&state, parent, name, None)?;
    let id = format!("group-v{}", state.next_serial());
    let made = Container { id: id.clone(), name: name.into(), folder: parent.clone(), kind: ContainerKind::Folder };
    let reference = made.reference();
    state.containers.insert(id, made);
    Ok(reference)
}

/// `MoveIntoFolder_Task`
pub(crate) fn move_into(
    world: &World,
    folder: &ManagedObjectReference,
    list: &[ManagedObjectReference],
) -> Result<(), Fault> {
    let mut state = world.lock();
    if !is_vm_folder(world, &state, folder) {
        return Err(Fault::not_supported("this folder holds no virtual machines"));
    }
    for object in list {
        let Some(name) = super::name(world, &state, object) else { return Err(Fault::not_found(object)) };
        check_name(&state, folder, &name, Some(object))?;
        if let Some(vm) = state.vms.get_mut(object.value()) {
            vm.parent = folder.clone();
            continue;
        }
        let within_itself = std::iter::successors(Some(folder.clone()), |at| super::parent(world, &state, at));
        if within_itself.take(MOST_LEVELS).any(|at| at == *object) {
            return Err(
                Fault::new("InvalidFolder", "A folder cannot be moved into itself").object_field("target", folder)
            );
        }
        match state.containers.get_mut(object.value()) {
            Some(container) => container.folder = folder.clone(),
            None => return Err(Fault::not_supported("moving what is always in its place")),
        }
    }
    Ok(())
}

/// What a folder of VMs may hold.
const CHILD_TYPES: [&str; 3] = ["Folder", "VirtualMachine", "VirtualApp"];

/// Levels that a tree of folders may have.
const MOST_LEVELS: usize = 1000;
