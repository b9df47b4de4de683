//! What a running job tells: states in full, progress as numbers.

use std::{fmt, sync::Arc};

use crate::{
    engine::Progress,
    journal::Leftover,
    repository::{BackupMode, DiskBytes, PointId},
    step::Step,
};

/// Something that happened. Every change of a server or of the repository has one.
///
/// Events of one job come in order, from the task that works; a handler must not block.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A step begins. Reads of disks are told as progress instead.
    StepBegun {
        /// The step.
        step: Step,
        /// The number of the try, from 1 on.
        attempt: u32,
    },
    /// The journal tells that an earlier job left something on the server, which is undone first.
    LeftoverFound(Leftover),
    /// What an earlier job left is undone.
    LeftoverRemoved,
    /// An interrupted backup goes on with its snapshot.
    Resumed {
        /// What the journal says of it.
        leftover: Leftover,
    },
    /// A disk will not be in the point.
    DiskLeftOut {
        /// The device key.
        disk: i32,
        /// The label.
        label: String,
        /// Why.
        reason: String,
    },
    /// The machine is locked against migration.
    Locked,
    /// The snapshot exists.
    SnapshotCreated {
        /// Its managed object id.
        snapshot: String,
    },
    /// A disk's transfer begins.
    DiskStarted {
        /// The device key.
        disk: i32,
        /// The label.
        label: String,
        /// In bytes.
        capacity: u64,
        /// All of it or the changes; `None` for a restore.
        mode: Option<BackupMode>,
        /// Why.
        reason: String,
        /// How the bytes travel.
        transport: String,
    },
    /// Change tracking of the machine was enabled. What changes from now on is known.
    TrackingEnabled,
    /// Blocks of a disk changed that change tracking calls unchanged. The disk is read in full, now, and compared by
    /// later backups.
    TrackingDistrusted {
        /// The device key.
        disk: i32,
        /// The first byte of the chunk that was found first.
        offset: u64,
    },
    /// All of a disk was compared and change tracking was right: it is believed again.
    TrackingTrusted {
        /// The device key.
        disk: i32,
    },
    /// A disk's transfer goes on. The newest counts; older ones may be dropped.
    DiskProgress {
        /// The device key.
        disk: i32,
        /// How far it is.
        progress: Progress,
    },
    /// A disk's transfer is done.
    DiskFinished {
        /// The device key.
        disk: i32,
        /// Figures of a backup.
        bytes: DiskBytes,
    },
    /// A restored disk is read back and compared.
    DiskVerified {
        /// The device key.
        disk: i32,
    },
    /// The recovery point is visible.
    Committed {
        /// The point.
        point: PointId,
    },
    /// A new machine exists; its disks are still empty.
    MachineCreated {
        /// Its managed object id.
        machine: String,
    },
    /// A machine that a restore began to make is destroyed again.
    MachineDestroyed {
        /// Its managed object id.
        machine: String,
    },
    /// A machine was powered off for a restore.
    PoweredOff,
    /// A machine is powered on.
    PoweredOn,
    /// The snapshot is removed.
    SnapshotRemoved,
    /// The machine may migrate again.
    Unlocked,
    /// Something is not as it should be, and the job goes on.
    Warning {
        /// What.
        message: String,
    },
    /// Something that a dead job left is removed, without its journal.
    Reaped {
        /// What.
        what: String,
        /// The job.
        job: String,
    },
    /// Something could not be undone and stays on the server; the journal keeps it for the next
    /// run.
    LeftBehind {
        /// What, and why.
        what: String,
    },
}

/// Who is told of events.
#[derive(Clone, Default)]
pub(crate) struct Events(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Events {
    pub(crate) fn new(handler: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(handler)))
    }

    /// Tells one more, after those before.
    pub(crate) fn and(self, handler: impl Fn(Event) + Send + Sync + 'static) -> Self {
        match self.0 {
            None => Self::new(handler),
            Some(first) => Self::new(move |event| {
                first(event.clone());
                handler(event);
            }),
        }
    }

    pub(crate) fn send(&self, event: Event) {
        match &event {
            Event::Warning { message } => tracing::warn!("{message}"),
            Event::LeftBehind { what } => tracing::error!("{what}"),
            Event::DiskProgress { .. } => {}
            Event::StepBegun { step, attempt } => tracing::debug!(%step, attempt),
            other => tracing::info!(event = ?other),
        }
        if let Some(handler) = &self.0 {
            handler(event);
        }
    }

    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.send(Event::Warning { message: message.into() });
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Events(handler)" } else { "Events" })
    }
}
