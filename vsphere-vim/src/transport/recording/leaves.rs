//! The texts of an XML body, and what each of them may give away.

use std::ops::Range;

use vsphere_vim_types::xml::{Limits, Malformed, Reader};

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A password, token, ticket or cookie.
    Secret,
    /// A person's or account's name.
    User,
    /// A computer's name.
    Host,
    /// Differs in every run: operation ids, times of security headers.
    Volatile,
    /// A version, which looks like an address.
    Version,
    /// The address of a leased disk: a folder of its path is a ticket.
    LeaseUrl,
    /// Anything else.
    Plain,
}

/// An element's text within the body.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) range: Range<usize>,
    pub(super) kind: Kind,
}

/// All texts, in order; an error when the body is no XML.
pub(super) fn leaves(text: &str) -> Result<Vec<Leaf>, Malformed> {
    let mut walk = Walk { text, reader: Reader::new(text, Limits::default()), leaves: Vec::new(), around: Vec::new() };
    while let Some(name) = walk.reader.next_child()? {
        walk.element(name, false)?;
    }
    Ok(walk.leaves)
}

struct Walk<'a> {
    text: &'a str,
    reader: Reader<'a>,
    leaves: Vec<Leaf>,
    /// The elements around, with their types.
    around: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Walk<'a> {
    /// Takes the element just entered.
    fn element(&mut self, name: &'a str, within_secret: bool) -> Result<(), Malformed> {
        let start = self.reader.offset();
        let xsi_type = self.reader.xsi_type();
        let kind = match self.kind(name) {
            // A token says whose it is; that is no secret.
            Kind::User => Kind::User,
            _ if within_secret => Kind::Secret,
            kind => kind,
        };
        if self.text[..start].ends_with("/>") {
            return self.reader.skip();
        }
        let next = self.text[start..].find('<').map_or("", |at| &self.text[start + at..]);
        if next.starts_with("</") || next.starts_with("<![CDATA[") {
            // References and managed objects are ids of the server, not names.
            let reference = self.reader.attribute("type").is_some();
            self.reader.text()?;
            let end = start + self.text[start..self.reader.offset()].rfind("</").unwrap_or(0);
            let kind = if reference && kind != Kind::Secret { Kind::Plain } else { kind };
            self.leaves.push(Leaf { range: start..end, kind });
            return Ok(());
        }
        self.around.push((name, xsi_type));
        while let Some(child) = self.reader.next_child()? {
            self.element(child, kind == Kind::Secret)?;
        }
        self.around.pop();
        Ok(())
    }

    fn kind(&self, name: &str) -> Kind {
        let is_within = |(parent, child): &(&str, &str)| {
            *child == name
                && self.around.iter().rev().take(2).any(|(around, xsi)| around == parent || *xsi == Some(*parent))
        };
        if SECRET.contains(&name) || SECRET_WITHIN.iter().any(is_within) {
            Kind::Secret
        } else if name == "url" && self.around.last().is_some_and(|(around, _)| *around == "deviceUrl") {
            Kind::LeaseUrl
        } else if USER.contains(&name) {
            Kind::User
        } else if HOST.contains(&name) {
            Kind::Host
        } else if VOLATILE.contains(&name) {
            Kind::Volatile
        } else if name.to_ascii_lowercase().ends_with("version") {
            Kind::Version
        } else {
            Kind::Plain
        }
    }
}

/// Secret wherever they stand: what the model flags, and what WS-Security and SAML carry.
const SECRET: [&str; 13] = [
    "password",
    "Password",
    "cloneTicket",
    "ticket",
    "sessionId",
    "sessionID",
    "token",
    "Assertion",
    "BinarySecret",
    "BinarySecurityToken",
    "SignatureValue",
    "privateKey",
    "vcSessionCookie",
];

/// Names that are secret only within an element or type of that name (or right below one).
const SECRET_WITHIN: [(&str, &str); 14] = [
    ("AcquireCloneTicketResponse", "returnval"),
    ("AcquireGenericServiceTicketResponse", "id"),
    ("SessionManagerGenericServiceTicket", "id"),
    // Some servers use a session's key as its cookie.
    ("LoginResponse", "key"),
    ("LoginByTokenResponse", "key"),
    ("LoginExtensionByCertificateResponse", "key"),
    ("CloneSessionResponse", "key"),
    ("UserSession", "key"),
    ("VAppPropertyInfo", "value"),
    ("VAppPropertyInfo", "defaultValue"),
    ("property", "value"),
    ("property", "defaultValue"),
    ("info", "value"),
    ("info", "defaultValue"),
];

const USER: [&str; 7] = ["userName", "Username", "fullName", "NameID", "user", "principal", "extensionKey"];
const HOST: [&str; 5] = ["hostName", "dnsName", "host", "serverName", "domainName"];
const VOLATILE: [&str; 3] = ["operationID", "Created", "Expires"];

#[cfg(test)]
mod tests {
    use super::*;

    fn of_kind(text: &str, kind: Kind) -> Vec<&str> {
        leaves(text).unwrap().into_iter().filter(|leaf| leaf.kind == kind).map(|leaf| &text[leaf.range]).collect()
    }

    #[test]
    fn secrets_are_found_by_name_and_by_place() {
        let text = "<L xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'><password>a&amp;b</password>\
            <AcquireCloneTicketResponse><returnval>c</returnval></AcquireCloneTicketResponse>\
            <LoginResponse><returnval><key>d</key><userName>u</userName></returnval></LoginResponse>\
            <val xsi:type='UserSession'><key>e</key></val><val><key>2000</key></val>\
            <Assertion><x><y>f</y></x><NameID>v</NameID></Assertion><ticket><![CDATA[g]]></ticket><token/><id>h</id></L>";
        assert_eq!(of_kind(text, Kind::Secret), ["a&amp;b", "c", "d", "e", "f", "<![CDATA[g]]>"]);
        assert_eq!(of_kind(text, Kind::User), ["u", "v"]);
        assert_eq!(of_kind(text, Kind::Plain), ["2000", "h"]);
    }

    #[test]
    fn a_reference_is_no_host_name() {
        let text = "<r><host type='HostSystem'>host-8</host><host>esx1</host></r>";
        assert_eq!(of_kind(text, Kind::Host), ["esx1"]);
    }

    /// The model is generated anew with each version: a field that it flags secret has to be known here.
    #[test]
    fn every_field_that_the_model_flags_secret_is_scrubbed() {
        let mut files = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/types/src/generated"))];
        let mut flagged = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            for line in std::fs::read_to_string(path).unwrap().lines().filter(|line| line.ends_with(" secret,")) {
                let name = line.split('"').nth(1).unwrap();
                let known = SECRET.contains(&name) || SECRET_WITHIN.iter().any(|(_, child)| *child == name);
                assert!(known, "{name} is secret in the model");
                flagged += 1;
            }
        }
        assert!(flagged >= 10, "{flagged}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends_in_ranges_or_an_error(text in "[<>a-b/ \"=!\\[\\]CDAT-]{0,60}") {
            if let Ok(leaves) = leaves(&text) {
                for leaf in leaves {
                    let _ = &text[leaf.range];
                }
            }
        }
    }
}
