//! The bytes of a disk on their way into the repository.

use std::ops::Range;

use crate::{
    engine::{BackedUpDisk, Checkpoint, DiskBackup, Parent, Progress},
    error::Result,
    event::Event,
    journal::StoredDisk,
    repository::storage::BoxFuture,
    server::RemoteDisk,
};

use super::{DiskJob, areas::Areas, ways::Way};

impl DiskJob<'_> {
    /// Stores what lies in some areas; `parent` is what the rest is as, and where the disk has anything at all.
    pub(super) async fn transfer(
        &self,
        source: &RemoteDisk,
        way: &Way,
        parent: Option<(Parent, Option<Vec<Range<u64>>>)>,
        areas: Areas<'_>,
    ) -> Result<BackedUpDisk> {
        let (disk, events) = (self.frozen.info.key.0, &self.frozen.backup.events);
        let progress = |progress: Progress| events.send(Event::DiskProgress { disk, progress });
        let source = self.frozen.stepped(source);
        let keep = |at: Checkpoint| -> BoxFuture<'_, Result<()>> {
            let record = self.record(at.root, at.bytes, way);
            Box::pin(self.keep(StoredDisk { position: Some(at.position), record, store: None }))
        };
        let (parent, allocated) = parent.map_or((None, None), |(parent, allocated)| (Some(parent), allocated));
        let mut work = DiskBackup::new(disk, &source, &self.writer)
            .parent(parent)
            .allocated(allocated)
            .trust(way.trust)
            .resume(way.from)
            .budget(&self.budget)
            .cancel(&self.frozen.backup.cancel)
            .on_progress(&progress);
        if self.keeps_checkpoints() {
            work = work.checkpoints(self.frozen.backup.checkpoint_every, &keep);
        }
        work.run(areas).await
    }
}
