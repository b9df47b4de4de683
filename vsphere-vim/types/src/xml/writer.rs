//! The writer: values to XML, in wire order.

use std::fmt::Write as _;

use crate::rt::{Any, ApiVersion, DataObject, Element, Shape};

/// Appends values to a text as XML.
#[derive(Debug, Default)]
pub struct Writer {
    out: String,
    gate: Option<ApiVersion>,
    keep_control: bool,
    /// The default namespace at this place; `None` where all is of one namespace and nobody asks.
    namespace: Option<&'static str>,
    /// What the next element declares as its default namespace.
    declare: Option<&'static str>,
}

impl Writer {
    /// Begins an empty text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins an empty text with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), ..Self::default() }
    }

    /// Leaves out fields that are newer than `version`: older servers refuse them.
    #[must_use]
    pub fn for_version(mut self, version: ApiVersion) -> Self {
        self.gate = Some(version);
        self
    }

    /// Qualifies what belongs to another namespace than `namespace`, in which the text will stand.
    ///
    /// Requests to services beside the main one carry data types of the main one: a field belongs to the namespace of
    /// the type that declares it.
    #[must_use]
    pub fn within(mut self, namespace: &'static str) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Writes characters that XML 1.0 forbids as references, which only our own reader takes.
    ///
    /// For text that goes to storage, not to a server; otherwise they become U+FFFD.
    #[must_use]
    pub fn keep_control_characters(mut self) -> Self {
        self.keep_control = true;
        self
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    /// Appends markup as it is.
    pub fn raw(&mut self, markup: &str) {
        self.out.push_str(markup);
    }

    /// Appends `<name>text</name>`.
    pub fn text_element(&mut self, name: &str, text: &str) {
        self.open(name);
        self.escaped(text);
        self.close(name);
    }

    /// Appends a field: nothing when absent, one element, or one for each item. `declared` is the wire name of
    /// the declared type, against which `xsi:type` is decided.
    pub fn value(&mut self, name: &str, declared: &str, shape: Shape<'_>) {
        match shape {
            Shape::Absent => {}
            Shape::List(list) => {
                let declare = self.declare;
                for at in 0..list.len() {
                    self.declare = declare;
                    self.value(name, declared, list.item(at).shape());
                }
            }
            Shape::Any(any) => self.any(name, any),
            Shape::Object(object) => {
                self.start(name);
                let type_name = object.type_name();
                if type_name != declared {
                    self.type_attribute(type_name, object.info().namespace());
                }
                self.out.push('>');
                self.fields(object);
                self.close(name);
            }
            Shape::MoRef(moref) => {
                self.start(name);
                self.moref_attributes(moref);
                self.out.push('>');
                self.escaped(moref.value());
                self.close(name);
            }
            Shape::Element(element) => self.element_as(name, element),
            scalar => {
                self.open(name);
                self.scalar(scalar);
                self.close(name);
            }
        }
    }

    /// Appends the fields of an object, and what the model does not know of it.
    pub fn fields(&mut self, object: &dyn DataObject) {
        let outer = self.namespace;
        let switch = outer.and(object.info().namespace()).filter(|own| Some(*own) != outer);
        (self.namespace, self.declare) = (switch.or(outer), switch);
        object.visit(&mut |info, value| {
            if self.gate.is_none_or(|newest| info.since <= newest) {
                self.value(info.name, info.declared, value.shape());
            }
            self.declare = switch;
        });
        (self.namespace, self.declare) = (outer, None);
        for element in object.unknown().elements() {
            self.element(element);
        }
    }

    /// Appends an element as it came.
    pub fn element(&mut self, element: &Element) {
        self.element_as(element.name(), element);
    }

    fn element_as(&mut self, name: &str, element: &Element) {
        self.start(name);
        if let Some(xsi_type) = element.xsi_type() {
            self.attribute("xsi:type", &qualified(xsi_type));
        }
        for (name, value) in element.attributes() {
            self.attribute(name, value);
        }
        self.out.push('>');
        for child in element.children() {
            self.element(child);
        }
        self.escaped(element.text());
        self.close(name);
    }

    fn any(&mut self, name: &str, any: &Any) {
        if matches!(any, Any::Null) {
            return;
        }
        if let Any::Dynamic(element) = any {
            return self.element_as(name, element);
        }
        self.start(name);
        match (any, any.xsi_type()) {
            (Any::Object(object), _) => self.type_attribute(object.type_name(), object.info().namespace()),
            (_, Some(scalar)) if scalar.starts_with("xsd:") => self.attribute("xsi:type", &scalar),
            (_, Some(other)) => self.type_attribute(&other, Some("urn:vim25")),
            (_, None) => {}
        }
        match any {
            Any::Array { item, items } => {
                self.out.push('>');
                for one in items {
                    match one.inner_shape() {
                        // Of what the model does not know, the name is kept too.
                        Shape::Element(element) => self.element(element),
                        // An array of anyType states each item's type; others only where it differs.
                        _ if &**item == "anyType" => self.any(item, one),
                        shape => self.value(item, item, shape),
                    }
                }
            }
            Any::Object(object) => {
                self.out.push('>');
                self.fields(&**object);
            }
            Any::MoRef(moref) => {
                self.moref_attributes(moref);
                self.out.push('>');
                self.escaped(moref.value());
            }
            other => {
                self.out.push('>');
                self.scalar(other.inner_shape());
            }
        }
        self.close(name);
    }

    fn moref_attributes(&mut self, moref: &crate::ManagedObjectReference) {
        self.attribute("type", moref.type_name());
        if let Some(guid) = moref.server_guid() {
            self.attribute("serverGuid", guid);
        }
    }

    fn scalar(&mut self, shape: Shape<'_>) {
        // Writing to a String cannot fail.
        let _ = match shape {
            Shape::Bool(v) => write!(self.out, "{v}"),
            Shape::Byte(v) => write!(self.out, "{v}"),
            Shape::Short(v) => write!(self.out, "{v}"),
            Shape::Int(v) => write!(self.out, "{v}"),
            Shape::Long(v) => write!(self.out, "{v}"),
            Shape::Float(v) if v.is_infinite() => self.out.write_str(if v > 0.0 { "INF" } else { "-INF" }),
            Shape::Float(v) => write!(self.out, "{v}"),
            Shape::Double(v) if v.is_infinite() => self.out.write_str(if v > 0.0 { "INF" } else { "-INF" }),
            Shape::Double(v) => write!(self.out, "{v}"),
            Shape::DateTime(v) => write!(self.out, "{v}"),
            Shape::Binary(v) => self.out.write_str(&super::encode_base64(v)),
            Shape::Str(v) | Shape::Uri(v) | Shape::Enum(_, v) => {
                self.escaped(v);
                Ok(())
            }
            _ => Ok(()),
        };
    }

    fn start(&mut self, name: &str) {
        self.out.push('<');
        self.out.push_str(name);
        if let Some(namespace) = self.declare.take() {
            self.attribute("xmlns", namespace);
        }
    }

    /// States the type of a value, with the type's own namespace where that is not the default one of this place.
    fn type_attribute(&mut self, name: &str, own: Option<&'static str>) {
        match own.filter(|own| self.namespace.is_some_and(|here| here != *own)) {
            None => self.attribute("xsi:type", name),
            Some(own) => {
                self.attribute("xmlns:t", own);
                self.attribute("xsi:type", &format!("t:{name}"));
            }
        }
    }

    fn open(&mut self, name: &str) {
        self.start(name);
        self.out.push('>');
    }

    fn close(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        // Readers make spaces of other white space in attributes, unless it is written as a reference.
        for piece in value.split_inclusive(['\n', '\t']) {
            let text = piece.trim_end_matches(['\n', '\t']);
            self.escaped(text);
            match &piece.as_bytes()[text.len()..] {
                [b'\n'] => self.out.push_str("&#xA;"),
                [b'\t'] => self.out.push_str("&#x9;"),
                _ => {}
            }
        }
        self.out.push('"');
    }

    /// Appends text with the characters escaped that would be markup, or that XML forbids.
    pub fn escaped(&mut self, text: &str) {
        let mut from = 0;
        for (at, c) in text.char_indices() {
            let escape = match c {
                '<' => "&lt;",
                '>' => "&gt;",
                '&' => "&amp;",
                '"' => "&quot;",
                // Carriage returns are normalised away by readers unless they are references.
                '\r' => "&#xD;",
                '\t' | '\n' => continue,
                '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => "",
                _ => continue,
            };
            self.out.push_str(&text[from..at]);
            from = at + c.len_utf8();
            if !escape.is_empty() {
                self.out.push_str(escape);
            } else if self.keep_control {
                let _ = write!(self.out, "&#x{:X};", u32::from(c));
            } else {
                self.out.push('\u{fffd}');
            }
        }
        self.out.push_str(&text[from..]);
    }
}

/// The types of XML Schema itself need its prefix.
fn qualified(xsi_type: &str) -> String {
    match xsi_type {
        "boolean" | "byte" | "short" | "int" | "long" | "float" | "double" | "string" | "anyURI" | "dateTime"
        | "base64Binary" => {
            format!("xsd:{xsi_type}")
        }
        other => other.to_owned(),
    }
}
