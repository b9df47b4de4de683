//! One call from start to end: send, decode, heal the session, try again where that is harmless.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tracing::{Instrument as _, Span, field};
use vsphere_vim_types::{ManagedObjectReference, soap};

use crate::{
    client::{Service, Vim},
    error::{Call, CallError, Error, Result, ServerFault, TransportError, TransportErrorKind},
    retry::is_harmless_to_repeat,
    secret::Secret,
    transport::{Request, Transport, Verb},
};

/// How a call differs from an ordinary one.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) long_poll: bool,
    pub(crate) idempotent: Option<bool>,
    pub(crate) session: SessionUse,
}

/// What happens when the call finds the session dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionUse {
    /// Log in again and repeat the call.
    #[default]
    Heal,
    /// Report it: what the call refers to (a page token, an own collector) died with the session.
    Report,
    /// First contact: neither heal nor repeat.
    Bare,
}

impl CallOptions {
    /// Waits this long for the answer.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        Self { timeout: Some(limit), ..self }
    }

    /// States whether repeating the call is harmless, for methods of which this crate does not know it.
    #[must_use]
    pub fn idempotent(self, idempotent: bool) -> Self {
        Self { idempotent: Some(idempotent), ..self }
    }

    /// The call blocks on the server for up to `limit`.
    pub(crate) fn long_poll(limit: Duration) -> Self {
        Self { long_poll: true, ..Self::default().timeout(limit) }
    }

    pub(crate) fn session(self, session: SessionUse) -> Self {
        Self { session, ..self }
    }
}

/// Everything about a call but its answer.
pub(crate) struct Outgoing<'a> {
    pub(crate) operation: &'a str,
    pub(crate) object: &'a ManagedObjectReference,
    pub(crate) operation_id: &'a str,
    pub(crate) service: &'a Service,
    pub(crate) body: Bytes,
    pub(crate) options: CallOptions,
    pub(crate) cookie: CookieUse,
    /// Another way to the server than the ordinary one.
    pub(crate) route: Option<&'a dyn Transport>,
}

/// Which session a call belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) enum CookieUse {
    /// The one that all calls share.
    #[default]
    Shared,
    /// None: a login.
    None,
    /// Another one.
    Of(Secret),
}

/// Takes the answer's bytes; keeps the decoded value for the caller.
pub(crate) type Decode<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), soap::Error> + Send);

impl Vim {
    /// Performs a call. The types of arguments and answer are behind `outgoing.body` and `decode`.
    pub(crate) async fn perform(&self, outgoing: Outgoing<'_>, decode: Decode<'_>) -> Result<()> {
        let span = tracing::debug_span!(
            "vim",
            operation = outgoing.operation,
            object = %outgoing.object,
            operation_id = outgoing.operation_id,
            sent = outgoing.body.len(),
            received = field::Empty,
            tries = field::Empty,
            duration_ms = field::Empty,
            outcome = field::Empty,
        );
        let mut trail = Trail { span: span.clone(), started: Instant::now(), tries: 0, received: 0, outcome: None };
        // On the heap: this future is kilobytes, and would be part of every future that calls a server, many levels up.
        let done = Box::pin(self.attempt_until_done(outgoing, decode, &mut trail)).instrument(span).await;
        trail.outcome = Some(match &done {
            Ok(()) => "ok".into(),
            Err(error) => outcome_of(error),
        });
        done
    }

    async fn attempt_until_done(&self, outgoing: Outgoing<'_>, decode: Decode<'_>, trail: &mut Trail) -> Result<()> {
        let settings = self.settings();
        let idempotent = outgoing.options.idempotent.unwrap_or_else(|| is_harmless_to_repeat(outgoing.operation));
        let started = trail.started;
        let mut logins = 0;
        loop {
            trail.tries += 1;
            let tries = trail.tries;
            let generation = self.session().generation();
            let outcome = self.attempt(&outgoing, generation, decode).await;
            let call = || Call { elapsed: started.elapsed(), tries, ..Call::on(outgoing.operation, outgoing.object) };
            match outcome {
                Ok(bytes) => {
                    trail.received = bytes;
                    return Ok(());
                }
                Err(Failure::Transport(source)) => {
                    let delay = match outgoing.options.session {
                        SessionUse::Bare => None,
                        _ => settings.retry.delay(tries, &source, idempotent),
                    };
                    let Some(delay) = delay else {
                        return Err(Error::Transport(Box::new(CallError { call: call(), source })));
                    };
                    tracing::warn!(error = %source, tries, ?delay, "no answer; trying again");
                    tokio::time::sleep(delay).await;
                }
                Err(Failure::Fault(fault)) => {
                    let soap::SoapFault { string, detail, .. } = *fault;
                    let fault = detail.unwrap_or_default();
                    let dead = fault.is_a("NotAuthenticated");
                    if dead && outgoing.options.session == SessionUse::Heal && logins < MAX_LOGINS {
                        logins += 1;
                        if self.log_in_again(generation).await? {
                            continue;
                        }
                    }
                    tracing::debug!(fault = fault.type_name(), message = %string, "refused");
                    return Err(Error::Fault(Box::new(ServerFault { call: call(), fault, message: string.into() })));
                }
                Err(Failure::Malformed(what)) => return Err(Error::protocol(call(), what)),
            }
        }
    }

