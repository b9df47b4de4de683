//! The line protocol of the authentication daemon: banner, commands, replies.
//!
//! Lines end in CRLF (a bare LF is taken too) and have at most [`MAX_LINE`] bytes. Lines may arrive
//! split or joined in any way; [`LineBuffer`] puts them together.

use std::fmt;

use zeroize::Zeroizing;

use super::WireError;

/// The longest line that is taken, in bytes, without its end.
pub const MAX_LINE: usize = 4096;

/// The word that VDDK sends with [`Command::ThumbprintSha2`] and in the classic message 43.
pub const CLIENT_RANDOM: &str = "PlainText";

/// What ends the name of a service that runs inside a second TLS session.
pub const SSL_SUFFIX: &str = "ssl";

/// The first line of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// The whole line.
    pub line: String,
    /// TLS starts right after this line.
    pub ssl: bool,
    /// The daemon knows [`Command::ThumbprintSha2`].
    pub sha256: bool,
}

impl Banner {
    /// Reads the banner out of the first line.
    ///
    /// # Errors
    /// When the line is not a `220` line.
    pub fn parse(line: &str) -> Result<Self, WireError> {
        if !line.starts_with("220") {
            return Err(WireError::Malformed("the first line is not a 220 line"));
        }
        Ok(Self {
            line: super::fault::text(line.as_bytes()),
            ssl: line.contains("SSL"),
            sha256: line.contains("SHA256 supported"),
        })
    }
}

/// A reply: three digits and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The code, the first three characters.
    pub code: u16,
    /// What follows the code, trimmed.
    pub text: String,
}

impl Reply {
    /// Reads a reply.
    ///
    /// # Errors
    /// When the line does not start with three digits.
    pub fn parse(line: &str) -> Result<Self, WireError> {
        const WHAT: WireError = WireError::Malformed("a reply does not start with a code");
        let digits = line.get(..3).ok_or(WHAT)?;
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(WHAT);
        }
        let code = digits.parse().map_err(|_| WHAT)?;
        Ok(Self { code, text: super::fault::text(line[3..].trim().as_bytes()) })
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {}", self.code, self.text)
    }
}

/// A command of the client. `Debug` does not show ticket ids.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// `SESSION id`: presents the ticket, which is overwritten when dropped. The server does not
    /// reply.
    Session(Zeroizing<String>),
    /// `BANNER `: asks for the first line again.
    Banner,
    /// `THUMBPRINT_SHA2 word`: asks for the certificate of the second TLS session.
    ThumbprintSha2(String),
    /// `PROXY service`: hands the connection over to the service.
    Proxy(String),
    /// Anything else.
    Other(String),
}

impl Command {
    /// Reads a command.
    pub fn parse(line: &str) -> Self {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let argument = || rest.trim().to_owned();
        match verb {
            "SESSION" => Self::Session(Zeroizing::new(argument())),
            "BANNER" => Self::Banner,
            "THUMBPRINT_SHA2" => Self::ThumbprintSha2(argument()),
            "PROXY" => Self::Proxy(argument()),
            _ => Self::Other(line.to_owned()),
        }
    }

    /// Writes the command with its line end.
    ///
    /// # Errors
    /// When an argument has control characters in it, and so would be more than one line.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let (verb, argument) = match self {
            Self::Session(id) => ("SESSION ", id.as_str()),
            Self::Banner => ("BANNER ", ""),
            Self::ThumbprintSha2(word) => ("THUMBPRINT_SHA2 ", word.as_str()),
            Self::Proxy(service) => ("PROXY ", service.as_str()),
            Self::Other(line) => ("", line.as_str()),
        };
        if argument.chars().any(char::is_control) || verb.len() + argument.len() > MAX_LINE {
            return Err(WireError::Malformed("an authd command does not fit in a line"));
        }
        // Room for all of it: growing would leave a copy of the secret behind.
        let mut line = Zeroizing::new(Vec::with_capacity(verb.len() + argument.len() + 2));
        line.extend_from_slice(verb.as_bytes());
        line.extend_from_slice(argument.as_bytes());
        line.extend_from_slice(b"\r\n");
        Ok(line)
    }

    /// The command's name, for messages.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Session(_) => "SESSION",
            Self::Banner => "BANNER",
            Self::ThumbprintSha2(_) => "THUMBPRINT_SHA2",
            Self::Proxy(_) => "PROXY",
            Self::Other(_) => "an unknown command",
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(_) => f.write_str("Session(redacted)"),
            Self::Banner => f.write_str("Banner"),
            Self::ThumbprintSha2(word) => f.debug_tuple("ThumbprintSha2").field(word).finish(),
            Self::Proxy(service) => f.debug_tuple("Proxy").field(service).finish(),
            // It may well be a ticket id after a misspelt verb.
            Self::Other(_) => f.write_str("Other(..)"),
        }
    }
}

