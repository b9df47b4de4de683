//! SessionManager: every way in, the way out, and the list of who is there.

use vsphere_vim_types::methods::{
    AcquireCloneTicket, CloneSession, Login, LoginByToken, LoginExtensionByCertificate, Logout, SessionIsActive,
    SetLocale, TerminateSession,
};
use vsphere_vim_types::{Method, UserSession};

use crate::Fault;
use crate::events::Happened;
use crate::personality::{Fixed, Personality};
use crate::session::public_key;

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "Login" => login(call),
        "LoginByToken" => login_by_token(call),
        "LoginExtensionByCertificate" => login_extension(call),
        "AcquireCloneTicket" => {
            let user = call.user();
            Ok(call.reply::<AcquireCloneTicket>(&call.world.lock().sessions.clone_ticket(&user)))
        }
        "CloneSession" => {
            let args: CloneSession = call.args()?;
            let user = call.world.lock().sessions.redeem_clone_ticket(&args.clone_ticket);
            enter::<CloneSession>(call, &user.ok_or_else(invalid_login)?, false)
        }
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
        "TerminateSession" => terminate(call),
        "AcquireGenericServiceTicket" => super::files::service_ticket(call),
        "SetLocale" => Ok(call.reply::<SetLocale>(&())),
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn login(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: Login = call.args()?;
    let settings = &call.world.settings;
    if args.user_name != settings.username || args.password != settings.password {
        return Err(invalid_login());
    }
    enter::<Login>(call, &args.user_name, false)
}

fn login_by_token(call: &Call<'_>) -> Result<Reply, Fault> {
    if call.world.personality() != Personality::VCenter {
        return Err(Fault::not_supported("LoginByToken"));
    }
    let user = call.world.tokens.verify(call.body).map_err(|reason| {
        tracing::debug!(reason, "token refused");
        invalid_login()
    })?;
    enter::<LoginByToken>(call, &user, false)
}

fn login_extension(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: LoginExtensionByCertificate = call.args()?;
    let shown = call.certificate.ok_or_else(|| {
        Fault::new("NoClientCertificate", "No certificate was shown by the client of this connection")
    })?;
    let registered = call
        .world
        .settings
        .extensions
        .iter()
        .any(|(key, certificate)| *key == args.extension_key && certificate == shown);
    if !registered {
        return Err(invalid_login());
    }
    enter::<LoginExtensionByCertificate>(call, &args.extension_key, true)
}

/// Opens a session.
fn enter<M: Method<Output = UserSession>>(call: &Call<'_>, user: &str, extension: bool) -> Result<Reply, Fault> {
    let mut state = call.world.lock();
    // A second login on a session replaces it: what belonged to it is gone.
    if let Some(old) = &call.session {
        state.end_session(old);
    }
    let key = state.sessions.open(user, extension);
    let login = Happened {
        kind: "UserLoginSessionEvent",
        user: user.into(),
        about: call.world.fixed(Fixed::RootFolder),
        name: String::new(),
        message: format!("User {user} logged in"),
        chain: None,
        fields: Vec::new(),
    };
    state.record(call.world, login);
    let session = state.sessions.get(&key).ok_or_else(|| Fault::not_authenticated(call.this()))?.to_wire(&key);
    let mut reply = call.reply::<M>(&session);
    reply.cookie = Some(key);
    Ok(reply)
}

fn terminate(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: TerminateSession = call.args()?;
    let own = public_key(call.session()?);
    let mut state = call.world.lock();
    for id in &args.session_id {
        // One's own session is ended by Logout.
        if *id == own {
            return Err(Fault::invalid_argument("sessionId"));
        }
        let key = state.sessions.all().find(|(key, _)| public_key(key) == *id).map(|(key, _)| key.clone());
        let key = key.ok_or_else(|| Fault::new("NotFound", "The session was not found"))?;
        state.end_session(&key);
    }
    drop(state);
    call.world.touch();
    Ok(call.reply::<TerminateSession>(&()))
}

fn invalid_login() -> Fault {
    Fault::new("InvalidLogin", "Cannot complete login due to an incorrect user name or password.")
}
