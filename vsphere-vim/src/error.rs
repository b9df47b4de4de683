//! What can go wrong, and whose fault it is.
//!
//! Every error names the operation and the object, keeps the server's own fault whole
//! ([`Error::fault`], [`Error::fault_name`]), says whether trying again can help ([`Error::is_retryable`]) and, where
//! it is known, what to do next ([`Error::hint`]). Passwords, cookies and tickets never appear.

mod advice;
mod transport;

use std::{fmt, time::Duration};

use vsphere_vim_types::{DataObject, ManagedObjectReference, MethodFault, Poly};

pub use self::transport::{TransportError, TransportErrorKind};
use crate::sts::TokenRefusal;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The caller's mistake, found before anything was sent.
    InvalidInput {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        why: Box<str>,
    },
    /// The network's fault: no complete answer.
    Transport(Box<CallError>),
    /// The server refused the call. Its fault object is kept whole.
    Fault(Box<ServerFault>),
    /// The server accepted the call and its task failed later.
    TaskFailed(Box<ServerFault>),
    /// The caller's token fired while a task ran.
    Cancelled {
        /// What was being done.
        operation: Box<str>,
        /// True when the server did not confirm: the task may still be running.
        still_running: bool,
    },
    /// A limit set by the caller passed before the work was done.
    TimedOut {
        /// What was being waited for.
        operation: Box<str>,
        /// How long.
        after: Duration,
    },
    /// The server's answer was not what the protocol promises.
    Protocol(Box<ProtocolError>),
    /// Nothing has that name, path or id.
    NotFound {
        /// What was looked for.
        what: Box<str>,
    },
    /// Several things have that name or id, and one was wanted.
    Ambiguous {
        /// What was looked for.
        what: Box<str>,
        /// What was found.
        candidates: Vec<String>,
    },
    /// The server (its version, its kind) does not offer this.
    Unsupported {
        /// What is not offered.
        what: Box<str>,
        /// Why.
        why: Box<str>,
    },
    /// The session is over, and there is no way to log in again with what it was opened with.
    SessionEnded {
        /// Why not.
        why: Box<str>,
    },
    /// The token service refused to issue a token.
    Token(Box<TokenRefusal>),
    /// A property could not be read: forbidden, gone, or unset where a value is needed.
    Property(Box<PropertyError>),
}

/// Which call an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The wire name of the method, such as `CreateSnapshot_Task`.
    pub operation: Box<str>,
    /// The object it was called on, such as `VirtualMachine:vm-42`.
    pub object: Option<Box<str>>,
    /// From the first try to the error.
    pub elapsed: Duration,
    /// How often it was tried.
    pub tries: u32,
}

/// A call that got no answer.
#[derive(Debug)]
pub struct CallError {
    /// The call.
    pub call: Call,
    /// What happened to the last try.
    pub source: TransportError,
}

/// A call or task that the server refused.
#[derive(Debug)]
pub struct ServerFault {
    /// The call, or the method that started the task.
    pub call: Call,
    /// The fault object with everything that the server put into it.
    pub fault: Poly<MethodFault>,
    /// The server's text, empty when it gave none.
    pub message: Box<str>,
}

/// An answer that breaks the protocol.
#[derive(Debug)]
pub struct ProtocolError {
    /// The call.
    pub call: Call,
    /// What is wrong with the answer.
    pub what: Box<str>,
}

/// A property that could not be read.
#[derive(Debug)]
pub struct PropertyError {
    /// The object.
    pub object: Box<str>,
    /// The property's path.
    pub path: Box<str>,
    /// The server's reason; `None` when the property is simply not set.
    pub fault: Option<Poly<MethodFault>>,
    /// The reason in words.
    pub message: Box<str>,
}

impl Error {
    /// The server's fault as type `F`, which may also be one of the fault's bases: `error.fault::<FileFault>()`.
    pub fn fault<F: DataObject>(&self) -> Option<&F> {
        self.server_fault()?.downcast_ref::<F>()
    }

    /// The wire name of the server's fault, such as `InvalidPowerState`. Known for faults of newer servers too.
    pub fn fault_name(&self) -> Option<&str> {
        self.server_fault().map(Poly::type_name)
    }

    /// True when the server's fault is `name` or extends it: `error.is_fault("FileFault")`.
    pub fn is_fault(&self, name: &str) -> bool {
        self.server_fault().is_some_and(|fault| fault.is_a(name))
    }

    /// The server's fault, whatever its type.
    pub fn server_fault(&self) -> Option<&Poly<MethodFault>> {
        match self {
            Self::Fault(fault) | Self::TaskFailed(fault) => Some(&fault.fault),
            Self::Property(error) => error.fault.as_ref(),
            _ => None,
        }
    }

    /// The transport's failure, when the network is at fault.
    pub fn transport_kind(&self) -> Option<TransportErrorKind> {
        match self {
            Self::Transport(error) => Some(error.source.kind()),
            _ => None,
        }
    }

