//! States of machines: what is captured, left out, refused, and told before.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_backup::{
    Condition, EncryptedMachines, Error, EstimateBasis, Event, NVRAM_OBJECT, Preflight, Quiesce, QuiescePolicy,
    QuiesceStep, Result, Severity, Since, VMX_OBJECT, VSS_OBJECT, VirtualTpms,
    repository::{BackupMode, Consistency, RecoveryPoint, storage::BoxFuture},
    step::{Step, StepCall, StepHook},
};
use vsphere_sim::{DiskSpec, Fault, Injection, Power, Simulator, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, MoRef, Vim, mo,
    types::{
        Poly, VirtualDevice, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation,
        VirtualDeviceConfigSpecOperation, VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualMachineConfigSpec,
        VirtualTPM, methods,
    },
    vm::VssOptions,
};

use crate::{
    site::Site,
    world::{MIB, noise},
};

async fn site_of(vm: VmSpec) -> Site {
    Site::of(Simulator::builder().vm(vm)).await
}

fn web() -> VmSpec {
    VmSpec::new("web").disk(DiskSpec::empty(2 * MIB)).change_tracking(true)
}

fn windows() -> VmSpec {
    web().guest_id("windows2019srv_64Guest")
}

/// VSS, else plain, else as after a power cut.
fn whole_chain() -> QuiescePolicy {
    QuiescePolicy::first(QuiesceStep::vss(VssOptions::default()).require_manifest(true))
        .then(QuiesceStep::plain())
        .then(QuiesceStep::crash())
}

fn quiesce_fault() -> Fault {
    Fault::new("ApplicationQuiesceFault", "a writer did not come to rest")
}

fn ways(point: &RecoveryPoint) -> Vec<&str> {
    point.manifest().fallbacks.iter().map(|fallback| fallback.way.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_of_ways_to_quiesce_ends_at_the_first_that_works_and_the_point_says_why() {
    let site = site_of(windows()).await;
    let faults = site.sim.faults();
    let run = || site.backup().quiesce(whole_chain()).run(&site.repository);

    let report = run().await.unwrap();
    assert_eq!((report.consistency, ways(&report.point)), (Consistency::Application, vec![]));
    let manifest = report.point.object(VSS_OBJECT).await.unwrap().unwrap();
    assert!(manifest.starts_with(b"PK"), "a zip file");

    faults.fail_next_task("CreateSnapshotEx_Task", quiesce_fault());
    let report = run().await.unwrap();
    assert_eq!(ways(&report.point), ["vss"]);
    assert!(report.fallbacks[0].reason.contains("a writer did not come to rest"), "{:?}", report.fallbacks);
    site.assert_clean();

    faults.fail_next_task("CreateSnapshotEx_Task", quiesce_fault());
    faults.fail_next_task("CreateSnapshot_Task", quiesce_fault());
    let report = run().await.unwrap();
    assert_eq!((report.consistency, ways(&report.point)), (Consistency::Crash, vec!["vss", "quiesce"]));
    assert_eq!(report.point.object(VSS_OBJECT).await.unwrap(), None);
    site.assert_clean();

    // Without the last way the failure is the backup's.
    faults.fail_next_task("CreateSnapshotEx_Task", quiesce_fault());
    let strict = QuiescePolicy::first(QuiesceStep::vss(VssOptions::default()));
    let error = site.backup().quiesce(strict).run(&site.repository).await.unwrap_err();
    assert!(matches!(error, Error::Server { .. }), "{error}");
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_takes_too_long_is_given_up_and_what_it_made_is_removed() {
    let site = Site::of(Simulator::builder().vm(windows()).task_delay(Duration::from_millis(150))).await;
    let hasty = QuiesceStep::vss(VssOptions::default()).limit(Duration::from_millis(20));
    let report =
        site.backup().quiesce(QuiescePolicy::first(hasty).then(QuiesceStep::crash())).run(&site.repository).await;
    let report = report.unwrap();
    assert_eq!((report.consistency, ways(&report.point)), (Consistency::Crash, vec!["vss"]));
    assert!(report.fallbacks[0].reason.contains("did not finish"), "{:?}", report.fallbacks);
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_machine_is_as_after_a_power_cut_or_refused() {
    let site = site_of(web()).await;
    site.sim.vm("web").unwrap().set_power(Power::Suspended).unwrap();
    let error = site.backup().quiesce(Quiesce::Require).run(&site.repository).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("suspended")), "{error}");
    let report = site.backup().quiesce(Quiesce::Try).run(&site.repository).await.unwrap();
    assert_eq!(report.consistency, Consistency::Crash);
    assert!(report.fallbacks[0].reason.contains("does not run"), "{:?}", report.fallbacks);
    assert!(report.point.manifest().objects_left_out.contains_key("vmss"));
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_is_read_without_a_snapshot() {
    let site = site_of(web().power(Power::Off)).await;
    site.sim.guest("web").unwrap().disk(2000).unwrap().write_at(MIB, &noise(7, 9000)).unwrap();
    site.vim.invoke(&site.vm(), methods::MarkAsTemplate::default()).await.unwrap();
    let snapshots = Arc::new(Mutex::new(0));
    let seen = snapshots.clone();
    let count = move |event| {
        if matches!(event, Event::SnapshotCreated { .. }) {
            *seen.lock().unwrap() += 1;
        }
    };
    for _ in 0..2 {
        let report = site.backup().on_event(count.clone()).run(&site.repository).await.unwrap();
        assert_eq!((report.consistency, report.disks[0].mode), (Consistency::PoweredOff, BackupMode::Full));
        site.assert_point_equals(&report.point, &[(2000, site.content(2000))]).await;
        assert!(report.point.object(VMX_OBJECT).await.unwrap().is_some(), "{:?}", report.point.manifest());
        site.assert_clean();
    }
    assert_eq!(*snapshots.lock().unwrap(), 0);

    // Somebody makes a machine of it in the middle.
    let converts = Converts { vim: site.vim.clone(), vm: site.vm() };
    let error = site.backup().step_hook(Arc::new(converts)).run(&site.repository).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("converted")), "{error}");
    site.assert_clean();
}

struct Converts {
    vim: Vim,
    vm: MoRef<mo::VirtualMachine>,
}

impl StepHook for Converts {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if call.step == Step::CloseDisk {
                let args = methods::MarkAsVirtualMachine { pool: MoRef::new("resgroup-9"), ..Default::default() };
                self.vim.invoke(&self.vm, args).await.unwrap();
            }
            Ok(())
        })
    }
}

