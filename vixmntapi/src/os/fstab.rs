//! `/etc/fstab`: fstab(5), and `/etc/crypttab`: crypttab(5).

use crate::fs::FileName;

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The device by any of its names.
    pub(super) source: String,
    pub(super) point: FileName,
    pub(super) kind: String,
    pub(super) options: String,
}

/// The lines that mount something somewhere.
pub(super) fn parse(text: &[u8]) -> Vec<Line> {
    let lines = text.split(|byte| *byte == b'\n').take(MOST_LINES);
    lines
        .filter_map(|line| {
            let mut fields =
                line.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty()).map(unescaped);
            let source = fields.next().filter(|source| !source.starts_with(b"#"))?;
            let (point, kind) = (fields.next()?, fields.next()?);
            let options = fields.next().unwrap_or_default();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            point.starts_with(b"/").then(|| Line {
                source: text(source),
                point: FileName::new(point),
                kind: text(kind),
                options: text(options),
            })
        })
        .collect()
}

/// What `/etc/crypttab` opens: the name that device mapper then has for it, and the device by any of its names.
pub(super) fn parse_crypttab(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).take(MOST_LINES);
    let pair = |line: &str| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    lines.filter_map(pair).collect()
}

/// A field with its `\040` for what divides fields.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = after;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, after) {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    bytes
}

const MOST_LINES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_with_a_key_is_told_by_its_name() {
        let text = b"# <target> <source>\n\nsda3_crypt UUID=4d1a none luks,discard\nhome\t/dev/sdb1\nalone\n";
        let pair = |name: &str, source: &str| (name.to_owned(), source.to_owned());
        assert_eq!(parse_crypttab(text), [pair("sda3_crypt", "UUID=4d1a"), pair("home", "/dev/sdb1")]);
    }

    #[test]
    fn lines_that_mount_are_told_with_their_spaces() {
        let text = b"# /etc/fstab\nUUID=12-AB\t/boot/efi vfat umask=0077 0 1\n\n/dev/sda5 none swap sw 0 0\n\
            LABEL=my\\040disk /srv/my\\040disk ext4\n  tmpfs /tmp tmpfs rw\nhalf /a\n";
        let lines = parse(text);
        let told: Vec<_> = lines.iter().map(|line| (line.source.as_str(), line.point.to_string_lossy())).collect();
        assert_eq!(
            told,
            [("UUID=12-AB", "/boot/efi".into()), ("LABEL=my disk", "/srv/my disk".into()), ("tmpfs", "/tmp".into())]
        );
        assert_eq!((lines[0].kind.as_str(), lines[0].options.as_str()), ("vfat", "umask=0077"));
    }
}
