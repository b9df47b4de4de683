//! Nothing is left behind: connections, files, memory, tickets, sockets, threads, tasks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use vsphere_nfc::{Channel, Error, Mode, NfcDisk, NfcOptions, Retry, TicketSource, Timeouts};
use vsphere_sim::nfc::{Cut, FaultAction, NfcServer, Step};

use super::disk::{CHUNK, MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, patient};

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

#[test]
fn three_hundred_cycles_with_random_failures_leave_nothing() {
    cycles(300);
}

/// Takes minutes: `cargo test -p vsphere-sim --test it -- --ignored --nocapture ten_thousand`.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_cycles_with_random_failures_leave_nothing() {
    cycles(10_000);
}

/// The name of the runtime's threads, blocking ones included.
const THREAD: &str = "nfc-cycles";

/// Threads of the server's disks.
const BLOCKING: usize = 8;

/// Opens, uses and closes disks, each time with something else going wrong, and counts on both
/// sides what is left.
fn cycles(count: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(THREAD)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .unwrap();
    let (host, mut chance) = (runtime.block_on(Host::writing(MemoryDisk::filled(MIB, MIB))), Chance(0x9E37_79B9));
    let (counters, port) = (host.server.counters(), host.server.local_addr().port());
    let (mut well, mut failed) = (0, 0);
    // The first cycles start what stays: blocking threads, the listener's task.
    let mut expired = 0;
    runtime.block_on(async {
        for _ in 0..20 {
            let _ = cycle(&host.server, host.tickets(), &mut Chance(chance.next())).await;
        }
        expired += settle(&host).await;
    });
    let before = Left::now(&runtime, &[port], THREAD);
    runtime.block_on(async {
        for _ in 0..count {
            match cycle(&host.server, host.tickets(), &mut chance).await {
                Ok(()) => well += 1,
                Err(_) => failed += 1,
            }
        }
        expired += settle(&host).await;
    });
    let after = until(&runtime, &[port], THREAD, &before);
    let tickets = Tickets::of(&host, expired);
    println!("{count} cycles: {well} well, {failed} failed; before {before:?}, after {after:?}; {tickets:?}");
    assert!(well > count / 10 && failed > count / 10, "{well} went well, {failed} failed");
    assert_eq!((counters.connections_open(), counters.handed_over()), (0, 0));
    assert_eq!((counters.files_open(), counters.memory_in_use()), (0, 0));
    // Every connection asks for a ticket of its own, and every ticket's fate is known.
    assert_eq!((tickets.outstanding, tickets.issued), (0, tickets.redeemed + tickets.expired), "{tickets:?}");
    assert!(tickets.issued >= count && u64::from(tickets.issued) >= counters.connections_total(), "{tickets:?}");
    assert!(after.tasks <= before.tasks, "{before:?} {after:?}");
    assert_eq!(after.sockets, 0, "{before:?} {after:?}");
    assert!(after.threads <= 2 + BLOCKING, "{before:?} {after:?}");
    // The host still works.
    runtime.block_on(async {
        host.server.forget_injected();
        host.server.configure(|config| config.cut = None);
        let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
        assert!(disk.read_at(MIB / 2, 4096).await.unwrap() == pattern(MIB / 2, 4096));
        disk.close().await.unwrap();
    });
}

/// What is left when there are no more tasks than before and no sockets, or after a while.
pub(super) fn until(runtime: &tokio::runtime::Runtime, ports: &[u16], thread: &str, before: &Left) -> Left {
    // Tasks that were aborted go with the next turn of their worker.
    let mut after = Left::now(runtime, ports, thread);
    for _ in 0..200 {
        if after.tasks <= before.tasks && after.sockets == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        after = Left::now(runtime, ports, thread);
    }
    after
}

/// Waits until the server has noticed that everyone is gone, and lets the tickets expire whose
/// connections never came to redeem them. Returns how many those were.
async fn settle(host: &Host) -> u32 {
    host.assert_no_connections().await;
    let mut tickets = host.backend.tickets.lock().unwrap();
    tickets.drain().count() as u32
}

/// What became of all tickets that a host gave out.
#[derive(Debug)]
struct Tickets {
    issued: u32,
    redeemed: u32,
    expired: u32,
    outstanding: u32,
}

