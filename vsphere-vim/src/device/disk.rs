//! Virtual disks.

use std::{collections::HashMap, fmt};

use vsphere_vim_types::{
    MoRef, Poly, PropertyPath, VirtualController, VirtualDevice, VirtualDisk, VirtualSCSIController, mo,
};

use super::{BackingKind, DeviceKey, DiskBacking};
use crate::{client::Vim, error::Result};

/// A virtual disk of a machine or of a snapshot.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct VirtualDiskInfo {
    /// The device's key, the same in all snapshots.
    pub key: DeviceKey,
    /// Its name in the client, such as `Hard disk 1`.
    pub label: String,
    /// Its size in bytes.
    pub capacity: u64,
    /// What lies behind it.
    pub backing: DiskBacking,
    /// What it is plugged into.
    pub controller: Option<DiskController>,
    /// Its place on the controller.
    pub unit_number: Option<i32>,
    /// Its id as a First Class Disk, if it is one.
    #[doc(alias = "vDiskId")]
    pub fcd_id: Option<String>,
}

/// The controller of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskController {
    /// The device's key.
    pub key: DeviceKey,
    /// Its wire type, such as `ParaVirtualSCSIController`.
    pub kind: String,
    /// Its number among those of its kind.
    pub bus_number: i32,
    /// For SCSI: whether virtual machines share the bus.
    pub shared_bus: bool,
}

/// Why a snapshot does not hold a disk, so that it cannot be backed up that way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotObstacle {
    /// The disk is independent of snapshots.
    Independent,
    /// A raw device mapping in physical compatibility bypasses the storage stack.
    PhysicalRdm,
    /// A raw disk of the host.
    RawDevice,
    /// The controller's bus is shared between machines.
    SharedBus,
    /// Several machines write to the disk.
    MultiWriter,
}

impl fmt::Display for SnapshotObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Independent => "the disk is independent: snapshots leave it out",
            Self::PhysicalRdm => "a raw device mapping in physical compatibility cannot be snapshotted",
            Self::RawDevice => "a raw disk of the host cannot be snapshotted",
            Self::SharedBus => "machines that share a SCSI bus cannot be snapshotted",
            Self::MultiWriter => "a disk with several writers cannot be snapshotted",
        })
    }
}

impl VirtualDiskInfo {
    /// The disks among a machine's devices, in their order.
    pub fn all_of(devices: &[Poly<VirtualDevice>]) -> Vec<Self> {
        let controllers: HashMap<i32, DiskController> =
            devices.iter().filter_map(|device| Some((device.key, DiskController::of(device)?))).collect();
        let disks = devices.iter().filter_map(|device| device.downcast_ref::<VirtualDisk>());
        disks.map(|disk| Self::of(disk, &controllers)).collect()
    }

    fn of(disk: &VirtualDisk, controllers: &HashMap<i32, DiskController>) -> Self {
        // Bytes came with 5.5 and are exact; kilobytes are there always. Negative sizes are nonsense and read as none.
        let bytes = disk.capacity_in_bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
        let kilobytes = u64::try_from(disk.capacity_in_kb).unwrap_or(0);
        let none = Poly::default();
        Self {
            key: DeviceKey(disk.key),
            label: disk.device_info.as_ref().map(|info| info.label.clone()).unwrap_or_default(),
            capacity: bytes.unwrap_or_else(|| kilobytes.saturating_mul(1024)),
            backing: DiskBacking::of(disk.backing.as_ref().unwrap_or(&none)),
            controller: disk.controller_key.and_then(|key| controllers.get(&key).cloned()),
            unit_number: disk.unit_number,
            fcd_id: disk.v_disk_id.as_ref().map(|id| id.id.clone()),
        }
    }

    /// The base disk's datastore path: the last of the chain, or the disk's own file when it has no parent.
    pub fn base_file_name(&self) -> Option<&str> {
        self.backing.parents.last().or(self.backing.file_name.as_ref()).map(String::as_str)
    }

