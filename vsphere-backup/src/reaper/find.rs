//! Looking for markers on a server.

use std::time::Duration;

use vsphere_vim::{
    MoRef, Vim,
    fcd::{FcdScope, FirstClassDisks},
    method_lock::{LockOutcome, MethodLock},
    mo,
    types::{PropertyPath, methods},
    vm::SnapshotTree,
};

use crate::{error::Result, journal::marker, repository::VmId, server::failed};

use super::{Left, Machine, NO_JOB};

/// A machine with what a scan needs of it.
pub(super) struct Seen {
    pub(super) machine: Machine,
    pub(super) snapshots: SnapshotTree,
    pub(super) is_locked: bool,
}

/// Returns the job that a marker in a text names.
pub(super) fn job_of(text: &str) -> Option<&str> {
    marker::job_in(text)
}

/// Asks the server for its time, in seconds since 1970: ages are told by one clock.
pub(super) async fn server_time(vim: &Vim) -> Result<i64> {
    let instance = MoRef::<mo::ServiceInstance>::new("ServiceInstance");
    let now = vim.invoke(&instance, methods::CurrentTime::default()).await;
    Ok(now.map_err(failed("asking for the time", "the server"))?.unix_seconds())
}

/// Reads these machines, or all.
pub(super) async fn machines(vim: &Vim, only: &[MoRef<mo::VirtualMachine>]) -> Result<Vec<Seen>> {
    const INSTANCE_UUID: PropertyPath<mo::VirtualMachine, String> = PropertyPath::new("config.instanceUuid");
    let wanted = match only {
        [] => vim.properties::<mo::VirtualMachine>().under(vim.root()),
        only => vim.properties::<mo::VirtualMachine>().of(only),
    };
    let paths =
        (mo::VirtualMachine::NAME, INSTANCE_UUID, mo::VirtualMachine::SNAPSHOT, mo::VirtualMachine::DISABLED_METHOD);
    let rows = wanted.select(paths).collect().await.map_err(failed("reading the machines", "the inventory"))?;
    let seen = rows.into_iter().map(|row| {
        let (name, id, snapshots, locked) = row.values;
        let name = name.present().unwrap_or_else(|| row.object.value().to_owned());
        let id = id.present().and_then(|id| VmId::parse(&id).ok());
        Seen {
            machine: Machine { moref: row.object, name, id },
            snapshots: snapshots.present().map(SnapshotTree::from).unwrap_or_default(),
            is_locked: locked.present().is_some_and(|methods| methods.iter().any(|method| method == LOCKED)),
        }
    });
    Ok(seen.collect())
}

/// Returns the snapshots with a marker, their jobs and ages.
pub(super) fn snapshots(vm: &Seen, now: i64) -> Vec<(Left, String, Duration)> {
    let marked = vm.snapshots.iter().filter_map(|found| {
        let job = job_of(&found.description)?.to_owned();
        let what =
            Left::Snapshot { vm: vm.machine.clone(), snapshot: found.snapshot.clone(), name: found.name.clone() };
        Some((what, job, age(now, found.created_at.unix_seconds())))
    });
    marked.collect()
}

/// Returns the lock of a machine, when its holder is one of our jobs.
pub(super) async fn lock(vim: &Vim, vm: &Machine) -> Result<Option<(Left, String)>> {
    // With a marker of its own: should this process die between taking and releasing it, it is found.
    let probe = MethodLock::against_migration(&vm.moref, marker::of(NO_JOB));
    let wrong = || failed("asking who holds the lock", &vm.name);
    match vim.lock_methods(&probe).await.map_err(wrong())? {
        LockOutcome::AlreadyLocked { by: Some(source) } => {
            let job = job_of(&source).map(str::to_owned);
            Ok(job.map(|job| (Left::Lock { vm: vm.clone(), source }, job)))
        }
        LockOutcome::Taken => {
            // Free by now, and given back.
            vim.unlock_methods(&probe).await.map_err(wrong())?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Returns the snapshots of First Class Disks with a marker, their jobs and ages; and what could not be looked at.
pub(super) async fn disk_snapshots(vim: &Vim, now: i64) -> Result<(Vec<(Left, String, Duration)>, Vec<String>)> {
    let (mut found, mut unseen) = (Vec::new(), Vec::new());
    // Servers without such disks have nothing to be looked at.
    if let Ok(disks) = vim.first_class_disks() {
        let wrong = failed("looking for their snapshots", "first class disks");
        all_disk_snapshots(&disks, now, &mut found, &mut unseen).await.map_err(wrong)?;
    }
    Ok((found, unseen))
}

async fn all_disk_snapshots(
    disks: &FirstClassDisks,
    now: i64,
    found: &mut Vec<(Left, String, Duration)>,
    unseen: &mut Vec<String>,
) -> Result<(), vsphere_vim::Error> {
    let mut list = disks.list(FcdScope::All);
    while let Some(disk) = list.try_next().await? {
        let snapshots = match disks.snapshots(&disk).await {
            Ok(snapshots) => snapshots,
            Err(error) => {
                unseen.push(format!("{disk}: {error}"));
                continue;
            }
        };
        for snapshot in snapshots {
            if let (Some(job), Some(id)) = (job_of(&snapshot.description), snapshot.id) {
                let what = Left::DiskSnapshot { disk: disk.clone(), snapshot: id };
                found.push((what, job.to_owned(), age(now, snapshot.created_at.unix_seconds())));
            }
        }
    }
    Ok(())
}

/// What lies in the future has no age.
fn age(now: i64, then: i64) -> Duration {
    Duration::from_secs(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
}

/// The method that a backup's lock is on.
const LOCKED: &str = "RelocateVM_Task";
