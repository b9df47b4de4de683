//! What must not be in a recording, and what stands there instead.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::leaves::{Kind, Leaf, leaves};
use crate::endpoint::Endpoint;

/// What a recording leaves out. The same text has the same stand-in throughout one recording.
///
/// A name is replaced from the exchange on in which it stands where names stand; names that are known before are
/// better stated with [`Scrub::also`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Scrub {
    identities: bool,
    words: Vec<String>,
}

impl Scrub {
    /// Passwords, tokens, cookies, tickets and every field that the model calls secret. These always go.
    pub fn secrets() -> Self {
        Self::default()
    }

    /// User names, host names and IP addresses too, and the server's own address.
    pub fn identities(server: &Endpoint) -> Self {
        Self { identities: true, words: Vec::new() }.also(server.host())
    }

    /// Each occurrence of this text too: a domain, a customer's name.
    pub fn also(mut self, word: impl Into<String>) -> Self {
        let word = word.into();
        if !word.is_empty() {
            self.words.push(word);
        }
        self
    }
}

/// The stand-ins of one recording.
#[derive(Debug, Default)]
pub(super) struct Scrubber {
    identities: bool,
    /// Text as it stands in XML, to its stand-in.
    known: HashMap<String, String>,
    /// The texts that are replaced wherever they stand, longest first.
    anywhere: Vec<String>,
    counts: [usize; 5],
}

impl Scrubber {
    pub(super) fn new(scrub: Scrub) -> Self {
        let mut scrubber = Self { identities: scrub.identities, ..Self::default() };
        for word in scrub.words {
            let stand_in = scrubber.next("name", 3);
            scrubber.remember(word, stand_in, true);
        }
        scrubber
    }

    /// The stand-in of a secret that is no text of a body, such as a cookie.
    pub(super) fn secret(&mut self, text: &str) -> String {
        self.stand_in(text.trim_matches('"'), Kind::Secret)
    }

    /// Learns what a body gives away, before anything of the exchange is written.
    pub(super) fn learn(&mut self, text: &str) {
        for Leaf { range, kind } in leaves(text).unwrap_or_default() {
            if kind == Kind::Secret || (self.identities && matches!(kind, Kind::User | Kind::Host)) {
                self.stand_in(text[range].trim(), kind);
            } else if kind == Kind::LeaseUrl {
                for ticket in tickets(&text[range]) {
                    self.stand_in(ticket, Kind::Secret);
                }
            }
        }
    }

    /// The body without what must not be in it. What is no XML has no places; there only what is known goes.
    pub(super) fn body(&mut self, text: &str) -> String {
        let Ok(leaves) = leaves(text) else { return self.words(text) };
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for Leaf { range, kind } in leaves {
            out.push_str(&self.words(&text[from..range.start]));
            let leaf = &text[range.clone()];
            match kind {
                _ if leaf.trim().is_empty() => out.push_str(leaf),
                Kind::Secret => out.push_str(&self.stand_in(leaf.trim(), kind)),
                Kind::User | Kind::Host if self.identities => out.push_str(&self.stand_in(leaf.trim(), kind)),
                Kind::Version => out.push_str(&self.words(leaf)),
                _ => {
                    let leaf = self.words(leaf);
                    out.push_str(&if self.identities { self.addresses(&leaf) } else { leaf });
                }
            }
            from = range.end;
        }
        out.push_str(&self.words(&text[from..]));
        out
    }

    /// The text with every known word replaced.
    pub(super) fn words(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for word in &self.anywhere {
            if text.contains(word.as_str()) {
                text = replace_word(&text, word, &self.known[word]);
            }
        }
        text
    }

