//! The storage lifecycle service at `/vslm/sdk`: its content, its tasks, its list of First Class Disks.

use vsphere_vim_types::{
    Any, MoRef, VslmAboutInfo, VslmServiceInstanceContent, VslmTaskInfo, VslmTaskInfoState, VslmTaskReason,
    VslmTaskReasonUser, VslmVsoVStorageObjectAssociations, VslmVsoVStorageObjectAssociationsVmDiskAssociation,
    VslmVsoVStorageObjectQueryResult, VslmVsoVStorageObjectQuerySpec, methods,
};
use vsphere_vim_types::{Poly, TaskReasonUser};

use crate::Fault;
use crate::fcd::{self, Fcd, Named};
use crate::personality::Fixed;
use crate::world::World;

use super::fcd as disks;
use super::fcd::handle_anywhere;
use super::{Call, Reply};

pub(super) async fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    let this = call.this();
    match (this.type_name(), this.value()) {
        ("VslmServiceInstance", "ServiceInstance") if call.request.method == "RetrieveContent" => {
            Ok(call.reply::<methods::RetrieveContent>(&content(call.world)))
        }
        ("VslmVStorageObjectManager", "VStorageObjectManager") => on_manager(call).await,
        ("VslmTask", _) => on_task(call),
        ("VslmServiceInstance", "ServiceInstance") => Err(Fault::method_not_found(this, call.request.method)),
        _ => Err(Fault::not_found(this)),
    }
}

fn content(world: &World) -> VslmServiceInstanceContent {
    let about = world.personality().about();
    VslmServiceInstanceContent {
        about_info: VslmAboutInfo {
            name: "VMware Virtual Storage Lifecycle Manager Service".into(),
            full_name: format!("Virtual Storage Lifecycle Manager, {}", about.full_name),
            vendor: about.vendor,
            api_version: about.api_version,
            instance_uuid: about.instance_uuid.unwrap_or_default(),
            ..Default::default()
        },
        session_manager: MoRef::new("SessionManager"),
        v_storage_object_manager: MoRef::new("VStorageObjectManager"),
        storage_lifecycle_manager: MoRef::new("StorageLifecycleManager"),
        ..Default::default()
    }
}

