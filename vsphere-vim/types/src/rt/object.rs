//! Data objects: structs of the model, walked field by field.

use std::any::{Any as StdAny, TypeId};
use std::fmt;

use super::kind::{Kind, kind};
use super::{Any, Element, FieldInfo, Mismatch, TypeInfo, Value};
use crate::xml::{Malformed, Reader};

/// What a peer sent that the model does not know: kept, and written again.
///
/// Every root struct of the model has one. A newer server's fields and subtypes survive a round trip, and
/// one new device type does not hide a page of the inventory.
#[derive(Clone, Default, PartialEq)]
pub struct Unknown(Option<Box<Inner>>);

#[derive(Clone, Default, PartialEq)]
struct Inner {
    type_name: Option<Box<str>>,
    elements: Vec<Element>,
}

impl Unknown {
    /// The `xsi:type` of the object where the model has no such type; the struct is then its nearest known base.
    #[must_use]
    pub fn type_name(&self) -> Option<&str> {
        self.0.as_ref()?.type_name.as_deref()
    }

    /// Elements that the object's type does not declare, in their order.
    #[must_use]
    pub fn elements(&self) -> &[Element] {
        self.0.as_ref().map_or(&[], |inner| &inner.elements)
    }

    /// Whether nothing unknown was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn elements_mut(&mut self) -> &mut Vec<Element> {
        &mut self.0.get_or_insert_default().elements
    }

    /// Names the object's type, for a type that the model does not have.
    pub fn set_type_name(&mut self, name: &str) {
        self.0.get_or_insert_default().type_name = Some(name.into());
    }

    /// Where further elements go.
    fn room(&mut self) -> &mut Vec<Element> {
        &mut self.0.get_or_insert_default().elements
    }

    /// Adds an element that the type does not declare.
    pub fn push(&mut self, element: Element) {
        self.room().push(element);
    }
}

impl fmt::Debug for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unknown").field("type_name", &self.type_name()).field("elements", &self.elements()).finish()
    }
}

/// A struct of the model. Implemented by generated code only.
pub trait DataObject: Value + fmt::Debug {
    /// The static description of the struct's type.
    fn info(&self) -> &'static TypeInfo;

    /// The field at that place of [`TypeInfo::all_fields`].
    fn field_at(&self, at: usize) -> Option<&dyn Value>;

    /// The same, to be filled.
    fn slot_at(&mut self, at: usize) -> Option<&mut dyn Value>;

    /// The field of that wire name, to be filled.
    fn slot(&mut self, name: &str) -> Option<&mut dyn Value> {
        self.slot_at(self.info().find(name, 0)?)
    }

    /// Calls `visitor` for every field, the base's first, in wire order.
    fn visit<'a>(&'a self, visitor: &mut dyn FnMut(&'static FieldInfo, &'a dyn Value)) {
        for (at, info) in self.info().all_fields.iter().enumerate() {
            if let Some(value) = self.field_at(at) {
                visitor(info, value);
            }
        }
    }

    /// What the model does not know of the object.
    fn unknown(&self) -> &Unknown;

    /// The same, to be changed.
    fn unknown_mut(&mut self) -> &mut Unknown;

    /// The struct itself or the embedded base of that type.
    fn upcast(&self, target: TypeId) -> Option<&dyn StdAny>;

    /// The same, to be changed.
    fn upcast_mut(&mut self, target: TypeId) -> Option<&mut dyn StdAny>;

    /// A copy behind a box.
    fn clone_box(&self) -> Box<dyn DataObject>;

    /// Equality with any other object.
    fn eq_object(&self, other: &dyn DataObject) -> bool;

    /// Gives up the box for its concrete type.
    fn into_std_any(self: Box<Self>) -> Box<dyn StdAny>;
}

impl dyn DataObject {
    /// The type's name on the wire, the peer's own where the model does not know it.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.unknown().type_name().unwrap_or(self.info().name)
    }

    /// Whether the object is of that type or extends it.
    #[must_use]
    pub fn is_a(&self, name: &str) -> bool {
        self.unknown().type_name().is_some_and(|own| super::open_is_a(own, name)) || self.info().is_a(name)
    }

    /// The object, or its embedded base, as `T`.
    #[must_use]
    pub fn downcast_ref<T: DataObject>(&self) -> Option<&T> {
        self.upcast(TypeId::of::<T>())?.downcast_ref()
    }
}

