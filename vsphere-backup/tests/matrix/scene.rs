//! A simulated server, a repository and a folder of journals, in a state.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use vsphere_backup::{
    Backup, CancelToken, ChangeTracking, Clock, ClockHand, FcdBackup, NewVm, PowerPolicy, Restore, RestoreMode, Result,
    Retries,
    engine::MemoryDisk,
    fcd_vm_id,
    reaper::{Journals, Reaper},
    repository::{
        CreateOptions, GcOptions, PointId, Repository, Retention, VerifyLevel, VmId,
        storage::{LocalStorage, MemoryStorage, Storage},
    },
    step::Step,
};
use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, MoRef, RemoveSnapshotOptions, Vim,
    fcd::{FcdRef, RegisterFcd},
    method_lock::MethodLock,
    methods, mo,
    types::{
        Poly, VirtualDevice, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecOperation, VirtualDisk,
        VirtualMachineConfigSpec,
    },
};

use crate::{
    case::{Flow, Group, Machine, Runner, Tracking},
    login::{Login, login},
    run::Met,
    trip::{How, Trip},
    world::{CHUNK, KIB, MIB, back_up, noise},
};

/// The state, and what is compared with it afterwards.
pub(crate) struct Scene {
    pub(crate) group: Group,
    pub(crate) runner: Runner,
    pub(crate) met: Met,
    pub(crate) sim: Simulator,
    pub(crate) vim: Vim,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Clock,
    pub(crate) hand: ClockHand,
    folder: TempDir,
    place: NewVm,
    /// The machine's disk, when it is a First Class Disk too.
    disk: Option<FcdRef>,
    /// What restores go back to, and what it holds.
    base: Option<PointId>,
    pub(crate) stored: Vec<u8>,
    round: u64,
}

/// A flow, ready to run in any process.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) flow: Flow,
    pub(crate) vm: MoRef<mo::VirtualMachine>,
    pub(crate) journals: PathBuf,
    pub(crate) base: Option<PointId>,
    pub(crate) place: NewVm,
    pub(crate) disk: Option<FcdRef>,
    pub(crate) tracked: bool,
    pub(crate) clock: Clock,
}

impl Job {
    /// Runs the flow.
    pub(crate) async fn run(
        &self,
        vim: &Vim,
        repository: &Repository,
        hook: &Arc<Trip>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let (hook, journals, vm) = (hook.clone(), self.journals.clone(), self.vm.clone());
        match self.flow {
            Flow::Backup | Flow::Resume => {
                self.backup(vim).step_hook(hook).cancel(cancel).run(repository).await.map(drop)
            }
            Flow::InPlace => {
                let restore = self.restore(repository, cancel).await?.step_hook(hook).cancel(cancel);
                let restore = restore.mode(RestoreMode::OnlyDifferences).change_tracking(true).remove_snapshots(true);
                restore.power(PowerPolicy::PowerOff).to_vm(vim, vm).await.map(drop)
            }
            Flow::NewVm => {
                let restore = self.restore(repository, cancel).await?.step_hook(hook).cancel(cancel);
                restore.to_new_vm(vim, self.place.clone()).await.map(drop)
            }
            Flow::Reap | Flow::FcdReap => {
                let reaper = Reaper::new(Journals::in_folder(journals)).older_than(Duration::ZERO).retries(retries());
                let reaper = reaper.step_hook(hook);
                let work = async {
                    let scan = reaper.scan(vim).await?;
                    let reaped = reaper.reap(vim, &scan.found).await?;
                    for reaped in reaped {
                        if let vsphere_backup::reaper::Outcome::Failed(error) = reaped.outcome {
                            return Err(error);
                        }
                    }
                    Ok(())
                };
                cancel.run(work).await
            }
            Flow::Fcd => self.fcd(vim).step_hook(hook).cancel(cancel).run(repository).await.map(drop),
            Flow::FcdInPlace => {
                let point = cancel.run(repository.point(self.base.as_ref().unwrap())).await?;
                self.fcd(vim).step_hook(hook).cancel(cancel).restore_in_place(&point).await.map(drop)
            }
            Flow::Prune => {
                let work = async {
                    repository.prune(None, &Retention::keep().last(2), false).await?;
                    repository.collect_garbage(&GcOptions::default().clock(self.clock.clone())).await.map(drop)
                };
                cancel.run(work).await
            }
            Flow::Check => {
                // What it says of a storage that fails is not judged here.
                repository.check(VerifyLevel::Full, cancel).await.map(drop)
            }
        }
    }

    fn backup(&self, vim: &Vim) -> Backup {
        let resumes = if self.flow == Flow::Resume { Duration::from_secs(3600) } else { Duration::ZERO };
        Backup::of(vim, self.vm.clone())
            .journal(&self.journals)
            .retries(retries())
            .resume_within(resumes)
            .checkpoint_every(Duration::ZERO)
    }

    fn fcd(&self, vim: &Vim) -> FcdBackup {
        FcdBackup::of(&vim.first_class_disks().unwrap(), self.disk.clone().unwrap())
            .journal(&self.journals)
            .change_tracking(if self.tracked { ChangeTracking::Enable } else { ChangeTracking::AsIs })
            .retries(retries())
    }

