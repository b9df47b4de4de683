//! The program's log functions, and what reaches them: lines of this library and events of the crates below.

use std::{
    ffi::{CString, c_char},
    fmt::{self, Write as _},
    io::{self, Write as _},
    sync::{
        Once, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};
use vixdisklib_sys::LogFunc;

use crate::{fork::PerProcess, given::c_string};

unsafe extern "C" {
    /// See `shim.c`.
    fn vixdisklib_capi_log(function: LogFunc, format: *const c_char, ...);
}

/// Which of the program's three functions a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// What goes on.
    Log,
    /// What went wrong.
    Warn,
    /// What must not be: bugs of this library.
    Panic,
}

/// The functions of a program. Where one is missing, warnings and panics go to the standard error.
#[derive(Clone, Copy, Default)]
pub(crate) struct Functions {
    pub(crate) log: Option<LogFunc>,
    pub(crate) warn: Option<LogFunc>,
    pub(crate) panic: Option<LogFunc>,
}

/// How much of what the crates below say is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Of transports and everything else.
    pub(crate) transport: LevelFilter,
    /// Of NFC.
    pub(crate) nfc: LevelFilter,
}

struct Sink {
    /// Counts the `InitEx`s that began anew.
    number: u64,
    functions: Functions,
    levels: Levels,
}

static SINK: PerProcess<RwLock<Option<Sink>>> = PerProcess::new(RwLock::default);

/// Hands lines to `functions` from now on.
pub(crate) fn begin(functions: Functions, levels: Levels) {
    static SUBSCRIBED: Once = Once::new();
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = Some(Sink { number, functions, levels });
    // Fails only if something in this library subscribed before, and nothing does.
    SUBSCRIBED.call_once(|| drop(tracing::subscriber::set_global_default(ToProgram)));
    tracing::callsite::rebuild_interest_cache();
}

/// The number of the functions that lines go to now, for [`end`].
pub(crate) fn current() -> u64 {
    SINK.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |sink| sink.number)
}

/// Forgets those functions; others that came since stay.
pub(crate) fn end(number: u64) {
    SINK.write().unwrap_or_else(PoisonError::into_inner).take_if(|sink| sink.number == number);
}

/// Hands one line to the program.
pub(crate) fn line(channel: Channel, text: &str) {
    // The function runs without the lock: it may call the library, and `Exit` may come meanwhile.
    let functions = match &*SINK.read().unwrap_or_else(PoisonError::into_inner) {
        Some(sink) => sink.functions,
        None => return,
    };
    functions.line(channel, text);
}

impl Functions {
    /// Hands one line to these functions.
    pub(crate) fn line(&self, channel: Channel, text: &str) {
        let function = match channel {
            Channel::Log => self.log,
            Channel::Warn => self.warn,
            Channel::Panic => self.panic,
        };
        match function {
            Some(function) => {
                let text: CString = c_string(&format!("{text}\n"));
                // SAFETY: the program gave the function to InitEx as one of this type; the format takes one string.
                unsafe { vixdisklib_capi_log(function, c"%s".as_ptr(), text.as_ptr()) };
            }
            // Not by `eprintln`, which panics where the standard error is full or gone.
            None if channel != Channel::Log => drop(writeln!(io::stderr(), "vixDiskLib: {text}")),
            None => {}
        }
    }
}

/// Hands events of the crates below to the program.
struct ToProgram;

impl Subscriber for ToProgram {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = ["vixdisklib", "vixDiskLib", "vsphere_", "vmdk"];
        if !ours.iter().any(|prefix| metadata.target().starts_with(prefix)) {
            return false;
        }
        match &*SINK.read().unwrap_or_else(PoisonError::into_inner) {
            Some(sink) if metadata.target().starts_with("vsphere_nfc") => *metadata.level() <= sink.levels.nfc,
            Some(sink) => *metadata.level() <= sink.levels.transport,
            None => false,
        }
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("{}: ", event.metadata().target()));
        event.record(&mut text);
        line(if *event.metadata().level() <= Level::WARN { Channel::Warn } else { Channel::Log }, &text.0);
    }

    // Spans add nothing to lines that name their objects.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event as a line: the message, then its fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
