//! Property paths: `config.hardware.device[2000].backing`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use super::{Any, DataObject, Element, List, Shape};

/// A property of the managed type `T` with the value type `V`.
///
/// The constants of the managed types (`mo::VirtualMachine::NAME`) are checked against the model; a nested
/// path is stated with [`PropertyPath::new`].
pub struct PropertyPath<T, V> {
    path: &'static str,
    of: PhantomData<fn() -> (T, V)>,
}

impl<T, V> PropertyPath<T, V> {
    /// States that `path` of a `T` has values of type `V`.
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self { path, of: PhantomData }
    }

    /// The path as it stands in a `PropertySpec`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.path
    }

    /// The same property of a subtype of `T`.
    #[must_use]
    pub const fn of<U>(self) -> PropertyPath<U, V> {
        PropertyPath::new(self.path)
    }
}

impl<T, V> Clone for PropertyPath<T, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, V> Copy for PropertyPath<T, V> {}

impl<T, V> fmt::Debug for PropertyPath<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)
    }
}

/// One step of a path: a field name, perhaps a key in brackets, and what follows.
///
/// The name is empty where a path begins with a key: it then picks from the value itself.
pub(super) fn step(path: &str) -> (&str, Option<&str>, &str) {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    let Some(bracket) = rest.strip_prefix('[') else {
        return (name, None, rest.strip_prefix('.').unwrap_or(rest));
    };
    // Dots and brackets between quotes belong to the key: `setting["a.b"]`.
    let (key, rest) = match bracket.strip_prefix('"').and_then(|quoted| quoted.split_once("\"]")) {
        Some(split) => split,
        None => bracket.split_once(']').unwrap_or((bracket, "")),
    };
    (name, Some(key.trim_matches('"')), rest.strip_prefix('.').unwrap_or(rest))
}

/// Where in a list the item with that key is: by its `key`, by its value for references and strings, and by its place
/// where the items have nothing of the kind.
pub(super) fn position(list: &dyn List, key: &str) -> Option<usize> {
    let mut keyed = false;
    let found = (0..list.len()).find(|at| {
        let own = key_of(list.item(*at).shape());
        keyed |= own.is_some();
        own.is_some_and(|own| own == key)
    });
    found.or_else(|| key.parse().ok().filter(|at| !keyed && *at < list.len()))
}

/// What tells an item from the others of its list.
pub(super) fn key_of(item: Shape<'_>) -> Option<Cow<'_, str>> {
    match item {
        Shape::MoRef(reference) => Some(reference.value().into()),
        Shape::Str(text) | Shape::Uri(text) | Shape::Enum(_, text) => Some(text.into()),
        Shape::Any(Any::Array { .. }) => None,
        Shape::Any(any) => key_of(any.inner_shape()),
        Shape::Object(object) => match field(object, "key")? {
            Shape::Int(key) => Some(key.to_string().into()),
            Shape::Long(key) => Some(key.to_string().into()),
            Shape::Element(key) => Some(key.text().into()),
            key @ (Shape::Str(_) | Shape::MoRef(_) | Shape::Enum(..)) => key_of(key),
            _ => None,
        },
        Shape::Element(element) => key_of_element(element).map(Cow::from),
        _ => None,
    }
}

/// The same for an item of which the model knows nothing.
pub(super) fn key_of_element(item: &Element) -> Option<&str> {
    if item.children().is_empty() { Some(item.text()) } else { item.child("key").map(Element::text) }
}

/// A field of an object, one that the model does not know included.
fn field<'a>(object: &'a dyn DataObject, name: &str) -> Option<Shape<'a>> {
    let mut found = None;
    object.visit(&mut |info, value| {
        if info.name == name {
            found = Some(value.shape());
        }
    });
    found.or_else(|| object.unknown().elements().iter().find(|element| element.name() == name).map(Shape::Element))
}

impl Shape<'_> {
    /// The value behind a nested and keyed path; `None` where a step leads nowhere.
    ///
    /// Array elements are found by their `key`, references and strings by their value, others by their place. An
    /// unset optional field is `Some(Any::Null)`: the path exists, its value does not.
    #[must_use]
    pub fn path(&self, path: &str) -> Option<Any> {
        if path.is_empty() {
            return Some(Any::from_shape(*self));
        }
        let (name, key, rest) = step(path);
        let found = match *self {
            // A step of nothing leads nowhere; were it passed over, a text of dots would be a walk without an end.
            _ if name.is_empty() && key.is_none() => return None,
            whole if name.is_empty() => whole,
            Shape::Object(object) => field(object, name)?,
            Shape::Any(Any::Object(object)) => field(&**object, name)?,
            Shape::Element(element) | Shape::Any(Any::Dynamic(element)) => {
                let mut named = element.children().iter().filter(|child| child.name() == name);
                let wanted = |child: &&Element| key.is_none_or(|key| key_of_element(child) == Some(key));
                return Shape::Element(named.find(wanted)?).path(rest);
            }
            Shape::Absent => return Some(Any::Null),
            _ => return None,
        };
        match key {
            None => found.path(rest),
            Some(key) => found.keyed(key, rest)?,
        }
    }

    fn keyed(&self, key: &str, rest: &str) -> Option<Option<Any>> {
        let list: &dyn List = match self {
            Shape::List(list) => *list,
            Shape::Any(Any::Array { items, .. }) => items,
            _ => return None,
        };
        position(list, key).map(|at| list.item(at).shape().path(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::step;

    #[test]
    fn a_path_is_taken_apart_step_by_step() {
        for (path, expected) in [
            ("name", ("name", None, "")),
            ("config.hardware", ("config", None, "hardware")),
            ("device[2000].backing.uuid", ("device", Some("2000"), "backing.uuid")),
            ("device[2000]", ("device", Some("2000"), "")),
            ("[2000].backing", ("", Some("2000"), "backing")),
            ("extra[\"a.b[0]\"].value", ("extra", Some("a.b[0]"), "value")),
            ("extra[\"a\"]", ("extra", Some("a"), "")),
            ("broken[7", ("broken", Some("7"), "")),
            ("", ("", None, "")),
        ] {
            assert_eq!(step(path), expected, "{path}");
        }
    }
}
