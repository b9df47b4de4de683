//! How a disk is read: what changed where that can be trusted, else all of it.

use vsphere_cbt::ChangeId;

use crate::{
    engine::{BackedUpDisk, Checkpoint, Parent, Trust},
    error::{Error, Result},
    event::Event,
    journal::StoredDisk,
    repository::{BackupMode, RecoveryPoint},
    server::RemoteDisk,
    step::Step,
};

use super::{
    super::{plan::Decision, resume, tracking::Choice},
    DiskJob,
    areas::needs_full,
};

/// How a disk is read.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) mode: BackupMode,
    pub(super) reason: String,
    /// Where an interrupted backup was.
    pub(super) from: Option<Checkpoint>,
    pub(super) trust: Trust,
    /// Why change tracking will not be believed by the next backup.
    pub(super) distrust: Option<String>,
}

impl Way {
    fn full(reason: impl Into<String>) -> Self {
        Self { mode: BackupMode::Full, reason: reason.into(), from: None, trust: Trust::Trust, distrust: None }
    }
}

impl DiskJob<'_> {
    /// Reads the changes where that can be trusted, else all.
    pub(super) async fn read(
        &self,
        source: &RemoteDisk,
        transport: &str,
        Choice { mut decision, trust, distrust }: Choice,
        stored: Option<StoredDisk>,
    ) -> Result<(BackedUpDisk, Way)> {
        let key = self.frozen.info.key.0;
        let from = stored.as_ref().and_then(resume::checkpoint);
        if let Some(StoredDisk { record, .. }) = stored.filter(|stored| stored.record.mode == BackupMode::Full) {
            // It had its reason.
            decision = Decision::full(record.reason);
        }
        if let (Decision::Incremental { .. }, Some(base), None) = (&decision, self.base, from)
            && let Some(damage) = self.damage_of(base).await?
        {
            self.warn_of_damage(&damage);
            decision = Decision::full(DAMAGED);
        }
        let way = match decision {
            Decision::Full { reason } => Way { from, distrust, ..Way::full(reason) },
            Decision::Incremental { since, warning } => {
                if let Some(warning) = warning {
                    self.frozen.backup.events.warn(warning);
                }
                let base = self.base.expect("an incremental decision has a base");
                let reason = format!("changes since {} are known", base.id());
                let way = Way { mode: BackupMode::Incremental, reason, from, trust, distrust };
                self.started(&way, transport);
                match self.read_changes(source, &way, base, &since).await {
                    Ok(done) if way.distrust.is_some() => {
                        // All of the disk was read, and nothing had changed that was called unchanged.
                        self.frozen.backup.events.send(Event::TrackingTrusted { disk: key });
                        return Ok((done, Way { distrust: None, ..way }));
                    }
                    Ok(done) => return Ok((done, way)),
                    Err(error) => self.fall_back(error, base, way.distrust).await?,
                }
            }
        };
        self.started(&way, transport);
        let done = self.frozen.read_all(source, |areas| Box::pin(self.transfer(source, &way, None, areas))).await?;
        Ok((done, way))
    }

    async fn read_changes(
        &self,
        source: &RemoteDisk,
        way: &Way,
        base: &RecoveryPoint,
        since: &ChangeId,
    ) -> Result<BackedUpDisk> {
        let parent = Parent::new(base.disk(self.frozen.info.key.0).await?);
        let allocated = self.frozen.allocated(source).await?;
        let areas = self.frozen.changed(vsphere_cbt::Since::Change(since)).await?;
        self.transfer(source, way, Some((parent, allocated)), areas).await
    }

    /// Turns what went wrong with reading changes into a full backup, where that helps.
    async fn fall_back(&self, error: Error, base: &RecoveryPoint, distrust: Option<String>) -> Result<Way> {
        let key = self.frozen.info.key.0;
        match error {
            Error::Areas { source, .. } if needs_full(&source) => {
                self.frozen.backup.events.warn(format!("disk {key} is read in full: {source}"));
                Ok(Way { distrust, ..Way::full(format!("its changes could not be told: {source}")) })
            }
            Error::MissedChange { offset, .. } => {
                self.frozen.backup.events.send(Event::TrackingDistrusted { disk: key, offset });
                let found = format!("bytes at {offset} had changed that change tracking called unchanged");
                // Should this backup not come to its end, nobody finds that again by chance.
                let note = self.writer.repository().note_distrust(base.id(), key, &found);
                self.frozen.steps().once(Step::NoteDistrust, note).await?;
                Ok(Way { distrust: Some(found.clone()), ..Way::full(found) })
            }
            damage @ (Error::DamagedChunk { .. } | Error::DamagedPage { .. }) => {
                self.warn_of_damage(&damage);
                Ok(Way { distrust, ..Way::full(DAMAGED) })
            }
            other => Err(other),
        }
    }

    fn warn_of_damage(&self, damage: &Error) {
        let text = format!("disk {} is read in full, its last point is damaged: {damage}", self.frozen.info.key.0);
        self.frozen.backup.events.warn(text);
    }

    /// Finds what the repository no longer has of a disk's earlier state.
    async fn damage_of(&self, base: &RecoveryPoint) -> Result<Option<Error>> {
        let check = async { base.disk(self.frozen.info.key.0).await?.probe(&self.frozen.backup.cancel).await };
        self.frozen.steps().once(Step::CheckParent, check).await
    }
}

const DAMAGED: &str = "its last point is damaged";
