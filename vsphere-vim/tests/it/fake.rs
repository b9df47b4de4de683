//! A server behind the transport seam: sessions are real, everything else is scripted by the test.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_vim::{
    Credentials, ManagedObjectReference, Method, MoRef, Poly, RetryPolicy, Vim, VimBuilder,
    error::{TransportError, TransportErrorKind},
    methods, mo,
    transport::{BoxFuture, Request, Response, Transport, Verb},
    types::{
        AboutInfo, Any, DynamicProperty, InvalidLogin, MethodFault, NotAuthenticated, ObjectContent, ServiceContent,
        UserSession, soap,
    },
};

/// What the script answers.
pub(crate) enum Reply {
    /// An envelope.
    Soap(String),
    /// A fault with its message.
    Fault(Poly<MethodFault>, &'static str),
    /// An HTTP answer that is no SOAP.
    Http(u16, &'static str, &'static str),
    /// Bytes that claim to be SOAP.
    Raw(Vec<u8>),
    /// No answer.
    Broken(TransportErrorKind, bool),
    /// No answer ever.
    Hang,
}

pub(crate) fn answer<M: Method>(output: M::Output) -> Reply {
    Reply::Soap(soap::encode_response::<M>(&output))
}

pub(crate) fn fault(name: &str) -> Poly<MethodFault> {
    let mut fault = MethodFault::default();
    fault.unknown.set_type_name(name);
    Poly::new(fault)
}

/// A call as the script sees it.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    pub(crate) this: ManagedObjectReference,
    pub(crate) request: &'a soap::Request<'a>,
    /// How often this method was called before.
    pub(crate) before: usize,
    /// Sessions that have logged in so far.
    pub(crate) logins: usize,
}

impl Call<'_> {
    pub(crate) fn args<M: Method>(&self) -> M {
        self.request.args::<M>().unwrap()
    }
}

type Script = Box<dyn FnMut(&Call<'_>) -> Reply + Send>;

/// The server; clones share everything.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
}

struct State {
    script: Script,
    log: Vec<String>,
    done: Vec<String>,
    bodies: Vec<String>,
    actions: Vec<String>,
    logins: usize,
    /// The password that is good now.
    password: &'static str,
    /// The cookie that is good now.
    valid: Option<String>,
    versions: Option<&'static str>,
    /// Published instead of a list of versions.
    list: Option<&'static str>,
    /// Refuses connections until then.
    down_until: Option<tokio::time::Instant>,
}

pub(crate) const PASSWORD: &str = "correct horse";

