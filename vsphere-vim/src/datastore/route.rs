//! Which way bytes take: through the connected server, or straight to a host.

use vsphere_vim_types::{
    MoRef, Poly, PropertyPath, SessionManagerHttpServiceRequestSpec, methods::AcquireGenericServiceTicket, mo,
};

use super::{Datastore, DatastorePath};
use crate::{
    client::Vim,
    error::{Error, Result, TransportError, TransportErrorKind},
    secret::Secret,
    transport::{
        SESSION_COOKIE, session_cookie,
        stream::{StreamRequest, StreamResponse, StreamTarget, StreamVerb, Upload, percent_encode},
    },
    trust::Thumbprint,
};

/// Which way the bytes of files take.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum FileRoute {
    /// The connected server: vCenter passes the bytes on, an ESXi host serves its own.
    #[default]
    Server,
    /// A host, with a ticket from vCenter for each request: spares vCenter the bytes.
    Host(HostRoute),
    /// The server; the host when the server cannot.
    ServerThenHost(HostRoute),
    /// The host; the server when the host cannot.
    HostThenServer(HostRoute),
}

/// How a host is reached directly.
#[derive(Clone, Debug)]
#[must_use]
pub struct HostRoute {
    host: MoRef<mo::HostSystem>,
    address: Option<String>,
    thumbprint: Option<Thumbprint>,
    datacenter_path: String,
    datastore: Option<String>,
}

impl HostRoute {
    /// A host that sees the datastore, by the name that vCenter knows it by.
    pub fn new(host: MoRef<mo::HostSystem>) -> Self {
        Self { host, address: None, thumbprint: None, datacenter_path: "ha-datacenter".to_owned(), datastore: None }
    }

    /// The host.
    pub fn host(&self) -> &MoRef<mo::HostSystem> {
        &self.host
    }

    /// Dials this `host[:port]` instead of the host's name in vCenter.
    pub fn address(self, address: impl Into<String>) -> Self {
        Self { address: Some(address.into()), ..self }
    }

    /// Trusts this certificate instead of the one that the ticket or vCenter's record of the host names.
    pub fn thumbprint(self, thumbprint: Thumbprint) -> Self {
        Self { thumbprint: Some(thumbprint), ..self }
    }

    /// The datacenter as the host names it. `ha-datacenter` unless stated.
    pub fn datacenter_path(self, path: impl Into<String>) -> Self {
        Self { datacenter_path: path.into(), ..self }
    }

    /// The datastore as the host names it, where that is not vCenter's name.
    pub fn datastore(self, name: impl Into<String>) -> Self {
        Self { datastore: Some(name.into()), ..self }
    }
}

/// One of the ways.
pub(super) enum Hop<'a> {
    Server,
    Host(&'a HostRoute),
}

impl Datastore {
    /// Performs a request without a body, the first way that works.
    pub(super) async fn fetch(
        &self,
        verb: StreamVerb,
        path: &DatastorePath,
        range: Option<&str>,
    ) -> Result<StreamResponse> {
        let hops = self.hops();
        let mut last = None;
        for hop in &hops {
            match self.attempt(hop, verb, path, range).await {
                Ok(response) if cannot(response.status) && last.is_none() && hops.len() > 1 => {
                    last = Some(refusal(verb, path, response).await);
                }
                Ok(response) => return Ok(response),
                Err(error) if last.is_none() => last = Some(error),
                // The first way's error says more about what is usual.
                Err(error) => tracing::warn!(%error, "the other way failed too"),
            }
        }
        Err(last.unwrap_or_else(|| Error::not_found(path.to_string())))
    }

    /// One way, with one login if the session turns out to be dead.
    async fn attempt(
        &self,
        hop: &Hop<'_>,
        verb: StreamVerb,
        path: &DatastorePath,
        range: Option<&str>,
    ) -> Result<StreamResponse> {
        let mut healed = false;
        loop {
            let mut request = self.request(hop, verb, path).await?;
            if let Some(range) = range {
                request = request.header("range", range);
            }
            let response = self.vim.stream(operation(verb), request).await?;
            if response.status != 401 || healed || !matches!(hop, Hop::Server) {
                return Ok(response);
            }
            healed = true;
            self.vim.touch().await?;
        }
    }

    /// Sends a file, the first way only: what a source has given away cannot be sent again.
    pub(super) async fn send(&self, path: &DatastorePath, upload: Upload) -> Result<StreamResponse> {
        let hops = self.hops();
        let hop = hops.first().unwrap_or(&Hop::Server);
        let mut request = self.request(hop, StreamVerb::Put, path).await?;
        request = request.header("content-type", "application/octet-stream");
        request.body = Some(upload);
        self.vim.stream(operation(StreamVerb::Put), request).await
    }

