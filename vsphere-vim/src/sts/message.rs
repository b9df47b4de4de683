//! The two messages: `RequestSecurityToken` out, `RequestSecurityTokenResponse` (or a fault) back.

use std::time::Duration;

use vsphere_vim_types::{
    DateTime,
    xml::{Limits, Malformed, Reader, Writer},
};
use zeroize::Zeroizing;

use super::{TokenRefusal, TokenRequest};
use crate::credentials::SamlToken;

/// The request, in a buffer that is wiped.
pub(super) fn encode(request: &TokenRequest) -> Zeroizing<Vec<u8>> {
    let now = DateTime::now();
    let secret = request.user.len() + request.password.expose().len();
    // The buffer must not grow: it would leave a copy of the password behind.
    let mut w = Writer::with_capacity(FRAME + LONGEST_ESCAPE * secret + request.path.len());
    w.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soapenv:Envelope xmlns:soapenv=\"");
    w.raw("http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Header>");
    w.raw(&security_start(now));
    w.raw("<wsse:UsernameToken>");
    w.text_element("wsse:Username", &request.user);
    w.text_element("wsse:Password", request.password.expose());
    w.raw("</wsse:UsernameToken>");
    w.raw(SECURITY_END);
    w.raw("</soapenv:Header><soapenv:Body>");
    w.raw(&format!("<wst:RequestSecurityToken xmlns:wst=\"{WST}\" xmlns:wsu=\"{WSU}\">"));
    w.text_element("wst:TokenType", SAML2);
    w.text_element("wst:RequestType", &format!("{WST}/Issue"));
    w.raw(&format!(
        "<wst:Lifetime><wsu:Created>{}</wsu:Created><wsu:Expires>{}</wsu:Expires></wst:Lifetime>",
        millis(now),
        millis(later(now, request.lifetime))
    ));
    w.raw(&format!("<wst:Renewing Allow=\"{}\" OK=\"false\"/>", request.renewable));
    w.text_element("wst:Delegatable", if request.delegatable { "true" } else { "false" });
    w.text_element("wst:KeyType", &format!("{WST}/Bearer"));
    w.text_element("wst:SignatureAlgorithm", RSA_SHA256);
    w.raw("</wst:RequestSecurityToken></soapenv:Body></soapenv:Envelope>");
    Zeroizing::new(w.finish().into_bytes())
}

/// The header that proves who sends a call, with the token verbatim. In a buffer that is wiped.
pub(crate) fn security_header(token: &SamlToken) -> Zeroizing<String> {
    let assertion = token.assertion().expose();
    let start = security_start(DateTime::now());
    let mut header = Zeroizing::new(String::with_capacity(start.len() + assertion.len() + SECURITY_END.len()));
    header.push_str(&start);
    header.push_str(assertion);
    header.push_str(SECURITY_END);
    header
}

fn security_start(now: DateTime) -> String {
    format!(
        "<wsse:Security xmlns:wsse=\"{WSSE}\"><wsu:Timestamp xmlns:wsu=\"{WSU}\"><wsu:Created>{}</wsu:Created>\
         <wsu:Expires>{}</wsu:Expires></wsu:Timestamp>",
        millis(now),
        millis(later(now, MESSAGE_LIVES))
    )
}

/// Reads the answer: a token or a refusal.
pub(super) fn decode(body: &[u8]) -> Result<Result<SamlToken, TokenRefusal>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the answer is not UTF-8".to_owned())?;
    let mut reader = Reader::new(text, Limits::default());
    let answer = read(text, &mut reader).map_err(|error| error.to_string())?;
    match answer {
        Answer::Token(assertion) => SamlToken::parse(assertion).map(Ok).map_err(|error| error.to_string()),
        Answer::Refusal(refusal) => Ok(Err(refusal)),
        Answer::Nothing => Err("no RequestedSecurityToken in it".to_owned()),
    }
}

enum Answer<'a> {
    /// The assertion's bytes as they came.
    Token(&'a str),
    Refusal(TokenRefusal),
    Nothing,
}

