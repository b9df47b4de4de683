//! First Class Disks over all three back ends, against the simulator.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_sim::{DiskSpec, Fault, FcdOptions, Injection, Personality, Power, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{
    Credentials, Error, MoRef, Vim, VmLookup,
    fcd::{CreateFcd, FcdId, FcdRef, FcdScope, FcdSnapshotId, FirstClassDisks, Provisioning, RegisterFcd},
    methods::VslmCreateSnapshot_Task,
    mo::{self, Datastore},
    types::VslmSyncFault,
    version::WireVersion,
};

use crate::simulated::connect;

const MIB: u64 = 1 << 20;

fn one_vm(personality: Personality) -> SimulatorBuilder {
    let vm = VmSpec::new("web").disk(DiskSpec::empty(64 * MIB)).power(Power::On);
    Simulator::builder().personality(personality).vm(vm)
}

async fn datastore(vim: &Vim) -> MoRef<Datastore> {
    vim.properties::<Datastore>().select((Datastore::SUMMARY,)).collect().await.unwrap().remove(0).object
}

async fn all(disks: &FirstClassDisks, scope: FcdScope) -> Vec<FcdRef> {
    let mut stream = disks.list(scope);
    let mut found = Vec::new();
    while let Some(disk) = stream.try_next().await.unwrap() {
        found.push(disk);
    }
    found
}

/// What every back end can do, in the order of a backup.
async fn life_of_a_disk(sim: &Simulator, vim: &Vim, disks: &FirstClassDisks) {
    let datastore = datastore(vim).await;
    let wanted =
        CreateFcd::new("data", &datastore, 32 * MIB).provisioning(Provisioning::Thin).keep_after_delete_vm(true);
    let disk = disks.create(wanted).await.unwrap();
    assert_eq!((disk.name.as_str(), disk.capacity, disk.keep_after_delete_vm), ("data", 32 * MIB, true));
    assert_eq!(disk.path, Some(format!("[ds1] fcd/{}.vmdk", disk.id)));
    assert!(disk.consumers.is_empty());
    for scope in [FcdScope::All, FcdScope::Datastore(datastore.clone())] {
        let found = all(disks, scope).await;
        assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [&disk.id]);
        assert_eq!(disks.retrieve(&found[0]).await.unwrap(), disk);
    }

    let bytes = sim.first_class_disk(disk.id.as_str()).unwrap();
    bytes.write_at(MIB, b"in the snapshot").unwrap();
    let first = disks.create_snapshot(&disk.disk, "nightly").await.unwrap();
    bytes.write_at(MIB, b"not in the snapshot").unwrap();
    let second = disks.create_snapshot(&disk.disk, "hourly").await.unwrap();
    let listed = disks.snapshots(&disk.disk).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|snapshot| (snapshot.id.clone().unwrap(), &*snapshot.description)).collect();
    assert_eq!(listed, [(first.clone(), "nightly"), (second.clone(), "hourly")]);

    disks.delete_snapshot(&disk.disk, &second).await.unwrap();
    let error = disks.delete_snapshot(&disk.disk, &second).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("NotFound"), "{error}");
    disks.revert(&disk.disk, &first).await.unwrap();
    let mut read = [0; 15];
    bytes.read_at(MIB, &mut read).unwrap();
    assert_eq!(&read, b"in the snapshot");

    disks.delete_snapshot(&disk.disk, &first).await.unwrap();
    disks.delete(&disk.disk).await.unwrap();
    let error = disks.retrieve(&disk.disk).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("NotFound"), "{error}");
    assert!(all(disks, FcdScope::All).await.is_empty());
}

#[tokio::test]
async fn a_disk_lives_its_life_on_vcenter_esxi_and_through_the_lifecycle_service() {
    for personality in [Personality::VCenter, Personality::Esxi] {
        let sim = one_vm(personality).start().await.unwrap();
        let vim = connect(&sim).await;
        life_of_a_disk(&sim, &vim, &vim.first_class_disks().unwrap()).await;
        if personality == Personality::VCenter {
            life_of_a_disk(&sim, &vim, &vim.vslm().await.unwrap().first_class_disks()).await;
        }
        vim.logout().await.unwrap();
        assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
    }
}

