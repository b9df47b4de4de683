//! The security token service: `/sts/STSService`, which issues SAML bearer tokens, and the check of those tokens.
//!
//! The assertions look like vCenter's, but their signature is a keyed digest over the assertion's own bytes, not an XML
//! signature over its canonical form: only the simulator that issued a token can check it, and it takes nothing but
//! the bytes that it issued.

use std::time::Duration;

use ring::hmac;
use vsphere_vim_types::DateTime;
use vsphere_vim_types::xml::{Limits, Malformed, Reader, Writer, decode_base64, encode_base64};

/// Bounds of a request.
const LIMITS: Limits = Limits { depth: 64, memory: 1 << 20 };
/// How far clocks may differ.
const TOLERANCE_SECONDS: i64 = 300;

const WST: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512";
const SIGNATURE_START: &str = "<ds:SignatureValue>";
const SIGNATURE_END: &str = "</ds:SignatureValue>";

/// Issues and checks tokens.
pub(crate) struct TokenService {
    key: hmac::Key,
    longest: Duration,
}

/// What a client asked for.
#[derive(Default)]
struct Asked {
    user: String,
    password: String,
    /// Until when the message is good.
    expires: Option<DateTime>,
    request_type: String,
    key_type: String,
    from: Option<DateTime>,
    until: Option<DateTime>,
}

impl TokenService {
    /// Tokens live for `longest` at most.
    pub(crate) fn new(longest: Duration) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &crate::ids::random_bytes::<32>()), longest }
    }

    /// Answers a request: whether it is a fault, and the envelope.
    pub(crate) fn answer(&self, body: &[u8], username: &str, password: &str) -> (bool, String) {
        let asked = match std::str::from_utf8(body).ok().and_then(|text| Asked::read(text).ok()) {
            Some(asked) if asked.request_type == format!("{WST}/Issue") => asked,
            _ => return fault("wst:InvalidRequest", "The request is not understood"),
        };
        if asked.key_type != format!("{WST}/Bearer") {
            return fault("wst:RequestFailed", "This service issues bearer tokens only");
        }
        let now = DateTime::now().unix_seconds();
        if asked.expires.is_some_and(|expires| expires.unix_seconds() + TOLERANCE_SECONDS < now) {
            return fault("wsse:MessageExpired", "The message has expired");
        }
        if asked.user != username || asked.password != password {
            return fault("ns0:FailedAuthentication", "Invalid credentials");
        }
        let from = asked.from.map_or(now, |from| from.unix_seconds());
        let until = asked.until.map_or(now + 300, |until| until.unix_seconds());
        if until <= from || (from - now).abs() > TOLERANCE_SECONDS {
            return fault("wst:InvalidTimeRange", "The requested lifetime is not possible");
        }
        let longest = i64::try_from(self.longest.as_secs()).unwrap_or(i64::MAX);
        (false, self.issue(username, now, until.min(now.saturating_add(longest))))
    }

    fn issue(&self, user: &str, now: i64, until: i64) -> String {
        let time = |seconds| DateTime::from_unix(seconds, 0).to_string();
        let mut w = Writer::new();
        w.raw("<saml2:Assertion xmlns:saml2=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_");
        w.raw(&format!("{}\" IssueInstant=\"{}\" Version=\"2.0\">", crate::ids::uuid(), time(now)));
        w.text_element("saml2:Issuer", "https://sim.invalid/websso/SAML2/Metadata/vsphere.local");
        w.raw("<ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"><ds:SignedInfo><ds:SignatureMethod ");
        w.raw("Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#hmac-sha256\"/></ds:SignedInfo>");
        w.raw(SIGNATURE_START);
        w.raw(SIGNATURE_END);
        w.raw("</ds:Signature><saml2:Subject>");
        w.text_element("saml2:NameID", user);
        w.raw("<saml2:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\"/></saml2:Subject>");
        w.raw(&format!("<saml2:Conditions NotBefore=\"{}\" NotOnOrAfter=\"{}\"/>", time(now), time(until)));
        w.raw("</saml2:Assertion>");
        let unsigned = w.finish();
        let signature = encode_base64(hmac::sign(&self.key, unsigned.as_bytes()).as_ref());
        let assertion = unsigned.replacen(SIGNATURE_END, &format!("{signature}{SIGNATURE_END}"), 1);
        envelope(&format!(
            "<wst:RequestSecurityTokenResponseCollection xmlns:wst=\"{WST}\"><wst:RequestSecurityTokenResponse>\
             <wst:RequestedSecurityToken>{assertion}</wst:RequestedSecurityToken>\
             </wst:RequestSecurityTokenResponse></wst:RequestSecurityTokenResponseCollection>"
        ))
    }

    /// Whose token stands in the security header of a call; the reason when none is good.
    pub(crate) fn verify(&self, body: &[u8]) -> Result<String, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "not UTF-8")?;
        let assertion = assertion(text).map_err(|_| "malformed")?.ok_or("no token")?;
        let (head, rest) = assertion.split_once(SIGNATURE_START).ok_or("not signed")?;
        let (signature, tail) = rest.split_once(SIGNATURE_END).ok_or("not signed")?;
        let signature = decode_base64(signature).ok_or("not signed")?;
        let unsigned = format!("{head}{SIGNATURE_START}{SIGNATURE_END}{tail}");
        hmac::verify(&self.key, unsigned.as_bytes(), &signature).map_err(|_| "tampered with, or issued elsewhere")?;
        let (user, until) = subject(assertion).map_err(|_| "malformed")?;
        let now = DateTime::now().unix_seconds();
        if until.is_none_or(|until| until.unix_seconds() <= now) {
            return Err("expired");
        }
        Ok(user)
    }
}

