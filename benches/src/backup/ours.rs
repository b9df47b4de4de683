//! Our side: each step as a program of its own would run it.

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use vixdisklib::{Access, Connection, Disk};
use vsphere_backup::engine::{DiskBackup, DiskSource, Parent};
use vsphere_backup::repository::keys::{KeySource, Unlock};
use vsphere_backup::repository::storage::BoxFuture;
use vsphere_backup::repository::{
    BackupMode, Consistency, CreateOptions, DiskRecord, Repository, VmId, VmRecord, WriterOptions,
};
use vsphere_backup::{Backup, DiskError, FileFormat, Restore, Since};
use vsphere_vim::{Credentials, MoRef, Vim};

use super::image;
use super::stopwatch::Stopwatch;

const KEY: i32 = 2000;

/// What a step did, in bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) changed: u64,
    pub(super) read: u64,
}

/// A key file: a password would cost a second of its own at each start, as restic's does.
const KEY_FILE: &[u8] = b"the key file of a benchmark, which is no secret at all";

/// Creates an encrypted repository in a folder.
pub(super) async fn create(folder: &Path) -> Result<(), Box<dyn Error>> {
    let options = CreateOptions::default().encrypted(KeySource::key_file(KEY_FILE));
    Repository::create_local(folder, options).await?;
    Ok(())
}

async fn open(folder: &Path) -> Result<Repository, Box<dyn Error>> {
    Ok(Repository::open_local_with(folder, Unlock::key_file(KEY_FILE)).await?)
}

/// Backs up an image through the transport `file`: what is allocated, or the changes of a round.
pub(super) async fn of_file(image: &Path, folder: &Path, round: Option<u64>) -> Result<Done, Box<dyn Error>> {
    let repository = open(folder).await?;
    let vm = VmId::parse("5029c440-0000-0000-0000-000000000001")?;
    let disk = Connection::local(Access::ReadOnly).open(image.to_str().ok_or("the path is not text")?).await?;
    let base = match round {
        Some(_) => repository.latest(&vm).await?,
        None => None,
    };
    let parent = match &base {
        Some(base) => Some(Parent::new(base.disk(KEY).await?)),
        None => None,
    };
    let areas: Vec<Range<u64>> = match round {
        None => disk.allocated(0..disk.capacity()).await?.areas,
        Some(round) => joined(image::changes(disk.capacity(), round)),
    };
    let record = VmRecord { instance_uuid: vm, mo_ref: "vm-1".into(), name: "bench".into() };
    let mut point = repository.begin(record, Consistency::Crash, WriterOptions::default()).await?;
    let source = Local(disk);
    let done = DiskBackup::new(KEY, &source, point.writer())
        .parent(parent)
        .run(stream::iter(areas.into_iter().map(Ok)))
        .await?;
    point.set_parent(base.as_ref().map(|base| base.id().clone()));
    point.add_disk(DiskRecord {
        key: KEY,
        label: String::new(),
        backing_uuid: None,
        path: String::new(),
        capacity: done.capacity,
        change_id: None,
        root: done.root,
        mode: if base.is_some() { BackupMode::Incremental } else { BackupMode::Full },
        reason: String::new(),
        bytes: done.bytes,
        distrust: None,
        metadata: Default::default(),
    })?;
    point.commit().await?;
    source.0.close().await?;
    Ok(Done { changed: done.bytes.changed, read: done.bytes.read })
}

/// Backs up the machine of a simulator over nbdssl: whole the first time, then what changed.
pub(super) async fn of_machine(access: &[String], folder: &Path) -> Result<Done, Box<dyn Error>> {
    let [url, user, password, sha256, vm] = access else { return Err("five words tell of the simulator".into()) };
    let credentials = Credentials::password(user, password.as_str());
    let vim = Vim::builder(url).credentials(credentials).thumbprint(sha256.parse()?).connect().await?;
    let repository = open(folder).await?;
    let stopwatch = Arc::new(Stopwatch::default());
    let report = Backup::of(&vim, MoRef::new(vm))
        .journal(folder.with_extension("journal"))
        .since(Since::Latest)
        .parallel_disks(8)
        .step_hook(stopwatch.clone())
        .run(&repository)
        .await?;
    vim.logout().await?;
    println!("{stopwatch}");
    Ok(Done { changed: report.bytes().changed, read: report.bytes().read })
}

/// Restores the newest point into a new raw file, without reading it back.
pub(super) async fn restore(folder: &Path, target: &Path) -> Result<Done, Box<dyn Error>> {
    let repository = open(folder).await?;
    let vm = repository.vms().await?.into_iter().next().ok_or("the repository is empty")?;
    let point = repository.latest(&vm).await?.ok_or("there is no point")?;
    let key = point.disks().first().ok_or("the point has no disk")?.key;
    let report = Restore::of(&point).verify(false).to_file(key, target, FileFormat::Raw).await?;
    Ok(Done { changed: 0, read: report.disks.iter().map(|disk| disk.bytes.written).sum() })
}

fn joined(changes: Vec<(u64, Vec<u8>)>) -> Vec<Range<u64>> {
    let mut areas: Vec<Range<u64>> = Vec::new();
    for (at, bytes) in changes {
        let end = at + bytes.len() as u64;
        match areas.last_mut() {
            Some(last) if last.end == at => last.end = end,
            _ => areas.push(at..end),
        }
    }
    areas
}

struct Local(Disk);

impl DiskSource for Local {
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move { self.0.read_at(offset, len).await.map_err(DiskError::new) })
    }

    fn read_with(&self, offset: u64, len: usize, memory: BytesMut) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move { self.0.read_with(offset, len, memory).await.map_err(DiskError::new) })
    }
}
