//! Into files that are written from front to back: a `streamOptimized` disk, a whole machine as an OVA.

use std::{
    error::Error as StdError,
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use vmdk::{
    AdapterType,
    ova::{Content, DiskController, DiskSpec, NetworkSpec, OvaOptions, OvfPackage, OvfSpec, Packing},
    stream::{Export, StreamSpec},
};
use vsphere_vim::{
    VirtualDiskInfo,
    types::{
        VirtualDeviceDeviceBackingInfo, VirtualE1000, VirtualE1000e, VirtualEthernetCard, VirtualMachineConfigInfo,
        VirtualPCNet32,
    },
};

use super::{ImageTarget, Restore, RestoreReport, RestoredDiskReport, workplace::Workplace};
use crate::{
    engine::{Budget, RestoredDisk, compare_disk},
    error::{Error, Result},
    event::Event,
    instant::{InstantDisk, InstantOptions},
    repository::DiskRecord,
    thread,
};

impl Restore {
    /// Restores the machine into a new OVA: its disks as `streamOptimized`, its hardware as OVF, its notes.
    ///
    /// The descriptor is made of the configuration that the point holds: processors, memory, guest, hardware version,
    /// firmware, disks with their places, adapters with their networks. Other devices are not in it. Digests and, with
    /// [`verify`](Self::verify), each disk's bytes are read back and compared.
    ///
    /// It is made in a folder beside it, its name with `.restoring`, and moved out when it is whole and durable. A
    /// restore that ended early begins again: the digests of the package are of all its bytes, which would have to be
    /// read and unpacked to be believed, and that costs what packing them anew does.
    ///
    /// # Errors
    /// [`Error::Refused`] when the point holds no configuration, or a disk sits where no package can have it;
    /// [`Error::File`], also when the file exists and may not be [overwritten](Self::overwrite);
    /// [`Error::DamagedChunk`], [`Error::DamagedPage`], [`Error::Cancelled`]. After an error nothing is left.
    ///
    /// # Cancel safety
    /// When dropped, the threads that write end by themselves; the folder stays, and the next run begins again in it.
    #[doc(alias = "ExportVm")]
    pub async fn to_ova(self, path: impl Into<PathBuf>) -> Result<RestoreReport> {
        let (begun, path) = (Instant::now(), path.into());
        let records = self.wanted()?;
        let config = self.stored_config().await?;
        let mut spec = describe(&config);
        let stored = VirtualDiskInfo::all_of(&config.hardware.device);
        for record in &records {
            let disk = stored.iter().find(|disk| disk.key.0 == record.key);
            let place = disk.and_then(place).ok_or_else(|| {
                let reason = format!("disk {} is at no place that a package can have", record.key);
                self.refused(reason, Some("restore it to a file of its own"))
            })?;
            let (controller, bus, unit) = place;
            spec = spec.disk(DiskSpec::new(href(record), record.capacity).at(controller, bus, unit));
        }
        let disks = self.open_all(&records).await?;
        let images: Vec<_> = disks.iter().map(|open| open.disk().image()).collect();
        let adapters: Vec<_> = records.iter().map(|record| stream_spec(record, &config)).collect();
        let names: Vec<String> = records.iter().map(href).collect();
        let modified = self.point.manifest().created;
        let write = move |file: BufWriter<File>| {
            let mut packing = Packing::new(spec);
            for ((name, image), spec) in names.iter().zip(&images).zip(adapters) {
                packing = packing.file(name, Content::disk_with(&**image, spec));
            }
            packing.write_ova(file, &OvaOptions::new().modified(modified))
        };
        self.make_file(&path, write, async |made| self.verify_ova(made, &records).await).await?;
        let mut reports = Vec::new();
        for (record, open) in records.into_iter().zip(disks) {
            open.close().await?;
            reports.push(self.report(&record, begun));
        }
        Ok(RestoreReport { disks: reports, elapsed: begun.elapsed() })
    }

    /// Writes one disk as a `streamOptimized` file.
    pub(super) async fn to_stream(&self, key: i32, path: PathBuf) -> Result<RestoreReport> {
        let begun = Instant::now();
        let record = self.point.record(key)?.clone();
        let open = self.open_all(std::slice::from_ref(&record)).await?.remove(0);
        let image = open.disk().image();
        let config = VirtualMachineConfigInfo::default();
        let spec = stream_spec(&record, &config);
        let compare = async |made: &Path| {
            let read = made.to_owned();
            let image = on_thread(move || vmdk::Disk::open(read, &vmdk::OpenOptions::new())).await;
            self.compare(&record, image.map_err(|error| failed("reading back", made, error))?).await
        };
        self.make_file(&path, move |file| Export::new(&spec).run(&*image, file), compare).await?;
        open.close().await?;
        Ok(RestoreReport { disks: vec![self.report(&record, begun)], elapsed: begun.elapsed() })
    }

    async fn open_all(&self, records: &[DiskRecord]) -> Result<Vec<InstantDisk>> {
        let mut disks = Vec::new();
        for record in records {
            let options = InstantOptions::read_only().cache(self.memory).pin(self.pin).cancel(&self.cancel);
            disks.push(self.point.open_disk(record.key, options).await?);
            self.started(record, "into a file", "file");
        }
        Ok(disks)
    }

    /// Makes a file in a folder beside it, and gives it its name when it is whole. After an error nothing is left.
    async fn make_file(
        &self,
        path: &Path,
        write: impl FnOnce(BufWriter<File>) -> vmdk::Result<BufWriter<File>> + Send + 'static,
        verify: impl AsyncFnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let place = Arc::new(Workplace::open(path, Vec::new(), self.overwrite).await?);
        place.clear()?;
        let made = async {
            self.write_file(&place, write).await?;
            if self.verify { verify(&place.path()).await } else { Ok(()) }
        };
        if let Err(error) = made.await {
            self.discard(&place);
            return Err(error);
        }
        thread::run("naming a file", move || place.place(None)).await?
    }

    /// Has a file written by a thread that may block, and makes it durable.
    async fn write_file(
        &self,
        place: &Workplace,
        write: impl FnOnce(BufWriter<File>) -> vmdk::Result<BufWriter<File>> + Send + 'static,
    ) -> Result<()> {
        let (path, lock) = (place.path(), place.lock());
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = created.map_err(|source| Error::File {
            operation: "creating the file",
            path: path.clone(),
            source: source.into(),
        })?;
        let named = path.display().to_string();
        let written = on_thread(move || {
            // To its end, even when nobody waits for it any more.
            let _lock = lock;
            let mut file = write(BufWriter::with_capacity(1 << 20, file))?;
            let synced = file.flush().and_then(|()| file.get_ref().sync_all());
            synced.map_err(|error| vmdk::Error::io("write", named, None, error))
        });
        written.await.map_err(|error| failed("writing the file", &path, error))
    }

    async fn verify_ova(&self, path: &Path, records: &[DiskRecord]) -> Result<()> {
        let wrong = |error| failed("reading back", path, error);
        let read = path.to_owned();
        let package = on_thread(move || {
            let package = OvfPackage::open(read)?;
            package.verify()?;
            Ok(package)
        });
        let package = Arc::new(package.await.map_err(wrong)?);
        for (at, record) in records.iter().enumerate() {
            let Some(disk) = package.descriptor().disks.get(at) else {
                return Err(Error::damaged(path.display(), format!("it has no disk for disk {}", record.key)));
            };
            let (package, id) = (Arc::clone(&package), disk.id.clone());
            let image = on_thread(move || package.open_disk(&id)).await.map_err(wrong)?;
            self.compare(record, image).await?;
        }
        Ok(())
    }

    /// Compares what was written with the point.
    async fn compare(&self, record: &DiskRecord, image: vmdk::Disk) -> Result<()> {
        let reader = self.point.disk(record.key).await?;
        let target = ImageTarget::new(Arc::new(image));
        let found = compare_disk(&reader, &target, &Budget::new(self.memory), &self.cancel, None).await?;
        match found.first() {
            None => {
                self.events.send(Event::DiskVerified { disk: record.key });
                Ok(())
            }
            Some(first) => Err(Error::damaged(
                format!("restored disk {}", record.key),
                format!("{} parts differ from the point, the first at {:?}", found.len(), first.range),
            )),
        }
    }

    fn report(&self, record: &DiskRecord, begun: Instant) -> RestoredDiskReport {
        self.events.send(Event::DiskFinished { disk: record.key, bytes: Default::default() });
        let bytes = RestoredDisk { written: record.capacity, ..Default::default() };
        RestoredDiskReport {
            key: record.key,
            capacity: record.capacity,
            bytes,
            verified: self.verify,
            transport: "file".into(),
            elapsed: begun.elapsed(),
        }
    }
}

/// The machine without its disks.
fn describe(config: &VirtualMachineConfigInfo) -> OvfSpec {
    let at_least_one = |count: i32| u32::try_from(count).unwrap_or(1).max(1);
    // The standard's number of a system is not known for VMware's names; importers go by those.
    let mut spec = OvfSpec::new(&config.name)
        .guest_os(&config.guest_id, 1)
        .processors(at_least_one(config.hardware.num_cpu))
        .memory_mib(u64::from(at_least_one(config.hardware.memory_mb)));
    if let Some(version) = config.version.strip_prefix("vmx-").and_then(|version| version.parse().ok()) {
        spec = spec.hardware_version(version);
    }
    if let Some(notes) = config.annotation.as_deref().filter(|notes| !notes.is_empty()) {
        spec = spec.annotation(notes);
    }
    if let Some(firmware) = config.firmware.as_deref().filter(|firmware| !firmware.is_empty()) {
        spec = spec.setting("firmware", firmware);
    }
    let secure = config.boot_options.as_ref().and_then(|options| options.efi_secure_boot_enabled);
    if secure == Some(true) {
        spec = spec.setting("bootOptions.efiSecureBootEnabled", "true");
    }
    for device in &config.hardware.device {
        if device.downcast_ref::<VirtualEthernetCard>().is_none() {
            continue;
        }
        let named =
            device.backing.as_ref().and_then(|backing| backing.downcast_ref::<VirtualDeviceDeviceBackingInfo>());
        let network = named.map_or("VM Network", |named| named.device_name.as_str());
        let adapter = if device.downcast_ref::<VirtualE1000e>().is_some() {
            "E1000e"
        } else if device.downcast_ref::<VirtualE1000>().is_some() {
            "E1000"
        } else if device.downcast_ref::<VirtualPCNet32>().is_some() {
            "PCNet32"
        } else {
            "VmxNet3"
        };
        spec = spec.network(NetworkSpec::new(network).adapter(adapter));
    }
    spec
}

/// A disk's place, as packages have it.
fn place(disk: &VirtualDiskInfo) -> Option<(DiskController, u32, u32)> {
    let controller = disk.controller.as_ref()?;
    let kind = match controller.kind.as_str() {
        "ParaVirtualSCSIController" => DiskController::ParaVirtual,
        "VirtualLsiLogicController" => DiskController::LsiLogic,
        "VirtualLsiLogicSASController" => DiskController::LsiLogicSas,
        "VirtualBusLogicController" => DiskController::BusLogic,
        "VirtualIDEController" => DiskController::Ide,
        "VirtualAHCIController" => DiskController::Sata,
        "VirtualNVMEController" => DiskController::Nvme,
        _ => return None,
    };
    Some((kind, u32::try_from(controller.bus_number).ok()?, u32::try_from(disk.unit_number?).ok()?))
}

/// The name of a disk's file in a package.
fn href(record: &DiskRecord) -> String {
    format!("disk-{}.vmdk", record.key)
}

fn stream_spec(record: &DiskRecord, config: &VirtualMachineConfigInfo) -> StreamSpec {
    let mut spec = StreamSpec::new(record.capacity);
    if let Some(adapter) = record.metadata.get("adapterType") {
        spec = spec.adapter_type(AdapterType::from_name(adapter));
    }
    if let Some(version) = config.version.strip_prefix("vmx-").and_then(|version| version.parse().ok()) {
        spec = spec.hardware_version(version);
    }
    spec
}

/// Runs work that blocks.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> vmdk::Result<T> + Send + 'static) -> vmdk::Result<T> {
    let ended = |error| vmdk::Error::io("run", "a thread", None, std::io::Error::other(error));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(error)))
}

/// An error of reading the point that came through the disk's layers says what it said below; others are the file's.
fn failed(operation: &'static str, path: &Path, error: vmdk::Error) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(found) = cause {
        match found.downcast_ref::<Error>() {
            Some(Error::DamagedChunk { disk, offset, chunk, reason }) => {
                return Error::DamagedChunk { disk: *disk, offset: *offset, chunk: *chunk, reason: reason.clone() };
            }
            Some(Error::DamagedPage { disk, offset, page, reason }) => {
                return Error::DamagedPage { disk: *disk, offset: *offset, page: *page, reason: reason.clone() };
            }
            Some(Error::Cancelled) => return Error::Cancelled,
            _ => {}
        }
        // `io::Error` shows the source of what it holds, not what it holds.
        let held = found.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = held.map(|held| held as &(dyn StdError + 'static)).or_else(|| found.source());
    }
    Error::File { operation, path: path.to_owned(), source: error.into() }
}
