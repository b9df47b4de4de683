//! The NFC client of `vsphere-nfc` against the simulator's 902 server, over real sockets.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::pki_types::PrivatePkcs8KeyDer;
use vsphere_nfc::{
    Buffers, Channel, CompressionWish, Error, Mode, NfcDisk, NfcOptions, Phase, Pin, SessionId, ThumbprintSha2, Ticket,
    TicketError, TicketSource, Timeouts, UnpinnedTickets,
};
use vsphere_sim::nfc::{
    AllocationAnswers, Cut, FaultAction, FragmentOrder, Grant, HostVersion, NfcBackend, NfcFile, NfcIdentity,
    NfcServer, NfcServerConfig, OpenRefused, RedeemError, Step, TicketRefusal,
};

const PATH: &str = "[ds1] web/web.vmdk";
const MIB: u64 = 1 << 20;
const CHUNK: u64 = 64 * 1024;

/// A disk in memory; sectors that were never written are not allocated.
struct MemoryDisk {
    capacity: u64,
    sector_size: u32,
    chunks: Mutex<BTreeMap<u64, Vec<u8>>>,
    ddb: BTreeMap<String, String>,
    fail_writes_at: Mutex<Option<Range<u64>>>,
    flushes: AtomicU32,
}

impl MemoryDisk {
    fn new(capacity: u64) -> Self {
        Self {
            capacity,
            sector_size: 512,
            chunks: Mutex::default(),
            ddb: BTreeMap::from([
                ("adapterType".to_owned(), "lsilogic".to_owned()),
                ("comment".to_owned(), "ä".repeat(2048)),
            ]),
            fail_writes_at: Mutex::default(),
            flushes: AtomicU32::new(0),
        }
    }

    /// A disk whose first `len` bytes have a content that differs from sector to sector.
    fn filled(capacity: u64, len: u64) -> Self {
        let disk = Self::new(capacity);
        disk.write_at(0, &pattern(0, len)).unwrap();
        disk
    }

    fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.read_at(range.start, &mut bytes).unwrap();
        bytes
    }
}

impl NfcFile for MemoryDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let chunks = self.chunks.lock().unwrap();
        for (at, part) in parts(offset, buf.len()) {
            let within = (at % CHUNK) as usize;
            let target = &mut buf[part.clone()];
            match chunks.get(&(at / CHUNK)) {
                Some(chunk) => target.copy_from_slice(&chunk[within..within + part.len()]),
                None => target.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(bad) = &*self.fail_writes_at.lock().unwrap()
            && bad.start < offset + data.len() as u64
            && offset < bad.end
        {
            return Err(io::Error::other("no space left on the datastore"));
        }
        let mut chunks = self.chunks.lock().unwrap();
        for (at, part) in parts(offset, data.len()) {
            let within = (at % CHUNK) as usize;
            let chunk = chunks.entry(at / CHUNK).or_insert_with(|| vec![0; CHUNK as usize]);
            chunk[within..within + part.len()].copy_from_slice(&data[part]);
        }
        Ok(())
    }

    fn allocated(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let chunks = self.chunks.lock().unwrap();
        let numbers = chunks.range(range.start / CHUNK..range.end.div_ceil(CHUNK));
        Ok(numbers.map(|(number, _)| number * CHUNK..(number + 1) * CHUNK).collect())
    }

    fn ddb(&self, key: &str) -> Option<String> {
        self.ddb.get(key).cloned()
    }

    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Cuts `len` bytes at `offset` on the chunk grid: disk offset and place in the buffer.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let part = done..len.min(done + (CHUNK - at % CHUNK) as usize);
        done = part.end;
        (!part.is_empty()).then_some((at, part))
    })
}

/// Bytes that tell where they belong.
fn pattern(offset: u64, len: u64) -> Vec<u8> {
    (offset / 8..(offset + len) / 8).flat_map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect()
}

#[derive(Default)]
struct Backend {
    disk: Mutex<Option<Arc<MemoryDisk>>>,
    tickets: Mutex<HashSet<String>>,
    issued: AtomicU32,
    write: bool,
}

