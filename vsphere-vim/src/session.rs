//! One login, shared by every task: who is logged in, and what to do when the server forgets it.
//!
//! The session dies when idle (30 minutes by default) and of old age (a day); keep-alive only helps against the
//! first. So every call may find it dead, and then exactly one of the tasks logs in again while the others wait.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use vsphere_vim_types::{MethodFault, Poly};

use crate::{
    credentials::Kind,
    error::{Call, Error, Result, ServerFault},
    secret::Secret,
    sts::{TokenFault, TokenRefusal},
};

/// The state that all calls share.
#[derive(Debug)]
pub(crate) struct Session {
    state: Mutex<State>,
    /// Counts logins, so that a task can tell whether somebody else has already logged in again.
    generation: AtomicU64,
    /// Held during a login: single flight.
    flight: tokio::sync::Mutex<()>,
    renewal: Renewal,
}

/// What the credentials are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// Any number of logins; after a refusal nobody tries again for this long.
    Always(Duration),
    /// One login.
    Once,
    /// No login at all: the session is somebody else's.
    Never,
}

impl Renewal {
    pub(crate) fn of(kind: &Kind) -> Self {
        match kind {
            // Each wrong password counts towards the account's lock.
            Kind::Password { .. } | Kind::Extension(_) => Self::Always(REFUSAL_HOLDS),
            Kind::Token(_) | Kind::TokenSource(_) => Self::Always(TOKEN_REFUSAL_HOLDS),
            Kind::Clone(_) => Self::Once,
            Kind::Cookie(_) => Self::Never,
        }
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The last refusal since the last login.
    refused: Option<Refused>,
    cookie: Option<Secret>,
    last_use: Instant,
    logged_in: Instant,
}

#[derive(Debug)]
enum Phase {
    /// Before the first login.
    New,
    LoggedIn,
    /// There is no session, because the credentials were refused.
    Refused,
    LoggedOut,
}

/// The credentials were refused. Asking again soon would only lock the account.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    since: Instant,
    holds: Duration,
}

impl Refused {
    fn by(error: &Error, renewal: Renewal) -> Option<Self> {
        let (refusal, holds) = match error {
            Error::Fault(fault) if fault.fault.is_a("InvalidLogin") || fault.fault.is_a("NoPermission") => {
                let holds = match renewal {
                    Renewal::Always(holds) => holds,
                    Renewal::Once | Renewal::Never => Duration::MAX,
                };
                (Refusal::Server(fault.fault.clone(), fault.message.clone()), holds)
            }
            // Behind the token service there is a password too.
            Error::Token(refusal) if refusal.fault == TokenFault::FailedAuthentication => {
                (Refusal::TokenService((**refusal).clone()), REFUSAL_HOLDS)
            }
            // The network failed, not the credentials: the next call tries again.
            _ => return None,
        };
        Some(Self { refusal, since: Instant::now(), holds })
    }
}

/// Who refused, and in which words.
#[derive(Clone, Debug)]
enum Refusal {
    Server(Poly<MethodFault>, Box<str>),
    TokenService(TokenRefusal),
}

/// What a task does after it was told that it is not logged in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heal {
    /// Another task has logged in meanwhile: just repeat the call.
    AlreadyHealed,
    /// This task logs in.
    LogIn,
    /// The session was closed on purpose.
    Closed,
}

impl State {
    /// The refusal that still holds, as an error.
    fn refusal(&self) -> Option<Error> {
        let refused = self.refused.as_ref().filter(|refused| refused.since.elapsed() < refused.holds)?;
        Some(refused.refusal.clone().into())
    }
}

