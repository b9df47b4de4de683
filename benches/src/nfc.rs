//! How fast does a disk come over NFC, in clear and encrypted, near and far, and what does that cost?
//!
//! The limit is a bare TCP or TLS stream that moves the same bytes between the same two processes in the same run;
//! nothing that speaks a protocol can be faster. Server and limit run in a process of their own, so that the client's
//! processor time is its own. A longer way is a delay line in front of the server that holds every byte back for half
//! a round trip in each direction; the round trip that counts is the one measured through it.
//!
//! Fields of a far line: the disk's session allows `size x count` bytes in flight, so no client can get more than that
//! per round trip. One request in flight is what most other programs do.

mod bare;
mod client;
mod delay;
mod memory;
mod peer;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use self::client::Way;
use self::peer::Peer;
use crate::{megabytes_per_second, verdict};

/// What a session of ours asks for: 4 buffers of 1 MiB.
const BUFFER: u64 = 1 << 20;
const BUFFERS: u64 = 4;

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(2).peekable();
    match arguments.peek().map(String::as_str) {
        Some("--serve") => return peer::serve(arguments.skip(1)),
        Some("--hold") => return memory::hold(arguments.skip(1)),
        _ => {}
    }
    let options = Options::parse(arguments)?;
    for channel in [Channel::Tls, Channel::Clear] {
        for rtt in &options.round_trips {
            line(&options, channel, *rtt)?;
        }
    }
    memory::per_disk()
}

/// Everything about one channel at one distance.
fn line(options: &Options, channel: Channel, rtt: Duration) -> Result<(), Box<dyn Error>> {
    let peer = Arc::new(Peer::start(rtt)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let name = channel.name();
    let away = format!("{name} +{} ms", rtt.as_millis());
    let seen = runtime.block_on(bare::round_trip(&peer))?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("{away}: a byte and back takes {:.2} ms", ms(seen));
    let amount = options.amount;
    for way in [Way::Read, Way::Write] {
        // Turns, so that what disturbs the machine for a while disturbs all alike.
        let mut limit = Rate::default();
        let mut many = Rate::default();
        let mut one = Rate::default();
        for _ in 0..options.rounds {
            // As tasks, which is where programs have such work: `block_on` is one more thread than the machine has.
            let run =
                |depth| runtime.block_on(runtime.spawn(client::run(Arc::clone(&peer), channel, way, depth, amount)));
            limit.better(runtime.block_on(runtime.spawn(bare::stream(Arc::clone(&peer), channel, way, amount)))??);
            many.better(run(client::DEPTH)?.map_err(|error| error.to_string())?);
            one.better(run(1)?.map_err(|error| error.to_string())?);
        }
        let of_limit = many.speed() / limit.speed();
        println!(
            "figure: nfc {away} {way} {:.0} MB/s, bare stream {:.0} MB/s, one in flight {:.0} MB/s ({} bytes)",
            many.speed(),
            limit.speed(),
            one.speed(),
            many.bytes
        );
        println!(
            "figure: nfc {away} {way} {:.2} CPU s/GiB of the client, the bare stream's {:.2}",
            many.cpu_per_gib(),
            limit.cpu_per_gib()
        );
        if rtt.is_zero() {
            println!("figure: nfc {away} {way} {of_limit:.2} of the limit (bar 0.8: {})", verdict(of_limit >= 0.8));
            continue;
        }
        let window = megabytes_per_second(BUFFER * BUFFERS, seen);
        let allowed = window.min(limit.speed());
        let (of_allowed, of_one) = (many.speed() / allowed, many.speed() / one.speed());
        let bars = rtt == Duration::from_millis(10);
        let bar = |bar: &str, met: bool| if bars { format!(" (bar {bar}: {})", verdict(met)) } else { String::new() };
        println!(
            "figure: nfc {away} {way} {of_allowed:.2} of what {BUFFERS} x {BUFFER} bytes in flight allow{}, {of_one:.2} \
             times one in flight{}",
            bar("0.8", of_allowed >= 0.8),
            bar("3", of_one >= 3.0)
        );
    }
    Ok(())
}

/// Bytes moved, and what that took.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    bytes: u64,
    wall: Duration,
    cpu: Duration,
}

impl Rate {
    /// Keeps the faster of both: what disturbs a run makes it slower, never faster.
    fn better(&mut self, other: Self) {
        if self.bytes == 0 || other.speed() > self.speed() {
            *self = other;
        }
    }

    /// In megabytes a second.
    fn speed(&self) -> f64 {
        megabytes_per_second(self.bytes, self.wall)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures are shown with two digits")]
    fn cpu_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / f64::from(1 << 30))
    }
}

/// How the bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Tls,
    Clear,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Tls => "nbdssl",
            Self::Clear => "nbd",
        }
    }
}

/// How much is moved.
#[derive(Debug, Clone, Copy)]
struct Amount {
    /// Moved in every measurement that does not run out of patience before.
    bytes: u64,
    /// The longest time of one measurement: one request in flight over 50 ms would take minutes.
    patience: Duration,
    /// The most bytes of a request; `None` for the client's own choice.
    request: Option<u32>,
}

/// What the command line says after the question's name.
struct Options {
    amount: Amount,
    rounds: u32,
    round_trips: Vec<Duration>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let ms = Duration::from_millis;
        let amount = Amount { bytes: 8 << 30, patience: ms(20_000), request: None };
        let mut options = Self { amount, rounds: 1, round_trips: vec![ms(0), ms(1), ms(10), ms(50)] };
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--mib" => options.amount.bytes = value.parse::<u64>()? << 20,
                "--patience" => options.amount.patience = Duration::from_secs(value.parse()?),
                "--request" => options.amount.request = Some(value.parse::<u32>()? << 10),
                "--rounds" => options.rounds = value.parse()?,
                "--rtt" => options.round_trips = vec![ms(value.parse()?)],
                _ => {
                    let known = "--mib, --patience (s), --rounds, --rtt (ms), --request (KiB)";
                    return Err(format!("{flag} is not known: {known}").into());
                }
            }
        }
        Ok(options)
    }
}
