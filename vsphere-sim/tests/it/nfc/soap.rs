//! Disks whose tickets come from SOAP sessions, as real ones do: neither side keeps anything of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use vsphere_nfc::{BoxFuture, Ticket, TicketError, TicketSource};
use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim_types::ManagedObjectReference;

use super::disk::{MIB, pattern};
use super::leaks::{Chance, Left, cycle, sockets_of, until};
use crate::client::{self, Client};
use crate::disks;

#[test]
fn hundred_logins_with_random_failures_leave_nothing() {
    logins(100);
}

/// Takes minutes: `cargo test -p vsphere-sim --test it -- --ignored --nocapture ten_thousand`.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_logins_with_random_failures_leave_nothing() {
    logins(10_000);
}

/// The name of the runtime's threads, blocking ones included.
const THREAD: &str = "nfc-logins";
/// Threads of the server's disks.
const BLOCKING: usize = 8;
/// How long a ticket is good that nobody came to redeem.
const LIFETIME: Duration = Duration::from_secs(2);

/// Logs in, opens a disk, with something that goes wrong in it, or not, and logs out; counts what is left.
fn logins(count: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(THREAD)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .unwrap();
    let sim = runtime.block_on(async {
        let spec = VmSpec::new("web").disk(DiskSpec::empty(MIB));
        let sim = Simulator::builder().vm(spec).ticket_lifetime(LIFETIME).start().await.unwrap();
        let vm = sim.vm("web").unwrap();
        vm.set_power(Power::Off).unwrap();
        vm.disk(2000).unwrap().write_at(0, &pattern(0, MIB)).unwrap();
        sim
    });
    let (mut chance, issued) = (Chance(0x51_7CC1), Arc::<AtomicU64>::default());
    runtime.block_on(async {
        for _ in 0..20 {
            let _ = login(&sim, &mut Chance(chance.next()), &issued).await;
        }
        settle(&sim).await;
    });
    let ports = [sim.address().port(), sim.nfc_address().port()];
    let before = Left::now(&runtime, &ports, THREAD);
    let (mut well, mut failed) = (0, 0);
    runtime.block_on(async {
        for _ in 0..count {
            match login(&sim, &mut chance, &issued).await {
                Ok(()) => well += 1,
                Err(_) => failed += 1,
            }
        }
        settle(&sim).await;
    });
    let after = until(&runtime, &ports, THREAD, &before);
    let (logins, issued, left) = (sim.logins(), issued.load(Ordering::SeqCst), sim.leftovers());
    println!(
        "{count} logins: {well} well, {failed} failed; before {before:?}, after {after:?}; {logins} sessions begun, \
         {} left; {issued} tickets, {} left; {} connections, {} open",
        left.sessions,
        left.tickets,
        sim.nfc().counters().connections_total(),
        left.nfc_connections,
    );
    assert!(well > count / 10 && failed > count / 10, "{well} went well, {failed} failed");
    assert_eq!(logins, u64::from(count) + 20);
    assert!(left.is_clean(), "{left}");
    assert!(issued >= logins && issued >= sim.nfc().counters().connections_total(), "{issued} tickets");
    assert!(after.tasks <= before.tasks && after.threads <= 2 + BLOCKING, "{before:?} {after:?}");
    assert_eq!(ports.map(sockets_of), [0, 0], "{before:?} {after:?}");
}

/// One session with one disk's life in it.
async fn login(sim: &Simulator, chance: &mut Chance, issued: &Arc<AtomicU64>) -> Result<(), vsphere_nfc::Error> {
    let client = Arc::new(Mutex::new(Client::login(sim).await));
    let tickets =
        SessionTickets { client: Arc::clone(&client), vm: client::vm(sim, "web"), issued: Arc::clone(issued) };
    let end = cycle(sim.nfc(), Arc::new(tickets), chance).await;
    client.lock().await.logout().await;
    end
}

/// Waits until the server has noticed that everyone is gone, and tickets that nobody redeemed have expired.
async fn settle(sim: &Simulator) {
    let left = sim.settled(Duration::from_secs(10)).await;
    assert!(left.is_clean(), "{left}");
}

/// Tickets for writing, asked for in one session.
struct SessionTickets {
    client: Arc<Mutex<Client>>,
    vm: ManagedObjectReference,
    issued: Arc<AtomicU64>,
}

impl TicketSource for SessionTickets {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        Box::pin(async {
            let ticket = disks::ticket(&mut *self.client.lock().await, &self.vm, 2000, true).await;
            self.issued.fetch_add(1, Ordering::SeqCst);
            Ok(disks::taken(ticket))
        })
    }
}
