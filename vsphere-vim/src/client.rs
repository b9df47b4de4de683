//! The connection: cheap to clone, one session for all clones and tasks.

use std::{
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use vsphere_vim_types::{
    Any, Element, ManagedObjectReference, Method, MoRef, ServiceContent, internal::NfcService, methods, mo, soap,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    builder::{Settings, VimBuilder},
    call::{CallOptions, Outgoing, SessionUse},
    endpoint::Endpoint,
    error::{Call, Error, Result},
    property::{self, FilterSpec, ObjectSpec, PropertySpec},
    secret::{Credentials, Secret},
    session::{Heal, Session},
    transport::{BoxFuture, Request, Transport, Verb},
    version::{ServiceVersions, VIM_NAMESPACE, WireVersion},
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
    transport: Arc<dyn Transport>,
    credentials: Credentials,
    settings: Settings,
    version: WireVersion,
    soap_action: String,
    content: ServiceContent,
    session: Session,
    operation_prefix: String,
    operations: AtomicU64,
    nfc_service: OnceLock<MoRef<NfcService>>,
}

impl Vim {
    /// Begins to describe a connection: `https://vc.example/sdk`, or just the host's name.
    pub fn builder(url: impl Into<String>) -> VimBuilder {
        VimBuilder::new(url)
    }

    pub(crate) async fn connect(
        endpoint: Endpoint,
        credentials: Credentials,
        transport: Arc<dyn Transport>,
        settings: Settings,
    ) -> Result<Self> {
        let version = match &settings.version {
            Some(version) => version.clone(),
            None => negotiate(&*transport, &endpoint, &settings).await?,
        };
        let mut inner = Inner {
            soap_action: version.soap_action(),
            version,
            endpoint,
            transport,
            credentials,
            settings,
            content: ServiceContent::default(),
            session: Session::new(),
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
        {
            let _flight = vim.inner.session.flight().await;
            vim.log_in(bare()).await?;
        }
        if let Some(interval) = vim.inner.settings.keep_alive {
            tokio::spawn(keep_alive(Arc::downgrade(&vim.inner), interval));
        }
        tracing::info!(server = %vim.inner.endpoint, version = %vim.inner.version, product = %vim.inner.content.about.full_name, "connected");
        Ok(vim)
    }

    /// Calls a method of a managed object.
    ///
    /// Methods whose names end in `_Task` return a reference to the task; follow it with [`Vim::wait`].
    ///
    /// # Errors
    /// [`Error::Fault`] when the server refuses, [`Error::Transport`] when the network fails (after the retries that
    /// are harmless for this method), [`Error::Protocol`] when the answer is not understood.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have had its effect on the server.
    pub async fn invoke<M: Method>(&self, this: &MoRef<M::Target>, args: M) -> Result<M::Output> {
        self.invoke_with(this, args, CallOptions::default()).await
    }

    /// The same with a time-out or a statement about repeating of its own.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// As [`Vim::invoke`].
    pub async fn invoke_with<M: Method>(
        &self,
        this: &MoRef<M::Target>,
        args: M,
        options: CallOptions,
    ) -> Result<M::Output> {
        let operation_id = self.next_operation_id();
        let body = soap::encode_request(this.as_untyped(), &args, self.request_options(&operation_id));
        drop(args);
        self.invoke_encoded::<M>(this.as_untyped(), body.into(), &operation_id, options).await
    }

    async fn invoke_encoded<M: Method>(
        &self,
        this: &ManagedObjectReference,
        body: Bytes,
        operation_id: &str,
        options: CallOptions,
    ) -> Result<M::Output> {
        let limits = self.limits();
        let mut output = None;
        let mut decode = |answer: &[u8]| -> Result<(), soap::Error> {
            output = Some(soap::decode_response::<M>(answer, limits)?);
            Ok(())
        };
        let outgoing = Outgoing {
            operation: M::NAME,
            object: this,
            operation_id,
            // Also for the few methods of other namespaces: the service and its version are the same.
            soap_action: self.inner.soap_action.clone(),
            body,
            options,
        };
        self.perform(outgoing, &mut decode).await?;
        output.ok_or_else(|| Error::protocol(Call::on(M::NAME, this), "the answer was lost"))
    }

    /// Calls any method by name, with or without a typed wrapper.
    ///
    /// `args` are the parameters in the order of the API's documentation. The answer's `returnval` elements come back
    /// as trees: none when the method returns nothing, several when it returns a list.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// As [`Vim::invoke`].
    pub async fn invoke_dynamic(
        &self,
        this: &ManagedObjectReference,
        method: &str,
        args: &[(&str, Any)],
        options: CallOptions,
    ) -> Result<Vec<Element>> {
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if method.is_empty() || !method.bytes().all(plausible) {
            return Err(Error::invalid_input("method", "not the wire name of a method"));
        }
        let operation_id = self.next_operation_id();
        let body = soap::encode_dynamic(VIM_NAMESPACE, method, this, args, self.request_options(&operation_id));
        let limits = self.limits();
        let mut output = Vec::new();
        let mut decode = |answer: &[u8]| -> Result<(), soap::Error> {
            output = soap::decode_dynamic(answer, limits)?;
            Ok(())
        };
        let outgoing = Outgoing {
            operation: method,
            object: this,
            operation_id: &operation_id,
            soap_action: self.inner.soap_action.clone(),
            body: body.into(),
            options,
        };
        self.perform(outgoing, &mut decode).await?;
        Ok(output)
    }

    /// Ends the session on the server. Calls made later fail with `NotAuthenticated`.
    ///
    /// # Errors
    /// [`Error::Transport`] when the server could not be told; the session then ends by itself.
    ///
    /// # Cancel safety
    /// A dropped future may leave the session on the server; here it is closed in any case.
    #[doc(alias = "Logout")]
    pub async fn logout(&self) -> Result<()> {
        if !self.inner.session.close() {
            return Ok(());
        }
        let options = CallOptions::default().session(SessionUse::Report);
        let outcome = self.invoke_with(&self.session_manager()?, methods::Logout::default(), options).await;
        self.inner.session.forget_cookie();
        match outcome {
            Err(error) if error.is_fault("NotAuthenticated") => Ok(()),
            other => other.map(drop),
        }
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

    /// Asks whether the session is alive, and logs in again if it is not.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn touch(&self) -> Result<()> {
        let generation = self.inner.session.generation();
        if !self.session_is_alive().await? {
            self.log_in_again(generation).await?;
        }
        Ok(())
    }

    /// True when the server still knows the session. An expired session may be told by a fault (healed on the way)
    /// or, by the property collector, as empty data.
    pub(crate) async fn session_is_alive(&self) -> Result<bool> {
        let filter = FilterSpec::new()
            .read(PropertySpec::of::<mo::SessionManager>().path(mo::SessionManager::CURRENT_SESSION))
            .start(ObjectSpec::from(self.session_manager()?));
        let answer = property::pages::retrieve(self, &filter, CallOptions::default()).await?;
        Ok(answer.iter().any(|content| !content.prop_set.is_empty()))
    }

    /// After an error that may have come from the session's end: logs in again if the session is dead.
    /// False when it was closed on purpose.
    pub(crate) async fn log_in_again_if_dead(&self, seen: u64, error: &Error) -> Result<bool> {
        if error.is_fault("NotAuthenticated") {
            self.log_in_again(seen).await
        } else {
            Ok(self.inner.session.is_open())
        }
    }

    /// Logs in after the session of login `seen` was found dead. False when the session was closed on purpose.
    pub(crate) async fn log_in_again(&self, seen: u64) -> Result<bool> {
        let session = &self.inner.session;
        let _flight = session.flight().await;
        match session.heal(seen)? {
            Heal::Closed => Ok(false),
            Heal::AlreadyHealed => Ok(true),
            Heal::LogIn => {
                tracing::info!(server = %self.inner.endpoint, "the session ended; logging in again");
                self.log_in(CallOptions::default().session(SessionUse::Report)).await?;
                Ok(true)
            }
        }
    }

    /// Logs in; the caller holds the flight. Boxed, because every call may lead here and this is a call.
    fn log_in(&self, options: CallOptions) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.log_in_unboxed(options))
    }

    async fn log_in_unboxed(&self, options: CallOptions) -> Result<()> {
        let manager = self.session_manager()?;
        let credentials = &self.inner.credentials;
        let mut args = methods::Login {
            user_name: credentials.user().to_owned(),
            password: credentials.secret().expose().to_owned(),
            locale: self.inner.settings.locale.clone(),
            ..Default::default()
        };
        let operation_id = self.next_operation_id();
        let body = Zeroizing::new(
            soap::encode_request(manager.as_untyped(), &args, self.request_options(&operation_id)).into_bytes(),
        );
        args.password.zeroize();
        let body = Bytes::from_owner(body);
        let outcome =
            self.invoke_encoded::<methods::Login>(manager.as_untyped(), body, &operation_id, options).await.map(drop);
        self.inner.session.logged_in(&outcome);
        outcome
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
        &*self.inner.transport
    }

    /// The decoded values may take some times the memory of their text, and no more.
    fn limits(&self) -> soap::Limits {
        soap::Limits { memory: self.inner.settings.max_answer.saturating_mul(4), ..soap::Limits::default() }
    }

    /// Names the call in the server's log and leaves out what the negotiated version does not know.
    fn request_options<'a>(&self, operation_id: &'a str) -> soap::RequestOptions<'a> {
        soap::RequestOptions {
            operation_id: Some(operation_id),
            version: vsphere_vim_types::ApiVersion::parse(self.inner.version.as_str()),
        }
    }

    /// Short, unique, and found again in the server's logs.
    fn next_operation_id(&self) -> String {
        format!("{}-{}", self.inner.operation_prefix, self.inner.operations.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for Vim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vim")
            .field("endpoint", &self.inner.endpoint)
            .field("version", &self.inner.version)
            .field("user", &self.inner.credentials.user())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.session.is_open() {
            tracing::warn!(server = %self.endpoint, "dropped without logout; the session stays until the server ends it");
        }
    }
}