    /// True when the same call may succeed later without anybody changing anything.
    ///
    /// It does not say that repeating is harmless: a create that timed out may have happened.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport(error) => error.source.is_retryable(),
            Self::Fault(fault) | Self::TaskFailed(fault) => advice::passes_by_itself(&fault.fault),
            Self::Property(error) => error.fault.as_ref().is_some_and(advice::passes_by_itself),
            Self::TimedOut { .. } => true,
            Self::InvalidInput { .. }
            | Self::Cancelled { .. }
            | Self::Protocol(_)
            | Self::NotFound { .. }
            | Self::Ambiguous { .. }
            | Self::Unsupported { .. }
            | Self::SessionEnded { .. }
            | Self::Token(_) => false,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.source.hint().map(str::to_owned),
            Self::Fault(fault) | Self::TaskFailed(fault) => advice::hint(&fault.call.operation, &fault.fault),
            Self::Property(error) => error.fault.as_ref().and_then(|fault| advice::hint("", fault)),
            Self::Token(refusal) => refusal.hint().map(str::to_owned),
            Self::SessionEnded { .. } => Some("connect again with credentials of your own".to_owned()),
            Self::Cancelled { still_running: true, .. } => {
                Some("the task could not be cancelled; look at it in the vSphere Client before trying again".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn invalid_input(what: &'static str, why: impl Into<Box<str>>) -> Self {
        Self::InvalidInput { what, why: why.into() }
    }

    pub(crate) fn not_found(what: impl Into<Box<str>>) -> Self {
        Self::NotFound { what: what.into() }
    }

    pub(crate) fn unsupported(what: impl Into<Box<str>>, why: impl Into<Box<str>>) -> Self {
        Self::Unsupported { what: what.into(), why: why.into() }
    }

    pub(crate) fn transport(operation: &str, source: TransportError) -> Self {
        let call = Call { tries: 1, ..Call::named(operation) };
        Self::Transport(Box::new(CallError { call, source }))
    }

    pub(crate) fn protocol(call: Call, what: impl Into<Box<str>>) -> Self {
        Self::Protocol(Box::new(ProtocolError { call, what: what.into() }))
    }
}

impl Call {
    pub(crate) fn named(operation: &str) -> Self {
        Self { operation: operation.into(), object: None, elapsed: Duration::ZERO, tries: 1 }
    }

    pub(crate) fn on(operation: &str, object: &ManagedObjectReference) -> Self {
        Self { object: Some(object.to_string().into()), ..Self::named(operation) }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)?;
        if let Some(object) = &self.object {
            write!(f, " on {object}")?;
        }
        match (self.tries, self.elapsed) {
            (0 | 1, elapsed) if elapsed < Duration::from_secs(1) => Ok(()),
            (0 | 1, elapsed) => write!(f, " (after {:.1} s)", elapsed.as_secs_f32()),
            (tries, elapsed) => write!(f, " (after {tries} tries, {:.1} s)", elapsed.as_secs_f32()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidInput { what, why } => write!(f, "{what}: {why}"),
            Self::Transport(error) => write!(f, "{} got no answer", error.call),
            Self::Fault(fault) => write!(f, "the server refused {}: {}", fault.call, FaultText(fault)),
            Self::TaskFailed(fault) => write!(f, "the task of {} failed: {}", fault.call, FaultText(fault)),
            Self::Cancelled { operation, still_running: false } => write!(f, "{operation} was cancelled"),
            Self::Cancelled { operation, still_running: true } => {
                write!(f, "{operation} was cancelled here, but the server did not confirm it")
            }
            Self::TimedOut { operation, after } => {
                write!(f, "{operation} did not finish within {:.1} s", after.as_secs_f32())
            }
            Self::Protocol(error) => {
                write!(f, "{} was answered in a form that is not understood: {}", error.call, error.what)
            }
            Self::NotFound { what } => write!(f, "{what} was not found"),
            Self::Ambiguous { what, candidates } => {
                write!(f, "{what} is not the only one: {}", candidates.join(", "))
            }
            Self::Unsupported { what, why } => write!(f, "{what} is not supported: {why}"),
            Self::SessionEnded { why } => write!(f, "the session ended: {why}"),
            Self::Token(refusal) => write!(f, "the token service refused to issue a token: {refusal}"),
            Self::Property(error) => {
                write!(f, "property {} of {} could not be read: {}", error.path, error.object, error.message)
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport(error) => Some(&error.source),
            _ => None,
        }
    }
}

/// The fault's name and, when the server gave any, its words.
struct FaultText<'a>(&'a ServerFault);

impl fmt::Display for FaultText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerFault { fault, message, .. } = self.0;
        f.write_str(fault.type_name())?;
        let message = message.trim();
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_operation_object_and_fault() {
        let call = Call {
            tries: 3,
            elapsed: Duration::from_millis(2500),
            ..Call::on("PowerOnVM_Task", &ManagedObjectReference::of("VirtualMachine", "vm-1"))
        };
        let fault = ServerFault { call, fault: Poly::default(), message: "no ".into() };
        assert_eq!(
            Error::Fault(Box::new(fault)).to_string(),
            "the server refused PowerOnVM_Task on VirtualMachine:vm-1 (after 3 tries, 2.5 s): MethodFault: no"
        );
    }

    #[test]
    fn error_is_small_enough_to_return() {
        assert!(size_of::<Error>() <= 48, "{}", size_of::<Error>());
    }
}
