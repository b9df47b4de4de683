//! Login, login again, keep-alive, logout: what the client does about its [`Session`](crate::session::Session).

use std::{sync::Weak, time::Duration};

use bytes::Bytes;
use vsphere_vim_types::{methods, mo, soap};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Inner, Vim};
use crate::{
    call::{CallOptions, SessionUse},
    error::{Error, Result},
    property::{self, FilterSpec, ObjectSpec, PropertySpec},
    session::Heal,
    transport::BoxFuture,
};

impl Vim {
    /// Ends the session on the server. Calls made later fail with `NotAuthenticated`.
    ///
    /// # Errors
    /// [`Error::Transport`] when the server could not be told; the session then ends by itself.
    ///
    /// # Cancel safety
    /// A dropped future may leave the session on the server; here it is closed in any case.
    #[doc(alias = "Logout")]
    pub async fn logout(&self) -> Result<()> {
        if !self.inner.session.close() {
            return Ok(());
        }
        let options = CallOptions::default().session(SessionUse::Report);
        let outcome = self.invoke_with(&self.session_manager()?, methods::Logout::default(), options).await;
        self.inner.session.forget_cookie();
        match outcome {
            Err(error) if error.is_fault("NotAuthenticated") => Ok(()),
            other => other.map(drop),
        }
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
        let manager = self.session_manager()?;
        let credentials = &self.inner.credentials;
        let mut args = methods::Login {
            user_name: credentials.user().to_owned(),
            password: credentials.secret().expose().to_owned(),
            locale: self.inner.settings.locale.clone(),
            ..Default::default()
        };
        let operation_id = self.next_operation_id();
        let body = Zeroizing::new(
            soap::encode_request(manager.as_untyped(), &args, self.inner.service.request_options(&operation_id))
                .into_bytes(),
        );
        args.password.zeroize();
        let body = Bytes::from_owner(body);
        let outcome = self
            .invoke_encoded::<methods::Login>(&self.inner.service, manager.as_untyped(), body, &operation_id, options)
            .await
            .map(drop);
        self.inner.session.logged_in(&outcome);
        outcome
    }
}

/// Touches the session when nobody else did, until the client is gone. No error ends it.
pub(super) async fn keep_alive(client: Weak<Inner>, interval: Duration) {
    let interval = interval.max(SHORTEST_KEEP_ALIVE);
    let mut wait = interval;
    loop {
        tokio::time::sleep(wait).await;
        let Some(inner) = client.upgrade() else { return };
        if !inner.session.is_open() {
            return;
        }
        let idle = inner.session.idle();
        wait = interval.saturating_sub(idle);
        if wait.is_zero() {
            wait = interval;
            let vim = Vim { inner };
            if let Err(error) = vim.touch().await {
                tracing::warn!(%error, "keep-alive failed; trying again later");
            }
        }
    }
}

/// A shorter interval would only load the server.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(1);
