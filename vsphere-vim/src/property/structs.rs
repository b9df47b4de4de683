//! Rows as structs of the caller's own.

use std::{fmt, marker::PhantomData};

use vsphere_vim_types::{FromAny, Managed, ManagedObjectReference, MoRef, PropertyPath};

use super::{
    collect::{Properties, Query},
    select::{Property, PropertyFault, RawRow, Selection},
    single::{property_error, required},
};
use crate::{client::Vim, error::Result};

/// A struct whose fields are properties; written down with [`property_struct!`](crate::property_struct).
pub trait PropertyStruct: Sized + Send + 'static {
    /// The type of the objects.
    type Of: Managed;

    /// The paths of the fields, in their order.
    fn paths() -> Vec<&'static str>;

    /// Takes the fields out of an answer.
    ///
    /// # Errors
    /// [`Error::Property`](crate::Error::Property) when a field that needs a value gets none.
    fn read(row: &mut RawRow) -> Result<Self>;
}

/// What a field of a [`PropertyStruct`] makes of a property with values of type `V`.
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` cannot hold a property of type `{V}`",
    note = "it is a `{V}` that has to be there, an `Option<{V}>` or a `Property<{V}>`"
)]
pub trait FromProperty<V>: Sized {
    /// Makes it.
    ///
    /// # Errors
    /// The fault, or that there is no value, where the field needs one.
    fn from_property(object: &ManagedObjectReference, path: &str, property: Property<V>) -> Result<Self>;
}

/// The value has to be there.
impl<V> FromProperty<V> for V {
    fn from_property(object: &ManagedObjectReference, path: &str, property: Property<V>) -> Result<Self> {
        required(object, path, property)
    }
}

/// The value may be unset; that it cannot be read is an error.
impl<V> FromProperty<V> for Option<V> {
    fn from_property(object: &ManagedObjectReference, path: &str, property: Property<V>) -> Result<Self> {
        property.optional().map_err(|fault: Box<PropertyFault>| property_error(object, path, *fault))
    }
}

/// As the server answered; never an error.
impl<V> FromProperty<V> for Property<V> {
    fn from_property(_object: &ManagedObjectReference, _path: &str, property: Property<V>) -> Result<Self> {
        Ok(property)
    }
}

/// The selection of all fields of `R`; made by [`Properties::select_as`].
pub struct As<R>(PhantomData<fn() -> R>);

impl<R: PropertyStruct> Selection<R::Of> for As<R> {
    type Values = Result<R>;

    fn paths(&self) -> Vec<&'static str> {
        R::paths()
    }

    fn read(&self, row: &mut RawRow) -> Result<R> {
        R::read(row)
    }
}

impl<R: PropertyStruct> fmt::Debug for As<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(R::paths()).finish()
    }
}

impl<T: Managed> Properties<T> {
    /// Which properties: those of a struct. Each row's `values` is the struct, or the reason why it is not whole.
    pub fn select_as<R: PropertyStruct<Of = T>>(self) -> Query<T, As<R>> {
        self.select(As(PhantomData))
    }
}

impl Vim {
    /// Reads the properties of a struct of one object in one call.
    ///
    /// # Errors
    /// [`Error::Property`](crate::Error::Property) when a field that needs a value gets none,
    /// [`Error::Fault`](crate::Error::Fault) with `ManagedObjectNotFound` when the object is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_as<R: PropertyStruct>(&self, object: &MoRef<R::Of>) -> Result<R> {
        self.read(object, As(PhantomData)).await?
    }
}

/// One field. Called by [`property_struct!`](crate::property_struct).
#[doc(hidden)]
pub fn read_field<T, V: FromAny, F: FromProperty<V>>(row: &mut RawRow, path: PropertyPath<T, V>) -> Result<F> {
    let property = row.take(path.as_str());
    F::from_property(row.object(), path.as_str(), property)
}

/// Writes down a struct whose fields are properties of a managed object.
///
/// ```
/// use vsphere_vim::{PropertyPath, mo::VirtualMachine, property::Property, property_struct};
/// use vsphere_vim::types::VirtualMachineRuntimeInfo;
///
/// property_struct! {
///     /// What a plan looks at.
///     #[derive(Clone, Debug)]
///     pub struct Planned of VirtualMachine {
///         /// Has to be there; without it the row is an error.
///         pub name: String = VirtualMachine::NAME,
///         /// May be unset.
///         pub instance_uuid: Option<String> = PropertyPath::<_, String>::new("config.instanceUuid"),
///         /// As it came, a fault included.
///         pub runtime: Property<VirtualMachineRuntimeInfo> = VirtualMachine::RUNTIME,
///         /// Nested and keyed.
///         pub first_disk: Option<i64> = PropertyPath::<_, i64>::new("config.hardware.device[2000].capacityInKB"),
///     }
/// }
///
/// # async fn example(vim: vsphere_vim::Vim) -> vsphere_vim::Result<()> {
/// for row in vim.properties().select_as::<Planned>().collect().await? {
///     let planned = row.values?;
///     println!("{} {:?}", planned.name, planned.runtime.present().map(|runtime| runtime.power_state));
/// }
/// # Ok(())
/// # }
/// ```
///
/// A field that does not fit its property does not compile:
///
/// ```compile_fail,E0277
/// use vsphere_vim::{mo::VirtualMachine, property_struct};
/// property_struct! {
///     struct Wrong of VirtualMachine { name: i32 = VirtualMachine::NAME }
/// }
/// ```
///
/// ```
/// use vsphere_vim::{mo::VirtualMachine, property_struct};
/// property_struct! {
///     struct Right of VirtualMachine { name: String = VirtualMachine::NAME }
/// }
/// ```
///
/// Nor does a property of another type of object:
///
/// ```compile_fail,E0308
/// use vsphere_vim::{mo::{HostSystem, VirtualMachine}, property_struct};
/// property_struct! {
///     struct Wrong of VirtualMachine { name: String = HostSystem::NAME }
/// }
/// ```
///
/// ```
/// use vsphere_vim::{mo::{HostSystem, VirtualMachine}, property_struct};
/// property_struct! {
///     struct Right of HostSystem { name: String = HostSystem::NAME }
/// }
/// ```
#[macro_export]
macro_rules! property_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident of $of:ty {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty = $path:expr),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)+
        }

        impl $crate::property::PropertyStruct for $name {
            type Of = $of;

            fn paths() -> ::std::vec::Vec<&'static str> {
                fn path<V>(path: $crate::PropertyPath<$of, V>) -> &'static str {
                    path.as_str()
                }
                ::std::vec![$(path($path)),+]
            }

            fn read(row: &mut $crate::property::RawRow) -> $crate::Result<Self> {
                ::std::result::Result::Ok(Self {
                    $($field: $crate::property::read_field::<$of, _, $type>(row, $path)?,)+
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{Any, DynamicProperty, MissingProperty, ObjectContent, mo};

    use super::*;

    property_struct! {
        #[derive(Debug)]
        struct Planned of mo::VirtualMachine {
            name: String = mo::VirtualMachine::NAME,
            uuid: Option<String> = PropertyPath::<_, String>::new("config.uuid"),
            capacity: Property<i64> = PropertyPath::<_, i64>::new("config.hardware.device[2000].capacityInKB"),
        }
    }

    fn row(values: &[(&str, Any)], missing: &[&str]) -> Result<Planned> {
        let property = |(name, val): &(&str, Any)| DynamicProperty {
            name: (*name).into(),
            val: val.clone(),
            ..Default::default()
        };
        let missing_set = |path: &&str| MissingProperty { path: (*path).into(), ..Default::default() };
        let content = ObjectContent {
            obj: MoRef::<mo::VirtualMachine>::new("vm-1").erase(),
            prop_set: values.iter().map(property).collect(),
            missing_set: missing.iter().map(missing_set).collect(),
            ..Default::default()
        };
        Planned::read(&mut content.into())
    }

    #[test]
    fn fields_take_their_properties_by_nested_and_keyed_paths() {
        let capacity = ("config.hardware.device[2000].capacityInKB", Any::Long(7));
        let planned = row(&[("name", "web".into()), capacity], &[]).unwrap();
        assert_eq!((planned.name.as_str(), planned.uuid), ("web", None));
        assert_eq!(planned.capacity, Property::Present(7));
        assert_eq!(Planned::paths(), ["name", "config.uuid", "config.hardware.device[2000].capacityInKB"]);
    }

    #[test]
    fn a_field_that_needs_a_value_says_which_and_why() {
        let unset = row(&[], &[]).unwrap_err().to_string();
        assert!(unset.contains("name of VirtualMachine:vm-1") && unset.contains("not set"), "{unset}");
        let forbidden = row(&[("name", "web".into())], &["config"]).unwrap_err().to_string();
        assert!(forbidden.contains("config.uuid"), "{forbidden}");
    }
}