impl Fake {
    /// `script` answers everything but version list, service content, login and logout.
    pub(crate) fn new(script: impl FnMut(&Call<'_>) -> Reply + Send + 'static) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                script: Box::new(script),
                log: Vec::new(),
                done: Vec::new(),
                bodies: Vec::new(),
                actions: Vec::new(),
                logins: 0,
                password: PASSWORD,
                valid: None,
                versions: Some("8.0.2.0"),
                list: None,
                down_until: None,
            })),
        }
    }

    /// A server that publishes this version, or no list of versions.
    pub(crate) fn version(self, version: Option<&'static str>) -> Self {
        self.state.lock().unwrap().versions = version;
        self
    }

    pub(crate) async fn connect(&self) -> Vim {
        self.try_connect(PASSWORD).await.unwrap()
    }

    /// A connection that knows nothing yet but how to reach the server.
    pub(crate) fn builder(&self) -> VimBuilder {
        Vim::builder("https://vc.example/sdk").transport(Arc::new(self.clone()))
    }

    pub(crate) async fn try_connect(&self, password: &str) -> vsphere_vim::Result<Vim> {
        self.builder()
            .credentials(Credentials::password("root", password))
            .retry(RetryPolicy::default().attempts(4).back_off(Duration::from_millis(1), Duration::from_millis(4)))
            .connect()
            .await
    }

    /// Forgets the session, as a server does after half an hour.
    pub(crate) fn expire(&self) {
        self.state.lock().unwrap().valid = None;
    }

    /// From now on another password is good; the sessions stay.
    pub(crate) fn change_password(&self, password: &'static str) {
        self.state.lock().unwrap().password = password;
    }

    /// A server that publishes this instead of a list of versions.
    pub(crate) fn version_list(self, list: &'static str) -> Self {
        self.state.lock().unwrap().list = Some(list);
        self
    }

    /// Restarts: nobody answers for this long, and nobody is remembered.
    pub(crate) fn restart(&self, outage: Duration) {
        let mut state = self.state.lock().unwrap();
        state.valid = None;
        state.down_until = Some(tokio::time::Instant::now() + outage);
    }

    /// The calls so far, by method name.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.log().iter().filter(|name| *name == method).count()
    }

    /// Calls of the method that got as far as the script.
    pub(crate) fn done(&self, method: &str) -> usize {
        self.state.lock().unwrap().done.iter().filter(|name| *name == method).count()
    }

    pub(crate) fn logins(&self) -> usize {
        self.state.lock().unwrap().logins
    }

    pub(crate) fn last_body(&self) -> String {
        self.state.lock().unwrap().bodies.last().cloned().unwrap()
    }

    pub(crate) fn last_action(&self) -> String {
        self.state.lock().unwrap().actions.last().cloned().unwrap()
    }

    fn reply(&self, request: &Request) -> (Reply, Option<String>) {
        let mut state = self.state.lock().unwrap();
        if state.down_until.is_some_and(|until| tokio::time::Instant::now() < until) {
            return (Reply::Broken(TransportErrorKind::Connect, false), None);
        }
        if request.verb == Verb::Get {
            if let Some(list) = state.list {
                return (Reply::Http(200, "text/xml", list), None);
            }
            return match state.versions {
                Some(version) => (Reply::Soap(version_list(version)), None),
                None => (Reply::Http(404, "text/html", "not here"), None),
            };
        }
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        state.bodies.push(body.clone());
        state.actions.push(request.soap_action.clone().unwrap());
        let parsed = soap::Request::parse(body.as_bytes(), soap::Limits::default()).unwrap();
        let before = state.log.iter().filter(|name| *name == parsed.method).count();
        state.log.push(parsed.method.to_owned());
        match parsed.method {
            "RetrieveServiceContent" => return (answer::<methods::RetrieveServiceContent>(content()), None),
            "Login" => {
                let args = parsed.args::<methods::Login>().unwrap();
                if args.password != state.password {
                    // As real servers, it hands a cookie to strangers too.
                    let stranger = Some("\"stranger\"".to_owned());
                    return (Reply::Fault(Poly::new(InvalidLogin::default()), "Cannot complete login."), stranger);
                }
                state.logins += 1;
                let cookie = format!("\"session-{}\"", state.logins);
                state.valid = Some(cookie.clone());
                return (answer::<methods::Login>(UserSession::default()), Some(cookie));
            }
            _ => {}
        }
        let cookie = request.cookie.as_ref().map(|cookie| cookie.expose().to_owned());
        if parsed.method == "Logout" && cookie.is_some() && cookie != state.valid {
            // An older session: it lived beside the present one.
            return (answer::<methods::Logout>(()), None);
        }
        if cookie.is_none() || cookie != state.valid {
            return (Reply::Fault(Poly::new(NotAuthenticated::default()), "The session is not authenticated."), None);
        }
        if parsed.method == "Logout" {
            state.valid = None;
            return (answer::<methods::Logout>(()), None);
        }
        let call =
            Call { method: parsed.method, this: parsed.this.clone(), request: &parsed, before, logins: state.logins };
        let reply = (state.script)(&call);
        state.done.push(parsed.method.to_owned());
        (reply, None)
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Transport for Fake {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            // As on a network, other tasks run in between.
            tokio::task::yield_now().await;
            let (reply, cookie) = self.reply(&request);
            let (status, kind, body) = match reply {
                Reply::Soap(body) => (200, "text/xml; charset=utf-8", body),
                Reply::Fault(fault, message) => (500, "text/xml", soap::encode_fault(&fault, message)),
                Reply::Http(status, kind, body) => (status, kind, body.to_owned()),
                Reply::Raw(bytes) => {
                    let content_type = Some("text/xml".to_owned());
                    return Ok(Response { status: 200, content_type, cookie: None, body: bytes.into() });
                }
                Reply::Broken(kind, sent) => {
                    let error = TransportError::new(kind, "scripted");
                    return Err(if sent { error } else { error.not_sent() });
                }
                Reply::Hang => std::future::pending().await,
            };
            Ok(Response {
                status,
                content_type: Some(kind.to_owned()),
                cookie: cookie.map(Into::into),
                body: body.into(),
            })
        })
    }
}

fn content() -> ServiceContent {
    ServiceContent {
        root_folder: MoRef::new("group-d1"),
        property_collector: MoRef::new("propertyCollector"),
        view_manager: Some(MoRef::new("ViewManager")),
        session_manager: Some(MoRef::new("SessionManager")),
        search_index: Some(MoRef::new("SearchIndex")),
        authorization_manager: Some(MoRef::new("AuthorizationManager")),
        about: AboutInfo {
            api_type: "VirtualCenter".into(),
            full_name: "Scripted 8.0".into(),
            instance_uuid: Some("11111111-2222-3333-4444-555555555555".into()),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn version_list(version: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><namespaces version=\"1.0\"><namespace><name>urn:vim25</name>\
         <version>{version}</version><priorVersions><version>2.5</version></priorVersions></namespace></namespaces>"
    )
}

/// An object with its name, as the property collector sends it.
pub(crate) fn named(value: &str, name: &str) -> ObjectContent {
    object(value, &[("name", Any::from(name))])
}

pub(crate) fn object(value: &str, properties: &[(&str, Any)]) -> ObjectContent {
    ObjectContent {
        obj: MoRef::<mo::VirtualMachine>::new(value).erase(),
        prop_set: properties
            .iter()
            .map(|(name, val)| DynamicProperty { name: (*name).into(), val: val.clone(), ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

/// The answer to the question whether the session lives.
pub(crate) fn session_lives() -> Vec<ObjectContent> {
    let session = Any::Object(Box::new(UserSession { key: "k".into(), ..Default::default() }));
    vec![object("SessionManager", &[("currentSession", session)])]
}
