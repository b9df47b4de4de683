//! A virtual machine: its state, and its state only. What the API shows of it is in the submodules.

pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod devices;
pub(crate) mod files;
pub(crate) mod hardware;
pub(crate) mod lifecycle;
pub(crate) mod operate;
pub(crate) mod reconfigure;
pub(crate) mod snapshot;
pub(crate) mod summary;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vsphere_vim_types::{
    DateTime, ManagedEntityStatus, ManagedObjectReference, Poly, VirtualDevice, VirtualMachinePowerState,
};

use crate::storage::{DiskStore, Point};

/// Whether a VM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Power {
    /// Off.
    Off,
    /// Running.
    #[default]
    On,
    /// Suspended to disk.
    Suspended,
}

impl Power {
    /// The value on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Power::Off => "poweredOff",
            Power::On => "poweredOn",
            Power::Suspended => "suspended",
        }
    }

    pub(crate) fn to_wire(self) -> VirtualMachinePowerState {
        VirtualMachinePowerState::from(self.as_str())
    }
}

/// What a guest does when it is asked to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestBehaviour {
    /// It is off after that time.
    ShutsDownAfter(Duration),
    /// It takes the request and goes on running.
    Ignores,
    /// VMware Tools are not running: there is nobody to ask.
    NoTools,
}

impl Default for GuestBehaviour {
    fn default() -> Self {
        Self::ShutsDownAfter(Duration::ZERO)
    }
}

/// How a disk takes part in snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DiskMode {
    /// In snapshots.
    #[default]
    Persistent,
    /// Left out of snapshots, and never tracked.
    IndependentPersistent,
}

impl DiskMode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            DiskMode::Persistent => "persistent",
            DiskMode::IndependentPersistent => "independent_persistent",
        }
    }
}

/// A disk attached to a VM.
#[derive(Clone)]
pub(crate) struct VmDisk {
    pub(crate) key: i32,
    pub(crate) label: String,
    /// The key of its controller.
    pub(crate) controller: i32,
    pub(crate) unit: i32,
    /// As it was asked for; storage here is always thin.
    pub(crate) thin: bool,
    pub(crate) mode: DiskMode,
    pub(crate) backing: DiskShape,
    pub(crate) store: Arc<DiskStore>,
}

/// What the server says of a disk's backing; here it is the same store for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DiskShape {
    /// A flat file of one machine.
    #[default]
    Flat,
    /// A flat file that several machines may write to.
    MultiWriter,
    /// A raw device mapping, in `virtualMode` or `physicalMode`.
    RawDeviceMapping(&'static str),
}

/// The part of a VM's configuration that a snapshot keeps.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) annotation: String,
    pub(crate) guest_id: String,
    pub(crate) memory_mb: i32,
    pub(crate) cpus: i32,
    pub(crate) tracking: bool,
    pub(crate) extra: BTreeMap<String, String>,
    /// Devices other than disks and than those that every VM has, by key.
    pub(crate) devices: BTreeMap<i32, Poly<VirtualDevice>>,
    pub(crate) disks: BTreeMap<i32, VmDisk>,
    /// The content of the NVRAM file, if there is one. Its name is in `extra`.
    pub(crate) nvram: Option<Arc<[u8]>>,
    /// Provider and id of the key that the VM is encrypted with.
    pub(crate) key: Option<(String, String)>,
}

/// One snapshot.
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) number: i32,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) created: DateTime,
    pub(crate) power: Power,
    pub(crate) quiesced: bool,
    /// Name and content of the file in which VSS describes what it backed up.
    pub(crate) manifest: Option<(String, Vec<u8>)>,
    pub(crate) parent: Option<String>,
    pub(crate) settings: Settings,
    /// What it holds of each disk; independent disks are missing.
    pub(crate) points: BTreeMap<i32, Point>,
}

/// Why a method is disabled, and until when.
pub(crate) struct MethodLock {
    /// The reason given.
    pub(crate) reason: String,
    /// The session with whose end the lock ends; `None` stays until it is lifted.
    pub(crate) session: Option<String>,
}

/// One virtual machine.
pub(crate) struct Vm {
    pub(crate) id: String,
    /// The inventory folder or vApp that contains it.
    pub(crate) parent: ManagedObjectReference,
    /// Templates have no power and no resource pool.
    pub(crate) template: bool,
    /// What the guest does when it is asked to shut down.
    pub(crate) guest: GuestBehaviour,
    /// The folder in the datastore; does not change when the VM is renamed.
    pub(crate) folder: String,
    /// The name of its configuration file, without what follows the dot.
    pub(crate) file_name: String,
    pub(crate) instance_uuid: String,
    pub(crate) bios_uuid: String,
    pub(crate) hardware_version: u32,
    pub(crate) power: Power,
    pub(crate) created: DateTime,
    pub(crate) booted: DateTime,
    pub(crate) modified: DateTime,
    pub(crate) revision: u64,
    pub(crate) settings: Settings,
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    pub(crate) current_snapshot: Option<String>,
    pub(crate) snapshot_count: i32,
    /// The worst of its alarms.
    pub(crate) health: ManagedEntityStatus,
    /// Methods disabled, by (source, method).
    pub(crate) disabled: BTreeMap<(String, String), MethodLock>,
    /// Keeps operations on the VM apart.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    /// Disks ever created, for file names.
    pub(crate) disks_created: usize,
}

impl Vm {
    pub(crate) fn reference(&self) -> ManagedObjectReference {
        ManagedObjectReference::of("VirtualMachine", &self.id)
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Disks of the VM and of its snapshots, each once.
    pub(crate) fn all_stores(&self) -> Vec<Arc<DiskStore>> {
        let mut stores: Vec<Arc<DiskStore>> = Vec::new();
        let of_snapshots = self.snapshots.values().flat_map(|snapshot| snapshot.settings.disks.values());
        for disk in self.settings.disks.values().chain(of_snapshots) {
            if !stores.iter().any(|known| Arc::ptr_eq(known, &disk.store)) {
                stores.push(disk.store.clone());
            }
        }
        stores
    }

    pub(crate) fn consolidation_needed(&self) -> bool {
        self.all_stores().iter().any(|store| store.needs_consolidation())
    }

    /// Something of the configuration changed.
    pub(crate) fn revise(&mut self) {
        self.revision += 1;
        self.modified = DateTime::now();
    }
}
