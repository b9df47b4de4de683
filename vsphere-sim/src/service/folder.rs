//! Folder: VMs and folders, made, registered, moved.

use std::sync::Arc;

use vsphere_vim_types::methods::{
    CreateFolder, CreateVM_Task, Destroy_Task, MoveIntoFolder_Task, RegisterVM_Task, Rename_Task,
};
use vsphere_vim_types::{Any, ManagedObjectReference, MoRef, mo};

use crate::Fault;
use crate::inventory::container::{self, is_vm_folder};
use crate::inventory::{self, Container};
use crate::personality::Fixed;
use crate::vm::create;
use crate::world::World;

use super::{Call, Reply, start_task_on};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    let this = call.this().clone();
    match call.request.method {
        "CreateVM_Task" => {
            let args: CreateVM_Task = call.args()?;
            let parent = destination(call, Some(&args.pool))?;
            start_task_on::<CreateVM_Task>(call, this, name(call)?, Arc::default(), move |world| {
                let id = create::create(world, parent, &args.config)?;
                Ok(Any::MoRef(ManagedObjectReference::of("VirtualMachine", &id)))
            })
        }
        "RegisterVM_Task" => {
            let args: RegisterVM_Task = call.args()?;
            match (args.as_template, &args.pool, &args.host) {
                (true, None, None) => return Err(Fault::invalid_argument("host")),
                (true, Some(_), _) | (false, None, _) => return Err(Fault::invalid_argument("pool")),
                _ => {}
            }
            let parent = destination(call, args.pool.as_ref())?;
            start_task_on::<RegisterVM_Task>(call, this, name(call)?, Arc::default(), move |world| {
                let id = create::register(world, parent, &args.path, args.name.as_deref(), args.as_template)?;
                Ok(Any::MoRef(ManagedObjectReference::of("VirtualMachine", &id)))
            })
        }
        "CreateFolder" => {
            let args: CreateFolder = call.args()?;
            let made = container::create_folder(call.world, &this, &args.name)?;
            call.world.touch();
            Ok(call.reply::<CreateFolder>(&made.cast()))
        }
        "MoveIntoFolder_Task" => {
            let args: MoveIntoFolder_Task = call.args()?;
            let list: Vec<_> = args.list.iter().map(MoRef::erase).collect();
            start_task_on::<MoveIntoFolder_Task>(call, this.clone(), name(call)?, Arc::default(), move |world| {
                container::move_into(world, &this, &list).map(|()| Any::Null)
            })
        }
        "Rename_Task" => {
            let args: Rename_Task = call.args()?;
            rename(call, args.new_name)
        }
        "Destroy_Task" => {
            start_task_on::<Destroy_Task>(call, this.clone(), name(call)?, Arc::default(), move |world| {
                destroy_container(world, &this).map(|()| Any::Null)
            })
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

/// `Rename_Task` of a folder or vApp that a client made.
pub(super) fn rename(call: &Call<'_>, new: String) -> Result<Reply, Fault> {
    let this = call.this().clone();
    start_task_on::<Rename_Task>(call, this.clone(), name(call)?, Arc::default(), move |world| {
        let mut state = world.lock();
        let container = state.containers.get(this.value());
        let folder = container.ok_or_else(|| Fault::not_supported("renaming what is always there"))?.folder.clone();
        container::check_name(&state, &folder, &new, Some(&this))?;
        if let Some(container) = state.containers.get_mut(this.value()) {
            container.name = new;
        }
        Ok(Any::Null)
    })
}

/// A folder or vApp with everything in it; nothing of it when a VM in it runs.
pub(super) fn destroy_container(world: &World, object: &ManagedObjectReference) -> Result<(), Fault> {
    let (vms, containers) = {
        let state = world.lock();
        if !state.containers.contains_key(object.value()) {
            return Err(Fault::not_supported("destroying what is always there"));
        }
        let mut containers = vec![object.clone()];
        let mut vms = Vec::new();
        // Grows while it is walked: what is in folders in the folder follows.
        let mut at = 0;
        while let Some(next) = containers.get(at).cloned() {
            for child in inventory::children(world, &state, &next) {
                if child.type_name() == "VirtualMachine" { vms.push(child) } else { containers.push(child) }
            }
            at += 1;
        }
        let runs = |vm: &&ManagedObjectReference| {
            state.vms.get(vm.value()).is_some_and(|vm| vm.power != crate::vm::Power::Off)
        };
        if let Some(running) = vms.iter().find(runs) {
            let power = state.vms.get(running.value()).map_or("", |vm| vm.power.as_str());
            return Err(Fault::power_state(Some("poweredOff"), power));
        }
        (vms, containers)
    };
    for vm in vms {
        create::destroy(world, vm.value())?;
    }
    let mut state = world.lock();
    for container in containers {
        state.containers.remove(container.value());
    }
    Ok(())
}

/// Where a new VM goes: into this folder, or into the vApp that is named as its pool.
fn destination(call: &Call<'_>, pool: Option<&MoRef<mo::ResourcePool>>) -> Result<ManagedObjectReference, Fault> {
    let state = call.world.lock();
    if !is_vm_folder(call.world, &state, call.this()) {
        return Err(Fault::not_supported("this folder holds no virtual machines"));
    }
    let Some(pool) = pool.map(MoRef::erase) else { return Ok(call.this().clone()) };
    let is_vapp = |container: &Container| !container.is_folder() && container.reference() == pool;
    if state.containers.get(pool.value()).is_some_and(is_vapp) {
        return Ok(pool);
    }
    if pool != call.world.fixed(Fixed::ResourcePool) {
        return Err(Fault::invalid_argument("pool"));
    }
    Ok(call.this().clone())
}

/// What the object of a call is called.
pub(super) fn name(call: &Call<'_>) -> Result<String, Fault> {
    let name = inventory::name(call.world, &call.world.lock(), call.this());
    name.ok_or_else(|| Fault::not_found(call.this()))
}