fn read<'a>(text: &'a str, reader: &mut Reader<'a>) -> Result<Answer<'a>, Malformed> {
    let mut answer = Answer::Nothing;
    // Envelope, Body; other headers and siblings are passed over.
    if reader.next_child()? == Some("Envelope") {
        while let Some(part) = reader.next_child()? {
            if part != "Body" {
                reader.skip()?;
                continue;
            }
            while let Some(child) = reader.next_child()? {
                match child {
                    "Fault" => answer = Answer::Refusal(read_fault(reader)?),
                    "RequestSecurityTokenResponse" => take_token(text, reader, &mut answer)?,
                    // WS-Trust 1.3 wraps the answer in a collection; of several the first counts.
                    "RequestSecurityTokenResponseCollection" => {
                        while let Some(child) = reader.next_child()? {
                            match (child, &answer) {
                                ("RequestSecurityTokenResponse", Answer::Nothing) => {
                                    take_token(text, reader, &mut answer)?;
                                }
                                _ => reader.skip()?,
                            }
                        }
                    }
                    _ => reader.skip()?,
                }
            }
        }
    }
    reader.finish()?;
    Ok(answer)
}

/// Finds the first element within `RequestedSecurityToken` and keeps its bytes.
fn take_token<'a>(text: &'a str, reader: &mut Reader<'a>, answer: &mut Answer<'a>) -> Result<(), Malformed> {
    while let Some(child) = reader.next_child()? {
        if child != "RequestedSecurityToken" {
            reader.skip()?;
            continue;
        }
        let start = reader.offset();
        if reader.next_child()?.is_some() {
            reader.skip()?;
            *answer = Answer::Token(&text[start..reader.offset()]);
            while reader.next_child()?.is_some() {
                reader.skip()?;
            }
        }
    }
    Ok(())
}

/// SOAP 1.1 faults, and those of 1.2 that some gateways answer with.
fn read_fault(reader: &mut Reader<'_>) -> Result<TokenRefusal, Malformed> {
    let (mut code, mut message) = (String::new(), String::new());
    while let Some(child) = reader.next_child()? {
        match child {
            "faultcode" => code = reader.text()?.into_owned(),
            "faultstring" => message = reader.text()?.into_owned(),
            "Code" | "Reason" => {
                while let Some(inner) = reader.next_child()? {
                    match inner {
                        "Value" => code = reader.text()?.into_owned(),
                        "Text" => message = reader.text()?.into_owned(),
                        "Subcode" => {
                            while let Some(inner) = reader.next_child()? {
                                if inner == "Value" { code = reader.text()?.into_owned() } else { reader.skip()? }
                            }
                        }
                        _ => reader.skip()?,
                    }
                }
            }
            _ => reader.skip()?,
        }
    }
    Ok(TokenRefusal::new(&code, &message))
}

fn later(time: DateTime, by: Duration) -> DateTime {
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_unix(time.unix_seconds().saturating_add(seconds.min(LONGEST_LIFETIME)), nanos(time))
}

/// With three digits, as VMware's clients write it: some services refuse more.
fn millis(time: DateTime) -> String {
    let text = DateTime::from_unix(time.unix_seconds(), 0).to_string();
    format!("{}.{:03}Z", text.trim_end_matches('Z'), nanos(time) / 1_000_000)
}

fn nanos(time: DateTime) -> u32 {
    u32::try_from(time.unix_nanos().rem_euclid(1_000_000_000)).unwrap_or(0)
}

/// The `SOAPAction` of the request.
pub(super) const ACTION: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/RST/Issue";

const WST: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512";
const WSSE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
const WSU: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
const SAML2: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
const SECURITY_END: &str = "</wsse:Security>";

