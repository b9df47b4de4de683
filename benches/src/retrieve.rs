//! How fast is a large inventory read through the public API, and how much memory does that take?
//!
//! 10 000 machines with their devices come page by page from a server in memory. The limit is a scan of the same
//! bytes with quick-xml that makes no values; the peer is pyVmomi, which makes objects as we do.

mod inventory;
mod memory;
mod peer;
mod server;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use vsphere_vim::Vim;
use vsphere_vim_types::mo::VirtualMachine;
use vsphere_vim_types::soap::{self, Limits};
use vsphere_vim_types::{
    Poly, PropertyPath, RetrieveResult, VirtualDevice, VirtualDisk, VirtualMachinePowerState,
    VirtualMachineSnapshotInfo, methods,
};

use self::inventory::Inventory;
use self::server::Server;
use crate::{best, megabytes_per_second, verdict};

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    if let Some(machines) = memory::asked() {
        return memory::measure(machines);
    }
    let pages: Vec<Bytes> = Inventory { machines: MACHINES, per_page: PER_PAGE }.pages().collect();
    let streamed = against_the_scan(&pages)?;
    against_the_peer(&pages[..PEER_PAGES], streamed)?;
    drop(pages);
    peak_memory()
}

/// The rate of the stream, in MB/s.
fn against_the_scan(pages: &[Bytes]) -> Result<f64, Box<dyn Error>> {
    let times = times(pages)?;
    let [streamed, decoded, scanned] = times.map(|time| rate(pages, time));
    let rows = MACHINES as f64 / times[0].as_secs_f64();
    println!("figure: vim-retrieve stream of {MACHINES} machines {rows:.0} rows/s, {streamed:.0} MB/s of XML");
    println!("figure: vim-retrieve bare decoder {decoded:.0} MB/s");
    println!("figure: vim-retrieve bare scan with quick-xml {scanned:.0} MB/s");
    for (what, ratio) in [("stream", streamed / scanned), ("bare decoder", decoded / scanned)] {
        let met = verdict(ratio >= BAR_OF_SCAN);
        println!("figure: vim-retrieve {what} {ratio:.2} of the bare scan (bar {BAR_OF_SCAN}: {met})");
    }
    Ok(streamed)
}

fn against_the_peer(pages: &[Bytes], streamed: f64) -> Result<(), Box<dyn Error>> {
    let machines = pages.len() * PER_PAGE;
    let Some(time) = peer::time(pages, machines)? else {
        println!("NOT MEASURED: no pyVmomi; run scripts/install-peers or name a Python in PYVMOMI_PYTHON");
        return Ok(());
    };
    let theirs = rate(pages, time);
    let (ratio, met) = (streamed / theirs, verdict(streamed / theirs >= BAR_OF_PEER));
    println!("figure: vim-retrieve pyVmomi {theirs:.2} MB/s ({machines} machines)");
    println!("figure: vim-retrieve stream {ratio:.0} times pyVmomi (bar {BAR_OF_PEER}: {met})");
    Ok(())
}

fn peak_memory() -> Result<(), Box<dyn Error>> {
    let (few, all) = (memory::of_walk(FEW)?, memory::of_walk(MACHINES)?);
    let (growth, met) = (all as f64 / few as f64, verdict(all as f64 <= BAR_OF_MEMORY * few as f64));
    let each = all.saturating_sub(few) / (MACHINES - FEW) as u64;
    println!("figure: vim-retrieve peak memory {} KiB for {FEW} machines, {} KiB for {MACHINES}", few >> 10, all >> 10);
    println!(
        "figure: vim-retrieve peak memory grows {growth:.2} times, {each} bytes a machine (bar {BAR_OF_MEMORY}: {met})"
    );
    Ok(())
}

fn rate(pages: &[Bytes], time: Duration) -> f64 {
    megabytes_per_second(pages.iter().map(|page| page.len() as u64).sum(), time)
}

/// The best times of the stream, the bare decoder and the bare scan. They take turns, so that a busy moment of the
/// machine disturbs all alike.
fn times(pages: &[Bytes]) -> Result<[Duration; 3], Box<dyn Error>> {
    let runtime = runtime()?;
    let served = pages.to_vec();
    let vim = runtime.block_on(Server::connect(move |at| served.get(at).cloned()))?;
    let mut times = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        let now = [
            best(1, || assert_eq!(runtime.block_on(walk(&vim)).ok(), Some(MACHINES))),
            best(1, || {
                assert_eq!(pages.iter().enumerate().map(|(at, page)| decode(at, page)).sum::<usize>(), MACHINES)
            }),
            best(1, || pages.iter().map(|page| scan(page)).sum::<usize>()),
        ];
        times = std::array::from_fn(|at| times[at].min(now[at]));
    }
    runtime.block_on(vim.logout())?;
    Ok(times)
}

/// Through the public API; how many rows came whole.
async fn walk(vim: &Vim) -> vsphere_vim::Result<usize> {
    let selection = (
        VirtualMachine::NAME,
        PropertyPath::<VirtualMachine, Vec<Poly<VirtualDevice>>>::new("config.hardware.device"),
        PropertyPath::<VirtualMachine, String>::new("config.uuid"),
        PropertyPath::<VirtualMachine, VirtualMachinePowerState>::new("runtime.powerState"),
        PropertyPath::<VirtualMachine, VirtualMachineSnapshotInfo>::new("snapshot"),
    );
    let mut rows = vim.properties::<VirtualMachine>().select(selection).page_size(PER_PAGE as u32).stream();
    let mut whole = 0;
    while let Some(row) = rows.try_next().await? {
        let (name, devices, uuid, power, snapshot) = row.values;
        let required = (name.present(), devices.present(), uuid.present(), power.present());
        if let (Some(_), Some(devices), Some(_), Some(_)) = required
            && devices.len() == DEVICES
            && devices.iter().filter_map(|device| device.downcast_ref()).map(capacity).sum::<i64>() == CAPACITY
            && snapshot.missing().is_none()
        {
            whole += 1;
        }
    }
    Ok(whole)
}

fn capacity(disk: &VirtualDisk) -> i64 {
    disk.capacity_in_bytes.unwrap_or_default()
}

/// One page into values; how many objects it has.
fn decode(at: usize, page: &[u8]) -> usize {
    let result: Option<RetrieveResult> = match at {
        0 => soap::decode_response::<methods::RetrievePropertiesEx>(page, Limits::default()).ok().flatten(),
        _ => soap::decode_response::<methods::ContinueRetrievePropertiesEx>(page, Limits::default()).ok(),
    };
    std::hint::black_box(result).map_or(0, |result| result.objects.len())
}

/// One page without making or checking anything; how many events it has.
fn scan(page: &[u8]) -> usize {
    let mut reader = quick_xml::Reader::from_str(std::str::from_utf8(page).unwrap_or_default());
    reader.config_mut().check_end_names = false;
    let mut events = 0;
    while !matches!(reader.read_event(), Ok(quick_xml::events::Event::Eof) | Err(_)) {
        events += 1;
    }
    events
}

/// One thread, as each of the others has.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

const MACHINES: usize = 10_000;
/// For comparison of peak memory.
const FEW: usize = 1_000;
const PER_PAGE: usize = 200;
const DEVICES: usize = 15;
/// Of a machine's two disks.
const CAPACITY: i64 = 140 << 30;
const ROUNDS: u32 = 7;
/// The peer is slow; it need not read it all.
const PEER_PAGES: usize = 5;

const BAR_OF_SCAN: f64 = 0.4;
const BAR_OF_PEER: f64 = 30.0;
const BAR_OF_MEMORY: f64 = 1.25;
