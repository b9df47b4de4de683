//! References to managed objects, typed by what they point at.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::names::Names;
use super::{Any, FromAny, Item, Mismatch, Shape, Value};
use crate::mo;
use crate::xml::{Malformed, Reader};

/// A managed type of the server, such as `VirtualMachine`. Its implementors have no values.
pub trait Managed: Send + Sync + 'static {
    /// The name on the wire.
    const TYPE: &'static str;
    /// The names of the types that it extends, nearest first.
    const BASES: &'static [&'static str];
}

/// A managed type of the model with the types that it extends, nearest first.
pub(crate) fn managed_type(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    static TABLE: OnceLock<Names<(&str, &[&str])>> = OnceLock::new();
    let table = TABLE.get_or_init(|| Names::new(mo::TYPES.iter().map(|row| (row.0, *row)).collect()));
    table.get(name)
}

/// A managed type's name, borrowed where the model knows it.
pub type TypeTag = Cow<'static, str>;

/// A reference to a managed object of type `T`: a type name and an id, unique on one server only.
///
/// An id means nothing on another server, and a virtual machine gets a new one when it is registered again:
/// store `instanceUuid` beside it.
#[doc(alias = "ManagedObjectReference")]
#[doc(alias = "moRef")]
pub struct MoRef<T> {
    inner: ManagedObjectReference,
    points_at: PhantomData<fn() -> T>,
}

/// A reference to a managed object of any type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ManagedObjectReference {
    type_name: TypeTag,
    value: Box<str>,
    server_guid: Option<Box<str>>,
}

impl ManagedObjectReference {
    /// A reference from its two parts.
    #[must_use]
    pub fn of(type_name: &str, value: &str) -> Self {
        let type_name = mo::known_type(type_name).map_or_else(|| Cow::Owned(type_name.to_owned()), Cow::Borrowed);
        Self { type_name, value: value.into(), server_guid: None }
    }

    /// The object's id: `vm-42`.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The object's type as the server named it: `VirtualMachine`.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// The id of the server that owns the object, where the reference carries one.
    #[must_use]
    pub fn server_guid(&self) -> Option<&str> {
        self.server_guid.as_deref()
    }

    /// Whether the object's type is `T` or extends it, as far as the model knows.
    #[must_use]
    pub fn is_a<T: Managed>(&self) -> bool {
        T::TYPE == mo::ManagedObject::TYPE || self.type_name == T::TYPE || mo::bases(&self.type_name).contains(&T::TYPE)
    }

    /// Claims that the object is a `T`. The server checks it at the first call.
    #[must_use]
    pub fn cast<T: Managed>(&self) -> MoRef<T> {
        MoRef { inner: self.clone(), points_at: PhantomData }
    }

    /// A copy of itself; so that typed and untyped references are used alike.
    #[must_use]
    pub fn erase(&self) -> ManagedObjectReference {
        self.clone()
    }
}

impl fmt::Display for ManagedObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.type_name, self.value)
    }
}

impl fmt::Debug for ManagedObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for ManagedObjectReference {
    fn shape(&self) -> Shape<'_> {
        Shape::MoRef(self)
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let type_name = reader.attribute("type").unwrap_or_default().into_owned();
        let server_guid = reader.attribute("serverGuid").map(|guid| guid.as_ref().into());
        let value = reader.text()?;
        *self = Self { server_guid, ..Self::of(&type_name, &value) };
        Ok(())
    }
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = Self::from_any(any)?;
        Ok(())
    }
}

impl Item for ManagedObjectReference {
    const NAME: &'static str = "ManagedObjectReference";
}

impl FromAny for ManagedObjectReference {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        match any {
            Any::MoRef(v) => Ok(v),
            other => Err(Mismatch::new("ManagedObjectReference", other.kind())),
        }
    }
}

impl<T: Managed> MoRef<T> {
    /// A reference to the object with that id.
    #[must_use]
    pub fn new(value: &str) -> Self {
        ManagedObjectReference { type_name: Cow::Borrowed(T::TYPE), value: value.into(), server_guid: None }.cast()
    }

    /// The object's id: `vm-42`.
    #[must_use]
    pub fn value(&self) -> &str {
        self.inner.value()
    }

    /// The object's type as the server named it; a subtype of `T` is possible.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.inner.type_name()
    }

    /// The same reference without its type parameter.
    #[must_use]
    pub fn erase(&self) -> ManagedObjectReference {
        self.inner.clone()
    }

    /// The untyped reference inside.
    #[must_use]
    pub fn as_untyped(&self) -> &ManagedObjectReference {
        &self.inner
    }

    /// Claims that the object is a `U`. The server checks it at the first call.
    #[must_use]
    pub fn cast<U: Managed>(&self) -> MoRef<U> {
        self.inner.cast()
    }
}

impl<T> From<MoRef<T>> for ManagedObjectReference {
    fn from(typed: MoRef<T>) -> Self {
        typed.inner
    }
}

impl<T> Clone for MoRef<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), points_at: PhantomData }
    }
}

impl<T: Managed> Default for MoRef<T> {
    fn default() -> Self {
        Self::new("")
    }
}

impl<T> PartialEq for MoRef<T> {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl<T> Eq for MoRef<T> {}

impl<T> PartialOrd for MoRef<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for MoRef<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.inner.cmp(&other.inner)
    }
}

impl<T> Hash for MoRef<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl<T> fmt::Display for MoRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl<T> fmt::Debug for MoRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl<T: Managed> Value for MoRef<T> {
    fn shape(&self) -> Shape<'_> {
        Shape::MoRef(&self.inner)
    }
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        self.inner.read(reader)
    }
    fn assign(&mut self, any: Any) -> Result<(), Mismatch> {
        *self = Self::from_any(any)?;
        Ok(())
    }
}

impl<T: Managed> Item for MoRef<T> {
    const NAME: &'static str = "ManagedObjectReference";
}

impl<T: Managed> FromAny for MoRef<T> {
    fn from_any(any: Any) -> Result<Self, Mismatch> {
        ManagedObjectReference::from_any(any).map(|untyped| untyped.cast())
    }
}
