//! The volume's name, and whether it was left as it should be.

use super::{
    attribute::{kind, units},
    log::Log,
    mft::Mft,
    record::Reference,
};
use crate::{
    bytes::le_u16,
    error::{Error, Result},
    fs::{Consistency, FileName},
};

/// What `$Volume` and `$LogFile` say.
#[derive(Debug)]
pub(super) struct State {
    pub(super) label: Option<String>,
    /// Why the volume may not be what Windows would show, for people.
    pub(super) doubts: Vec<String>,
}

impl State {
    pub(super) fn open(mft: &Mft) -> Result<Self> {
        let file = mft.file(Reference(VOLUME))?;
        let name = mft.values(&file, kind::VOLUME_NAME)?.into_iter().next().unwrap_or_default();
        let label = FileName::from_utf16(units(&name)).to_string_lossy().into_owned();
        let information = mft.values(&file, kind::VOLUME_INFORMATION)?.into_iter().next().unwrap_or_default();
        let flags = le_u16(&information, 10);
        let flags = flags.ok_or_else(|| Error::damaged("$Volume", "it has no $VOLUME_INFORMATION"))?;
        let mut doubts = Vec::new();
        if flags & DIRTY != 0 {
            doubts.push("Windows has marked the volume to be checked".to_owned());
        }
        if flags & IN_CHECK != 0 {
            doubts.push("a check of the volume was not ended".to_owned());
        }
        // What was in flight is not read; a log that cannot be read only means that nobody knows whether there is any.
        let log = match Log::read(mft) {
            Err(Error::Damaged { .. } | Error::NotFound(_)) => Log::Unreadable,
            known => known?,
        };
        doubts.extend(match log {
            Log::Closed => None,
            Log::Open(Some(bytes @ 1..)) => Some(format!(
                "the volume was in use: at least {bytes} bytes of its log were written since the last checkpoint, and are \
                 not replayed"
            )),
            Log::Open(_) => Some("the volume was in use: its log is not closed, and is not replayed".to_owned()),
            Log::Unreadable => Some("the log cannot be read: nobody knows whether the volume was in use".to_owned()),
        });
        Ok(Self { label: Some(label).filter(|label| !label.is_empty()), doubts })
    }

    pub(super) fn consistency(&self) -> Consistency {
        if self.doubts.is_empty() { Consistency::Clean } else { Consistency::DirtyIgnored }
    }
}

/// What is doubtful of the volume of a Windows that will go on where it was.
pub(super) const HIBERNATED: &str =
    "Windows was hibernated, or shut down for a fast start: what it had in memory of the volume is not read";
/// Number of the record of `$Volume`.
const VOLUME: u64 = 3;
/// `VOLUME_IS_DIRTY`.
const DIRTY: u16 = 1;
/// `VOLUME_CHKDSK_UNDERWAY`.
const IN_CHECK: u16 = 0x4000;