    /// Whoever looks up a point has no token there, and drops the future instead.
    async fn restore(&self, repository: &Repository, cancel: &CancelToken) -> Result<Restore> {
        let point = cancel.run(repository.point(self.base.as_ref().unwrap())).await?;
        Ok(Restore::of(&point).journal(&self.journals).retries(retries()))
    }
}

impl Scene {
    pub(crate) async fn new(group: Group, runner: Runner) -> Self {
        let tracked = group.tracking != Tracking::Off;
        let vm = VmSpec::new("web").disk(DiskSpec::empty(MIB)).change_tracking(tracked);
        let sim = Simulator::builder().vm(vm).start().await.unwrap();
        let vim = login(&sim).connect().await;
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        // Journals are synced at every record; memory does that at once.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let storage = match runner {
            Runner::Runtime => in_memory(&clock).await,
            Runner::Process => create(Arc::new(LocalStorage::open(repository_in(&folder)).unwrap())).await,
        };
        let place = place(&vim).await;
        let disk = match group.flow.is_fcd() {
            true => Some(register(&sim, &vim).await),
            false => None,
        };
        let (met, base, stored, round) = Default::default();
        let mut scene =
            Self { group, runner, met, sim, vim, storage, clock, hand, folder, place, disk, base, stored, round };
        scene.guest_writes(0, &noise(1, 200 * KIB));
        scene.guest_writes(700 * KIB, &noise(2, 9000));
        if group.machine == Machine::Template {
            scene.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
            scene.vim.invoke(&scene.vm(), methods::MarkAsTemplate::default()).await.unwrap();
        }
        if group.tracking != Tracking::First {
            if group.flow.is_fcd() {
                // This one enables tracking; the next one is the first with a change id.
                scene.job().fcd(&scene.vim).run(&scene.repository().await).await.unwrap();
            }
            scene.back_up().await;
        }
        scene
    }

    /// Makes the point that restores go back to.
    async fn back_up(&mut self) {
        self.stored = self.content("web");
        let repository = self.repository().await;
        let point = match self.group.flow.is_fcd() {
            true => self.job().fcd(&self.vim).run(&repository).await.unwrap().point,
            false => self.job().backup(&self.vim).run(&repository).await.unwrap().point,
        };
        self.base = Some(point.id().clone());
    }

    /// Sets the state up for another case.
    pub(crate) async fn prepare(&mut self) {
        self.round += 1;
        let vm = self.sim.vm("web").unwrap();
        let power = match self.group.machine {
            Machine::Suspended => Power::Suspended,
            Machine::Off | Machine::Template => Power::Off,
            _ => Power::On,
        };
        if vm.power() != power {
            if power == Power::Suspended {
                vm.set_power(Power::On).unwrap();
            }
            vm.set_power(power).unwrap();
        }
        if self.group.flow == Flow::InPlace {
            // Change tracking cannot tell what an earlier restore wrote.
            self.back_up().await;
        }
        match self.group.tracking {
            Tracking::First => {
                self.storage = in_memory(&self.clock).await;
                if let Some(disk) = &self.disk {
                    // To be enabled anew.
                    self.vim.first_class_disks().unwrap().set_change_tracking(disk, false).await.unwrap();
                }
            }
            Tracking::Reset => self.sim.guest("web").unwrap().disk(2000).unwrap().reset_tracking(),
            Tracking::Resized => self.grow().await,
            Tracking::Off | Tracking::Incremental => {}
        }
        let options = CreateSnapshotOptions::new("mine");
        match self.group.machine {
            Machine::Snapshots if vm.snapshots().is_empty() => {
                self.vim.create_snapshot(&self.vm(), options).await.unwrap();
            }
            Machine::Unmerged if !self.vim.consolidation_needed(&self.vm()).await.unwrap() => {
                let snapshot = self.vim.create_snapshot(&self.vm(), options).await.unwrap();
                self.guest_writes(0, b"in the delta");
                let keep = RemoveSnapshotOptions { consolidate: false, ..Default::default() };
                self.vim.remove_snapshot(&snapshot, keep).await.unwrap();
            }
            _ => {}
        }
        self.guest_writes((self.round % 8) * 64 * KIB, &self.round.to_le_bytes());
        match self.group.flow {
            Flow::Resume => self.interrupt().await,
            Flow::FcdReap => {
                let (disks, disk) = (self.vim.first_class_disks().unwrap(), self.disk.as_ref().unwrap());
                disks.create_snapshot(disk, MARKER).await.unwrap();
            }
            Flow::Reap => {
                let options = CreateSnapshotOptions::new("vsphere-backup").description(MARKER);
                self.vim.create_snapshot(&self.vm(), options).await.unwrap();
                self.vim.lock_methods(&MethodLock::against_migration(&self.vm(), MARKER)).await.unwrap();
            }
            Flow::Prune => {
                self.hand.advance(Duration::from_secs(25 * 3600));
                let repository = self.repository().await;
                for half in 0..2 {
                    let disk = MemoryDisk::new(noise(self.round * 2 + half, 2 * CHUNK));
                    back_up(&repository, &disk, std::slice::from_ref(&(0..2 * CHUNK)), None).await.unwrap();
                }
            }
            _ => {}
        }
    }

    /// Begins a backup and gives it up with its disk stored.
    async fn interrupt(&self) {
        let trip = Trip::new(Some((Step::Commit, 1, How::Hang)));
        let running = self.job().backup(&self.vim).step_hook(trip.clone()).start(&self.repository().await);
        trip.tripped.notified().await;
        running.abandon();
        running.finish().await.unwrap_err();
    }

    async fn grow(&self) {
        let disk = self.sim.vm("web").unwrap().disk(2000).unwrap();
        let bytes = disk.capacity() + 64 * KIB;
        let mut device = VirtualDisk { capacity_in_kb: (bytes / KIB) as i64, ..Default::default() };
        (device.key, device.controller_key) = (2000, Some(1000));
        let change = VirtualDeviceConfigSpec {
            operation: Some(VirtualDeviceConfigSpecOperation::Edit),
            device: Poly::<VirtualDevice>::new(device),
            ..Default::default()
        };
        let spec = VirtualMachineConfigSpec { device_change: vec![Poly::new(change)], ..Default::default() };
        self.vim.reconfigure(&self.vm(), spec).await.unwrap();
    }

    pub(crate) fn job(&self) -> Job {
        Job {
            flow: self.group.flow,
            vm: self.vm(),
            journals: self.journals(),
            base: self.base.clone(),
            place: self.place.clone(),
            disk: self.disk.clone(),
            tracked: self.group.tracking != Tracking::Off,
            clock: self.clock.clone(),
        }
    }

    pub(crate) fn login(&self) -> Login {
        login(&self.sim)
    }

    /// Where the repository of processes is.
    pub(crate) fn repository_folder(&self) -> PathBuf {
        repository_in(&self.folder)
    }

    pub(crate) fn journals(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub(crate) fn vm(&self) -> MoRef<mo::VirtualMachine> {
        MoRef::new(self.sim.vm("web").unwrap().id())
    }

    /// The machine whose points the flow makes or deletes.
    pub(crate) fn id(&self) -> VmId {
        match self.group.flow {
            Flow::Prune => crate::world::vm(),
            _ if self.disk.is_some() => fcd_vm_id(&self.disk.as_ref().unwrap().id).unwrap(),
            _ => VmId::parse(&self.sim.vm("web").unwrap().instance_uuid()).unwrap(),
        }
    }

    /// Opens the repository as a new process does.
    pub(crate) async fn repository(&self) -> Repository {
        Repository::open(self.storage.clone()).await.unwrap()
    }

    pub(crate) fn content(&self, vm: &str) -> Vec<u8> {
        let disk = self.sim.vm(vm).unwrap().disk(2000).unwrap();
        let mut bytes = vec![0; disk.capacity() as usize];
        match &self.disk {
            Some(disk) => self.sim.first_class_disk(disk.id.as_str()).unwrap().read_at(0, &mut bytes).unwrap(),
            None => disk.read_at(0, &mut bytes).unwrap(),
        }
        bytes
    }

    fn guest_writes(&self, offset: u64, bytes: &[u8]) {
        match &self.disk {
            Some(disk) => self.sim.first_class_disk(disk.id.as_str()).unwrap().write_at(offset, bytes).unwrap(),
            None => self.sim.guest("web").unwrap().disk(2000).unwrap().write_at(offset, bytes).unwrap(),
        }
    }
}

