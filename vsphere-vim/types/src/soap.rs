//! SOAP envelopes: requests and answers as text, for the client and for a server. No I/O.

use std::fmt;

use crate::MethodFault;
use crate::rt::{Any, ApiVersion, Element, ManagedObjectReference, Method, Poly, Value as _};
use crate::xml::{Malformed, Reader, Writer};

pub use crate::xml::Limits;

const HEAD: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"",
    " xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">"
);
const BODY: &str = "<soapenv:Body>";
const TAIL: &str = "</soapenv:Body></soapenv:Envelope>";

/// Why an answer gave no value.
#[derive(Debug, Clone)]
pub enum Error {
    /// The server refused or failed.
    Fault(Box<SoapFault>),
    /// The answer is no SOAP answer to the request.
    Malformed(Malformed),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Fault(fault) => fault.fmt(f),
            Error::Malformed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Error::Malformed(error)
    }
}

/// A SOAP fault, its detail typed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SoapFault {
    /// `faultcode` as sent.
    pub code: String,
    /// `faultstring` as sent; often empty.
    pub string: String,
    /// The fault itself; `None` where the server sent no detail.
    pub detail: Option<Poly<MethodFault>>,
}

impl fmt::Display for SoapFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.detail.as_ref().map_or("a fault without detail", |detail| detail.type_name());
        match self.string.trim() {
            "" => write!(f, "{name}"),
            text => write!(f, "{name}: {text}"),
        }
    }
}

/// How a request is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestOptions<'a> {
    /// Written as the `operationID` header: the server logs it.
    pub operation_id: Option<&'a str>,
    /// Leave out fields that are newer.
    pub version: Option<ApiVersion>,
    /// Further header blocks, as markup.
    pub headers: &'a str,
    /// Room set aside from the start, in bytes: a buffer that has to grow leaves copies of its content behind.
    pub capacity: usize,
}

/// Writes the request for a method of the object `this`.
#[must_use]
pub fn encode_request<M: Method>(this: &ManagedObjectReference, args: &M, options: RequestOptions<'_>) -> String {
    request(M::NAMESPACE, M::NAME, this, options, |writer| writer.fields(args))
}

/// Writes the request for a method outside the model, from named values.
///
/// Arguments of data types known to the model keep their declared types; write an [`Element`] for anything else.
#[must_use]
pub fn encode_dynamic(
    namespace: &str,
    method: &str,
    this: &ManagedObjectReference,
    args: &[(&str, Any)],
    options: RequestOptions<'_>,
) -> String {
    request(namespace, method, this, options, |writer| {
        for (name, value) in args {
            match value {
                // A parameter's array has no wrapper and no item type.
                Any::Array { item, items } => {
                    for one in items {
                        writer.value(name, item, one.inner_shape());
                    }
                }
                other => {
                    let declared = other.as_object().map(|object| object.type_name().to_owned()).unwrap_or_default();
                    writer.value(name, &declared, other.inner_shape());
                }
            }
        }
    })
}

fn request(
    namespace: &str,
    method: &str,
    this: &ManagedObjectReference,
    options: RequestOptions<'_>,
    args: impl FnOnce(&mut Writer),
) -> String {
    let mut writer = Writer::with_capacity(options.capacity);
    if let Some(version) = options.version {
        writer = writer.for_version(version);
    }
    writer.raw(HEAD);
    if options.operation_id.is_some() || !options.headers.is_empty() {
        writer.raw("<soapenv:Header>");
        if let Some(id) = options.operation_id {
            writer.text_element("operationID", id);
        }
        writer.raw(options.headers);
        writer.raw("</soapenv:Header>");
    }
    writer.raw(BODY);
    if let Some(service) = beside_the_main_one(namespace) {
        writer = writer.within(service);
    }
    writer.raw(&format!("<{method} xmlns=\"{namespace}\">"));
    writer.value("_this", "ManagedObjectReference", this.shape());
    args(&mut writer);
    writer.raw(&format!("</{method}>"));
    writer.raw(TAIL);
    writer.finish()
}

/// The namespace of a service beside the main one, whose data types have to be told from those of the main one.
fn beside_the_main_one(namespace: &str) -> Option<&'static str> {
    (namespace == "urn:vslm").then_some("urn:vslm")
}

