//! The HTTP transport against a small TLS server: trust, kept connections, limits.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use vsphere_vim::{
    Endpoint, Thumbprint, TlsTrust,
    error::{TransportError, TransportErrorKind},
    transport::{HttpOptions, HttpTransport, Request, Response, Transport as _, Verb},
    trust::DigestKind,
};

/// What the server does with a request.
enum Act {
    Answer(Vec<u8>),
    AnswerAndClose(Vec<u8>),
    Close,
    Silence,
    /// This, then a byte at each of these intervals.
    Drip(Vec<u8>, Duration),
}

struct Seen {
    connection: usize,
    head: String,
}

struct Server {
    port: u16,
    certificate: CertificateDer<'static>,
    pem: String,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(act: impl Fn(Seen) -> Act + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, pem) = (made.cert.der().clone(), made.cert.pem());
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, connected, act) = (Arc::clone(&requests), Arc::clone(&connections), Arc::new(act));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, counted, act) = (acceptor.clone(), Arc::clone(&counted), Arc::clone(&act));
                let connected = Arc::clone(&connected);
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let connection = connected.fetch_add(1, Ordering::SeqCst);
                    while let Some(head) = read_request(&mut stream).await {
                        counted.fetch_add(1, Ordering::SeqCst);
                        match act(Seen { connection, head }) {
                            Act::Answer(bytes) => stream.write_all(&bytes).await.unwrap(),
                            Act::AnswerAndClose(bytes) => {
                                stream.write_all(&bytes).await.unwrap();
                                let _ = stream.shutdown().await;
                                return;
                            }
                            Act::Close => return,
                            Act::Silence => std::future::pending().await,
                            Act::Drip(head, interval) => {
                                stream.write_all(&head).await.unwrap();
                                while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
                                    tokio::time::sleep(interval).await;
                                }
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { port, certificate, pem, requests, connections }
    }

    fn thumbprint(&self, kind: DigestKind) -> Thumbprint {
        Thumbprint::of(kind, &self.certificate)
    }

    fn transport(&self, trust: impl Into<TlsTrust>, options: HttpOptions) -> HttpTransport {
        let endpoint = Endpoint::parse(&format!("https://localhost:{}/sdk", self.port)).unwrap();
        HttpTransport::new(endpoint, &trust.into(), options).unwrap()
    }

    fn trusting(&self) -> HttpTransport {
        self.transport(self.thumbprint(DigestKind::Sha256), HttpOptions::default())
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

fn ok(body: &[u8], headers: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn request(body: &'static str) -> Request {
    Request {
        verb: Verb::Post,
        path: "/sdk".into(),
        soap_action: Some("urn:vim25/8.0".into()),
        cookie: Some("\"abc\"".into()),
        body: body.into(),
        timeout: Duration::from_secs(5),
        long_poll: false,
    }
}

async fn send(transport: &HttpTransport) -> Result<Response, TransportError> {
    transport.send(request("<a/>")).await
}

#[tokio::test]
async fn a_request_carries_what_the_server_expects() {
    let server = Server::start(|seen| {
        for expected in [
            "POST /sdk HTTP/1.1",
            "content-type: text/xml; charset=utf-8",
            "soapaction: \"urn:vim25/8.0\"",
            "cookie: vmware_soap_session=\"abc\"",
            "accept-encoding: gzip",
        ] {
            assert!(
                seen.head.to_ascii_lowercase().contains(&expected.to_ascii_lowercase()),
                "{expected}: {}",
                seen.head
            );
        }
        assert!(seen.head.to_ascii_lowercase().contains("host: localhost:"));
        Act::Answer(ok(b"<b/>", "Set-Cookie: vmware_soap_session=\"new\"; Path=/; HttpOnly; Secure\r\n"))
    })
    .await;
    let response = send(&server.trusting()).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"<b/>"[..]));
    assert_eq!(response.cookie.unwrap().expose(), "\"new\"");
}

#[tokio::test]
async fn both_digests_and_the_certificate_itself_as_authority_are_trusted() {
    let server = Server::start(|_| Act::Answer(ok(b"<b/>", ""))).await;
    let pem = TlsTrust::CaPem(server.pem.clone().into_bytes());
    for trust in [server.thumbprint(DigestKind::Sha1).into(), server.thumbprint(DigestKind::Sha256).into(), pem] {
        send(&server.transport(trust, HttpOptions::default())).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_is_not_trusted() {
    let server = Server::start(|_| Act::Answer(ok(b"<b/>", ""))).await;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let wrong = [
        TlsTrust::Thumbprint(Thumbprint::of(DigestKind::Sha256, other.cert.der())),
        TlsTrust::Thumbprint(Thumbprint::of(DigestKind::Sha1, other.cert.der())),
        TlsTrust::CaPem(other.cert.pem().into_bytes()),
    ];
    for trust in wrong {
        let error = send(&server.transport(trust, HttpOptions::default())).await.unwrap_err();
        assert_eq!(error.kind(), TransportErrorKind::Untrusted, "{error}");
        assert!(!error.was_sent() && !error.is_retryable());
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_mismatch_names_both_thumbprints() {
    let server = Server::start(|_| Act::Close).await;
    let pin = Thumbprint::of(DigestKind::Sha256, b"other");
    let error = send(&server.transport(pin, HttpOptions::default())).await.unwrap_err().to_string();
    assert!(error.contains(&pin.to_string()), "{error}");
    assert!(error.contains(&server.thumbprint(DigestKind::Sha256).to_string()), "{error}");
}

#[tokio::test]
async fn fetching_a_thumbprint_shows_the_certificate_and_sends_nothing() {
    let server = Server::start(|_| Act::Close).await;
    for kind in [DigestKind::Sha1, DigestKind::Sha256] {
        let fetched = Thumbprint::fetch(&format!("localhost:{}", server.port), kind).await.unwrap();
        assert_eq!(fetched, server.thumbprint(kind));
    }
    assert_eq!((server.requests(), server.connections()), (0, 0), "the handshake was never finished");
}

#[tokio::test]
async fn connections_are_kept_and_bounded() {
    let server = Server::start(|_| Act::Answer(ok(b"<b/>", ""))).await;
    let transport = server.trusting();
    for _ in 0..10 {
        send(&transport).await.unwrap();
    }
    assert_eq!((server.requests(), server.connections()), (10, 1));

    let options = HttpOptions { max_connections: 3, ..HttpOptions::default() };
    let transport = Arc::new(server.transport(server.thumbprint(DigestKind::Sha256), options));
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move { send(&transport).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(server.connections() <= 1 + 3, "{} connections", server.connections());
}

#[tokio::test]
async fn a_kept_connection_that_died_meanwhile_is_replaced_unnoticed() {
    let server = Server::start(|_| Act::AnswerAndClose(ok(b"<b/>", ""))).await;
    let transport = server.trusting();
    for _ in 0..5 {
        send(&transport).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((server.requests(), server.connections()), (5, 5));
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_was_sent_says_so() {
    let server = Server::start(|_| Act::Close).await;
    let error = send(&server.trusting()).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Disconnected, "{error}");
    assert!(error.was_sent() && error.is_retryable());
}

#[tokio::test]
async fn silence_ends_in_a_time_out() {
    let server = Server::start(|_| Act::Silence).await;
    let mut request = request("<a/>");
    request.timeout = Duration::from_millis(100);
    let error = server.trusting().send(request).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Timeout);
    assert!(error.was_sent());
}

#[tokio::test]
async fn silence_within_a_body_ends_in_a_time_out() {
    let server = Server::start(|_| Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<a>".to_vec())).await;
    let options = HttpOptions { body_idle_timeout: Duration::from_millis(100), ..HttpOptions::default() };
    let error = send(&server.transport(server.thumbprint(DigestKind::Sha1), options)).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Timeout);
}

#[tokio::test]
async fn a_body_that_drips_for_ever_ends_in_a_time_out() {
    let server = Server::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        Act::Drip(head.as_bytes().to_vec(), Duration::from_millis(20))
    })
    .await;
    let options = HttpOptions {
        body_idle_timeout: Duration::from_secs(5),
        body_timeout: Duration::from_millis(300),
        ..HttpOptions::default()
    };
    let started = std::time::Instant::now();
    let error = send(&server.transport(server.thumbprint(DigestKind::Sha1), options)).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("did not end within 0.3 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_body_that_drips_but_ends_in_time_is_read() {
    let server = Server::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        Act::Drip(head.as_bytes().to_vec(), Duration::from_millis(20))
    })
    .await;
    let options = HttpOptions { body_idle_timeout: Duration::from_secs(1), ..HttpOptions::default() };
    let response = send(&server.transport(server.thumbprint(DigestKind::Sha1), options)).await.unwrap();
    assert_eq!(&response.body[..], b"xxxxx");
}

#[tokio::test]
async fn actions_of_ws_trust_go_out_without_quotes() {
    let server = Server::start(|seen| {
        assert!(seen.head.to_ascii_lowercase().contains("soapaction: http://docs.example/issue\r\n"), "{}", seen.head);
        Act::Answer(ok(b"<b/>", ""))
    })
    .await;
    let action = Some("http://docs.example/Issue".to_owned());
    server.trusting().send(Request { soap_action: action, ..request("<a/>") }).await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_an_error() {
    let cut = |_| Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<a>".to_vec());
    let error = send(&Server::start(cut).await.trusting()).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Disconnected);
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn gzip_is_decoded_and_bounded() {
    let server = Server::start(|seen| {
        let size = if seen.connection == 0 { 1000 } else { 50 << 20 };
        Act::Answer(ok(&gzip(&vec![b'x'; size]), "Content-Encoding: gzip\r\n"))
    })
    .await;
    let options = HttpOptions { max_body: 1 << 20, ..HttpOptions::default() };
    let trust = server.thumbprint(DigestKind::Sha256);
    let response = send(&server.transport(trust, options.clone())).await.unwrap();
    assert_eq!(response.body, vec![b'x'; 1000]);
    let error = send(&server.transport(trust, options)).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::BodyTooLarge, "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn an_encoding_that_was_not_offered_is_refused() {
    let server = Server::start(|_| Act::Answer(ok(b"x", "Content-Encoding: br\r\n"))).await;
    assert_eq!(send(&server.trusting()).await.unwrap_err().kind(), TransportErrorKind::Malformed);
}

#[tokio::test]
async fn no_listener_and_no_such_host_are_told_apart() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let trust = TlsTrust::Thumbprint(Thumbprint::of(DigestKind::Sha1, b""));
    let to = |address: String| {
        HttpTransport::new(Endpoint::parse(&address).unwrap(), &trust, HttpOptions::default()).unwrap()
    };
    let refused = send(&to(format!("https://127.0.0.1:{port}"))).await.unwrap_err();
    assert_eq!((refused.kind(), refused.was_sent()), (TransportErrorKind::Connect, false));
    let unknown = send(&to("https://no-such-host.invalid".into())).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.was_sent()), (TransportErrorKind::Resolve, false));
}

#[tokio::test]
async fn long_polls_do_not_use_up_the_common_connections() {
    let server =
        Server::start(|seen| if seen.head.contains("/poll") { Act::Silence } else { Act::Answer(ok(b"<b/>", "")) })
            .await;
    let options = HttpOptions { max_connections: 1, ..HttpOptions::default() };
    let transport = Arc::new(server.transport(server.thumbprint(DigestKind::Sha256), options));
    let polls: Vec<_> = (0..4)
        .map(|_| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move {
                let poll = Request { path: "/poll".into(), long_poll: true, ..request("") };
                transport.send(poll).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    send(&transport).await.unwrap();
    polls.iter().for_each(tokio::task::JoinHandle::abort);
}
