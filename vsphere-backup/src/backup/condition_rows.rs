//! Each row of the table of conditions, shown: the pre-flight says its code, and the backup does what the row says.

use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use vsphere_sim::{DiskSpec, Fault, Power, Simulator, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, Credentials, MoRef, RemoveSnapshotOptions, Thumbprint, Vim,
    device::{BackingKind, DiskMode},
    method_lock::MethodLock,
    mo,
    types::{DatastoreSummary, Poly, VirtualDevice, VirtualPCIPassthrough, VirtualTPM, methods},
};

use super::{
    Backup, BackupReport, ChangeTracking, Condition, EncryptedMachines, Finding, Quiesce, QuiescePolicy, QuiesceStep,
    Severity, VirtualTpms,
    machine::Machine,
    surroundings::{datastore, defects},
};
use crate::{
    error::{Error, Result},
    event::Event,
    repository::{CreateOptions, Repository, keys::KeySource, storage::MemoryStorage},
};

/// How a condition is shown.
enum Shown {
    /// The simulator is in that state: pre-flight and backup are run.
    Simulated,
    /// The pre-flight is run; the backup finds out only when a server refuses it, and the simulator refuses nothing.
    Preflight,
    /// The simulator has no such state: what it said of a machine is changed, and what both decide by is asked.
    Machine(fn(&mut Machine)),
    /// The same of a datastore.
    Datastore(fn(&mut DatastoreSummary)),
    /// The same of a host's version.
    Host(&'static str),
}

/// Without a condition here nothing compiles.
fn shown(condition: Condition) -> Shown {
    use Condition as C;
    match condition {
        C::Disconnected => Shown::Machine(|machine| machine.details.connected = false),
        C::NoIdentity => Shown::Machine(|machine| machine.details.identity.instance_uuid = None),
        C::RawDevice => Shown::Machine(|machine| machine.details.disks[1].backing.kind = BackingKind::RawDisk),
        C::SharedBus => Shown::Machine(|machine| {
            machine.details.disks[1].controller.as_mut().unwrap().shared_bus = true;
        }),
        C::MultiWriter => Shown::Machine(|machine| {
            let backing = &mut machine.details.disks[1].backing;
            (backing.sharing, backing.mode) = (Some("sharingMultiWriter".into()), Some(DiskMode::Persistent));
        }),
        C::PersistentMemory => Shown::Machine(|machine| machine.details.disks[1].backing.kind = BackingKind::LocalPMem),
        C::UnknownBacking => Shown::Machine(|machine| {
            machine.details.disks[1].backing.kind = BackingKind::Other("VirtualDiskOfTomorrowBackingInfo".into());
        }),
        C::NoCapacity => Shown::Machine(|machine| machine.details.disks[1].capacity = 0),
        C::NoFile => Shown::Machine(|machine| machine.details.disks[1].backing.file_name = None),
        C::LinkedClone => Shown::Machine(|machine| {
            machine.details.disks[1].backing.parents = vec!["[ds1] golden/golden.vmdk".into()];
        }),
        C::FirstClassDisk => Shown::Machine(|machine| machine.details.disks[1].fcd_id = Some("6c5b2d7e-fcd".into())),
        C::ObjectStorage => Shown::Datastore(|summary| summary.type_ = "vsan".into()),
        C::LittleSpace => Shown::Datastore(|summary| summary.free_space = 1),
        C::DatastoreInaccessible => Shown::Datastore(|summary| summary.accessible = false),
        C::DefectKb2090639 => Shown::Host("5.5.0"),
        C::DefectKb2136854 => Shown::Host("6.0.0"),
        C::MethodsLocked | C::PrivilegeMissing | C::PrivilegeOptional | C::PrivilegesUnknown => Shown::Preflight,
        C::NoDisks
        | C::Template
        | C::PoweredOff
        | C::Suspended
        | C::SuspendedNeedsGuest
        | C::Encrypted
        | C::EncryptedIntoPlain
        | C::EncryptedStoredPlain
        | C::VirtualTpm
        | C::VirtualTpmRefused
        | C::Passthrough
        | C::Snapshots
        | C::ConsolidationNeeded
        | C::Leftover
        | C::QuiesceFallback
        | C::TrackingUnsupported
        | C::TrackingOff
        | C::TrackingToBeEnabled
        | C::TrackingBlocked
        | C::Excluded
        | C::Independent
        | C::PhysicalRdm
        | C::VirtualRdm
        | C::NotTrackedYet
        | C::FileLeftOut => Shown::Simulated,
    }
}

/// A simulated machine in the state of a row.
struct Scene {
    sim: Simulator,
    vim: Vim,
    folder: TempDir,
    repository: Repository,
}

impl Scene {
    async fn of(condition: Condition) -> Self {
        let sim = Simulator::builder().vm(spec(condition)).start().await.unwrap();
        let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
        let credentials = Credentials::password(sim.username(), sim.password());
        let vim = Vim::builder(sim.url()).credentials(credentials).thumbprint(pin).connect().await.unwrap();
        let options = CreateOptions::default().chunk_size(64 << 10);
        let options = match condition {
            Condition::Encrypted => options.encrypted(KeySource::key_file([7; 32])),
            _ => options,
        };
        let repository = Repository::create(Arc::new(MemoryStorage::new()), options).await.unwrap();
        let scene = Self { sim, vim, folder: tempfile::tempdir().unwrap(), repository };
        scene.prepare(condition).await;
        scene
    }

