//! The pull reader that values read themselves from.

use std::borrow::Cow;
use std::fmt;

use super::tokens::{Attributes, Token, Tokens, unescape};

/// The bounds within which an answer is read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How deep elements may nest. Real answers stay below 30.
    pub depth: usize,
    /// How many bytes of memory the values may claim beside their text.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 128, memory: 1 << 30 }
    }
}

/// What is wrong with an XML text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    offset: usize,
    what: Cow<'static, str>,
    /// The elements around, outermost first; filled where values are read.
    path: String,
}

impl Malformed {
    pub(crate) fn at(offset: usize, what: impl Into<Cow<'static, str>>) -> Self {
        Self { offset, what: what.into(), path: String::new() }
    }

    /// The byte at which it was noticed.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed XML at byte {}", self.offset)?;
        if !self.path.is_empty() {
            write!(f, ", in {}", self.path)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Malformed {}

/// How many prefixes may be in force at once. Each qualified attribute is compared with them; real answers have ten.
const MAX_PREFIXES: usize = 512;

/// The XML Schema instance namespace, and the draft that old servers still name.
const XSI: [&str; 2] = ["http://www.w3.org/2001/XMLSchema-instance", "http://www.w3.org/1999/XMLSchema-instance"];

/// Reads one document, element by element.
///
/// Protocol: [`Reader::next_child`] enters the next child and gives its name, or leaves the present element
/// and gives `None`. Whoever is given a name takes the whole element: by [`Reader::text`], by
/// [`Reader::skip`], or by asking for its children until `None`.
pub struct Reader<'a> {
    tokens: Tokens<'a>,
    /// Names of the open elements, as written.
    open: Vec<&'a str>,
    /// The start tag just entered closed itself: its end is due without a token.
    empty: bool,
    /// Attributes of the element just entered.
    attributes: &'a str,
    xsi_type: Option<&'a str>,
    nil: bool,
    /// Prefixes in force: at which depth declared, the prefix, whether it is the instance namespace.
    prefixes: Vec<(usize, &'a str, bool)>,
    limits: Limits,
    claimed: usize,
}

impl<'a> Reader<'a> {
    /// Begins to read `text`.
    #[must_use]
    pub fn new(text: &'a str, limits: Limits) -> Self {
        Self {
            tokens: Tokens::new(text),
            open: Vec::new(),
            empty: false,
            attributes: "",
            xsi_type: None,
            nil: false,
            prefixes: Vec::new(),
            limits,
            claimed: 0,
        }
    }

    fn error(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        let mut error = Malformed::at(self.tokens.offset(), what);
        error.path = self.open.iter().map(|name| local(name)).collect::<Vec<_>>().join("/");
        error
    }

    /// The error for an element whose text is no value of its type. The text itself is not shown: it may be a secret.
    pub(crate) fn bad_value(&self, type_name: &'static str, text: &str) -> Malformed {
        self.error(format!("a text of {} bytes is no {type_name}", text.len()))
    }

    /// Counts `bytes` against the memory that the document may claim.
    ///
    /// # Errors
    /// [`Malformed`] when the bound is exceeded.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.claimed = self.claimed.saturating_add(bytes);
        if self.claimed > self.limits.memory {
            return Err(self.error(format!("the answer claims more than {} bytes of memory", self.limits.memory)));
        }
        Ok(())
    }

    /// Enters the next child element, or leaves the present one.
    ///
    /// # Errors
    /// [`Malformed`] on broken XML or when the depth is exceeded.
    pub fn next_child(&mut self) -> Result<Option<&'a str>, Malformed> {
        self.advance(None)
    }

