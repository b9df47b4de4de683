//! SearchIndex: finding inventory objects by what people and backups know of them.

use vsphere_vim_types::methods::{
    FindAllByDnsName, FindAllByIp, FindAllByUuid, FindByDatastorePath, FindByDnsName, FindByInventoryPath, FindByIp,
    FindByUuid, FindChild,
};
use vsphere_vim_types::{ManagedObjectReference, MoRef, mo};

use crate::Fault;
use crate::inventory;
use crate::personality::Fixed;
use crate::vm::{Vm, summary};

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
            let found = all(call, args.vm_search, |vm| has_uuid(vm, &args.uuid, args.instance_uuid));
            Ok(call.reply::<FindAllByUuid>(&found))
        }
        "FindByDnsName" => {
            let args: FindByDnsName = call.args()?;
            Ok(call.reply::<FindByDnsName>(&first(call, args.vm_search, |vm| has_dns_name(vm, &args.dns_name))))
        }
        "FindAllByDnsName" => {
            let args: FindAllByDnsName = call.args()?;
            Ok(call.reply::<FindAllByDnsName>(&all(call, args.vm_search, |vm| has_dns_name(vm, &args.dns_name))))
        }
        "FindByIp" => {
            let args: FindByIp = call.args()?;
            Ok(call.reply::<FindByIp>(&first(call, args.vm_search, |vm| has_ip(vm, &args.ip))))
        }
        "FindAllByIp" => {
            let args: FindAllByIp = call.args()?;
            Ok(call.reply::<FindAllByIp>(&all(call, args.vm_search, |vm| has_ip(vm, &args.ip))))
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
    all(call, vms, matches).into_iter().next()
}

fn all(call: &Call<'_>, vms: bool, matches: impl Fn(&Vm) -> bool) -> Vec<MoRef<mo::ManagedEntity>> {
    let state = call.world.lock();
    // Hosts, which the other search is for, are not asked about.
    state.vms.values().filter(|vm| vms && matches(vm)).map(|vm| vm.reference().cast()).collect()
}

fn has_dns_name(vm: &Vm, name: &str) -> bool {
    summary::has_tools(vm) && summary::host_name(vm).eq_ignore_ascii_case(name)
}

fn has_ip(vm: &Vm, address: &str) -> bool {
    summary::has_tools(vm) && summary::ip_address(vm) == address
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
