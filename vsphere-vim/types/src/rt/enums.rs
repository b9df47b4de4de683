//! Enumerated values, open for those of newer servers.

/// An enumeration of the model. Implemented by generated code only.
pub trait VimEnum: Sized {
    /// Its wire name: `VirtualMachinePowerState`.
    const NAME: &'static str;
    /// The value as it stands on the wire: `poweredOn`.
    fn as_str(&self) -> &str;
    /// Reads a value; one that the model does not know becomes the open arm.
    fn from_wire(value: &str) -> Self;
}

/// Writes down an enumeration's values and the traits that are the same for all.
macro_rules! enum_value {
    ($type:ident, $name:literal, $first:ident, $open:ident; $($variant:ident = $wire:literal,)*) => {
        impl $type {
            /// The value as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $wire,)*
                    Self::$open(value) => value,
                }
            }
        }
        impl Default for $type {
            fn default() -> Self {
                Self::$first
            }
        }
        impl From<&str> for $type {
            fn from(value: &str) -> Self {
                match value {
                    $($wire => Self::$variant,)*
                    other => Self::$open(other.into()),
                }
            }
        }
        impl $crate::rt::VimEnum for $type {
            const NAME: &'static str = $name;
            fn as_str(&self) -> &str {
                $type::as_str(self)
            }
            fn from_wire(value: &str) -> Self {
                value.into()
            }
        }
        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl $crate::rt::Value for $type {
            fn shape(&self) -> $crate::rt::Shape<'_> {
                $crate::rt::Shape::Enum($name, self.as_str())
            }
            fn read(&mut self, reader: &mut $crate::xml::Reader<'_>) -> Result<(), $crate::xml::Malformed> {
                *self = Self::from(&*reader.text()?);
                Ok(())
            }
            fn assign(&mut self, any: $crate::rt::Any) -> Result<(), $crate::rt::Mismatch> {
                *self = $crate::rt::FromAny::from_any(any)?;
                Ok(())
            }
        }
        #[cfg(feature = "serde")]
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        #[cfg(feature = "serde")]
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::deserialize(deserializer)
            }
        }
        impl $crate::rt::Item for $type {
            const NAME: &'static str = $name;
        }
        impl $crate::rt::FromAny for $type {
            fn from_any(any: $crate::rt::Any) -> Result<Self, $crate::rt::Mismatch> {
                match any {
                    $crate::rt::Any::Enum { value, .. } => Ok(Self::from(&*value)),
                    $crate::rt::Any::String(value) => Ok(Self::from(&*value)),
                    other => Err($crate::rt::Mismatch::new($name, other.kind())),
                }
            }
        }
    };
}
pub(crate) use enum_value;