    /// The same, and text on the way is added to `text`.
    pub(crate) fn next_child_or_text(&mut self, text: &mut String) -> Result<Option<&'a str>, Malformed> {
        self.advance(Some(text))
    }

    fn advance(&mut self, mut text: Option<&mut String>) -> Result<Option<&'a str>, Malformed> {
        if self.empty {
            self.empty = false;
            self.close();
            return Ok(None);
        }
        loop {
            match self.tokens.next()? {
                Token::Start { name, attributes, empty } => {
                    self.enter(name, attributes, empty)?;
                    return Ok(Some(local(name)));
                }
                Token::End { name } => {
                    if self.open.last() != Some(&name) {
                        return Err(self.error("an end tag does not fit its start tag"));
                    }
                    self.close();
                    return Ok(None);
                }
                Token::Text(raw) => {
                    if let Some(text) = text.as_deref_mut() {
                        let piece = unescape(raw).map_err(|what| self.error(what))?;
                        text.push_str(&piece);
                    }
                }
                Token::Cdata(raw) => {
                    if let Some(text) = text.as_deref_mut() {
                        text.push_str(raw);
                    }
                }
                Token::Eof if self.open.is_empty() => return Ok(None),
                Token::Eof => return Err(self.error("the text ends inside an element")),
            }
        }
    }

    fn close(&mut self) {
        let depth = self.open.len();
        while self.prefixes.last().is_some_and(|(at, ..)| *at == depth) {
            self.prefixes.pop();
        }
        self.open.pop();
    }

    fn enter(&mut self, name: &'a str, attributes: &'a str, empty: bool) -> Result<(), Malformed> {
        if self.open.len() >= self.limits.depth {
            return Err(self.error(format!("elements nest deeper than {}", self.limits.depth)));
        }
        self.open.push(name);
        self.attributes = attributes;
        self.empty = empty;
        self.xsi_type = None;
        self.nil = false;
        if attributes.is_empty() {
            return Ok(());
        }
        // Declarations first: a tag may use a prefix that it declares.
        let mut list = Attributes::new(attributes);
        let mut qualified = false;
        while let Some((name, value)) = list.next().map_err(|what| self.error(what))? {
            if let Some(prefix) = name.strip_prefix("xmlns:") {
                if self.prefixes.len() >= MAX_PREFIXES {
                    return Err(self.error(format!("more than {MAX_PREFIXES} namespace prefixes are in force")));
                }
                self.prefixes.push((self.open.len(), prefix, XSI.contains(&value)));
            } else {
                qualified |= name.contains(':');
            }
        }
        if qualified {
            let mut list = Attributes::new(attributes);
            while let Some((name, value)) = list.next().map_err(|what| self.error(what))? {
                match name.split_once(':') {
                    Some((prefix, "type")) if self.is_xsi(prefix) => self.xsi_type = Some(local(value.trim())),
                    Some((prefix, "nil")) if self.is_xsi(prefix) => self.nil = matches!(value.trim(), "true" | "1"),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Undeclared, the customary prefix is taken at its word: fragments are read too.
    fn is_xsi(&self, prefix: &str) -> bool {
        let declared = self.prefixes.iter().rev().find(|(_, own, _)| *own == prefix);
        declared.map_or(prefix == "xsi", |(_, _, is_xsi)| *is_xsi)
    }

    /// The `xsi:type` of the element just entered, without its prefix.
    #[must_use]
    pub fn xsi_type(&self) -> Option<&'a str> {
        self.xsi_type
    }

    /// Whether the element just entered is marked `xsi:nil`.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        self.nil
    }

    /// An unqualified attribute of the element just entered.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut list = Attributes::new(self.attributes);
        while let Ok(Some((own, value))) = list.next() {
            if own == name {
                return unescape(value).ok();
            }
        }
        None
    }

    /// The attributes of the element just entered that are neither declarations nor of the instance namespace.
    ///
    /// # Errors
    /// [`Malformed`] when they claim too much memory: an attribute of five bytes takes some hundred when it is kept.
    pub(crate) fn plain_attributes(&mut self) -> Result<Vec<(&'a str, Cow<'a, str>)>, Malformed> {
        let mut out = Vec::new();
        let mut list = Attributes::new(self.attributes);
        while let Ok(Some((name, value))) = list.next() {
            let declaration = name == "xmlns" || name.starts_with("xmlns:");
            let instance = name.split_once(':').is_some_and(|(prefix, _)| self.is_xsi(prefix));
            if !declaration
                && !instance
                && let Ok(value) = unescape(value)
            {
                self.charge(2 * size_of::<(&str, Cow<'_, str>)>())?;
                out.push((local(name), value));
            }
        }
        Ok(out)
    }

    /// The namespace that the element just entered declares as its default, if it does.
    #[must_use]
    pub fn declared_namespace(&self) -> Option<Cow<'a, str>> {
        let prefix = self.open.last().and_then(|name| name.split_once(':')).map(|(prefix, _)| prefix);
        match prefix {
            None => self.attribute("xmlns"),
            Some(prefix) => {
                let mut list = Attributes::new(self.attributes);
                while let Ok(Some((name, value))) = list.next() {
                    if name.strip_prefix("xmlns:") == Some(prefix) {
                        return unescape(value).ok();
                    }
                }
                None
            }
        }
    }

    /// The text of the element just entered, through its end tag.
    ///
    /// # Errors
    /// [`Malformed`] when it has children or the XML is broken.
    pub fn text(&mut self) -> Result<Cow<'a, str>, Malformed> {
        if self.empty {
            self.empty = false;
            self.close();
            return Ok(Cow::Borrowed(""));
        }
        let mut text: Option<Cow<'a, str>> = None;
        loop {
            let piece = match self.tokens.next()? {
                Token::Text(raw) => unescape(raw).map_err(|what| self.error(what))?,
                Token::Cdata(raw) => Cow::Borrowed(raw),
                Token::End { name } => {
                    if self.open.last() != Some(&name) {
                        return Err(self.error("an end tag does not fit its start tag"));
                    }
                    self.close();
                    return Ok(text.unwrap_or_default());
                }
                Token::Start { .. } => return Err(self.error("an element stands where a text was expected")),
                Token::Eof => return Err(self.error("the text ends inside an element")),
            };
            text = Some(match text {
                None => piece,
                Some(before) => Cow::Owned(before.into_owned() + &piece),
            });
        }
    }

    /// Leaves all open elements: a text that was cut short is found out.
    ///
    /// # Errors
    /// [`Malformed`] when the text ends early or goes on wrongly.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        while !self.open.is_empty() {
            self.next_child()?;
        }
        Ok(())
    }

    /// Passes over the element just entered, through its end tag.
    ///
    /// # Errors
    /// [`Malformed`] on broken XML.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let outside = self.open.len();
        while self.open.len() >= outside {
            self.next_child()?;
        }
        Ok(())
    }
}

fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reader<'_> {
        Reader::new(text, Limits::default())
    }

    #[test]
    fn children_text_and_attributes_are_read() {
        let mut r = read(
            r#"<?xml version="1.0"?><!-- c --><a xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><p:b i:type="x:T" type="VM">1 &lt;&#x41;<![CDATA[<]]></p:b><c/></a>"#,
        );
        assert_eq!(r.next_child().unwrap(), Some("a"));
        assert_eq!(r.next_child().unwrap(), Some("b"));
        assert_eq!((r.xsi_type(), r.attribute("type").unwrap().as_ref()), (Some("T"), "VM"));
        assert_eq!(r.text().unwrap(), "1 <A<");
        assert_eq!(r.next_child().unwrap(), Some("c"));
        assert_eq!(r.next_child().unwrap(), None);
        assert_eq!(r.next_child().unwrap(), None);
        assert_eq!(r.next_child().unwrap(), None);
    }

    #[test]
    fn a_prefix_that_means_something_else_is_no_type() {
        let mut r = read(r#"<a xmlns:xsi="urn:other" xsi:type="T"/>"#);
        r.next_child().unwrap();
        assert_eq!(r.xsi_type(), None);
    }

    #[test]
    fn skip_passes_over_a_whole_element() {
        let mut r = read("<a><b><c/>t<d>x</d></b><e>1</e></a>");
        r.next_child().unwrap();
        r.next_child().unwrap();
        r.skip().unwrap();
        assert_eq!(r.next_child().unwrap(), Some("e"));
    }

    #[test]
    fn broken_and_hostile_texts_are_errors() {
        for text in [
            "<a>",
            "<a></b>",
            "<a",
            "<a b=c></a>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<a>&x;</a>",
            "<a>&#xd800;</a>",
            "<>",
            "<a b=\"1></a>",
        ] {
            let mut r = read(text);
            let result = r.next_child().and_then(|name| if name.is_some() { r.text().map(|_| ()) } else { Ok(()) });
            assert!(result.is_err(), "{text}");
        }
    }

    #[test]
    fn depth_and_memory_are_bounded() {
        let deep = "<a>".repeat(100_000);
        let mut r = read(&deep);
        let error = loop {
            if let Err(error) = r.next_child() {
                break error;
            }
        };
        assert!(error.to_string().contains("deeper than 128"));
        let mut r = Reader::new("<a/>", Limits { memory: 10, ..Limits::default() });
        assert!(r.charge(11).is_err());
    }

    #[test]
    fn prefixes_in_force_are_bounded_and_end_with_their_element() {
        let declared = |count: usize| (0..count).map(|at| format!(" xmlns:p{at}=\"u\"")).collect::<String>();
        let text = format!("<a{}/>", declared(MAX_PREFIXES + 1));
        assert!(read(&text).next_child().unwrap_err().to_string().contains("prefixes"));
        let text = format!("<a>{}</a>", format!("<b{}/>", declared(MAX_PREFIXES)).repeat(3));
        let mut r = read(&text);
        r.next_child().unwrap();
        r.skip().unwrap();
    }

    #[test]
    fn kept_attributes_count_against_the_memory() {
        let text = format!("<a><b{}/></a>", " c=\"\"".repeat(1000));
        let mut r = Reader::new(&text, Limits { memory: 10_000, ..Limits::default() });
        let name = r.next_child().unwrap().unwrap();
        assert!(crate::Element::read(name, &mut r).unwrap_err().to_string().contains("memory"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends_in_a_value_or_an_error(text in "[<>a-b/ \"=&;!\\[\\]CDAT:?x-]{0,80}") {
            let mut r = read(&text);
            let mut steps = 0;
            loop {
                match r.next_child() {
                    Err(_) => break,
                    Ok(None) if r.open.is_empty() && r.tokens.offset() >= text.len() => break,
                    Ok(_) => {}
                }
                steps += 1;
                proptest::prop_assert!(steps < 1000);
            }
        }
    }
}
