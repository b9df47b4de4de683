//! A recovery point: being written, and committed.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::error::{Error, Result};

use super::{
    Repository,
    config::PAGE_ENTRIES,
    copy::Origin,
    envelope::Kind,
    fence,
    id::{MetaId, PointId},
    lease::Lease,
    manifest::{Consistency, DiskRecord, Fallback, LeftOut, Manifest, VmRecord},
    now,
    object::is_taken,
    reader::DiskReader,
    set::SetRecord,
    tree::Shape,
    writer::{Writer, WriterOptions, WriterTotals},
};

/// A committed recovery point: a full image of a virtual machine's disks at one moment.
#[derive(Clone, Debug)]
pub struct RecoveryPoint {
    repository: Repository,
    manifest: Arc<Manifest>,
}

impl RecoveryPoint {
    pub(super) fn new(repository: Repository, manifest: Manifest) -> Self {
        Self { repository, manifest: Arc::new(manifest) }
    }

    /// Returns the point's identity.
    pub fn id(&self) -> &PointId {
        &self.manifest.id
    }

    /// Returns all that the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the disks.
    pub fn disks(&self) -> &[DiskRecord] {
        &self.manifest.disks
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Opens the disk with device key `key`.
    ///
    /// # Errors
    /// [`Error::DiskNotFound`]; those of loading the index: [`Error::Storage`],
    /// [`Error::UnsupportedVersion`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn disk(&self, key: i32) -> Result<DiskReader> {
        let record = self.record(key)?.clone();
        self.repository.load_index().await?;
        Ok(DiskReader::new(self.repository.clone(), self.id().clone(), record))
    }

    pub(crate) fn record(&self, key: i32) -> Result<&DiskRecord> {
        self.manifest
            .disks
            .iter()
            .find(|disk| disk.key == key)
            .ok_or_else(|| Error::DiskNotFound { point: self.id().clone(), disk: key })
    }

    /// Reads a small object of the point, such as `config.json`; `None` when there is none of
    /// this name.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn object(&self, name: &str) -> Result<Option<Bytes>> {
        match self.manifest.objects.get(name) {
            Some(&id) => self.repository.meta(id).await.map(Some),
            None => Ok(None),
        }
    }
}

/// A recovery point that is being written. Nothing of it is visible before
/// [`commit`](Self::commit); dropping it leaves chunks that a later backup finds and uses.
///
/// It holds a lease, which is renewed by a task and given back when the point is committed or dropped.
#[derive(Debug)]
pub struct PointWriter {
    writer: Writer,
    manifest: Manifest,
    lease: LeaseOfPoint,
}

/// The lease of a point that is being written. Dropping it gives the lease back, unless a manifest may be on its way.
#[derive(Debug)]
struct LeaseOfPoint {
    lease: Arc<Lease>,
    committing: bool,
}

impl Drop for LeaseOfPoint {
    fn drop(&mut self) {
        if self.committing {
            // The manifest may yet appear. A collector fences the point before it counts the writer as gone.
            self.lease.abandon();
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The chunks' writer may live on in other tasks, and shares the lease.
            let lease = self.lease.clone();
            drop(runtime.spawn(async move { lease.release().await }));
        }
    }
}

impl PointWriter {
    pub(super) fn new(
        repository: Repository,
        id: PointId,
        vm: VmRecord,
        consistency: Consistency,
        options: WriterOptions,
        lease: Lease,
    ) -> Self {
        let manifest = Manifest::new(id, repository.id(), vm, now(), consistency);
        let lease = LeaseOfPoint { lease: Arc::new(lease), committing: false };
        let writer = Writer::new(repository, options, Some(lease.lease.clone()));
        Self { writer, manifest, lease }
    }

    /// Returns the identity that the point will have.
    pub fn id(&self) -> &PointId {
        &self.manifest.id
    }

    /// Returns the writer of chunks, through which all disks of the point are written.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Takes all that a manifest says and a copy of its point says as well.
    pub(super) fn imitate(&mut self, original: &Manifest, origin: Origin) {
        self.manifest.created = original.created;
        self.manifest.fallbacks = original.fallbacks.clone();
        self.manifest.left_out = original.left_out.clone();
        self.manifest.objects_left_out = original.objects_left_out.clone();
        self.manifest.copy_of = Some(origin);
    }

    /// States in which state the guest's data is, once that is known.
    pub fn set_consistency(&mut self, consistency: Consistency) {
        self.manifest.consistency = consistency;
    }

