//! Names of a guest's files on this computer.

use std::borrow::Cow;

use super::folder::PARTIAL;
use crate::fs::FileName;

/// What to do with names that cannot be here, or would lead elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Names {
    /// They are failures.
    Refused,
    /// What is wrong in them is written as `%2F`: empty names, `.` and `..`, names with `/` or NUL.
    Escaped,
    /// As [`Names::Escaped`], and so is what Windows does not take: `<>:"\|?*`, control characters, dots and spaces at
    /// the end, and names of devices such as `CON` and `nul.txt`.
    EscapedForWindows,
}

impl Names {
    /// The name here; `None` where it is refused. Different names may become the same; the later one is then a failure.
    pub(super) fn local<'n>(self, name: &'n FileName) -> Option<Cow<'n, [u8]>> {
        let bytes = name.as_bytes();
        let is_plain = name.is_plain() && bytes != PARTIAL;
        match self {
            Self::Refused => is_plain.then_some(Cow::Borrowed(bytes)),
            Self::Escaped if is_plain => Some(Cow::Borrowed(bytes)),
            Self::Escaped => {
                Some(escaped(bytes, matches!(bytes, b"." | b"..") || bytes == PARTIAL, |byte| matches!(byte, b'/' | 0)))
            }
            Self::EscapedForWindows if is_plain && !is_of_windows(bytes) => Some(Cow::Borrowed(bytes)),
            Self::EscapedForWindows => {
                Some(escaped(bytes, bytes == PARTIAL || is_device(bytes), |byte| byte < 32 || RESERVED.contains(&byte)))
            }
        }
    }
}

/// Writes the bytes that are bad as numbers, the first one too where `first` says so, and dots and spaces at the end.
fn escaped(name: &[u8], first: bool, is_bad: impl Fn(u8) -> bool) -> Cow<'static, [u8]> {
    let mut local = Vec::with_capacity(name.len() + 6);
    for (at, byte) in name.iter().enumerate() {
        let at_end = at + 1 == name.len() && matches!(byte, b'.' | b' ');
        if at == 0 && first || at_end || is_bad(*byte) {
            local.extend(format!("%{byte:02X}").into_bytes());
        } else {
            local.push(*byte);
        }
    }
    if local.is_empty() {
        local.push(b'%');
    }
    Cow::Owned(local)
}

fn is_of_windows(name: &[u8]) -> bool {
    let ends = matches!(name.last(), Some(b'.' | b' '));
    ends || is_device(name) || name.iter().any(|byte| *byte < 32 || RESERVED.contains(byte))
}

/// <https://learn.microsoft.com/windows/win32/fileio/naming-a-file>
fn is_device(name: &[u8]) -> bool {
    let stem = name.split(|byte| *byte == b'.').next().unwrap_or_default().trim_ascii_end().to_ascii_uppercase();
    match &*stem {
        b"CON" | b"PRN" | b"AUX" | b"NUL" | b"CONIN$" | b"CONOUT$" => true,
        [b'C', b'O', b'M', number] | [b'L', b'P', b'T', number] => number.is_ascii_digit(),
        _ => false,
    }
}

const RESERVED: &[u8] = b"<>:\"/\\|?*";

#[cfg(test)]
mod tests {
    use super::*;

    fn local(names: Names, name: &[u8]) -> Option<String> {
        names.local(&FileName::from(name)).map(|name| name.escape_ascii().to_string())
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_or_escaped() {
        for (name, escaped) in [
            (&b""[..], "%"),
            (b".", "%2E"),
            (b"..", "%2E%2E"),
            (b"../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
            (b"a\0b", "a%00b"),
            (PARTIAL, "%2Evixmntapi-partial"),
        ] {
            assert_eq!(local(Names::Refused, name), None);
            assert_eq!(local(Names::Escaped, name).as_deref(), Some(escaped));
            assert!(local(Names::EscapedForWindows, name).is_some_and(|name| FileName::from(&*name).is_plain()));
        }
        assert_eq!(local(Names::Refused, b"CON:").as_deref(), Some("CON:"));
    }

    #[test]
    fn names_that_windows_does_not_take_are_escaped_when_it_is_said() {
        for (name, escaped) in
            [("con", "%63on"), ("Nul.txt", "%4Eul.txt"), ("a:b?", "a%3Ab%3F"), ("end.", "end%2E"), ("end ", "end%20")]
        {
            assert_eq!(local(Names::EscapedForWindows, name.as_bytes()).as_deref(), Some(escaped));
            assert_eq!(local(Names::Escaped, name.as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(local(Names::EscapedForWindows, b"console.txt").as_deref(), Some("console.txt"));
    }
}