/// Makes the machine's disk a First Class Disk.
async fn register(sim: &Simulator, vim: &Vim) -> FcdRef {
    let path = sim.vm("web").unwrap().disk(2000).unwrap().path();
    let path = path.split_once("] ").unwrap().1.to_owned();
    let disks = vim.first_class_disks().unwrap();
    disks.register(RegisterFcd::new("dc1", "ds1", path).name("volume")).await.unwrap().disk
}

/// Where new machines go.
pub(crate) async fn place(vim: &Vim) -> NewVm {
    let find = async |path: &str| vim.find_by_inventory_path(path).await.unwrap().unwrap();
    let pool = find("dc1/host/esx1.sim.invalid/Resources").await.cast();
    NewVm::named("new", find("dc1/vm").await.cast(), pool)
}

fn repository_in(folder: &TempDir) -> PathBuf {
    folder.path().join("repository")
}

async fn in_memory(clock: &Clock) -> Arc<dyn Storage> {
    create(Arc::new(MemoryStorage::with_clock(clock.clone()))).await
}

async fn create(storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
    Repository::create(storage.clone(), CreateOptions::default().chunk_size(CHUNK as u32)).await.unwrap();
    storage
}

fn retries() -> Retries {
    Retries::default().pauses(Duration::from_millis(1), Duration::from_millis(1))
}

const MARKER: &str = "vsphere-backup job 0123456789abcdef";