    async fn attempt(&self, outgoing: &Outgoing<'_>, generation: u64, decode: Decode<'_>) -> Result<usize, Failure> {
        let service = outgoing.service;
        let cookie = match &outgoing.cookie {
            CookieUse::Shared => self.session().cookie_for_use(),
            CookieUse::None => None,
            CookieUse::Of(cookie) => Some(cookie.clone()),
        };
        let request = Request {
            verb: Verb::Post,
            path: service.path().to_owned(),
            soap_action: Some(service.soap_action().to_owned()),
            body: service.dress(&outgoing.body, cookie.as_ref()),
            cookie,
            timeout: outgoing.options.timeout.unwrap_or(self.settings().request_timeout),
            long_poll: outgoing.options.long_poll,
        };
        let transport = outgoing.route.unwrap_or(self.transport());
        let response = transport.send(request).await.map_err(Failure::Transport)?;
        let accept = || {
            if service.issues_session() {
                self.session().accept_cookie(response.cookie.clone(), generation);
            }
        };
        if matches!(outgoing.cookie, CookieUse::Shared) {
            accept();
        }
        // Without an envelope this is not the SOAP service speaking but a proxy, or a service that is starting.
        let not_soap = |text: String| {
            Failure::Transport(TransportError::new(TransportErrorKind::HttpStatus(response.status), text))
        };
        if !response.is_xml() {
            let kind = response.content_type.as_deref().unwrap_or("nothing");
            return Err(not_soap(format!("no SOAP answer but {} bytes of {kind}", response.body.len())));
        }
        match decode(&response.body) {
            Ok(()) => {
                // The cookie that a login brings is the one to share from now on. Servers hand one to strangers too,
                // so that of a refused login is not.
                if matches!(outgoing.cookie, CookieUse::None) {
                    accept();
                }
                Ok(response.body.len())
            }
            // A service that is starting, or whatever stands before it, knows no typed faults.
            Err(soap::Error::Fault(fault)) if fault.detail.is_none() && matches!(response.status, 500 | 503) => {
                Err(not_soap(fault.to_string()))
            }
            Err(soap::Error::Fault(fault)) => Err(Failure::Fault(fault)),
            Err(other) if response.status != 200 => Err(not_soap(other.to_string())),
            Err(other) => Err(Failure::Malformed(other.to_string())),
        }
    }
}

/// What is known of a call so far; written into its span when it ends, also when it is dropped.
struct Trail {
    span: Span,
    started: Instant,
    tries: u32,
    received: usize,
    outcome: Option<Cow<'static, str>>,
}

impl Drop for Trail {
    fn drop(&mut self) {
        let duration = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.span.record("duration_ms", duration);
        self.span.record("tries", self.tries);
        self.span.record("received", self.received);
        self.span.record("outcome", self.outcome.as_deref().unwrap_or("cancelled"));
        self.span.in_scope(|| tracing::debug!("done"));
    }
}

/// The outcome in a word: the server's fault by its name.
fn outcome_of(error: &Error) -> Cow<'static, str> {
    match (error.fault_name(), error.transport_kind()) {
        (Some(name), _) => name.to_owned().into(),
        (_, Some(TransportErrorKind::HttpStatus(status))) => format!("http {status}").into(),
        (_, Some(kind)) => format!("{kind:?}").to_ascii_lowercase().into(),
        _ if matches!(error, Error::Protocol(_)) => "protocol".into(),
        _ if matches!(error, Error::SessionEnded { .. }) => "session ended".into(),
        _ => "error".into(),
    }
}

enum Failure {
    Transport(TransportError),
    Fault(Box<soap::SoapFault>),
    Malformed(String),
}

/// Logins within one call. A second one is needed when the first new session is killed at once; more is a loop.
const MAX_LOGINS: u32 = 2;