    fn vm(&self) -> MoRef<mo::VirtualMachine> {
        MoRef::new(self.sim.vm("web").unwrap().id())
    }

    fn backup(&self) -> Backup {
        Backup::of(&self.vim, self.vm()).journal(self.folder.path().join("journal"))
    }

    async fn prepare(&self, condition: Condition) {
        let vm = self.vm();
        let snapshot = || self.vim.create_snapshot(&vm, CreateSnapshotOptions::new("of somebody"));
        match condition {
            Condition::Template => {
                self.vim.invoke(&self.vm(), methods::MarkAsTemplate::default()).await.unwrap();
            }
            Condition::Suspended | Condition::SuspendedNeedsGuest | Condition::FileLeftOut => {
                self.sim.vm("web").unwrap().set_power(Power::Suspended).unwrap();
            }
            Condition::Snapshots | Condition::TrackingBlocked => {
                snapshot().await.unwrap();
            }
            Condition::ConsolidationNeeded => {
                let made = snapshot().await.unwrap();
                self.sim.guest("web").unwrap().disk(2000).unwrap().write_at(0, b"in the delta").unwrap();
                let keep = RemoveSnapshotOptions { consolidate: false, ..Default::default() };
                self.vim.remove_snapshot(&made, keep).await.unwrap();
            }
            Condition::Leftover => self.abandon().await,
            Condition::NotTrackedYet => {
                self.vim.set_change_tracking(&self.vm(), true).await.unwrap();
            }
            Condition::MethodsLocked => {
                let lock = MethodLock::against_migration(&self.vm(), "of somebody");
                self.vim.lock_methods(&lock).await.unwrap();
            }
            Condition::PrivilegeMissing => self.sim.tell_missing_privileges(&["VirtualMachine.State.RemoveSnapshot"]),
            Condition::PrivilegeOptional => self.sim.tell_missing_privileges(&["Datastore.Browse"]),
            Condition::PrivilegesUnknown => {
                self.sim.faults().fail_next("HasPrivilegeOnEntity", Fault::new("NoPermission", "injected"));
            }
            _ => {}
        }
    }

