//! ViewManager and its container views.

use vsphere_vim_types::MoRef;
use vsphere_vim_types::methods::{CreateContainerView, DestroyView};

use crate::Fault;
use crate::inventory;
use crate::view::View;

use super::{Call, Reply};

/// Views per session; a client that needs more forgets to destroy them.
const MAX_VIEWS: usize = 1000;

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "CreateContainerView" => create(call),
        "DestroyView" => destroy(call),
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn create(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: CreateContainerView = call.args()?;
    let mut state = call.world.lock();
    let container = args.container.erase();
    if inventory::find(call.world, &state, None, &container).is_none() {
        return Err(Fault::not_found(&container));
    }
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    if session.views.len() >= MAX_VIEWS {
        return Err(Fault::invalid_request("too many views in this session"));
    }
    let id = format!("session[{}]{}", crate::ids::uuid(), crate::ids::uuid());
    session.views.insert(id.clone(), View { container, types: args.type_, recursive: args.recursive });
    Ok(call.reply::<CreateContainerView>(&MoRef::new(&id)))
}

fn destroy(call: &Call<'_>) -> Result<Reply, Fault> {
    let mut state = call.world.lock();
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    session.views.remove(call.this().value()).ok_or_else(|| Fault::not_found(call.this()))?;
    drop(state);
    call.world.touch();
    Ok(call.reply::<DestroyView>(&()))
}
