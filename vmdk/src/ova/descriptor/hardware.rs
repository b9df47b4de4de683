//! Virtual hardware, as far as it says where a disk is attached.

use std::collections::HashMap;

use super::VirtualSystem;

/// A piece of virtual hardware: an `Item` of the descriptor, as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HardwareItem {
    /// `InstanceID`: other items name it as their parent.
    pub instance_id: String,
    /// What it is, by CIM's number ([`resource`] has those that matter here).
    pub resource_type: u16,
    /// `ResourceSubType`: `lsilogic`, `VirtualSCSI`, `vmware.sata.ahci`, `VmxNet3`, …
    pub subtype: Option<String>,
    /// Its name for humans.
    pub element_name: Option<String>,
    /// `InstanceID` of the controller it hangs on.
    pub parent: Option<String>,
    /// A controller's number among those of its kind.
    pub address: Option<String>,
    /// Its place on its controller.
    pub address_on_parent: Option<String>,
    /// What backs it: `ovf:/disk/<disk id>`, `ovf:/file/<file id>`.
    pub host_resource: Vec<String>,
    /// Networks that it is connected to.
    pub connection: Vec<String>,
    /// How much of it, in `allocation_units`.
    pub quantity: Option<u64>,
    /// `byte * 2^20`, `hertz * 10^6`, …
    pub allocation_units: Option<String>,
    /// The deployment option that it is for, when not for all.
    pub configuration: Option<String>,
}

/// CIM's numbers of resources (`rasd:ResourceType`).
pub mod resource {
    /// Processors.
    pub const PROCESSOR: u16 = 3;
    /// Memory.
    pub const MEMORY: u16 = 4;
    /// An IDE controller.
    pub const IDE_CONTROLLER: u16 = 5;
    /// A SCSI controller.
    pub const SCSI_CONTROLLER: u16 = 6;
    /// An Ethernet adapter.
    pub const ETHERNET: u16 = 10;
    /// A disk.
    pub const DISK: u16 = 17;
    /// Any other controller of storage: SATA and NVMe, told apart by the subtype.
    pub const STORAGE_CONTROLLER: u16 = 20;
}

/// The bus that a disk is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bus {
    /// IDE.
    Ide,
    /// SCSI, of whatever adapter.
    Scsi,
    /// SATA.
    Sata,
    /// NVMe.
    Nvme,
    /// A controller of another kind, by its CIM number.
    Other(u16),
}

/// Where a disk is attached, in a form that vSphere's devices can be matched with: `scsi0:1` is bus
/// [`Bus::Scsi`], `bus_number` 0, `unit` 1.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskAttachment {
    /// The machine's `ovf:id`.
    pub system_id: String,
    /// The disk's `ovf:diskId`.
    pub disk_id: String,
    /// The disk's `rasd:InstanceID`.
    pub instance_id: String,
    /// Kind of its controller; `None` when it names none.
    pub bus: Option<Bus>,
    /// The controller's kind in the words of its vendor.
    pub controller_subtype: Option<String>,
    /// The controller's number.
    pub bus_number: Option<u32>,
    /// The place on the controller.
    pub unit: Option<u32>,
}

impl VirtualSystem {
    /// The disks of this machine and where they are attached, in the order of the descriptor. Items for a single
    /// deployment option are listed too.
    pub fn disk_attachments(&self) -> Vec<DiskAttachment> {
        let mut by_id: HashMap<&str, &HardwareItem> = HashMap::new();
        for item in &self.items {
            by_id.entry(&item.instance_id).or_insert(item);
        }
        let attachment = |item: &HardwareItem| {
            let disk_id = item.host_resource.iter().find_map(|resource| disk_id(resource))?;
            let controller = item.parent.as_deref().and_then(|parent| by_id.get(parent));
            Some(DiskAttachment {
                system_id: self.id.clone(),
                disk_id: disk_id.to_owned(),
                instance_id: item.instance_id.clone(),
                bus: controller.map(|controller| controller.bus()),
                controller_subtype: controller.and_then(|controller| controller.subtype.clone()),
                bus_number: controller.and_then(|controller| controller.address.as_deref()?.parse().ok()),
                unit: item.address_on_parent.as_deref().and_then(|unit| unit.parse().ok()),
            })
        };
        self.items.iter().filter_map(attachment).collect()
    }
}

impl HardwareItem {
    fn bus(&self) -> Bus {
        let subtype = self.subtype.as_deref().unwrap_or_default().to_ascii_lowercase();
        match self.resource_type {
            resource::IDE_CONTROLLER => Bus::Ide,
            resource::SCSI_CONTROLLER => Bus::Scsi,
            resource::STORAGE_CONTROLLER if subtype.contains("nvme") => Bus::Nvme,
            resource::STORAGE_CONTROLLER if subtype.contains("ahci") || subtype.contains("sata") => Bus::Sata,
            other => Bus::Other(other),
        }
    }
}

/// `ovf:/disk/id`, or `/disk/id` as OVF 0.9 had it.
fn disk_id(resource: &str) -> Option<&str> {
    let path = resource.strip_prefix("ovf:").unwrap_or(resource);
    path.strip_prefix("/disk/").filter(|id| !id.is_empty())
}
