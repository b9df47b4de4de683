//! The managers of First Class Disks: vCenter's, a host's, and that of the storage lifecycle service. They do the same
//! under other names; a host has no question about changed areas.

use std::sync::Arc;

use vsphere_vim_types::{
    Any, DiskChangeInfo, ID, Managed, ManagedObjectReference, Method, MoRef, VStorageObject,
    VStorageObjectAssociations, VStorageObjectAssociationsVmDiskAssociations, VStorageObjectSnapshotDetails,
    VStorageObjectSnapshotInfo, VslmCreateSpec, VslmCreateSpecDiskFileBackingSpec, methods, mo,
};

use crate::Fault;
use crate::fcd::{self, Named, NewFcd};
use crate::personality::{Fixed, Personality};
use crate::vm::operate;
use crate::world::World;

use super::{Call, Reply};

/// Reads the arguments of a method and hands them to its handler; `named` is how the method names the disk.
macro_rules! handle {
    ($call:ident, $method:ident, $handler:ident $(, $field:ident)*) => {{
        let args: methods::$method = $call.args()?;
        let named = Named { id: args.id.id.clone(), datastore: Some(args.datastore.erase()) };
        $handler::<methods::$method>($call, named $(, args.$field)*)
    }};
}
/// The same where the id alone names the disk.
macro_rules! handle_anywhere {
    ($call:ident, $method:ident, $handler:ident $(, $field:ident)*) => {{
        let args: methods::$method = $call.args()?;
        let named = Named { id: args.id.id.clone(), datastore: None };
        $handler::<methods::$method>($call, named $(, args.$field)*)
    }};
}
pub(super) use handle_anywhere;

