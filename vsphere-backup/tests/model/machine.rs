//! The machine: what is done to it on the server, and what its disks hold by that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use proptest::sample;
use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, MoRef, RemoveSnapshotOptions, Vim, mo,
    types::{
        Poly, VirtualDevice, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation,
        VirtualDeviceConfigSpecOperation, VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualMachineConfigSpec,
    },
};

use crate::{
    login::login,
    op::{DiskOp, LARGEST, SnapshotOp, Write},
    world::{CHUNK, KIB},
};

/// A disk at some moment.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Which disk it is, wherever it is attached.
    disk: u32,
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl Image {
    /// Whether an image of a disk fits onto what is attached now.
    pub(crate) fn fits(&self, now: &Self) -> bool {
        self.disk == now.disk && self.bytes.len() <= now.bytes.len()
    }
}

/// By device key.
pub(crate) type Images = BTreeMap<i32, Image>;

pub(crate) struct Machine {
    pub(crate) sim: Simulator,
    vim: Vim,
    model: Mutex<Model>,
}

struct Model {
    disks: Images,
    /// When the last snapshot of this crate was made.
    moment: Images,
    /// Those of others.
    snapshots: Vec<Snapshot>,
    /// Disks that were taken out, with their paths.
    loose: Vec<(String, Image)>,
    count: u32,
}

struct Snapshot {
    name: String,
    reference: MoRef<mo::VirtualMachineSnapshot>,
    images: Images,
}

impl Machine {
    /// One that is on and tracked, with two disks.
    pub(crate) async fn new() -> Arc<Self> {
        let sizes = [7 * CHUNK + 3 * KIB, 3 * CHUNK];
        let spec = sizes.iter().fold(VmSpec::new("web"), |spec, &bytes| spec.disk(DiskSpec::empty(bytes)));
        let sim = Simulator::builder().vm(spec.change_tracking(true)).start().await.unwrap();
        let vim = login(&sim).connect().await;
        let empty = |(at, &bytes): (usize, &u64)| (2000 + at as i32, image(at as u32, bytes));
        let disks = sizes.iter().enumerate().map(empty).collect();
        let (moment, snapshots, loose) = (Images::new(), Vec::new(), Vec::new());
        let model = Mutex::new(Model { disks, moment, snapshots, loose, count: sizes.len() as u32 });
        Arc::new(Self { sim, vim, model })
    }

    pub(crate) fn vm(&self) -> MoRef<mo::VirtualMachine> {
        MoRef::new(self.sim.vm("web").unwrap().id())
    }

    /// What its disks have to hold.
    pub(crate) fn disks(&self) -> Images {
        self.model.lock().unwrap().disks.clone()
    }

    /// What they held when the last snapshot of this crate was made.
    pub(crate) fn moment(&self) -> Images {
        self.model.lock().unwrap().moment.clone()
    }

    pub(crate) fn note_moment(&self) {
        let mut model = self.model.lock().unwrap();
        model.moment = model.disks.clone();
    }

    pub(crate) fn power(&self) -> Power {
        self.sim.vm("web").unwrap().power()
    }

    /// A guest that is not running writes nothing.
    pub(crate) fn write(&self, write: &Write) {
        let mut model = self.model.lock().unwrap();
        if self.power() != Power::On {
            return;
        }
        let keys: Vec<i32> = model.disks.keys().copied().collect();
        let key = keys[write.disk.index(keys.len())];
        let bytes = Arc::make_mut(&mut model.disks.get_mut(&key).unwrap().bytes);
        let sectors = bytes.len() / 512;
        let begin = write.at.index(sectors);
        let range = begin * 512..(begin + write.sectors as usize).min(sectors) * 512;
        // The same bytes at the same place within a chunk, whichever chunk it is.
        for at in range.clone() {
            bytes[at] = if write.fill == 0 { 0 } else { (at % CHUNK as usize / 7) as u8 ^ write.fill };
        }
        self.sim.guest("web").unwrap().disk(key).unwrap().write_at(range.start as u64, &bytes[range]).unwrap();
    }

    pub(crate) fn set_power(&self, power: Power) {
        let vm = self.sim.vm("web").unwrap();
        if power == Power::Suspended && vm.power() == Power::Off {
            vm.set_power(Power::On).unwrap();
        }
        vm.set_power(power).unwrap();
    }

    pub(crate) fn reset_tracking(&self, disk: &sample::Index) {
        let keys: Vec<i32> = self.disks().into_keys().collect();
        self.sim.guest("web").unwrap().disk(keys[disk.index(keys.len())]).unwrap().reset_tracking();
    }

    pub(crate) async fn switch_tracking(&self, on: bool) {
        self.vim.set_change_tracking(&self.vm(), on).await.unwrap();
    }

    pub(crate) async fn snapshot(&self, op: &SnapshotOp) {
        match op {
            SnapshotOp::Make => {
                let (images, count) = {
                    let mut model = self.model.lock().unwrap();
                    model.count += 1;
                    (model.disks.clone(), model.count)
                };
                let name = format!("mine-{count}");
                let options = CreateSnapshotOptions::new(name.as_str());
                let reference = self.vim.create_snapshot(&self.vm(), options).await.unwrap();
                self.model.lock().unwrap().snapshots.push(Snapshot { name, reference, images });
            }
            SnapshotOp::Remove { which, merge } => {
                let removed = {
                    let snapshots = &mut self.model.lock().unwrap().snapshots;
                    if snapshots.is_empty() {
                        return;
                    }
                    let at = which.index(snapshots.len());
                    snapshots.remove(at)
                };
                let options = RemoveSnapshotOptions { consolidate: *merge, ..Default::default() };
                self.vim.remove_snapshot(&removed.reference, options).await.unwrap();
            }
            SnapshotOp::RemoveAll => {
                self.vim.remove_all_snapshots(&self.vm(), true).await.unwrap();
                self.model.lock().unwrap().snapshots.clear();
            }
            SnapshotOp::Revert(which) => {
                let (reference, images) = {
                    let snapshots = &self.model.lock().unwrap().snapshots;
                    if snapshots.is_empty() {
                        return;
                    }
                    let snapshot = &snapshots[which.index(snapshots.len())];
                    (snapshot.reference.clone(), snapshot.images.clone())
                };
                self.vim.revert_to_snapshot(&reference).await.unwrap();
                let mut model = self.model.lock().unwrap();
                model.disks = images;
                // Some of them may be attached again.
                model.loose.clear();
            }
        }
    }