struct Allowed {
    write: bool,
}

impl NfcBackend for Backend {
    fn redeem(&self, session_id: &str, service: &str) -> Result<Grant, RedeemError> {
        if service != "vpxa-nfc" {
            return Err(RedeemError::WrongService);
        }
        let known = self.tickets.lock().unwrap().remove(session_id);
        known.then(|| Grant::new(Allowed { write: self.write })).ok_or(RedeemError::Used)
    }

    fn open(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        let allowed: &Allowed = grant.downcast().unwrap();
        if write && !allowed.write {
            return Err(OpenRefused::read_only());
        }
        match &*self.disk.lock().unwrap() {
            Some(disk) if path == PATH => Ok(Arc::clone(disk) as Arc<dyn NfcFile>),
            _ => Err(OpenRefused::new(99, "File not found")),
        }
    }
}

/// A server with one disk, and tickets for it.
struct Host {
    server: NfcServer,
    backend: Arc<Backend>,
    disk: Arc<MemoryDisk>,
}

impl Host {
    async fn start(disk: MemoryDisk, write: bool, config: NfcServerConfig) -> Self {
        let disk = Arc::new(disk);
        let backend = Arc::new(Backend { disk: Mutex::new(Some(Arc::clone(&disk))), write, ..Backend::default() });
        let address = "127.0.0.1:0".parse().unwrap();
        let server = NfcServer::bind(address, identity(), Arc::clone(&backend) as _, config).await.unwrap();
        Self { server, backend, disk }
    }

    async fn reading(disk: MemoryDisk) -> Self {
        Self::start(disk, false, NfcServerConfig::default()).await
    }

    async fn writing(disk: MemoryDisk) -> Self {
        Self::start(disk, true, NfcServerConfig::default()).await
    }

    fn ticket(&self) -> Ticket {
        ticket(&self.backend, &self.server, Some(self.server.identity().thumbprint_sha1().parse().unwrap()))
    }

    fn tickets(&self) -> Arc<dyn TicketSource> {
        let backend = Arc::clone(&self.backend);
        let ticket = self.ticket();
        backend.tickets.lock().unwrap().clear();
        Arc::new(move || {
            let mut ticket = ticket.clone();
            let id = new_id(&backend);
            ticket.session_id = SessionId::new(id);
            async move { Ok::<_, TicketError>(ticket) }
        })
    }

    async fn open(&self, mode: Mode, options: NfcOptions) -> Result<NfcDisk, Error> {
        NfcDisk::open(self.tickets(), PATH, mode, options).await
    }

    /// Waits until the server has noticed that its clients are gone.
    async fn assert_no_connections(&self) {
        for _ in 0..500 {
            if self.server.counters().connections_open() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} connections are still open", self.server.counters().connections_open());
    }
}

fn new_id(backend: &Backend) -> String {
    let id = format!("52000000-{:08}", backend.issued.fetch_add(1, Ordering::SeqCst));
    backend.tickets.lock().unwrap().insert(id.clone());
    id
}

fn ticket(backend: &Backend, server: &NfcServer, pin: Option<Pin>) -> Ticket {
    Ticket {
        host: "127.0.0.1".to_owned(),
        port: server.local_addr().port(),
        pin,
        service: "vpxa-nfc".to_owned(),
        session_id: SessionId::new(new_id(backend)),
    }
}

fn fixed(ticket: Ticket) -> Arc<dyn TicketSource> {
    Arc::new(move || {
        let ticket = ticket.clone();
        async move { Ok::<_, TicketError>(ticket) }
    })
}

fn identity() -> NfcIdentity {
    identity_with(rustls::DEFAULT_VERSIONS)
}