    /// The name under which a backup keeps the disk: the base disk's path without the number that snapshots append.
    ///
    /// It is a name only. Never open it: the running disk and its parents have names of their own.
    pub fn base_disk_name(&self) -> Option<String> {
        self.base_file_name().map(|name| strip_delta_suffix(name).into_owned())
    }

    /// Why a snapshot would not hold this disk; `None` when it would.
    pub fn snapshot_obstacle(&self) -> Option<SnapshotObstacle> {
        let backing = &self.backing;
        match backing.kind {
            BackingKind::RawDiskMapping if backing.compatibility.as_deref() == Some("physicalMode") => {
                return Some(SnapshotObstacle::PhysicalRdm);
            }
            BackingKind::RawDisk | BackingKind::PartitionedRawDisk => return Some(SnapshotObstacle::RawDevice),
            _ => {}
        }
        if backing.mode.as_ref().is_some_and(super::DiskMode::is_independent) {
            return Some(SnapshotObstacle::Independent);
        }
        if self.controller.as_ref().is_some_and(|controller| controller.shared_bus) {
            return Some(SnapshotObstacle::SharedBus);
        }
        (backing.sharing.as_deref() == Some("sharingMultiWriter")).then_some(SnapshotObstacle::MultiWriter)
    }
}

impl DiskController {
    fn of(device: &Poly<VirtualDevice>) -> Option<Self> {
        let controller = device.downcast_ref::<VirtualController>()?;
        let scsi = device.downcast_ref::<VirtualSCSIController>();
        Some(Self {
            key: DeviceKey(device.key),
            kind: device.type_name().to_owned(),
            bus_number: controller.bus_number,
            shared_bus: scsi.is_some_and(|scsi| scsi.shared_bus.as_str() != "noSharing"),
        })
    }
}

/// `disk-000032.vmdk` without its `-000032`; any other name as it is.
pub fn strip_delta_suffix(name: &str) -> std::borrow::Cow<'_, str> {
    let stripped = name.strip_suffix(".vmdk").and_then(|stem| {
        let (base, number) = stem.rsplit_once('-')?;
        let is_delta = number.len() == 6 && number.bytes().all(|digit| digit.is_ascii_digit());
        (is_delta && !base.is_empty() && !base.ends_with(['/', ' '])).then(|| format!("{base}.vmdk"))
    });
    stripped.map_or(std::borrow::Cow::Borrowed(name), std::borrow::Cow::Owned)
}

impl Vim {
    /// The disks of a virtual machine as they are now; what a restore writes to.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "config.hardware.device")]
    pub async fn disks(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<Vec<VirtualDiskInfo>> {
        const PATH: PropertyPath<mo::VirtualMachine, Vec<Poly<VirtualDevice>>> =
            PropertyPath::new("config.hardware.device");
        Ok(VirtualDiskInfo::all_of(&self.get(vm, PATH).await?))
    }

    /// The disks of a snapshot; what a backup reads. Their change ids are the point in time to keep.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn snapshot_disks(&self, snapshot: &MoRef<mo::VirtualMachineSnapshot>) -> Result<Vec<VirtualDiskInfo>> {
        const PATH: PropertyPath<mo::VirtualMachineSnapshot, Vec<Poly<VirtualDevice>>> =
            PropertyPath::new("config.hardware.device");
        Ok(VirtualDiskInfo::all_of(&self.get(snapshot, PATH).await?))
    }
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{
        ParaVirtualSCSIController, VirtualDeviceBackingInfo, VirtualDiskFlatVer2BackingInfo,
        VirtualDiskPartitionedRawDiskVer2BackingInfo, VirtualDiskRawDiskMappingVer1BackingInfo,
        VirtualDiskSparseVer2BackingInfo,
    };

    use super::*;

    fn flat(file: &str, parent: Option<VirtualDiskFlatVer2BackingInfo>) -> VirtualDiskFlatVer2BackingInfo {
        let mut backing = VirtualDiskFlatVer2BackingInfo {
            disk_mode: "persistent".into(),
            change_id: Some("52 de/17".into()),
            parent: parent.map(Box::new),
            ..Default::default()
        };
        backing.file_name = file.into();
        backing
    }

