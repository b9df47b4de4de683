//! Writes exchanges down while they happen.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    exchange::{Exchange, Outcome, write_title},
    scrub::{Scrub, Scrubber},
};
use crate::transport::{BoxFuture, Request, Response, Transport, TransportError};

/// A transport that writes down what passes through another one. See the [module](super) for an example.
///
/// Each exchange is written whole when it ends, so exchanges of several tasks do not mix. When writing fails, the
/// recording ends and the calls go on; [`Recorder::finish`] tells.
pub struct Recorder {
    inner: Arc<dyn Transport>,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    scrubber: Scrubber,
    /// Written so far, or why nothing more is written.
    outcome: io::Result<u64>,
}

impl Recorder {
    /// Records the exchanges of `inner` into `out`, which is written to from within calls: let it be a file or memory.
    pub fn new(inner: Arc<dyn Transport>, out: impl Write + Send + 'static, scrub: Scrub) -> Self {
        let mut out: Box<dyn Write + Send> = Box::new(out);
        let outcome = write_title(&mut out).map(|()| 0);
        Self { inner, state: Mutex::new(State { out, scrubber: Scrubber::new(scrub), outcome }) }
    }

    /// Writes what is left in buffers and tells how many exchanges there are.
    ///
    /// # Errors
    /// The first failure of the writer, since which nothing was written.
    pub fn finish(&self) -> io::Result<u64> {
        let mut state = self.lock();
        match &state.outcome {
            Ok(count) => {
                let count = *count;
                state.out.flush()?;
                Ok(count)
            }
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    fn record(&self, request: &Request, outcome: &Result<Response, TransportError>) {
        let mut state = self.lock();
        let Ok(count) = state.outcome else { return };
        let exchange = state.scrubber.exchange(request, outcome);
        let written = exchange.write(&mut state.out);
        if let Err(error) = &written {
            tracing::warn!(%error, "the recording ends here");
        }
        state.outcome = written.map(|()| count + 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Recorder {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            let outcome = self.inner.send(request.clone()).await;
            self.record(&request, &outcome);
            outcome
        })
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Scrubber {
    fn exchange(&mut self, request: &Request, outcome: &Result<Response, TransportError>) -> Exchange {
        let asked = text_of(&request.body);
        // Everything is learned before anything is written: an answer may name what the request holds.
        if let Some(cookie) = &request.cookie {
            self.secret(cookie.expose());
        }
        self.learn(&asked);
        let outcome = match outcome {
            Ok(response) => {
                let body = text_of(&response.body);
                self.learn(&body);
                Outcome::Answer {
                    status: response.status,
                    content_type: response.content_type.clone(),
                    cookie: response.cookie.as_ref().map(|cookie| self.secret(cookie.expose())),
                    body: self.body(&body),
                }
            }
            Err(error) => {
                Outcome::Failure { kind: error.kind(), sent: error.was_sent(), message: self.words(&error.to_string()) }
            }
        };
        Exchange {
            verb: request.verb,
            path: self.words(&request.path),
            action: request.soap_action.clone(),
            body: self.body(&asked),
            outcome,
        }
    }
}

/// SOAP is text. What is not is left out, and said to be.
fn text_of(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} bytes that are no text)", body.len()),
    }
}
