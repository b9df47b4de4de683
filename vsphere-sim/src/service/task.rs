//! Task and TaskManager.

use vsphere_vim_types::methods::CancelTask;

use crate::Fault;

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "CancelTask" => {
            let mut state = call.world.lock();
            state.tasks.get_mut(call.this().value()).ok_or_else(|| Fault::not_found(call.this()))?.cancel()?;
            drop(state);
            call.world.touch();
            Ok(call.reply::<CancelTask>(&()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}