impl Clone for Box<dyn DataObject> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

impl PartialEq for Box<dyn DataObject> {
    fn eq(&self, other: &Self) -> bool {
        (**self).eq_object(&**other)
    }
}

/// A row of the registry: a type's description and how to make an empty one.
pub(crate) struct Registered {
    pub(crate) info: &'static TypeInfo,
    pub(crate) new: fn() -> Box<dyn DataObject>,
}

/// Makes an empty object of a type by its wire name; `None` where the model does not have it.
#[must_use]
pub fn new_object(name: &str) -> Option<Box<dyn DataObject>> {
    registered(name).map(|row| (row.new)())
}

/// The description of a data type by its wire name.
#[must_use]
pub fn type_info(name: &str) -> Option<&'static TypeInfo> {
    registered(name).map(|row| row.info)
}

/// The wire names of all data types of the model, sorted.
pub fn type_names() -> impl Iterator<Item = &'static str> {
    crate::generated::REGISTRY.iter().map(|row| row.info.name)
}

/// The wire names of all enumerations of the model, sorted.
pub fn enum_names() -> impl Iterator<Item = &'static str> {
    crate::generated::ENUM_NAMES.iter().copied()
}

fn registered(name: &str) -> Option<&'static Registered> {
    match kind(name) {
        Some(Kind::Object(row)) => Some(row),
        _ => None,
    }
}

