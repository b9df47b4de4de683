//! What a type's name on the wire stands for.

use std::sync::OnceLock;

use super::Registered;
use super::names::Names;

/// A type that the model knows, found by its wire name.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    Byte,
    Short,
    Int,
    Long,
    Float,
    Double,
    String,
    Uri,
    DateTime,
    Binary,
    MoRef,
    /// An enumeration, with its name as static text.
    Enum(&'static str),
    Object(&'static Registered),
}

/// Looks a name up that stands in an `xsi:type` or is an item's name.
pub(crate) fn kind(name: &str) -> Option<Kind> {
    static TABLE: OnceLock<Names<Kind>> = OnceLock::new();
    TABLE.get_or_init(of_model).get(name)
}

fn of_model() -> Names<Kind> {
    let enums = crate::generated::ENUM_NAMES.iter().map(|name| (*name, Kind::Enum(name)));
    let objects = crate::generated::REGISTRY.iter().map(|row| (row.info.name, Kind::Object(row)));
    Names::new(SCALARS.into_iter().chain(enums).chain(objects).collect())
}

const SCALARS: [(&str, Kind); 13] = [
    ("boolean", Kind::Bool),
    ("byte", Kind::Byte),
    ("short", Kind::Short),
    ("int", Kind::Int),
    ("long", Kind::Long),
    ("float", Kind::Float),
    ("double", Kind::Double),
    ("string", Kind::String),
    ("anyURI", Kind::Uri),
    ("dateTime", Kind::DateTime),
    ("base64Binary", Kind::Binary),
    ("ManagedObjectReference", Kind::MoRef),
    // So pyVmomi calls a reference in a value of anyType.
    ("ManagedObject", Kind::MoRef),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_model_is_found_and_no_other() {
        for row in crate::generated::REGISTRY {
            let name = row.info.name;
            assert!(matches!(kind(name), Some(Kind::Object(found)) if std::ptr::eq(found, row)), "{name}");
            assert!(kind(&format!("{name}X")).is_none());
        }
        for name in crate::generated::ENUM_NAMES {
            assert!(matches!(kind(name), Some(Kind::Enum(found)) if found == *name), "{name}");
        }
        for (name, _) in SCALARS {
            assert!(kind(name).is_some(), "{name}");
        }
        assert!(kind("").is_none() && kind("anyType").is_none() && kind("ArrayOfString").is_none());
    }
}