#[tokio::test]
async fn a_registered_disk_of_a_machine_knows_its_consumer_and_cannot_be_deleted() {
    let sim = one_vm(Personality::VCenter).start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await.unwrap().moref;
    let attached = vim.disks(&vm).await.unwrap().remove(0);
    for disks in [vim.first_class_disks().unwrap(), vim.vslm().await.unwrap().first_class_disks()] {
        let wanted = || RegisterFcd::new("dc1", "ds1", "web/web.vmdk").name("web's disk");
        let disk = match disks.register(wanted()).await {
            Ok(disk) => disk,
            // The second manager finds what the first one has made.
            Err(error) => {
                assert_eq!(error.fault_name(), Some("AlreadyExists"), "{error}");
                disks.retrieve(&all(&disks, FcdScope::All).await[0]).await.unwrap()
            }
        };
        assert_eq!((disk.path.as_deref(), disk.capacity), (attached.backing.file_name.as_deref(), attached.capacity));
        let own = sim.vm("web").unwrap().instance_uuid();
        assert_eq!(disk.consumers.iter().map(|consumer| consumer.id.as_str()).collect::<Vec<_>>(), [&own]);
        let consumers = disks.consumers(&disk.disk).await.unwrap();
        assert_eq!((consumers[0].id.as_str(), consumers[0].device_key), (own.as_str(), Some(2000)));
        let error = disks.delete(&disk.disk).await.unwrap_err();
        assert_eq!(error.fault_name(), Some("InvalidState"), "{error}");

        let missing = FcdRef::on(disk.disk.datastore.as_ref().unwrap(), FcdId::new("no such"));
        assert_eq!(disks.consumers(&missing).await.unwrap_err().fault_name(), Some("NotFound"));
        let error = disks.register(RegisterFcd::new("dc1", "ds1", "web/other.vmdk")).await.unwrap_err();
        assert_eq!(error.fault_name(), Some("FileNotFound"), "{error}");
        let error = disks.register(RegisterFcd::new("dc1", "ds2", "web/web.vmdk")).await.unwrap_err();
        assert_eq!(error.fault_name(), Some("InvalidArgument"), "{error}");
    }
}

#[tokio::test]
async fn what_a_back_end_cannot_do_is_said_before_anything_is_asked() {
    let sim = one_vm(Personality::Esxi).start().await.unwrap();
    let vim = connect(&sim).await;
    assert!(matches!(vim.vslm().await, Err(Error::Unsupported { .. })));
    let disks = vim.first_class_disks().unwrap();
    let disk = disks.create(CreateFcd::new("data", &datastore(&vim).await, MIB)).await.unwrap();
    let snapshot = FcdSnapshotId::new("any");
    assert!(matches!(disks.snapshot_details(&disk.disk, &snapshot).await, Err(Error::Unsupported { .. })));
    assert!(matches!(disks.query_changed_areas(&disk.disk, &snapshot, 0, "*").await, Err(Error::Unsupported { .. })));
    assert!(matches!(disks.consumers(&disk.disk).await, Err(Error::Unsupported { .. })));
    // Here the datastore is part of the disk's name.
    assert!(matches!(disks.retrieve(&disk.id.into()).await, Err(Error::InvalidInput { .. })));

    let sim = one_vm(Personality::VCenter).start().await.unwrap();
    let credentials = Credentials::password(sim.username(), sim.password());
    let old = Vim::builder(sim.url()).credentials(credentials).thumbprint(sim.thumbprint_sha256().parse().unwrap());
    let old = old.api_version(WireVersion::new("6.7").unwrap()).connect().await.unwrap();
    assert!(matches!(old.vslm().await, Err(Error::Unsupported { .. })));
}

#[tokio::test]
async fn a_list_that_is_cut_out_of_order_is_an_error_and_never_a_part_of_the_disks() {
    let list = async |options: FcdOptions, page: u16| {
        let sim = one_vm(Personality::VCenter).first_class_disks(options).start().await.unwrap();
        let vim = connect(&sim).await;
        let disks = vim.vslm().await.unwrap().first_class_disks().page_size(page);
        let datastore = datastore(&vim).await;
        for number in 0..3 {
            disks.create(CreateFcd::new(format!("disk {number}"), &datastore, MIB)).await.unwrap();
        }
        let mut stream = disks.list(FcdScope::All);
        let mut found = 0;
        while stream.try_next().await?.is_some() {
            found += 1;
        }
        Ok::<_, Error>(found)
    };
    let mut options = FcdOptions::default();
    options.most_listed = 1;
    assert_eq!(list(options.clone(), 1000).await.unwrap(), 3, "the server cuts more than it was asked to");
    options.most_listed = 1000;
    options.listed_in_order = false;
    assert_eq!(list(options.clone(), 3).await.unwrap(), 3, "a whole list needs no order");
    assert!(matches!(list(options, 2).await, Err(Error::Protocol(_))));
}

