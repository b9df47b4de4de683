//! Anything that can be a field, an argument or an answer.

use std::any::Any as StdAny;
use std::fmt;

use super::{Any, DataObject, DateTime, Element, ManagedObjectReference};
use crate::xml::{Malformed, Reader};

/// What a value shows to a visitor.
///
/// XML, JSON, `Debug` and property paths are written once against this, whatever the field's Rust type.
#[derive(Clone, Copy)]
pub enum Shape<'a> {
    /// An unset optional field, or an empty list (the wire does not tell them apart).
    Absent,
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
    Str(&'a str),
    /// `xsd:anyURI`.
    Uri(&'a str),
    /// `xsd:dateTime`.
    DateTime(DateTime),
    /// `xsd:base64Binary`.
    Binary(&'a [u8]),
    /// A reference to a managed object.
    MoRef(&'a ManagedObjectReference),
    /// An enumerated value: its type's wire name and the value.
    Enum(&'static str, &'a str),
    /// A data object.
    Object(&'a dyn DataObject),
    /// Repeated elements.
    List(&'a dyn List),
    /// `xsd:anyType`.
    Any(&'a Any),
    /// Something that the model has no type for.
    Element(&'a Element),
}

impl Shape<'_> {
    /// Whether nothing is written for it.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Shape::Absent => true,
            Shape::List(list) => list.is_empty(),
            _ => false,
        }
    }
}

impl fmt::Debug for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Absent => f.write_str("None"),
            Shape::Bool(v) => v.fmt(f),
            Shape::Byte(v) => v.fmt(f),
            Shape::Short(v) => v.fmt(f),
            Shape::Int(v) => v.fmt(f),
            Shape::Long(v) => v.fmt(f),
            Shape::Float(v) => v.fmt(f),
            Shape::Double(v) => v.fmt(f),
            Shape::Str(v) | Shape::Uri(v) => v.fmt(f),
            Shape::DateTime(v) => fmt::Display::fmt(v, f),
            Shape::Binary(v) => write!(f, "[{} bytes]", v.len()),
            Shape::MoRef(v) => fmt::Display::fmt(v, f),
            Shape::Enum(_, v) => f.write_str(v),
            Shape::Object(v) => v.fmt(f),
            Shape::List(v) => f.debug_list().entries((0..v.len()).map(|at| v.item(at).shape())).finish(),
            Shape::Any(v) => v.fmt(f),
            Shape::Element(v) => v.fmt(f),
        }
    }
}

/// A value of the model, behind its field.
pub trait Value: StdAny + Send + Sync {
    /// What it shows to a visitor.
    fn shape(&self) -> Shape<'_>;

    /// Takes in the element at which the reader stands, through its end tag. A list takes one item.
    ///
    /// # Errors
    /// [`Malformed`] when the element is no such value or a bound is exceeded.
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed>;

    /// An untyped copy.
    fn to_any(&self) -> Any {
        Any::from_shape(self.shape())
    }

    /// Takes an untyped value in the place of the present one; [`Any::Null`] unsets what can be unset.
    ///
    /// # Errors
    /// [`Mismatch`] when it is of another type; the present value is kept.
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        Err(Mismatch::new("nothing", any.kind()))
    }

    /// What of it can be changed part by part.
    fn place(&mut self) -> Place<'_> {
        Place::Whole
    }
}

