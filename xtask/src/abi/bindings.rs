//! What `bindgen` wrote, as far as it matters: a reader of exactly that style, not of Rust.

use std::collections::BTreeMap;

use vixdisklib_sys::shape::Shape;

/// Functions, structures and constants of a translated header.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    /// Parameters and result of each function.
    pub(super) functions: BTreeMap<String, (Vec<Type>, Type)>,
    /// Size, and offsets of the fields in order, of each structure.
    pub(super) structures: BTreeMap<String, (usize, Vec<usize>)>,
    /// Integer constants; of enumerations with the enumeration's name in front.
    pub(super) constants: BTreeMap<String, u64>,
}

/// A type, reduced like [`Shape`]; structures keep the header's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Void,
    Integer(u32),
    Pointer(Box<Self>),
    Named(String),
    Function,
}

impl Bindings {
    /// Reads what `bindgen` wrote with its default settings.
    pub(super) fn parse(text: &str) -> Self {
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut aliases = BTreeMap::new();
        for item in flat.split("pub type ").skip(1) {
            if let Some((name, rest)) = item.split_once(" = ")
                && let Some((target, _)) = rest.split_once(';')
            {
                aliases.insert(name, target);
            }
        }
        let mut found = Self::default();
        for item in flat.split("pub fn ").skip(1) {
            if let Some((name, signature)) = function(item, &aliases) {
                found.functions.insert(name, signature);
            }
        }
        for item in flat.split("[\"").skip(1) {
            found.layout(item);
        }
        for item in flat.split("pub const ").skip(1) {
            if let Some((name, rest)) = item.split_once(": ")
                && let Some((_, value)) = rest.split_once(" = ")
                && let Some(Ok(value)) = value.split_once(';').map(|(value, _)| value.parse())
            {
                found.constants.insert(name.to_owned(), value);
            }
        }
        found
    }

    /// `Size of X"][::std::mem::size_of::<X>() - 12usize];` and `Offset of field: X::f"][...`.
    fn layout(&mut self, item: &str) {
        let Some((what, rest)) = item.split_once("\"]") else { return };
        let Some(Ok(number)) =
            rest.split_once("usize]").map(|(before, _)| before.rsplit(' ').next().unwrap_or_default().parse::<usize>())
        else {
            return;
        };
        if let Some(name) = what.strip_prefix("Size of ") {
            self.structures.entry(name.to_owned()).or_default().0 = number;
        } else if let Some((name, _)) = what.strip_prefix("Offset of field: ").and_then(|of| of.split_once("::")) {
            self.structures.entry(name.to_owned()).or_default().1.push(number);
        }
    }
}

impl Type {
    fn parse(text: &str, aliases: &BTreeMap<&str, &str>) -> Self {
        let text = text.trim();
        if let Some(to) = text.strip_prefix("*const ").or_else(|| text.strip_prefix("*mut ")) {
            return Self::Pointer(Box::new(Self::parse(to, aliases)));
        }
        if text.contains("fn(") || text.contains("fn (") {
            return Self::Function;
        }
        let name = text.rsplit("::").next().unwrap_or(text);
        match name {
            "()" | "c_void" => Self::Void,
            "c_char" | "c_schar" | "c_uchar" | "i8" | "u8" => Self::Integer(8),
            "c_short" | "c_ushort" | "i16" | "u16" => Self::Integer(16),
            "c_int" | "c_uint" | "i32" | "u32" => Self::Integer(32),
            "c_long" | "c_ulong" | "c_longlong" | "c_ulonglong" | "i64" | "u64" | "usize" => Self::Integer(64),
            _ => match aliases.get(name) {
                // An opaque structure may be aliased to itself.
                Some(target) if *target != name => Self::parse(target, aliases),
                _ => Self::Named(name.to_owned()),
            },
        }
    }

    /// Whether a caller would pass the same. Whatever a handle points to is never looked at, under any name.
    pub(super) fn is(&self, shape: &Shape) -> bool {
        match (self, shape) {
            (Self::Void, Shape::Void) | (Self::Function, Shape::Function) => true,
            (Self::Integer(bits), Shape::Integer(ours)) => bits == ours,
            (Self::Pointer(_), Shape::Pointer(Shape::Struct(ours))) if HANDLES.contains(ours) => true,
            (Self::Pointer(to), Shape::Pointer(ours)) => to.is(ours),
            // Functions are aliased to types of functions, and pointed to.
            (Self::Pointer(to), Shape::Function) => **to == Self::Function,
            (Self::Named(name), Shape::Struct(ours)) => name.trim_start_matches('_').ends_with(ours),
            _ => false,
        }
    }
}

