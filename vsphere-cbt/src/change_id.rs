//! Change ids: what names a state of a disk.

use std::{fmt, str::FromStr};

/// The state of a virtual disk at the time of a snapshot: `<UUID>/<sequence>`.
///
/// Store it with a backup, and ask for [`Since::Change`] of it at the next one. vSphere writes the UUID as
/// `52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63`; the text is kept as it came, because it is sent back.
///
/// ```
/// use vsphere_cbt::{ChangeId, Continuity};
/// let base: ChangeId = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81".parse()?;
/// let now: ChangeId = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/85".parse()?;
/// assert_eq!(now.follows(&base), Continuity::Unbroken);
/// # Ok::<(), vsphere_cbt::ParseChangeIdError>(())
/// ```
#[doc(alias = "changeId")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChangeId {
    text: Box<str>,
    /// Where the slash is.
    slash: usize,
    sequence: u64,
}

impl ChangeId {
    /// The text as the server wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The UUID as the server wrote it. It changes when tracking is reset.
    pub fn epoch(&self) -> &str {
        &self.text[..self.slash]
    }

    /// Counts states within an epoch.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// True when tracking was not reset between the two. Notation does not count: case, blanks and dashes of the UUID.
    pub fn same_epoch(&self, other: &Self) -> bool {
        let significant = |id: &Self| -> Vec<u8> {
            let kept = id.epoch().bytes().filter(|byte| !matches!(byte, b' ' | b'-'));
            kept.map(|byte| byte.to_ascii_lowercase()).collect()
        };
        self.epoch() == other.epoch() || significant(self) == significant(other)
    }

    /// How this id, just read, relates to `base`, the one of the last backup.
    ///
    /// Only the server knows for sure whether `base` is still good. This tells the cases that need no question.
    pub fn follows(&self, base: &Self) -> Continuity {
        if !self.same_epoch(base) {
            Continuity::Reset
        } else if self.sequence < base.sequence {
            Continuity::Reverted
        } else {
            Continuity::Unbroken
        }
    }
}

/// How two change ids of one disk relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Continuity {
    /// Same epoch, same or later state: ask for the areas in between.
    Unbroken,
    /// Tracking was reset: nothing is known of what changed, take a full backup.
    Reset,
    /// The disk is in an earlier state than the backup, as after a revert to a snapshot. Changes since an id of the
    /// future cannot be asked for: take a full backup.
    Reverted,
}

/// Since when changes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Since<'a> {
    /// `*`: all areas that are in use, whenever they changed.
    ///
    /// An upper bound: on NFS, for eager-zeroed and cloned disks, and where tracking was enabled on a disk with data
    /// it names everything. VMware recommends to ask for allocated blocks instead.
    Allocated,
    /// Everything that changed after the state of this id.
    Change(&'a ChangeId),
}

impl<'a> Since<'a> {
    /// The parameter of the query.
    #[doc(alias = "changeId")]
    pub fn as_str(self) -> &'a str {
        match self {
            Self::Allocated => ALLOCATED,
            Self::Change(id) => id.as_str(),
        }
    }
}

/// No earlier backup means all that is allocated.
impl<'a> From<Option<&'a ChangeId>> for Since<'a> {
    fn from(base: Option<&'a ChangeId>) -> Self {
        base.map_or(Self::Allocated, Self::Change)
    }
}

impl fmt::Display for Since<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ChangeId {
    type Err = ParseChangeIdError;

    fn from_str(text: &str) -> Result<Self, ParseChangeIdError> {
        match text {
            "" => return Err(ParseChangeIdError::Empty),
            ALLOCATED => return Err(ParseChangeIdError::Star),
            _ => {}
        }
        if text.len() > MAX_LEN || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(ParseChangeIdError::Form);
        }
        let slash = text.rfind('/').filter(|at| *at > 0).ok_or(ParseChangeIdError::Form)?;
        let digits = &text[slash + 1..];
        // `parse` alone would take a sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseChangeIdError::Form);
        }
        let sequence = digits.parse().map_err(|_| ParseChangeIdError::Form)?;
        Ok(Self { text: text.into(), slash, sequence })
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeId({})", self.text)
    }
}

/// Why a text is not a change id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseChangeIdError {
    /// vSphere gives an empty id to disks that it cannot track.
    #[error("the change id is empty: the disk is not or cannot be tracked")]
    Empty,
    /// `*` is a question, not a state: [`Since::Allocated`].
    #[error("`*` asks for allocated areas and names no state of a disk")]
    Star,
    /// Not of the form `<UUID>/<sequence>`.
    #[error("the change id does not have the form <UUID>/<sequence>")]
    Form,
}

const ALLOCATED: &str = "*";

/// Real ids have about 50 bytes.
const MAX_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ChangeId {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_sent_back_as_it_came() {
        let text = "52 DE c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/0081";
        assert_eq!(id(text).to_string(), text);
        assert_eq!((id(text).sequence(), id(text).epoch().len()), (81, 47));
    }

    #[test]
    fn a_new_uuid_is_a_reset_and_another_notation_is_not() {
        let base = id("52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81");
        assert_eq!(id("52DEC0D9-B943-9D10-61D5-4C1BE97B6563/81").follows(&base), Continuity::Unbroken);
        assert_eq!(id("53 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/99").follows(&base), Continuity::Reset);
        assert_eq!(id("52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/9").follows(&base), Continuity::Reverted);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        use ParseChangeIdError::{Empty, Form, Star};
        let cases = [("", Empty), ("*", Star), ("/1", Form), ("a/", Form), ("a/+1", Form), ("a/-1", Form), ("a", Form)];
        for (text, error) in cases {
            assert_eq!(text.parse::<ChangeId>(), Err(error), "{text:?}");
        }
        assert_eq!("a/99999999999999999999".parse::<ChangeId>(), Err(Form), "larger than u64");
        assert_eq!("a\u{0}/1".parse::<ChangeId>(), Err(Form));
        assert_eq!(format!("{}/1", "a".repeat(600)).parse::<ChangeId>(), Err(Form));
    }

    #[test]
    fn no_base_asks_for_what_is_allocated() {
        assert_eq!(Since::from(None).as_str(), "*");
        assert_eq!(Since::from(Some(&id("a/1"))).as_str(), "a/1");
    }
}