/// Reads the list of versions and chooses one.
async fn negotiate(transport: &dyn Transport, endpoint: &Endpoint, settings: &Settings) -> Result<WireVersion> {
    const OPERATION: &str = "vimServiceVersions.xml";
    let request = Request {
        verb: Verb::Get,
        path: format!("{}/{OPERATION}", endpoint.path()),
        soap_action: None,
        cookie: None,
        body: Bytes::new(),
        timeout: settings.request_timeout,
        long_poll: false,
    };
    let response = transport.send(request).await.map_err(|source| Error::transport(OPERATION, source))?;
    match response.status {
        200 => ServiceVersions::parse(&response.body)
            .map_err(|what| Error::protocol(Call::named(OPERATION), what))?
            .negotiate(),
        // Published since VI 2.5; what lacks it is not a server that we know, or a gateway that hides the file.
        404 | 403 => {
            tracing::warn!(version = %settings.fallback_version, "the server publishes no list of versions");
            Ok(settings.fallback_version.clone())
        }
        status => {
            use crate::error::{TransportError, TransportErrorKind};
            let source =
                TransportError::new(TransportErrorKind::HttpStatus(status), "the list of versions is not readable");
            Err(Error::transport(OPERATION, source))
        }
    }
}

/// Touches the session when nobody else did, until the client is gone. No error ends it.
async fn keep_alive(client: Weak<Inner>, interval: Duration) {
    let mut wait = interval;
    loop {
        tokio::time::sleep(wait).await;
        let Some(inner) = client.upgrade() else { return };
        if !inner.session.is_open() {
            return;
        }
        let idle = inner.session.idle();
        wait = interval.saturating_sub(idle);
        if wait.is_zero() {
            wait = interval;
            let vim = Vim { inner };
            if let Err(error) = vim.touch().await {
                tracing::warn!(%error, "keep-alive failed; trying again later");
            }
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