    fn stand_in(&mut self, text: &str, kind: Kind) -> String {
        if let Some(stand_in) = self.known.get(text) {
            return stand_in.clone();
        }
        if self.known.values().any(|stand_in| stand_in == text) {
            return text.to_owned();
        }
        if let (Kind::Host, Some(address)) = (kind, self.address(text)) {
            return address;
        }
        let (stand_in, anywhere) = match kind {
            Kind::User => (self.next("user", 1), text.len() >= SHORTEST_NAME),
            Kind::Host => (self.next("host", 2), text.len() >= SHORTEST_NAME),
            _ => (self.next("secret", 0), text.len() >= SHORTEST_SECRET),
        };
        self.remember(text.to_owned(), stand_in.clone(), anywhere);
        stand_in
    }

    fn remember(&mut self, text: String, stand_in: String, anywhere: bool) {
        // Beyond the bound a text is still replaced where it stands, only not consistently.
        if text.is_empty() || self.known.len() >= MAX_KNOWN {
            return;
        }
        if anywhere {
            let at = self.anywhere.partition_point(|known| known.len() >= text.len());
            self.anywhere.insert(at, text.clone());
        }
        self.known.insert(text, stand_in);
    }

    fn next(&mut self, name: &str, count: usize) -> String {
        self.counts[count] += 1;
        format!("{name}-{}", self.counts[count])
    }

    /// Replaces the addresses in a text.
    fn addresses(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for piece in text.split_inclusive(|c: char| !is_of_address(c)) {
            let word = piece.trim_end_matches(|c: char| !is_of_address(c));
            // The end of a sentence is no part of an address.
            let bare = word.trim_end_matches(['.', ':']);
            match self.address(bare) {
                Some(stand_in) => {
                    out.push_str(&stand_in);
                    out.push_str(&piece[bare.len()..]);
                }
                // `192.168.0.1:443`
                None => match bare.rsplit_once(':').and_then(|(host, port)| Some((self.address(host)?, port))) {
                    Some((stand_in, port)) => {
                        out.push_str(&format!("{stand_in}:{port}"));
                        out.push_str(&piece[bare.len()..]);
                    }
                    None => out.push_str(piece),
                },
            }
        }
        out
    }

    /// The stand-in of an address, from the ranges for documentation.
    fn address(&mut self, text: &str) -> Option<String> {
        if let Some(known) = self.known.get(text) {
            return Some(known.clone());
        }
        let stand_in = if let Ok(address) = text.parse::<Ipv4Addr>() {
            if address.is_loopback() || address.is_unspecified() || address.is_broadcast() || is_documentation(address)
            {
                return None;
            }
            self.counts[4] += 1;
            match u8::try_from(self.counts[4]) {
                Ok(low) if low < 255 => Ipv4Addr::new(192, 0, 2, low).to_string(),
                _ => {
                    let [_, _, high, low] = u32::try_from(self.counts[4]).unwrap_or(u32::MAX).to_be_bytes();
                    Ipv4Addr::new(198, 18, high, low).to_string()
                }
            }
        } else if text.matches(':').count() >= 2
            && let Ok(address) = text.parse::<Ipv6Addr>()
        {
            if address.is_loopback() || address.is_unspecified() || address.segments()[..2] == [0x2001, 0xdb8] {
                return None;
            }
            self.counts[4] += 1;
            format!("2001:db8::{:x}", self.counts[4])
        } else {
            return None;
        };
        self.remember(text.to_owned(), stand_in.clone(), false);
        Some(stand_in)
    }
}

/// Replaces `word` where it is not part of a longer word.
fn replace_word(text: &str, word: &str, stand_in: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let after = rest[at + word.len()..].chars().next();
        let inside = |c: Option<char>, edge: Option<char>| {
            c.is_some_and(char::is_alphanumeric) && edge.is_some_and(char::is_alphanumeric)
        };
        let part = inside(before, word.chars().next()) || inside(after, word.chars().next_back());
        out.push_str(&rest[..at]);
        out.push_str(if part { word } else { stand_in });
        rest = &rest[at + word.len()..];
    }
    out.push_str(rest);
    out
}

fn is_of_address(c: char) -> bool {
    c.is_ascii_hexdigit() || matches!(c, '.' | ':')
}

fn is_documentation(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [192, 0, 2, _] | [198, 18, _, _])
}

