//! AlarmManager, which only vCenter has.

use vsphere_vim_types::{ManagedObjectReference, MoRef, methods, mo};

use crate::personality::Personality;
use crate::{Fault, alarm, inventory};

use super::{Call, Reply};

pub(super) fn on_manager(call: &Call<'_>) -> Result<Reply, Fault> {
    if call.world.personality() != Personality::VCenter {
        return Err(Fault::not_found(call.this()));
    }
    match call.request.method {
        "GetAlarm" => {
            let args: methods::GetAlarm = call.args()?;
            let entity = args.entity.as_ref().map(MoRef::as_untyped);
            if let Some(entity) = entity {
                exists(call, entity)?;
            }
            let state = call.world.lock();
            let alarms = alarm::set_up_on(&state, entity);
            Ok(call.reply::<methods::GetAlarm>(&alarms.iter().map(|alarm| alarm.cast::<mo::Alarm>()).collect()))
        }
        "GetAlarmState" => {
            let args: methods::GetAlarmState = call.args()?;
            exists(call, args.entity.as_untyped())?;
            let state = call.world.lock();
            let states = alarm::declared(call.world, &state, args.entity.as_untyped());
            Ok(call.reply::<methods::GetAlarmState>(&states))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn exists(call: &Call<'_>, entity: &ManagedObjectReference) -> Result<(), Fault> {
    let state = call.world.lock();
    let found = inventory::find(call.world, &state, call.session.as_deref(), entity);
    found.map(|_| ()).ok_or_else(|| Fault::not_found(entity))
}
