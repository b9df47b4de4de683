//! Typed rows: which values come out for which paths.

use std::{collections::VecDeque, fmt};

use vsphere_vim_types::{
    Any, FromAny, LocalizedMethodFault, Managed, ManagedObjectReference, MethodFault, MoRef, ObjectContent, Poly,
    PropertyPath,
};

/// One object and the selected values.
#[derive(Clone, Debug)]
pub struct Row<T, V> {
    /// The object.
    pub object: MoRef<T>,
    /// One [`Property`] for each selected path, in the order of the selection.
    pub values: V,
}

/// A selected property as the server answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Property<V> {
    /// The value.
    Present(V),
    /// The property exists and is not set.
    Absent,
    /// The property could not be read; the fault says why. Other properties of the row are unaffected.
    Missing(Box<PropertyFault>),
}

/// Why a property is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct PropertyFault {
    /// The server's fault, `NoPermission` most of the time; `None` when the value came but was of another type.
    pub fault: Option<Poly<MethodFault>>,
    /// The reason in words.
    pub message: String,
}

impl<V> Property<V> {
    /// The value, if there is one.
    pub fn present(self) -> Option<V> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Missing(_) => None,
        }
    }

    /// The value by reference, if there is one.
    pub fn as_present(&self) -> Option<&V> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Missing(_) => None,
        }
    }

    /// The fault, if the property is missing.
    pub fn missing(&self) -> Option<&PropertyFault> {
        match self {
            Self::Missing(fault) => Some(fault),
            Self::Present(_) | Self::Absent => None,
        }
    }

    /// Value or nothing, with a missing property as an error.
    ///
    /// # Errors
    /// The fault, when the property is missing.
    pub fn optional(self) -> Result<Option<V>, Box<PropertyFault>> {
        match self {
            Self::Present(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Missing(fault) => Err(fault),
        }
    }

    /// Converts the value.
    pub fn map<U>(self, convert: impl FnOnce(V) -> U) -> Property<U> {
        match self {
            Self::Present(value) => Property::Present(convert(value)),
            Self::Absent => Property::Absent,
            Self::Missing(fault) => Property::Missing(fault),
        }
    }
}

impl From<LocalizedMethodFault> for PropertyFault {
    fn from(fault: LocalizedMethodFault) -> Self {
        Self { message: fault.localized_message.unwrap_or_default(), fault: Some(fault.fault) }
    }
}

impl fmt::Display for PropertyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.fault, self.message.trim()) {
            (Some(fault), "") => f.write_str(fault.type_name()),
            (Some(fault), message) => write!(f, "{}: {message}", fault.type_name()),
            (None, message) => f.write_str(message),
        }
    }
}

impl std::error::Error for PropertyFault {}

/// The answer for one object, from which a [`Selection`] takes its values.
#[derive(Clone, Debug)]
pub struct RawRow {
    object: ManagedObjectReference,
    values: VecDeque<(String, Any)>,
    missing: Vec<(String, PropertyFault)>,
}

impl RawRow {
    pub(crate) fn of<'a>(
        object: &ManagedObjectReference,
        values: impl Iterator<Item = (&'a String, &'a Any)>,
        missing: impl Iterator<Item = (&'a String, &'a PropertyFault)>,
    ) -> Self {
        Self {
            object: object.clone(),
            values: values.map(|(path, value)| (path.clone(), value.clone())).collect(),
            missing: missing.map(|(path, fault)| (path.clone(), fault.clone())).collect(),
        }
    }

    /// The object.
    pub fn object(&self) -> &ManagedObjectReference {
        &self.object
    }

    /// Takes the value of `path` out; the second time it is absent.
    pub fn take<V: FromAny>(&mut self, path: &str) -> Property<V> {
        // Servers answer in the order of the question or sorted; either way the search is short.
        if let Some(at) = self.values.iter().position(|(name, _)| name == path)
            && let Some((_, value)) = self.values.remove(at)
        {
            return match V::from_any(value) {
                Ok(value) => Property::Present(value),
                Err(mismatch) => {
                    Property::Missing(Box::new(PropertyFault { fault: None, message: mismatch.to_string() }))
                }
            };
        }
        // A fault may name the path itself or a part of it that leads there.
        let leads_there =
            |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        match self.missing.iter().find(|(name, _)| leads_there(name)) {
            Some((_, fault)) => Property::Missing(Box::new(fault.clone())),
            None => Property::Absent,
        }
    }
}