/// Shorter secrets are replaced only where secrets stand: they would tear up other words.
const SHORTEST_SECRET: usize = 6;
const SHORTEST_NAME: usize = 4;
const MAX_KNOWN: usize = 10_000;

/// What of a leased disk's address opens it: every folder of the path but the service's own.
fn tickets(url: &str) -> impl Iterator<Item = &str> {
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').filter(|folder| folder.len() >= SHORTEST_SECRET)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(scrubber: &mut Scrubber, text: &str) -> String {
        scrubber.learn(text);
        scrubber.body(text)
    }

    #[test]
    fn the_ticket_in_a_leased_disks_address_goes_and_the_address_stays_one() {
        let text = "<a><deviceUrl><key>k</key><url>https://*/nfc/52a1b2c3-d4/disk-0.vmdk</url></deviceUrl></a>";
        let clean = scrub(&mut Scrubber::new(Scrub::secrets()), text);
        assert!(clean.contains("https://*/nfc/secret-1/disk-0.vmdk") && !clean.contains("52a1b2c3"), "{clean}");
    }

    #[test]
    fn secrets_have_one_stand_in_wherever_they_turn_up() {
        let mut scrubber = Scrubber::new(Scrub::secrets());
        assert_eq!(scrubber.secret("\"cookie-value\""), "secret-1");
        let first = scrub(
            &mut scrubber,
            "<a url='/x?cookie-value'><password>hunter22</password><b>hunter22, hunter222</b></a>",
        );
        assert_eq!(first, "<a url='/x?secret-1'><password>secret-2</password><b>secret-2, hunter222</b></a>");
        let second = scrub(&mut scrubber, "<a><userName>root</userName><ip>10.1.2.3</ip><token>hunter22</token></a>");
        assert_eq!(second, "<a><userName>root</userName><ip>10.1.2.3</ip><token>secret-2</token></a>");
    }

    #[test]
    fn short_secrets_go_where_they_stand_and_nowhere_else() {
        let mut scrubber = Scrubber::new(Scrub::secrets());
        assert_eq!(
            scrub(&mut scrubber, "<a><password>vm</password><b>vm</b></a>"),
            "<a><password>secret-1</password><b>vm</b></a>"
        );
    }

    #[test]
    fn identities_get_consistent_pseudonyms_and_versions_stay() {
        let server = Endpoint::parse("https://vc.corp.example/sdk").unwrap();
        let mut scrubber = Scrubber::new(Scrub::identities(&server).also("Corp"));
        let text = "<a><userName>CORP\\svc</userName><m>User CORP\\svc@10.1.2.3 on vc.corp.example.</m><hostName>esx1.corp</hostName>\
            <ip>10.1.2.3</ip><ip6>fe80::1</ip6><version>8.0.3.0</version><mac>00:50:56:aa:bb:cc</mac><u>https://10.9.9.9:443/x</u><own>127.0.0.1</own><c>Corp 2</c></a>";
        let out = scrub(&mut scrubber, text);
        assert_eq!(
            out,
            "<a><userName>user-1</userName><m>User user-1@192.0.2.1 on name-1.</m><hostName>host-1</hostName>\
            <ip>192.0.2.1</ip><ip6>2001:db8::2</ip6><version>8.0.3.0</version><mac>00:50:56:aa:bb:cc</mac><u>https://192.0.2.3:443/x</u><own>127.0.0.1</own><c>name-2 2</c></a>"
        );
        assert_eq!(scrub(&mut scrubber, &out), out, "what is scrubbed stays as it is");
    }

    #[test]
    fn what_is_no_xml_loses_what_is_known() {
        let mut scrubber = Scrubber::new(Scrub::secrets());
        scrubber.secret("cookie-value");
        assert_eq!(scrub(&mut scrubber, "<html><br>cookie-value"), "<html><br>secret-1");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[<>a-c/ \"=.:0-9]{0,60}") {
            let mut scrubber = Scrubber::new(Scrub::identities(&Endpoint::parse("https://abc").unwrap()));
            scrub(&mut scrubber, &text);
        }
    }
}
