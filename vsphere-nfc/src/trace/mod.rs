//! Traces of conversations with a server, without what is the user's own.
//!
//! What real hosts do is known from captures of one release; a trace from another host settles more than any guess.
//! A [`Recorder`] in the options keeps what passes behind the daemon's hand-over, message by message: the ticket is
//! never part of it, **data of the disk becomes zeros, letters of paths become `x`**, and values of the disk database
//! other than numbers and adapter types go. What is left can be read, sent to the project, and played again to a
//! client by the simulator.
//!
//! ```
//! use vsphere_nfc::NfcOptions;
//! use vsphere_nfc::trace::{Recorder, Trace};
//!
//! let recorder = Recorder::new();
//! let options = NfcOptions::default().trace(&recorder);
//! // .. open, read and close a disk with these options ..
//! let text = recorder.traces().iter().map(Trace::to_string).collect::<Vec<_>>();
//! # let _ = (options, text);
//! ```

mod frames;
mod recorder;
mod scrub;
mod text;

pub use recorder::Recorder;
pub use text::ParseTraceError;

/// One connection, from the first message behind the hand-over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// What was said, in the order in which this side saw it.
    pub events: Vec<Event>,
    /// Something was said that could not be understood, or more than is kept; the rest is left out.
    pub cut_short: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Who said it.
    pub from: Side,
    /// Header, payload and extras, scrubbed; without the data.
    pub bytes: Vec<u8>,
    /// Bytes of data that follow. They are zeros.
    pub zeros: u64,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Whoever connected.
    Client,
    /// The host.
    Server,
}

/// Takes one side's bytes and gives its messages, scrubbed as a [`Recorder`] does. For whoever plays a trace again and
/// has to compare what a client says now with what one said then.
#[derive(Debug)]
pub struct Messages {
    frames: frames::Frames,
}

impl Messages {
    /// Of that side, from the first message behind the hand-over.
    pub fn of(from: Side) -> Self {
        Self { frames: frames::Frames::new(from) }
    }

    /// Takes more bytes; gives the messages that they complete.
    ///
    /// # Errors
    /// When the bytes are not understood. Nothing that follows is, then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, crate::wire::WireError> {
        let mut events = Vec::new();
        self.frames.feed(bytes, |event| events.push(event))?;
        Ok(events)
    }
}
