//! References to characters, and the ends of lines.

use std::borrow::Cow;

/// Resolves the five escapes of XML and character references, and makes every end of line a line feed, as XML demands;
/// an unknown entity is an error.
///
/// Characters that XML 1.0 forbids are accepted: names and annotations of real inventories hold them.
pub(super) fn unescape(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    if !raw.bytes().any(|b| matches!(b, b'&' | b'\r')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\r']) {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if rest.as_bytes()[at] == b'\r' {
            out.push('\n');
            rest = after.strip_prefix('\n').unwrap_or(after);
            continue;
        }
        // The longest reference is that of a character; a bound keeps a text of ampersands from being slow.
        let end = after.bytes().take(MAX_REFERENCE).position(|b| b == b';').ok_or("an entity has no end")?;
        out.push(referenced(&after[..end])?);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// The same for a CDATA section, in which nothing but line ends means anything.
pub(super) fn line_ends(raw: &str) -> Cow<'_, str> {
    if raw.contains('\r') { Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n")) } else { Cow::Borrowed(raw) }
}

fn referenced(entity: &str) -> Result<char, &'static str> {
    Ok(match entity {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let digits = entity.strip_prefix('#').filter(|digits| !digits.contains('+')).ok_or("an unknown entity")?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => digits.parse(),
            };
            code.ok().and_then(char::from_u32).ok_or("a character reference of no character")?
        }
    })
}

/// References longer than this, leading zeros included, are refused.
const MAX_REFERENCE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_line_ends_are_resolved() {
        assert_eq!(unescape("a").unwrap(), "a");
        assert_eq!(unescape("&lt;&#65;&#x42;&amp;lt;").unwrap(), "<AB&lt;");
        assert_eq!(unescape("a\r\nb\rc&#xD;\n").unwrap(), "a\nb\nc\r\n");
        assert_eq!(line_ends("a\r\nb\rc&lt;"), "a\nb\nc&lt;");
    }

    #[test]
    fn other_references_are_errors() {
        for text in ["&", "&x;", "&lt", "&#xd800;", "&#x110000;", "&#;", "&;", "&#99999999999;"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }
}
