//! An element of which the model knows nothing, kept whole.

use std::fmt;

use super::Value;
use crate::xml::{Limits, Malformed, Reader, Writer};

/// A piece of XML as a tree: names without prefixes, the `xsi:type` apart, attributes and text kept.
///
/// Namespaces of unknown elements are not kept: the API has one namespace per endpoint.
#[derive(Clone, Default, PartialEq)]
pub struct Element {
    name: Box<str>,
    xsi_type: Option<Box<str>>,
    attributes: Vec<(Box<str>, Box<str>)>,
    text: Box<str>,
    children: Vec<Element>,
}

impl Element {
    /// An element with a text.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.into(), text: text.into(), ..Self::default() }
    }

    /// The same with an `xsi:type`.
    #[must_use]
    pub fn with_type(mut self, xsi_type: &str) -> Self {
        self.xsi_type = Some(xsi_type.into());
        self
    }

    /// The same with an attribute more.
    #[must_use]
    pub fn with_attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// The same with a child more.
    #[must_use]
    pub fn with_child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    /// The local name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `xsi:type` without its prefix.
    #[must_use]
    pub fn xsi_type(&self) -> Option<&str> {
        self.xsi_type.as_deref()
    }

    /// An attribute by its local name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| **own == *name).map(|(_, value)| &**value)
    }

    /// All attributes but `xsi:type`, `xsi:nil` and namespace declarations.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The text; empty where the element has children only.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The children, in order.
    #[must_use]
    pub fn children(&self) -> &[Element] {
        &self.children
    }

    /// The same content under another name.
    pub(super) fn renamed(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    pub(super) fn children_mut(&mut self) -> &mut Vec<Element> {
        &mut self.children
    }

    /// The first child of that name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| &*child.name == name)
    }

    /// Reads the element at which the reader stands, through its end tag.
    ///
    /// # Errors
    /// [`Malformed`] on broken XML or when a bound is exceeded.
    pub fn read(name: &str, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut element = Self { name: name.into(), xsi_type: reader.xsi_type().map(Into::into), ..Self::default() };
        for (name, value) in reader.plain_attributes()? {
            element.attributes.push((name.into(), value.as_ref().into()));
        }
        let mut text = String::new();
        while let Some(child) = reader.next_child_or_text(&mut text)? {
            reader.make_room(&mut element.children)?;
            let child = Element::read(child, reader)?;
            element.children.push(child);
        }
        element.attributes.shrink_to_fit();
        // White space between children is layout, not content.
        if element.children.is_empty() || !text.trim().is_empty() {
            element.text = text.into();
        }
        Ok(element)
    }
}

/// Reads a kept element as a value after all, now that its type is known.
pub(super) fn reread(element: &Element, value: &mut dyn Value) -> Result<(), Malformed> {
    let mut writer = Writer::new().keep_control_characters();
    writer.element(element);
    let text = writer.finish();
    let mut reader = Reader::new(&text, Limits::default());
    reader.next_child()?;
    value.read(&mut reader)
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An element of unknown meaning may be a secret: structure is shown, text is not.
        let mut out = f.debug_struct(&self.name);
        if let Some(xsi_type) = &self.xsi_type {
            out.field("xsi:type", xsi_type);
        }
        for child in &self.children {
            out.field(&child.name, child);
        }
        if !self.text.is_empty() {
            out.field("text", &format_args!("[{} bytes]", self.text.len()));
        }
        out.finish()
    }
}