impl From<ObjectContent> for RawRow {
    fn from(content: ObjectContent) -> Self {
        Self {
            object: content.obj,
            values: content.prop_set.into_iter().map(|property| (property.name, property.val)).collect(),
            missing: content.missing_set.into_iter().map(|missing| (missing.path, missing.fault.into())).collect(),
        }
    }
}

/// A set of typed paths of `T`: one [`PropertyPath`], or a tuple of up to eight.
pub trait Selection<T: Managed>: Send + Sync + 'static {
    /// What a row holds: one [`Property`] for each path.
    type Values: Send;

    /// The paths to ask for.
    fn paths(&self) -> Vec<&'static str>;

    /// Takes the values out of an answer.
    fn read(&self, row: &mut RawRow) -> Self::Values;
}

impl<T: Managed, V: FromAny + Send + 'static> Selection<T> for PropertyPath<T, V> {
    type Values = Property<V>;

    fn paths(&self) -> Vec<&'static str> {
        vec![self.as_str()]
    }

    fn read(&self, row: &mut RawRow) -> Self::Values {
        row.take(self.as_str())
    }
}

/// Nothing: the objects are only listed.
impl<T: Managed> Selection<T> for () {
    type Values = ();

    fn paths(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn read(&self, _row: &mut RawRow) -> Self::Values {}
}

macro_rules! tuple_selection {
    ($($part:ident . $index:tt),+) => {
        impl<T: Managed, $($part: Selection<T>),+> Selection<T> for ($($part,)+) {
            type Values = ($($part::Values,)+);

            fn paths(&self) -> Vec<&'static str> {
                let mut paths = Vec::new();
                $(paths.extend(self.$index.paths());)+
                paths
            }

            fn read(&self, row: &mut RawRow) -> Self::Values {
                ($(self.$index.read(row),)+)
            }
        }
    };
}

tuple_selection!(A.0);
tuple_selection!(A.0, B.1);
tuple_selection!(A.0, B.1, C.2);
tuple_selection!(A.0, B.1, C.2, D.3);
tuple_selection!(A.0, B.1, C.2, D.3, E.4);
tuple_selection!(A.0, B.1, C.2, D.3, E.4, F.5);
tuple_selection!(A.0, B.1, C.2, D.3, E.4, F.5, G.6);
tuple_selection!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7);

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{DynamicProperty, MissingProperty, mo};

    use super::*;

    const NAME: PropertyPath<mo::VirtualMachine, String> = PropertyPath::new("name");
    const UUID: PropertyPath<mo::VirtualMachine, String> = PropertyPath::new("config.uuid");
    const MEMORY: PropertyPath<mo::VirtualMachine, i32> = PropertyPath::new("summary.config.memorySizeMB");

    fn row() -> RawRow {
        let property = |name: &str, val: Any| DynamicProperty { name: name.into(), val, ..Default::default() };
        ObjectContent {
            obj: ManagedObjectReference::of("VirtualMachine", "vm-1"),
            prop_set: vec![property("summary.config.memorySizeMB", "many".into()), property("name", "web".into())],
            missing_set: vec![MissingProperty { path: "config".into(), ..Default::default() }],
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn a_missing_property_leaves_the_rest_of_its_row_alone() {
        let (name, uuid, memory) = (NAME, UUID, MEMORY).read(&mut row());
        assert_eq!(name, Property::Present("web".to_owned()));
        assert!(uuid.missing().is_some(), "the fault of `config` holds for what is below it");
        assert!(memory.missing().unwrap().fault.is_none(), "another type is a missing value, not a failed call");
    }

    #[test]
    fn a_property_of_which_nothing_is_said_is_absent() {
        let path: PropertyPath<mo::VirtualMachine, String> = PropertyPath::new("configStatus");
        assert_eq!(path.read(&mut row()), Property::Absent);
    }

    #[test]
    fn paths_come_in_the_order_of_the_selection() {
        assert_eq!(
            Selection::<mo::VirtualMachine>::paths(&(NAME, (UUID, MEMORY))),
            ["name", "config.uuid", "summary.config.memorySizeMB"]
        );
    }
}