    /// States which ways to quiesce the guest were given up, and why.
    pub fn set_fallbacks(&mut self, fallbacks: Vec<Fallback>) {
        self.manifest.fallbacks = fallbacks;
    }

    /// States which point the incremental disks began with.
    pub fn set_parent(&mut self, parent: Option<PointId>) {
        self.manifest.parent = parent;
    }

    /// States which set of machines the point is captured with.
    pub(crate) fn set_set(&mut self, set: SetRecord) {
        self.manifest.set = Some(set);
    }

    /// Adds a disk whose chunks were written.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a disk of this key was added before.
    pub fn add_disk(&mut self, disk: DiskRecord) -> Result<()> {
        if self.manifest.disks.iter().any(|other| other.key == disk.key) {
            return Err(Error::invalid(format!("disk {} was added twice", disk.key)));
        }
        self.manifest.disks.push(disk);
        Ok(())
    }

    /// Names a disk that is not in this point.
    pub fn leave_out(&mut self, disk: LeftOut) {
        self.manifest.left_out.push(disk);
    }

    /// Stores a small object of at most 16 MiB under a name of the point.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is too large, [`Error::Storage`].
    ///
    /// # Cancel safety
    /// When dropped, the point does not name the object.
    pub async fn put_object(&mut self, name: &str, body: Bytes) -> Result<MetaId> {
        let id = self.writer.repository().put_meta(body).await?;
        self.manifest.objects.insert(name.into(), id);
        Ok(id)
    }

    /// Names a small object that is not in this point.
    pub fn leave_out_object(&mut self, name: &str, reason: impl Into<String>) {
        self.manifest.objects_left_out.insert(name.into(), reason.into());
    }

    /// Returns the names of the small objects so far.
    pub fn objects(&self) -> &BTreeMap<String, MetaId> {
        &self.manifest.objects
    }

    /// Makes all durable and then the point visible, by creating its manifest exclusively.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], [`Error::Storage`]. When the answer to creating the manifest was
    /// lost, the manifest is looked for; only when it is not there is it an error, and then the point's name is taken
    /// so that it cannot appear later. [`Error::Fenced`] when the writer was declared dead before.
    ///
    /// # Cancel safety
    /// When dropped, the point is visible and whole, or not visible.
    pub async fn commit(mut self) -> Result<(RecoveryPoint, WriterTotals)> {
        if self.lease.lease.is_fenced() {
            return Err(self.fenced());
        }
        let totals = self.writer.finish().await?;
        self.manifest.committed = now();
        self.manifest.disks.sort_by_key(|disk| disk.key);
        let repository = self.writer.repository().clone();
        let body = Bytes::from(self.manifest.encode());
        let key = self.manifest.id.key();
        self.lease.committing = true;
        let created = repository.objects().create(Kind::Point, &key, body.clone()).await;
        if let Err(error) = created {
            self.settle(error, &body).await?;
        }
        self.lease.lease.release().await;
        Ok((RecoveryPoint::new(repository, self.manifest.clone()), totals))
    }

    /// Finds out whether the manifest was created, the answer being an error, and sees to it that this stays so.
    async fn settle(&mut self, error: Error, body: &Bytes) -> Result<()> {
        let (repository, id) = (self.writer.repository(), &self.manifest.id);
        let found = repository.objects().read(Kind::Point, &id.key()).await;
        if found.is_ok_and(|found| found == *body) {
            return Ok(());
        }
        if is_taken(&error) && fence::stands(repository.storage(), id).await.unwrap_or(false) {
            self.lease.committing = false;
            return Err(self.fenced());
        }
        // The request may still be on its way. The name is taken before the lease is given back; where that fails,
        // the lease is left to its time to live, and whoever ends it takes the name.
        if fence::raise(repository.storage(), id).await.is_err() {
            return Err(error);
        }
        // Taken by the manifest after all, or from now on by the fence.
        let found = repository.objects().read(Kind::Point, &id.key()).await;
        match found {
            Ok(found) if found == *body => Ok(()),
            _ => {
                self.lease.committing = !fence::stands(repository.storage(), id).await.unwrap_or(false);
                Err(error)
            }
        }
    }

    fn fenced(&self) -> Error {
        Error::Fenced { lease: format!("{} (writing {})", self.lease.lease.id(), self.manifest.id) }
    }
}

impl Shape {
    /// Returns the shape of a stored disk.
    pub(crate) fn of(disk: &DiskRecord, chunk_size: u32) -> Self {
        Self { disk: disk.key, capacity: disk.capacity, chunk_size }
    }
}

const _: () = assert!(PAGE_ENTRIES as usize == super::page::SLOTS);