    /// Leaves the snapshot of a job that died.
    async fn abandon(&self) {
        let token = crate::cancel::CancelToken::new();
        let stop = token.clone();
        let dying = self.backup().cancel(&token).on_event(move |event| {
            if matches!(event, Event::SnapshotCreated { .. }) {
                stop.abandon();
            }
        });
        assert!(matches!(dying.run(&self.repository).await, Err(Error::Abandoned)));
    }
}

fn spec(condition: Condition) -> VmSpec {
    let web = VmSpec::new("web").disk(DiskSpec::empty(1 << 20));
    let tracked = web.clone().change_tracking(true);
    let second = || DiskSpec::empty(1 << 20);
    match condition {
        Condition::NoDisks => VmSpec::new("web").disk(second().independent()),
        Condition::Template | Condition::PoweredOff => tracked.power(Power::Off),
        Condition::Encrypted | Condition::EncryptedIntoPlain | Condition::EncryptedStoredPlain => {
            tracked.encrypted("kms1", "key-7")
        }
        Condition::VirtualTpm | Condition::VirtualTpmRefused => {
            let mut tpm = VirtualTPM::default();
            tpm.base.key = 11_000;
            tracked.device(Poly::new(tpm))
        }
        Condition::Passthrough => {
            let mut device = VirtualPCIPassthrough::default();
            device.base.key = 13_000;
            let device: Poly<VirtualDevice> = Poly::new(device);
            tracked.device(device)
        }
        Condition::TrackingUnsupported => web.hardware_version(4),
        Condition::TrackingOff
        | Condition::TrackingToBeEnabled
        | Condition::TrackingBlocked
        | Condition::NotTrackedYet => web,
        Condition::Independent => tracked.disk(second().independent()),
        Condition::PhysicalRdm => tracked.disk(second().physical_rdm()),
        Condition::VirtualRdm => tracked.disk(second().virtual_rdm()),
        _ => tracked.disk(second()),
    }
}

/// The options by which a row is reached.
fn configured(condition: Condition, backup: Backup) -> Backup {
    match condition {
        Condition::SuspendedNeedsGuest => backup.quiesce(Quiesce::Require),
        Condition::QuiesceFallback => {
            backup.quiesce(QuiescePolicy::first(QuiesceStep::vss(Default::default())).then(QuiesceStep::crash()))
        }
        Condition::EncryptedStoredPlain => backup.encrypted_machines(EncryptedMachines::AllowPlainRepository),
        Condition::VirtualTpmRefused => backup.virtual_tpms(VirtualTpms::Refuse),
        Condition::TrackingToBeEnabled | Condition::TrackingBlocked => backup.change_tracking(ChangeTracking::Enable),
        Condition::Excluded => backup.exclude_disk(2001),
        Condition::Leftover => backup.resume_within(std::time::Duration::ZERO),
        _ => backup,
    }
}

/// What a condition says, as a reason has it.
fn words(condition: Condition) -> &'static str {
    condition.what().trim_end_matches('.')
}