async fn on_manager(call: &Call<'_>) -> Result<Reply, Fault> {
    use disks::{
        clear_flags, create_snapshot, delete, delete_snapshot, details, retrieve, revert, set_flags, snapshots,
    };
    match call.request.method {
        "VslmListVStorageObjectForSpec" => list(call),
        "VslmRetrieveVStorageObjectAssociations" => associations(call),
        "VslmRetrieveVStorageObject" => handle_anywhere!(call, VslmRetrieveVStorageObject, retrieve),
        "VslmCreateDisk_Task" => {
            let args: methods::VslmCreateDisk_Task = call.args()?;
            disks::create::<methods::VslmCreateDisk_Task>(call, args.spec)
        }
        "VslmRegisterDisk" => {
            let args: methods::VslmRegisterDisk = call.args()?;
            disks::register::<methods::VslmRegisterDisk>(call, &args.path, args.name.as_deref())
        }
        "VslmDeleteVStorageObject_Task" => handle_anywhere!(call, VslmDeleteVStorageObject_Task, delete),
        "VslmSetVStorageObjectControlFlags" => {
            handle_anywhere!(call, VslmSetVStorageObjectControlFlags, set_flags, control_flags)
        }
        "VslmClearVStorageObjectControlFlags" => {
            handle_anywhere!(call, VslmClearVStorageObjectControlFlags, clear_flags, control_flags)
        }
        "VslmCreateSnapshot_Task" => handle_anywhere!(call, VslmCreateSnapshot_Task, create_snapshot, description),
        "VslmDeleteSnapshot_Task" => handle_anywhere!(call, VslmDeleteSnapshot_Task, delete_snapshot, snapshot_id),
        "VslmRevertVStorageObject_Task" => handle_anywhere!(call, VslmRevertVStorageObject_Task, revert, snapshot_id),
        "VslmRetrieveSnapshotInfo" => handle_anywhere!(call, VslmRetrieveSnapshotInfo, snapshots),
        "VslmRetrieveSnapshotDetails" => handle_anywhere!(call, VslmRetrieveSnapshotDetails, details, snapshot_id),
        "VslmQueryChangedDiskAreas" => {
            let args: methods::VslmQueryChangedDiskAreas = call.args()?;
            let named = Named { id: args.id.id, datastore: None };
            let question = (args.snapshot_id.id, args.change_id, args.start_offset);
            disks::changed_areas::<methods::VslmQueryChangedDiskAreas>(call, named, question).await
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn list(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: methods::VslmListVStorageObjectForSpec = call.args()?;
    let options = &call.world.settings.fcd;
    let most = usize::try_from(args.max_result).ok().filter(|most| *most > 0);
    let most = most.ok_or_else(|| Fault::invalid_argument("maxResult"))?.min(options.most_listed);
    let state = call.world.lock();
    let mut found = Vec::new();
    // The map is in the order of ids.
    for disk in state.fcds.values() {
        let mut fits = true;
        for condition in &args.query {
            fits &= holds(call.world, disk, condition)?;
        }
        if fits {
            found.push(disk);
        }
    }
    if !options.listed_in_order {
        found.reverse();
    }
    let all_records_returned = found.len() <= most;
    found.truncate(most);
    let result = VslmVsoVStorageObjectQueryResult {
        all_records_returned,
        id: found.iter().map(|disk| disks::wire(&disk.id)).collect(),
        query_results: found.iter().map(|disk| fcd::result(disk)).collect(),
        ..Default::default()
    };
    Ok(call.reply::<methods::VslmListVStorageObjectForSpec>(&Some(result)))
}

/// Whether a disk meets a condition; conditions that the simulator does not know are refused.
fn holds(world: &World, disk: &Fcd, condition: &VslmVsoVStorageObjectQuerySpec) -> Result<bool, Fault> {
    let datastore = world.fixed(Fixed::Datastore);
    let own = match condition.query_field.as_str() {
        "id" => disk.id.as_str(),
        "name" => disk.name.as_str(),
        "datastoreMoId" => datastore.value(),
        _ => return Err(Fault::invalid_argument("query.queryField")),
    };
    let [wanted] = condition.query_value.as_slice() else { return Err(Fault::invalid_argument("query.queryValue")) };
    Ok(match condition.query_operator.as_str() {
        "equals" => own == wanted,
        "notEquals" => own != wanted,
        "greaterThan" => own > wanted.as_str(),
        "lessThan" => own < wanted.as_str(),
        "contains" => own.contains(wanted.as_str()),
        "startsWith" => own.starts_with(wanted.as_str()),
        "endsWith" => own.ends_with(wanted.as_str()),
        _ => return Err(Fault::invalid_argument("query.queryOperator")),
    })
}

fn associations(call: &Call<'_>) -> Result<Reply, Fault> {
    type Called = methods::VslmRetrieveVStorageObjectAssociations;
    let args: Called = call.args()?;
    let state = call.world.lock();
    let one = |id: &vsphere_vim_types::ID| match state.fcds.get(&id.id) {
        Some(disk) => {
            let vms = disk.consumers(&state).map(|(vm, disk_key)| VslmVsoVStorageObjectAssociationsVmDiskAssociation {
                vm_id: vm.instance_uuid.clone(),
                disk_key,
                ..Default::default()
            });
            VslmVsoVStorageObjectAssociations {
                id: id.clone(),
                vm_disk_association: vms.collect(),
                ..Default::default()
            }
        }
        None => VslmVsoVStorageObjectAssociations {
            id: id.clone(),
            fault: Some(fcd::not_found("virtual storage object", &id.id).localized()),
            ..Default::default()
        },
    };
    Ok(call.reply::<Called>(&args.ids.iter().map(one).collect()))
}

fn on_task(call: &Call<'_>) -> Result<Reply, Fault> {
    let mut state = call.world.lock();
    let task = state.tasks.get_mut(call.this().value()).ok_or_else(|| Fault::not_found(call.this()))?;
    match call.request.method {
        "VslmQueryInfo" => Ok(call.reply::<methods::VslmQueryInfo>(&info(task.to_wire()))),
        "VslmQueryTaskResult" => {
            let result = task.to_wire().result.filter(|result| !matches!(result, Any::Null));
            Ok(call.reply::<methods::VslmQueryTaskResult>(&result))
        }
        "VslmCancelTask" => {
            task.cancel()?;
            drop(state);
            call.world.touch();
            Ok(call.reply::<methods::VslmCancelTask>(&()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn info(task: vsphere_vim_types::TaskInfo) -> VslmTaskInfo {
    let user = task.reason.downcast_ref::<TaskReasonUser>().map(|reason| reason.user_name.clone());
    let reason: Poly<VslmTaskReason> =
        Poly::new(VslmTaskReasonUser { user_name: user.unwrap_or_default(), ..Default::default() });
    VslmTaskInfo {
        task: MoRef::new(&task.key),
        key: task.key,
        name: task.name,
        description_id: task.description_id,
        entity: task.entity,
        entity_name: task.entity_name,
        state: VslmTaskInfoState::from(task.state.as_str()),
        cancelled: task.cancelled,
        cancelable: task.cancelable,
        error: task.error,
        // The service gives results by a question of their own.
        result: None,
        progress: task.progress,
        reason,
        queue_time: task.queue_time,
        start_time: task.start_time,
        complete_time: task.complete_time,
        event_chain_id: task.event_chain_id,
        ..Default::default()
    }
}
