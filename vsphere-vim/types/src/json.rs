//! JSON and every other serde format, through the same walk as XML.
//!
//! The form is self-describing, so that what is stored today is read by the model of years to come:
//! objects carry `_typeName`, unknown elements stand under `_unknown`, values of `anyType` are
//! `{"_typeName": "int", "_value": 5}`. Reading goes through the XML reader: one reader, one set of rules.

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rt::{
    Any, DataObject, Element, Item, Managed, ManagedObjectReference, MoRef, Poly, Shape, Value, array_item_name,
};
use crate::xml::{Limits, Reader, Writer, encode_base64};

struct Show<'a>(Shape<'a>);

impl Serialize for Show<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Shape::Absent => serializer.serialize_none(),
            Shape::Bool(v) => serializer.serialize_bool(v),
            Shape::Byte(v) => serializer.serialize_i8(v),
            Shape::Short(v) => serializer.serialize_i16(v),
            Shape::Int(v) => serializer.serialize_i32(v),
            Shape::Long(v) => serializer.serialize_i64(v),
            // JSON has no infinities: as text, like XML.
            Shape::Float(v) if !v.is_finite() => serializer.collect_str(&v),
            Shape::Double(v) if !v.is_finite() => serializer.collect_str(&v),
            Shape::Float(v) => serializer.serialize_f32(v),
            Shape::Double(v) => serializer.serialize_f64(v),
            Shape::Str(v) | Shape::Uri(v) | Shape::Enum(_, v) => serializer.serialize_str(v),
            Shape::DateTime(v) => serializer.collect_str(&v),
            Shape::Binary(v) => serializer.serialize_str(&encode_base64(v)),
            Shape::MoRef(v) => show_moref(v, serializer),
            Shape::Object(v) => show_object(v, serializer),
            Shape::List(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                for at in 0..list.len() {
                    seq.serialize_element(&Show(list.item(at).shape()))?;
                }
                seq.end()
            }
            Shape::Any(v) => show_any(v, serializer),
            Shape::Element(v) => show_element(v, serializer),
        }
    }
}

fn show_moref<S: Serializer>(moref: &ManagedObjectReference, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("_typeName", "ManagedObjectReference")?;
    map.serialize_entry("type", moref.type_name())?;
    map.serialize_entry("value", moref.value())?;
    if let Some(guid) = moref.server_guid() {
        map.serialize_entry("serverGuid", guid)?;
    }
    map.end()
}