/// Checks that a backup did what the row says, given what it warned of.
fn assert_done(condition: Condition, done: &Result<BackupReport>, warnings: &[String]) {
    let code = condition.code();
    if condition.severity() == Severity::Refused {
        let is_said =
            matches!(done, Err(Error::Refused { reason, hint: Some(_), .. }) if reason.starts_with(words(condition)));
        assert!(is_said, "{code}: {done:?}");
        return;
    }
    let report = done.as_ref().unwrap_or_else(|error| panic!("{code}: {error:?}"));
    let warned = warnings.iter().any(|warning| warning.contains(&format!("[{code}]")));
    let left_out = report.left_out.iter().any(|left| left.reason.starts_with(words(condition)));
    match condition {
        // Told when they are come to, in their own words.
        Condition::QuiesceFallback => assert_eq!(report.fallbacks[0].way, "vss"),
        Condition::Leftover => assert!(report.recovered.is_some() && !report.resumed),
        Condition::FileLeftOut => assert!(report.point.manifest().objects_left_out.contains_key("vmss")),
        _ => {
            assert_eq!(warned, condition.severity() == Severity::Warning, "{code}: {warnings:?}");
            assert_eq!(left_out, condition.severity() == Severity::LeftOut, "{code}: {:?}", report.left_out);
        }
    }
    assert_eq!(report.tracking_enabled, condition == Condition::TrackingToBeEnabled, "{code}");
    assert!(!report.disks.is_empty(), "{code}: there is a point of the others");
    assert_eq!(report.leftovers, [""; 0], "{code}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_and_backup_say_the_same_and_the_backup_does_what_the_row_says() {
    for &condition in Condition::ALL {
        let code = condition.code();
        let is_backed_up = match shown(condition) {
            Shown::Simulated => true,
            Shown::Preflight => false,
            _ => continue,
        };
        let scene = Scene::of(condition).await;
        let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = warnings.clone();
        let backup = configured(condition, scene.backup()).on_event(move |event| {
            if let Event::Warning { message } = event {
                heard.lock().unwrap().push(message);
            }
        });
        let preflight = backup.preflight(&scene.repository).await.unwrap();
        let found: Vec<_> = preflight.findings_of(condition).collect();
        assert!(!found.is_empty(), "{code}: {:?}", preflight.findings);
        assert!(found.iter().all(|finding| finding.severity == condition.severity()), "{code}: {found:?}");
        assert_eq!(
            preflight.is_possible(),
            condition.severity() != Severity::Refused,
            "{code}: {:?}",
            preflight.findings
        );
        if is_backed_up {
            let left = preflight.left_out.clone();
            let done = backup.run(&scene.repository).await;
            assert_done(condition, &done, &warnings.lock().unwrap());
            if let Ok(report) = done {
                assert_eq!(report.left_out, left, "{code}: the disks that the pre-flight named");
            }
            let kept = usize::from(matches!(condition, Condition::Snapshots | Condition::TrackingBlocked));
            assert_eq!(scene.sim.leftovers().snapshots.len(), kept, "{code}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_simulator_cannot_show_is_decided_by_the_same_table() {
    let scene = Scene::of(Condition::Excluded).await;
    let backup = scene.backup();
    let machine = backup.read_machine().await.unwrap();
    let store = machine.details.disks[0].backing.datastore.clone().unwrap();
    let summary = scene.vim.get(&store, mo::Datastore::SUMMARY).await.unwrap();
    let disks: Vec<_> = machine.details.disks.iter().collect();
    let findings = |machine: &Machine| machine.findings(&backup.policies, &backup.quiesce, false);
    let has = |found: &[Finding], condition| found.iter().any(|finding| finding.condition == condition);
    for &condition in Condition::ALL {
        let code = condition.code();
        match shown(condition) {
            Shown::Simulated | Shown::Preflight => {}
            Shown::Datastore(change) => {
                assert!(!has(&datastore(&summary, &disks), condition), "{code}");
                let mut changed = summary.clone();
                change(&mut changed);
                assert!(has(&datastore(&changed, &disks), condition), "{code}");
            }
            Shown::Host(version) => assert!(has(&defects(version), condition) && !has(&defects("8.0.3"), condition)),
            Shown::Machine(change) => {
                assert!(!has(&findings(&machine), condition), "{code}");
                let mut changed = machine.clone();
                change(&mut changed);
                assert!(has(&findings(&changed), condition), "{code}: {:?}", findings(&changed));
                // What the backup decides by.
                let refused = backup.admit(&changed, false).is_err();
                assert_eq!(refused, condition.severity() == Severity::Refused, "{code}");
                let left = backup.left_out_of(&changed);
                let is_left = left.iter().any(|left| left.key == 2001 && left.reason.starts_with(words(condition)));
                assert_eq!(is_left, condition.severity() == Severity::LeftOut, "{code}: {left:?}");
            }
        }
    }
}
