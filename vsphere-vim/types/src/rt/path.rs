//! Property paths: `config.hardware.device[2000].backing`.

use std::fmt;
use std::marker::PhantomData;

use super::{Any, Shape};

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

/// One step of a path: a field name and perhaps a key in brackets.
fn step(path: &str) -> (&str, Option<&str>, &str) {
    // A dot inside brackets belongs to the key: `setting["a.b"]`.
    let mut depth = 0u32;
    let end = path.char_indices().find_map(|(at, c)| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '.' if depth == 0 => return Some(at),
            _ => {}
        }
        None
    });
    let (head, rest) = end.map_or((path, ""), |at| (&path[..at], &path[at + 1..]));
    match head.split_once('[') {
        Some((name, key)) => (name, Some(key.trim_end_matches(']').trim_matches('"')), rest),
        None => (head, None, rest),
    }
}

impl Shape<'_> {
    /// The value behind a nested and keyed path; `None` where a step leads nowhere.
    ///
    /// Array elements are found by their `key` field. An unset optional field is `Some(Any::Null)`:
    /// the path exists, its value does not.
    #[must_use]
    pub fn path(&self, path: &str) -> Option<Any> {
        if path.is_empty() {
            return Some(Any::from_shape(*self));
        }
        let (name, key, rest) = step(path);
        let object = match self {
            Shape::Object(object) => *object,
            Shape::Any(Any::Object(object)) => &**object,
            Shape::Absent => return Some(Any::Null),
            _ => return None,
        };
        let mut found = None;
        object.visit(&mut |info, value| {
            if info.name == name {
                found = Some(value);
            }
        });
        let shape = found?.shape();
        match key {
            None => shape.path(rest),
            Some(key) => shape.keyed(key, |item| item.path(rest))?,
        }
    }

    fn keyed<R>(&self, key: &str, then: impl FnOnce(Shape<'_>) -> R) -> Option<R> {
        let matches = |shape: Shape<'_>| match shape.path("key") {
            Some(Any::Int(own)) => own.to_string() == key,
            Some(Any::String(own)) => own == key,
            _ => match shape {
                Shape::MoRef(own) => own.value() == key,
                _ => false,
            },
        };
        match self {
            Shape::List(list) => {
                (0..list.len()).map(|at| list.item(at).shape()).find(|shape| matches(*shape)).map(then)
            }
            Shape::Any(Any::Array { items, .. }) => {
                items.iter().map(Any::inner_shape).find(|shape| matches(*shape)).map(then)
            }
            _ => None,
        }
    }
}
