//! `/nfc/TOKEN/FILE`: the bytes of leased disks, `streamOptimized` in both directions.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;
use vmdk::stream::{StreamDecoder, StreamSpec, StreamWriter};

use crate::inject::Injection;
use crate::lease::{self, Device};
use crate::storage::NodeHandle;
use crate::world::World;

use super::body::Body;
use super::folder::text;
use super::http::Dropped;

/// Bytes of a disk that are read at once, and of a stream that are sent at once.
const PIECE: usize = 256 << 10;

/// Answers one request. The token is the permission: no session is needed.
pub(super) async fn answer(world: &Arc<World>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let injection = world.faults.take(&format!("{} /nfc", request.method()));
    match &injection {
        Some(Injection::DropBefore) => return Err(Dropped),
        Some(Injection::Http(status)) => {
            return Ok(text(StatusCode::from_u16(*status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), "injected"));
        }
        Some(Injection::Delay(delay)) => tokio::time::sleep(*delay).await,
        _ => {}
    }
    let found = lease::find(&mut world.lock(), request.uri().path())
        .map(|(lease, device)| (lease.id.clone(), lease.import, device));
    let Some((lease, import, device)) = found else {
        return Ok(text(StatusCode::NOT_FOUND, "no such lease or device"));
    };
    let response = match (request.method(), import) {
        (&Method::GET, false) => export(world, lease, device, injection.as_ref()),
        (&Method::POST, true) => fill(&device, request.into_body()).await,
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "exports are got, disks of imports are posted"),
    };
    if injection == Some(Injection::DropAfter) { Err(Dropped) } else { Ok(response) }
}

/// Sends a disk. Its length is not known before, so there is none in the answer.
fn export(world: &Arc<World>, lease: String, device: Device, injection: Option<&Injection>) -> Response<Body> {
    let world = world.clone();
    let body = Body::piped(None, injection, move |send| {
        let mut sink = Sink { send, buffer: Vec::with_capacity(PIECE), sent: 0, sha1: sha1() };
        write_disk(&device.handle, &mut sink)?;
        sink.flush()?;
        let digest: String = sink.sha1.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(lease) = world.lock().leases.get_mut(&lease) {
            lease.sent.insert(device.key.clone(), (sink.sent, digest));
        }
        Ok(())
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-vnd.vmware-streamVmdk"));
    response
}

fn sha1() -> ring::digest::Context {
    ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY)
}

fn write_disk(handle: &NodeHandle, sink: &mut Sink<'_>) -> io::Result<()> {
    let capacity = handle.capacity().map_err(io::Error::other)?;
    let mut writer = StreamWriter::new(sink, &StreamSpec::new(capacity)).map_err(io::Error::other)?;
    let mut buffer = vec![0; PIECE];
    for range in handle.allocated(0..capacity).map_err(io::Error::other)? {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(PIECE as u64) as usize;
            handle.read_at(at, &mut buffer[..len]).map_err(io::Error::other)?;
            writer.write_at(at, &buffer[..len]).map_err(io::Error::other)?;
            at += len as u64;
        }
    }
    writer.finish().map(drop).map_err(io::Error::other)
}

/// Collects small writes into pieces, and their digest.
struct Sink<'a> {
    send: &'a mut dyn FnMut(Bytes) -> io::Result<()>,
    buffer: Vec<u8>,
    sent: u64,
    sha1: ring::digest::Context,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.sha1.update(&self.buffer);
        self.sent += self.buffer.len() as u64;
        (self.send)(std::mem::take(&mut self.buffer).into())
    }
}

/// Fills a disk from a stream.
async fn fill(device: &Device, mut body: Incoming) -> Response<Body> {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(4);
    let handle = device.handle.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut decoder = StreamDecoder::new("upload");
        let capacity = handle.capacity().map_err(|error| error.to_string())?;
        while let Some(piece) = pieces.blocking_recv() {
            decoder.feed(&piece);
            while let Some(grain) = decoder.next_grain().map_err(|error| error.to_string())? {
                if grain.offset + grain.data.len() as u64 > capacity {
                    return Err(format!("the stream's disk is larger than {capacity} bytes"));
                }
                handle.write_at(grain.offset, grain.data).map_err(|error| error.to_string())?;
            }
        }
        decoder.finish().map_err(|error| error.to_string())?;
        handle.sync().map_err(|error| error.to_string())
    });
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        };
        if sender.send(data).await.is_err() {
            // The writer has stopped; it says why.
            break;
        }
    }
    drop(sender);
    let written = writing.await.unwrap_or_else(|error| Err(error.to_string()));
    match (written, broken) {
        (Ok(()), None) => text(StatusCode::OK, "OK"),
        (Err(problem), _) | (Ok(()), Some(problem)) => text(StatusCode::INTERNAL_SERVER_ERROR, &problem),
    }
}
