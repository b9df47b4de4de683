//! Rows 1 and 2: tickets.

use std::sync::Arc;

use vsphere_nfc::{Error, Mode, NfcDisk, Phase, UnpinnedTickets};
use vsphere_sim::nfc::TicketRefusal;

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
