//! ResourcePool and VirtualApp: vApps and the VMs in them.

use std::sync::Arc;

use vsphere_vim_types::methods::{CreateChildVM_Task, CreateVApp, Destroy_Task, RegisterChildVM_Task, Rename_Task};
use vsphere_vim_types::{Any, ManagedObjectReference, MoRef};

use crate::Fault;
use crate::inventory::container::{check_name, is_vm_folder};
use crate::inventory::{Container, ContainerKind};
use crate::personality::{Fixed, Personality};
use crate::vm::create;

use super::{Call, Reply, start_task_on};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "CreateVApp" => create_vapp(call),
        "CreateChildVM_Task" => {
            let args: CreateChildVM_Task = call.args()?;
            let parent = only_vapp(call)?;
            let name = super::folder::name(call)?;
            start_task_on::<CreateChildVM_Task>(call, call.this().clone(), name, Arc::default(), move |world| {
                let id = create::create(world, parent, &args.config)?;
                Ok(Any::MoRef(ManagedObjectReference::of("VirtualMachine", &id)))
            })
        }
        "RegisterChildVM_Task" => {
            let args: RegisterChildVM_Task = call.args()?;
            let parent = only_vapp(call)?;
            let name = super::folder::name(call)?;
            start_task_on::<RegisterChildVM_Task>(call, call.this().clone(), name, Arc::default(), move |world| {
                let id = create::register(world, parent, &args.path, args.name.as_deref(), false)?;
                Ok(Any::MoRef(ManagedObjectReference::of("VirtualMachine", &id)))
            })
        }
        "Destroy_Task" => {
            only_vapp(call)?;
            let (name, this) = (super::folder::name(call)?, call.this().clone());
            start_task_on::<Destroy_Task>(call, this.clone(), name, Arc::default(), move |world| {
                super::folder::destroy_container(world, &this).map(|()| Any::Null)
            })
        }
        "Rename_Task" => {
            only_vapp(call)?;
            let args: Rename_Task = call.args()?;
            super::folder::rename(call, args.new_name)
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn create_vapp(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: CreateVApp = call.args()?;
    if call.world.personality() != Personality::VCenter {
        return Err(Fault::not_supported("a host without vCenter has no vApps to make"));
    }
    let mut state = call.world.lock();
    let nested = call.this().type_name() == "VirtualApp";
    // A vApp in a vApp is shown there, any other in a folder.
    let folder = match (&args.vm_folder, nested) {
        (None, true) => call.world.fixed(Fixed::VmFolder),
        (Some(folder), false) if is_vm_folder(call.world, &state, folder.as_untyped()) => folder.erase(),
        _ => return Err(Fault::invalid_argument("vmFolder")),
    };
    check_name(&state, if nested { call.this() } else { &folder }, &args.name, None)?;
    let id = format!("resgroup-v{}", state.next_serial());
    let kind = ContainerKind::VApp {
        pool: call.this().clone(),
        uuid: args.config_spec.instance_uuid.clone().unwrap_or_else(crate::ids::uuid),
        annotation: args.config_spec.annotation.clone().unwrap_or_default(),
        order: args.config_spec.entity_config.clone(),
    };
    state.containers.insert(id.clone(), Container { id: id.clone(), name: args.name, folder, kind });
    drop(state);
    call.world.touch();
    Ok(call.reply::<CreateVApp>(&MoRef::new(&id)))
}

/// The vApp that the call is on.
fn only_vapp(call: &Call<'_>) -> Result<ManagedObjectReference, Fault> {
    if call.this().type_name() == "VirtualApp" {
        return Ok(call.this().clone());
    }
    Err(Fault::not_supported("only vApps can be asked that"))
}
