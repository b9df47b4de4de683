//! What the tests share: disks in memory, and backing them up without a server.

use std::{ops::Range, sync::Arc};

use futures_util::{StreamExt, stream};
use vsphere_backup::{
    Result,
    engine::{BackedUpDisk, DiskBackup, MemoryDisk, Parent},
    repository::{
        BackupMode, Consistency, CreateOptions, DiskRecord, RecoveryPoint, Repository, VmId, VmRecord, WriterOptions,
        keys::{KeySource, PasswordCost, Unlock},
        storage::{MemoryStorage, Storage},
    },
};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const CHUNK: u64 = 64 * KIB;

pub(crate) fn vm() -> VmId {
    VmId::parse("5029c440-0000-0000-0000-000000000001").unwrap()
}

pub(crate) fn record() -> VmRecord {
    VmRecord { instance_uuid: vm(), mo_ref: "vm-42".into(), name: "web".into() }
}

/// Makes an empty repository in memory, with chunks of 64 KiB.
pub(crate) async fn repository() -> (Arc<MemoryStorage>, Repository) {
    let storage = Arc::new(MemoryStorage::new());
    let options = CreateOptions::default().chunk_size(CHUNK as u32);
    let repository = Repository::create(storage.clone(), options).await.unwrap();
    (storage, repository)
}

pub(crate) async fn open(storage: Arc<dyn Storage>) -> Result<Repository> {
    Repository::open(storage).await
}

/// A password that is cheap to try, as only tests want it.
pub(crate) fn password(text: &str) -> KeySource {
    KeySource::password(text).cost(PasswordCost::new(8, 1, 1).unwrap())
}

/// Makes an empty repository in memory that the password `secret` opens.
pub(crate) async fn encrypted_repository() -> (Arc<MemoryStorage>, Repository) {
    let storage = Arc::new(MemoryStorage::new());
    let options = CreateOptions::default().chunk_size(CHUNK as u32).encrypted(password("secret"));
    let repository = Repository::create(storage.clone(), options).await.unwrap();
    (storage, repository)
}

pub(crate) async fn open_with(storage: Arc<dyn Storage>, text: &str) -> Result<Repository> {
    Repository::open_with(storage, Unlock::password(text)).await
}

/// Fills a range with bytes that do not compress and depend on `seed`.
pub(crate) fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A disk of 3 MiB and a bit: data that compresses, data that does not, zeros, an odd end.
pub(crate) fn sample() -> Vec<u8> {
    let mut disk = vec![0; (3 * MIB + 1536) as usize];
    disk[..700_000].copy_from_slice(&noise(1, 700_000));
    disk[1_000_000..1_400_000].fill(7);
    disk[3 * MIB as usize..].copy_from_slice(&noise(2, 1536));
    disk
}

/// Backs up one disk of one machine and commits the point. Without a parent, `areas` are the
/// allocated ones.
pub(crate) async fn back_up(
    repository: &Repository,
    disk: &MemoryDisk,
    areas: &[Range<u64>],
    parent: Option<&RecoveryPoint>,
) -> Result<(RecoveryPoint, BackedUpDisk)> {
    back_up_with(repository, disk, areas, parent, WriterOptions::default()).await
}

/// As [`back_up`], with options of the writer; packs are of 1 MiB.
pub(crate) async fn back_up_with(
    repository: &Repository,
    disk: &MemoryDisk,
    areas: &[Range<u64>],
    parent: Option<&RecoveryPoint>,
    options: WriterOptions,
) -> Result<(RecoveryPoint, BackedUpDisk)> {
    let options = options.pack_size(1 << 20);
    let mut point = repository.begin(record(), Consistency::Crash, options).await?;
    point.put_object("config.json", r#"{"name":"web"}"#.into()).await?;
    let from = match parent {
        Some(parent) => Some(Parent::new(parent.disk(2000).await?)),
        None => None,
    };
    let areas: Vec<_> = areas.iter().cloned().map(Ok).collect();
    let done = DiskBackup::new(2000, disk, point.writer()).parent(from).run(stream::iter(areas).boxed()).await?;
    point.set_parent(parent.map(|parent| parent.id().clone()));
    let mode = if parent.is_some() { BackupMode::Incremental } else { BackupMode::Full };
    point.add_disk(DiskRecord { mode, ..disk_record(&done) })?;
    Ok((point.commit().await?.0, done))
}

/// The record of a disk that was read in full.
pub(crate) fn disk_record(done: &BackedUpDisk) -> DiskRecord {
    DiskRecord {
        key: 2000,
        label: "Hard disk 1".into(),
        backing_uuid: Some("6000C29a".into()),
        path: "[ds1] web/web.vmdk".into(),
        capacity: done.capacity,
        change_id: Some("52 de/7".into()),
        root: done.root,
        mode: BackupMode::Full,
        reason: String::new(),
        bytes: done.bytes,
        distrust: None,
        metadata: Default::default(),
    }
}

/// Reads a stored disk whole.
pub(crate) async fn content(point: &RecoveryPoint) -> Result<Vec<u8>> {
    let disk = point.disk(2000).await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < disk.capacity() {
        let len = (disk.capacity() - bytes.len() as u64).min(MIB + 13);
        bytes.extend_from_slice(&disk.read_at(bytes.len() as u64, len as usize).await?);
    }
    Ok(bytes)
}
