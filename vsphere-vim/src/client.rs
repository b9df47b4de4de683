//! The connection: cheap to clone, one session for all clones and tasks.

mod invoke;
mod login;
mod negotiate;
mod service;
mod sessions;

use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use ring::rand::{SecureRandom as _, SystemRandom};
use vsphere_vim_types::{MoRef, ServiceContent, internal::NfcService, methods, mo};

pub(crate) use self::service::Service;
pub use self::sessions::SessionInfo;
use self::{login::keep_alive, negotiate::negotiate};
use crate::{
    builder::{Settings, VimBuilder},
    call::{CallOptions, SessionUse},
    credentials::{Credentials, Kind},
    endpoint::Endpoint,
    error::{Error, Result},
    secret::Secret,
    session::{Renewal, Session},
    transport::Transport,
    version::WireVersion,
};

/// A logged-in connection to a vCenter Server or ESXi host.
///
/// Clones share one session; use one `Vim` from as many tasks as there are. When the session dies, one task logs in
/// again and the others go on. Call [`Vim::logout`] at the end: dropping the last clone can only log that the session
/// was left open.
#[derive(Clone)]
pub struct Vim {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    routes: Routes,
    credentials: Credentials,
    settings: Settings,
    version: WireVersion,
    /// Where calls go unless they name another service of this server.
    service: Service,
    content: ServiceContent,
    session: Session,
    operation_prefix: String,
    operations: AtomicU64,
    nfc_service: OnceLock<MoRef<NfcService>>,
}

/// The ways to the server.
pub(crate) struct Routes {
    pub(crate) transport: Arc<dyn Transport>,
    /// For logins, where they have to go another way.
    pub(crate) login: Option<Arc<dyn Transport>>,
}

impl Vim {
    /// Begins to describe a connection: `https://vc.example/sdk`, or just the host's name.
    pub fn builder(url: impl Into<String>) -> VimBuilder {
        VimBuilder::new(url)
    }

    pub(crate) async fn connect(
        endpoint: Endpoint,
        credentials: Credentials,
        routes: Routes,
        settings: Settings,
    ) -> Result<Self> {
        let version = match &settings.version {
            Some(version) => version.clone(),
            None => negotiate(&*routes.transport, &endpoint, &settings).await?,
        };
        let mut inner = Inner {
            service: Service::main(endpoint.path(), &version),
            version,
            endpoint,
            routes,
            session: Session::new(Renewal::of(credentials.kind())),
            credentials,
            settings,
            content: ServiceContent::default(),
            operation_prefix: operation_prefix(),
            operations: AtomicU64::new(1),
            nfc_service: OnceLock::new(),
        };
        // The service content is readable before login and names the session manager.
        let first = Self { inner: Arc::new(inner) };
        let content =
            first.invoke_with(&service_instance(), methods::RetrieveServiceContent::default(), bare()).await?;
        inner = Arc::into_inner(first.inner).expect("nobody else has seen this client yet");
        inner.content = content;
        let vim = Self { inner: Arc::new(inner) };
        if let Kind::Cookie(cookie) = vim.inner.credentials.kind() {
            vim.inner.session.adopt(cookie.clone());
            vim.touch().await?;
        } else {
            let _flight = vim.inner.session.flight().await;
            vim.log_in(bare()).await?;
        }
        let Settings { keep_alive: interval, renew_after, .. } = vim.inner.settings;
        if interval.is_some() || renew_after.is_some() {
            tokio::spawn(keep_alive(Arc::downgrade(&vim.inner), interval, renew_after));
        }
        tracing::info!(server = %vim.inner.endpoint, version = %vim.inner.version, product = %vim.inner.content.about.full_name, "connected");
        Ok(vim)
    }

    /// What the server offers: its managers, its root folder and what it is.
    #[doc(alias = "ServiceContent")]
    pub fn content(&self) -> &ServiceContent {
        &self.inner.content
    }

    /// The root of the inventory.
    #[doc(alias = "rootFolder")]
    pub fn root(&self) -> MoRef<mo::Folder> {
        self.inner.content.root_folder.clone()
    }

    /// The version of the API that is spoken.
    pub fn version(&self) -> &WireVersion {
        &self.inner.version
    }

    /// The server's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// True for a vCenter Server, false for an ESXi host.
    #[doc(alias = "apiType")]
    pub fn is_vcenter(&self) -> bool {
        self.inner.content.about.api_type == "VirtualCenter"
    }

    /// The id of this vCenter Server; together with a reference's value it names an object for good.
    /// ESXi hosts have none before 5.5.
    #[doc(alias = "instanceUuid")]
    pub fn server_uuid(&self) -> Option<&str> {
        self.inner.content.about.instance_uuid.as_deref()
    }

    /// The session cookie's value as the server issued it, for interfaces that share the session
    /// (`/folder`, VSLM, VixDiskLib). It changes with every new login.
    #[doc(alias = "vmware_soap_session")]
    pub fn session_cookie(&self) -> Option<Secret> {
        self.inner.session.cookie()
    }

    pub(crate) fn session_manager(&self) -> Result<MoRef<mo::SessionManager>> {
        self.manager("SessionManager", self.inner.content.session_manager.as_ref())
    }

    /// A manager that some servers lack.
    pub(crate) fn manager<T: Clone>(&self, name: &str, manager: Option<&T>) -> Result<T> {
        manager.cloned().ok_or_else(|| {
            let product = if self.is_vcenter() { "this vCenter Server" } else { "an ESXi host" };
            Error::unsupported(name, format!("{product} does not offer it"))
        })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.inner.session
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Where the name of the disk service is kept once it is found.
    pub(crate) fn nfc_service_cell(&self) -> &OnceLock<MoRef<NfcService>> {
        &self.inner.nfc_service
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.inner.routes.transport
    }
}

impl fmt::Debug for Vim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vim")
            .field("endpoint", &self.inner.endpoint)
            .field("version", &self.inner.version)
            .field("credentials", &self.inner.credentials)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.session.is_open() && self.session.renewal() != Renewal::Never {
            tracing::warn!(server = %self.endpoint, "dropped without logout; the session stays until the server ends it");
        }
    }
}

fn bare() -> CallOptions {
    CallOptions::default().session(SessionUse::Bare)
}

/// The one object with a fixed name, on vCenter and ESXi alike.
pub(crate) fn service_instance() -> MoRef<mo::ServiceInstance> {
    MoRef::new("ServiceInstance")
}

fn operation_prefix() -> String {
    let mut bytes = [0_u8; 4];
    // Uniqueness only helps to read logs; a constant would do.
    let _ = SystemRandom::new().fill(&mut bytes);
    format!("{:08x}", u32::from_be_bytes(bytes))
}