/// The parts of a value, to be changed.
pub enum Place<'a> {
    /// None: it is replaced as a whole.
    Whole,
    /// None, because it is not set.
    Unset,
    /// Fields.
    Object(&'a mut dyn DataObject),
    /// Items.
    List(&'a mut dyn List),
    /// Elements that the model has no type for.
    Element(&'a mut Element),
}

/// Repeated elements, seen by a visitor.
pub trait List {
    /// How many.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The item at that place; `at` is below [`List::len`].
    fn item(&self, at: usize) -> &dyn Value;
    /// The wire name of the items' declared type: `VirtualDevice` in `ArrayOfVirtualDevice`.
    fn item_name(&self) -> &'static str;
    /// The item at that place, to be changed.
    fn item_mut(&mut self, at: usize) -> &mut dyn Value;
    /// Takes the item at that place out.
    fn remove(&mut self, at: usize);
    /// Adds an item at the end.
    ///
    /// # Errors
    /// [`Mismatch`] when it is of another type.
    fn push_any(&mut self, item: Any) -> Result<(), Mismatch>;
}

/// A value that can stand in a list.
pub trait Item: Value + Default {
    /// The wire name of its type: `VirtualDevice`, `string`, `ManagedObjectReference`.
    const NAME: &'static str;
}

/// A value that can be taken out of `xsd:anyType`.
pub trait FromAny: Sized {
    /// Takes it out.
    ///
    /// # Errors
    /// [`Mismatch`] when the value is of another type.
    fn from_any(any: Any) -> Result<Self, Mismatch>;
}

/// An untyped value was not of the type asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    expected: &'static str,
    found: String,
}

impl Mismatch {
    pub(crate) fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.to_owned() }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server sent {} where {} was expected", self.found, self.expected)
    }
}

impl std::error::Error for Mismatch {}

/// `xsd:anyURI`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uri(pub String);

macro_rules! scalar {
    ($type:ty, $name:literal, $shape:expr, $parse:expr, $($any:pat => $value:expr),+) => {
        impl Value for $type {
            fn shape(&self) -> Shape<'_> {
                let shape: fn(&$type) -> Shape<'_> = $shape;
                shape(self)
            }
            fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
                let text = reader.text()?;
                let parse: fn(&str) -> Option<$type> = $parse;
                *self = parse(&text).ok_or_else(|| reader.bad_value($name, &text))?;
                Ok(())
            }
            fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
                *self = Self::from_any(any)?;
                Ok(())
            }
        }
        impl Item for $type {
            const NAME: &'static str = $name;
        }
        impl FromAny for $type {
            fn from_any(any: Any) -> Result<Self, Mismatch> {
                match any {
                    $($any => Ok($value),)+
                    other => Err(Mismatch::new($name, other.kind())),
                }
            }
        }
    };
}

scalar!(bool, "boolean", |v| Shape::Bool(*v), parse_bool, Any::Bool(v) => v);
scalar!(i8, "byte", |v| Shape::Byte(*v), |t| t.trim_ascii().parse().ok(), Any::Byte(v) => v);
scalar!(i16, "short", |v| Shape::Short(*v), |t| t.trim_ascii().parse().ok(), Any::Short(v) => v, Any::Byte(v) => v.into());
scalar!(i32, "int", |v| Shape::Int(*v), |t| t.trim_ascii().parse().ok(), Any::Int(v) => v, Any::Short(v) => v.into(), Any::Byte(v) => v.into());
scalar!(i64, "long", |v| Shape::Long(*v), |t| t.trim_ascii().parse().ok(), Any::Long(v) => v, Any::Int(v) => v.into(), Any::Short(v) => v.into());
scalar!(f32, "float", |v| Shape::Float(*v), |t| parse_float(t), Any::Float(v) => v);
scalar!(f64, "double", |v| Shape::Double(*v), |t| parse_float(t), Any::Double(v) => v, Any::Float(v) => v.into());
scalar!(DateTime, "dateTime", |v| Shape::DateTime(*v), |t| DateTime::parse(t).ok(), Any::DateTime(v) => v);
scalar!(Uri, "anyURI", |v| Shape::Uri(&v.0), |t| Some(Uri(t.to_owned())), Any::Uri(v) => Uri(v), Any::String(v) => Uri(v));

/// `true`, `false`, `1` and `0` in any case: servers differ.
fn parse_bool(text: &str) -> Option<bool> {
    match text.trim_ascii() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        other if other.eq_ignore_ascii_case("true") => Some(true),
        other if other.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// XML writes the infinities as `INF` and `-INF`.
fn parse_float<T: std::str::FromStr>(text: &str) -> Option<T> {
    let text = match text.trim_ascii() {
        "INF" | "+INF" => "inf",
        "-INF" => "-inf",
        other => other,
    };
    text.parse().ok()
}

impl Value for String {
    fn shape(&self) -> Shape<'_> {
        Shape::Str(self)
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        *self = reader.text()?.into_owned();
        Ok(())
    }
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = Self::from_any(any)?;
        Ok(())
    }
}

impl Item for String {
    const NAME: &'static str = "string";
}

