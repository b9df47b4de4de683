//! SearchIndex: finding inventory objects by what people and backups know of them.

use vsphere_vim_types::methods::{
    FindAllByUuid, FindByDatastorePath, FindByDnsName, FindByInventoryPath, FindByIp, FindByUuid, FindChild,
};
use vsphere_vim_types::{ManagedObjectReference, MoRef, mo};

use crate::Fault;
use crate::inventory;
use crate::personality::Fixed;
use crate::vm::{Power, Vm, summary};

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "FindByInventoryPath" => {
            let args: FindByInventoryPath = call.args()?;
            Ok(call.reply::<FindByInventoryPath>(&by_path(call, &args.inventory_path).map(|found| found.cast())))
        }
        "FindChild" => {
            let args: FindChild = call.args()?;
            let entity = args.entity.erase();
            if inventory::find(call.world, &call.world.lock(), None, &entity).is_none() {
                return Err(Fault::not_found(&entity));
            }
            Ok(call.reply::<FindChild>(&child(call, &entity, &args.name).map(|found| found.cast())))
        }
        "FindByUuid" => {
            let args: FindByUuid = call.args()?;
            let found = first(call, args.vm_search, |vm| has_uuid(vm, &args.uuid, args.instance_uuid));
            Ok(call.reply::<FindByUuid>(&found))
        }
        "FindAllByUuid" => {
            let args: FindAllByUuid = call.args()?;
            let found = first(call, args.vm_search, |vm| has_uuid(vm, &args.uuid, args.instance_uuid));
            Ok(call.reply::<FindAllByUuid>(&found.into_iter().collect()))
        }
        "FindByDnsName" => {
            let args: FindByDnsName = call.args()?;
            let found = first(call, args.vm_search, |vm| {
                vm.power == Power::On && summary::host_name(vm).eq_ignore_ascii_case(&args.dns_name)
            });
            Ok(call.reply::<FindByDnsName>(&found))
        }
        "FindByIp" => {
            let args: FindByIp = call.args()?;
            let found = first(call, args.vm_search, |vm| vm.power == Power::On && summary::ip_address(vm) == args.ip);
            Ok(call.reply::<FindByIp>(&found))
        }
        "FindByDatastorePath" => {
            let args: FindByDatastorePath = call.args()?;
            let state = call.world.lock();
            let wanted =
                |vm: &&Vm| crate::vm::config::files(call.world, vm).vm_path_name.as_deref() == Some(args.path.as_str());
            let found = state.vms.values().find(wanted).map(|vm| MoRef::new(&vm.id));
            Ok(call.reply::<FindByDatastorePath>(&found))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn first(call: &Call<'_>, vms: bool, matches: impl Fn(&Vm) -> bool) -> Option<MoRef<mo::ManagedEntity>> {
    if !vms {
        return None;
    }
    call.world.lock().vms.values().find(|vm| matches(vm)).map(|vm| vm.reference().cast())
}

fn has_uuid(vm: &Vm, uuid: &str, instance: Option<bool>) -> bool {
    let own = if instance == Some(true) { &vm.instance_uuid } else { &vm.bios_uuid };
    own.eq_ignore_ascii_case(uuid)
}

/// Walks `dc1/vm/web`; a name's own slash is written `%2f`.
fn by_path(call: &Call<'_>, path: &str) -> Option<ManagedObjectReference> {
    let mut at = call.world.fixed(Fixed::RootFolder);
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = child(call, &at, name)?;
    }
    Some(at)
}

fn child(call: &Call<'_>, parent: &ManagedObjectReference, wanted: &str) -> Option<ManagedObjectReference> {
    let wanted = unescape(wanted);
    let state = call.world.lock();
    let mut children = inventory::children(call.world, &state, parent);
    // VMs are also found below the resource pool that runs them.
    if call.world.personality().find(parent) == Some(Fixed::ResourcePool) {
        children = inventory::vms(&state);
    }
    children
        .into_iter()
        .find(|object| inventory::name(call.world, &state, object).is_some_and(|name| unescape(&name) == wanted))
}

/// `%2f`, `%5c` and `%25` stand for what may not be in a name.
fn unescape(name: &str) -> String {
    name.replace("%2f", "/").replace("%2F", "/").replace("%5c", "\\").replace("%5C", "\\").replace("%25", "%")
}
