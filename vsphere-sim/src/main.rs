//! The simulator as a program: a server to point backup software at.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::filter::LevelFilter;
use vsphere_sim::{DiskSpec, Personality, Power, Simulator, SimulatorBuilder, VmSpec};

const USAGE: &str = "\
A vCenter/ESXi simulator with changed block tracking, snapshots and real disks.

usage: vsphere-sim [options]
  --vm NAME               a virtual machine; the disk options after it are its disks
  --disk FILE             a disk with the bytes of FILE (raw, or VMDK by its content or name)
  --empty-disk SIZE       a disk of zeros; K, M, G and T are powers of 1024
  --write-through         the disk before this writes into FILE itself instead of a layer over it
  --cbt                   the VM before this has changed block tracking on from the beginning
  --off                   the VM before this is powered off
  --esxi                  be an ESXi host instead of a vCenter
  --listen ADDR:PORT      where HTTPS listens (default 127.0.0.1:8989)
  --nfc-listen ADDR:PORT  where the 902 server listens (default 127.0.0.1:0, any free port)
  --advertise ADDR        the address that tickets and URLs name
  --data-dir DIR          where layers are kept (default: a temporary directory)
  --username NAME         (default administrator@vsphere.local)
  --password PASSWORD     (default simulated)
  --max-areas N           most areas in one answer of QueryChangedDiskAreas (default 2000)
  --task-delay MS         how long every task takes at least
  --control               serve /sim/... for tests in other processes, without a login
  --thumbprint-file FILE  write url=, user=, password=, sha1=, sha256=, nfc= lines to FILE once it listens
  --help
Logs go to standard error; RUST_LOG=debug shows every call. SIGINT and SIGTERM end it.
";

fn main() -> ExitCode {
    // One level for all: filters by target would pull in a regular expression engine.
    let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::WARN);
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("vsphere-sim: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprint!("vsphere-sim: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let sim = options.builder.start().await?;
    let facts = [
        ("url", sim.url()),
        ("user", sim.username().to_owned()),
        ("password", sim.password().to_owned()),
        ("sha1", sim.thumbprint_sha1()),
        ("sha256", sim.thumbprint_sha256()),
        ("nfc", sim.nfc_address().to_string()),
    ];
    let text: String = facts.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    if let Some(path) = &options.thumbprint_file {
        // Renamed into place: whoever waits for the file finds it whole.
        let partial = path.with_extension("partial");
        std::fs::write(&partial, &text)?;
        std::fs::rename(&partial, path)?;
    }
    print!("{text}");
    wait_for_signal().await?;
    let left = sim.leftovers();
    if !left.is_clean() {
        eprintln!("left behind by clients:");
        eprint!("{left}");
    }
    sim.shutdown().await;
    Ok(())
}

async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

struct Options {
    builder: SimulatorBuilder,
    thumbprint_file: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: Vec<String>) -> Result<Self, String> {
        let mut builder = Simulator::builder().listen(SocketAddr::from(([127, 0, 0, 1], 8989)));
        let mut thumbprint_file = None;
        let mut credentials = ("administrator@vsphere.local".to_owned(), "simulated".to_owned());
        let mut tracking = vsphere_sim::storage::TrackingOptions::default();
        let mut vms: Vec<(VmSpec, Vec<DiskSpec>)> = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
            match option.as_str() {
                "--vm" => vms.push((VmSpec::new(&value()?), Vec::new())),
                "--disk" => last(&mut vms, &option)?.1.push(disk_file(&value()?)),
                "--empty-disk" => last(&mut vms, &option)?.1.push(DiskSpec::empty(size(&value()?)?)),
                "--write-through" => {
                    let disks = &mut last(&mut vms, &option)?.1;
                    let disk = disks.pop().ok_or("--write-through needs a disk before it")?;
                    disks.push(disk.write_through());
                }
                "--cbt" => change(&mut vms, &option, |vm| vm.change_tracking(true))?,
                "--off" => change(&mut vms, &option, |vm| vm.power(Power::Off))?,
                "--control" => builder = builder.control(true),
                "--esxi" => builder = builder.personality(Personality::Esxi),
                "--listen" => builder = builder.listen(parsed::<SocketAddr>(&option, &value()?)?),
                "--nfc-listen" => builder = builder.nfc_listen(parsed::<SocketAddr>(&option, &value()?)?),
                "--advertise" => builder = builder.advertise(parsed::<IpAddr>(&option, &value()?)?),
                "--data-dir" => builder = builder.data_dir(value()?),
                "--username" => credentials.0 = value()?,
                "--password" => credentials.1 = value()?,
                "--max-areas" => tracking.max_areas = parsed(&option, &value()?)?,
                "--task-delay" => {
                    builder = builder.task_delay(std::time::Duration::from_millis(parsed(&option, &value()?)?))
                }
                "--thumbprint-file" => thumbprint_file = Some(PathBuf::from(value()?)),
                other => return Err(format!("unknown option {other}")),
            }
        }
        if vms.is_empty() {
            vms.push((VmSpec::new("vm1").change_tracking(true), vec![DiskSpec::empty(1 << 30)]));
        }
        builder = builder.credentials(&credentials.0, &credentials.1).tracking(tracking);
        for (vm, disks) in vms {
            builder = builder.vm(disks.into_iter().fold(vm, VmSpec::disk));
        }
        Ok(Self { builder, thumbprint_file })
    }
}

type VmWithDisks = (VmSpec, Vec<DiskSpec>);

fn last<'a>(vms: &'a mut [VmWithDisks], option: &str) -> Result<&'a mut VmWithDisks, String> {
    vms.last_mut().ok_or_else(|| format!("{option} needs a --vm before it"))
}

fn change(vms: &mut [VmWithDisks], option: &str, change: impl FnOnce(VmSpec) -> VmSpec) -> Result<(), String> {
    let (vm, _) = last(vms, option)?;
    *vm = change(vm.clone());
    Ok(())
}

fn parsed<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{option}: {value} is not understood"))
}

/// A raw file, or a VMDK when its name or its first bytes say so.
fn disk_file(path: &str) -> DiskSpec {
    let mut head = [0; 21];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut head)).unwrap_or(0);
    let head = &head[..read];
    if path.ends_with(".vmdk") || head.starts_with(b"KDMV") || head.starts_with(b"# Disk DescriptorFile") {
        DiskSpec::vmdk_file(path)
    } else {
        DiskSpec::raw_file(path)
    }
}

/// `64M` in bytes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        other => return Err(format!("unknown unit {other}")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text} is not a size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}