impl FromAny for String {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        match any {
            Any::String(v) | Any::Uri(v) => Ok(v),
            // An enumerated value where the model says string: common for guest and device states.
            Any::Enum { value, .. } => Ok(value.into()),
            other => Err(Mismatch::new("string", other.kind())),
        }
    }
}

impl Value for Vec<u8> {
    fn shape(&self) -> Shape<'_> {
        Shape::Binary(self)
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let text = reader.text()?;
        *self = crate::xml::decode_base64(&text).ok_or_else(|| reader.bad_value("base64Binary", &text))?;
        Ok(())
    }
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = Self::from_any(any)?;
        Ok(())
    }
}

impl Item for Vec<u8> {
    const NAME: &'static str = "base64Binary";
}

impl FromAny for Vec<u8> {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        match any {
            Any::Binary(v) => Ok(v),
            // byte[] as ArrayOfByte: signed on the wire, bytes to us.
            Any::Array { items, .. } => {
                items.into_iter().map(|item| i8::from_any(item).map(i8::cast_unsigned)).collect()
            }
            other => Err(Mismatch::new("base64Binary", other.kind())),
        }
    }
}

impl<T: Value + Default> Value for Option<T> {
    fn shape(&self) -> Shape<'_> {
        self.as_ref().map_or(Shape::Absent, Value::shape)
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let mut value = T::default();
        value.read(reader)?;
        *self = Some(value);
        Ok(())
    }
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = match any {
            Any::Null => None,
            any => Some(assigned(any)?),
        };
        Ok(())
    }
    fn place(&mut self) -> Place<'_> {
        self.as_mut().map_or(Place::Unset, Value::place)
    }
}

impl<T: FromAny> FromAny for Option<T> {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        match any {
            Any::Null => Ok(None),
            other => T::from_any(other).map(Some),
        }
    }
}

impl<T: Value> Value for Box<T> {
    fn shape(&self) -> Shape<'_> {
        (**self).shape()
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        // Lists and slots count what stands in them; this stands elsewhere.
        reader.charge(size_of::<T>())?;
        (**self).read(reader)
    }
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        (**self).assign(any)
    }
    fn place(&mut self) -> Place<'_> {
        (**self).place()
    }
}

impl<T: FromAny> FromAny for Box<T> {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        T::from_any(any).map(Box::new)
    }
}

impl<T: Item> Value for Vec<T> {
    fn shape(&self) -> Shape<'_> {
        if self.is_empty() { Shape::Absent } else { Shape::List(self) }
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        reader.make_room(self)?;
        let mut item = T::default();
        item.read(reader)?;
        self.push(item);
        Ok(())
    }
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = match any {
            Any::Null => Vec::new(),
            Any::Array { items, .. } => items.into_iter().map(assigned).collect::<Result<_, _>>()?,
            other => return Err(Mismatch::new(T::NAME, other.kind())),
        };
        Ok(())
    }
    fn place(&mut self) -> Place<'_> {
        Place::List(self)
    }
}

impl<T: Item> List for Vec<T> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }
    fn item(&self, at: usize) -> &dyn Value {
        &self[at]
    }
    fn item_name(&self) -> &'static str {
        T::NAME
    }
    fn item_mut(&mut self, at: usize) -> &mut dyn Value {
        &mut self[at]
    }
    fn remove(&mut self, at: usize) {
        self.remove(at);
    }
    fn push_any(&mut self, item: Any) -> Result<(), Mismatch> {
        self.push(assigned(item)?);
        Ok(())
    }
}

/// A new value from an untyped one.
fn assigned<T: Value + Default>(any: Any) -> Result<T, Mismatch> {
    let mut value = T::default();
    value.assign(any)?;
    Ok(value)
}

impl<T: Item + FromAny> FromAny for Vec<T> {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        match any {
            Any::Null => Ok(Vec::new()),
            Any::Array { items, .. } => items.into_iter().map(T::from_any).collect(),
            other => Err(Mismatch::new(T::NAME, other.kind())),
        }
    }
}

/// Nothing: what a void method answers.
impl Value for () {
    fn shape(&self) -> Shape<'_> {
        Shape::Absent
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        reader.skip()
    }
}