/// Attaches an independent disk when the machine was read and the snapshot is not made yet.
struct Attaches {
    vim: Vim,
    vm: MoRef<mo::VirtualMachine>,
}

impl StepHook for Attaches {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if call.step == Step::BeginPoint {
                let backing =
                    VirtualDiskFlatVer2BackingInfo { disk_mode: "independent_persistent".into(), ..Default::default() };
                let mut disk = VirtualDisk { capacity_in_kb: 1024, ..Default::default() };
                (disk.key, disk.backing) = (-1, Some(Poly::new(backing)));
                let change = VirtualDeviceConfigSpec {
                    operation: Some(VirtualDeviceConfigSpecOperation::Add),
                    file_operation: Some(VirtualDeviceConfigSpecFileOperation::Create),
                    device: Poly::new(disk),
                    ..Default::default()
                };
                let spec = VirtualMachineConfigSpec { device_change: vec![Poly::new(change)], ..Default::default() };
                self.vim.reconfigure(&self.vm, spec).await.unwrap();
            }
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_disk_that_is_attached_meanwhile_is_not_read_while_the_guest_writes_it() {
    let site = site_of(web()).await;
    let attaches = Attaches { vim: site.vim.clone(), vm: site.vm() };
    let report = site.backup().step_hook(Arc::new(attaches)).run(&site.repository).await.unwrap();
    assert_eq!(report.disks.iter().map(|disk| disk.key).collect::<Vec<_>>(), [2000]);
    let left_out = &report.point.manifest().left_out;
    assert!(left_out.len() == 1 && left_out[0].reason.contains("independent"), "{left_out:?}");
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_small_files_are_stored_and_a_refusal_is_recorded() {
    let site = site_of(web().nvram(b"efi variables")).await;
    let report = site.backup().run(&site.repository).await.unwrap();
    let object = |name: &'static str| {
        let point = report.point.clone();
        async move { point.object(name).await.unwrap() }
    };
    assert_eq!(object(NVRAM_OBJECT).await.unwrap(), "efi variables");
    assert!(String::from_utf8_lossy(&object(VMX_OBJECT).await.unwrap()).contains("displayName = \"web\""));
    assert!(report.point.manifest().objects_left_out.is_empty());

    // More than there are files: a client may ask again.
    for _ in 0..20 {
        site.sim.faults().inject("GET /folder", Injection::Http(403));
    }
    let report = site.backup().run(&site.repository).await.unwrap();
    let left_out = &report.point.manifest().objects_left_out;
    assert_eq!(left_out.keys().collect::<Vec<_>>(), [NVRAM_OBJECT, VMX_OBJECT], "{left_out:?}");
    assert!(left_out.values().all(|reason| reason.contains("403")), "{left_out:?}");
    assert_eq!(report.disks.len(), 1, "the disks are there all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_machine_is_stored_in_clear_only_when_that_is_allowed() {
    let site = site_of(web().encrypted("kms1", "key-7").device(tpm())).await;
    let error = site.backup().run(&site.repository).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("key-7 of kms1")), "{error}");
    let allowed = || site.backup().encrypted_machines(EncryptedMachines::AllowPlainRepository);
    let report = allowed().run(&site.repository).await.unwrap();
    let config = report.point.object("config.json").await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&config).contains("key-7"), "the key's id is kept with the configuration");
    let error = allowed().virtual_tpms(VirtualTpms::Refuse).run(&site.repository).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("TPM")), "{error}");
    site.assert_clean();
}