impl Tickets {
    fn of(host: &Host, expired: u32) -> Self {
        Self {
            issued: host.backend.issued.load(Ordering::SeqCst),
            redeemed: host.backend.redeemed.load(Ordering::SeqCst),
            expired,
            outstanding: host.backend.tickets.lock().unwrap().len() as u32,
        }
    }
}

/// One disk's life, with something that goes wrong in it, or not.
pub(super) async fn cycle(
    server: &NfcServer,
    tickets: Arc<dyn TicketSource>,
    chance: &mut Chance,
) -> Result<(), Error> {
    const STEPS: [Step; 12] = [
        Step::Banner,
        Step::Proxy,
        Step::SessionStart,
        Step::AioOpen,
        Step::OpenSession,
        Step::OpenFile,
        Step::Read,
        Step::Write,
        Step::QueryAllocated,
        Step::DdbGet,
        Step::CloseFile,
        Step::CloseSession,
    ];
    server.forget_injected();
    let cut = match chance.below(4) {
        0 => Some(Cut::Sent(chance.below(12_000))),
        1 => Some(Cut::Received(chance.below(12_000))),
        _ => None,
    };
    let reset = chance.below(2) == 0;
    server.configure(|config| (config.cut, config.reset_on_cut) = (cut, reset));
    if chance.below(3) == 0 {
        let step = STEPS[chance.below(STEPS.len() as u64) as usize];
        let action = match chance.below(8) {
            0..=1 => FaultAction::Error { code: chance.below(50) as u32, text: "by chance".into() },
            2 => FaultAction::Bytes((0..chance.below(300)).map(|_| chance.next() as u8).collect()),
            _ => FaultAction::Close,
        };
        server.inject(step, action);
    }
    let channel = if chance.below(2) == 0 { Channel::Tls } else { Channel::Clear };
    let mode = if chance.below(2) == 0 { Mode::ReadOnly } else { Mode::ReadWrite };
    let mut options = NfcOptions::default().channel(channel).timeouts(Timeouts::all(Duration::from_millis(250)));
    options.reconnect = chance.below(2) == 0;
    options.retry = Retry { attempts: 1, ..Retry::default() };
    let disk = Arc::new(NfcDisk::open(tickets, PATH, mode, options).await?);
    // Some callers lose interest.
    let patience = Duration::from_micros(200 + chance.below(20_000));
    let work = async {
        disk.query_allocated(0..MIB, CHUNK).await?;
        disk.metadata("adapterType").await?;
        let (one, two) = tokio::join!(disk.read_at(0, 8192), disk.read_at(MIB / 2, 8192));
        assert!(one? == pattern(0, 8192));
        assert!(two? == pattern(MIB / 2, 8192));
        if mode == Mode::ReadWrite {
            disk.write_at(0, Bytes::from(pattern(0, 8192))).await?;
        }
        Ok(())
    };
    let worked = tokio::time::timeout(patience, work).await;
    let close = chance.below(3) != 0;
    let closed = match Arc::into_inner(disk) {
        Some(disk) if close => disk.close().await,
        _ => Ok(()),
    };
    worked.unwrap_or(Ok(())).and(closed)
}

/// What there is of one runtime and one host, on both sides of its connections.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) tasks: usize,
    /// Sockets of the host's ports that some file descriptor holds, but for the listener.
    sockets: usize,
    pub(super) threads: usize,
}

impl Left {
    pub(super) fn now(runtime: &tokio::runtime::Runtime, ports: &[u16], name: &str) -> Self {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let is_ours = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        Self {
            tasks: runtime.metrics().num_alive_tasks(),
            sockets: ports.iter().map(|port| sockets_of(*port)).sum(),
            threads: threads.filter(is_ours).count(),
        }
    }
}

/// Lines of the kernel's table that have the port on either side and belong to a descriptor.
pub(super) fn sockets_of(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|line| line[1].ends_with(&port) || line[2].ends_with(&port))
        .filter(|line| line[3] != LISTEN && line[9] != "0")
        .count()
}

/// Numbers that look random and are the same every time: splitmix64.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
