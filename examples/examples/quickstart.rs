//! A backup end to end on the embedded simulator: full backup, guest writes, incremental backup of only the changed
//! areas, restore of the first point in place, and proof that every byte is right.
//!
//! ```sh
//! cargo run -p examples --example quickstart                       # a FAT32 disk made in Rust
//! cargo run -p examples --example quickstart -- --disk disk.vmdk   # your image, raw or VMDK; it is not changed
//! ```
//! `--keep DIR` keeps the repository and the restored image there; `--format raw|vmdk|sparse` says as what the image
//! is restored.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use examples::args::Args;
use examples::guest_fs::{GuestDisk, Noise, list_files, write_files};
use examples::show::{self, Progress, bytes, seconds};
use examples::world::{connect, make_image};
use vmdk::{Disk, OpenOptions};
use vsphere_backup::repository::{CreateOptions, RecoveryPoint, Repository, VerifyLevel};
use vsphere_backup::{Backup, BackupReport, CancelToken, Event, FileFormat, Restore, RestoreMode};
use vsphere_cbt::EnableOptions;
use vsphere_sim::{DiskHandle, DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{MoRef, Vim, VmLookup, mo};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The device key of a virtual machine's first SCSI disk.
const DISK: i32 = 2000;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::read(&["disk=", "keep=", "format="])?;
    let folder = tempfile::tempdir()?;
    let keep = args.get("keep").map(PathBuf::from);
    let work = keep.clone().unwrap_or_else(|| folder.path().to_owned());
    std::fs::create_dir_all(&work)?;

    // The machine's disk: the user's image, which stays as it is, or a file system of our own.
    let own = args.get("disk").is_none();
    let image = args.get("disk").map_or_else(|| folder.path().join("web.img"), PathBuf::from);
    if own {
        let making = Progress::begin("making a FAT32 disk of 512 MiB with 2000 files");
        make_image(&image, 512 << 20, 2000)?;
        making.end();
    }
    let original = Disk::open(&image, &OpenOptions::new())?;
    let spec = if is_vmdk(&original) { DiskSpec::vmdk_file(&image) } else { DiskSpec::raw_file(&image) };
    let simulator = Simulator::builder().vm(VmSpec::new("web").disk(spec)).start().await?;
    let guest = simulator.guest("web")?.disk(DISK)?;
    println!("simulated vCenter at {}, machine web, disk of {}", simulator.url(), bytes(original.capacity()));

    let run = Run { vim: connect(&simulator).await?, simulator, guest, original, own, work, rows: Vec::new() };
    run.all(args.get("format")).await?;
    if let Some(keep) = keep {
        println!("kept in {}", keep.display());
    }
    println!("verified");
    Ok(())
}

/// The run's parts, and the rows of the table at its end.
struct Run {
    vim: Vim,
    simulator: Simulator,
    guest: DiskHandle,
    original: Disk,
    /// The disk is ours: its file system is known.
    own: bool,
    work: PathBuf,
    rows: Vec<Vec<String>>,
}

impl Run {
    async fn all(mut self, format: Option<&str>) -> Result<()> {
        let vm = self.simulator.vm("web")?;
        let moref = self.vim.find_vm(&VmLookup::InventoryPath(vm.inventory_path())).await?.moref;

        let step = Progress::begin("enabling changed block tracking");
        vsphere_cbt::enable(&self.vim, &moref, EnableOptions::default()).await?;
        step.end();

        let repository = Repository::create_local(self.work.join("repository"), CreateOptions::default()).await?;
        let first = self.back_up("full backup", &repository, &moref).await?;
        let files = if self.own { Some(list_files(&self.guest)?) } else { None };

        let written = self.guest_writes()?;
        let before = self.guest.counters().nfc_read;
        let second = self.back_up("incremental backup", &repository, &moref).await?;
        println!(
            "  the guest wrote {}; {} changed, {} read over the wire",
            bytes(written),
            bytes(second.bytes().changed),
            bytes(self.guest.counters().nfc_read - before)
        );

        for (name, report) in [("first", &first), ("second", &second)] {
            let mut step = Progress::begin(&format!("verifying the {name} point"));
            let never = CancelToken::new();
            let checked = report.point.verify(VerifyLevel::Full, &never, |done, all| step.at(done, all)).await?;
            step.end();
            if !checked.is_sound() {
                return Err(format!("damage in the repository: {:?}", checked.damage).into());
            }
        }

        // The second point is what the guest has now; the first is what it had before it wrote.
        let scratch = self.work.join("second.img");
        self.restore_file(&second.point, "second point to a raw file", &scratch, FileFormat::Raw).await?;
        compare("the second point", &Disk::open_raw(&scratch, vmdk::Access::ReadOnly)?, &self.guest)?;
        std::fs::remove_file(&scratch)?;

        vm.set_power(Power::Off)?;
        self.restore_in_place(&first.point, &moref).await?;
        compare("the machine's disk", &self.original, &self.guest)?;
        if files.is_some_and(|files| list_files(&self.guest).ok() != Some(files)) {
            return Err("the file system's list of files is not what it was".into());
        }

        let (name, format) = match format {
            None | Some("raw") => ("restored.img", FileFormat::Raw),
            Some("vmdk") => ("restored.vmdk", FileFormat::VmdkFlat),
            Some("sparse") => ("restored.vmdk", FileFormat::VmdkSparse),
            Some(other) => return Err(format!("--format {other}: raw, vmdk or sparse").into()),
        };
        self.restore_file(&first.point, "first point to a file", &self.work.join(name), format).await?;

        self.vim.logout().await?;
        let left = self.simulator.settled(Duration::from_secs(2)).await;
        if !left.is_clean() {
            return Err(format!("left behind on the server: {left:?}").into());
        }
        println!();
        show::table(&["step", "changed", "read", "stored", "written", "time"], &self.rows);
        if let Some(peak) = show::peak_memory() {
            println!("\npeak memory of this process, simulator included: {}", bytes(peak));
        }
        self.simulator.shutdown().await;
        Ok(())
    }

