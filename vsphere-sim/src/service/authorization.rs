//! Method locks: a backup forbids migrating the VM that it reads. vCenter only, and not in the public model. Whether a
//! session has privileges, everywhere.

use vsphere_vim_types::ManagedObjectReference;
use vsphere_vim_types::internal::{DisableMethods, EnableMethods};
use vsphere_vim_types::methods::HasPrivilegeOnEntity;

use crate::Fault;
use crate::personality::Personality;
use crate::vm::MethodLock;

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    if call.request.method == "HasPrivilegeOnEntity" {
        return has_privilege(call);
    }
    if call.world.personality() != Personality::VCenter {
        return Err(Fault::method_not_found(call.this(), call.request.method));
    }
    match call.request.method {
        "DisableMethods" => disable(call),
        "EnableMethods" => enable(call),
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn has_privilege(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: HasPrivilegeOnEntity = call.args()?;
    if args.session_id != crate::session::public_key(call.session()?) {
        return Err(Fault::invalid_argument("sessionId"));
    }
    let missing = &call.world.lock().missing_privileges;
    let has: Vec<bool> = args.priv_id.iter().map(|privilege| !missing.contains(privilege)).collect();
    Ok(call.reply::<HasPrivilegeOnEntity>(&has))
}

fn disable(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: DisableMethods = call.args()?;
    if args.source_id.is_empty() {
        return Err(Fault::invalid_argument("sourceId"));
    }
    let session = (args.session_scope == Some(true)).then(|| call.session().map(str::to_owned)).transpose()?;
    let mut state = call.world.lock();
    check(&state, &args.entity)?;
    // All or nothing: a method already disabled, by whomever, fails the call.
    for vm in args.entity.iter().filter_map(|entity| state.vms.get(entity.value())) {
        if let Some((source, _)) =
            vm.disabled.keys().find(|(_, method)| args.method.iter().any(|wanted| wanted.method == *method))
        {
            return Err(
                Fault::new("MethodAlreadyDisabledFault", "The method is already disabled").field("sourceId", source)
            );
        }
    }
    for entity in &args.entity {
        if let Some(vm) = state.vms.get_mut(entity.value()) {
            vm.disabled.extend(args.method.iter().map(|method| {
                let lock = MethodLock { reason: method.reason_id.clone(), session: session.clone() };
                ((args.source_id.clone(), method.method.clone()), lock)
            }));
        }
    }
    drop(state);
    call.world.touch();
    Ok(call.reply::<DisableMethods>(&()))
}

fn enable(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: EnableMethods = call.args()?;
    let mut state = call.world.lock();
    check(&state, &args.entity)?;
    for entity in &args.entity {
        if let Some(vm) = state.vms.get_mut(entity.value()) {
            vm.disabled.retain(|(source, method), _| *source != args.source_id || !args.method.contains(method));
        }
    }
    drop(state);
    call.world.touch();
    Ok(call.reply::<EnableMethods>(&()))
}

fn check(state: &crate::world::State, entities: &[ManagedObjectReference]) -> Result<(), Fault> {
    match entities.iter().find(|entity| !state.vms.contains_key(entity.value())) {
        Some(missing) => Err(Fault::not_found(missing)),
        None => Ok(()),
    }
}
