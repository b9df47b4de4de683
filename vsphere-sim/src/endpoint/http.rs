//! One HTTP request: which path, whose cookie, is gzip wanted.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE, VARY};
use hyper::{Method, Request, Response, StatusCode};

use super::body::Body;
use crate::personality::Personality;
use crate::service::{self, Answer, Caller, Door};
use crate::world::World;

/// Largest request accepted, compressed or not.
const MAX_REQUEST: usize = 16 << 20;
/// Answers below this size are not worth compressing.
const MIN_GZIP: usize = 1024;
/// Where the security token service is.
const STS: &str = "/sts/STSService";
/// The cookie of the SOAP session.
pub(super) const SESSION_COOKIE: &str = "vmware_soap_session";

/// Why no answer is sent: hyper closes the connection.
#[derive(Debug)]
pub(super) struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

pub(super) async fn answer(
    world: Arc<World>,
    certificate: Option<Arc<[u8]>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    // Bodies that may be large are streams, and are not compressed.
    if request.uri().path() == "/folder" || request.uri().path().starts_with("/folder/") {
        return super::folder::answer(&world, request).await;
    }
    let path = request.uri().path().trim_end_matches('/').to_owned();
    if request.uri().path().starts_with("/nfc/") {
        return super::nfc::answer(&world, request).await;
    }
    let gzip = accepts_gzip(&request);
    let mut response = match (request.method(), path.as_str()) {
        (&Method::POST, "/sdk" | "/sdk/vimService") => {
            let door = Door::Main(Caller { cookie: session_cookie(&request), certificate });
            soap(world, door, request).await?
        }
        (&Method::POST, "/vslm/sdk") if world.personality() == Personality::VCenter => {
            soap(world, Door::Vslm, request).await?
        }
        (&Method::POST, STS) if world.personality() == Personality::VCenter => sts(&world, request).await,
        (&Method::GET, "/sdk/vimServiceVersions.xml") => xml(StatusCode::OK, world.personality().versions_xml()),
        (&Method::GET, "/sdk" | "/sdk/vimService") => plain(StatusCode::METHOD_NOT_ALLOWED, "POST only"),
        _ if world.settings.control && path.starts_with("/sim/") => control(world, &path, request).await,
        _ => plain(StatusCode::NOT_FOUND, "no such path"),
    };
    if gzip {
        compress(&mut response).await;
    }
    Ok(response.map(Body::Full))
}

/// What a test in another process asks of the simulator.
async fn control(world: Arc<World>, path: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let method = request.method().clone();
    let Ok(body) = Limited::new(request.into_body(), MAX_REQUEST).collect().await.map(|body| body.to_bytes()) else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "body cut or too large");
    };
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || super::control::answer(&world, &method, &path, &body)).await;
    match done {
        Ok(Ok(body)) => with_type(StatusCode::OK, "application/octet-stream", Bytes::from(body)),
        Ok(Err(problem)) => plain(StatusCode::BAD_REQUEST, &problem),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A request for a token.
async fn sts(world: &World, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Ok(body) = Limited::new(request.into_body(), MAX_REQUEST).collect().await.map(|body| body.to_bytes()) else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "body cut or too large");
    };
    let (fault, answer) = world.tokens.answer(&body, &world.settings.username, &world.settings.password);
    xml(if fault { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, answer)
}

async fn soap(world: Arc<World>, door: Door, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Dropped> {
    let packed =
        request.headers().get(CONTENT_ENCODING).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let body = match Limited::new(request.into_body(), MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            tracing::debug!(%error, "request body");
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "request body cut or too large"));
        }
    };
    let body = match packed.then(|| unpack(&body)).transpose() {
        Ok(unpacked) => unpacked.map_or(body, Bytes::from),
        Err(error) => return Ok(plain(StatusCode::BAD_REQUEST, &format!("gzip: {error}"))),
    };
    match service::call(world, door, &body).await {
        Answer::Drop => Err(Dropped),
        Answer::Http(status) => Ok(plain(
            StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            "<html><body>injected</body></html>",
        )),
        Answer::Soap { fault, body, cookie } => {
            let mut response = xml(if fault { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, body);
            let value = cookie.map(|key| format!("{SESSION_COOKIE}=\"{key}\"; Path=/; HttpOnly; Secure; "));
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                response.headers_mut().insert(SET_COOKIE, value);
            }
            Ok(response)
        }
    }
}

/// The value of the session cookie without its quotes.
fn session_cookie(request: &Request<Incoming>) -> Option<String> {
    cookie(request, SESSION_COOKIE)
}

/// The value of a cookie without its quotes.
pub(super) fn cookie(request: &Request<Incoming>, wanted: &str) -> Option<String> {
    let cookies = request.headers().get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name.trim() == wanted).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn accepts_gzip(request: &Request<Incoming>) -> bool {
    let values = request.headers().get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && parameters.trim() != "q=0"
    })
}

fn unpack(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(body).take(MAX_REQUEST as u64 + 1).read_to_end(&mut out)?;
    if out.len() > MAX_REQUEST {
        return Err(std::io::Error::other("too large"));
    }
    Ok(out)
}

async fn compress(response: &mut Response<Full<Bytes>>) {
    let Ok(body) = std::mem::take(response.body_mut()).collect().await.map_err(|never: Infallible| match never {});
    let bytes = body.to_bytes();
    if bytes.len() < MIN_GZIP {
        *response.body_mut() = Full::new(bytes);
        return;
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    match packer.write_all(&bytes).and_then(|()| packer.finish()) {
        Ok(packed) => {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            *response.body_mut() = Full::new(Bytes::from(packed));
        }
        Err(error) => {
            tracing::warn!(%error, "gzip");
            *response.body_mut() = Full::new(bytes);
        }
    }
}

fn xml(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    with_type(status, "text/xml; charset=utf-8", body.into())
}

pub(super) fn plain(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/html; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

fn with_type(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