    pub(crate) async fn disk(&self, op: &DiskOp) {
        let plain = self.is_plain();
        let disks = self.disks();
        let nth = |which: &sample::Index| *disks.keys().nth(which.index(disks.len())).unwrap();
        match op {
            // Servers refuse to grow disks with snapshots.
            DiskOp::Grow { disk, kib } => {
                let key = nth(disk);
                let bytes = disks[&key].bytes.len() as u64 + kib * KIB;
                if plain && bytes <= LARGEST {
                    let device = virtual_disk(key, bytes);
                    self.reconfigure(device, VirtualDeviceConfigSpecOperation::Edit, None).await;
                    let mut model = self.model.lock().unwrap();
                    Arc::make_mut(&mut model.disks.get_mut(&key).unwrap().bytes).resize(bytes as usize, 0);
                }
            }
            DiskOp::Add { unit, kib } => {
                let key = 2000 + unit;
                if disks.len() < MOST && !disks.contains_key(&key) {
                    let bytes = (kib + 1) * KIB;
                    let mut device = virtual_disk(-1, bytes);
                    device.unit_number = Some(*unit);
                    let create = VirtualDeviceConfigSpecFileOperation::Create;
                    self.reconfigure(device, VirtualDeviceConfigSpecOperation::Add, Some(create)).await;
                    let mut model = self.model.lock().unwrap();
                    model.count += 1;
                    let added = image(model.count, bytes);
                    model.disks.insert(key, added);
                }
            }
            DiskOp::Remove(disk) => {
                let key = nth(disk);
                if disks.len() > 1 {
                    let path = self.sim.vm("web").unwrap().disk(key).unwrap().path();
                    let device = virtual_disk(key, disks[&key].bytes.len() as u64);
                    self.reconfigure(device, VirtualDeviceConfigSpecOperation::Remove, None).await;
                    let mut model = self.model.lock().unwrap();
                    let removed = model.disks.remove(&key).unwrap();
                    // What a snapshot holds goes with the snapshot.
                    if plain {
                        model.loose.push((path, removed));
                    }
                }
            }
            DiskOp::Attach { which, unit } => {
                let key = 2000 + unit;
                if disks.len() >= MOST || disks.contains_key(&key) {
                    return;
                }
                let (path, attached) = {
                    let loose = &mut self.model.lock().unwrap().loose;
                    if loose.is_empty() {
                        return;
                    }
                    let at = which.index(loose.len());
                    loose.remove(at)
                };
                let mut device = virtual_disk(-1, attached.bytes.len() as u64);
                device.unit_number = Some(*unit);
                let mut backing =
                    VirtualDiskFlatVer2BackingInfo { disk_mode: "persistent".into(), ..Default::default() };
                backing.file_name = path;
                device.backing = Some(Poly::new(backing));
                self.reconfigure(device, VirtualDeviceConfigSpecOperation::Add, None).await;
                self.model.lock().unwrap().disks.insert(key, attached);
            }
        }
    }

    /// Reads what cannot be known: how far a restore came that was stopped.
    pub(crate) fn learn(&self) {
        let names = self.sim.vm("web").unwrap().snapshots();
        let mut model = self.model.lock().unwrap();
        model.snapshots.retain(|snapshot| names.contains(&snapshot.name));
        for (key, image) in &mut model.disks {
            image.bytes = Arc::new(self.content("web", *key));
        }
    }

    /// What a disk of any machine of the server holds.
    pub(crate) fn content(&self, vm: &str, key: i32) -> Vec<u8> {
        let disk = self.sim.vm(vm).unwrap().disk(key).unwrap();
        let mut bytes = vec![0; disk.capacity() as usize];
        disk.read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Whether there are neither snapshots nor layers of removed ones.
    fn is_plain(&self) -> bool {
        self.sim.vm("web").unwrap().snapshots().is_empty() && self.sim.leftovers().unconsolidated.is_empty()
    }

    async fn reconfigure(
        &self,
        device: VirtualDisk,
        operation: VirtualDeviceConfigSpecOperation,
        file_operation: Option<VirtualDeviceConfigSpecFileOperation>,
    ) {
        let change = VirtualDeviceConfigSpec {
            operation: Some(operation),
            file_operation,
            device: Poly::<VirtualDevice>::new(device),
            ..Default::default()
        };
        let spec = VirtualMachineConfigSpec { device_change: vec![Poly::new(change)], ..Default::default() };
        self.vim.reconfigure(&self.vm(), spec).await.unwrap();
    }
}

fn image(disk: u32, bytes: u64) -> Image {
    Image { disk, bytes: Arc::new(vec![0; bytes as usize]) }
}

fn virtual_disk(key: i32, bytes: u64) -> VirtualDisk {
    let mut device = VirtualDisk { capacity_in_kb: (bytes / KIB) as i64, ..Default::default() };
    (device.key, device.controller_key) = (key, Some(1000));
    device
}

/// Disks of the machine.
const MOST: usize = 3;
