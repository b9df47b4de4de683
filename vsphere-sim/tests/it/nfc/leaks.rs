//! Nothing is left behind: connections, files, tickets, sockets, threads, tasks.

use vsphere_nfc::Mode;

use super::disk::{MIB, MemoryDisk};
use super::host::{Host, patient};

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
