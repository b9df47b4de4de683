//! Login, login again, keep-alive, logout: what the client does about its [`Session`](crate::session::Session).

use std::{sync::Weak, time::Duration};

use bytes::Bytes;
use vsphere_vim_types::{Method, methods, mo, soap};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Inner, Vim};
use crate::{
    call::{CallOptions, CookieUse, Outgoing, SessionUse},
    credentials::{Kind, SamlToken},
    error::{Error, Result},
    property::{self, FilterSpec, ObjectSpec, PropertySpec},
    session::{Heal, Renewal},
    sts::security_header,
    transport::BoxFuture,
};

impl Vim {
    /// Ends the session on the server, unless it was [adopted](crate::Credentials::adopted_cookie). Calls made later
    /// fail with `NotAuthenticated`.
    ///
    /// # Errors
    /// [`Error::Transport`] when the server could not be told; the session then ends by itself.
    ///
    /// # Cancel safety
    /// A dropped future may leave the session on the server; here it is closed in any case.
    #[doc(alias = "Logout")]
    pub async fn logout(&self) -> Result<()> {
        let session = &self.inner.session;
        if !session.close() {
            return Ok(());
        }
        // A login that is under way may open one more; it is the one to be ended then.
        let _flight = session.flight().await;
        // An adopted session belongs to somebody else.
        let outcome = match session.renewal() {
            Renewal::Never => Ok(()),
            Renewal::Always(_) | Renewal::Once => self.end_session(CookieUse::Shared).await,
        };
        session.forget_cookie();
        outcome
    }

    /// Asks whether the session is alive, and logs in again if it is not.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn touch(&self) -> Result<()> {
        let generation = self.inner.session.generation();
        if !self.session_is_alive().await? {
            self.log_in_again(generation).await?;
        }
        Ok(())
    }

    /// True when the server still knows the session. An expired session may be told by a fault (healed on the way)
    /// or, by the property collector, as empty data.
    pub(crate) async fn session_is_alive(&self) -> Result<bool> {
        let filter = FilterSpec::new()
            .read(PropertySpec::of::<mo::SessionManager>().path(mo::SessionManager::CURRENT_SESSION))
            .start(ObjectSpec::from(self.session_manager()?));
        let answer = property::pages::retrieve(self, &filter, CallOptions::default()).await?;
        Ok(answer.iter().any(|content| !content.prop_set.is_empty()))
    }

    /// After an error that may have come from the session's end: logs in again if the session is dead.
    /// False when it was closed on purpose.
    pub(crate) async fn log_in_again_if_dead(&self, seen: u64, error: &Error) -> Result<bool> {
        if error.is_fault("NotAuthenticated") {
            self.log_in_again(seen).await
        } else {
            Ok(self.inner.session.is_open())
        }
    }

    /// Logs in after the session of login `seen` was found dead. False when the session was closed on purpose.
    pub(crate) async fn log_in_again(&self, seen: u64) -> Result<bool> {
        let session = &self.inner.session;
        let _flight = session.flight().await;
        match session.heal(seen)? {
            Heal::Closed => Ok(false),
            Heal::AlreadyHealed => Ok(true),
            Heal::LogIn => {
                tracing::info!(server = %self.inner.endpoint, "the session ended; logging in again");
                self.log_in(CallOptions::default().session(SessionUse::Report)).await?;
                Ok(true)
            }
        }
    }

    /// Logs in; the caller holds the flight. Boxed, because every call may lead here and this is a call.
    pub(super) fn log_in(&self, options: CallOptions) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.log_in_unboxed(options))
    }

    async fn log_in_unboxed(&self, options: CallOptions) -> Result<()> {
        let outcome = self.log_in_by_kind(options).await;
        self.inner.session.logged_in(&outcome);
        outcome
    }

    async fn log_in_by_kind(&self, options: CallOptions) -> Result<()> {
        let locale = self.inner.settings.locale.clone();
        // A login whose answer was lost leaves at worst a session that nobody uses and that expires.
        let options = options.idempotent(true);
        match self.inner.credentials.kind() {
            Kind::Password { user, password } => {
                let args = methods::Login {
                    user_name: user.clone(),
                    password: password.expose().to_owned(),
                    locale,
                    ..Default::default()
                };
                let room = user.len() + password.expose().len();
                self.send_login(args, "", room, options, |args| args.password.zeroize()).await
            }
            Kind::Token(token) => self.log_in_by_token(token, locale, options).await,
            Kind::TokenSource(source) => self.log_in_by_token(&source.token().await?, locale, options).await,
            Kind::Extension(extension) => {
                let args = methods::LoginExtensionByCertificate {
                    extension_key: extension.key.clone(),
                    locale,
                    ..Default::default()
                };
                self.send_login(args, "", 0, options, |_| {}).await
            }
            Kind::Clone(ticket) => {
                let args = methods::CloneSession { clone_ticket: ticket.expose().to_owned(), ..Default::default() };
                // The ticket works once: a second try could only be refused.
                let options = options.idempotent(false);
                self.send_login(args, "", ticket.expose().len(), options, |args| args.clone_ticket.zeroize()).await
            }
            // Adopted sessions are not opened here; `Session::heal` lets nobody come this far.
            Kind::Cookie(_) => Ok(()),
        }
    }

    async fn log_in_by_token(&self, token: &SamlToken, locale: Option<String>, options: CallOptions) -> Result<()> {
        let header = security_header(token);
        let args = methods::LoginByToken { locale, ..Default::default() };
        self.send_login(args, &header, 0, options, |_| {}).await
    }

    /// Sends a login without a cookie, so that the others may go on using the session that it replaces. `room` is the
    /// size of the secrets in `args`, which `wipe` wipes.
    async fn send_login<M: Method>(
        &self,
        mut args: M,
        headers: &str,
        room: usize,
        options: CallOptions,
        wipe: impl FnOnce(&mut M),
    ) -> Result<()> {
        let manager = self.session_manager()?;
        let gated = self.gate(&self.inner.service, &args);
        let operation_id = self.next_operation_id();
        let request = soap::RequestOptions {
            headers,
            // The buffer must not grow: it would leave copies of the secrets behind.
            capacity: ENVELOPE + headers.len() + LONGEST_ESCAPE * room,
            ..self.request_options(&self.inner.service, &operation_id)
        };
        let body = Zeroizing::new(soap::encode_request(manager.as_untyped(), &args, request).into_bytes());
        wipe(&mut args);
        gated?;
        self.invoke_outgoing::<M>(Outgoing {
            operation: M::NAME,
            object: manager.as_untyped(),
            operation_id: &operation_id,
            service: &self.inner.service,
            body: Bytes::from_owner(body),
            options,
            cookie: CookieUse::None,
            route: self.inner.routes.login.as_deref(),
        })
        .await
        .map(drop)
    }

    /// Replaces the session by a new one and ends the old one. Calls that run on the old one at that moment are
    /// repeated on the new one.
    ///
    /// What belongs to the old session goes with it: views, property collectors, leases.
    ///
    /// # Errors
    /// As [`VimBuilder::connect`](crate::VimBuilder::connect); the old session is kept then.
    /// [`Error::SessionEnded`] when the credentials allow one login only.
    ///
    /// # Cancel safety
    /// A dropped future may leave the old session or a new one on the server, which ends by itself.
    pub async fn renew_session(&self) -> Result<()> {
        let session = &self.inner.session;
        let old = {
            let _flight = session.flight().await;
            if !matches!(session.renewal(), Renewal::Always(_)) {
                let why = "these credentials cannot open another session";
                return Err(Error::SessionEnded { why: why.into() });
            }
            if !session.is_open() {
                return Ok(());
            }
            if let Some(refusal) = session.refusal() {
                return Err(refusal);
            }
            let old = session.cookie();
            let outcome = Box::pin(self.log_in_by_kind(CallOptions::default().session(SessionUse::Report))).await;
            session.renewed(&outcome);
            outcome?;
            // A server that issues no other cookie has no other session.
            old.filter(|old| session.cookie().as_ref() != Some(old))
        };
        let Some(old) = old else { return Ok(()) };
        if let Err(error) = self.end_session(CookieUse::Of(old)).await {
            tracing::warn!(%error, "the old session could not be ended; it ends by itself");
        }
        Ok(())
    }

    /// Ends a session; one that is gone already is fine.
    async fn end_session(&self, cookie: CookieUse) -> Result<()> {
        let manager = self.session_manager()?;
        let operation_id = self.next_operation_id();
        let request = self.request_options(&self.inner.service, &operation_id);
        let body = soap::encode_request(manager.as_untyped(), &methods::Logout::default(), request);
        let outgoing = Outgoing {
            operation: methods::Logout::NAME,
            object: manager.as_untyped(),
            operation_id: &operation_id,
            service: &self.inner.service,
            body: body.into(),
            options: CallOptions::default().session(SessionUse::Report),
            cookie,
            route: None,
        };
        match self.invoke_outgoing::<methods::Logout>(outgoing).await {
            Err(error) if error.is_fault("NotAuthenticated") => Ok(()),
            other => other,
        }
    }
}