/// Writes down one struct of the model: its description, its walk and its place under its base.
///
/// ```text
/// data_object! { VirtualDisk extends VirtualDevice, "VirtualDisk", "vim.vm.device.VirtualDisk", [2, 5, 0, 0];
///     capacity_in_kb: "capacityInKB" "long" [0, 0, 0, 0] public, ... }
/// ```
macro_rules! data_object {
    ($type:ident extends $base:ty, $name:expr, $vmodl:expr, $since:tt;
     $($field:ident : $wire:literal $declared:literal $fsince:tt $secret:ident,)*) => {
        $crate::rt::data_object!(@common $type, (Some(<$base>::INFO)), $name, $vmodl, $since; $($wire $declared $fsince $secret,)*);
        impl ::std::ops::Deref for $type {
            type Target = $base;
            fn deref(&self) -> &$base {
                &self.base
            }
        }
        impl ::std::ops::DerefMut for $type {
            fn deref_mut(&mut self) -> &mut $base {
                &mut self.base
            }
        }
        impl $crate::rt::DataObject for $type {
            #[allow(non_upper_case_globals, reason = "places are named like the fields")]
            fn field_at(&self, at: usize) -> Option<&dyn $crate::rt::Value> {
                let Some(own) = at.checked_sub(<$base>::INFO.all_fields.len()) else { return self.base.field_at(at) };
                $crate::rt::data_object!(@places $($field)*);
                match own {
                    $($field => Some(&self.$field),)*
                    _ => None,
                }
            }
            #[allow(non_upper_case_globals, reason = "places are named like the fields")]
            fn slot_at(&mut self, at: usize) -> Option<&mut dyn $crate::rt::Value> {
                let Some(own) = at.checked_sub(<$base>::INFO.all_fields.len()) else { return self.base.slot_at(at) };
                $crate::rt::data_object!(@places $($field)*);
                match own {
                    $($field => Some(&mut self.$field),)*
                    _ => None,
                }
            }
            fn unknown(&self) -> &$crate::rt::Unknown {
                self.base.unknown()
            }
            fn unknown_mut(&mut self) -> &mut $crate::rt::Unknown {
                self.base.unknown_mut()
            }
            fn upcast(&self, target: ::std::any::TypeId) -> Option<&dyn ::std::any::Any> {
                if target == ::std::any::TypeId::of::<Self>() { Some(self) } else { self.base.upcast(target) }
            }
            fn upcast_mut(&mut self, target: ::std::any::TypeId) -> Option<&mut dyn ::std::any::Any> {
                if target == ::std::any::TypeId::of::<Self>() { Some(self) } else { self.base.upcast_mut(target) }
            }
            $crate::rt::data_object!(@methods $type);
        }
    };
    ($type:ident, $name:expr, $vmodl:expr, $since:tt;
     $($field:ident : $wire:literal $declared:literal $fsince:tt $secret:ident,)*) => {
        $crate::rt::data_object!(@common $type, (None), $name, $vmodl, $since; $($wire $declared $fsince $secret,)*);
        impl $crate::rt::DataObject for $type {
            #[allow(non_upper_case_globals, reason = "places are named like the fields")]
            fn field_at(&self, at: usize) -> Option<&dyn $crate::rt::Value> {
                $crate::rt::data_object!(@places $($field)*);
                match at {
                    $($field => Some(&self.$field),)*
                    _ => None,
                }
            }
            #[allow(non_upper_case_globals, reason = "places are named like the fields")]
            fn slot_at(&mut self, at: usize) -> Option<&mut dyn $crate::rt::Value> {
                $crate::rt::data_object!(@places $($field)*);
                match at {
                    $($field => Some(&mut self.$field),)*
                    _ => None,
                }
            }
            fn unknown(&self) -> &$crate::rt::Unknown {
                &self.unknown
            }
            fn unknown_mut(&mut self) -> &mut $crate::rt::Unknown {
                &mut self.unknown
            }
            fn upcast(&self, target: ::std::any::TypeId) -> Option<&dyn ::std::any::Any> {
                if target == ::std::any::TypeId::of::<Self>() { Some(self) } else { None }
            }
            fn upcast_mut(&mut self, target: ::std::any::TypeId) -> Option<&mut dyn ::std::any::Any> {
                if target == ::std::any::TypeId::of::<Self>() { Some(self) } else { None }
            }
            $crate::rt::data_object!(@methods $type);
        }
    };
    (@common $type:ident, ($base:expr), $name:expr, $vmodl:expr, [$a:literal, $b:literal, $c:literal, $d:literal];
     $($wire:literal $declared:literal [$fa:literal, $fb:literal, $fc:literal, $fd:literal] $secret:ident,)*) => {
        impl $type {
            /// The static description of this type.
            pub const INFO: &'static $crate::rt::TypeInfo = {
                const BASE: Option<&$crate::rt::TypeInfo> = $base;
                const FIELDS: &[$crate::rt::FieldInfo] = &[$($crate::rt::FieldInfo {
                    name: $wire,
                    declared: $declared,
                    since: $crate::rt::ApiVersion::new($fa, $fb, $fc, $fd),
                    secret: $crate::rt::data_object!(@secret $secret),
                },)*];
                &$crate::rt::TypeInfo {
                    name: $name,
                    vmodl: $vmodl,
                    base: BASE,
                    since: $crate::rt::ApiVersion::new($a, $b, $c, $d),
                    fields: FIELDS,
                    all_fields: &$crate::rt::all_fields::<{ $crate::rt::count_fields(BASE, FIELDS) }>(BASE, FIELDS),
                }
            };
        }
        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                $crate::rt::debug_object(self, f)
            }
        }
        impl $crate::rt::Value for $type {
            fn shape(&self) -> $crate::rt::Shape<'_> {
                $crate::rt::Shape::Object(self)
            }
            fn read(&mut self, reader: &mut $crate::xml::Reader<'_>) -> Result<(), $crate::xml::Malformed> {
                $crate::rt::read_plain(self, reader)
            }
            fn assign(&mut self, any: $crate::rt::Any) -> Result<(), $crate::rt::Mismatch> {
                *self = $crate::rt::object_from_any(any)?;
                Ok(())
            }
            fn place(&mut self) -> $crate::rt::Place<'_> {
                $crate::rt::Place::Object(self)
            }
        }
        impl $crate::rt::FromAny for $type {
            fn from_any(any: $crate::rt::Any) -> Result<Self, $crate::rt::Mismatch> {
                $crate::rt::object_from_any(any)
            }
        }
        impl $crate::rt::Item for $type {
            const NAME: &'static str = $name;
        }
        #[cfg(feature = "serde")]
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::json::serialize(self, serializer)
            }
        }
        #[cfg(feature = "serde")]
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::deserialize(deserializer)
            }
        }
    };
    // Constants that number the fields, named like them, to be matched on.
    (@places $($field:ident)*) => {
        #[allow(non_camel_case_types, dead_code, reason = "named after the fields")]
        enum Place { $($field,)* }
        $(const $field: usize = Place::$field as usize;)*
    };
    (@secret secret) => { true };
    (@secret public) => { false };
    (@methods $type:ident) => {
        fn info(&self) -> &'static $crate::rt::TypeInfo {
            Self::INFO
        }
        fn clone_box(&self) -> Box<dyn $crate::rt::DataObject> {
            Box::new(self.clone())
        }
        fn eq_object(&self, other: &dyn $crate::rt::DataObject) -> bool {
            ::std::ptr::eq(self.info(), other.info()) && other.downcast_ref::<Self>() == Some(self)
        }
        fn into_std_any(self: Box<Self>) -> Box<dyn ::std::any::Any> {
            self
        }
    };
}
pub(crate) use data_object;