/// Puts lines together out of bytes that arrive in any portions; holds one line at most.
#[derive(Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
}

impl LineBuffer {
    /// Takes bytes up to and with the first line end, and returns how many were taken.
    ///
    /// When that is less than all, or when the last byte taken was the line end,
    /// [`take_line`](Self::take_line) has a line.
    ///
    /// # Errors
    /// When the line gets longer than [`MAX_LINE`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, WireError> {
        if self.bytes.last() == Some(&b'\n') {
            return Ok(0);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        // Two for the line end.
        if self.bytes.len() + end > MAX_LINE + 2 {
            return Err(WireError::Malformed("a line is longer than 4096 bytes"));
        }
        self.bytes.extend_from_slice(&bytes[..end]);
        Ok(end)
    }

    /// The line, once it is complete, without its end. Bytes that are not UTF-8 are replaced.
    pub fn take_line(&mut self) -> Option<String> {
        let line = self.bytes.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = String::from_utf8_lossy(line).into_owned();
        self.bytes.clear();
        Some(line)
    }

    /// Whether bytes of an unfinished or untaken line are held.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl fmt::Debug for LineBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineBuffer({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESXI_8: &str = "220 VMware Authentication Daemon Version 1.10: SSL Required, ServerDaemonProtocol:SOAP, MKSDisplayProtocol:VNC , VMXARGS supported, NFCSSL supported/t, SHA256 supported";

    #[test]
    fn banner_of_esxi_8_asks_for_tls_and_knows_sha_256() {
        let banner = Banner::parse(ESXI_8).unwrap();
        assert!(banner.ssl && banner.sha256);
        assert!(Banner::parse("421 busy").is_err());
    }

    #[test]
    fn lines_are_found_however_the_bytes_are_cut() {
        let sent = b"SESSION 52-1\r\nPROXY vpxa-nfcssl\r\n";
        for step in 1..sent.len() {
            let mut lines = LineBuffer::default();
            let mut found = Vec::new();
            for mut part in sent.chunks(step) {
                while !part.is_empty() {
                    let taken = lines.push(part).unwrap();
                    part = &part[taken..];
                    found.extend(lines.take_line());
                }
            }
            assert_eq!(found, ["SESSION 52-1", "PROXY vpxa-nfcssl"], "step {step}");
        }
    }

    #[test]
    fn line_without_end_is_refused_and_not_stored() {
        let mut lines = LineBuffer::default();
        assert!(lines.push(&[b'x'; 10_000]).is_err());
        assert!(lines.is_empty());
    }

    #[test]
    fn commands_survive_a_round_trip_and_cannot_smuggle_a_second_line() {
        for command in [
            Command::Session(Zeroizing::new("52000000-0000".into())),
            Command::Banner,
            Command::ThumbprintSha2(CLIENT_RANDOM.into()),
            Command::Proxy("vpxa-nfcssl".into()),
        ] {
            let bytes = command.encode().unwrap();
            let line = std::str::from_utf8(&bytes).unwrap().trim_end_matches("\r\n");
            assert_eq!(Command::parse(line), command);
        }
        let smuggled = Zeroizing::new("1\r\nPROXY nfc".to_owned());
        assert!(Command::Session(smuggled).encode().is_err());
        let secret = Zeroizing::new("52-secret".to_owned());
        assert!(!format!("{:?}", Command::Session(secret)).contains("secret"));
    }

    #[test]
    fn replies_need_three_digits() {
        let reply = Reply::parse("530 Login incorrect").unwrap();
        assert_eq!((reply.code, reply.text.as_str()), (530, "Login incorrect"));
        assert_eq!(Reply::parse("200").unwrap().text, "");
        assert_eq!(Reply::parse("530 a\rb\x1b[2J").unwrap().text, "a b [2J", "no line of a log is broken");
        assert_eq!(Banner::parse("220 a\rb").unwrap().line, "220 a b");
        for bad in ["", "20", "2x0 a", "+20 a", "é0 a"] {
            assert!(Reply::parse(bad).is_err(), "{bad}");
        }
    }
}