fn tpm() -> Poly<VirtualDevice> {
    let mut tpm = VirtualTPM::default();
    tpm.base.key = 11_000;
    Poly::new(tpm)
}

fn codes(preflight: &Preflight) -> BTreeSet<&'static str> {
    preflight.findings.iter().map(|finding| finding.condition.code()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preflight_names_everything_and_changes_nothing() {
    let vm = web()
        .disk(DiskSpec::empty(MIB).independent())
        // Independent too, which is what is told first.
        .disk(DiskSpec::empty(MIB).multi_writer())
        .disk(DiskSpec::empty(MIB).virtual_rdm())
        .disk(DiskSpec::empty(MIB).physical_rdm())
        .encrypted("kms1", "key-7")
        .device(tpm());
    let site = site_of(vm).await;
    let marked = CreateSnapshotOptions::new("vsphere-backup").description("vsphere-backup job 0123456789abcdef");
    site.vim.create_snapshot(&site.vm(), marked).await.unwrap();
    site.sim.tell_missing_privileges(&["VirtualMachine.State.RemoveSnapshot", "Datastore.Browse"]);
    let before = format!("{:?}", site.vim.vm_details(&site.vm()).await.unwrap());

    let backup = site.backup().quiesce(whole_chain());
    let preflight = backup.preflight(&site.repository).await.unwrap();
    let expected = [
        "encrypted-into-plain",
        "independent-disk",
        "leftover",
        "privilege-missing",
        "privilege-optional",
        "quiesce-fallback",
        "rdm-physical",
        "rdm-virtual",
        "snapshots",
        "vtpm",
    ];
    assert_eq!(codes(&preflight), expected.into());
    assert!(!preflight.is_possible() && preflight.severity() == Severity::Refused);
    assert_eq!(preflight.quiesce, ["quiesce", "crash"]);
    assert_eq!(preflight.disks.iter().map(|disk| disk.key).collect::<Vec<_>>(), [2000, 2003]);
    assert_eq!(preflight.left_out.len(), 3);
    let missing = preflight.findings_of(Condition::PrivilegeMissing).next().unwrap();
    assert!(missing.detail.contains("VirtualMachine.State.RemoveSnapshot"), "{missing}");
    let json = serde_json::to_value(&preflight).unwrap();
    assert!(json["findings"][0]["condition"].is_string() && json["disks"][0]["mode"] == "full", "{json}");

    assert_eq!(format!("{:?}", site.vim.vm_details(&site.vm()).await.unwrap()), before);
    assert!(!site.folder.path().join("journal").exists(), "not even a journal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preflight_says_how_and_how_much_and_the_backup_does_so() {
    let site = site_of(web()).await;
    site.sim.guest("web").unwrap().disk(2000).unwrap().write_at(0, &noise(1, 300_000)).unwrap();
    let first = site.backup().preflight(&site.repository).await.unwrap();
    assert!(first.is_possible() && first.base.is_none(), "{:?}", first.findings);
    assert_eq!(first.severity(), Severity::Note, "{:?}", first.findings);
    assert_eq!(first.disks[0].mode, BackupMode::Full);
    assert_eq!(first.disks[0].estimate.unwrap().basis, EstimateBasis::Files);
    let full = site.backup().run(&site.repository).await.unwrap();

    let second = site.backup().preflight(&site.repository).await.unwrap();
    assert_eq!((second.base.as_ref(), second.disks[0].mode), (Some(full.point.id()), BackupMode::Incremental));
    site.backup().run(&site.repository).await.unwrap();
    let third = site.backup().preflight(&site.repository).await.unwrap();
    assert_eq!(third.disks[0].estimate.unwrap().basis, EstimateBasis::LastIncremental);
    let forced = site.backup().since(Since::Nothing).preflight(&site.repository).await.unwrap();
    assert_eq!(forced.disks[0].mode, BackupMode::Full);
}
