//! What the client makes of odd answers to its streams, by a scripted transport.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use vsphere_sim::{Simulator, SimulatorBuilder};
use vsphere_vim::{
    Credentials, Endpoint, Error, Thumbprint, Vim, VimBuilder,
    error::{TransportError, TransportErrorKind},
    transport::{
        BoxFuture, HttpOptions, HttpTransport,
        stream::{StreamRequest, StreamResponse, StreamTransport, StreamVerb, Upload},
    },
};

type Answer = Result<(u16, Vec<(&'static str, &'static str)>, &'static [u8]), TransportErrorKind>;

/// Verb, range and cookie of a request.
type Asked = (StreamVerb, Option<String>, Option<String>);

/// Answers from a list and keeps what was asked.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
}

impl StreamTransport for Script {
    fn exchange(&self, request: StreamRequest) -> BoxFuture<'_, Result<StreamResponse, TransportError>> {
        let range = request.headers.iter().find(|(name, _)| *name == "range").map(|(_, value)| value.clone());
        let cookie = request.cookie.as_ref().map(|(_, value)| value.expose().to_owned());
        self.asked.lock().unwrap().push((request.verb, range, cookie));
        let answer = self.answers.lock().unwrap().pop_front().expect("one request too many");
        Box::pin(async move {
            let (status, headers, body) = answer.map_err(|kind| TransportError::new(kind, "scripted"))?;
            let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let body = futures_util::stream::iter([Ok(Bytes::from_static(body))]);
            Ok(StreamResponse::new(status, headers, Box::pin(body)))
        })
    }
}

impl Script {
    fn ranges(&self) -> Vec<Option<String>> {
        self.asked.lock().unwrap().iter().map(|(_, range, _)| range.clone()).collect()
    }
}

fn simulator() -> SimulatorBuilder {
    Simulator::builder()
}

fn builder(sim: &Simulator) -> VimBuilder {
    let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    Vim::builder(sim.url()).credentials(Credentials::password(sim.username(), sim.password())).thumbprint(pin)
}

async fn scripted<const N: usize>(sim: &Simulator, answers: [Answer; N]) -> (Vim, Arc<Script>) {
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), ..Script::default() });
    let streams: Arc<dyn StreamTransport> = script.clone();
    (builder(sim).stream_transport(streams).connect().await.unwrap(), script)
}

