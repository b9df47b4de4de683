//! First Class Disks of vcsim's vCenter. It knows neither change tracking nor the lifecycle service for them.

use vsphere_vim::{
    fcd::{CreateFcd, FcdRef, FcdScope, Provisioning, RegisterFcd},
    mo::Datastore,
    version::WireVersion,
};

use super::Vcsim;

#[tokio::test]
async fn a_disk_is_created_found_snapshotted_and_deleted() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    // It offers 6.5 and knows the snapshots of 6.7: their arguments are left out of requests of an older version.
    let version = WireVersion::new("6.7").unwrap();
    let vim = vcsim.builder().credentials(vcsim.credentials()).api_version(version).connect().await.unwrap();
    let datastores = vim.properties::<Datastore>().select((Datastore::SUMMARY,)).collect().await.unwrap();
    let datastore = &datastores[0].object;
    let disks = vim.first_class_disks().unwrap();
    assert_eq!(disks.list(FcdScope::All).try_next().await.unwrap(), None);

    let wanted = CreateFcd::new("data", datastore, 16 << 20).provisioning(Provisioning::Thin);
    let disk = disks.create(wanted).await.unwrap();
    assert_eq!((disk.name.as_str(), disk.capacity), ("data", 16 << 20));
    assert_eq!(disk.provisioning, Some(Provisioning::Thin));
    let path = disk.path.clone().unwrap();
    assert!(path.contains("fcd/") && path.contains(disk.id.as_str()), "{path}");
    let mut found = disks.list(FcdScope::All);
    assert_eq!(found.try_next().await.unwrap(), Some(FcdRef::on(datastore, disk.id.clone())));
    assert_eq!(found.try_next().await.unwrap(), None);
    assert_eq!(disks.retrieve(&disk.disk).await.unwrap().path, disk.path);

    let first = disks.create_snapshot(&disk.disk, "nightly").await.unwrap();
    let second = disks.create_snapshot(&disk.disk, "hourly").await.unwrap();
    let listed = disks.snapshots(&disk.disk).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|snapshot| (snapshot.id.unwrap(), snapshot.description)).collect();
    assert_eq!(listed, [(first.clone(), "nightly".to_owned()), (second.clone(), "hourly".to_owned())]);
    disks.delete_snapshot(&disk.disk, &first).await.unwrap();
    assert_eq!(disks.snapshots(&disk.disk).await.unwrap()[0].id, Some(second));

    disks.delete(&disk.disk).await.unwrap();
    let error = disks.retrieve(&disk.disk).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("NotFound"), "{error}");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_machines_disk_is_registered_by_the_url_that_names_it() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let vms = vim.properties::<vsphere_vim::mo::VirtualMachine>().select((vsphere_vim::mo::VirtualMachine::NAME,));
    let vm = vms.collect().await.unwrap().remove(0).object;
    let file = vim.disks(&vm).await.unwrap().remove(0).backing.file_name.unwrap();
    let (datastore, path) = file.strip_prefix('[').unwrap().split_once("] ").unwrap();
    let disks = vim.first_class_disks().unwrap();
    let disk = disks.register(RegisterFcd::new("DC0", datastore, path).name("first")).await.unwrap();
    assert_eq!((disk.name.as_str(), disk.path.as_deref()), ("first", Some(file.as_str())));
    // The same disk twice is refused.
    let error = disks.register(RegisterFcd::new("DC0", datastore, path)).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("InvalidArgument"), "{error}");
    vim.logout().await.unwrap();
}
