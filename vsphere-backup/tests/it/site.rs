//! A simulated server with one machine, a repository and a folder of journals.

use std::path::PathBuf;

use tempfile::TempDir;
use vsphere_backup::{
    Backup, Retries,
    journal::Journal,
    repository::{CreateOptions, RecoveryPoint, Repository, VmId},
};
use vsphere_sim::{DiskSpec, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{MoRef, Vim, mo};

use crate::{
    login::{Login, login},
    world::{CHUNK, KIB, MIB, noise},
};

pub(crate) struct Site {
    pub(crate) sim: Simulator,
    pub(crate) vim: Vim,
    pub(crate) folder: TempDir,
    pub(crate) repository: Repository,
}

impl Site {
    /// One machine `web` with a disk of 8 MiB that is tracked, a second of 1 MiB, and a third that
    /// snapshots leave out.
    pub(crate) async fn new() -> Self {
        let disks = [DiskSpec::empty(8 * MIB), DiskSpec::empty(MIB), DiskSpec::empty(MIB).independent()];
        let site = Self::with(disks).await;
        site.guest_writes(2000, 0, &noise(1, 300 * KIB));
        site.guest_writes(2000, 5 * MIB, &noise(2, MIB));
        site.guest_writes(2001, 512, &noise(3, 4096));
        site
    }

    /// One machine `web` with these disks, tracked.
    pub(crate) async fn with(disks: impl IntoIterator<Item = DiskSpec>) -> Self {
        let vm = disks.into_iter().fold(VmSpec::new("web"), VmSpec::disk).change_tracking(true);
        Self::of(Simulator::builder().vm(vm)).await
    }

    /// Such machines; the tests are about the one that is named `web`.
    pub(crate) async fn of(simulator: SimulatorBuilder) -> Self {
        let sim = simulator.start().await.unwrap();
        let vim = login(&sim).connect().await;
        let folder = tempfile::tempdir().unwrap();
        let options = CreateOptions::default().chunk_size(CHUNK as u32);
        let repository = Repository::create_local(folder.path().join("repo"), options).await.unwrap();
        Self { sim, vim, folder, repository }
    }

    pub(crate) fn login(&self) -> Login {
        login(&self.sim)
    }

    pub(crate) fn vm(&self) -> MoRef<mo::VirtualMachine> {
        MoRef::new(self.sim.vm("web").unwrap().id())
    }

    pub(crate) fn id(&self) -> VmId {
        VmId::parse(&self.sim.vm("web").unwrap().instance_uuid()).unwrap()
    }

    pub(crate) fn journals(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub(crate) fn backup(&self) -> Backup {
        let moment = std::time::Duration::from_millis(1);
        let retries = Retries::default().pauses(moment, moment);
        Backup::of(&self.vim, self.vm()).journal(self.journals()).retries(retries)
    }

    pub(crate) fn content(&self, key: i32) -> Vec<u8> {
        let disk = self.sim.vm("web").unwrap().disk(key).unwrap();
        let mut bytes = vec![0; disk.capacity() as usize];
        disk.read_at(0, &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn guest_writes(&self, key: i32, offset: u64, bytes: &[u8]) {
        self.sim.guest("web").unwrap().disk(key).unwrap().write_at(offset, bytes).unwrap();
    }

    /// Asserts that the server is as it was and the journal empty.
    pub(crate) fn assert_clean(&self) {
        let left = self.sim.leftovers();
        assert!(left.snapshots.is_empty() && left.locks.is_empty() && left.unconsolidated.is_empty(), "{left:?}");
        assert_eq!((left.open_layers, left.leases, left.tasks), (0, 0, 0), "{left:?}");
        assert_eq!(Journal::leftovers(&self.journals()).unwrap(), []);
    }

    pub(crate) async fn assert_point_equals(&self, point: &RecoveryPoint, disks: &[(i32, Vec<u8>)]) {
        for (key, content) in disks {
            let reader = point.disk(*key).await.unwrap();
            let bytes = reader.read_at(0, reader.capacity() as usize).await.unwrap();
            assert!(bytes == *content, "disk {key} differs");
        }
    }
}
