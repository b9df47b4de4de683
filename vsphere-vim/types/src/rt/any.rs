//! `xsd:anyType`: a value that brings its type along.

use std::fmt;

use super::kind::{Kind, kind};
use super::poly::named;
use super::{
    DataObject, DateTime, Element, FromAny, Item, ManagedObjectReference, Mismatch, Place, Shape, Uri, Value,
    new_object,
};
use crate::xml::{Malformed, Reader};

/// A value of any type, as the PropertyCollector answers with.
#[derive(Clone, Default, PartialEq)]
#[doc(alias = "anyType")]
pub enum Any {
    /// Nothing was sent.
    #[default]
    Null,
    /// `xsd:boolean`.
    Bool(bool),
    /// `xsd:byte`.
    Byte(i8),
    /// `xsd:short`.
    Short(i16),
    /// `xsd:int`.
    Int(i32),
    /// `xsd:long`.
    Long(i64),
    /// `xsd:float`.
    Float(f32),
    /// `xsd:double`.
    Double(f64),
    /// `xsd:string`.
    String(String),
    /// `xsd:anyURI`.
    Uri(String),
    /// `xsd:dateTime`.
    DateTime(DateTime),
    /// `xsd:base64Binary`.
    Binary(Vec<u8>),
    /// A reference to a managed object.
    MoRef(ManagedObjectReference),
    /// An enumerated value of a type that the model knows.
    Enum {
        /// The enumeration's wire name.
        type_name: &'static str,
        /// The value.
        value: Box<str>,
    },
    /// A data object of the model, or a subtype of one.
    Object(Box<dyn DataObject>),
    /// An `ArrayOfX`.
    Array {
        /// The items' declared type: the `X`.
        item: Box<str>,
        /// The items.
        items: Vec<Any>,
    },
    /// A value of a type that the model does not know.
    Dynamic(Element),
}

impl Any {
    /// An untyped value of any typed one.
    pub fn of(value: &impl Value) -> Self {
        value.to_any()
    }

