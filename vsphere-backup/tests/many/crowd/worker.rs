//! What one of the processes does, until it is killed.

use std::{env, io::Read, path::Path, thread, time::Duration};

use futures_util::{StreamExt, stream};
use vsphere_backup::{
    Error, Result,
    engine::{DiskBackup, MemoryDisk, Parent},
    repository::{
        BackupMode, Consistency, DiskRecord, GcOptions, PointId, Repository, Retention, VmId, VmRecord, WriterOptions,
    },
};

use super::{
    Open,
    log::{Log, Pen},
};
use crate::world::{CHUNK, content, disk_record, noise};

pub(super) const BACKED_UP: [&str; 2] = ["web", "db"];
pub(super) const COLLECTOR: &str = "collector";
/// How long a process counts as alive without a sign of life.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// As many points of each machine are kept.
pub(super) const KEPT: usize = 3;
/// The chunks of a disk, each one of a pool.
const CHUNKS: usize = 24;
const POOL: u64 = 60;

/// Does what the environment says, for ever. Without a word there it does nothing: somebody runs all tests.
pub(crate) async fn work(open: Open) {
    let Ok(role) = env::var("CROWD_ROLE") else { return };
    let told = |name| env::var(name).unwrap();
    // When whoever started this is gone, so is this.
    thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    let chance = Random::new(told("CROWD_SEED").parse().unwrap());
    let (place, path) = (told("CROWD_PLACE"), told("CROWD_LOG"));
    let repository = Repository::open(open(&place)).await.unwrap();
    match role.as_str() {
        COLLECTOR => collect(&repository, Pen::open(path.as_ref())).await,
        role => back_up(&repository, role, path.as_ref(), chance).await,
    }
}

async fn collect(repository: &Repository, mut pen: Pen) {
    let options = GcOptions::default().grace(Duration::ZERO).lease(LEASE);
    let retention = Retention::keep().last(KEPT as u32);
    loop {
        repository.prune(None, &retention, false).await.unwrap();
        match repository.collect_garbage(&options).await {
            Ok(report) => pen.collected(report.deleted.packs),
            // Of a collector that was killed a moment ago; or this one was stopped for too long.
            Err(Error::Busy { .. } | Error::Fenced { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn back_up(repository: &Repository, role: &str, path: &Path, mut chance: Random) {
    let (log, mut pen) = (Log::read(path), Pen::open(path));
    // What was begun and is there, or was there: the points of this machine are this process's alone.
    let mut begun: Vec<_> = log.points.into_iter().map(|logged| (logged.point, logged.chunks)).collect();
    loop {
        match one_backup(repository, role, &mut begun, &mut pen, &mut chance).await {
            Ok(()) => {}
            Err(Error::Fenced { .. }) => pen.fenced(),
            Err(error) => panic!("{role}: {error}"),
        }
    }
}

async fn one_backup(
    repository: &Repository,
    role: &str,
    begun: &mut Vec<(PointId, Vec<u8>)>,
    pen: &mut Pen,
    chance: &mut Random,
) -> Result<()> {
    let base = repository.latest(&vm(role)).await?;
    // Now and then all of the disk is read, and found to be stored.
    let parent = base.as_ref().filter(|_| chance.below(6) > 0);
    let mut chunks = vec![0; CHUNKS];
    if let Some(base) = &base {
        let known = begun.iter().find(|(point, _)| point == base.id());
        chunks.clone_from(&known.unwrap_or_else(|| panic!("{} is of nobody", base.id())).1);
        if chance.below(4) == 0 {
            let pin = base.pin().await?;
            assert!(content(base).await? == bytes(&chunks), "{} is not what was written", base.id());
            pin.release().await;
        }
    }
    let mut areas = Vec::new();
    for (at, chunk) in (0..).zip(&mut chunks) {
        let changes = base.is_none() || chance.below(5) == 0;
        if changes {
            *chunk = chance.below(POOL) as u8;
        }
        if changes || parent.is_none() {
            areas.push(at * CHUNK..(at + 1) * CHUNK);
        }
    }
    let record = VmRecord { instance_uuid: vm(role), mo_ref: role.into(), name: role.into() };
    let options = WriterOptions::default().pack_size(1 << 20).lease(LEASE);
    let mut point = repository.begin(record, Consistency::Crash, options).await?;
    point.put_object("config.json", format!("{{\"name\":\"{role}\"}}").into()).await?;
    let disk = MemoryDisk::new(bytes(&chunks));
    let from = match parent {
        Some(parent) => Some(Parent::new(parent.disk(2000).await?)),
        None => None,
    };
    let areas = stream::iter(areas.into_iter().map(Ok)).boxed();
    let done = DiskBackup::new(2000, &disk, point.writer()).parent(from).run(areas).await?;
    let mode = if parent.is_some() { BackupMode::Incremental } else { BackupMode::Full };
    point.set_parent(parent.map(|parent| parent.id().clone()));
    point.add_disk(DiskRecord { mode, ..disk_record(&done) })?;
    let id = point.id().clone();
    pen.begin(&id, &chunks);
    begun.push((id.clone(), chunks));
    point.commit().await?;
    pen.done(&id);
    Ok(())
}

/// Returns the machine of a role.
pub(super) fn vm(role: &str) -> VmId {
    let number = BACKED_UP.iter().position(|other| *other == role).unwrap();
    VmId::parse(&format!("5029c440-0000-0000-0000-00000000000{number}")).unwrap()
}

/// Returns the bytes of a disk that is made of such chunks.
pub(super) fn bytes(chunks: &[u8]) -> Vec<u8> {
    chunks.iter().flat_map(|&chunk| noise(chunk.into(), CHUNK)).collect()
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
