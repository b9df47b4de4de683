//! HttpNfcLease, and the methods that make one.

use vsphere_vim_types::methods::{
    ExportSnapshot, ExportVm, HttpNfcLeaseAbort, HttpNfcLeaseComplete, HttpNfcLeaseGetManifest, HttpNfcLeaseProgress,
    ImportVApp,
};
use vsphere_vim_types::{ManagedObjectReference, VirtualMachineImportSpec};

use crate::Fault;
use crate::inventory::container;
use crate::lease::{self, NewLease};
use crate::personality::{Fixed, Personality};
use crate::vm::{Power, create};

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    let id = call.this().value();
    let mut state = call.world.lock();
    let lease = state.leases.get_mut(id).ok_or_else(|| Fault::not_found(call.this()))?;
    match call.request.method {
        "HttpNfcLeaseProgress" => {
            let args: HttpNfcLeaseProgress = call.args()?;
            if !(0..=100).contains(&args.percent) {
                return Err(Fault::invalid_argument("percent"));
            }
            lease.hear()?;
            lease.percent = args.percent;
            Ok(call.reply::<HttpNfcLeaseProgress>(&()))
        }
        "HttpNfcLeaseComplete" => {
            lease.complete()?;
            drop(state);
            call.world.touch();
            Ok(call.reply::<HttpNfcLeaseComplete>(&()))
        }
        "HttpNfcLeaseGetManifest" => {
            if !call.world.settings.leases.manifest {
                return Err(Fault::not_supported("manifests"));
            }
            lease.hear()?;
            Ok(call.reply::<HttpNfcLeaseGetManifest>(&lease.manifest()))
        }
        "HttpNfcLeaseAbort" => {
            let args: HttpNfcLeaseAbort = call.args()?;
            drop(state);
            let message = args.fault.and_then(|fault| fault.localized_message).unwrap_or_default();
            if !lease::fail(call.world, id, Fault::new("RequestCanceled", &message)) {
                return Err(Fault::new("InvalidState", "The operation is not allowed in the current state."));
            }
            Ok(call.reply::<HttpNfcLeaseAbort>(&()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

/// `ExportVm`: the present disks of a VM that is off.
pub(super) fn export_vm(call: &Call<'_>) -> Result<Reply, Fault> {
    let new = {
        let state = call.world.lock();
        let vm = state.vms.get(call.this().value()).ok_or_else(|| Fault::not_found(call.this()))?;
        if vm.power != Power::Off {
            return Err(Fault::power_state(Some("poweredOff"), vm.power.as_str()));
        }
        let disks = vm.settings.disks.values().map(|disk| (disk.unit, disk.store.clone(), disk.store.current()));
        NewLease {
            entity: vm.reference(),
            vm: vm.id.clone(),
            import: false,
            disks: disks.collect(),
            name: vm.name().to_owned(),
        }
    };
    Ok(call.reply::<ExportVm>(&lease::open(call.world, new)?))
}

/// `ExportSnapshot`: the disks as they were, whatever the VM does.
pub(super) fn export_snapshot(call: &Call<'_>) -> Result<Reply, Fault> {
    let new = {
        let state = call.world.lock();
        let vm = state.vm_of_snapshot(call.this().value()).ok_or_else(|| Fault::not_found(call.this()))?;
        let snapshot = vm.snapshots.get(call.this().value()).ok_or_else(|| Fault::not_found(call.this()))?;
        let disks = snapshot.points.iter().filter_map(|(key, point)| {
            let disk = snapshot.settings.disks.get(key)?;
            Some((disk.unit, disk.store.clone(), point.node()))
        });
        NewLease {
            entity: vm.reference(),
            vm: vm.id.clone(),
            import: false,
            disks: disks.collect(),
            name: vm.name().to_owned(),
        }
    };
    Ok(call.reply::<ExportSnapshot>(&lease::open(call.world, new)?))
}

/// `ResourcePool`: imports.
pub(super) fn on_pool(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "ImportVApp" => {
            let args: ImportVApp = call.args()?;
            let Some(spec) = args.spec.downcast_ref::<VirtualMachineImportSpec>() else {
                return Err(Fault::not_supported("importing anything but a virtual machine"));
            };
            let folder = args.folder.map(|folder| folder.erase());
            let own = call.world.fixed(Fixed::VmFolder);
            let folder_is_needed = call.world.personality() == Personality::VCenter;
            let is_vm_folder = |folder| container::is_vm_folder(call.world, &call.world.lock(), folder);
            let parent = match folder {
                // In a vApp, it is the vApp that shows the machine.
                None if call.this().type_name() == "VirtualApp" => call.this().clone(),
                None if !folder_is_needed => own,
                Some(folder) if is_vm_folder(&folder) => folder,
                _ => return Err(Fault::invalid_argument("folder")),
            };
            let id = create::create(call.world, parent, &spec.config_spec)?;
            let new = {
                let state = call.world.lock();
                let vm = state.vms.get(&id).ok_or_else(|| Fault::not_found(call.this()))?;
                let disks =
                    vm.settings.disks.values().map(|disk| (disk.unit, disk.store.clone(), disk.store.current()));
                NewLease {
                    entity: ManagedObjectReference::of("VirtualMachine", &id),
                    vm: id.clone(),
                    import: true,
                    disks: disks.collect(),
                    name: vm.name().to_owned(),
                }
            };
            call.world.touch();
            let lease = lease::open(call.world, new).inspect_err(|_| {
                // Without a lease nobody can fill or abort it.
                drop(create::destroy(call.world, &id));
            })?;
            Ok(call.reply::<ImportVApp>(&lease))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}