fn identity_with(versions: &[&'static rustls::SupportedProtocolVersion]) -> NfcIdentity {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    NfcIdentity::new(certificate, Arc::new(config))
}

fn patient() -> NfcOptions {
    NfcOptions::default().timeouts(Timeouts::all(Duration::from_secs(20)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_disk_reads_back_over_tls_and_in_clear() {
    let host = Host::reading(MemoryDisk::filled(9 * MIB + 512, 9 * MIB)).await;
    for channel in [Channel::Tls, Channel::Clear] {
        let disk = host.open(Mode::ReadOnly, patient().channel(channel)).await.unwrap();
        assert_eq!(disk.capacity(), 9 * MIB + 512);
        assert_eq!(disk.sector_size(), 512);
        assert_eq!(disk.geometry().heads, 255);
        let info = disk.session_info();
        assert_eq!(info.server_version, 11);
        assert_eq!(info.buffers, Buffers { size: 1 << 20, count: 4 });
        assert_eq!(info.tls_version.is_some(), channel == Channel::Tls);
        let all = disk.read_at(0, (9 * MIB + 512) as usize).await.unwrap();
        assert!(all == host.disk.bytes(0..9 * MIB + 512));
        disk.close().await.unwrap();
    }
    host.assert_no_connections().await;
    let counters = host.server.counters();
    assert_eq!(counters.connections_total(), 2);
    assert_eq!(counters.file(PATH).read, 2 * (9 * MIB + 512));
    assert!(counters.most_in_flight() > 1, "reads were not pipelined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_tls_versions_work_in_both_stages() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let disk = MemoryDisk::filled(MIB, MIB);
        let backend = Arc::new(Backend { disk: Mutex::new(Some(Arc::new(disk))), ..Backend::default() });
        let server = NfcServer::bind(
            "127.0.0.1:0".parse().unwrap(),
            identity_with(&[version]),
            Arc::clone(&backend) as _,
            NfcServerConfig::default(),
        );
        let server = server.await.unwrap();
        let pin = server.identity().thumbprint_sha256().parse().unwrap();
        let tickets = fixed(ticket(&backend, &server, Some(pin)));
        let disk = NfcDisk::open(tickets, PATH, Mode::ReadOnly, patient()).await.unwrap();
        let info = disk.session_info();
        let wanted = if version.version == rustls::ProtocolVersion::TLSv1_2 { "TLSv1_2" } else { "TLSv1_3" };
        assert_eq!(info.tls_version.as_deref(), Some(wanted));
        assert!(disk.read_at(0, 4096).await.unwrap() == pattern(0, 4096));
        disk.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_in_any_order_and_size_are_put_together() {
    for order in [FragmentOrder::InOrder, FragmentOrder::Reversed, FragmentOrder::Shuffled] {
        for size in [512, 1536, 65536] {
            for wish in [CompressionWish::None, CompressionWish::Zlib] {
                let mut config = NfcServerConfig::default();
                config.fragment_order = order;
                config.fragment_size = Some(size);
                let host = Host::start(MemoryDisk::filled(4 * MIB, MIB), false, config).await;
                let mut options = patient().buffers(256 * 1024, 4).compression(wish);
                options.quirks.max_request = Some(640 * 1024);
                let disk = Arc::new(host.open(Mode::ReadOnly, options).await.unwrap());
                // Several callers at once, so that fragments of different requests mix.
                let mut readers = tokio::task::JoinSet::new();
                for at in [0, 512, MIB - 4096, 2 * MIB] {
                    let disk = Arc::clone(&disk);
                    readers.spawn(async move { (at, disk.read_at(at, (MIB + 512) as usize).await.unwrap()) });
                }
                while let Some(read) = readers.join_next().await {
                    let (at, bytes) = read.unwrap();
                    assert!(bytes == host.disk.bytes(at..at + MIB + 512), "{order:?} {size} {wish:?} {at}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_bytes_are_read_back_and_flushed_at_close() {
    for wish in [CompressionWish::None, CompressionWish::Zlib] {
        let host = Host::writing(MemoryDisk::new(64 * MIB)).await;
        let disk = host.open(Mode::ReadWrite, patient().compression(wish)).await.unwrap();
        let data = Bytes::from([pattern(512, 5 * MIB), vec![7; MIB as usize]].concat());
        disk.write_at(512, data.clone()).await.unwrap();
        assert!(disk.read_at(512, data.len()).await.unwrap() == data);
        assert!(host.disk.bytes(512..512 + 6 * MIB) == data);
        assert_eq!(host.server.counters().file(PATH).written, 6 * MIB);
        // What the server says about allocation may be stale now.
        assert!(matches!(disk.query_allocated(0..MIB, CHUNK).await, Err(Error::InvalidRequest { .. })));
        assert_eq!(host.disk.flushes.load(Ordering::SeqCst), 0);
        disk.close().await.unwrap();
        assert_eq!(host.disk.flushes.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_writes_take_effect_in_the_order_they_were_made() {
    let host = Host::writing(MemoryDisk::new(MIB)).await;
    let disk = Arc::new(host.open(Mode::ReadWrite, patient().buffers(64 * 1024, 8)).await.unwrap());
    for round in 0..20u8 {
        let both = tokio::join!(
            disk.write_at(0, Bytes::from(vec![round; 128 * 1024])),
            disk.write_at(64 * 1024, Bytes::from(vec![round + 100; 128 * 1024])),
        );
        both.0.unwrap();
        both.1.unwrap();
        let read = disk.read_at(0, 192 * 1024).await.unwrap();
        assert!(read[..64 * 1024].iter().all(|byte| *byte == round));
        assert!(read[64 * 1024..].iter().all(|byte| *byte == round + 100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_write_is_never_reported_as_done_and_names_the_range() {
    let host = Host::writing(MemoryDisk::new(8 * MIB)).await;
    let disk = host.open(Mode::ReadWrite, patient()).await.unwrap();
    *host.disk.fail_writes_at.lock().unwrap() = Some(2 * MIB..2 * MIB + 1);
    let error = disk.write_at(0, Bytes::from(vec![1; 4 << 20])).await.unwrap_err();
    let Error::WriteInDoubt { range, source, .. } = &error else { panic!("{error}") };
    assert!(range.start <= 2 * MIB && range.end == 4 * MIB, "{range:?}");
    assert!(matches!(**source, Error::Server { .. } | Error::Disconnected { .. }), "{source}");
    // No silent new connection on a handle for writing.
    let error = disk.write_at(0, Bytes::from(vec![1; 512])).await.unwrap_err();
    assert!(matches!(error, Error::WriteInDoubt { .. } | Error::Disconnected { .. }), "{error}");
    assert_eq!(host.server.counters().connections_total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allocation_is_merged_clipped_and_paged_and_the_tail_counts_as_allocated() {
    let tail = 4 * CHUNK + 512;
    let host = Host::reading(MemoryDisk::new(MIB * 64 + tail)).await;
    for at in [0, 1, 5, 1023] {
        host.disk.write_at(at * CHUNK, b"x").unwrap();
    }
    let mut options = patient();
    options.allocation_page = 100;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    let capacity = disk.capacity();
    let end = 64 * MIB + 4 * CHUNK;
    assert_eq!(
        disk.query_allocated(0..capacity, CHUNK).await.unwrap(),
        [0..2 * CHUNK, 5 * CHUNK..6 * CHUNK, 1023 * CHUNK..1024 * CHUNK, end..end + 512]
    );
    assert_eq!(
        disk.query_allocated(512..5 * CHUNK + 1, CHUNK).await.unwrap(),
        [512..2 * CHUNK, 5 * CHUNK..5 * CHUNK + 1]
    );
    // A larger grid: every chunk that has something in it, and a longer tail.
    assert_eq!(disk.query_allocated(0..capacity, MIB).await.unwrap(), [0..MIB, 63 * MIB..capacity]);
    assert_eq!(disk.query_allocated(7 * MIB..8 * MIB, MIB).await.unwrap(), []);
    for (range, chunk) in [(0..capacity + 1, CHUNK), (0..512, 512), (0..512, CHUNK + 1)] {
        assert!(matches!(disk.query_allocated(range, chunk).await, Err(Error::InvalidRequest { .. })));
    }
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_of_62_tib_has_64_bit_offsets_everywhere() {
    let capacity = 68_169_720_922_112;
    let host = Host::reading(MemoryDisk::new(capacity)).await;
    let last = capacity - MIB;
    host.disk.write_at(last, &pattern(last, MIB)).unwrap();
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.capacity(), capacity);
    assert!(disk.read_at(last, MIB as usize).await.unwrap() == pattern(last, MIB));
    let allocated = disk.query_allocated(last - MIB..capacity, CHUNK).await.unwrap();
    assert_eq!(allocated, vec![last..capacity; 1]);
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_disk_and_sector_sizes_0_and_4096_work() {
    let host = Host::reading(MemoryDisk::new(0)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert!(disk.read_at(0, 0).await.unwrap().is_empty());
    assert_eq!(disk.query_allocated(0..0, CHUNK).await.unwrap(), []);
    disk.close().await.unwrap();
    for (told, meant) in [(0, 512), (4096, 4096)] {
        let host = Host::reading(MemoryDisk { sector_size: told, ..MemoryDisk::filled(MIB, MIB) }).await;
        let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
        assert_eq!(disk.sector_size(), meant);
        assert!(disk.read_at(4096, 4096).await.unwrap() == pattern(4096, 4096));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_found_or_none() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.metadata("adapterType").await.unwrap().as_deref(), Some("lsilogic"));
    assert_eq!(disk.metadata("comment").await.unwrap().unwrap().len(), 4096);
    assert_eq!(disk.metadata("uuid").await.unwrap(), None);
    assert!(matches!(disk.metadata("").await, Err(Error::InvalidRequest { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misaligned_and_out_of_range_requests_are_refused_before_sending() {
    let host = Host::writing(MemoryDisk::new(MIB)).await;
    let disk = host.open(Mode::ReadWrite, patient()).await.unwrap();
    for (offset, len) in [(1, 512), (0, 511), (MIB, 512), (u64::MAX - 511, 512), (u64::MAX - 511, 1024)] {
        assert!(matches!(disk.read_at(offset, len).await, Err(Error::InvalidRequest { .. })), "{offset}+{len}");
        let data = Bytes::from(vec![0; len]);
        assert!(matches!(disk.write_at(offset, data).await, Err(Error::InvalidRequest { .. })));
    }
    assert_eq!(host.server.counters().file(PATH).read, 0);
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_buffers_lead_to_smaller_ones_on_a_new_connection_with_a_new_ticket() {
    let mut config = NfcServerConfig::default();
    config.max_buffer_size = 512 * 1024;
    let host = Host::start(MemoryDisk::filled(MIB, MIB), false, config).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.session_info().buffers, Buffers { size: 64 * 1024, count: 4 });
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    assert_eq!(host.server.counters().connections_total(), 2);

    let mut options = patient();
    options.fallback_buffers = None;
    let error = host.open(Mode::ReadOnly, options).await.unwrap_err();
    assert!(matches!(error, Error::OutOfNfcMemory { phase: Phase::OpenSession, .. }), "{error}");
    assert!(error.is_retryable() && error.hint().is_some());
    host.server.configure(|config| config.session_refusal_code = 77);
    let mut options = patient();
    options.fallback_buffers = None;
    let error = host.open(Mode::ReadOnly, options).await.unwrap_err();
    assert!(matches!(error, Error::SessionRefused { buffer_size: 1_048_576, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn esxi_7_without_thumbprint_sha2_works_without_message_43() {
    let mut config = NfcServerConfig::default();
    config.version = HostVersion::Esxi70;
    let host = Host::start(MemoryDisk::filled(MIB, MIB), false, config).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.session_info().server_version, 7);
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn optional_steps_can_be_left_out() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let mut options = patient();
    options.quirks.thumbprint_sha2 = ThumbprintSha2::Never;
    options.quirks.ask_banner = true;
    options.quirks.send_connection_data = false;
    options.quirks.send_features = None;
    options.quirks.set_sock_opts = false;
    options.quirks.set_res_pool = None;
    options.quirks.await_session_complete = true;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    assert!(disk.read_at(512, 512).await.unwrap() == pattern(512, 512));
    disk.close().await.unwrap();
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_certificate_is_noticed_before_the_ticket_is_sent() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    for pin in [Pin::sha1_of(b"other"), Pin::sha256_of(b"other"), Pin::Certificate(b"other".as_slice().into())] {
        let tickets = fixed(ticket(&host.backend, &host.server, Some(pin)));
        let error = NfcDisk::open(tickets, PATH, Mode::ReadOnly, patient()).await.unwrap_err();
        assert!(matches!(error, Error::ThumbprintMismatch { phase: Phase::AuthdTls, .. }), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(host.backend.tickets.lock().unwrap().len(), 3, "a ticket was used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_certificate_may_differ_only_when_it_was_announced() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    host.server.configure(|config| config.service_identity = Some(identity()));
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    disk.close().await.unwrap();

    host.server.configure(|config| config.announce_wrong_thumbprint = true);
    let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(error, Error::ThumbprintMismatch { phase: Phase::ServiceTls, .. }), "{error}");
    assert_eq!(host.server.counters().file(PATH).opens, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_without_a_certificate_is_refused_unless_allowed() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let tickets = fixed(ticket(&host.backend, &host.server, None));
    let error = NfcDisk::open(Arc::clone(&tickets), PATH, Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidTicket(_)), "{error}");
    assert_eq!(host.server.counters().connections_total(), 0);
    let mut options = patient();
    options.unpinned = UnpinnedTickets::Accept;
    NfcDisk::open(tickets, PATH, Mode::ReadOnly, options).await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_ticket_is_an_authd_refusal_and_a_silent_close_a_disconnect() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let once = fixed(host.ticket());
    NfcDisk::open(Arc::clone(&once), PATH, Mode::ReadOnly, patient()).await.unwrap().close().await.unwrap();
    let error = NfcDisk::open(Arc::clone(&once), PATH, Mode::ReadOnly, patient()).await.unwrap_err();
    let Error::AuthdRefused { command: "PROXY", line, .. } = &error else { panic!("{error}") };
    assert_eq!(line, "530 Login incorrect");
    assert!(!format!("{error:?} {error}").contains("52000000"), "the ticket leaked");
    host.server.configure(|config| config.ticket_refusal = TicketRefusal::Close);
    let error = NfcDisk::open(once, PATH, Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { phase: Phase::Authd, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_errors_are_told_apart() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let error = host.open(Mode::ReadWrite, patient()).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { fault: Some(_), .. }), "{error}");
    let error = NfcDisk::open(host.tickets(), "[ds1] none.vmdk", Mode::ReadOnly, patient()).await.unwrap_err();
    let Error::OpenRefused { path, fault, .. } = &error else { panic!("{error}") };
    assert_eq!((&**path, fault.code, fault.text.as_str()), ("[ds1] none.vmdk", Some(99), "File not found"));
    host.server.inject(Step::OpenFile, FaultAction::Error { code: 5, text: "pool".into() });
    let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(error, Error::OutOfNfcMemory { phase: Phase::OpenFile, .. }), "{error}");
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let error = disk.write_at(0, Bytes::from(vec![0; 512])).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { fault: None, .. }), "{error}");
    drop(disk);
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_the_start_that_is_refused_closed_or_silent_names_its_phase() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let quick = NfcOptions::default().timeouts(Timeouts::all(Duration::from_millis(300)));
    for (step, phase) in [
        (Step::Banner, Phase::Banner),
        (Step::ThumbprintSha2, Phase::Authd),
        (Step::Proxy, Phase::Authd),
        (Step::SessionStart, Phase::SessionStart),
        (Step::Version, Phase::SessionStart),
        (Step::AioOpen, Phase::SessionStart),
        (Step::OpenSession, Phase::OpenSession),
        (Step::OpenFile, Phase::OpenFile),
    ] {
        let mut options = quick.clone();
        options.fallback_buffers = None;
        host.server.inject(step, FaultAction::Close);
        match host.open(Mode::ReadOnly, options.clone()).await.unwrap_err() {
            Error::Disconnected { phase: at, .. } => assert_eq!(at, phase, "{step:?}"),
            other => panic!("{step:?}: {other}"),
        }
        host.server.inject(step, FaultAction::Stall);
        match host.open(Mode::ReadOnly, options.clone()).await.unwrap_err() {
            Error::Timeout { phase: at, .. } => assert_eq!(at, phase, "{step:?}"),
            other => panic!("{step:?}: {other}"),
        }
        host.server.inject(step, FaultAction::Error { code: 421, text: "busy".into() });
        let error = host.open(Mode::ReadOnly, options.clone()).await;
        match (step, error) {
            // Not every host knows it: the session goes on without.
            (Step::ThumbprintSha2, Ok(disk)) => disk.close().await.unwrap(),
            (_, Err(error)) => assert!(error.to_string().contains("busy"), "{step:?}: {error}"),
            (_, Ok(_)) => panic!("{step:?} was not refused"),
        }
        host.server.inject(step, FaultAction::Bytes(vec![0xFF; 300]));
        assert!(host.open(Mode::ReadOnly, options).await.is_err(), "{step:?}");
    }
    host.server.inject(Step::SessionStart, FaultAction::Complete);
    let error = host.open(Mode::ReadOnly, quick).await.unwrap_err();
    assert!(matches!(error, Error::StartRefused { .. }), "{error}");
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_of_one_read_fails_the_others_and_the_next_read_connects_again() {
    let host = Host::reading(MemoryDisk::filled(4 * MIB, 4 * MIB)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    host.server.inject(Step::Read, FaultAction::Error { code: 42, text: "medium error".into() });
    let error = disk.read_at(0, 512).await.unwrap_err();
    let Error::Server { phase: Phase::Read, fault, .. } = &error else { panic!("{error}") };
    assert_eq!((fault.code, fault.text.as_str()), (Some(42), "medium error"));
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    assert_eq!(host.server.counters().connections_total(), 2);

    host.server.disconnect_all();
    host.assert_no_connections().await;
    assert!(disk.read_at(MIB, MIB as usize).await.unwrap() == pattern(MIB, MIB));
    assert_eq!(host.server.counters().connections_total(), 3);

    let mut options = patient();
    options.reconnect = false;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    host.server.disconnect_all();
    let mut errors = 0;
    for _ in 0..2 {
        errors += u32::from(matches!(disk.read_at(0, 512).await, Err(Error::Disconnected { .. })));
    }
    assert_eq!(errors, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_allocation_query_does_not_stop_later_reads() {
    let mut config = NfcServerConfig::default();
    config.allocation = AllocationAnswers::Refused;
    let host = Host::start(MemoryDisk::filled(MIB, MIB), false, config).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let error = disk.query_allocated(0..MIB, CHUNK).await.unwrap_err();
    assert!(matches!(error, Error::Server { phase: Phase::QueryAllocated, .. }), "{error}");
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_server_is_a_time_out_and_the_connection_is_dropped() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let mut options = patient();
    options.timeouts.read = Duration::from_millis(200);
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    host.server.inject(Step::Read, FaultAction::Stall);
    let error = disk.read_at(0, 512).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: Phase::Read, .. }), "{error}");
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_reads_neither_disturb_others_nor_leak_budget() {
    let host = Host::reading(MemoryDisk::filled(4 * MIB, 4 * MIB)).await;
    let disk = Arc::new(host.open(Mode::ReadOnly, patient().buffers(64 * 1024, 2)).await.unwrap());
    host.server.configure(|config| config.delay = Duration::from_millis(1));
    for round in 0..50u64 {
        let waiting = disk.read_at(0, MIB as usize);
        let _ = tokio::time::timeout(Duration::from_micros(round * 100), waiting).await;
        let at = round * 512;
        assert!(disk.read_at(at, 512).await.unwrap() == pattern(at, 512));
    }
    assert_eq!(host.server.counters().connections_total(), 1);
    Arc::into_inner(disk).unwrap().close().await.unwrap();
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buffer_of_the_caller_is_used_again() {
    let host = Host::reading(MemoryDisk::filled(4 * MIB, 4 * MIB)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let buffer = BytesMut::with_capacity(3 << 20);
    let place = buffer.as_ptr();
    let buffer = disk.read_into(0, 3 << 20, buffer).await.unwrap();
    assert_eq!(buffer.as_ptr(), place, "the bytes were moved");
    assert!(buffer == pattern(0, 3 * MIB));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_cut_anywhere_gives_an_error_or_the_right_bytes_and_never_hangs() {
    let host = Host::reading(MemoryDisk::filled(256 * 1024, 256 * 1024)).await;
    let mut options = NfcOptions::default().buffers(64 * 1024, 4).timeouts(Timeouts::all(Duration::from_secs(5)));
    options.fallback_buffers = None;
    options.reconnect = false;
    let mut whole = 0;
    for reset in [false, true] {
        for at in (0..6000).step_by(97).chain((6000..280_000).step_by(9973)) {
            for cut in [Cut::Sent(at), Cut::Received(at)] {
                host.server.configure(|config| {
                    config.cut = Some(cut);
                    config.reset_on_cut = reset;
                });
                let work = async {
                    let disk = host.open(Mode::ReadOnly, options.clone()).await?;
                    let bytes = disk.read_at(0, 256 * 1024).await?;
                    assert!(bytes == pattern(0, 256 * 1024));
                    disk.close().await
                };
                match tokio::time::timeout(Duration::from_secs(4), work).await {
                    Ok(Ok(())) => whole += 1,
                    Ok(Err(Error::Connect { .. } | Error::Disconnected { .. } | Error::Tls { .. })) => {}
                    Ok(Err(other)) => panic!("{cut:?}: {other:?}"),
                    Err(_) => panic!("{cut:?}: no end"),
                }
            }
        }
    }
    assert!(whole > 0, "no cut was behind the end of the session");
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_returns_within_its_time_with_the_first_error() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let mut options = patient();
    options.timeouts.close = Duration::from_millis(200);
    for step in [Step::CloseFile, Step::CloseSession] {
        let disk = host.open(Mode::ReadOnly, options.clone()).await.unwrap();
        host.server.inject(step, FaultAction::Stall);
        assert!(matches!(disk.close().await, Err(Error::Timeout { phase: Phase::Close, .. })), "{step:?}");
        let disk = host.open(Mode::ReadOnly, options.clone()).await.unwrap();
        host.server.inject(step, FaultAction::Error { code: 7, text: "not now".into() });
        let error = disk.close().await.unwrap_err();
        assert!(error.to_string().contains("not now"), "{step:?}: {error}");
    }
    host.server.configure(|config| config.answer_session_complete = false);
    host.open(Mode::ReadOnly, options).await.unwrap().close().await.unwrap();
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_callers_share_one_connection_within_the_budget() {
    let host = Host::reading(MemoryDisk::filled(16 * MIB, 16 * MIB)).await;
    let disk = Arc::new(host.open(Mode::ReadOnly, patient().buffers(64 * 1024, 4)).await.unwrap());
    let mut readers = tokio::task::JoinSet::new();
    for at in 0..1000u64 {
        let disk = Arc::clone(&disk);
        readers.spawn(async move {
            let offset = at * 16384;
            assert!(disk.read_at(offset, 16384).await.unwrap() == pattern(offset, 16384));
        });
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
    assert_eq!(host.server.counters().connections_total(), 1);
    assert!(host.server.counters().most_in_flight() <= 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_after_many_sessions_and_a_shutdown() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    for round in 0..30 {
        let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
        disk.read_at(0, 512).await.unwrap();
        if round % 2 == 0 {
            disk.close().await.unwrap();
        }
    }
    host.assert_no_connections().await;
    assert!(host.backend.tickets.lock().unwrap().is_empty());
    let left = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let counters = host.server.counters();
    host.server.shutdown().await;
    assert_eq!(counters.connections_open(), 0);
    assert!(left.read_at(0, 512).await.is_err());
}