fn show_object<S: Serializer>(object: &dyn DataObject, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("_typeName", object.type_name())?;
    let mut failed = None;
    object.visit(&mut |info, value| {
        let shape = value.shape();
        if !shape.is_absent() && failed.is_none() {
            failed = map.serialize_entry(info.name, &Show(shape)).err();
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let unknown = object.unknown().elements();
    if !unknown.is_empty() {
        let shown: Vec<_> = unknown.iter().map(|element| Show(Shape::Element(element))).collect();
        map.serialize_entry("_unknown", &shown)?;
    }
    map.end()
}

fn show_any<S: Serializer>(any: &Any, serializer: S) -> Result<S::Ok, S::Error> {
    match any {
        Any::Null => serializer.serialize_none(),
        Any::Object(_) | Any::MoRef(_) | Any::Dynamic(_) => Show(any.inner_shape()).serialize(serializer),
        Any::Array { items, .. } => {
            let mut map = serializer.serialize_map(Some(2))?;
            let name = any.xsi_type().ok_or_else(|| S::Error::custom("an array without a type"))?;
            map.serialize_entry("_typeName", &name)?;
            let shown: Vec<_> = items.iter().map(|item| Show(Shape::Any(item))).collect();
            map.serialize_entry("_value", &shown)?;
            map.end()
        }
        scalar => {
            let mut map = serializer.serialize_map(Some(2))?;
            map.serialize_entry("_typeName", scalar.kind())?;
            map.serialize_entry("_value", &Show(scalar.inner_shape()))?;
            map.end()
        }
    }
}

fn show_element<S: Serializer>(element: &Element, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("_element", element.name())?;
    if let Some(xsi_type) = element.xsi_type() {
        map.serialize_entry("_type", xsi_type)?;
    }
    let attributes: Vec<_> = element.attributes().collect();
    if !attributes.is_empty() {
        map.serialize_entry("_attributes", &attributes)?;
    }
    if !element.text().is_empty() {
        map.serialize_entry("_text", element.text())?;
    }
    if !element.children().is_empty() {
        let shown: Vec<_> = element.children().iter().map(|child| Show(Shape::Element(child))).collect();
        map.serialize_entry("_children", &shown)?;
    }
    map.end()
}

pub(crate) fn serialize<S: Serializer>(value: &dyn Value, serializer: S) -> Result<S::Ok, S::Error> {
    Show(value.shape()).serialize(serializer)
}

/// What stands in the stored form, before it becomes XML again.
enum Node {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a stored vSphere value")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Text(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = seq.next_element()? {
            out.push(item);
        }
        Ok(Node::List(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut out = Vec::new();
        while let Some(entry) = map.next_entry()? {
            out.push(entry);
        }
        Ok(Node::Map(out))
    }
}

impl Node {
    fn text(&self) -> &str {
        match self {
            Node::Text(text) => text,
            _ => "",
        }
    }

    /// A name from the stored text that may become markup; anything else is dropped.
    fn name(&self) -> Option<&str> {
        let text = self.text();
        is_name(text).then_some(text)
    }

    fn field(&self, name: &str) -> Option<&Node> {
        match self {
            Node::Map(map) => map.iter().find(|(own, _)| own == name).map(|(_, node)| node),
            _ => None,
        }
    }

    fn write(&self, name: &str, writer: &mut Writer) {
        match self {
            Node::Null => {}
            Node::Text(text) => writer.text_element(name, text),
            Node::List(items) => items.iter().for_each(|item| item.write(name, writer)),
            Node::Map(map) => {
                if self.field("_element").is_some() {
                    if let Some(element) = self.to_element() {
                        writer.element(&element);
                    }
                    return;
                }
                let type_name = self.field("_typeName").and_then(Node::name);
                if type_name == Some("ManagedObjectReference") {
                    return self.write_moref(name, writer);
                }
                let xsi_type = type_name.map(|name| format!(" xsi:type=\"{name}\"")).unwrap_or_default();
                writer.raw(&format!("<{name}{xsi_type}>"));
                for (field, node) in map {
                    match field.as_str() {
                        "_typeName" => {}
                        "_value" => match node {
                            Node::List(items) => {
                                let item_name =
                                    type_name.and_then(|name| name.strip_prefix("ArrayOf")).map(array_item_name);
                                let item_name = item_name.as_deref().unwrap_or("item");
                                items.iter().for_each(|item| item.write(item_name, writer));
                            }
                            other => writer.escaped(other.text()),
                        },
                        "_unknown" => node.write("unknown", writer),
                        field if is_name(field) => node.write(field, writer),
                        _ => {}
                    }
                }
                writer.raw(&format!("</{name}>"));
            }
        }
    }

    fn write_moref(&self, name: &str, writer: &mut Writer) {
        let part = |field| self.field(field).map_or("", Node::text);
        let mut element =
            Element::new(name, part("value")).with_type("ManagedObjectReference").with_attribute("type", part("type"));
        if let Some(guid) = self.field("serverGuid") {
            element = element.with_attribute("serverGuid", guid.text());
        }
        writer.element(&element);
    }

    fn to_element(&self) -> Option<Element> {
        let mut element = Element::new(self.field("_element")?.name()?, self.field("_text").map_or("", Node::text));
        if let Some(xsi_type) = self.field("_type").and_then(Node::name) {
            element = element.with_type(xsi_type);
        }
        if let Some(Node::List(attributes)) = self.field("_attributes") {
            for pair in attributes {
                if let Node::List(pair) = pair
                    && let [name, value] = pair.as_slice()
                {
                    element = element.with_attribute(name.name()?, value.text());
                }
            }
        }
        if let Some(Node::List(children)) = self.field("_children") {
            for child in children {
                element = element.with_child(child.to_element()?);
            }
        }
        Some(element)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':') || b >= 0x80)
}

pub(crate) fn deserialize<'de, T: Value + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let node = Node::deserialize(deserializer)?;
    let mut writer = Writer::new().keep_control_characters();
    node.write("value", &mut writer);
    let text = writer.finish();
    let mut value = T::default();
    let mut reader = Reader::new(&text, Limits::default());
    if reader.next_child().map_err(D::Error::custom)?.is_some() {
        value.read(&mut reader).map_err(D::Error::custom)?;
    }
    Ok(value)
}

macro_rules! through_walk {
    ($([$($generics:tt)*] $type:ty),* $(,)?) => { $(
        impl<$($generics)*> Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self, serializer)
            }
        }
        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer)
            }
        }
    )* };
}

through_walk! { [B: DataObject + Default + Item] Poly<B>, [T: Managed] MoRef<T>, [] ManagedObjectReference, [] Any }