#[tokio::test]
async fn the_lifecycle_service_is_listed_page_by_page() {
    let sim = one_vm(Personality::VCenter).start().await.unwrap();
    let vim = connect(&sim).await;
    let disks = vim.vslm().await.unwrap().first_class_disks().page_size(3);
    let datastore = datastore(&vim).await;
    let mut made = Vec::new();
    for number in 0..7 {
        made.push(disks.create(CreateFcd::new(format!("disk {number}"), &datastore, MIB)).await.unwrap().id);
    }
    made.sort();
    for scope in [FcdScope::All, FcdScope::Datastore(datastore)] {
        let found: Vec<_> = all(&disks, scope).await.into_iter().map(|disk| disk.id).collect();
        assert_eq!(found, made);
    }
    let elsewhere = FcdScope::Datastore(MoRef::new("datastore-99"));
    assert!(all(&disks, elsewhere.clone()).await.is_empty());
    // vCenter's manager finds by datastore, so there a wrong one is an error.
    let mut stream = vim.first_class_disks().unwrap().list(elsewhere);
    assert_eq!(stream.try_next().await.unwrap_err().fault_name(), Some("ManagedObjectNotFound"));
    assert_eq!(stream.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn the_lifecycle_service_shares_the_session_and_its_healing() {
    let sim = one_vm(Personality::VCenter).start().await.unwrap();
    let vim = connect(&sim).await;
    let vslm = vim.vslm().await.unwrap();
    let disks = vslm.first_class_disks();
    let disk = disks.create(CreateFcd::new("data", &datastore(&vim).await, MIB)).await.unwrap();
    let before = vim.session_cookie().unwrap();
    sim.expire_sessions();
    // The old cookie travels in the envelope, is refused, and the new one is put in its place.
    assert_eq!(disks.retrieve(&disk.disk).await.unwrap().name, "data");
    assert_ne!(vim.session_cookie().unwrap().expose(), before.expose());
    vim.logout().await.unwrap();
    let error = disks.retrieve(&disk.disk).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("NotAuthenticated"), "{error}");
}

#[tokio::test]
async fn reads_of_the_lifecycle_service_are_tried_again_and_changes_are_not() {
    let sim = one_vm(Personality::VCenter).start().await.unwrap();
    let vim = connect(&sim).await;
    let disks = vim.vslm().await.unwrap().first_class_disks();
    let disk = disks.create(CreateFcd::new("data", &datastore(&vim).await, MIB)).await.unwrap();
    sim.faults().inject("VslmRetrieveVStorageObject", Injection::DropAfter);
    assert_eq!(disks.retrieve(&disk.disk).await.unwrap().id, disk.id);
    sim.faults().inject("VslmCreateSnapshot_Task", Injection::DropAfter);
    assert!(matches!(disks.create_snapshot(&disk.disk, "once").await, Err(Error::Transport(_))));
    // It happened, and exactly once.
    tokio::time::timeout(Duration::from_secs(5), async {
        while sim.leftovers().tasks > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(disks.snapshots(&disk.disk).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_task_of_the_lifecycle_service_reports_fails_is_cancelled_and_outlived() {
    let sim = one_vm(Personality::VCenter).task_delay(Duration::from_millis(400)).start().await.unwrap();
    let vim = connect(&sim).await;
    let vslm = vim.vslm().await.unwrap();
    let disk = vslm.first_class_disks().create(CreateFcd::new("data", &datastore(&vim).await, MIB)).await.unwrap();
    let start = || {
        let args = VslmCreateSnapshot_Task { description: "x".into(), ..Default::default() };
        let args = VslmCreateSnapshot_Task {
            id: vsphere_vim::types::ID { id: disk.id.to_string(), ..Default::default() },
            ..args
        };
        let (vslm, manager) = (vslm.clone(), vslm.disk_manager());
        async move { vslm.invoke(&manager, args).await.unwrap() }
    };

    let seen = Arc::new(Mutex::new(Vec::new()));
    let task = start().await;
    let report = |progress: vsphere_vim::task::TaskProgress| seen.lock().unwrap().push(progress.percent);
    vslm.wait(&task).polling(Duration::from_millis(20)).on_progress(report).await.unwrap();
    assert!(seen.lock().unwrap().len() >= 2, "{seen:?}");

    sim.faults()
        .fail_next_task("VslmCreateSnapshot_Task", Fault::new("VslmSyncFault", "out of step").field("msg", "m"));
    let task = start().await;
    let error = vslm.wait(&task).await.unwrap_err();
    assert!(matches!(error, Error::TaskFailed(_)) && error.is_fault("VslmFault"), "{error}");
    assert_eq!(error.fault::<VslmSyncFault>().unwrap().msg.as_deref(), Some("m"));

    let task = start().await;
    let error = vslm.wait(&task).cancel_on(tokio::time::sleep(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled { still_running: false, .. }), "{error}");

    let task = start().await;
    let error = vslm.wait(&task).limit(Duration::from_millis(60)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    vslm.wait(&task).await.unwrap();
    let gone = MoRef::<mo::VslmTask>::new("task-none");
    assert_eq!(vslm.wait(&gone).await.unwrap_err().fault_name(), Some("ManagedObjectNotFound"));
}