    fn hops(&self) -> Vec<Hop<'_>> {
        match &self.route {
            FileRoute::Server => vec![Hop::Server],
            FileRoute::Host(host) => vec![Hop::Host(host)],
            FileRoute::ServerThenHost(host) => vec![Hop::Server, Hop::Host(host)],
            FileRoute::HostThenServer(host) => vec![Hop::Host(host), Hop::Server],
        }
    }

    async fn request(&self, hop: &Hop<'_>, verb: StreamVerb, path: &DatastorePath) -> Result<StreamRequest> {
        match hop {
            Hop::Server => {
                let target = StreamTarget::on_server(folder_path(path, &self.datacenter_path, &self.name));
                let mut request = StreamRequest::new(verb, target);
                request.cookie = self.vim.session().cookie_for_use().map(|cookie| (SESSION_COOKIE, cookie));
                Ok(request)
            }
            Hop::Host(route) => self.request_to_host(route, verb, path).await,
        }
    }

    async fn request_to_host(
        &self,
        route: &HostRoute,
        verb: StreamVerb,
        path: &DatastorePath,
    ) -> Result<StreamRequest> {
        let address = match &route.address {
            Some(address) => address.clone(),
            None => self.vim.get(&route.host, PropertyPath::<_, String>::new("name")).await?,
        };
        let datastore = route.datastore.as_deref().unwrap_or(&self.name);
        let resource = folder_path(path, &route.datacenter_path, datastore);
        let (ticket, named) = service_ticket(&self.vim, verb, &format!("https://{address}{resource}")).await?;
        let recorded = async {
            let path = PropertyPath::<mo::HostSystem, String>::new("summary.config.sslThumbprint");
            let recorded = self.vim.get_optional(&route.host, path).await.ok().flatten();
            recorded.and_then(|text| text.parse().ok())
        };
        let thumbprint = match route.thumbprint.or(named) {
            Some(thumbprint) => Some(thumbprint),
            None => recorded.await,
        };
        let mut request = StreamRequest::new(verb, StreamTarget::on_host(&address, resource, thumbprint)?);
        request.cookie = Some((TICKET_COOKIE, ticket));
        Ok(request)
    }
}

/// Gets a ticket for one request to one URL, and the certificate that the ticket names.
async fn service_ticket(vim: &Vim, verb: StreamVerb, url: &str) -> Result<(Secret, Option<Thumbprint>)> {
    let method = match verb {
        StreamVerb::Get => "httpGet",
        StreamVerb::Head => "httpHead",
        StreamVerb::Put => "httpPut",
        StreamVerb::Post => "httpPost",
        StreamVerb::Delete => "httpDelete",
    };
    let spec =
        SessionManagerHttpServiceRequestSpec { method: Some(method.into()), url: url.into(), ..Default::default() };
    let args = AcquireGenericServiceTicket { spec: Poly::new(spec), ..Default::default() };
    let mut ticket = vim.invoke(&vim.session_manager()?, args).await?;
    let thumbprint = ticket.ssl_thumbprint.as_deref().filter(|text| !text.trim().is_empty()).map(str::parse);
    Ok((Secret::new(std::mem::take(&mut ticket.id)), thumbprint.transpose()?))
}

impl Vim {
    /// One exchange over the stream transport; a re-issued session cookie is taken over.
    pub(crate) async fn stream(&self, operation: &str, request: StreamRequest) -> Result<StreamResponse> {
        let streams = self.settings().streams.as_ref().ok_or_else(|| {
            let why = "the client was built with a transport of its own and without one for streams";
            Error::unsupported(operation, why)
        })?;
        let on_server = request.target.is_on_server();
        let generation = self.session().generation();
        let response = streams.exchange(request).await.map_err(|source| Error::transport(operation, source))?;
        if on_server {
            let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie");
            self.session().accept_cookie(session_cookie(cookies.map(|(_, value)| value.as_str())), generation);
        }
        Ok(response)
    }
}

/// `/folder/web/web.vmx?dcPath=dc1&dsName=ds1`, every part encoded.
fn folder_path(path: &DatastorePath, datacenter: &str, datastore: &str) -> String {
    format!(
        "/folder/{}?dcPath={}&dsName={}",
        percent_encode(path.path(), b"/"),
        percent_encode(datacenter, b""),
        percent_encode(datastore, b"")
    )
}

/// Answers that say more about the way than about the file. A file that is not there is not there.
fn cannot(status: u16) -> bool {
    matches!(status, 401 | 403 | 500..=599)
}

/// What an answer that is no success means.
pub(super) async fn refusal(verb: StreamVerb, path: &DatastorePath, response: StreamResponse) -> Error {
    let status = response.status;
    if matches!(status, 404 | 410) {
        return Error::not_found(path.to_string());
    }
    let text = match response.explanation().await {
        text if text.is_empty() => path.to_string(),
        text => format!("{path}: {text}"),
    };
    Error::transport(operation(verb), TransportError::new(TransportErrorKind::HttpStatus(status), text))
}

fn operation(verb: StreamVerb) -> &'static str {
    match verb {
        StreamVerb::Get => "GET /folder",
        StreamVerb::Head => "HEAD /folder",
        StreamVerb::Put => "PUT /folder",
        StreamVerb::Post => "POST /folder",
        StreamVerb::Delete => "DELETE /folder",
    }
}

/// The cookie under which hosts take service tickets.
const TICKET_COOKIE: &str = "vmware_cgi_ticket";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_address_is_encoded() {
        let path = DatastorePath::new("ds 1", "Web Ü/a+b&c#1.vmdk").unwrap();
        assert_eq!(
            folder_path(&path, "folder a/dc%2f1", "ds 1"),
            "/folder/Web%20%C3%9C/a%2Bb%26c%231.vmdk?dcPath=folder%20a%2Fdc%252f1&dsName=ds%201"
        );
    }
}
