//! Names of files inside a package: relative, and never out of it.

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// Checks a name and takes `./` and doubled slashes out of it; or says which rule it breaks.
pub(super) fn normal(name: &str) -> Result<String, &'static str> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err("it is empty or longer than 1024 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("it holds control characters");
    }
    if name.starts_with('/') {
        return Err("it is absolute");
    }
    // Means a directory on some systems and a plain character on others.
    if name.contains('\\') {
        return Err("it holds a backslash");
    }
    if has_scheme(name) {
        return Err("it is a URL, or names a drive");
    }
    let mut normal = String::with_capacity(name.len());
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("it leaves the package"),
            part => {
                if !normal.is_empty() {
                    normal.push('/');
                }
                normal.push_str(part);
            }
        }
    }
    if normal.is_empty() { Err("it names no file") } else { Ok(normal) }
}

/// The names that the file of an `ovf:href` may have: as written, and without `%` escapes. A reference is a relative
/// URI by the standard, but most programs write names as they are.
pub(super) fn of_href(href: &str) -> Result<Vec<String>, &'static str> {
    let mut names = vec![normal(href)?];
    if let Some(plain) = unescaped(href) {
        let plain = normal(&plain)?;
        if plain != names[0] {
            names.push(plain);
        }
    }
    Ok(names)
}

/// Whether a name ends like `.ovf`, in any case.
pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, found)| !stem.is_empty() && found.eq_ignore_ascii_case(extension))
}

fn has_scheme(name: &str) -> bool {
    let Some((scheme, _)) = name.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// `None` when nothing is escaped, or not in a way that gives text.
fn unescaped(text: &str) -> Option<String> {
    if !text.contains('%') {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|digits| std::str::from_utf8(digits).ok()) {
            Some(digits) if first == b'%' => {
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_package() {
        assert_eq!(normal("./images//disk 1.vmdk").unwrap(), "images/disk 1.vmdk");
        let long = "x".repeat(1025);
        for name in ["", ".", "..", "a/../b", "/etc/passwd", "a\\..\\b", "C:x", "file:///x", "a\0b", &long] {
            assert!(normal(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn escapes_cannot_hide_a_way_out() {
        assert_eq!(of_href("disk%201.vmdk").unwrap(), ["disk%201.vmdk", "disk 1.vmdk"]);
        assert_eq!(of_href("100%.vmdk").unwrap(), ["100%.vmdk"]);
        assert!(of_href("%2e%2e/x").is_err());
        assert!(of_href("%2fetc%2fpasswd").is_err());
    }
}
