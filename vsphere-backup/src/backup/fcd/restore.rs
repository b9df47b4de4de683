//! A First Class Disk set back to a recovery point, in place.

use std::sync::Arc;

use vixdisklib::Access;

use crate::{
    engine::{Budget, DiskRestore, Progress, RestoreMode, RestoredDisk},
    error::{Error, Result, in_one_line},
    event::Event,
    journal::Abandoned,
    repository::RecoveryPoint,
    restore::{give_back, last_look},
    server::{self, RemoteDisk},
    step::{Step, SteppedDisk, Steps},
};

use super::{FCD_KEY, FcdBackup, fcd_vm_id, work::opening};

impl FcdBackup {
    /// Writes a point's bytes over the disk, where they differ. The machine that has it must be off.
    ///
    /// The repository notes the restore before anything is written, so that the next backup reads all of the disk.
    ///
    /// # Errors
    /// [`Error::Refused`] when no machine has the disk or the point is of another one, [`Error::Invalid`] when the disk
    /// is smaller than the point's, [`Error::JournalInUse`], [`Error::Server`], [`Error::Disk`],
    /// [`Error::DamagedChunk`], [`Error::DamagedPage`], [`Error::Storage`], [`Error::Cancelled`], [`Error::Abandoned`].
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomAccess` on the machine that has the disk.
    ///
    /// # Cancel safety
    /// When dropped, the restore is cancelled, and closes the disk in the background, on the runtime: any part of the
    /// disk may be written; run it again.
    pub async fn restore_in_place(&self, point: &RecoveryPoint) -> Result<RestoredDisk> {
        let (backup, point) = (self.clone(), point.clone());
        let work =
            |cancel, journal: Arc<Abandoned>| async move { Self { cancel, ..backup }.in_place(&point, &journal).await };
        self.cancel.outlive_journaled(work).await
    }

    async fn in_place(&self, point: &RecoveryPoint, abandoned: &Abandoned) -> Result<RestoredDisk> {
        let id = fcd_vm_id(&self.disk.id)?;
        if *point.id().vm() != id {
            return Err(self.refused(&format!("{} is a point of something else", point.id()), None));
        }
        // No backup of it begins meanwhile.
        let guard = self.hold(&id).await?;
        abandoned.note(guard.journal());
        guard.recover().await?;
        let steps = guard.steps();
        let pin = steps.once(Step::HoldPoint, point.pin()).await?;
        let done = self.overwrite(steps, point).await;
        give_back(pin, steps, &self.events).await;
        done
    }

    /// Everything while the point is held.
    async fn overwrite(&self, steps: &Steps, point: &RecoveryPoint) -> Result<RestoredDisk> {
        let disk = steps.take(Step::DescribeDisk, || self.retrieve()).await?;
        let vm = self.machine(steps, &disk).await?;
        let connection = steps.take(Step::Connect, || self.connect(&vm, Access::ReadWrite)).await?;
        let reader = point.disk(FCD_KEY).await?;
        // Again, now that the mark is there: where its bytes are now.
        let path = self.mark(steps, point).await?;
        let open = || async { connection.open(path.as_str()).await.map_err(opening) };
        let target = RemoteDisk(steps.take(Step::OpenDisk, open).await?);
        let progress = |progress: Progress| self.events.send(Event::DiskProgress { disk: FCD_KEY, progress });
        let stepped = SteppedDisk::new(FCD_KEY, &target, steps);
        let restore = DiskRestore::new(&reader, &stepped).mode(RestoreMode::OnlyDifferences);
        let done = restore.budget(&Budget::new(self.memory)).cancel(&self.cancel).on_progress(&progress).run().await;
        let close = async { target.0.close().await.map_err(closing) };
        let closed = steps.undoing().once(Step::CloseDisk, close).await;
        // Whatever was written: a backup from elsewhere may have snapshotted the disk meanwhile, and the first mark is
        // older than its point.
        let seen = last_look(self.mark(&steps.undoing(), point)).await;
        let done = done?;
        // Closing is what makes the last writes count.
        closed?;
        match seen {
            Ok(now) if now != path => {
                let hint = "remove its snapshots and run the restore again";
                return Err(self.refused("it was snapshotted while it was written", Some(hint)));
            }
            Ok(_) => {}
            // What is written is right; only what others did meanwhile is not known.
            Err(error) => {
                self.events.warn(format!("{} was not looked at after the restore: {}", self.disk, in_one_line(&error)));
            }
        }
        Ok(done)
    }

    /// Marks the disk as restored, and asks where its bytes are: a backup that snapshots it from now on reads the mark.
    async fn mark(&self, steps: &Steps, point: &RecoveryPoint) -> Result<String> {
        let mark = point.repository().note_restore(point.id(), [FCD_KEY].into());
        steps.once(Step::MarkRestored, mark).await?;
        let disk = steps.take(Step::MatchDisks, || self.retrieve()).await?;
        disk.path.ok_or_else(|| self.refused("the server does not say where its bytes are", None))
    }
}

pub(super) fn closing(error: vixdisklib::Error) -> Error {
    let source = server::disk_error(error);
    Error::Disk { operation: "closing", disk: FCD_KEY, offset: 0, len: 0, source }
}
