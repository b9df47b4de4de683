//! VirtualMachine and VirtualMachineSnapshot.

use vsphere_vim_types::methods::{
    CloneVM_Task, ConsolidateVMDisks_Task, CreateSnapshot_Task, CreateSnapshotEx_Task, Destroy_Task, MarkAsTemplate,
    MarkAsVirtualMachine, PowerOffVM_Task, PowerOnVM_Task, QueryChangedDiskAreas, RebootGuest, ReconfigVM_Task,
    RelocateVM_Task, RemoveAllSnapshots_Task, RemoveSnapshot_Task, Rename_Task, RenameSnapshot, ResetVM_Task,
    RevertToCurrentSnapshot_Task, RevertToSnapshot_Task, ShutdownGuest, SuspendVM_Task, UnregisterVM, UpgradeVM_Task,
};
use vsphere_vim_types::{Any, ManagedObjectReference, Method, MoRef, VirtualMachineConfigSpec, mo};

use crate::Fault;
use crate::personality::Fixed;
use crate::vm::create;
use crate::vm::lifecycle;
use crate::vm::operate::{self, PowerOperation};
use crate::vm::reconfigure::reconfigure;
use crate::vm::snapshot::{self, NewSnapshot};

use super::{Call, Reply, start_task};

pub(super) async fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    if call.this().type_name() == "VirtualMachineSnapshot" {
        return on_snapshot(call);
    }
    let vm = call.this().value().to_owned();
    match call.request.method {
        "CreateSnapshot_Task" => {
            let args: CreateSnapshot_Task = call.args()?;
            let wanted = NewSnapshot {
                name: args.name,
                description: args.description.unwrap_or_default(),
                quiesce: args.quiesce,
                memory: args.memory,
            };
            create_snapshot::<CreateSnapshot_Task>(call, &vm, wanted)
        }
        "CreateSnapshotEx_Task" => {
            let args: CreateSnapshotEx_Task = call.args()?;
            let wanted = NewSnapshot {
                name: args.name,
                description: args.description.unwrap_or_default(),
                quiesce: args.quiesce_spec.is_some(),
                memory: args.memory,
            };
            create_snapshot::<CreateSnapshotEx_Task>(call, &vm, wanted)
        }
        "RemoveAllSnapshots_Task" => {
            let args: RemoveAllSnapshots_Task = call.args()?;
            let id = vm.clone();
            start_task::<RemoveAllSnapshots_Task>(call, &vm, move |world| {
                snapshot::remove_all(world, &id, args.consolidate.unwrap_or(true)).map(|()| Any::Null)
            })
        }
        "RevertToCurrentSnapshot_Task" => {
            let args: RevertToCurrentSnapshot_Task = call.args()?;
            let id = vm.clone();
            start_task::<RevertToCurrentSnapshot_Task>(call, &vm, move |world| {
                let current = world.lock().vms.get(&id).and_then(|vm| vm.current_snapshot.clone());
                let current =
                    current.ok_or_else(|| Fault::new("NotFound", "The virtual machine has no current snapshot"))?;
                snapshot::revert(world, &current, args.suppress_power_on == Some(true)).map(|()| Any::Null)
            })
        }
        "ConsolidateVMDisks_Task" => {
            let id = vm.clone();
            start_task::<ConsolidateVMDisks_Task>(call, &vm, move |world| {
                let stores = world.lock().vms.get(&id).map(|vm| vm.all_stores()).unwrap_or_default();
                snapshot::merge(&stores)?;
                // Explicitly asked for, a consolidation that something blocks is an error.
                match stores.iter().find(|store| store.needs_consolidation()) {
                    Some(blocked) => {
                        Err(Fault::file_locked(blocked.paths(blocked.current()).last().map_or("", String::as_str)))
                    }
                    None => Ok(Any::Null),
                }
            })
        }
        "ReconfigVM_Task" => {
            let args: ReconfigVM_Task = call.args()?;
            let id = vm.clone();
            start_task::<ReconfigVM_Task>(call, &vm, move |world| {
                reconfigure(world, &id, &args.spec).map(|()| Any::Null)
            })
        }
        "Rename_Task" => {
            let args: Rename_Task = call.args()?;
            let id = vm.clone();
            let spec = VirtualMachineConfigSpec { name: Some(args.new_name), ..Default::default() };
            start_task::<Rename_Task>(call, &vm, move |world| reconfigure(world, &id, &spec).map(|()| Any::Null))
        }
        "ExportVm" => super::lease::export_vm(call),
        "PowerOnVM_Task" => power::<PowerOnVM_Task>(call, &vm, PowerOperation::On),
        "PowerOffVM_Task" => power::<PowerOffVM_Task>(call, &vm, PowerOperation::Off),
        "SuspendVM_Task" => power::<SuspendVM_Task>(call, &vm, PowerOperation::Suspend),
        "ResetVM_Task" => power::<ResetVM_Task>(call, &vm, PowerOperation::Reset),
        "Destroy_Task" => {
            let id = vm.clone();
            start_task::<Destroy_Task>(call, &vm, move |world| create::destroy(world, &id).map(|()| Any::Null))
        }
        "UnregisterVM" => {
            create::unregister(call.world, &vm)?;
            call.world.touch();
            Ok(call.reply::<UnregisterVM>(&()))
        }
        "QueryChangedDiskAreas" => changed_areas(call, vm).await,
        "RelocateVM_Task" => {
            let args: RelocateVM_Task = call.args()?;
            let id = vm.clone();
            start_task::<RelocateVM_Task>(call, &vm, move |world| {
                lifecycle::relocate(world, &id, &args.spec).map(|()| Any::Null)
            })
        }
        "CloneVM_Task" => {
            let args: CloneVM_Task = call.args()?;
            let id = vm.clone();
            start_task::<CloneVM_Task>(call, &vm, move |world| {
                let copy = lifecycle::clone(world, &id, args.folder.as_untyped(), &args.name, &args.spec)?;
                Ok(Any::MoRef(ManagedObjectReference::of("VirtualMachine", &copy)))
            })
        }
        "UpgradeVM_Task" => {
            let args: UpgradeVM_Task = call.args()?;
            let id = vm.clone();
            start_task::<UpgradeVM_Task>(call, &vm, move |world| {
                lifecycle::upgrade(world, &id, args.version.as_deref()).map(|()| Any::Null)
            })
        }
        "MarkAsTemplate" => {
            lifecycle::mark_as_template(call.world, &vm)?;
            call.world.touch();
            Ok(call.reply::<MarkAsTemplate>(&()))
        }
        "MarkAsVirtualMachine" => {
            let args: MarkAsVirtualMachine = call.args()?;
            if args.pool.as_untyped() != &call.world.fixed(Fixed::ResourcePool) {
                return Err(Fault::invalid_argument("pool"));
            }
            lifecycle::mark_as_vm(call.world, &vm)?;
            call.world.touch();
            Ok(call.reply::<MarkAsVirtualMachine>(&()))
        }
        "ShutdownGuest" => {
            lifecycle::ask_guest(call.world, &vm, false)?;
            Ok(call.reply::<ShutdownGuest>(&()))
        }
        "RebootGuest" => {
            lifecycle::ask_guest(call.world, &vm, true)?;
            Ok(call.reply::<RebootGuest>(&()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn on_snapshot(call: &Call<'_>) -> Result<Reply, Fault> {
    let id = call.this().value().to_owned();
    let vm =
        call.world.lock().vm_of_snapshot(&id).map(|vm| vm.id.clone()).ok_or_else(|| Fault::not_found(call.this()))?;
    match call.request.method {
        "RemoveSnapshot_Task" => {
            let args: RemoveSnapshot_Task = call.args()?;
            start_task::<RemoveSnapshot_Task>(call, &vm, move |world| {
                snapshot::remove(world, &id, args.remove_children, args.consolidate.unwrap_or(true)).map(|()| Any::Null)
            })
        }
        "ExportSnapshot" => super::lease::export_snapshot(call),
        "RevertToSnapshot_Task" => {
            let args: RevertToSnapshot_Task = call.args()?;
            start_task::<RevertToSnapshot_Task>(call, &vm, move |world| {
                snapshot::revert(world, &id, args.suppress_power_on == Some(true)).map(|()| Any::Null)
            })
        }
        "RenameSnapshot" => {
            let args: RenameSnapshot = call.args()?;
            let mut state = call.world.lock();
            let snapshot = state
                .vms
                .get_mut(&vm)
                .and_then(|vm| vm.snapshots.get_mut(&id))
                .ok_or_else(|| Fault::not_found(call.this()))?;
            if let Some(name) = args.name {
                snapshot.name = name;
            }
            if let Some(description) = args.description {
                snapshot.description = description;
            }
            drop(state);
            call.world.touch();
            Ok(call.reply::<RenameSnapshot>(&()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn create_snapshot<M: Method<Output = MoRef<mo::Task>>>(
    call: &Call<'_>,
    vm: &str,
    wanted: NewSnapshot,
) -> Result<Reply, Fault> {
    let id = vm.to_owned();
    start_task::<M>(call, vm, move |world| {
        let snapshot = snapshot::create(world, &id, wanted)?;
        Ok(Any::MoRef(ManagedObjectReference::of("VirtualMachineSnapshot", &snapshot)))
    })
}

fn power<M: Method<Output = MoRef<mo::Task>>>(
    call: &Call<'_>,
    vm: &str,
    operation: PowerOperation,
) -> Result<Reply, Fault> {
    let id = vm.to_owned();
    start_task::<M>(call, vm, move |world| operate::power(world, &id, operation).map(|()| Any::Null))
}

async fn changed_areas(call: &Call<'_>, vm: String) -> Result<Reply, Fault> {
    let args: QueryChangedDiskAreas = call.args()?;
    let world = call.world.clone();
    let snapshot = args.snapshot.map(|snapshot| snapshot.as_untyped().clone());
    if let Some(snapshot) = &snapshot
        && call.world.lock().vm_of_snapshot(snapshot.value()).is_none()
    {
        return Err(Fault::not_found(snapshot));
    }
    let work = move || {
        let snapshot = snapshot.as_ref().map(|snapshot| snapshot.value());
        operate::changed_areas(&world, &vm, snapshot, args.device_key, args.start_offset, &args.change_id)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let info = done.map_err(|error| {
        Fault::new("SystemError", "A general system error occurred").field("reason", &error.to_string())
    })??;
    Ok(call.reply::<QueryChangedDiskAreas>(&info))
}
