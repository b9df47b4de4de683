//! What a virtual machine is and does: life cycle, details, power, configuration, snapshots, changed areas.

mod changed;
mod config;
mod create;
mod details;
mod placement;
mod power;
mod quiesce;
mod shutdown;
mod snapshot;

pub use self::{
    changed::ChangedAreas,
    create::RegisterVm,
    details::VmDetails,
    placement::{CloneOptions, Relocation},
    power::PowerState,
    quiesce::{GuestQuiesce, VssBackupType, VssContext, VssOptions},
    shutdown::{Forced, ShutdownOutcome, ShutdownPolicy},
    snapshot::{CreateSnapshotOptions, RemoveSnapshotOptions, RevertOptions, Snapshot, SnapshotTree},
};
