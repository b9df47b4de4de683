//! Amazon S3 and what speaks its protocol.

use object_store::aws::{AmazonS3Builder, Checksum};
use vsphere_vim::Secret;

use super::{HttpOptions, finish};
use crate::{error::Result, repository::storage::ObjectStorage};

/// Options of a repository in Amazon S3 or a store that speaks its protocol.
///
/// The store has to honour `If-None-Match: *` when it is written to: that is what keeps two
/// writers from owning one name. Amazon, MinIO, Ceph and Cloudflare R2 say so of recent versions;
/// let [`conformance`](crate::repository::storage::conformance) tell of any other.
///
/// ```no_run
/// use vsphere_backup::repository::storage::{ObjectStorage, cloud::S3Credentials};
/// use vsphere_vim::Secret;
///
/// # fn example(secret: Secret) -> vsphere_backup::Result<()> {
/// let storage = ObjectStorage::s3("backups")
///     .region("eu-central-1")
///     .credentials(S3Credentials::keys("AKIA...", secret))
///     .prefix("site-a")
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct S3Builder {
    bucket: String,
    region: String,
    endpoint: Option<String>,
    credentials: S3Credentials,
    prefix: String,
    bucket_in_host: bool,
    checksums: bool,
    http: HttpOptions,
}

/// Who speaks to the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum S3Credentials {
    /// Nobody in particular: requests are not signed.
    Anonymous,
    /// The computer itself, by the metadata service of its cloud.
    Instance,
    /// A pair of keys, and a token when they are for a session.
    Keys {
        /// The public one.
        id: String,
        /// The secret one.
        secret: Secret,
        /// The session's.
        token: Option<Secret>,
    },
}

impl S3Credentials {
    /// A pair of keys that lasts.
    pub fn keys(id: impl Into<String>, secret: Secret) -> Self {
        Self::Keys { id: id.into(), secret, token: None }
    }
}

impl ObjectStorage {
    /// Begins the options of a bucket of Amazon S3 or of what speaks its protocol.
    pub fn s3(bucket: impl Into<String>) -> S3Builder {
        S3Builder {
            bucket: bucket.into(),
            region: "us-east-1".into(),
            endpoint: None,
            credentials: S3Credentials::Anonymous,
            prefix: String::new(),
            bucket_in_host: false,
            checksums: false,
            http: HttpOptions::default(),
        }
    }
}

impl S3Builder {
    /// Sets the region: `us-east-1` by default, which most other stores take.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// Sets the address of another store than Amazon's, such as `https://minio.example:9000`.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets who speaks: nobody by default.
    pub fn credentials(mut self, credentials: S3Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Keeps all objects below a prefix, so that several repositories share a bucket.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Puts the bucket into the host's name, as some stores want: with [`endpoint`](Self::endpoint), that is to be its
    /// whole address then.
    pub fn bucket_in_host(mut self, yes: bool) -> Self {
        self.bucket_in_host = yes;
        self
    }

    /// Sends a SHA-256 with every object, which buckets with object lock ask for.
    pub fn checksums(mut self, yes: bool) -> Self {
        self.checksums = yes;
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
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_virtual_hosted_style_request(self.bucket_in_host)
            // One object by one request: where many are deleted by one, a refusal comes as a success with a list of
            // errors, which has no kind by which it could be told; and some stores do not know it.
            .with_disable_bulk_delete(true)
            .with_client_options(self.http.client_options())
            .with_allow_http(self.http.allows_plain())
            .with_retry(self.http.retry())
            .with_http_connector(self.http.connector()?);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if self.checksums {
            builder = builder.with_checksum_algorithm(Checksum::SHA256);
        }
        let mut secrets = Vec::new();
        match self.credentials {
            S3Credentials::Anonymous => builder = builder.with_skip_signature(true),
            S3Credentials::Instance => {}
            S3Credentials::Keys { id, secret, token } => {
                builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
                secrets.push(secret);
                if let Some(token) = token {
                    builder = builder.with_token(token.expose());
                    secrets.push(token);
                }
            }
        }
        let place = match &self.endpoint {
            // An address with a password in it is not shown.
            Some(endpoint) if !endpoint.contains('@') => format!(" at {endpoint}"),
            _ => String::new(),
        };
        let location = format!("s3://{}/{}{place}", self.bucket, self.prefix);
        finish(builder.build(), location, &self.prefix, secrets)
    }
}
