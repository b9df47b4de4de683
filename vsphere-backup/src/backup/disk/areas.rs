//! Where a disk has something, and where it changed.

use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use vixdisklib::{Allocation, AllocationBasis, Holes};
use vsphere_cbt::{AreaQuery, changed_areas};

use crate::{
    error::{DiskError, Error, Result},
    repository::storage::{BoxFuture, BoxStream},
    server::{self, RemoteDisk},
    step::Step,
};

use super::FrozenDisk;

pub(in crate::backup) type Areas<'a> = BoxStream<'a, Result<Range<u64>, DiskError>>;

impl FrozenDisk<'_> {
    /// Asks where anything is; `None` unless the answer is exact. It is where the host maps the disk's file (NFC from
    /// ESXi 6.7 on, on VMFS) or the file does itself (`file`); over `https`, on other datastores and after a refusal
    /// everything counts as allocated.
    pub(in crate::backup) async fn allocated(&self, source: &RemoteDisk) -> Result<Option<Vec<Range<u64>>>> {
        let ask = async { Ok(source.0.allocated(0..self.info.capacity).await) };
        Ok(match self.steps().once(Step::AskAllocated, ask).await? {
            Ok(Allocation { areas, basis: AllocationBasis::Known, holes: Holes::ReadAsZeros, .. }) => Some(areas),
            Ok(_) => None,
            Err(error) => {
                let text = format!("disk {}: its allocated areas could not be told: {error}", self.info.key.0);
                self.backup.events.warn(text);
                None
            }
        })
    }

    /// Reads all that is allocated: by the transport's word, else by that of change tracking, else everything.
    pub(in crate::backup) async fn read_all<'a, T>(
        &self,
        source: &RemoteDisk,
        transfer: impl Fn(Areas<'static>) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        if let Some(areas) = self.allocated(source).await? {
            return transfer(stream::iter(areas).map(Ok).boxed()).await;
        }
        if self.info.backing.change_id.is_some() {
            let read = async { transfer(self.changed(vsphere_cbt::Since::Allocated).await?).await };
            match read.await {
                Err(Error::Areas { source, .. }) if needs_full(&source) => {
                    let text = format!("disk {} is read to its last byte: {source}", self.info.key.0);
                    self.backup.events.warn(text);
                }
                other => return other,
            }
        }
        transfer(stream::iter([Ok(0..self.info.capacity)]).boxed()).await
    }

    /// Asks which areas changed. The first answer is awaited here, so that it can be asked for again.
    pub(in crate::backup) async fn changed(&self, since: vsphere_cbt::Since<'_>) -> Result<Areas<'static>> {
        let (disk, capacity) = (self.info.key.0, self.info.capacity);
        let wrong = |error| Error::Areas { disk, source: server::cbt_error(error) };
        let ask = || async {
            let snapshot = self.snapshot.expect("disks without a snapshot have no change ids by which to ask");
            let (vm, snapshot) = (self.backup.vm.clone(), snapshot.clone());
            let query = AreaQuery::new(vm, snapshot, self.info.key, since, capacity);
            let mut areas = changed_areas(&self.backup.vim, query).boxed();
            let first = areas.try_next().await.map_err(wrong)?;
            Ok(stream::iter(first.map(Ok)).chain(areas.map_err(server::cbt_error)).boxed())
        };
        self.steps().take(Step::AskChanges, ask).await
    }
}

/// Tells whether areas failed for a reason that a full backup does away with.
pub(in crate::backup) fn needs_full(error: &DiskError) -> bool {
    error.inner().downcast_ref::<vsphere_cbt::Error>().is_some_and(vsphere_cbt::Error::needs_full_backup)
}