    /// What kind of value it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Any::Null => "nothing",
            Any::Bool(_) => "boolean",
            Any::Byte(_) => "byte",
            Any::Short(_) => "short",
            Any::Int(_) => "int",
            Any::Long(_) => "long",
            Any::Float(_) => "float",
            Any::Double(_) => "double",
            Any::String(_) => "string",
            Any::Uri(_) => "anyURI",
            Any::DateTime(_) => "dateTime",
            Any::Binary(_) => "base64Binary",
            Any::MoRef(_) => "ManagedObjectReference",
            Any::Enum { type_name, .. } => type_name,
            Any::Object(object) => object.type_name(),
            Any::Array { .. } => "an array",
            Any::Dynamic(element) => element.xsi_type().unwrap_or("an element without a type"),
        }
    }

    /// The object, where the value is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&dyn DataObject> {
        match self {
            Any::Object(object) => Some(&**object),
            _ => None,
        }
    }

    /// The object as a `T` (its type or a base of it).
    #[must_use]
    pub fn downcast_ref<T: DataObject>(&self) -> Option<&T> {
        self.as_object()?.downcast_ref()
    }

    /// Takes the value out as a typed one.
    ///
    /// # Errors
    /// [`Mismatch`] when it is of another type.
    pub fn into_typed<T: FromAny>(self) -> Result<T, Mismatch> {
        T::from_any(self)
    }

    /// The value behind a property path such as `hardware.device[2000].backing`; see [`Shape::path`].
    #[must_use]
    pub fn path(&self, path: &str) -> Option<Any> {
        self.shape().path(path)
    }

    pub(crate) fn from_shape(shape: Shape<'_>) -> Self {
        match shape {
            Shape::Absent => Any::Null,
            Shape::Bool(v) => Any::Bool(v),
            Shape::Byte(v) => Any::Byte(v),
            Shape::Short(v) => Any::Short(v),
            Shape::Int(v) => Any::Int(v),
            Shape::Long(v) => Any::Long(v),
            Shape::Float(v) => Any::Float(v),
            Shape::Double(v) => Any::Double(v),
            Shape::Str(v) => Any::String(v.to_owned()),
            Shape::Uri(v) => Any::Uri(v.to_owned()),
            Shape::DateTime(v) => Any::DateTime(v),
            Shape::Binary(v) => Any::Binary(v.to_vec()),
            Shape::MoRef(v) => Any::MoRef(v.clone()),
            Shape::Enum(type_name, value) => Any::Enum { type_name, value: value.into() },
            Shape::Object(v) => Any::Object(v.clone_box()),
            Shape::List(v) => Any::Array {
                item: v.item_name().into(),
                items: (0..v.len()).map(|at| Any::from_shape(v.item(at).shape())).collect(),
            },
            Shape::Any(v) => v.clone(),
            Shape::Element(v) => Any::Dynamic(v.clone()),
        }
    }

    /// The `xsi:type` to write; `None` where nothing is to be added.
    pub(crate) fn xsi_type(&self) -> Option<String> {
        Some(match self {
            Any::Null => return None,
            Any::Dynamic(element) => return element.xsi_type().map(ToOwned::to_owned),
            // Only primitives change their first letter; any other name is the suffix as it was read.
            Any::Array { item, .. } if PRIMITIVE_ITEMS.contains(&&**item) => {
                format!("ArrayOf{}{}", item[..1].to_ascii_uppercase(), &item[1..])
            }
            Any::Array { item, .. } => format!("ArrayOf{item}"),
            Any::Bool(_)
            | Any::Byte(_)
            | Any::Short(_)
            | Any::Int(_)
            | Any::Long(_)
            | Any::Float(_)
            | Any::Double(_)
            | Any::String(_)
            | Any::Uri(_)
            | Any::DateTime(_)
            | Any::Binary(_) => format!("xsd:{}", self.kind()),
            other => other.kind().to_owned(),
        })
    }

    /// Reads the current element as a value of the named type.
    ///
    /// `declared` is the type that stands for it where the model does not know the name.
    fn read_as(name: &str, declared: Option<&str>, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        fn scalar<T: Value + Default>(reader: &mut Reader<'_>, make: fn(T) -> Any) -> Result<Any, Malformed> {
            let mut value = T::default();
            value.read(reader)?;
            Ok(make(value))
        }
        match kind(name) {
            Some(Kind::Bool) => scalar(reader, Any::Bool),
            Some(Kind::Byte) => scalar(reader, Any::Byte),
            Some(Kind::Short) => scalar(reader, Any::Short),
            Some(Kind::Int) => scalar(reader, Any::Int),
            Some(Kind::Long) => scalar(reader, Any::Long),
            Some(Kind::Float) => scalar(reader, Any::Float),
            Some(Kind::Double) => scalar(reader, Any::Double),
            Some(Kind::String) => scalar(reader, Any::String),
            Some(Kind::Uri) => scalar(reader, |uri: Uri| Any::Uri(uri.0)),
            Some(Kind::DateTime) => scalar(reader, Any::DateTime),
            Some(Kind::Binary) => scalar(reader, Any::Binary),
            Some(Kind::MoRef) => scalar(reader, Any::MoRef),
            Some(Kind::Enum(type_name)) => Ok(Any::Enum { type_name, value: reader.text()?.into() }),
            Some(Kind::Object(row)) => Self::read_object((row.new)(), reader),
            None => match (named(name, |_| true, || new_object(declared?)), name.strip_prefix("ArrayOf")) {
                (Some(object), _) => Self::read_object(object, reader),
                (None, Some(item)) => Self::read_array(item, reader),
                // An item keeps its name; elsewhere the field gives it.
                (None, None) => Element::read(declared.unwrap_or("val"), reader).map(Any::Dynamic),
            },
        }
    }

    fn read_object(mut object: Box<dyn DataObject>, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.charge(size_of_val(&*object))?;
        super::object::read_fields(&mut *object, reader)?;
        Ok(Any::Object(object))
    }

    fn read_array(suffix: &str, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut items = Vec::new();
        let item = array_item_name(suffix);
        while let Some(child) = reader.next_child()? {
            reader.make_room(&mut items)?;
            // The child's name is the item's declared type: `<VirtualDevice>` in ArrayOfVirtualDevice.
            let named = reader.xsi_type().unwrap_or(child);
            items.push(Self::read_as(named, Some(child), reader)?);
        }
        Ok(Any::Array { item, items })
    }
}

