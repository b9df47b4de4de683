//! Folder: creating virtual machines.

use std::sync::Arc;

use vsphere_vim_types::methods::CreateVM_Task;
use vsphere_vim_types::{Any, ManagedObjectReference};

use crate::Fault;
use crate::personality::Fixed;
use crate::vm::create;

use super::{Call, Reply, start_task_on};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "CreateVM_Task" => {
            let args: CreateVM_Task = call.args()?;
            if *call.this() != call.world.fixed(Fixed::VmFolder) {
                return Err(Fault::not_supported("this folder holds no virtual machines"));
            }
            if args.pool.as_untyped() != &call.world.fixed(Fixed::ResourcePool) {
                return Err(Fault::invalid_argument("pool"));
            }
            let name = call.world.personality().name(Fixed::VmFolder).to_owned();
            start_task_on::<CreateVM_Task>(call, call.this().clone(), name, Arc::default(), move |world| {
                let id = create::create(world, &args.config)?;
                Ok(Any::MoRef(ManagedObjectReference::of("VirtualMachine", &id)))
            })
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}
