//! Azure Blob Storage.

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use vsphere_vim::Secret;

use super::{HttpOptions, finish};
use crate::{error::Result, repository::storage::ObjectStorage};

/// Options of a repository in Azure Blob Storage.
#[derive(Clone, Debug)]
#[must_use]
pub struct AzureBuilder {
    account: String,
    container: String,
    endpoint: Option<String>,
    credentials: AzureCredentials,
    prefix: String,
    http: HttpOptions,
}

/// Who speaks to the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AzureCredentials {
    /// Nobody in particular: requests are not signed.
    Anonymous,
    /// The account's key.
    Key(Secret),
    /// A shared access signature, as a query: `sv=...&sig=...`.
    SharedAccess(Secret),
    /// A registered application.
    Application {
        /// The tenant.
        tenant: String,
        /// The application.
        client: String,
        /// Its secret.
        secret: Secret,
    },
}

impl ObjectStorage {
    /// Begins the options of a container of Azure Blob Storage.
    pub fn azure(account: impl Into<String>, container: impl Into<String>) -> AzureBuilder {
        AzureBuilder {
            account: account.into(),
            container: container.into(),
            endpoint: None,
            credentials: AzureCredentials::Anonymous,
            prefix: String::new(),
            http: HttpOptions::default(),
        }
    }
}

impl AzureBuilder {
    /// Sets another address than Azure's, such as that of an emulator or a sovereign cloud.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets who speaks: nobody by default.
    pub fn credentials(mut self, credentials: AzureCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Keeps all objects below a prefix, so that several repositories share a container.
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
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(&self.account)
            .with_container_name(&self.container)
            .with_client_options(self.http.client_options())
            .with_allow_http(self.http.allows_plain())
            .with_retry(self.http.retry())
            .with_http_connector(self.http.connector()?);
        if let Some(endpoint) = self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let mut secrets = Vec::new();
        builder = match self.credentials {
            AzureCredentials::Anonymous => builder.with_skip_signature(true),
            AzureCredentials::Key(key) => {
                let builder = builder.with_access_key(key.expose());
                secrets.push(key);
                builder
            }
            AzureCredentials::SharedAccess(query) => {
                let builder = builder.with_config(AzureConfigKey::SasKey, query.expose());
                // Each value by itself: what is sent has them in another order.
                let values = query.expose().trim_start_matches('?').split('&').filter_map(|pair| pair.split_once('='));
                secrets.extend(values.filter(|(name, _)| *name == "sig").map(|(_, value)| Secret::new(value)));
                secrets.push(query);
                builder
            }
            AzureCredentials::Application { tenant, client, secret } => {
                let builder = builder.with_client_secret_authorization(client, secret.expose(), tenant);
                secrets.push(secret);
                builder
            }
        };
        let location = format!("azure://{}/{}/{}", self.account, self.container, self.prefix);
        finish(builder.build(), location, &self.prefix, secrets)
    }
}
