//! Object stores in the cloud, each by its feature: options of our own, and the one place that
//! knows the builders of `object_store`.
//!
//! Nothing is read from the environment or from files of a vendor's tools: what is not said here
//! is not known. Traffic is TLS unless [`HttpOptions::plain`] allows otherwise; the address of the
//! store is part of messages, credentials never are.
//!
//! The parts of an upload that was cut off stay in the store, unseen, and cost: give the bucket a
//! rule that removes incomplete uploads after some days.

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod gcs;
mod http;
#[cfg(feature = "s3")]
mod s3;

#[cfg(feature = "azure")]
pub use self::azure::{AzureBuilder, AzureCredentials};
#[cfg(feature = "gcs")]
pub use self::gcs::{GcsBuilder, GcsCredentials};
pub use self::http::HttpOptions;
#[cfg(feature = "s3")]
pub use self::s3::{S3Builder, S3Credentials};

use std::sync::Arc;

use object_store::ObjectStore;
use vsphere_vim::Secret;

use super::{
    StorageError, StorageErrorKind,
    object::{Ability, ObjectStorage},
};
use crate::error::{Error, Result};

/// Makes our storage of a store that was built, or tells why it could not be.
fn finish<S: ObjectStore>(
    built: object_store::Result<S>,
    location: String,
    prefix: &str,
    secrets: Vec<Secret>,
) -> Result<ObjectStorage> {
    match built {
        Ok(store) => ObjectStorage::new(Arc::new(store), location, Ability::CLOUD).hiding(secrets).below(prefix),
        Err(error) => {
            // Without the cause: it may quote what it could not read, such as a key.
            drop(error);
            let refused = StorageError::new(StorageErrorKind::Other, "open", location);
            Err(Error::Storage(refused.because("the store's options or credentials are not valid")))
        }
    }
}
