//! What a conversion changed, left out or could not know.

use std::fmt;

use crate::device::DeviceKey;

/// How much a [`ConversionNote`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The new machine is the same; something was written in another way.
    Info,
    /// The new machine differs from the old one, or needs something that may not be there.
    Warning,
}

/// One thing about a conversion that somebody may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConversionNote {
    /// How much it matters.
    pub severity: Severity,
    /// The device that it is about, by its key in the old machine.
    pub device: Option<DeviceKey>,
    /// The field or type that it is about, by its wire name.
    pub what: Box<str>,
    /// What was done, and why.
    pub text: Box<str>,
}

impl fmt::Display for ConversionNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Some(key) => write!(f, "{} (device {key}): {}", self.what, self.text),
            None => write!(f, "{}: {}", self.what, self.text),
        }
    }
}

/// Notes while they are being taken.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) list: Vec<ConversionNote>,
    device: Option<DeviceKey>,
}

impl Notes {
    /// What follows is about that device, or about none.
    pub(super) fn about(&mut self, device: Option<DeviceKey>) {
        self.device = device;
    }

    pub(super) fn info(&mut self, what: &str, text: impl Into<Box<str>>) {
        self.take(Severity::Info, what, text.into());
    }

    pub(super) fn warn(&mut self, what: &str, text: impl Into<Box<str>>) {
        self.take(Severity::Warning, what, text.into());
    }

    fn take(&mut self, severity: Severity, what: &str, text: Box<str>) {
        self.list.push(ConversionNote { severity, device: self.device, what: what.into(), text });
    }
}
