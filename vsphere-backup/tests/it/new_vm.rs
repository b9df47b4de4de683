//! New machines from recovery points, against the simulator.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use vsphere_backup::{
    CancelToken, Error, Event, NewVm, NewVmReport, Restore, UnmappedNetworks, VmIdentity,
    journal::{Journal, MachineState},
    repository::RecoveryPoint,
};
use vsphere_sim::{DiskSpec, Fault, Injection, Power, Simulator, VmSpec};
use vsphere_vim::{
    DeviceKey, MoRef, PowerState, VmLookup,
    config_spec::{DiskTarget, NetworkSource, NetworkTarget, Provisioning},
    mo,
};

use crate::{site::Site, world::MIB};

impl Site {
    /// A place for a machine beside the old one.
    async fn place(&self, name: &str) -> NewVm {
        let find = async |path: &str| self.vim.find_by_inventory_path(path).await.unwrap().unwrap();
        let folder = find("dc1/vm").await.cast();
        NewVm::named(name, folder, find("dc1/host/esx1.sim.invalid/Resources").await.cast())
    }

    async fn restore(&self, point: &RecoveryPoint, place: NewVm) -> vsphere_backup::Result<NewVmReport> {
        Restore::of(point).journal(self.journals()).to_new_vm(&self.vim, place).await
    }

