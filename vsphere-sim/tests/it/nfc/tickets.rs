//! Rows 1 and 2: tickets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vsphere_nfc::{Error, Mode, NfcDisk, Phase, TicketError, UnpinnedTickets};
use vsphere_sim::nfc::{FaultAction, Step, TicketRefusal};

use super::disk::{MIB, MemoryDisk};
use super::host::{Host, PATH, fixed, patient, ticket};

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
async fn two_tickets_may_be_out_at_once_and_each_opens_one_connection() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let (first, second) = (host.ticket(), host.ticket());
    // Not in the order in which they were given out.
    let two = NfcDisk::open(fixed(second), PATH, Mode::ReadOnly, patient()).await.unwrap();
    let one = NfcDisk::open(fixed(first), PATH, Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(host.server.counters().connections_open(), 2);
    one.close().await.unwrap();
    two.close().await.unwrap();
    assert!(host.backend.tickets.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_ticket_is_replaced_at_most_once_and_the_secret_is_never_told() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let asked = Arc::new(AtomicU32::new(0));
    let (count, stale) = (Arc::clone(&asked), host.ticket());
    host.backend.tickets.lock().unwrap().clear();
    let source = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        let ticket = stale.clone();
        async move { Ok::<_, TicketError>(ticket) }
    });
    let error = NfcDisk::open(source, PATH, Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(error, Error::AuthdRefused { command: "PROXY", .. }), "{error}");
    assert!(error.is_retryable() && error.hint().is_some());
    assert!(!format!("{error:?} {error}").contains("52000000"), "the ticket leaked");
    assert!((1..=2).contains(&asked.load(Ordering::SeqCst)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_that_repeats_the_ticket_does_not_bring_it_into_the_error() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let text = "Invalid arguments: SESSION 52000000-00000000\x1b[2J".to_owned();
    host.server.inject(Step::Proxy, FaultAction::Error { code: 501, text });
    let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
    let Error::AuthdRefused { command: "PROXY", line, .. } = &error else { panic!("{error}") };
    assert_eq!(line, "501 Invalid arguments: SESSION (redacted) [2J");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_with_a_nul_costs_no_ticket() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let error =
        NfcDisk::open(host.tickets(), "[ds1] web/web.vmdk\0.vmdk", Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
    assert_eq!(host.backend.issued.load(Ordering::SeqCst), 0);
}
