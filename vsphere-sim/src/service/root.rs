//! ServiceInstance and SessionManager: content, clock, login.

use vsphere_vim_types::internal::{InternalContent, RetrieveInternalContent};
use vsphere_vim_types::methods::{
    CurrentTime, Login, Logout, RetrieveServiceContent, SessionIsActive, TerminateSession,
};
use vsphere_vim_types::{DateTime, methods::SetLocale};

use crate::Fault;
use crate::inventory::fixed::content;
use crate::personality::Fixed;
use crate::session::public_key;

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "RetrieveServiceContent" => Ok(call.reply::<RetrieveServiceContent>(&content(call.world))),
        "CurrentTime" => Ok(call.reply::<CurrentTime>(&DateTime::now())),
        "RetrieveInternalContent" => {
            let service = call.world.fixed(Fixed::NfcService);
            Ok(call.reply::<RetrieveInternalContent>(&InternalContent {
                nfc_service: Some(service.cast()),
                ..Default::default()
            }))
        }
        "Login" => login(call),
        "Logout" => {
            let key = call.session()?.to_owned();
            call.world.lock().end_session(&key);
            call.world.touch();
            Ok(call.reply::<Logout>(&()))
        }
        "SessionIsActive" => {
            let args: SessionIsActive = call.args()?;
            let state = call.world.lock();
            let active = state
                .sessions
                .all()
                .any(|(key, session)| public_key(key) == args.session_id && session.user == args.user_name);
            Ok(call.reply::<SessionIsActive>(&active))
        }
        "TerminateSession" => {
            let args: TerminateSession = call.args()?;
            let mut state = call.world.lock();
            for id in &args.session_id {
                let key = state.sessions.all().find(|(key, _)| public_key(key) == *id).map(|(key, _)| key.clone());
                let key = key.ok_or_else(|| Fault::new("NotFound", "The session was not found"))?;
                state.end_session(&key);
            }
            Ok(call.reply::<TerminateSession>(&()))
        }
        "AcquireGenericServiceTicket" => super::files::service_ticket(call),
        "SetLocale" => Ok(call.reply::<SetLocale>(&())),
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn login(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: Login = call.args()?;
    let settings = &call.world.settings;
    if args.user_name != settings.username || args.password != settings.password {
        return Err(Fault::new("InvalidLogin", "Cannot complete login due to an incorrect user name or password."));
    }
    let mut state = call.world.lock();
    // A second login on a session replaces it: what belonged to it is gone.
    if let Some(old) = &call.session {
        state.end_session(old);
    }
    let key = state.sessions.open(&args.user_name);
    let session = state.sessions.get(&key).ok_or_else(|| Fault::not_authenticated(call.this()))?.to_wire(&key);
    let mut reply = call.reply::<Login>(&session);
    reply.cookie = Some(key);
    Ok(reply)
}
