//! VirtualDiskManager: disks on the datastore, made, copied, moved, grown and removed by the server.
//!
//! It works on disks that clients stored and on copies of those of VMs. A VM's own disks are changed through the VM.

use std::path::Path;
use std::sync::Arc;

use vmdk::{AdapterType, CopyOptions, CreateKind, CreateSpec, GrowOptions, OpenOptions, PathPolicy};
use vsphere_vim_types::methods::{
    CopyVirtualDisk_Task, CreateVirtualDisk_Task, DeleteVirtualDisk_Task, ExtendVirtualDisk_Task, MoveVirtualDisk_Task,
};
use vsphere_vim_types::{Any, FileBackedVirtualDiskSpec, Poly, VirtualDiskSpec};

use crate::Fault;
use crate::files::{self, FilePath, Found};
use crate::storage::{Access, NodeHandle};
use crate::vm::Power;
use crate::world::World;

use super::files::{exists, resolve, start, target};
use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "CreateVirtualDisk_Task" => {
            let args: CreateVirtualDisk_Task = call.args()?;
            let path = resolve(call, &args.name, args.datacenter.as_ref())?;
            let file = args.spec.downcast_ref::<FileBackedVirtualDiskSpec>();
            let capacity = file.map(|spec| spec.capacity_kb).and_then(|kb| u64::try_from(kb).ok());
            let capacity = capacity.ok_or_else(|| Fault::invalid_argument("spec"))? * 1024;
            let spec = create_spec(capacity, &args.spec)?;
            start::<CreateVirtualDisk_Task>(call, move |world| create(world, &path, &spec))
        }
        "CopyVirtualDisk_Task" => {
            let args: CopyVirtualDisk_Task = call.args()?;
            let from = resolve(call, &args.source_name, args.source_datacenter.as_ref())?;
            let datacenter = args.dest_datacenter.as_ref().or(args.source_datacenter.as_ref());
            let to = resolve(call, &args.dest_name, datacenter)?;
            let force = args.force == Some(true);
            start::<CopyVirtualDisk_Task>(call, move |world| copy(world, &from, &to, args.dest_spec.as_ref(), force))
        }
        "MoveVirtualDisk_Task" => {
            let args: MoveVirtualDisk_Task = call.args()?;
            let from = resolve(call, &args.source_name, args.source_datacenter.as_ref())?;
            let datacenter = args.dest_datacenter.as_ref().or(args.source_datacenter.as_ref());
            let to = resolve(call, &args.dest_name, datacenter)?;
            let force = args.force == Some(true);
            start::<MoveVirtualDisk_Task>(call, move |world| {
                let host = stored(world, &from)?;
                let target = free(world, &to, force)?;
                done(&to, vmdk::rename(host, target, PathPolicy::SameDirectory))
            })
        }
        "DeleteVirtualDisk_Task" => {
            let args: DeleteVirtualDisk_Task = call.args()?;
            let path = resolve(call, &args.name, args.datacenter.as_ref())?;
            start::<DeleteVirtualDisk_Task>(call, move |world| {
                done(&path, vmdk::unlink(stored(world, &path)?, PathPolicy::SameDirectory))
            })
        }
        "ExtendVirtualDisk_Task" => {
            let args: ExtendVirtualDisk_Task = call.args()?;
            let path = resolve(call, &args.name, args.datacenter.as_ref())?;
            let kb = u64::try_from(args.new_capacity_kb).map_err(|_| Fault::invalid_argument("newCapacityKb"))?;
            start::<ExtendVirtualDisk_Task>(call, move |world| {
                let options = GrowOptions::new().update_geometry(true);
                done(&path, vmdk::grow(stored(world, &path)?, kb.saturating_mul(1024), &options))
            })
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn create_spec(capacity: u64, spec: &Poly<VirtualDiskSpec>) -> Result<CreateSpec, Fault> {
    let thin = match spec.disk_type.as_str() {
        "thin" => true,
        "preallocated" | "thick" | "eagerZeroedThick" => false,
        _ => return Err(Fault::not_supported("disks of this type")),
    };
    let adapter = match spec.adapter_type.as_str() {
        "ide" => AdapterType::Ide,
        "busLogic" => AdapterType::BusLogic,
        _ => AdapterType::LsiLogic,
    };
    Ok(CreateSpec::new(capacity, CreateKind::Vmfs).thin(thin).adapter_type(adapter))
}

fn create(world: &World, path: &FilePath, spec: &CreateSpec) -> Result<Any, Fault> {
    let target = target(world, path, false)?;
    done(path, vmdk::create(target, spec).and_then(vmdk::Disk::close))
}

fn copy(
    world: &Arc<World>,
    from: &FilePath,
    to: &FilePath,
    spec: Option<&Poly<VirtualDiskSpec>>,
    force: bool,
) -> Result<Any, Fault> {
    if from == to {
        return Err(exists(to));
    }
    let spec_for = |capacity| match spec {
        Some(spec) => create_spec(capacity, spec),
        None => Ok(CreateSpec::new(capacity, CreateKind::Vmfs)),
    };
    let found = files::find(world, &world.lock(), from).ok_or_else(|| files::not_found(from))?;
    match found {
        Found::Stored(host) => {
            let source = vmdk::Disk::open(host, &OpenOptions::new()).map_err(|error| damaged(from, &error))?;
            let spec = spec_for(source.capacity())?;
            let target = free(world, to, force)?;
            done(to, vmdk::convert(&source, target, &spec, &CopyOptions::new()).and_then(vmdk::Disk::close))
        }
        Found::Made(_) => {
            let source = open_of_vm(world, from)?;
            let spec = spec_for(source.capacity().map_err(|error| Fault::storage(&error))?)?;
            let target = free(world, to, force)?;
            copy_bytes(&source, &target, &spec).map_err(|error| damaged(to, &error))?;
            Ok(Any::Null)
        }
        Found::Folder => Err(files::not_found(from)),
    }
}

/// A disk of a VM, unless the running VM writes to it.
fn open_of_vm(world: &World, path: &FilePath) -> Result<NodeHandle, Fault> {
    let name = path.to_string();
    let state = world.lock();
    for vm in state.vms.values().chain(state.shelved.values()) {
        for store in vm.all_stores() {
            let Some((node, ..)) = store.files().into_iter().find(|(_, file, _)| *file == name) else { continue };
            if vm.power != Power::Off && node == store.current() {
                return Err(Fault::file_locked(&name));
            }
            return store.open(node, Access::ReadOnly).map_err(|error| Fault::storage(&error));
        }
    }
    Err(files::not_found(path))
}

fn copy_bytes(source: &NodeHandle, target: &Path, spec: &CreateSpec) -> vmdk::Result<()> {
    let disk = vmdk::create(target, spec)?;
    let capacity = disk.capacity();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < capacity {
        let piece = &mut piece[..(capacity - at).min(PIECE as u64) as usize];
        let failed = |error| vmdk::Error::io("read", "the source", Some(at), std::io::Error::other(error));
        source.read_at(at, piece).map_err(failed)?;
        if piece.iter().any(|byte| *byte != 0) {
            disk.write_at(at, piece)?;
        }
        at += piece.len() as u64;
    }
    disk.close()
}

/// A disk that a client stored.
fn stored(world: &World, path: &FilePath) -> Result<std::path::PathBuf, Fault> {
    match files::find(world, &world.lock(), path) {
        Some(Found::Stored(host)) => Ok(host),
        Some(Found::Made(_)) => Err(Fault::file_locked(&path.to_string())),
        Some(Found::Folder) | None => Err(files::not_found(path)),
    }
}

/// Where a new disk goes; one that is in the way is removed if that is wanted.
pub(crate) fn free(world: &World, path: &FilePath, force: bool) -> Result<std::path::PathBuf, Fault> {
    if force && matches!(files::find(world, &world.lock(), path), Some(Found::Stored(_))) {
        done(path, vmdk::unlink(files::host_path(world, path), PathPolicy::SameDirectory))?;
    }
    target(world, path, false)
}

fn done(path: &FilePath, outcome: vmdk::Result<()>) -> Result<Any, Fault> {
    outcome.map(|()| Any::Null).map_err(|error| damaged(path, &error))
}

fn damaged(path: &FilePath, error: &vmdk::Error) -> Fault {
    let name = match error {
        vmdk::Error::InvalidInput { .. } => "InvalidArgument",
        vmdk::Error::NotSupported { .. } => "NotSupported",
        vmdk::Error::Malformed { .. } => "InvalidDiskFormat",
        _ => "FileFault",
    };
    Fault::new(name, &format!("{path}: {error}")).field("file", &path.to_string())
}

/// Bytes copied at once.
const PIECE: usize = 1 << 20;
