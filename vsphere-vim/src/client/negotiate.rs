//! The first question to a server: which versions it speaks.

use bytes::Bytes;

use crate::{
    builder::Settings,
    endpoint::Endpoint,
    error::{Error, Result, TransportError, TransportErrorKind},
    transport::{Request, Transport, Verb},
    version::{ServiceVersions, WireVersion},
};

/// Reads the list of versions and chooses one.
pub(super) async fn negotiate(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    settings: &Settings,
) -> Result<WireVersion> {
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
        200 => match ServiceVersions::parse(&response.body) {
            Ok(versions) if !versions.is_empty() => versions.negotiate(),
            Ok(_) => Ok(fall_back(settings, "names no namespace")),
            Err(what) => Ok(fall_back(settings, &what)),
        },
        // Published since VI 2.5; what lacks it is not a server that we know, or a gateway that hides the file.
        404 | 403 => Ok(fall_back(settings, "is not published")),
        status => {
            let source =
                TransportError::new(TransportErrorKind::HttpStatus(status), "the list of versions is not readable");
            Err(Error::transport(OPERATION, source))
        }
    }
}

/// What is wrong with the list says nothing about the service behind it.
fn fall_back(settings: &Settings, why: &str) -> WireVersion {
    tracing::warn!(version = %settings.fallback_version, why, "no usable list of the server's versions");
    settings.fallback_version.clone()
}
