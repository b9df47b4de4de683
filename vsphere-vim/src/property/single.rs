//! One object: read a property or a few.

use std::fmt;

use vsphere_vim_types::{FromAny, Managed, MoRef, PropertyPath};

use super::select::{Property, PropertyFault, Selection};
use crate::{
    client::Vim,
    error::{Error, PropertyError, Result},
};

impl Vim {
    /// Reads a property that has to have a value.
    ///
    /// # Errors
    /// [`Error::Property`] when it is not set or may not be read, [`Error::Fault`] with `ManagedObjectNotFound` when
    /// the object is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get<T, V>(&self, object: &MoRef<T>, path: PropertyPath<T, V>) -> Result<V>
    where
        T: Managed,
        V: FromAny + Send + 'static,
    {
        self.get_optional(object, path).await?.ok_or_else(|| {
            Error::Property(Box::new(PropertyError {
                object: object.to_string().into(),
                path: path.as_str().into(),
                fault: None,
                message: "it is not set".into(),
            }))
        })
    }

    /// Reads a property that may be unset.
    ///
    /// # Errors
    /// As [`Vim::get`], except that an unset property is `None`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get_optional<T, V>(&self, object: &MoRef<T>, path: PropertyPath<T, V>) -> Result<Option<V>>
    where
        T: Managed,
        V: FromAny + Send + 'static,
    {
        let (value,) = self.read(object, (path,)).await?;
        value.optional().map_err(|fault| property_error(object, path.as_str(), *fault))
    }

    /// Reads several properties of one object in one call.
    ///
    /// # Errors
    /// [`Error::Fault`] with `ManagedObjectNotFound` when the object is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read<T: Managed, S: Selection<T>>(&self, object: &MoRef<T>, selection: S) -> Result<S::Values> {
        let query = self.properties::<T>().of([object]).select(selection).page_size(None);
        match query.stream().try_next().await? {
            Some(row) => Ok(row.values),
            None => Err(Error::not_found(object.to_string())),
        }
    }
}

/// The value of a property read among others, when it has to be there.
pub(crate) fn required<V>(object: &impl fmt::Display, path: &str, property: Property<V>) -> Result<V> {
    let message = match property {
        Property::Present(value) => return Ok(value),
        Property::Missing(fault) => return Err(property_error(object, path, *fault)),
        Property::Absent => "it is not set",
    };
    let fault = PropertyFault { fault: None, message: message.to_owned() };
    Err(property_error(object, path, fault))
}

pub(crate) fn property_error(object: &impl fmt::Display, path: &str, fault: PropertyFault) -> Error {
    Error::Property(Box::new(PropertyError {
        object: object.to_string().into(),
        path: path.into(),
        message: fault.to_string().into(),
        fault: fault.fault,
    }))
}
