//! What a virtual machine is and does: details, power, configuration, snapshots, changed areas.

mod changed;
mod config;
mod details;
mod power;
mod snapshot;

pub use self::{
    changed::ChangedAreas,
    details::VmDetails,
    power::PowerState,
    snapshot::{CreateSnapshotOptions, RemoveSnapshotOptions, Snapshot, SnapshotTree},
};
