//! What the model knows about a type, as static data.

use std::fmt;

use super::{DataObject, Managed, Value};

/// A version of the vSphere API, such as 8.0.3.0, comparable.
///
/// Not the same as `about.apiVersion` in every release: this is the id that stands in `SOAPAction`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ApiVersion(u32);

impl ApiVersion {
    /// Builds a version from its four numbers.
    #[must_use]
    pub const fn new(major: u8, minor: u8, update: u8, patch: u8) -> Self {
        Self(u32::from_be_bytes([major, minor, update, patch]))
    }

    /// Reads `8.0.3.0`, `6.7` or `2.5u2`; `None` where the text is no version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0u8; 4];
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        for (at, part) in text.split(['.', 'u']).enumerate() {
            *numbers.get_mut(at)? = part.parse().ok()?;
        }
        Some(Self(u32::from_be_bytes(numbers)))
    }

    /// The four numbers: major, minor, update, patch.
    #[must_use]
    pub const fn numbers(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.numbers();
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

impl fmt::Debug for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A field of a data type, as declared.
#[derive(Debug)]
pub struct FieldInfo {
    /// The name on the wire: `capacityInKB`.
    pub name: &'static str,
    /// The declared type's name on the wire: `xsi:type` is written only where the value's type differs.
    pub declared: &'static str,
    /// The first version that knows the field; zero for "from the beginning".
    pub since: ApiVersion,
    /// The model marks the value as secret: never shown by `Debug`.
    pub secret: bool,
}

/// A data type or the argument list of a method, as declared.
#[derive(Debug)]
pub struct TypeInfo {
    /// The name on the wire: `VirtualDisk`.
    pub name: &'static str,
    /// The name in the managed object browser: `vim.vm.device.VirtualDisk`.
    pub vmodl: &'static str,
    /// The type that it extends.
    pub base: Option<&'static TypeInfo>,
    /// The first version that knows the type; zero for "from the beginning".
    pub since: ApiVersion,
    /// Its own fields, in wire order; those of the base come before them.
    pub fields: &'static [FieldInfo],
    /// All fields, those of the bases first: the wire order of a whole object.
    pub all_fields: &'static [&'static FieldInfo],
}

impl TypeInfo {
    /// The namespace that the type belongs to, by its package; `None` for the argument list of a method, which lies in
    /// that of the method.
    #[must_use]
    pub fn namespace(&self) -> Option<&'static str> {
        match self.vmodl.split_once('.')?.0 {
            "vslm" => Some("urn:vslm"),
            _ => Some("urn:vim25"),
        }
    }

    /// Whether this is `name` or extends it.
    #[must_use]
    pub fn is_a(&self, name: &str) -> bool {
        let mut at = Some(self);
        while let Some(info) = at {
            if info.name == name {
                return true;
            }
            at = info.base;
        }
        false
    }
}

impl TypeInfo {
    /// The place of the field with that wire name among all fields; the search begins at place `from`.
    #[inline]
    pub(crate) fn find(&self, name: &str, from: usize) -> Option<usize> {
        let (before, after) = self.all_fields.split_at_checked(from)?;
        let place = |fields: &[&FieldInfo]| fields.iter().position(|info| info.name == name);
        place(after).map(|at| from + at).or_else(|| place(before))
    }
}

/// How many fields a type has together with its bases.
pub(crate) const fn count_fields(base: Option<&TypeInfo>, own: &[FieldInfo]) -> usize {
    match base {
        None => own.len(),
        Some(base) => base.all_fields.len() + own.len(),
    }
}

/// Joins the fields of the bases and a type's own; there are `N` of them.
pub(crate) const fn all_fields<const N: usize>(
    base: Option<&TypeInfo>,
    own: &'static [FieldInfo],
) -> [&'static FieldInfo; N] {
    const NONE: &FieldInfo = &FieldInfo { name: "", declared: "", since: ApiVersion::new(0, 0, 0, 0), secret: false };
    let mut all = [NONE; N];
    let inherited = match base {
        None => 0,
        Some(base) => base.all_fields.len(),
    };
    let mut at = 0;
    while at < N {
        all[at] = match base {
            Some(base) if at < inherited => base.all_fields[at],
            _ => &own[at - inherited],
        };
        at += 1;
    }
    all
}

/// The arguments of a method of a managed object; what `invoke` takes.
pub trait Method: DataObject + Default {
    /// The name on the wire: `CreateSnapshot_Task`.
    const NAME: &'static str;
    /// The namespace of the request: `urn:vim25`, or that of the service beside the main one.
    const NAMESPACE: &'static str;
    /// The namespace of the answer; it differs for methods outside the public model.
    const ANSWER_NAMESPACE: &'static str = Self::NAMESPACE;
    /// The first version that knows the method.
    const SINCE: ApiVersion;
    /// The managed type that the method belongs to.
    type Target: Managed;
    /// The wire name of the declared type of the answer; empty for none.
    const RETURNS: &'static str;
    /// What it answers: `()`, a value, an `Option` or a `Vec`.
    type Output: Value + Default;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse_and_order() {
        let v = |t| ApiVersion::parse(t).unwrap();
        assert!(v("9.0.0.0") > v("8.0.3.0") && v("8.0.3.0") > v("6.7") && v("2.5u2") > v("2.5"));
        assert_eq!(v("8.0.3").to_string(), "8.0.3.0");
        assert!(
            ApiVersion::parse("").is_none()
                && ApiVersion::parse("dev").is_none()
                && ApiVersion::parse("1.2.3.4.5").is_none()
        );
    }
}
