//! What can be done with First Class Disks.

use vsphere_vim_types::{ID, RetrieveVStorageObjSpec, VStorageObject, methods};

use super::{
    CreateFcd, Fcd, FcdConsumer, FcdRef, FcdScope, FcdSnapshot, FcdSnapshotDetails, FcdSnapshotId, FcdStream,
    RegisterFcd,
    back_end::{BackEnd, on_each, result},
    snapshot,
};
use crate::{
    client::Vim,
    error::{Call, Error, Result},
    vm::ChangedAreas,
    vslm::Vslm,
};

/// The First Class Disks of a server.
#[doc(alias = "VStorageObjectManager")]
#[derive(Clone, Debug)]
pub struct FirstClassDisks {
    back_end: BackEnd,
    page: i32,
}

impl Vim {
    /// The First Class Disks that this vCenter Server or ESXi host manages.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before vSphere 6.5.
    ///
    /// # Since
    /// vSphere 6.5.
    #[doc(alias = "VcenterVStorageObjectManager")]
    #[doc(alias = "HostVStorageObjectManager")]
    pub fn first_class_disks(&self) -> Result<FirstClassDisks> {
        let manager = self.manager("VStorageObjectManager", self.content().v_storage_object_manager.as_ref())?;
        let back_end = if self.is_vcenter() {
            BackEnd::VCenter(self.clone(), manager.cast())
        } else {
            BackEnd::Host(self.clone(), manager.cast())
        };
        Ok(FirstClassDisks { back_end, page: DEFAULT_PAGE })
    }
}

impl Vslm {
    /// All First Class Disks that vCenter's catalogue knows, wherever they lie.
    ///
    /// # Since
    /// vCenter 6.7 U2.
    #[doc(alias = "VslmVStorageObjectManager")]
    pub fn first_class_disks(&self) -> FirstClassDisks {
        FirstClassDisks { back_end: BackEnd::Anywhere(self.clone()), page: DEFAULT_PAGE }
    }
}

impl FirstClassDisks {
    /// Disks in one answer of the storage lifecycle service. 500 unless stated.
    #[must_use]
    pub fn page_size(self, disks: u16) -> Self {
        Self { page: i32::from(disks.max(1)), ..self }
    }

    /// Finds disks.
    ///
    /// # Errors
    /// In the stream: `InvalidDatastore` for a datastore that is gone or cannot be reached.
    ///
    /// # Privileges
    /// `System.View`.
    #[doc(alias = "ListVStorageObject")]
    #[doc(alias = "HostListVStorageObject")]
    #[doc(alias = "VslmListVStorageObjectForSpec")]
    pub fn list(&self, scope: FcdScope) -> FcdStream {
        FcdStream::new(self.back_end.clone(), scope, self.page)
    }

    /// Reads what a disk is.
    ///
    /// # Errors
    /// `NotFound` when there is no such disk.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "RetrieveVStorageObject")]
    pub async fn retrieve(&self, disk: &FcdRef) -> Result<Fcd> {
        let wire = on_each!(
            &self.back_end,
            disk,
            RetrieveVStorageObject | HostRetrieveVStorageObject | VslmRetrieveVStorageObject {}
        )?;
        Fcd::from_wire("RetrieveVStorageObject", wire)
    }