impl Session {
    pub(crate) fn new(renewal: Renewal) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State { phase: Phase::New, refused: None, cookie: None, last_use: now, logged_in: now }),
            generation: AtomicU64::new(0),
            flight: tokio::sync::Mutex::new(()),
            renewal,
        }
    }

    /// Takes over the session of somebody else.
    pub(crate) fn adopt(&self, cookie: Secret) {
        let mut state = self.lock();
        state.cookie = Some(cookie);
        state.phase = Phase::LoggedIn;
        state.logged_in = Instant::now();
    }

    /// What the credentials are good for.
    pub(crate) fn renewal(&self) -> Renewal {
        self.renewal
    }

    /// How long ago the last login was.
    pub(crate) fn age(&self) -> Duration {
        self.lock().logged_in.elapsed()
    }

    /// The number of the current login.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The cookie to send, and a note that the session is in use.
    pub(crate) fn cookie_for_use(&self) -> Option<Secret> {
        let mut state = self.lock();
        state.last_use = Instant::now();
        state.cookie.clone()
    }

    /// The cookie, for those who use the session by other ways.
    pub(crate) fn cookie(&self) -> Option<Secret> {
        self.lock().cookie.clone()
    }

    /// Takes a newly issued cookie. One that answers a request of an earlier login is ignored.
    pub(crate) fn accept_cookie(&self, cookie: Option<Secret>, generation: u64) {
        if let Some(cookie) = cookie {
            let mut state = self.lock();
            if self.generation() == generation {
                state.cookie = Some(cookie);
            }
        }
    }

    /// How long nobody has used the session.
    pub(crate) fn idle(&self) -> Duration {
        self.lock().last_use.elapsed()
    }

    /// Waits for the right to log in.
    pub(crate) async fn flight(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.flight.lock().await
    }

    /// Decides, while holding the flight, what to do about a session found dead in login `seen`.
    pub(crate) fn heal(&self, seen: u64) -> Result<Heal> {
        let mut state = self.lock();
        let refusal = state.refusal();
        match &state.phase {
            Phase::LoggedOut => Ok(Heal::Closed),
            Phase::New | Phase::LoggedIn if self.generation() != seen => Ok(Heal::AlreadyHealed),
            Phase::LoggedIn if self.renewal == Renewal::Never => {
                Err(ended("it belongs to another program, which has ended it or let it expire"))
            }
            Phase::LoggedIn if self.renewal == Renewal::Once => {
                Err(ended("it was cloned from another one, and a clone ticket works once"))
            }
            _ => {
                if let Some(refusal) = refusal {
                    return Err(refusal);
                }
                // The dead cookie would only confuse the login.
                state.cookie = None;
                Ok(Heal::LogIn)
            }
        }
    }

    /// The refusal that still holds, before a login that is not made because a session is dead.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.lock().refusal()
    }

    /// Notes the outcome of a login made while holding the flight, when there was no session before it.
    pub(crate) fn logged_in(&self, outcome: &Result<()>) {
        self.note(outcome, Phase::Refused);
    }

    /// Notes the outcome of a login made while holding the flight, in whose failure the old session stays in use.
    pub(crate) fn renewed(&self, outcome: &Result<()>) {
        self.note(outcome, Phase::LoggedIn);
    }

    fn note(&self, outcome: &Result<()>, refused: Phase) {
        let mut state = self.lock();
        // Who has logged out meanwhile waits for the flight, and ends what was opened.
        let closed = matches!(state.phase, Phase::LoggedOut);
        match outcome {
            Ok(()) => {
                state.phase = if closed { Phase::LoggedOut } else { Phase::LoggedIn };
                state.refused = None;
                state.logged_in = Instant::now();
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
            Err(error) => {
                if let Some(refusal) = Refused::by(error, self.renewal) {
                    state.refused = Some(refusal);
                    state.phase = if closed { Phase::LoggedOut } else { refused };
                }
            }
        }
    }

    /// Closes the session for good. True when there was one.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.lock();
        matches!(std::mem::replace(&mut state.phase, Phase::LoggedOut), Phase::LoggedIn)
    }

    /// Forgets the cookie, after the logout was sent.
    pub(crate) fn forget_cookie(&self) {
        self.lock().cookie = None;
    }

    /// True between login and logout.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.lock().phase, Phase::LoggedIn)
    }

    /// True after logout.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.lock().phase, Phase::LoggedOut)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Server(fault, message) => {
                Error::Fault(Box::new(ServerFault { call: Call::named("Login"), fault, message }))
            }
            Refusal::TokenService(refusal) => Error::Token(Box::new(refusal)),
        }
    }
}

fn ended(why: &str) -> Error {
    Error::SessionEnded { why: why.into() }
}

/// For this long after a refusal nobody tries the same credentials again: vCenter locks an account after five wrong
/// passwords within three minutes and opens it five minutes later, by default.
const REFUSAL_HOLDS: Duration = Duration::from_secs(300);

