//! A small, bounded tree of an XML document. Names are matched by the namespace's URI: prefixes are free.

use quick_xml::{
    XmlVersion,
    escape::resolve_predefined_entity,
    events::{BytesStart, Event},
    name::{Namespace, ResolveResult},
    reader::NsReader,
};

use crate::error::{Error, Result};

/// The namespaces that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// OVF, major versions 1 and 2.
    Ovf,
    /// CIM's settings of resources: general, of storage, of Ethernet ports.
    Cim,
    /// CIM's settings of virtual systems.
    System,
    /// VMware's extensions.
    Vmware,
    None,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) space: Space,
    pub(super) name: String,
    attributes: Vec<(Space, String, String)>,
    /// All text that is directly inside.
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// Whether it is OVF's `name`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.space == Space::Ovf && self.name == name
    }

    /// An attribute of OVF. The standard wants a prefix; some programs write none.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attribute_in(Space::Ovf, name).or_else(|| self.attribute_in(Space::None, name))
    }

    pub(super) fn attribute_in(&self, space: Space, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(of, key, _)| *of == space && key == name);
        found.map(|(_, _, value)| value.as_str())
    }

    /// OVF's children of a name.
    pub(super) fn children(&self, name: &'static str) -> impl Iterator<Item = &Element> {
        self.children.iter().filter(move |child| child.is(name))
    }

    /// The trimmed text of the first child of a name that holds some.
    pub(super) fn text_of(&self, space: Space, name: &'static str) -> Option<&str> {
        self.texts_of(space, name).next()
    }

    /// The trimmed texts of all children of a name.
    pub(super) fn texts_of(&self, space: Space, name: &'static str) -> impl Iterator<Item = &str> {
        let children = self.children.iter().filter(move |child| child.space == space && child.name == name);
        children.map(|child| child.text.trim()).filter(|text| !text.is_empty())
    }
}

/// Reads a document; `object` names it in errors.
///
/// # Errors
/// [`Error::Malformed`] for what is not well-formed, too deep or too large, and for document types: entities of a
/// stranger's making are never expanded. [`Error::NotSupported`] for other encodings than UTF-8.
pub(super) fn parse(bytes: &[u8], object: &str) -> Result<Element> {
    let wrong = |problem: String| Error::malformed(object, problem);
    if bytes.len() > MAX_XML_BYTES {
        return Err(wrong(format!("{} bytes of XML", bytes.len())));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::not_supported(object, "UTF-16", "OVF descriptors are read in UTF-8 only"));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| wrong(format!("no UTF-8 at byte {}", error.valid_up_to())))?;
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut nodes = 0;
    loop {
        let at = reader.buffer_position();
        let broken = |problem: String| wrong(format!("the XML at byte {at}: {problem}"));
        match reader.read_event().map_err(|error| broken(error.to_string()))? {
            Event::Start(start) => {
                let element = element(&reader, &start).map_err(broken)?;
                nodes += 1 + element.attributes.len();
                if open.len() >= MAX_DEPTH || nodes > MAX_NODES || (open.is_empty() && root.is_some()) {
                    return Err(broken("too deep, too many elements, or a second root".to_owned()));
                }
                open.push(element);
            }
            Event::End(_) => {
                let done = open.pop().ok_or_else(|| broken("an end without a start".to_owned()))?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => root = Some(done),
                }
            }
            Event::Text(text) => add_text(&mut open, &text.xml10_content()).map_err(broken)?,
            Event::CData(text) => add_text(&mut open, &text.xml10_content()).map_err(broken)?,
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| broken(error.to_string()))?;
                let character = character.map(String::from);
                let known = character.or_else(|| resolve_predefined_entity(&reference).map(str::to_owned));
                let known = known.ok_or_else(|| broken(format!("unknown entity {:?}", &*reference)))?;
                add_text(&mut open, &known).map_err(broken)?;
            }
            Event::DocType(_) => return Err(broken("a document type, which a descriptor has no need of".to_owned())),
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().map_err(|error| broken(error.to_string()))?;
                if encoding.is_some_and(|name| !["utf-8", "us-ascii", "ascii"].contains(&&*name.to_ascii_lowercase())) {
                    return Err(Error::not_supported(object, "its encoding", "OVF descriptors are read in UTF-8 only"));
                }
            }
            Event::Comment(_) | Event::PI(_) => {}
            Event::Empty(_) => return Err(broken("an element that was not expanded".to_owned())),
            Event::Eof => break,
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(root),
        _ => Err(wrong("the XML ends too early".to_owned())),
    }
}