/// What handles point to, by our names.
const HANDLES: [&str; 4] = ["ConnectionObject", "DiskObject", "DiskSetObject", "VolumeObject"];

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Void => write!(f, "void"),
            Self::Integer(bits) => write!(f, "i{bits}"),
            Self::Pointer(to) => write!(f, "{to}*"),
            Self::Named(name) => write!(f, "{name}"),
            Self::Function => write!(f, "function*"),
        }
    }
}

/// `Name( a: A, b: B, ) -> C;`, after `pub fn `.
fn function(item: &str, aliases: &BTreeMap<&str, &str>) -> Option<(String, (Vec<Type>, Type))> {
    let (name, rest) = item.split_once('(')?;
    let end = closing(rest)?;
    let (parameters, after) = (&rest[..end], &rest[end + 1..]);
    let result = match after.split_once(';')?.0.trim().strip_prefix("->") {
        Some(result) => Type::parse(result, aliases),
        None => Type::Void,
    };
    let types = split(parameters).into_iter().filter_map(|parameter| parameter.split_once(':').map(|(_, of)| of));
    Some((name.trim().to_owned(), (types.map(|of| Type::parse(of, aliases)).collect(), result)))
}

/// Where the parenthesis is closed that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })
}

/// Splits at commas that are outside of parentheses and angle brackets; the `>` of an arrow is none.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start, mut before) = (Vec::new(), 0, 0, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '(' | '<' => depth += 1,
            ')' => depth -= 1,
            '>' if before != '-' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bindgen_writes_is_understood() {
        let text = r#"
            pub const VIX_E_FAIL: _bindgen_ty_1 = 1;
            pub type VixError = uint64;
            pub type uint64 = ::std::os::raw::c_ulong;
            #[repr(C)] pub struct VixDiskLibHandleStruct { _unused: [u8; 0], }
            pub type VixDiskLibHandle = *mut VixDiskLibHandleStruct;
            const _: () = {
                ["Size of VixDiskLibBlock"][::std::mem::size_of::<VixDiskLibBlock>() - 16usize];
                ["Alignment of VixDiskLibBlock"][::std::mem::align_of::<VixDiskLibBlock>() - 8usize];
                ["Offset of field: VixDiskLibBlock::offset"]
                    [::std::mem::offset_of!(VixDiskLibBlock, offset) - 0usize];
                ["Offset of field: VixDiskLibBlock::length"]
                    [::std::mem::offset_of!(VixDiskLibBlock, length) - 8usize];
            };
            pub type Done = ::std::option::Option<
                unsafe extern "C" fn(data: *mut ::std::os::raw::c_void, result: VixError) -> i8,
            >;
            unsafe extern "C" {
                pub fn VixDiskLib_ReadAsync(
                    handle: VixDiskLibHandle, start: uint64, buffer: *mut u8,
                    done: Done, f: ::std::option::Option<unsafe extern "C" fn(a: i32, b: i32) -> i32>,
                ) -> VixError;
            }
            unsafe extern "C" { pub fn VixDiskLib_Exit(); }
        "#;
        let bindings = Bindings::parse(text);
        assert_eq!(bindings.constants.get("VIX_E_FAIL"), Some(&1));
        assert_eq!(bindings.structures["VixDiskLibBlock"], (16, vec![0, 8]));
        assert_eq!(bindings.functions["VixDiskLib_Exit"], (vec![], Type::Void));
        let (parameters, result) = &bindings.functions["VixDiskLib_ReadAsync"];
        let shown: Vec<_> = parameters.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["VixDiskLibHandleStruct*", "i64", "i8*", "function*", "function*"]);
        assert_eq!(*result, Type::Integer(64));
    }

    #[test]
    fn handles_are_the_same_under_any_name_and_structures_are_not() {
        let pointer = |to| Type::Pointer(Box::new(to));
        let named = |name: &str| Type::Named(name.to_owned());
        assert!(pointer(named("Whatever")).is(&Shape::Pointer(&Shape::Struct("DiskObject"))));
        assert!(pointer(Type::Void).is(&Shape::Pointer(&Shape::Struct("ConnectionObject"))));
        assert!(pointer(named("VixDiskLibInfo")).is(&Shape::Pointer(&Shape::Struct("Info"))));
        assert!(!pointer(named("VixDiskLibBlock")).is(&Shape::Pointer(&Shape::Struct("Info"))));
        assert!(!Type::Integer(32).is(&Shape::Integer(64)));
    }
}