const CONTENT: &[u8] = b"0123456789";

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_from_its_beginning_and_cut() {
    let sim = simulator().start().await.unwrap();
    let whole = || Ok((200, vec![("content-length", "10")], CONTENT));
    let broken = Ok((200, vec![("content-length", "10")], &CONTENT[..5]));
    let (vim, script) = scripted(&sim, [whole(), broken, whole()]).await;
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let path = store.path("x").unwrap();
    let reader = store.read(&path).range(3..7).open().await.unwrap();
    assert_eq!((reader.file_size(), reader.len()), (Some(10), Some(4)));
    assert_eq!(reader.collect(10).await.unwrap(), b"3456");
    // Also where it goes on after a break.
    assert_eq!(store.read(&path).open().await.unwrap().collect(10).await.unwrap(), CONTENT);
    assert_eq!(script.ranges(), [Some("bytes=3-6".to_owned()), None, Some("bytes=5-9".to_owned())]);
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_range_that_cannot_be_used_is_refused() {
    let sim = simulator().start().await.unwrap();
    let (vim, _) = scripted(
        &sim,
        [
            Ok((206, vec![("content-range", "bytes 4-6/10")], &CONTENT[4..7])),
            Ok((206, vec![], CONTENT)),
            Ok((206, vec![("content-range", "bytes 3-6/*")], &CONTENT[3..7])),
        ],
    )
    .await;
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let read = || store.read(&store.path("x").unwrap()).range(3..7).open();
    assert!(matches!(read().await.unwrap_err(), Error::Protocol(_)));
    assert!(matches!(read().await.unwrap_err(), Error::Protocol(_)));
    // A server that does not know the size: the end of the body is the end.
    assert_eq!(read().await.unwrap().collect(10).await.unwrap(), b"3456");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_file_of_unknown_length_is_never_cut_in_silence() {
    let sim = simulator().start().await.unwrap();
    let (vim, script) = scripted(
        &sim,
        [
            // A part of what was asked for: is that the end of the file?
            Ok((206, vec![("content-range", "bytes 3-4/*")], &CONTENT[3..5])),
            Ok((206, vec![("content-range", "bytes 3-9/*")], &CONTENT[3..])),
            // Ranges are not known here, and the file is shorter.
            Ok((200, vec![], &CONTENT[..5])),
            // More than was asked for.
            Ok((200, vec![], CONTENT)),
        ],
    )
    .await;
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let path = store.path("x").unwrap();
    for range in [3..7, 3..u64::MAX] {
        assert!(matches!(store.read(&path).range(range).open().await.unwrap_err(), Error::Protocol(_)));
    }
    let beyond = store.read(&path).range(7..9).open().await.unwrap().collect(10).await.unwrap_err();
    assert!(matches!(beyond, Error::Protocol(_)), "{beyond}");
    assert_eq!(store.read(&path).range(7..9).open().await.unwrap().collect(10).await.unwrap(), b"78");
    assert_eq!(script.ranges().len(), 4);
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_refusal_for_want_of_a_session_is_healed_once_and_then_told() {
    let sim = simulator().start().await.unwrap();
    let denied = || Ok((401, vec![], &b"<html>Unauthorized</html>"[..]));
    let (vim, script) =
        scripted(&sim, [denied(), Ok((200, vec![("content-length", "10")], CONTENT)), denied(), denied()]).await;
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let path = store.path("x").unwrap();
    assert_eq!(store.stat(&path).await.unwrap().unwrap().size, Some(10));
    let error = store.stat(&path).await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::HttpStatus(401)));
    assert_eq!(script.asked.lock().unwrap().len(), 4);
    let told = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(told.contains("Unauthorized") && told.contains("[ds1] x") && !told.contains("SOAP"), "{told}");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_cookie_that_is_issued_again_is_used_from_then_on() {
    let sim = simulator().start().await.unwrap();
    let issue = ("set-cookie", "vmware_soap_session=\"52-again\"; Path=/; HttpOnly; Secure");
    let (vim, script) =
        scripted(&sim, [Ok((200, vec![issue, ("content-length", "10")], CONTENT)), Ok((404, vec![], b""))]).await;
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let path = store.path("x").unwrap();
    store.stat(&path).await.unwrap().unwrap();
    assert!(store.stat(&path).await.unwrap().is_none());
    let asked = script.asked.lock().unwrap().clone();
    assert_ne!(asked[0].2.as_deref(), Some("\"52-again\""));
    assert_eq!(asked[1].2.as_deref(), Some("\"52-again\""));
    assert!(asked.iter().all(|(verb, ..)| *verb == StreamVerb::Head));
}

#[tokio::test]
async fn failures_of_the_network_are_met_as_the_policy_says_and_locked_files_at_once() {
    let sim = simulator().start().await.unwrap();
    let (vim, script) = scripted(
        &sim,
        [
            Err(TransportErrorKind::Connect),
            Ok((503, vec![], b"busy")),
            Ok((200, vec![("content-length", "10")], CONTENT)),
            Ok((500, vec![], b"locked")),
            Err(TransportErrorKind::Untrusted),
        ],
    )
    .await;
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let path = store.path("x").unwrap();
    assert_eq!(store.read(&path).open().await.unwrap().collect(10).await.unwrap(), CONTENT);
    let locked = store.read(&path).open().await.unwrap_err();
    assert_eq!(locked.transport_kind(), Some(TransportErrorKind::HttpStatus(500)));
    let distrusted = store.read(&path).open().await.unwrap_err();
    assert_eq!(distrusted.transport_kind(), Some(TransportErrorKind::Untrusted));
    assert_eq!(script.asked.lock().unwrap().len(), 5);
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_way_for_streams_says_so() {
    let sim = simulator().start().await.unwrap();
    let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    let endpoint = Endpoint::parse(&sim.url()).unwrap();
    let own = HttpTransport::new(endpoint, &pin.into(), HttpOptions::default()).unwrap();
    let credentials = Credentials::password(sim.username(), sim.password());
    let vim = Vim::builder(sim.url()).credentials(credentials).transport(Arc::new(own)).connect().await.unwrap();
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let error = store.write(&store.path("x").unwrap(), Upload::from_bytes("x")).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    vim.logout().await.unwrap();
}
