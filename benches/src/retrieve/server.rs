//! A server in memory, behind the client's transport: sessions, and pages by their number.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use vsphere_vim::transport::{BoxFuture, Request, Response, Transport, TransportError, TransportErrorKind, Verb};
use vsphere_vim::{Credentials, MoRef, Vim};
use vsphere_vim_types::soap::{self, Limits};
use vsphere_vim_types::{AboutInfo, ServiceContent, UserSession, methods};

pub(super) struct Server {
    page: Box<dyn Fn(usize) -> Option<Bytes> + Send + Sync>,
}

impl Server {
    /// A session with a server that answers with these pages.
    pub(super) async fn connect(
        page: impl Fn(usize) -> Option<Bytes> + Send + Sync + 'static,
    ) -> vsphere_vim::Result<Vim> {
        Vim::builder("https://vc.example/sdk")
            .transport(Arc::new(Self { page: Box::new(page) }))
            .credentials(Credentials::password("root", "secret"))
            .connect()
            .await
    }

    fn answer(&self, request: &Request) -> Option<Bytes> {
        if request.verb == Verb::Get {
            return Some(Bytes::from_static(VERSIONS.as_bytes()));
        }
        let call = soap::Request::parse(&request.body, Limits::default()).ok()?;
        Some(match call.method {
            "RetrieveServiceContent" => soap::encode_response::<methods::RetrieveServiceContent>(&content()).into(),
            "Login" => soap::encode_response::<methods::Login>(&UserSession::default()).into(),
            "Logout" => soap::encode_response::<methods::Logout>(&()).into(),
            "RetrievePropertiesEx" => (self.page)(0)?,
            "ContinueRetrievePropertiesEx" => {
                let args = call.args::<methods::ContinueRetrievePropertiesEx>().ok()?;
                (self.page)(args.token.parse().ok()?)?
            }
            _ => return None,
        })
    }
}

impl Transport for Server {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            let missing = || TransportError::new(TransportErrorKind::HttpStatus(404), "not served");
            let body = self.answer(&request).ok_or_else(missing)?;
            let content_type = Some("text/xml; charset=utf-8".to_owned());
            Ok(Response { status: 200, content_type, cookie: Some("\"session\"".to_owned().into()), body })
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

fn content() -> ServiceContent {
    ServiceContent {
        root_folder: MoRef::new("group-d1"),
        property_collector: MoRef::new("propertyCollector"),
        session_manager: Some(MoRef::new("SessionManager")),
        about: AboutInfo { api_type: "VirtualCenter".into(), ..Default::default() },
        ..Default::default()
    }
}

const VERSIONS: &str = "<?xml version=\"1.0\"?><namespaces version=\"1.0\"><namespace><name>urn:vim25</name>\
    <version>8.0.2.0</version><priorVersions><version>2.5</version></priorVersions></namespace></namespaces>";