/// Refused tokens lock no account; this only keeps many tasks from asking for tokens in a loop.
const TOKEN_REFUSAL_HOLDS: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid_login() -> Result<()> {
        let mut fault: Poly<MethodFault> = Poly::default();
        fault.unknown.set_type_name("InvalidLogin");
        Err(Refusal::Server(fault, "wrong".into()).into())
    }

    #[test]
    fn only_the_first_of_many_tasks_logs_in() {
        let session = Session::new(Renewal::Always(REFUSAL_HOLDS));
        session.logged_in(&Ok(()));
        let seen = session.generation();
        assert_eq!(session.heal(seen).unwrap(), Heal::LogIn);
        session.logged_in(&Ok(()));
        assert_eq!(session.heal(seen).unwrap(), Heal::AlreadyHealed);
        assert_eq!(session.heal(session.generation()).unwrap(), Heal::LogIn);
    }

    #[test]
    fn refused_credentials_are_not_tried_again() {
        let session = Session::new(Renewal::Always(REFUSAL_HOLDS));
        session.logged_in(&Ok(()));
        session.logged_in(&invalid_login());
        let error = session.heal(session.generation()).unwrap_err();
        assert_eq!(error.fault_name(), Some("InvalidLogin"));
    }

    #[test]
    fn network_trouble_during_login_does_not_condemn_the_credentials() {
        let session = Session::new(Renewal::Always(REFUSAL_HOLDS));
        session.logged_in(&Ok(()));
        session.logged_in(&Err(Error::not_found("x")));
        assert_eq!(session.heal(session.generation()).unwrap(), Heal::LogIn);
    }

    #[test]
    fn a_late_answer_of_the_old_login_does_not_bring_its_cookie_back() {
        let session = Session::new(Renewal::Always(REFUSAL_HOLDS));
        session.accept_cookie(Some("old".into()), 0);
        session.logged_in(&Ok(()));
        session.accept_cookie(Some("new".into()), 1);
        session.accept_cookie(Some("old".into()), 0);
        assert_eq!(session.cookie().unwrap().expose(), "new");
    }

    #[test]
    fn what_cannot_log_in_again_says_so() {
        for renewal in [Renewal::Once, Renewal::Never] {
            let session = Session::new(renewal);
            session.logged_in(&Ok(()));
            let error = session.heal(session.generation()).unwrap_err();
            assert!(matches!(error, Error::SessionEnded { .. }) && !error.is_retryable(), "{error}");
        }
    }

    #[test]
    fn a_refusal_of_the_token_service_holds_too() {
        let session = Session::new(Renewal::Always(TOKEN_REFUSAL_HOLDS));
        let refusal = TokenRefusal { fault: TokenFault::FailedAuthentication, message: "no".into() };
        session.logged_in(&Err(Error::Token(Box::new(refusal))));
        assert!(matches!(session.heal(0), Err(Error::Token(_))));
    }

    #[test]
    fn a_login_that_was_under_way_does_not_undo_a_logout() {
        let session = Session::new(Renewal::Always(REFUSAL_HOLDS));
        session.logged_in(&Ok(()));
        assert_eq!(session.heal(session.generation()).unwrap(), Heal::LogIn);
        assert!(session.close());
        for outcome in [Ok(()), invalid_login()] {
            session.logged_in(&outcome);
            assert!(session.is_closed() && !session.is_open());
        }
    }

    #[test]
    fn a_refused_renewal_keeps_the_session_and_the_refusal() {
        let session = Session::new(Renewal::Always(REFUSAL_HOLDS));
        session.logged_in(&Ok(()));
        session.renewed(&invalid_login());
        assert!(session.is_open() && session.refusal().is_some());
        assert!(session.heal(session.generation()).is_err(), "when it dies, nobody hurries to be refused again");
    }

    #[test]
    fn nobody_logs_in_after_logout() {
        let session = Session::new(Renewal::Always(REFUSAL_HOLDS));
        session.logged_in(&Ok(()));
        assert!(session.is_open() && session.close() && !session.close());
        assert_eq!(session.heal(session.generation()).unwrap(), Heal::Closed);
    }
}
