//! Client sessions: login, expiry, and what belongs to a session.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vsphere_vim_types::{DateTime, UserSession};

use crate::collector::{Collector, Page};
use crate::service::EventCollector;
use crate::view::View;

/// One logged-in client.
pub(crate) struct Session {
    pub(crate) user: String,
    login: DateTime,
    last: DateTime,
    started: Instant,
    used: Instant,
    calls: i64,
    extension: bool,
    /// Views by id.
    pub(crate) views: BTreeMap<String, View>,
    /// Property collectors by id, the default one included once it is used.
    pub(crate) collectors: BTreeMap<String, Collector>,
    /// Event collectors by id.
    pub(crate) event_collectors: BTreeMap<String, EventCollector>,
    /// Rests of paged retrievals by token.
    pub(crate) pages: BTreeMap<String, Page>,
}

/// All sessions, by key (the cookie's value).
#[derive(Default)]
pub(crate) struct Sessions {
    live: BTreeMap<String, Session>,
    /// Whose session a ticket clones, and since when it waits.
    clone_tickets: BTreeMap<String, (String, Instant)>,
    opened: u64,
}

impl Sessions {
    /// A new session; returns its key.
    pub(crate) fn open(&mut self, user: &str, extension: bool) -> String {
        let key: String = crate::ids::random_bytes::<20>().iter().map(|byte| format!("{byte:02x}")).collect();
        let (now, instant) = (DateTime::now(), Instant::now());
        let session = Session {
            user: user.into(),
            login: now,
            last: now,
            started: instant,
            used: instant,
            calls: 0,
            extension,
            views: BTreeMap::new(),
            collectors: BTreeMap::new(),
            event_collectors: BTreeMap::new(),
            pages: BTreeMap::new(),
        };
        self.live.insert(key.clone(), session);
        self.opened += 1;
        key
    }

    /// Logins so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Counts a call on the session; false when there is no such session (any more).
    pub(crate) fn use_now(&mut self, key: &str, idle: Duration, age: Duration) -> bool {
        let Some(session) = self.live.get_mut(key) else { return false };
        if session.used.elapsed() > idle || session.started.elapsed() > age {
            self.close(key);
            return false;
        }
        session.used = Instant::now();
        session.last = DateTime::now();
        session.calls += 1;
        true
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Session> {
        self.live.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Session> {
        self.live.get_mut(key)
    }

    /// Ends a session with everything that belongs to it.
    pub(crate) fn close(&mut self, key: &str) {
        self.live.remove(key);
    }

    /// A ticket that opens another session of the same user, once.
    pub(crate) fn clone_ticket(&mut self, user: &str) -> String {
        self.clone_tickets.retain(|_, (_, issued)| issued.elapsed() < CLONE_TICKET_LIVES);
        let ticket = crate::ids::uuid();
        self.clone_tickets.insert(ticket.clone(), (user.to_owned(), Instant::now()));
        ticket
    }

    /// Uses a ticket up; the user whose session it clones.
    pub(crate) fn redeem_clone_ticket(&mut self, ticket: &str) -> Option<String> {
        let (user, issued) = self.clone_tickets.remove(ticket)?;
        (issued.elapsed() < CLONE_TICKET_LIVES).then_some(user)
    }

    /// Ends all sessions.
    pub(crate) fn close_all(&mut self) {
        self.live.clear();
    }

    /// The collectors of all sessions.
    pub(crate) fn collectors_mut(&mut self) -> impl Iterator<Item = &mut Collector> {
        self.live.values_mut().flat_map(|session| session.collectors.values_mut())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Session)> {
        self.live.iter()
    }
}

impl Session {
    /// The session as the API shows it. The `key` of the API is not the cookie: who sees it cannot use it.
    pub(crate) fn to_wire(&self, key: &str) -> UserSession {
        UserSession {
            key: public_key(key),
            user_name: self.user.clone(),
            full_name: self.user.clone(),
            login_time: self.login,
            last_active_time: self.last,
            locale: "en".into(),
            message_locale: "en".into(),
            extension_session: self.extension,
            ip_address: "127.0.0.1".into(),
            user_agent: String::new(),
            call_count: self.calls,
            ..Default::default()
        }
    }
}

/// How long an unused clone ticket is good for. Real servers: unknown, some minutes.
const CLONE_TICKET_LIVES: Duration = Duration::from_secs(300);

/// The session's id in the API, derived from the cookie and useless without it.
pub(crate) fn public_key(cookie: &str) -> String {
    crate::ids::uuid_of(&format!("session {cookie}"))
}