/// Touches the session when nobody else did, and replaces it when it is old, until the client is gone. No error ends
/// it.
pub(super) async fn keep_alive(client: Weak<Inner>, interval: Option<Duration>, renew_after: Option<Duration>) {
    let interval = interval.map(|interval| interval.max(SHORTEST_KEEP_ALIVE));
    let renew_after = renew_after.map(|age| age.max(SHORTEST_KEEP_ALIVE));
    let longest = interval.or(renew_after).unwrap_or(SHORTEST_KEEP_ALIVE);
    let mut wait = longest.min(renew_after.unwrap_or(longest));
    loop {
        tokio::time::sleep(wait).await;
        let Some(inner) = client.upgrade() else { return };
        if !inner.session.is_open() {
            // Refused credentials may be good again later; a logout is for good.
            if inner.session.is_closed() {
                return;
            }
            wait = longest;
            continue;
        }
        let vim = Vim { inner };
        let session = &vim.inner.session;
        let mut pause = SHORTEST_KEEP_ALIVE;
        if renew_after.is_some_and(|age| session.age() >= age) {
            if let Err(error) = vim.renew_session().await {
                tracing::warn!(%error, "the session could not be renewed; trying again later");
                pause = RENEWAL_PAUSE;
            }
        } else if interval.is_some_and(|interval| session.idle() >= interval)
            && let Err(error) = vim.touch().await
        {
            tracing::warn!(%error, "keep-alive failed; trying again later");
        }
        let until_touch = interval.map(|interval| match interval.saturating_sub(session.idle()) {
            Duration::ZERO => interval,
            rest => rest,
        });
        let until_renewal = renew_after.map(|age| age.saturating_sub(session.age()).max(pause));
        wait = until_touch.into_iter().chain(until_renewal).min().unwrap_or(longest);
    }
}

/// A shorter interval would only load the server.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// After a renewal that failed; the old session goes on meanwhile.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// Everything about a login's envelope but its secrets and headers.
const ENVELOPE: usize = 2048;
/// `&quot;`
const LONGEST_ESCAPE: usize = 6;