/// Puts the session into the envelope of a request, as services beside the main one want it: their HTTP cookie is
/// another. `cookie` is the value of the main service's session cookie, with or without its quotes.
///
/// For requests that [`encode_request`] or [`encode_dynamic`] has written; others come back as they are.
#[must_use]
pub fn with_session_header(request: &str, cookie: &str) -> String {
    let Some((head, body)) = request.split_once(BODY) else { return request.to_owned() };
    let mut writer = Writer::new();
    // The operation's id may have opened the header already.
    match head.strip_suffix("</soapenv:Header>") {
        Some(open) => writer.raw(open),
        None => {
            writer.raw(head);
            writer.raw("<soapenv:Header>");
        }
    }
    writer.text_element(SESSION_HEADER, cookie.trim_matches('"'));
    writer.raw("</soapenv:Header>");
    writer.raw(BODY);
    writer.raw(body);
    writer.finish()
}

/// The header that carries the main service's session to a service beside it.
const SESSION_HEADER: &str = "vcSessionCookie";

fn utf8(body: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(body).map_err(|error| Malformed::at(error.valid_up_to(), "the text is not UTF-8"))
}

/// Moves the reader to the first child of the body and gives its name.
fn enter_body<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    if reader.next_child()? != Some("Envelope") {
        return Err(Malformed::at(0, "no SOAP envelope"));
    }
    while let Some(part) = reader.next_child()? {
        if part == "Body" {
            return reader.next_child()?.ok_or_else(|| Malformed::at(0, "an empty SOAP body"));
        }
        reader.skip()?;
    }
    Err(Malformed::at(0, "a SOAP envelope without a body"))
}

/// Reads the answer to a request.
///
/// # Errors
/// [`Error::Fault`] when the server refused, [`Error::Malformed`] when the text is no answer.
pub fn decode_response<M: Method>(body: &[u8], limits: Limits) -> Result<M::Output, Error> {
    let mut output = M::Output::default();
    each_returnval(body, limits, |reader| output.read(reader))?;
    Ok(output)
}

/// Reads the answer to a request outside the model: the `returnval` elements as they came.
///
/// # Errors
/// As [`decode_response`].
pub fn decode_dynamic(body: &[u8], limits: Limits) -> Result<Vec<Element>, Error> {
    let mut out = Vec::new();
    each_returnval(body, limits, |reader| {
        out.push(Element::read("returnval", reader)?);
        Ok(())
    })?;
    Ok(out)
}