impl Asked {
    fn read(text: &str) -> Result<Self, Malformed> {
        let mut asked = Self::default();
        let mut reader = Reader::new(text, LIMITS);
        asked.read_below(&mut reader, "")?;
        reader.finish()?;
        Ok(asked)
    }

    /// Takes what it knows by its name and the name around it, wherever it stands.
    fn read_below(&mut self, reader: &mut Reader<'_>, around: &str) -> Result<(), Malformed> {
        while let Some(name) = reader.next_child()? {
            let time = |text: &str| DateTime::parse(text).ok();
            match (around, name) {
                ("UsernameToken", "Username") => self.user = reader.text()?.into_owned(),
                ("UsernameToken", "Password") => self.password = reader.text()?.into_owned(),
                ("Timestamp", "Expires") => self.expires = time(&reader.text()?),
                ("Lifetime", "Created") => self.from = time(&reader.text()?),
                ("Lifetime", "Expires") => self.until = time(&reader.text()?),
                ("RequestSecurityToken", "RequestType") => self.request_type = reader.text()?.into_owned(),
                ("RequestSecurityToken", "KeyType") => self.key_type = reader.text()?.into_owned(),
                _ => self.read_below(reader, name)?,
            }
        }
        Ok(())
    }
}

/// The assertion in the security header, byte by byte.
fn assertion(text: &str) -> Result<Option<&str>, Malformed> {
    let mut reader = Reader::new(text, LIMITS);
    reader.next_child()?;
    while let Some(part) = reader.next_child()? {
        if part != "Header" {
            break;
        }
        while let Some(header) = reader.next_child()? {
            if header != "Security" {
                reader.skip()?;
                continue;
            }
            let mut start = reader.offset();
            while let Some(child) = reader.next_child()? {
                reader.skip()?;
                if child == "Assertion" {
                    return Ok(Some(text[start..reader.offset()].trim()));
                }
                start = reader.offset();
            }
        }
    }
    Ok(None)
}

/// The user, and when the token ends.
fn subject(assertion: &str) -> Result<(String, Option<DateTime>), Malformed> {
    let (mut user, mut until) = (String::new(), None);
    let mut reader = Reader::new(assertion, LIMITS);
    reader.next_child()?;
    while let Some(child) = reader.next_child()? {
        match child {
            "Subject" => {
                while let Some(child) = reader.next_child()? {
                    if child == "NameID" { user = reader.text()?.into_owned() } else { reader.skip()? }
                }
            }
            "Conditions" => {
                until = reader.attribute("NotOnOrAfter").and_then(|text| DateTime::parse(&text).ok());
                reader.skip()?;
            }
            _ => reader.skip()?,
        }
    }
    Ok((user, until))
}

fn fault(code: &str, message: &str) -> (bool, String) {
    let mut w = Writer::new();
    w.raw("<S:Fault xmlns:wst=\"");
    w.raw(WST);
    w.raw("\" xmlns:ns0=\"");
    w.raw(WST);
    w.raw("\" xmlns:wsse=\"http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd\">");
    w.text_element("faultcode", code);
    w.text_element("faultstring", message);
    w.raw("</S:Fault>");
    (true, envelope(&w.finish()))
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><S:Envelope xmlns:S=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <S:Body>{body}</S:Body></S:Envelope>"
    )
}