    /// Which virtual machines use a disk, and under which device key.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on ESXi: its API does not tell; [`Fcd::consumers`] names the machine. The fault that the
    /// server met while it looked.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vSphere 6.7.
    #[doc(alias = "RetrieveVStorageObjectAssociations")]
    pub async fn consumers(&self, disk: &FcdRef) -> Result<Vec<FcdConsumer>> {
        const OPERATION: &str = "RetrieveVStorageObjectAssociations";
        let consumer = |id: String, key: i32| FcdConsumer { id, device_key: Some(key) };
        let wanted = disk.id.to_wire();
        let (found, fault) = match &self.back_end {
            BackEnd::VCenter(vim, manager) => {
                let datastore = super::back_end::datastore(disk)?;
                let ids = vec![RetrieveVStorageObjSpec { id: wanted.clone(), datastore, ..Default::default() }];
                let args = methods::RetrieveVStorageObjectAssociations { ids, ..Default::default() };
                let own = vim.invoke(manager, args).await?.into_iter().find(|found| found.id == wanted);
                let own = own.unwrap_or_default();
                let list = own.vm_disk_associations.into_iter().map(|one| consumer(one.vm_id, one.disk_key));
                (list.collect(), own.fault)
            }
            BackEnd::Host(..) => return Err(no_such_method("associations of a first class disk")),
            BackEnd::Anywhere(vslm) => {
                let args =
                    methods::VslmRetrieveVStorageObjectAssociations { ids: vec![wanted.clone()], ..Default::default() };
                let own = vslm.invoke(&vslm.disk_manager(), args).await?.into_iter().find(|found| found.id == wanted);
                let own = own.unwrap_or_default();
                let list = own.vm_disk_association.into_iter().map(|one| consumer(one.vm_id, one.disk_key));
                (list.collect(), own.fault)
            }
        };
        match fault {
            None => Ok(found),
            Some(fault) => Err(Error::Fault(Box::new(crate::error::ServerFault {
                call: Call::named(OPERATION),
                message: fault.localized_message.unwrap_or_default().into(),
                fault: fault.fault,
            }))),
        }
    }

    /// Creates a disk and waits until it is there.
    ///
    /// # Errors
    /// `InvalidDatastore`, `FileFault`, `NoDiskSpace`; [`Error::InvalidInput`] for a capacity that is no multiple of
    /// 1 MiB.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore.
    ///
    /// # Cancel safety
    /// A dropped future may leave the disk behind; find it with [`FirstClassDisks::list`].
    #[doc(alias = "CreateDisk_Task")]
    pub async fn create(&self, disk: CreateFcd) -> Result<Fcd> {
        const OPERATION: &str = "CreateDisk_Task";
        let spec = disk.into_wire()?;
        let value = match &self.back_end {
            BackEnd::VCenter(vim, manager) => {
                let task = vim.invoke(manager, methods::CreateDisk_Task { spec, ..Default::default() }).await?;
                vim.wait(&task).await?.result()?
            }
            BackEnd::Host(vim, manager) => {
                let task = vim.invoke(manager, methods::HostCreateDisk_Task { spec, ..Default::default() }).await?;
                vim.wait(&task).await?.result()?
            }
            BackEnd::Anywhere(vslm) => {
                let args = methods::VslmCreateDisk_Task { spec, ..Default::default() };
                let task = vslm.invoke(&vslm.disk_manager(), args).await?;
                result::<VStorageObject>(OPERATION, vslm.wait(&task).await?)?
            }
        };
        Fcd::from_wire(OPERATION, value)
    }

    /// Makes a First Class Disk of a virtual disk that exists. Its file stays where it is.
    ///
    /// # Errors
    /// `AlreadyExists` or `InvalidArgument` when it is one already, `FileFault` when it cannot be opened.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have had its effect.
    #[doc(alias = "RegisterDisk")]
    pub async fn register(&self, disk: RegisterFcd) -> Result<Fcd> {
        let (path, name) = disk.into_parts(self.back_end.vim().endpoint());
        let wire = match &self.back_end {
            BackEnd::VCenter(vim, manager) => {
                vim.invoke(manager, methods::RegisterDisk { path, name, ..Default::default() }).await?
            }
            BackEnd::Host(vim, manager) => {
                vim.invoke(manager, methods::HostRegisterDisk { path, name, ..Default::default() }).await?
            }
            BackEnd::Anywhere(vslm) => {
                let args = methods::VslmRegisterDisk { path, name, ..Default::default() };
                vslm.invoke(&vslm.disk_manager(), args).await?
            }
        };
        Fcd::from_wire("RegisterDisk", wire)
    }

    /// Deletes a disk with its snapshots and its files, and waits until it is gone.
    ///
    /// # Errors
    /// `InvalidState` while a virtual machine uses it, `NotFound`.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the deletion goes on.
    #[doc(alias = "DeleteVStorageObject_Task")]
    pub async fn delete(&self, disk: &FcdRef) -> Result<()> {
        on_each!(
            &self.back_end,
            disk,
            DeleteVStorageObject_Task | HostDeleteVStorageObject_Task | VslmDeleteVStorageObject_Task {},
            end
        )
        .map(drop)
    }

