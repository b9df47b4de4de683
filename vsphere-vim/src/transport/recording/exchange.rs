//! One exchange as text: short head lines, and bodies by their length.
//!
//! ```text
//! vsphere-vim recording 1
//! > POST /sdk
//! > action urn:vim25/8.0.3.0
//! > body 321
//! ...321 bytes...
//! < 200
//! < type text/xml; charset=utf-8
//! < cookie secret-2
//! < body 456
//! ...456 bytes...
//! ! timeout sent no answer within 5 s        (instead of the lines with <, when there was no answer)
//! ```

use std::io::{self, BufRead, Read as _, Write};

use crate::transport::{TransportErrorKind, Verb};

/// What was asked and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) verb: Verb,
    pub(super) path: String,
    pub(super) action: Option<String>,
    pub(super) body: String,
    pub(super) outcome: Outcome,
}

/// An answer or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answer { status: u16, content_type: Option<String>, cookie: Option<String>, body: String },
    Failure { kind: TransportErrorKind, sent: bool, message: String },
}

/// Begins a recording.
pub(super) fn write_title(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{TITLE}")
}

/// Checks the beginning of a recording.
pub(super) fn read_title(input: &mut dyn BufRead) -> io::Result<()> {
    match line(input)?.as_deref() {
        Some(TITLE) => Ok(()),
        _ => Err(broken("not a recording of this version")),
    }
}

impl Exchange {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let verb = match self.verb {
            Verb::Get => "GET",
            Verb::Post => "POST",
        };
        writeln!(out, "> {verb} {}", one_line(&self.path))?;
        if let Some(action) = &self.action {
            writeln!(out, "> action {}", one_line(action))?;
        }
        write_body(out, '>', &self.body)?;
        match &self.outcome {
            Outcome::Answer { status, content_type, cookie, body } => {
                writeln!(out, "< {status}")?;
                if let Some(content_type) = content_type {
                    writeln!(out, "< type {}", one_line(content_type))?;
                }
                if let Some(cookie) = cookie {
                    writeln!(out, "< cookie {}", one_line(cookie))?;
                }
                write_body(out, '<', body)
            }
            Outcome::Failure { kind, sent, message } => {
                let sent = if *sent { "sent" } else { "unsent" };
                writeln!(out, "! {} {sent} {}", kind_name(*kind), one_line(message))
            }
        }
    }

    /// The next exchange; `None` at the end.
    pub(super) fn read(input: &mut dyn BufRead) -> io::Result<Option<Self>> {
        let Some(first) = line(input)? else { return Ok(None) };
        let (verb, path) = match first.strip_prefix("> ").and_then(|rest| rest.split_once(' ')) {
            Some(("GET", path)) => (Verb::Get, path.to_owned()),
            Some(("POST", path)) => (Verb::Post, path.to_owned()),
            _ => return Err(broken("an exchange does not begin with `> GET` or `> POST`")),
        };
        let mut action = None;
        let body = loop {
            let next = line(input)?.ok_or_else(cut)?;
            match next.strip_prefix("> ").and_then(|rest| rest.split_once(' ')) {
                Some(("action", value)) => action = Some(value.to_owned()),
                Some(("body", length)) => break read_body(input, length)?,
                _ => return Err(broken("a request without a body")),
            }
        };
        let outcome = Outcome::read(input)?;
        Ok(Some(Self { verb, path, action, body, outcome }))
    }
}

impl Outcome {
    fn read(input: &mut dyn BufRead) -> io::Result<Self> {
        let first = line(input)?.ok_or_else(cut)?;
        if let Some(failure) = first.strip_prefix("! ") {
            let mut words = failure.splitn(3, ' ');
            let kind = words.next().and_then(kind_of).ok_or_else(|| broken("an unknown kind of failure"))?;
            let sent = words.next() == Some("sent");
            return Ok(Self::Failure { kind, sent, message: words.next().unwrap_or_default().to_owned() });
        }
        let status = first.strip_prefix("< ").and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| broken("an answer without a status"))?;
        let (mut content_type, mut cookie) = (None, None);
        loop {
            let next = line(input)?.ok_or_else(cut)?;
            match next.strip_prefix("< ").and_then(|rest| rest.split_once(' ')) {
                Some(("type", value)) => content_type = Some(value.to_owned()),
                Some(("cookie", value)) => cookie = Some(value.to_owned()),
                Some(("body", length)) => {
                    return Ok(Self::Answer { status, content_type, cookie, body: read_body(input, length)? });
                }
                _ => return Err(broken("an answer without a body")),
            }
        }
    }
}

