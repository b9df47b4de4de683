//! The pull reader that values read themselves from.

use std::borrow::Cow;

use super::Malformed;
use super::escape::{line_ends, unescape};
use super::scan::{character_data, is_local_name};
use super::tag::{Attribute, Tag};

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
    text: &'a str,
    /// How many bytes were taken.
    at: usize,
    /// Names of the open elements, as written.
    open: Vec<&'a str>,
    /// The start tag just entered closed itself: its end is due without a token.
    empty: bool,
    /// Attributes of the element just entered.
    attributes: Vec<Attribute<'a>>,
    xsi_type: Option<&'a str>,
    nil: bool,
    /// Prefixes in force, innermost last.
    prefixes: Vec<Prefix<'a>>,
    limits: Limits,
    claimed: usize,
}

struct Prefix<'a> {
    /// How deep the element stands that declares it.
    depth: usize,
    prefix: &'a str,
    /// Whether it stands for the instance namespace.
    is_xsi: bool,
}

impl<'a> Reader<'a> {
    /// Begins to read `text`.
    #[must_use]
    pub fn new(text: &'a str, limits: Limits) -> Self {
        Self {
            text,
            // A byte order mark is no content.
            at: if text.starts_with('\u{feff}') { 3 } else { 0 },
            open: Vec::new(),
            empty: false,
            attributes: Vec::new(),
            xsi_type: None,
            nil: false,
            prefixes: Vec::new(),
            limits,
            claimed: 0,
        }
    }

    #[cold]
    fn error(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed::at(self.at, what).inside(&self.open)
    }

    /// The error for an element whose text is no value of its type. The text itself is not shown: it may be a secret.
    #[cold]
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