    async fn back_up(
        &mut self,
        name: &str,
        repository: &Repository,
        vm: &MoRef<mo::VirtualMachine>,
    ) -> Result<BackupReport> {
        let step = Arc::new(Mutex::new(Progress::begin(name)));
        let job = Backup::of(&self.vim, vm.clone()).journal(self.work.join("journal")).on_event(watch(&step));
        let report = job.run(repository).await?;
        if !report.leftovers.is_empty() {
            return Err(format!("left behind: {:?}", report.leftovers).into());
        }
        end(step);
        for disk in &report.disks {
            println!("  {}: {:?} over {}, because {}", disk.label, disk.mode, disk.transport, disk.reason);
        }
        let sum = report.bytes();
        self.row(name, [sum.changed, sum.read, sum.stored + sum.index, 0], report.elapsed);
        Ok(report)
    }

    /// What the guest does between two backups, while the machine runs.
    fn guest_writes(&self) -> Result<u64> {
        let step = Progress::begin("the guest writes");
        let before = self.guest.counters().guest_written;
        let mut noise = Noise::new(42);
        if self.own {
            write_files(&self.guest, "later", 100, &mut noise)?;
        } else {
            // Of somebody else's disk nothing is known: 64 scattered writes of 4 KiB to 64 KiB, wherever they hit.
            for _ in 0..64 {
                let len = usize::try_from(4096 * (1 + noise.number() % 16))?;
                let data = noise.bytes(len);
                let room = GuestDisk::capacity(&self.guest).saturating_sub(data.len() as u64) / 512;
                let offset = noise.number() % room.max(1) * 512;
                GuestDisk::write_at(&self.guest, offset, &data)?;
            }
        }
        step.end();
        Ok(self.guest.counters().guest_written - before)
    }

    async fn restore_in_place(&mut self, point: &RecoveryPoint, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let name = "first point in place";
        let step = Arc::new(Mutex::new(Progress::begin(name)));
        let restore = Restore::of(point).mode(RestoreMode::OnlyDifferences).on_event(watch(&step));
        let report = restore.to_vm(&self.vim, vm.clone()).await?;
        end(step);
        let sum = |pick: fn(&vsphere_backup::RestoredDiskReport) -> u64| report.disks.iter().map(pick).sum();
        let written = sum(|disk| disk.bytes.written + disk.bytes.zeroed);
        self.row(name, [written, sum(|disk| disk.bytes.compared), 0, written], report.elapsed);
        Ok(())
    }

    async fn restore_file(&mut self, point: &RecoveryPoint, name: &str, path: &Path, format: FileFormat) -> Result<()> {
        let step = Arc::new(Mutex::new(Progress::begin(name)));
        let restore = Restore::of(point).overwrite(true).on_event(watch(&step));
        let report = restore.to_file(DISK, path, format).await?;
        end(step);
        let written = report.disks.iter().map(|disk| disk.bytes.written).sum();
        self.row(name, [0, 0, 0, written], report.elapsed);
        Ok(())
    }

    fn row(&mut self, name: &str, figures: [u64; 4], time: Duration) {
        let figures = figures.map(|figure| if figure == 0 { "-".to_owned() } else { bytes(figure) });
        self.rows.push([name.to_owned()].into_iter().chain(figures).chain([seconds(time)]).collect());
    }
}

/// Shows a job's progress events.
fn watch(step: &Arc<Mutex<Progress>>) -> impl Fn(Event) + Send + Sync + 'static {
    let step = step.clone();
    move |event| {
        if let (Event::DiskProgress { progress, .. }, Ok(mut step)) = (&event, step.lock()) {
            step.at(progress.position, progress.capacity);
        }
    }
}

fn end(step: Arc<Mutex<Progress>>) {
    // The handler that shares it is gone with the job.
    if let Some(step) = Arc::into_inner(step).and_then(|step| step.into_inner().ok()) {
        step.end();
    }
}

fn is_vmdk(disk: &Disk) -> bool {
    disk.links().next().is_some_and(|link| link.format != vmdk::Format::Raw)
}

/// Compares every byte of an image with the guest's disk.
fn compare(what: &str, image: &Disk, guest: &DiskHandle) -> Result<()> {
    let mut step = Progress::begin(&format!("comparing {what} byte by byte"));
    let capacity = GuestDisk::capacity(guest);
    if image.capacity() != capacity {
        return Err(format!("{what} has {} bytes, not {capacity}", image.capacity()).into());
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < capacity {
        let len = usize::try_from((capacity - at).min(1 << 20))?;
        image.read_at(at, &mut left[..len])?;
        GuestDisk::read_at(guest, at, &mut right[..len])?;
        if left[..len] != right[..len] {
            let byte = (0..len).find(|byte| left[*byte] != right[*byte]).unwrap_or(0);
            return Err(format!("{what} differs at byte {}", at + byte as u64).into());
        }
        at += len as u64;
        step.at(at, capacity);
    }
    step.end();
    Ok(())
}