fn write_body(out: &mut dyn Write, side: char, body: &str) -> io::Result<()> {
    writeln!(out, "{side} body {}", body.len())?;
    out.write_all(body.as_bytes())?;
    out.write_all(b"\n")
}

fn read_body(input: &mut dyn BufRead, length: &str) -> io::Result<String> {
    let length: u64 = length.parse().map_err(|_| broken("a length that is no number"))?;
    if length > MAX_BODY {
        return Err(broken("a body beyond all bounds"));
    }
    let mut body = Vec::new();
    // Grows with what is there, not with what is claimed.
    (&mut *input).take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length || line(input)?.is_none_or(|rest| !rest.is_empty()) {
        return Err(cut());
    }
    String::from_utf8(body).map_err(|_| broken("a body that is not UTF-8"))
}

fn line(input: &mut dyn BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if (&mut *input).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(cut());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map(Some).map_err(|_| broken("a line that is not UTF-8"))
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn kind_name(kind: TransportErrorKind) -> String {
    match kind {
        TransportErrorKind::HttpStatus(status) => format!("http-{status}"),
        other => KINDS.iter().find(|(known, _)| *known == other).map_or("disconnected", |(_, name)| name).to_owned(),
    }
}

fn kind_of(name: &str) -> Option<TransportErrorKind> {
    match name.strip_prefix("http-") {
        Some(status) => status.parse().ok().map(TransportErrorKind::HttpStatus),
        None => KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind),
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn cut() -> io::Error {
    broken("the recording is cut short")
}

const TITLE: &str = "vsphere-vim recording 1";

const KINDS: [(TransportErrorKind, &str); 8] = [
    (TransportErrorKind::Resolve, "resolve"),
    (TransportErrorKind::Connect, "connect"),
    (TransportErrorKind::Tls, "tls"),
    (TransportErrorKind::Untrusted, "untrusted"),
    (TransportErrorKind::Timeout, "timeout"),
    (TransportErrorKind::Disconnected, "disconnected"),
    (TransportErrorKind::BodyTooLarge, "too-large"),
    (TransportErrorKind::Malformed, "malformed"),
];

const MAX_LINE: u64 = 64 * 1024;
const MAX_BODY: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> io::Result<Vec<Exchange>> {
        let mut input = text;
        read_title(&mut input)?;
        std::iter::from_fn(|| Exchange::read(&mut input).transpose()).collect()
    }

    fn exchanges() -> impl Strategy<Value = Vec<Exchange>> {
        let kind = prop_oneof![
            proptest::sample::select(KINDS.map(|(kind, _)| kind).to_vec()),
            any::<u16>().prop_map(TransportErrorKind::HttpStatus),
        ];
        let outcome = prop_oneof![
            (any::<u16>(), proptest::option::of("[ -~]{0,20}"), proptest::option::of("[!-~]{0,20}"), "\\PC{0,40}\n?")
                .prop_map(|(status, content_type, cookie, body)| Outcome::Answer {
                    status,
                    content_type,
                    cookie,
                    body
                }),
            (kind, any::<bool>(), "[ -~]{0,30}").prop_map(|(kind, sent, message)| Outcome::Failure {
                kind,
                sent,
                message
            }),
        ];
        let one = (any::<bool>(), "/[!-~]{0,20}", proptest::option::of("[!-~]{1,20}"), "(\\PC|\n|> ){0,40}", outcome)
            .prop_map(|(get, path, action, body, outcome)| Exchange {
                verb: if get { Verb::Get } else { Verb::Post },
                path,
                action,
                body,
                outcome,
            });
        proptest::collection::vec(one, 0..4)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(exchanges in exchanges()) {
            let mut text = Vec::new();
            write_title(&mut text).unwrap();
            for exchange in &exchanges {
                exchange.write(&mut text).unwrap();
            }
            prop_assert_eq!(read(&text).unwrap(), exchanges);
        }

        #[test]
        fn damage_never_panics(exchanges in exchanges(), cut in any::<usize>(), at in any::<usize>(), byte: u8) {
            let mut text = Vec::new();
            write_title(&mut text).unwrap();
            for exchange in &exchanges {
                exchange.write(&mut text).unwrap();
            }
            let (at, cut) = (at % text.len(), cut % (text.len() + 1));
            text[at] = byte;
            let _ = read(&text[..cut]);
        }
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        let text = format!("{TITLE}\n> POST /sdk\n> body {}\nx\n", MAX_BODY);
        assert!(read(text.as_bytes()).is_err());
        assert!(read(b"something else\n").is_err());
    }
}