    /// How many bytes of the text were read: after [`Reader::next_child`] the end of the tag that it passed.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Makes room for one more item, and counts the memory for it: the first room is for one, and it doubles then.
    ///
    /// # Errors
    /// [`Malformed`] when the bound is exceeded.
    #[inline]
    pub(crate) fn make_room<T>(&mut self, items: &mut Vec<T>) -> Result<(), Malformed> {
        if items.len() < items.capacity() {
            return Ok(());
        }
        let more = items.len().max(1);
        self.charge(more.saturating_mul(size_of::<T>()))?;
        items.reserve_exact(more);
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
            let rest = &self.text[self.at..];
            match rest.as_bytes() {
                [b'<', b'/', ..] => {
                    self.end_tag()?;
                    return Ok(None);
                }
                [b'<', b'!' | b'?', ..] => {
                    let content = self.aside()?;
                    if let Some(text) = text.as_deref_mut() {
                        text.push_str(&line_ends(content));
                    }
                }
                [b'<', ..] => return self.start_tag().map(Some),
                [] if self.open.is_empty() => return Ok(None),
                [] => return Err(self.error(CUT)),
                bytes => {
                    let (len, _) = character_data(bytes);
                    if let Some(text) = text.as_deref_mut() {
                        text.push_str(&unescape(&rest[..len]).map_err(|what| self.error(what))?);
                    }
                    self.at += len;
                }
            }
        }
    }

    #[inline]
    fn start_tag(&mut self) -> Result<&'a str, Malformed> {
        if self.open.len() >= self.limits.depth {
            return Err(self.error(format!("elements nest deeper than {}", self.limits.depth)));
        }
        self.attributes.clear();
        let tag = match Tag::read(self.text, self.at, &mut self.attributes) {
            Ok(tag) => tag,
            Err(what) => return Err(self.error(what)),
        };
        self.open.push(tag.name);
        self.at = tag.end;
        self.empty = tag.empty;
        self.xsi_type = None;
        self.nil = false;
        if !self.attributes.is_empty() {
            self.resolve()?;
        }
        Ok(tag.local)
    }

    /// Leaves the present element, at whose end tag the reader stands.
    #[inline]
    fn end_tag(&mut self) -> Result<(), Malformed> {
        let rest = &self.text.as_bytes()[self.at + 2..];
        let after = self.open.last().and_then(|name| rest.strip_prefix(name.as_bytes()));
        let end = match after {
            Some([b'>', ..]) => Some(1),
            Some(after) => {
                let space = after.iter().take_while(|b| b.is_ascii_whitespace()).count();
                (after.get(space) == Some(&b'>')).then_some(space + 1)
            }
            None => None,
        };
        match (after, end) {
            (Some(after), Some(end)) => {
                self.at += 2 + (rest.len() - after.len()) + end;
                self.close();
                Ok(())
            }
            _ => Err(self.error("an end tag does not fit its start tag")),
        }
    }

    #[inline]
    fn close(&mut self) {
        let depth = self.open.len();
        while self.prefixes.last().is_some_and(|prefix| prefix.depth == depth) {
            self.prefixes.pop();
        }
        self.open.pop();
    }

    /// Passes over what is neither tag nor text; gives the content of a CDATA section.
    fn aside(&mut self) -> Result<&'a str, Malformed> {
        let rest = &self.text[self.at..];
        let (begin, end) = if rest.starts_with("<![CDATA[") {
            ("<![CDATA[", "]]>")
        } else if rest.starts_with("<!--") {
            ("<!--", "-->")
        } else if rest.starts_with("<?") {
            ("<?", "?>")
        } else {
            // Document types could declare entities; SOAP forbids them, and so do we.
            return Err(self.error("a document type is not allowed"));
        };
        let inner = &rest[begin.len()..];
        let len = inner.find(end).ok_or_else(|| self.error(CUT))?;
        self.at += begin.len() + len + end.len();
        Ok(if begin == "<![CDATA[" { &inner[..len] } else { "" })
    }

    /// Takes what the attributes of the element just entered say about namespaces and type.
    fn resolve(&mut self) -> Result<(), Malformed> {
        // Declarations first: a tag may use a prefix that it declares.
        let depth = self.open.len();
        for attribute in self.attributes.iter().filter(|attribute| attribute.prefix == "xmlns") {
            if self.prefixes.len() >= MAX_PREFIXES {
                return Err(self.error(format!("more than {MAX_PREFIXES} namespace prefixes are in force")));
            }
            let is_xsi = XSI.contains(&attribute.value);
            self.prefixes.push(Prefix { depth, prefix: attribute.local, is_xsi });
        }
        for at in 0..self.attributes.len() {
            let Attribute { prefix, local: own, value } = self.attributes[at];
            if !self.is_xsi(prefix) {
                continue;
            }
            let value = value.trim_ascii();
            match own {
                "type" if value.is_empty() => {}
                "type" => {
                    let name = local(value);
                    if !is_local_name(name) {
                        return Err(self.error("the name of a type is no name"));
                    }
                    self.xsi_type = Some(name);
                }
                "nil" => self.nil = matches!(value, "true" | "1"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Undeclared, the customary prefix is taken at its word: fragments are read too.
    #[inline]
    fn is_xsi(&self, prefix: &str) -> bool {
        if prefix.is_empty() {
            return false;
        }
        let declared = self.prefixes.iter().rev().find(|own| own.prefix == prefix);
        declared.map_or(prefix == "xsi", |own| own.is_xsi)
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
        self.qualified_attribute("", name)
    }

    fn qualified_attribute(&self, prefix: &str, local: &str) -> Option<Cow<'a, str>> {
        let found = self.attributes.iter().find(|own| own.local == local && own.prefix == prefix)?;
        unescape(found.value).ok()
    }

    /// The attributes of the element just entered that are neither declarations nor of the instance namespace.
    ///
    /// # Errors
    /// [`Malformed`] when they claim too much memory (an attribute of five bytes takes some hundred when it is kept)
    /// or hold an unknown entity.
    pub(crate) fn plain_attributes(&mut self) -> Result<Vec<(&'a str, Cow<'a, str>)>, Malformed> {
        let mut out = Vec::new();
        for at in 0..self.attributes.len() {
            let Attribute { prefix, local, value } = self.attributes[at];
            let declaration = prefix == "xmlns" || (prefix.is_empty() && local == "xmlns");
            if !declaration && !self.is_xsi(prefix) {
                self.charge(2 * size_of::<(&str, Cow<'_, str>)>())?;
                out.push((local, unescape(value).map_err(|what| self.error(what))?));
            }
        }
        Ok(out)
    }

    /// The namespace that the element just entered declares as its default, if it does.
    #[must_use]
    pub fn declared_namespace(&self) -> Option<Cow<'a, str>> {
        match self.open.last().and_then(|name| name.rsplit_once(':')) {
            None => self.attribute("xmlns"),
            Some((prefix, _)) => self.qualified_attribute("xmlns", prefix),
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
        let rest = &self.text[self.at..];
        let (len, odd) = character_data(rest.as_bytes());
        if !rest.as_bytes()[len..].starts_with(b"</") {
            return self.text_in_pieces().map(Cow::Owned);
        }
        let raw = &rest[..len];
        let text = if odd { unescape(raw).map_err(|what| self.error(what))? } else { Cow::Borrowed(raw) };
        self.at += len;
        self.end_tag()?;
        Ok(text)
    }

    /// A text with comments or CDATA sections in it, or something that is none.
    #[cold]
    fn text_in_pieces(&mut self) -> Result<String, Malformed> {
        let mut text = String::new();
        match self.advance(Some(&mut text))? {
            None => Ok(text),
            Some(_) => Err(self.error("an element stands where a text was expected")),
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

const CUT: &str = "the text ends inside an element";

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
                    Ok(None) if r.open.is_empty() && r.at >= text.len() => break,
                    Ok(_) => {}
                }
                steps += 1;
                proptest::prop_assert!(steps < 1000);
            }
        }
    }
}