    /// Switches tracking of changed blocks on or off. A snapshot taken from then on carries a change id.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState`.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have had its effect.
    ///
    /// # Since
    /// vSphere 6.7.
    #[doc(alias = "SetVStorageObjectControlFlags")]
    #[doc(alias = "ClearVStorageObjectControlFlags")]
    pub async fn set_change_tracking(&self, disk: &FcdRef, on: bool) -> Result<()> {
        let flags = vec![TRACKING_FLAG.to_owned()];
        if on {
            on_each!(
                &self.back_end,
                disk,
                SetVStorageObjectControlFlags
                    | HostSetVStorageObjectControlFlags
                    | VslmSetVStorageObjectControlFlags { control_flags: flags }
            )
        } else {
            on_each!(
                &self.back_end,
                disk,
                ClearVStorageObjectControlFlags
                    | HostClearVStorageObjectControlFlags
                    | VslmClearVStorageObjectControlFlags { control_flags: flags }
            )
        }
    }

    /// Takes a snapshot of a disk and waits until it is there.
    ///
    /// # Errors
    /// `InvalidState` when the disk's state does not allow it, `NotFound`, `FileFault`.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore.
    ///
    /// # Cancel safety
    /// A dropped future may leave a snapshot behind; find it with [`FirstClassDisks::snapshots`] by its description.
    ///
    /// # Since
    /// vSphere 6.7.
    #[doc(alias = "VStorageObjectCreateSnapshot_Task")]
    pub async fn create_snapshot(&self, disk: &FcdRef, description: &str) -> Result<FcdSnapshotId> {
        let value = on_each!(
            &self.back_end,
            disk,
            VStorageObjectCreateSnapshot_Task
                | HostVStorageObjectCreateSnapshot_Task
                | VslmCreateSnapshot_Task { description: description.to_owned() },
            end
        )?;
        result::<ID>("VStorageObjectCreateSnapshot_Task", value).map(FcdSnapshotId::from)
    }

    /// The snapshots of a disk, oldest first.
    ///
    /// # Errors
    /// `NotFound` when there is no such disk.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vSphere 6.7.
    #[doc(alias = "RetrieveSnapshotInfo")]
    pub async fn snapshots(&self, disk: &FcdRef) -> Result<Vec<FcdSnapshot>> {
        let wire = on_each!(
            &self.back_end,
            disk,
            RetrieveSnapshotInfo | HostVStorageObjectRetrieveSnapshotInfo | VslmRetrieveSnapshotInfo {}
        )?;
        let mut snapshots = snapshot::from_wire(wire);
        snapshots.sort_by_key(|snapshot| snapshot.created_at.unix_nanos());
        Ok(snapshots)
    }

    /// Where a snapshot's data lies, and its change id.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on ESXi, whose API does not tell; `NotFound`.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vCenter 6.7.
    #[doc(alias = "RetrieveSnapshotDetails")]
    pub async fn snapshot_details(&self, disk: &FcdRef, snapshot: &FcdSnapshotId) -> Result<FcdSnapshotDetails> {
        let snapshot_id = snapshot.to_wire();
        let wire = match &self.back_end {
            BackEnd::VCenter(vim, manager) => {
                let datastore = super::back_end::datastore(disk)?;
                let id = disk.id.to_wire();
                let args = methods::RetrieveSnapshotDetails { id, datastore, snapshot_id, ..Default::default() };
                vim.invoke(manager, args).await?
            }
            BackEnd::Host(..) => return Err(no_such_method("details of a first class disk's snapshot")),
            BackEnd::Anywhere(vslm) => {
                let id = disk.id.to_wire();
                let args = methods::VslmRetrieveSnapshotDetails { id, snapshot_id, ..Default::default() };
                vslm.invoke(&vslm.disk_manager(), args).await?
            }
        };
        Ok(wire.into())
    }

