//! The server's sessions: who is there, another one for a helper, and the end of those that were left behind.

use vsphere_vim_types::{DateTime, UserSession, methods, mo::SessionManager};

use super::Vim;
use crate::{
    call::CallOptions,
    error::{Error, Result},
    secret::Secret,
};

/// A session on the server.
#[derive(Clone, Debug, PartialEq)]
#[doc(alias = "UserSession")]
#[non_exhaustive]
pub struct SessionInfo {
    /// Names the session for [`Vim::terminate_sessions`]. Not the cookie.
    pub key: String,
    /// Who logged in.
    pub user: String,
    /// When.
    pub logged_in: DateTime,
    /// The last call.
    pub last_active: DateTime,
    /// From where; empty before 5.1.
    pub address: String,
    /// With which program; empty before 5.1.
    pub user_agent: String,
    /// Calls so far; zero before 5.1.
    pub calls: i64,
    /// Whether an extension logged in.
    pub extension: bool,
    /// Whether it is the one that asks.
    pub own: bool,
}

impl Vim {
    /// Lists the sessions on the server.
    ///
    /// # Errors
    /// [`Error::Property`] without the privilege, otherwise as [`Vim::invoke`].
    ///
    /// # Privileges
    /// `Sessions.TerminateSession`; who lacks it sees none.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "sessionList")]
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        let own = self.current_session().await?;
        let all = self.get_optional(&self.session_manager()?, SessionManager::SESSION_LIST).await?;
        let own = own.map(|session| session.key);
        Ok(all.unwrap_or_default().into_iter().map(|session| SessionInfo::of(session, own.as_deref())).collect())
    }

    /// The session of this client, as the server sees it; `None` when it does not say.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "currentSession")]
    pub async fn current_session(&self) -> Result<Option<SessionInfo>> {
        let session = self.get_optional(&self.session_manager()?, SessionManager::CURRENT_SESSION).await?;
        Ok(session.map(|session| {
            let key = session.key.clone();
            SessionInfo::of(session, Some(&key))
        }))
    }

    /// Ends sessions of others, by [`SessionInfo::key`], such as those that a crashed run left behind.
    ///
    /// # Errors
    /// [`Error::Fault`] with `NotFound` when one of them is gone already: some of the others may be ended then.
    ///
    /// # Privileges
    /// `Sessions.TerminateSession`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have had its effect.
    #[doc(alias = "TerminateSession")]
    pub async fn terminate_sessions<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        let session_id: Vec<_> = keys.into_iter().map(|key| key.as_ref().to_owned()).collect();
        if session_id.is_empty() {
            return Ok(());
        }
        let args = methods::TerminateSession { session_id, ..Default::default() };
        self.invoke(&self.session_manager()?, args).await
    }

    /// Acquires a ticket with which another connection opens a session of the same user: see
    /// [`Credentials::clone_of`](crate::Credentials::clone_of). It works once and for some minutes.
    ///
    /// # Errors
    /// As [`Vim::invoke`]; [`Error::Unsupported`] on servers without sessions.
    ///
    /// # Cancel safety
    /// Cancel safe; a ticket that nobody receives expires.
    #[doc(alias = "AcquireCloneTicket")]
    pub async fn clone_ticket(&self) -> Result<Secret> {
        let options = CallOptions::default().idempotent(true);
        let ticket =
            self.invoke_with(&self.session_manager()?, methods::AcquireCloneTicket::default(), options).await?;
        if ticket.is_empty() {
            return Err(Error::unsupported("AcquireCloneTicket", "the server gave an empty ticket"));
        }
        Ok(Secret::new(ticket))
    }
}

impl SessionInfo {
    fn of(session: UserSession, own: Option<&str>) -> Self {
        Self {
            own: own == Some(&session.key),
            key: session.key,
            user: session.user_name,
            logged_in: session.login_time,
            last_active: session.last_active_time,
            address: session.ip_address,
            user_agent: session.user_agent,
            calls: session.call_count,
            extension: session.extension_session,
        }
    }
}
