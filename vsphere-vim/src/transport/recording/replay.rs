//! Answers from a recording.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    io::{BufReader, Read},
    sync::{Mutex, PoisonError},
};

use vsphere_vim_types::soap;

use super::{
    exchange::{Exchange, Outcome, read_title},
    leaves::{Kind, leaves},
};
use crate::{
    error::{Error, Result},
    transport::{BoxFuture, Request, Response, Transport, TransportError, TransportErrorKind, Verb},
};

/// How closely a run has to follow the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayMode {
    /// Each call of a method on an object has to ask what the recorded one asked, secrets, user and host names apart,
    /// and there are no more calls than recorded.
    Strict,
    /// The arguments may differ, and the last answer is given again when there are no more.
    Lenient,
}

/// A transport without a network: calls of one method on one object get the recorded answers in order.
pub struct Replay {
    mode: ReplayMode,
    waiting: Mutex<HashMap<Key, VecDeque<Exchange>>>,
}

/// What is called: the method and its object, or the path where it is no SOAP call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    path: String,
    method: String,
    object: String,
}

impl Replay {
    /// Reads a recording.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when it is none, or damaged.
    pub fn read(recording: impl Read, mode: ReplayMode) -> Result<Self> {
        let invalid = |error: std::io::Error| Error::invalid_input("recording", error.to_string());
        let mut input = BufReader::new(recording);
        read_title(&mut input).map_err(invalid)?;
        let mut waiting: HashMap<Key, VecDeque<Exchange>> = HashMap::new();
        while let Some(exchange) = Exchange::read(&mut input).map_err(invalid)? {
            let key = Key::of(exchange.verb, &exchange.path, exchange.body.as_bytes());
            waiting.entry(key).or_default().push_back(exchange);
        }
        Ok(Self { mode, waiting: Mutex::new(waiting) })
    }

    /// How many recorded exchanges have not been asked for.
    pub fn remaining(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).values().map(VecDeque::len).sum()
    }

    fn answer(&self, request: &Request) -> Result<Response, TransportError> {
        let key = Key::of(request.verb, &request.path, &request.body);
        let refused = |what: &str| {
            let text = format!("the recording {what} {} {}", key.method, key.object);
            Err(TransportError::new(TransportErrorKind::Malformed, text).not_sent())
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = waiting.get_mut(&key) else { return refused("has no call of") };
        let asked = comparable(&String::from_utf8_lossy(&request.body));
        // Tasks that ran side by side may come in another order: the same question gets its own answer.
        let same = queue.iter().position(|exchange| comparable(&exchange.body) == asked);
        let exchange = match (same, self.mode) {
            (Some(at), ReplayMode::Strict) => queue.remove(at),
            (None, ReplayMode::Strict) => return refused("has no further call with these arguments of"),
            (_, ReplayMode::Lenient) if queue.len() == 1 => queue.front().cloned(),
            (same, ReplayMode::Lenient) => queue.remove(same.unwrap_or(0)),
        };
        match exchange.map(|exchange| exchange.outcome) {
            None => refused("has no further call of"),
            Some(Outcome::Failure { kind, sent, message }) => {
                let error = TransportError::new(kind, message);
                Err(if sent { error } else { error.not_sent() })
            }
            Some(Outcome::Answer { status, content_type, cookie, body }) => {
                Ok(Response { status, content_type, cookie: cookie.map(Into::into), body: body.into() })
            }
        }
    }
}

impl Transport for Replay {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(std::future::ready(self.answer(&request)))
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("mode", &self.mode).field("remaining", &self.remaining()).finish()
    }
}

impl Key {
    fn of(verb: Verb, path: &str, body: &[u8]) -> Self {
        let parsed = match verb {
            Verb::Get => None,
            Verb::Post => soap::Request::parse(body, soap::Limits::default()).ok(),
        };
        let (method, object) =
            parsed.map_or_else(Default::default, |request| (request.method.to_owned(), request.this.to_string()));
        Self { path: path.to_owned(), method, object }
    }
}

/// The question without what differs from run to run.
fn comparable(body: &str) -> String {
    let Ok(leaves) = leaves(body) else { return body.to_owned() };
    let mut out = String::with_capacity(body.len());
    let mut from = 0;
    for leaf in leaves {
        if matches!(leaf.kind, Kind::Secret | Kind::User | Kind::Host | Kind::Volatile) {
            out.push_str(&body[from..leaf.range.start]);
            from = leaf.range.end;
        }
    }
    out.push_str(&body[from..]);
    out
}