    /// Removes a snapshot, merges its data, and waits until that is done.
    ///
    /// # Errors
    /// `NotFound` when it is gone already, `InvalidState`.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the removal goes on.
    ///
    /// # Since
    /// vSphere 6.7.
    #[doc(alias = "DeleteSnapshot_Task")]
    pub async fn delete_snapshot(&self, disk: &FcdRef, snapshot: &FcdSnapshotId) -> Result<()> {
        on_each!(
            &self.back_end,
            disk,
            DeleteSnapshot_Task
                | HostVStorageObjectDeleteSnapshot_Task
                | VslmDeleteSnapshot_Task { snapshot_id: snapshot.to_wire() },
            end
        )
        .map(drop)
    }

    /// Sets a disk back to a snapshot and waits until that is done. What was written since is lost.
    ///
    /// # Errors
    /// `InvalidState` while a virtual machine uses the disk, `NotFound`.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the work goes on.
    ///
    /// # Since
    /// vSphere 6.7.
    #[doc(alias = "RevertVStorageObject_Task")]
    pub async fn revert(&self, disk: &FcdRef, snapshot: &FcdSnapshotId) -> Result<()> {
        on_each!(
            &self.back_end,
            disk,
            RevertVStorageObject_Task
                | HostVStorageObjectRevert_Task
                | VslmRevertVStorageObject_Task { snapshot_id: snapshot.to_wire() },
            end
        )
        .map(drop)
    }

    /// Asks once which areas of a disk changed between `change_id` and a snapshot, from byte `start` on.
    ///
    /// `change_id` is what an earlier snapshot's details gave, or `*` for the allocated areas. The crate `vsphere-cbt`
    /// asks to the end of the disk and checks the answers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on ESXi, whose API has no such question. `FileFault` when the change id is unusable: take
    /// a full backup. `InvalidArgument` when `start` is not below the capacity.
    ///
    /// # Privileges
    /// `System.View`, `Datastore.FileManagement` (by name; not checked on a server).
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vCenter 6.7.
    #[doc(alias = "VstorageObjectVCenterQueryChangedDiskAreas")]
    #[doc(alias = "VslmQueryChangedDiskAreas")]
    pub async fn query_changed_areas(
        &self,
        disk: &FcdRef,
        snapshot: &FcdSnapshotId,
        start: u64,
        change_id: &str,
    ) -> Result<ChangedAreas> {
        const OPERATION: &str = "VstorageObjectVCenterQueryChangedDiskAreas";
        let start_offset = i64::try_from(start)
            .map_err(|_| Error::invalid_input("start", "beyond what the API can express (2^63)"))?;
        let (id, snapshot_id, change_id) = (disk.id.to_wire(), snapshot.to_wire(), change_id.to_owned());
        let answer = match &self.back_end {
            BackEnd::VCenter(vim, manager) => {
                let args = methods::VstorageObjectVCenterQueryChangedDiskAreas {
                    id,
                    datastore: super::back_end::datastore(disk)?,
                    snapshot_id,
                    start_offset,
                    change_id,
                    ..Default::default()
                };
                vim.invoke(manager, args).await?
            }
            BackEnd::Host(..) => return Err(no_such_method("changed areas of a first class disk")),
            BackEnd::Anywhere(vslm) => {
                let args = methods::VslmQueryChangedDiskAreas {
                    id,
                    snapshot_id,
                    start_offset,
                    change_id,
                    ..Default::default()
                };
                vslm.invoke(&vslm.disk_manager(), args).await?
            }
        };
        ChangedAreas::from_wire(&answer).map_err(|what| Error::protocol(Call::named(OPERATION), what))
    }

    /// The connection that carries the calls.
    pub fn vim(&self) -> &Vim {
        self.back_end.vim()
    }
}

fn no_such_method(what: &str) -> Error {
    Error::unsupported(what, "an ESXi host's API has no such method; ask the vCenter Server")
}

/// The name of the flag that switches tracking on.
const TRACKING_FLAG: &str = "enableChangedBlockTracking";

/// Disks in one answer of the storage lifecycle service.
const DEFAULT_PAGE: i32 = 500;