    fn disk(backing: Poly<VirtualDeviceBackingInfo>) -> VirtualDiskInfo {
        let mut controller = Poly::<VirtualDevice>::new(ParaVirtualSCSIController::default());
        controller.key = 1000;
        let mut disk = VirtualDisk { capacity_in_kb: 1024, ..Default::default() };
        disk.key = 2000;
        disk.controller_key = Some(1000);
        disk.backing = Some(backing);
        let all = VirtualDiskInfo::all_of(&[Poly::new(disk), controller]);
        assert_eq!(all.len(), 1);
        all.into_iter().next().unwrap()
    }

    #[test]
    fn a_chain_is_followed_to_its_base() {
        let chain = flat(
            "[ds1] web/web-000002.vmdk",
            Some(flat("[ds1] web/web-000001.vmdk", Some(flat("[ds1] web/web.vmdk", None)))),
        );
        let disk = disk(Poly::new(chain));
        assert_eq!(disk.backing.kind, BackingKind::FlatVer2);
        assert_eq!(disk.backing.parents, ["[ds1] web/web-000001.vmdk", "[ds1] web/web.vmdk"]);
        assert_eq!(disk.base_file_name(), Some("[ds1] web/web.vmdk"));
        assert_eq!((disk.capacity, disk.key), (1 << 20, DeviceKey(2000)));
        assert_eq!(disk.controller.as_ref().unwrap().kind, "ParaVirtualSCSIController");
        assert_eq!(disk.snapshot_obstacle(), None);
    }

    #[test]
    fn only_six_digits_after_a_hyphen_are_a_snapshots_number() {
        for (name, base) in [
            ("[ds] a/web-000032.vmdk", "[ds] a/web.vmdk"),
            ("[ds] a/web-00032.vmdk", "[ds] a/web-00032.vmdk"),
            ("[ds] a/web-2024-000001.vmdk", "[ds] a/web-2024.vmdk"),
            ("[ds] a/-000001.vmdk", "[ds] a/-000001.vmdk"),
            ("[ds] a/web.vmdk", "[ds] a/web.vmdk"),
            ("web-000001", "web-000001"),
        ] {
            assert_eq!(strip_delta_suffix(name), base);
        }
    }

    #[test]
    fn disks_that_snapshots_leave_out_say_why() {
        let rdm = |mode: &str| VirtualDiskRawDiskMappingVer1BackingInfo {
            compatibility_mode: Some(mode.into()),
            ..Default::default()
        };
        assert_eq!(disk(Poly::new(rdm("physicalMode"))).snapshot_obstacle(), Some(SnapshotObstacle::PhysicalRdm));
        assert_eq!(disk(Poly::new(rdm("virtualMode"))).snapshot_obstacle(), None);
        let independent =
            VirtualDiskSparseVer2BackingInfo { disk_mode: "independent_persistent".into(), ..Default::default() };
        assert_eq!(disk(Poly::new(independent)).snapshot_obstacle(), Some(SnapshotObstacle::Independent));
        let raw = disk(Poly::new(VirtualDiskPartitionedRawDiskVer2BackingInfo::default()));
        assert_eq!(
            (raw.backing.kind.clone(), raw.snapshot_obstacle()),
            (BackingKind::PartitionedRawDisk, Some(SnapshotObstacle::RawDevice))
        );
    }

    #[test]
    fn a_backing_of_a_newer_server_keeps_its_name() {
        let mut backing = VirtualDeviceBackingInfo::default();
        backing.unknown.set_type_name("VirtualDiskOfTomorrowBackingInfo");
        assert_eq!(
            disk(Poly::new(backing)).backing.kind,
            BackingKind::Other("VirtualDiskOfTomorrowBackingInfo".into())
        );
    }

    #[test]
    fn an_empty_change_id_is_none() {
        let backing = VirtualDiskFlatVer2BackingInfo { change_id: Some(String::new()), ..Default::default() };
        assert_eq!(disk(Poly::new(backing)).backing.change_id, None);
    }
}