/// A message that arrives later than this is refused: nobody may replay it tomorrow.
const MESSAGE_LIVES: Duration = Duration::from_secs(60);
/// A hundred years, within what dates can say.
const LONGEST_LIFETIME: i64 = 100 * 365 * 24 * 3600;
/// Everything about the message but its secrets.
const FRAME: usize = 4096;
/// `&quot;`
const LONGEST_ESCAPE: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sts::TokenFault;

    const ASSERTION: &str = "<saml2:Assertion xmlns:saml2='urn:oasis:names:tc:SAML:2.0:assertion' ID=\"_1\"\n >\r\n<!-- kept --><saml2:Subject><saml2:NameID>a&amp;b</saml2:NameID></saml2:Subject></saml2:Assertion >";

    fn answer(inner: &str) -> String {
        format!(
            "<?xml version='1.0'?><S:Envelope xmlns:S='http://schemas.xmlsoap.org/soap/envelope/'><S:Header><x/></S:Header><S:Body>{inner}</S:Body></S:Envelope>"
        )
    }

    fn token(inner: &str) -> String {
        format!(
            "<w:RequestSecurityTokenResponse xmlns:w='{WST}'><w:TokenType>t</w:TokenType><w:RequestedSecurityToken> {inner} </w:RequestedSecurityToken><w:Lifetime/></w:RequestSecurityTokenResponse>"
        )
    }

    #[test]
    fn the_assertion_keeps_every_byte() {
        let collection = format!(
            "<w:RequestSecurityTokenResponseCollection>{}{}</w:RequestSecurityTokenResponseCollection>",
            token(ASSERTION),
            token("<o/>")
        );
        for body in [answer(&token(ASSERTION)), answer(&collection)] {
            let token = decode(body.as_bytes()).unwrap().unwrap();
            assert_eq!(token.assertion().expose(), ASSERTION);
            assert_eq!(token.subject(), Some("a&b"));
        }
    }

    #[test]
    fn faults_are_typed_whichever_soap_says_them() {
        let soap11 = answer(
            "<S:Fault xmlns:ns0='x'><faultcode>ns0:FailedAuthentication</faultcode><faultstring>Invalid credentials</faultstring></S:Fault>",
        );
        let soap12 = answer(
            "<S:Fault><S:Code><S:Value>S:Sender</S:Value><S:Subcode><S:Value>wst:FailedAuthentication</S:Value></S:Subcode></S:Code><S:Reason><S:Text>Invalid credentials</S:Text></S:Reason></S:Fault>",
        );
        for body in [soap11, soap12] {
            let refusal = decode(body.as_bytes()).unwrap().unwrap_err();
            assert_eq!(refusal.fault, TokenFault::FailedAuthentication);
            assert_eq!(&*refusal.message, "Invalid credentials");
        }
    }

    #[test]
    fn answers_without_a_token_are_errors() {
        let good = answer(&token(ASSERTION));
        for body in ["", "<a/>", &answer(""), &answer(&token("")), &answer(&token("<o/>")), &good[..good.len() - 9]] {
            assert!(decode(body.as_bytes()).is_err(), "{body}");
        }
        assert!(decode(b"\xff").is_err());
    }

    #[test]
    fn the_request_says_what_was_asked_and_fits_its_buffer() {
        let hard = "\"<&>\r".repeat(200);
        let request = TokenRequest::new("me@vsphere.local", hard.as_str())
            .lifetime(Duration::from_secs(90))
            .renewable(true)
            .delegatable(true);
        let body = encode(&request);
        let capacity = FRAME + LONGEST_ESCAPE * (hard.len() + "me@vsphere.local".len()) + "/sts/STSService".len();
        assert!(body.len() <= capacity && body.capacity() <= capacity, "{} of {capacity}", body.len());
        let text = std::str::from_utf8(&body).unwrap();
        for part in
            ["Renewing Allow=\"true\"", "<wst:Delegatable>true<", "me@vsphere.local", "200512/Bearer<", "&lt;&amp;&gt;"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let mut reader = Reader::new(text, Limits::default());
        reader.next_child().unwrap();
        reader.finish().unwrap();
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(millis(DateTime::from_unix(0, 7_000_001)), "1970-01-01T00:00:00.007Z");
        assert_eq!(millis(later(DateTime::from_unix(0, 0), Duration::from_secs(61))), "1970-01-01T00:01:01.000Z");
    }

    proptest::proptest! {
        #[test]
        fn no_cut_or_changed_answer_panics(cut in 0..900_usize, at in 0..900_usize, byte: u8) {
            let mut body = answer(&token(ASSERTION)).into_bytes();
            let at = at % body.len();
            body[at] = byte;
            body.truncate(cut);
            let _ = decode(&body);
        }
    }
}