    fn content_of(&self, vm: &str, key: i32) -> Vec<u8> {
        let disk = self.sim.vm(vm).unwrap().disk(key).unwrap();
        let mut bytes = vec![0; disk.capacity() as usize];
        disk.read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// The names of the machines.
    async fn machines(&self) -> Vec<String> {
        let mut every = self.vim.virtual_machines();
        let mut names = Vec::new();
        while let Some(vm) = every.try_next().await.unwrap() {
            names.push(vm.name);
        }
        names.sort();
        names
    }

    /// Asserts that nothing is left of a restore that failed.
    async fn assert_no_second(&self) {
        assert_eq!(self.machines().await, ["web"]);
        assert!(files(&self.journals()).is_empty());
        self.assert_clean();
    }
}

/// The journals of new machines, with their locks.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.starts_with("restore-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_becomes_a_machine_beside_the_old_one_with_every_byte_and_an_identity_of_its_own() {
    let site = Site::new().await;
    let before = [site.content(2000), site.content(2001)];
    let point = site.backup().run(&site.repository).await.unwrap().point;
    site.guest_writes(2000, 0, b"changed since");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = seen.clone();
    let place = site.place("web, restored").await.provisioning(Provisioning::Thin).power_on(true);
    let report = Restore::of(&point)
        .journal(site.journals())
        .on_event(move |event| events.lock().unwrap().push(format!("{event:?}")))
        .to_new_vm(&site.vim, place)
        .await
        .unwrap();
    assert_eq!((report.name.as_str(), report.powered_on), ("web, restored", true));
    assert_eq!(site.vim.power_state(&report.vm).await.unwrap(), PowerState::On);
    assert!(site.content_of("web, restored", 2000) == before[0] && site.content_of("web, restored", 2001) == before[1]);
    assert!(report.disks.iter().all(|disk| disk.verified && disk.transport == "nbdssl"), "{report:?}");
    assert!(report.disks[0].bytes.written < 2 * MIB && report.disks[0].bytes.zeroed == 0, "{report:?}");
    let (old, new) = (site.vim.config(&site.vm()).await.unwrap(), site.vim.config(&report.vm).await.unwrap());
    assert_ne!(old.instance_uuid, new.instance_uuid);
    assert_ne!(old.uuid, new.uuid);
    assert!(new.extra_config.iter().all(|option| !option.key.contains("vsphere-backup")), "the mark is taken off");
    // The independent disk is in no snapshot, so in no point.
    assert_eq!(site.vim.disks(&report.vm).await.unwrap().len(), 2);
    assert!(report.notes.iter().any(|note| note.contains("2002") && note.contains("independent")), "{report:?}");
    let seen = seen.lock().unwrap().join("\n");
    assert!(seen.contains("MachineCreated") && seen.contains("PoweredOn") && !seen.contains("MachineDestroyed"));
    assert!(files(&site.journals()).is_empty());
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_original_comes_back_with_its_identity_once_it_is_gone_and_not_before() {
    let site = Site::new().await;
    let before = [site.content(2000), site.content(2001)];
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let old = site.vim.config(&site.vm()).await.unwrap();
    let place = site.place("web again").await.identity(VmIdentity::Original);
    let refused = site.restore(&point, place.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }) && refused.to_string().contains("instanceUuid"), "{refused}");
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    site.vim.destroy(&site.vm()).await.unwrap();
    let report = site.restore(&point, place).await.unwrap();
    let new = site.vim.config(&report.vm).await.unwrap();
    assert_eq!((old.instance_uuid, old.uuid), (new.instance_uuid, new.uuid));
    assert!(site.content_of("web again", 2000) == before[0] && site.content_of("web again", 2001) == before[1]);
    assert_eq!(site.vim.power_state(&report.vm).await.unwrap(), PowerState::Off);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_vcenter_takes_the_machine() {
    let (site, other) = (Site::new().await, Site::new().await);
    let before = site.content(2000);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let place = other.place("moved").await;
    let report = other.restore(&point, place).await.unwrap();
    assert!(other.content_of("moved", 2000) == before);
    assert_eq!(site.machines().await, ["web"]);
    assert_eq!(other.machines().await, ["moved", "web"]);
    assert_eq!(report.disks.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_mapped_by_name_or_reference_and_the_rest_disconnected_or_refused() {
    let site = Site::new().await;
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let refused = site.place("a").await.unmapped(UnmappedNetworks::Refuse);
    let refused = site.restore(&point, refused).await.unwrap_err();
    assert!(refused.to_string().contains("no network is named"), "{refused}");
    assert!(files(&site.journals()).is_empty(), "refused before anything is done");

    let connected = async |vm: &MoRef<mo::VirtualMachine>| {
        let devices = site.vim.devices(vm).await.unwrap();
        let cards: Vec<_> = devices
            .network_adapters()
            .map(|card| card.connectable.as_ref().is_none_or(|c| c.start_connected))
            .collect();
        cards
    };
    let quiet = site.place("b").await.unmapped(UnmappedNetworks::Disconnect);
    let quiet = site.restore(&point, quiet).await.unwrap();
    assert_eq!(connected(&quiet.vm).await, [false]);
    let networks: Vec<MoRef<mo::Network>> = site.vim.get(&site.vm(), mo::VirtualMachine::NETWORK).await.unwrap();
    let mapped =
        site.place("c").await.network(NetworkSource::Any, networks[0].clone()).unmapped(UnmappedNetworks::Disconnect);
    let mapped = site.restore(&point, mapped).await.unwrap();
    assert_eq!(connected(&mapped.vm).await, [true]);
    let nowhere = site.place("d").await.network(NetworkSource::Any, NetworkTarget::standard("no such network"));
    let nowhere = site.restore(&point, nowhere).await.unwrap_err();
    assert!(matches!(nowhere, Error::Server { .. }), "{nowhere:?}");
    assert_eq!(site.machines().await, ["b", "c", "web"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_are_chosen_by_key_and_by_the_caller_s_last_word() {
    let site = Site::new().await;
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let one = Restore::of(&point).disk(2001).journal(site.journals());
    let one = one.to_new_vm(&site.vim, site.place("one").await).await.unwrap();
    assert_eq!(one.disks.iter().map(|disk| disk.key).collect::<Vec<_>>(), [2001]);
    assert!(site.content_of("one", site.sim.vm("one").unwrap().disks()[0]) == site.content(2001));
    let place = site.place("other").await.adjust(|conversion| conversion.disk(DeviceKey(2000), DiskTarget::LeaveOut));
    let other = site.restore(&point, place).await.unwrap();
    assert_eq!(other.disks.len(), 1);
    let none = Restore::of(&point).disk(4711).journal(site.journals());
    let none = none.to_new_vm(&site.vim, site.place("none").await).await;
    assert!(matches!(none, Err(Error::DiskNotFound { disk: 4711, .. })));
    let nowhere = Restore::of(&point).to_new_vm(&site.vim, site.place("none").await).await;
    assert!(matches!(nowhere, Err(Error::Invalid { .. })), "without a journal nothing is made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stored_nvram_lies_where_the_new_machine_looks_for_it_or_a_note_says_why_not() {
    let vm = VmSpec::new("web").disk(DiskSpec::empty(MIB)).change_tracking(true).nvram(b"efi variables");
    let site = Site::of(Simulator::builder().vm(vm)).await;
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let report = site.restore(&point, site.place("new").await).await.unwrap();
    assert!(report.nvram, "{report:?}");
    let store = site.vim.find_datastore("ds1", None).await.unwrap();
    let file = store.read(&store.path("new/new.nvram").unwrap()).open().await.unwrap();
    assert_eq!(file.collect(100).await.unwrap(), b"efi variables");
    site.sim.faults().inject("PUT /folder", Injection::Http(403));
    let report = site.restore(&point, site.place("newer").await).await.unwrap();
    assert!(!report.nvram && report.notes.iter().any(|note| note.contains("NVRAM")), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_at_any_call_leaves_no_machine() {
    let site = Site::new().await;
    let point = site.backup().run(&site.repository).await.unwrap().point;
    for method in ["CreateVM_Task", "NfcRandomAccessOpenDisk"] {
        site.sim.faults().fail_next(method, Fault::new("SystemError", "injected"));
        let failed = site.restore(&point, site.place("new").await).await;
        assert!(failed.is_err(), "{method}: {failed:?}");
        site.assert_no_second().await;
    }
    let fault = Fault::new("InsufficientResourcesFault", "injected");
    site.sim.faults().inject("CreateVM_Task", Injection::TaskFault(fault));
    site.restore(&point, site.place("new").await).await.unwrap_err();
    site.assert_no_second().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_or_dropped_restore_destroys_what_it_made() {
    let site = Site::new().await;
    let point = site.backup().run(&site.repository).await.unwrap().point;
    for stop_at in ["MachineCreated", "DiskStarted", "DiskFinished"] {
        let cancel = CancelToken::new();
        let token = cancel.clone();
        let outcome = Restore::of(&point)
            .journal(site.journals())
            .cancel(&cancel)
            .on_event(move |event| {
                if format!("{event:?}").starts_with(stop_at) {
                    token.cancel();
                }
            })
            .to_new_vm(&site.vim, site.place("new").await)
            .await;
        assert!(matches!(outcome, Err(Error::Cancelled)), "{stop_at}: {outcome:?}");
        site.assert_no_second().await;
    }
    let (seen, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let restore = Restore::of(&point).journal(site.journals()).on_event(move |event| drop(seen.send(event)));
    let mut run = Box::pin(restore.to_new_vm(&site.vim, site.place("new").await));
    loop {
        tokio::select! {
            biased;
            event = wait.recv() => {
                if matches!(event.unwrap(), Event::MachineCreated { .. }) {
                    break;
                }
            }
            done = &mut run => panic!("too early: {done:?}"),
        }
    }
    drop(run);
    while wait.recv().await.is_some() {}
    site.assert_no_second().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crashed_restore_left_is_destroyed_by_a_clean_up() {
    let site = Site::new().await;
    let point = site.backup().run(&site.repository).await.unwrap().point;
    // A run that dies with its machine half full: a runtime that is torn down under it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let login = site.login();
    let vim = runtime.spawn(async move { login.connect().await }).await.unwrap();
    let (seen, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let restore = Restore::of(&point).journal(site.journals()).on_event(move |event| {
        if matches!(event, Event::DiskStarted { .. }) {
            seen.send(()).ok();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    let place = site.place("new").await;
    runtime.spawn(async move { restore.to_new_vm(&vim, place).await });
    wait.recv().await.unwrap();
    // One that runs is left alone.
    assert!(Restore::clean_up(&site.vim, site.journals()).await.unwrap().is_empty());
    runtime.shutdown_background();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    while wait.recv().await.is_some() {}
    assert_eq!(site.machines().await, ["new", "web"]);
    let left = Journal::leftovers(&site.journals()).unwrap();
    assert!(matches!(left[0].machine, MachineState::Exists { .. }), "{left:?}");
    let mut undone = Vec::new();
    for _ in 0..50 {
        undone = Restore::clean_up(&site.vim, site.journals()).await.unwrap();
        if !undone.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(undone.len(), 1);
    site.assert_no_second().await;
    assert!(site.vim.find_vms(&VmLookup::Pattern("**/new".into())).await.unwrap().is_empty());
}