/// A method that answers with a task, whichever service's.
pub(super) trait Starts: Method {
    fn reply(call: &Call<'_>, task: &MoRef<mo::Task>) -> Reply;
}

impl<M: Method<Output = MoRef<T>>, T: Managed> Starts for M {
    fn reply(call: &Call<'_>, task: &MoRef<mo::Task>) -> Reply {
        call.reply::<M>(&MoRef::new(task.value()))
    }
}

/// `VcenterVStorageObjectManager`.
pub(super) async fn on_vcenter(call: &Call<'_>) -> Result<Reply, Fault> {
    only(call, Personality::VCenter)?;
    match call.request.method {
        "ListVStorageObject" => {
            let args: methods::ListVStorageObject = call.args()?;
            list::<methods::ListVStorageObject>(call, &args.datastore.erase())
        }
        "RetrieveVStorageObject" => handle!(call, RetrieveVStorageObject, retrieve),
        "RetrieveVStorageObjectAssociations" => associations(call),
        "CreateDisk_Task" => {
            let args: methods::CreateDisk_Task = call.args()?;
            create::<methods::CreateDisk_Task>(call, args.spec)
        }
        "RegisterDisk" => {
            let args: methods::RegisterDisk = call.args()?;
            register::<methods::RegisterDisk>(call, &args.path, args.name.as_deref())
        }
        "DeleteVStorageObject_Task" => handle!(call, DeleteVStorageObject_Task, delete),
        "SetVStorageObjectControlFlags" => handle!(call, SetVStorageObjectControlFlags, set_flags, control_flags),
        "ClearVStorageObjectControlFlags" => handle!(call, ClearVStorageObjectControlFlags, clear_flags, control_flags),
        "VStorageObjectCreateSnapshot_Task" => {
            handle!(call, VStorageObjectCreateSnapshot_Task, create_snapshot, description)
        }
        "DeleteSnapshot_Task" => handle!(call, DeleteSnapshot_Task, delete_snapshot, snapshot_id),
        "RevertVStorageObject_Task" => handle!(call, RevertVStorageObject_Task, revert, snapshot_id),
        "RetrieveSnapshotInfo" => handle!(call, RetrieveSnapshotInfo, snapshots),
        "RetrieveSnapshotDetails" => handle!(call, RetrieveSnapshotDetails, details, snapshot_id),
        "VstorageObjectVCenterQueryChangedDiskAreas" => {
            let args: methods::VstorageObjectVCenterQueryChangedDiskAreas = call.args()?;
            let named = Named { id: args.id.id, datastore: Some(args.datastore.erase()) };
            let question = (args.snapshot_id.id, args.change_id, args.start_offset);
            changed_areas::<methods::VstorageObjectVCenterQueryChangedDiskAreas>(call, named, question).await
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

/// `HostVStorageObjectManager`.
pub(super) fn on_host(call: &Call<'_>) -> Result<Reply, Fault> {
    only(call, Personality::Esxi)?;
    match call.request.method {
        "HostListVStorageObject" => {
            let args: methods::HostListVStorageObject = call.args()?;
            list::<methods::HostListVStorageObject>(call, &args.datastore.erase())
        }
        "HostRetrieveVStorageObject" => handle!(call, HostRetrieveVStorageObject, retrieve),
        "HostCreateDisk_Task" => {
            let args: methods::HostCreateDisk_Task = call.args()?;
            create::<methods::HostCreateDisk_Task>(call, args.spec)
        }
        "HostRegisterDisk" => {
            let args: methods::HostRegisterDisk = call.args()?;
            register::<methods::HostRegisterDisk>(call, &args.path, args.name.as_deref())
        }
        "HostDeleteVStorageObject_Task" => handle!(call, HostDeleteVStorageObject_Task, delete),
        "HostSetVStorageObjectControlFlags" => {
            handle!(call, HostSetVStorageObjectControlFlags, set_flags, control_flags)
        }
        "HostClearVStorageObjectControlFlags" => {
            handle!(call, HostClearVStorageObjectControlFlags, clear_flags, control_flags)
        }
        "HostVStorageObjectCreateSnapshot_Task" => {
            handle!(call, HostVStorageObjectCreateSnapshot_Task, create_snapshot, description)
        }
        "HostVStorageObjectDeleteSnapshot_Task" => {
            handle!(call, HostVStorageObjectDeleteSnapshot_Task, delete_snapshot, snapshot_id)
        }
        "HostVStorageObjectRevert_Task" => handle!(call, HostVStorageObjectRevert_Task, revert, snapshot_id),
        "HostVStorageObjectRetrieveSnapshotInfo" => handle!(call, HostVStorageObjectRetrieveSnapshotInfo, snapshots),
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn only(call: &Call<'_>, personality: Personality) -> Result<(), Fault> {
    if call.world.personality() == personality { Ok(()) } else { Err(Fault::not_found(call.this())) }
}

fn list<M: Method<Output = Vec<ID>>>(call: &Call<'_>, datastore: &ManagedObjectReference) -> Result<Reply, Fault> {
    fcd::check_datastore(call.world, Some(datastore))?;
    let state = call.world.lock();
    Ok(call.reply::<M>(&state.fcds.keys().map(|id| wire(id)).collect()))
}

pub(super) fn retrieve<M: Method<Output = VStorageObject>>(call: &Call<'_>, named: Named) -> Result<Reply, Fault> {
    let state = call.world.lock();
    let disk = fcd::find(call.world, &state, &named)?;
    Ok(call.reply::<M>(&fcd::storage_object(call.world, &state, disk)))
}

fn associations(call: &Call<'_>) -> Result<Reply, Fault> {
    type Called = methods::RetrieveVStorageObjectAssociations;
    let args: Called = call.args()?;
    let state = call.world.lock();
    let one = |wanted: &vsphere_vim_types::RetrieveVStorageObjSpec| {
        let named = Named { id: wanted.id.id.clone(), datastore: Some(wanted.datastore.erase()) };
        let (list, fault) = match fcd::find(call.world, &state, &named) {
            Ok(disk) => (disk.consumers(&state).map(|(vm, key)| (vm.instance_uuid.clone(), key)).collect(), None),
            Err(fault) => (Vec::new(), Some(fault.localized())),
        };
        let shown = list.into_iter().map(|(vm_id, disk_key)| VStorageObjectAssociationsVmDiskAssociations {
            vm_id,
            disk_key,
            ..Default::default()
        });
        VStorageObjectAssociations {
            id: wanted.id.clone(),
            vm_disk_associations: shown.collect(),
            fault,
            ..Default::default()
        }
    };
    Ok(call.reply::<Called>(&args.ids.iter().map(one).collect()))
}

pub(super) fn create<M: Starts>(call: &Call<'_>, spec: VslmCreateSpec) -> Result<Reply, Fault> {
    let backing = &spec.backing_spec;
    fcd::check_datastore(call.world, Some(backing.datastore.as_untyped()))?;
    let file = backing.downcast_ref::<VslmCreateSpecDiskFileBackingSpec>();
    let file = file.ok_or_else(|| Fault::not_supported("a first class disk that is no file"))?;
    let megabytes = u64::try_from(spec.capacity_in_mb).ok().filter(|megabytes| *megabytes > 0);
    let capacity = megabytes.and_then(|megabytes| megabytes.checked_mul(1 << 20));
    let new = NewFcd {
        name: spec.name.clone(),
        capacity: capacity.ok_or_else(|| Fault::invalid_argument("spec.capacityInMB"))?,
        folder: backing.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "fcd".into()),
        provisioning: file.provisioning_type.clone().unwrap_or_else(|| "thin".into()),
        keep_after_delete_vm: spec.keep_after_delete_vm.unwrap_or(false),
    };
    start::<M>(call, Arc::default(), move |world| {
        let id = fcd::create(world, &new)?;
        let state = world.lock();
        let disk = fcd::find(world, &state, &Named { id, datastore: None })?;
        Ok(Any::of(&fcd::storage_object(world, &state, disk)))
    })
}

pub(super) fn register<M: Method<Output = VStorageObject>>(
    call: &Call<'_>,
    url: &str,
    name: Option<&str>,
) -> Result<Reply, Fault> {
    let path = datastore_path(call.world, url).ok_or_else(|| Fault::invalid_argument("path"))?;
    let id = fcd::register(call.world, &path, name)?;
    retrieve::<M>(call, Named { id, datastore: None })
}

/// `[ds1] web/web.vmdk` for `https://vc/folder/web/web.vmdk?dcPath=dc1&dsName=ds1`.
fn datastore_path(world: &World, url: &str) -> Option<String> {
    let (_, rest) = url.split_once("/folder/")?;
    let (path, query) = rest.split_once('?')?;
    let value = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.and_then(unescape)
    };
    let known =
        value("dsName")? == world.datastore.name() && value("dcPath")? == world.personality().name(Fixed::Datacenter);
    known.then_some(())?;
    Some(format!("[{}] {}", world.datastore.name(), unescape(path)?))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let (code, tail) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

pub(super) fn delete<M: Starts>(call: &Call<'_>, named: Named) -> Result<Reply, Fault> {
    start_on::<M>(call, named, |world, named| fcd::delete(world, named).map(|()| Any::Null))
}

pub(super) fn set_flags<M: Method<Output = ()>>(
    call: &Call<'_>,
    named: Named,
    flags: Vec<String>,
) -> Result<Reply, Fault> {
    switch::<M>(call, &named, &flags, true)
}

pub(super) fn clear_flags<M: Method<Output = ()>>(
    call: &Call<'_>,
    named: Named,
    flags: Vec<String>,
) -> Result<Reply, Fault> {
    switch::<M>(call, &named, &flags, false)
}

fn switch<M: Method<Output = ()>>(call: &Call<'_>, named: &Named, flags: &[String], on: bool) -> Result<Reply, Fault> {
    for flag in flags {
        match flag.as_str() {
            "enableChangedBlockTracking" => fcd::set_tracking(call.world, named, on)?,
            _ => return Err(Fault::invalid_argument("controlFlags")),
        }
    }
    Ok(call.reply::<M>(&()))
}

pub(super) fn create_snapshot<M: Starts>(call: &Call<'_>, named: Named, description: String) -> Result<Reply, Fault> {
    start_on::<M>(call, named, move |world, named| {
        Ok(Any::of(&wire(&fcd::create_snapshot(world, named, &description)?)))
    })
}

pub(super) fn delete_snapshot<M: Starts>(call: &Call<'_>, named: Named, snapshot: ID) -> Result<Reply, Fault> {
    start_on::<M>(call, named, move |world, named| fcd::delete_snapshot(world, named, &snapshot.id).map(|()| Any::Null))
}

pub(super) fn revert<M: Starts>(call: &Call<'_>, named: Named, snapshot: ID) -> Result<Reply, Fault> {
    start_on::<M>(call, named, move |world, named| fcd::revert(world, named, &snapshot.id).map(|()| Any::Null))
}

pub(super) fn snapshots<M: Method<Output = VStorageObjectSnapshotInfo>>(
    call: &Call<'_>,
    named: Named,
) -> Result<Reply, Fault> {
    let state = call.world.lock();
    Ok(call.reply::<M>(&fcd::snapshot_info(fcd::find(call.world, &state, &named)?)))
}

pub(super) fn details<M: Method<Output = VStorageObjectSnapshotDetails>>(
    call: &Call<'_>,
    named: Named,
    snapshot: ID,
) -> Result<Reply, Fault> {
    let state = call.world.lock();
    Ok(call.reply::<M>(&fcd::details(fcd::find(call.world, &state, &named)?, &snapshot.id)?))
}

/// Answers for a snapshot: `question` is its id, the change id and the offset to begin at.
pub(super) async fn changed_areas<M: Method<Output = DiskChangeInfo>>(
    call: &Call<'_>,
    named: Named,
    question: (String, String, i64),
) -> Result<Reply, Fault> {
    let (snapshot, since, start) = question;
    let (store, point) = {
        let state = call.world.lock();
        let disk = fcd::find(call.world, &state, &named)?;
        (disk.store.clone(), disk.snapshot(&snapshot)?.point.clone())
    };
    // Allocation maps are read from files.
    let done = tokio::task::spawn_blocking(move || operate::areas_of(&store, &point, &since, start)).await;
    let info = done.map_err(|error| {
        Fault::new("SystemError", "A general system error occurred").field("reason", &error.to_string())
    })??;
    Ok(call.reply::<M>(&info))
}

/// Starts a task on a disk that has to exist.
fn start_on<M: Starts>(
    call: &Call<'_>,
    named: Named,
    work: impl FnOnce(&World, &Named) -> Result<Any, Fault> + Send + 'static,
) -> Result<Reply, Fault> {
    let gate = fcd::find(call.world, &call.world.lock(), &named)?.gate.clone();
    start::<M>(call, gate, move |world| work(world, &named))
}

fn start<M: Starts>(
    call: &Call<'_>,
    gate: Arc<tokio::sync::Mutex<()>>,
    work: impl FnOnce(&Arc<World>) -> Result<Any, Fault> + Send + 'static,
) -> Result<Reply, Fault> {
    let job = crate::task::Job {
        method: M::NAME,
        entity: call.world.fixed(Fixed::Datastore),
        entity_name: call.world.datastore.name().into(),
        user: call.user(),
        gate,
        injected: call.task_fault.clone(),
    };
    Ok(M::reply(call, &crate::task::start(call.world, job, work)))
}

pub(super) fn wire(id: &str) -> ID {
    ID { id: id.into(), ..Default::default() }
}