/// Items of arrays whose names begin with a small letter, while the array's name has a capital.
const PRIMITIVE_ITEMS: [&str; 12] = [
    "boolean",
    "byte",
    "short",
    "int",
    "long",
    "float",
    "double",
    "string",
    "anyURI",
    "dateTime",
    "base64Binary",
    "anyType",
];

/// `ArrayOfString` holds `<string>`: the item name of a primitive starts in lower case.
pub(crate) fn array_item_name(suffix: &str) -> Box<str> {
    PRIMITIVE_ITEMS
        .iter()
        .find(|name| name.eq_ignore_ascii_case(suffix))
        .map_or_else(|| suffix.into(), |name| (*name).into())
}

impl fmt::Debug for Any {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Any::Array { items, .. } => f.debug_list().entries(items).finish(),
            Any::Null => f.write_str("Null"),
            other => other.inner_shape().fmt(f),
        }
    }
}

impl Any {
    /// The shape of what is inside, without the anyType around it.
    pub(crate) fn inner_shape(&self) -> Shape<'_> {
        match self {
            Any::Null => Shape::Absent,
            Any::Bool(v) => Shape::Bool(*v),
            Any::Byte(v) => Shape::Byte(*v),
            Any::Short(v) => Shape::Short(*v),
            Any::Int(v) => Shape::Int(*v),
            Any::Long(v) => Shape::Long(*v),
            Any::Float(v) => Shape::Float(*v),
            Any::Double(v) => Shape::Double(*v),
            Any::String(v) => Shape::Str(v),
            Any::Uri(v) => Shape::Uri(v),
            Any::DateTime(v) => Shape::DateTime(*v),
            Any::Binary(v) => Shape::Binary(v),
            Any::MoRef(v) => Shape::MoRef(v),
            Any::Enum { type_name, value } => Shape::Enum(type_name, value),
            Any::Object(v) => Shape::Object(&**v),
            Any::Array { .. } => Shape::Any(self),
            Any::Dynamic(v) => Shape::Element(v),
        }
    }
}

impl Value for Any {
    fn shape(&self) -> Shape<'_> {
        match self {
            Any::Null => Shape::Absent,
            other => Shape::Any(other),
        }
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        *self = match reader.xsi_type() {
            Some(name) => Self::read_as(name, None, reader)?,
            // Without a type there is nothing to go by: keep it as it came.
            None => Any::Dynamic(Element::read("val", reader)?),
        };
        Ok(())
    }

    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = any;
        Ok(())
    }

    fn place(&mut self) -> Place<'_> {
        match self {
            Any::Null => Place::Unset,
            Any::Object(object) => Place::Object(&mut **object),
            Any::Array { items, .. } => Place::List(items),
            Any::Dynamic(element) => Place::Element(element),
            _ => Place::Whole,
        }
    }
}

impl Item for Any {
    const NAME: &'static str = "anyType";
}

impl FromAny for Any {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        Ok(any)
    }
}

macro_rules! from {
    ($($type:ty => $arm:ident),*) => { $(impl From<$type> for Any { fn from(value: $type) -> Self { Any::$arm(value) } })* };
}
from!(bool => Bool, i16 => Short, i32 => Int, i64 => Long, f32 => Float, f64 => Double, String => String, DateTime => DateTime,
    ManagedObjectReference => MoRef);

impl From<&str> for Any {
    fn from(value: &str) -> Self {
        Any::String(value.to_owned())
    }
}