/// Reads an element into a struct whose declared type has no subtypes in the model.
pub(crate) fn read_plain(object: &mut dyn DataObject, reader: &mut Reader<'_>) -> Result<(), Malformed> {
    if let Some(name) = reader.xsi_type()
        && name != object.info().name
    {
        // A subtype of a newer release; or a server that names the field's own base. The name is kept.
        object.unknown_mut().set_type_name(name);
    }
    read_fields(object, reader)
}

/// Reads the children of the current element into the object's fields, up to the end tag.
pub(crate) fn read_fields(object: &mut dyn DataObject, reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let info = object.info();
    // Fields come in wire order as a rule: the search for one goes on from the last.
    let mut last = 0;
    while let Some(name) = reader.next_child()? {
        let found = info.find(name, last);
        if let Some(slot) = found.and_then(|at| object.slot_at(at)) {
            last = found.unwrap_or(last);
            if reader.is_nil() {
                reader.skip()?;
            } else {
                slot.read(reader)?;
            }
        } else {
            reader.make_room(object.unknown_mut().room())?;
            let element = Element::read(name, reader)?;
            object.unknown_mut().push(element);
        }
    }
    Ok(())
}

/// Shows an object for debugging: set fields only, secrets masked.
pub(crate) fn debug_object(object: &dyn DataObject, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut out = f.debug_struct(object.type_name());
    object.visit(&mut |info, value| {
        let shape = value.shape();
        if shape.is_absent() {
            return;
        }
        if info.secret {
            out.field(info.name, &format_args!("***"));
        } else {
            out.field(info.name, &shape);
        }
    });
    for element in object.unknown().elements() {
        out.field(element.name(), element);
    }
    out.finish()
}

/// Takes a struct of exactly that type (or its embedded base) out of an untyped value.
pub(crate) fn object_from_any<T: DataObject + Clone>(any: Any) -> Result<T, Mismatch> {
    match any {
        Any::Object(object) => {
            // A subtype in a place that takes the type itself gives its base part.
            match object.downcast_ref::<T>() {
                None => Err(Mismatch::new(std::any::type_name::<T>(), object.type_name())),
                Some(base) => Ok(base.clone()),
            }
        }
        other => Err(Mismatch::new(std::any::type_name::<T>(), other.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_has_a_field_that_a_base_has_too() {
        for name in type_names() {
            let fields = type_info(name).unwrap().all_fields;
            for (at, field) in fields.iter().enumerate() {
                assert!(fields[..at].iter().all(|before| before.name != field.name), "{name}.{}", field.name);
            }
        }
    }

    #[test]
    fn every_place_has_a_field_and_the_next_one_has_none() {
        for name in type_names() {
            let mut object = new_object(name).unwrap();
            let count = object.info().all_fields.len();
            assert!((0..count).all(|at| object.field_at(at).is_some() && object.slot_at(at).is_some()), "{name}");
            assert!(object.field_at(count).is_none() && object.slot_at(count).is_none(), "{name}");
        }
    }
}
