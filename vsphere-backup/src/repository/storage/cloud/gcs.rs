//! Google Cloud Storage.

use object_store::gcp::GoogleCloudStorageBuilder;
use vsphere_vim::Secret;

use super::{HttpOptions, finish};
use crate::{error::Result, repository::storage::ObjectStorage};

/// Options of a repository in Google Cloud Storage.
#[derive(Clone, Debug)]
#[must_use]
pub struct GcsBuilder {
    bucket: String,
    endpoint: Option<String>,
    credentials: GcsCredentials,
    prefix: String,
    http: HttpOptions,
}

/// Who speaks to the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GcsCredentials {
    /// Nobody in particular: requests are not signed.
    Anonymous,
    /// A service account: the JSON text of its key.
    ServiceAccount(Secret),
    /// A token got elsewhere, which is not renewed.
    Token(Secret),
}

impl ObjectStorage {
    /// Begins the options of a bucket of Google Cloud Storage.
    pub fn gcs(bucket: impl Into<String>) -> GcsBuilder {
        GcsBuilder {
            bucket: bucket.into(),
            endpoint: None,
            credentials: GcsCredentials::Anonymous,
            prefix: String::new(),
            http: HttpOptions::default(),
        }
    }
}

impl GcsBuilder {
    /// Sets another address than Google's, such as that of an emulator.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets who speaks: nobody by default.
    pub fn credentials(mut self, credentials: GcsCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Keeps all objects below a prefix, so that several repositories share a bucket.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how the store is spoken to.
    pub fn http(mut self, options: HttpOptions) -> Self {
        self.http = options;
        self
    }

    /// Makes the storage. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid), [`Error::Storage`](crate::Error::Storage) for options that cannot be
    /// used.
    pub fn build(self) -> Result<ObjectStorage> {
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&self.bucket)
            .with_client_options(self.http.client_options())
            .with_retry(self.http.retry())
            .with_http_connector(self.http.connector()?);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        let mut secrets = Vec::new();
        builder = match self.credentials {
            GcsCredentials::Anonymous => builder.with_skip_signature(true),
            GcsCredentials::ServiceAccount(key) => {
                let builder = builder.with_service_account_key(key.expose());
                secrets.push(key);
                builder
            }
            GcsCredentials::Token(token) => {
                let builder = builder.with_bearer_token(token.expose());
                secrets.push(token);
                builder
            }
        };
        let location = format!("gs://{}/{}", self.bucket, self.prefix);
        finish(builder.build(), location, &self.prefix, secrets)
    }
}