fn element(reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<Element, String> {
    let (space, name) = reader.resolver().resolve_element(start.name());
    let (space, name) = (space_of(&space)?, name.as_ref().to_owned());
    // The check for duplicates compares all with all.
    if start.attributes().with_checks(false).take(MAX_ATTRIBUTES + 1).count() > MAX_ATTRIBUTES {
        return Err(format!("more than {MAX_ATTRIBUTES} attributes"));
    }
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        let (space, name) = reader.resolver().resolve_attribute(attribute.key);
        attributes.push((space_of(&space)?, name.as_ref().to_owned(), value.into_owned()));
    }
    Ok(Element { space, name, attributes, text: String::new(), children: Vec::new() })
}

/// Text outside of the root may be blanks only.
fn add_text(open: &mut [Element], text: &str) -> Result<(), String> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("text outside of the root".to_owned()),
    }
    Ok(())
}

fn space_of(resolved: &ResolveResult<'_>) -> Result<Space, String> {
    Ok(match resolved {
        ResolveResult::Unbound => Space::None,
        ResolveResult::Unknown(prefix) => return Err(format!("prefix {prefix:?} is bound to nothing")),
        ResolveResult::Bound(Namespace(uri)) => match *uri {
            OVF | "http://schemas.dmtf.org/ovf/envelope/2" => Space::Ovf,
            VMWARE => Space::Vmware,
            uri => match uri.strip_prefix(CIM_PREFIX).map(|name| name.trim_end_matches(".xsd")) {
                Some(
                    "CIM_ResourceAllocationSettingData"
                    | "CIM_StorageAllocationSettingData"
                    | "CIM_EthernetPortAllocationSettingData",
                ) => Space::Cim,
                Some("CIM_VirtualSystemSettingData") => Space::System,
                _ => Space::Other,
            },
        },
    })
}

/// OVF 1, which vSphere writes.
pub(super) const OVF: &str = "http://schemas.dmtf.org/ovf/envelope/1";
/// VMware's extensions of OVF.
pub(super) const VMWARE: &str = "http://www.vmware.com/schema/ovf";
/// Before the names of CIM's classes.
pub(super) const CIM_PREFIX: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/";

/// Largest descriptor. Real ones have some 10 KiB; one with 65 536 files would have 8 MiB.
pub(super) const MAX_XML_BYTES: usize = 16 << 20;
const MAX_DEPTH: usize = 64;
/// Elements and attributes: each takes some 100 bytes of memory, and may take four of the document.
const MAX_NODES: usize = 500_000;
const MAX_ATTRIBUTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_free() {
        let xml = br#"<x:Envelope xmlns:x="http://schemas.dmtf.org/ovf/envelope/1" x:a="1 &amp; 2" b="&#x41;">
            <Info xmlns="http://schemas.dmtf.org/ovf/envelope/1">one<!-- no --> &lt;two&gt; <![CDATA[<3>]]></Info>
            <Info>not this</Info></x:Envelope>"#;
        let root = parse(xml, "ovf").unwrap();
        assert!(root.is("Envelope"));
        assert_eq!((root.attribute("a"), root.attribute("b")), (Some("1 & 2"), Some("A")));
        assert_eq!(root.texts_of(Space::Ovf, "Info").collect::<Vec<_>>(), ["one <two> <3>"]);
    }

    #[test]
    fn hostile_documents_are_errors() {
        let deep = "<a>".repeat(100_000);
        let wide = format!("<a>{}</a>", "<b/>".repeat(MAX_NODES));
        let dense = format!("<a>{}</a>", "<b a='' b='' c='' d='' e='' f='' g=''/>".repeat(MAX_NODES / 8));
        let attributes: String = (0..100_000).map(|index| format!(" a{index}=''")).collect();
        let bindings: String = (0..60).map(|index| format!(" xmlns:p{index}='u'")).collect();
        for xml in [
            "",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "x<a/>",
            "<a>&lol;</a>",
            "<a b='&lol;'/>",
            "<a b='1' b='2'/>",
            "<!DOCTYPE a [<!ENTITY lol 'lol'>]><a>&lol;</a>",
            "<x:a/>",
            "<a>&#0;</a>",
            &deep,
            &wide,
            &dense,
            &format!("<a{attributes}/>"),
            &format!("<a{bindings}><b{bindings}><c{bindings}/></b></a>"),
        ] {
            let outcome = parse(xml.as_bytes(), "ovf");
            assert!(matches!(outcome, Err(Error::Malformed { .. })), "{}: {outcome:?}", &xml[..xml.len().min(60)]);
        }
        assert!(matches!(parse(b"\xff\xfe<\0", "ovf"), Err(Error::NotSupported { .. })));
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a/>";
        assert!(matches!(parse(latin, "ovf"), Err(Error::NotSupported { .. })));
        assert!(parse(b"<a>\xe4</a>", "ovf").is_err());
    }
}
