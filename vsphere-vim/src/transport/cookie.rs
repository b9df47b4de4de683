//! The one cookie of this API.

use crate::secret::Secret;

/// Finds a freshly issued `vmware_soap_session` among `Set-Cookie` values.
///
/// The value is kept as written, quotes included: vCenter issues `"…"` and some builds want the quotes back.
/// A cookie that is being deleted (empty value) is not a session.
pub(crate) fn session_cookie<'a>(set_cookies: impl IntoIterator<Item = &'a str>) -> Option<Secret> {
    set_cookies.into_iter().filter_map(value_of).last()
}

fn value_of(header: &str) -> Option<Secret> {
    let pair = header.split(';').next()?;
    let (name, value) = pair.split_once('=')?;
    let value = value.trim();
    let usable = !value.trim_matches('"').is_empty()
        && value.len() <= MAX_LEN
        && value.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b',');
    (name.trim().eq_ignore_ascii_case(SESSION_COOKIE) && usable).then(|| Secret::new(value))
}

/// The name under which vCenter and ESXi keep the session.
pub(crate) const SESSION_COOKIE: &str = "vmware_soap_session";

/// Longer values are not session ids; real ones have 40 characters.
const MAX_LEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(headers: &[&str]) -> Option<String> {
        session_cookie(headers.iter().copied()).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn keeps_quotes_and_takes_the_last_issue() {
        assert_eq!(parse(&["vmware_soap_session=\"abc-1\"; Path=/; HttpOnly; Secure;"]).unwrap(), "\"abc-1\"");
        assert_eq!(parse(&["vmware_soap_session=a", "other=b", "VMWARE_SOAP_SESSION=c; Path=/"]).unwrap(), "c");
    }

    #[test]
    fn ignores_deletions_other_cookies_and_header_injection() {
        assert_eq!(parse(&["vmware_soap_session=\"\"; Max-Age=0", "x=1", "junk", "vmware_soap_session=a\r\nb"]), None);
    }
}