/// Hands every `returnval` of an answer to `take`, and checks that the answer is whole.
fn each_returnval(
    body: &[u8],
    limits: Limits,
    mut take: impl FnMut(&mut Reader<'_>) -> Result<(), Malformed>,
) -> Result<(), Error> {
    let mut reader = Reader::new(utf8(body)?, limits);
    answer(&mut reader)?;
    while let Some(child) = reader.next_child()? {
        if child == "returnval" { take(&mut reader)? } else { reader.skip()? }
    }
    reader.finish()?;
    Ok(())
}

/// Enters the answer's element; a fault is an error.
fn answer(reader: &mut Reader<'_>) -> Result<(), Error> {
    match enter_body(reader)? {
        "Fault" => Err(Error::Fault(Box::new(read_fault(reader)?))),
        _ => Ok(()),
    }
}

fn read_fault(reader: &mut Reader<'_>) -> Result<SoapFault, Malformed> {
    let mut fault = SoapFault::default();
    while let Some(child) = reader.next_child()? {
        match child {
            "faultcode" => fault.code.read(reader)?,
            "faultstring" => fault.string.read(reader)?,
            "detail" => {
                while let Some(element) = reader.next_child()? {
                    let mut detail = Poly::<MethodFault>::default();
                    // The type is trusted first; without it the element's name says it.
                    detail.read_named(reader.xsi_type().unwrap_or(fault_name(element)), reader)?;
                    fault.detail = Some(detail);
                }
            }
            _ => reader.skip()?,
        }
    }
    Ok(fault)
}

/// The fault that a detail's element is named after: `NotFoundFault` holds a `NotFound`, `FileFaultFault` a `FileFault`.
fn fault_name(element: &str) -> &str {
    let known = |name| crate::rt::open_is_a(name, "MethodFault");
    match element.strip_suffix("Fault") {
        Some(stripped) if known(stripped) || !known(element) => stripped,
        _ => element,
    }
}

/// A request as a server sees it: the method and its object, the arguments still text.
pub struct Request<'a> {
    /// The method's wire name.
    pub method: &'a str,
    /// The namespace of the method's element.
    pub namespace: String,
    /// The object on which it is called.
    pub this: ManagedObjectReference,
    /// The `operationID` header, where sent.
    pub operation_id: Option<String>,
    /// The `vcSessionCookie` header, where sent: the session of a call to a service beside the main one.
    pub session: Option<String>,
    body: &'a str,
    limits: Limits,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the session nor the arguments: both are somebody's secret.
        f.debug_struct("Request").field("method", &self.method).field("this", &self.this).finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// [`Malformed`] when the text is no SOAP request.
    pub fn parse(body: &'a [u8], limits: Limits) -> Result<Self, Malformed> {
        let body = utf8(body)?;
        let mut reader = Reader::new(body, limits);
        let (mut operation_id, mut session) = (None, None);
        if reader.next_child()? != Some("Envelope") {
            return Err(Malformed::at(0, "no SOAP envelope"));
        }
        while let Some(part) = reader.next_child()? {
            match part {
                "Header" => {
                    while let Some(header) = reader.next_child()? {
                        match header {
                            "operationID" => operation_id = Some(reader.text()?.into_owned()),
                            SESSION_HEADER => session = Some(reader.text()?.into_owned()),
                            _ => reader.skip()?,
                        }
                    }
                }
                "Body" => {
                    let method = reader.next_child()?.ok_or_else(|| Malformed::at(0, "an empty SOAP body"))?;
                    let namespace = reader.declared_namespace().unwrap_or_default().into_owned();
                    let mut this = ManagedObjectReference::default();
                    while let Some(child) = reader.next_child()? {
                        if child == "_this" { this.read(&mut reader)? } else { reader.skip()? }
                    }
                    return Ok(Self { method, namespace, this, operation_id, session, body, limits });
                }
                _ => reader.skip()?,
            }
        }
        Err(Malformed::at(0, "a SOAP envelope without a body"))
    }

    /// Reads the arguments as those of `M`.
    ///
    /// # Errors
    /// [`Malformed`] when they are not.
    pub fn args<M: Method>(&self) -> Result<M, Malformed> {
        let mut args = M::default();
        let mut reader = Reader::new(self.body, self.limits);
        enter_body(&mut reader)?;
        while let Some(name) = reader.next_child()? {
            if name == "_this" {
                reader.skip()?;
            } else if let Some(slot) = args.slot(name) {
                slot.read(&mut reader)?;
            } else {
                let element = Element::read(name, &mut reader)?;
                args.unknown_mut().push(element);
            }
        }
        Ok(args)
    }
}

/// Writes the answer to a method.
#[must_use]
pub fn encode_response<M: Method>(output: &M::Output) -> String {
    response(M::ANSWER_NAMESPACE, M::NAME, |writer| writer.value("returnval", M::RETURNS, output.shape()))
}

/// Writes an answer from elements, for a method outside the model.
#[must_use]
pub fn encode_dynamic_response(namespace: &str, method: &str, returnvals: &[Element]) -> String {
    response(namespace, method, |writer| {
        for element in returnvals {
            writer.element(element);
        }
    })
}

fn response(namespace: &str, method: &str, content: impl FnOnce(&mut Writer)) -> String {
    let mut writer = Writer::new();
    writer.raw(HEAD);
    writer.raw(BODY);
    if let Some(service) = beside_the_main_one(namespace) {
        writer = writer.within(service);
    }
    writer.raw(&format!("<{method}Response xmlns=\"{namespace}\">"));
    content(&mut writer);
    writer.raw(&format!("</{method}Response>"));
    writer.raw(TAIL);
    writer.finish()
}

/// Writes a fault. It goes out with HTTP status 500.
#[must_use]
pub fn encode_fault(fault: &Poly<MethodFault>, message: &str) -> String {
    let mut writer = Writer::new();
    writer.raw(HEAD);
    writer.raw(BODY);
    writer.raw("<soapenv:Fault><faultcode>ServerFaultCode</faultcode>");
    writer.text_element("faultstring", message);
    let name = format!("{}Fault", fault.type_name());
    let namespace = fault.as_object().info().namespace().unwrap_or("urn:vim25");
    writer.raw(&format!("<detail><{name} xmlns=\"{namespace}\" xsi:type=\"{}\">", fault.type_name()));
    writer.fields(fault.as_object());
    writer.raw(&format!("</{name}></detail></soapenv:Fault>"));
    writer.raw(TAIL);
    writer.finish()
}
