//! What is so about a machine and its disks, decided from plain facts.

use vsphere_cbt::DiskTracking;
use vsphere_vim::{
    PowerState, VirtualDiskInfo,
    device::{BackingKind, SnapshotObstacle},
    types::{CryptoKeyId, VirtualMachineConfigInfo, VirtualPCIPassthrough, VirtualTPM},
    vm::{Snapshot, VmDetails},
};

use crate::journal::marker;

use super::{
    condition::{Condition, Finding, Subject},
    quiesce::QuiescePolicy,
    tracking::HostVersion,
};

/// A machine, as far as a backup has to know it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) details: VmDetails,
    pub(super) host: Option<HostVersion>,
    pub(crate) files: MachineFiles,
    /// Provider and id of the key that the machine's files are encrypted with.
    pub(crate) key: Option<String>,
    pub(crate) virtual_tpm: bool,
    pub(crate) passthrough: usize,
    /// Names a configuration; changes with it.
    pub(crate) change_version: String,
}

/// Where a machine's own files lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MachineFiles {
    /// The datastore path of the configuration file.
    pub(crate) vmx: Option<String>,
    /// As the configuration has it: a name beside the configuration file, or a datastore path.
    pub(crate) nvram: Option<String>,
}

/// What is done about machines that vSphere encrypts. Their data arrives in clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncryptedMachines {
    /// They are backed up to an encrypted repository only.
    #[default]
    NeedEncryptedRepository,
    /// They are backed up to a plain repository too, with a warning.
    AllowPlainRepository,
}

/// What is done about machines with a virtual TPM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VirtualTpms {
    /// They are backed up, with a warning: the TPM's secrets are of use to the same machine only.
    #[default]
    Warn,
    /// They are refused.
    Refuse,
}

/// What is done about a machine whose change tracking is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeTracking {
    /// It stays off: every backup reads all that is allocated.
    #[default]
    AsIs,
    /// It is enabled, when the machine has no snapshots and is not suspended: the next backup reads what changed.
    #[doc(alias = "changeTrackingEnabled")]
    Enable,
}

/// What the caller said about states of machines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) tracking: ChangeTracking,
    pub(crate) encrypted: EncryptedMachines,
    pub(crate) virtual_tpms: VirtualTpms,
}

impl Machine {
    pub(super) fn new(details: VmDetails, config: &VirtualMachineConfigInfo, host: Option<HostVersion>) -> Self {
        let has = |is: fn(&_) -> bool| config.hardware.device.iter().filter(&is).count();
        let nvram = config.extra_config.iter().find(|option| option.key.eq_ignore_ascii_case("nvram"));
        let nvram = nvram.and_then(|option| match &option.value {
            Some(vsphere_vim::types::Any::String(name)) => Some(name.trim().to_owned()),
            _ => None,
        });
        let files = MachineFiles { vmx: details.config_path.clone(), nvram: nvram.filter(|name| !name.is_empty()) };
        Self {
            files,
            key: config.key_id.as_ref().map(key_name),
            virtual_tpm: has(|device| device.downcast_ref::<VirtualTPM>().is_some()) > 0,
            passthrough: has(|device| device.downcast_ref::<VirtualPCIPassthrough>().is_some()),
            change_version: config.change_version.clone(),
            host,
            details,
        }
    }

    /// Returns what is so, worst last within a subject's order of the table.
    pub(crate) fn findings(
        &self,
        policies: &Policies,
        quiesce: &QuiescePolicy,
        encrypted_repository: bool,
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |condition, detail: String| found.push(Finding::machine(condition, detail));
        let details = &self.details;
        if !details.connected {
            add(Condition::Disconnected, String::new());
        }
        if details.identity.instance_uuid.is_none() {
            add(Condition::NoIdentity, String::new());
        }
        if details.is_template {
            add(Condition::Template, String::new());
        }
        match &details.power_state {
            PowerState::Off if !details.is_template => add(Condition::PoweredOff, String::new()),
            PowerState::Suspended if quiesce.allows_crash() => {
                add(Condition::Suspended, String::new());
                add(Condition::FileLeftOut, "vmss, the memory of the suspended machine".into());
            }
            PowerState::Suspended => add(Condition::SuspendedNeedsGuest, String::new()),
            _ => {}
        }
        if let Some(by) = self.encrypted_by() {
            add(
                match (encrypted_repository, policies.encrypted) {
                    (true, _) => Condition::Encrypted,
                    (false, EncryptedMachines::NeedEncryptedRepository) => Condition::EncryptedIntoPlain,
                    (false, EncryptedMachines::AllowPlainRepository) => Condition::EncryptedStoredPlain,
                },
                by,
            );
        }
        match policies.virtual_tpms {
            _ if !self.virtual_tpm => {}
            VirtualTpms::Warn => add(Condition::VirtualTpm, String::new()),
            VirtualTpms::Refuse => add(Condition::VirtualTpmRefused, String::new()),
        }
        if self.passthrough > 0 && details.power_state == PowerState::On {
            add(Condition::Passthrough, format!("{} devices", self.passthrough));
        }
        let snapshots = details.snapshots.iter().count();
        if snapshots > 0 {
            add(Condition::Snapshots, format!("{snapshots} of them"));
        }
        if details.consolidation_needed {
            add(Condition::ConsolidationNeeded, String::new());
        }
        for fallback in quiesce.chain(details).skipped {
            add(Condition::QuiesceFallback, format!("{}: {}", fallback.way, fallback.reason));
        }
        if !details.is_template
            && let Some((condition, detail)) = self.tracking(policies.tracking)
        {
            add(condition, detail);
        }
        for disk in &details.disks {
            found.extend(disk_findings(disk, details));
        }
        found
    }

    /// Returns the datastore path of the firmware's variables.
    pub(crate) fn nvram_path(&self) -> Option<String> {
        let name = self.files.nvram.as_deref()?;
        if name.starts_with('[') {
            return Some(name.to_owned());
        }
        let (folder, _) = self.files.vmx.as_deref()?.rsplit_once('/')?;
        Some(format!("{folder}/{name}"))
    }

    /// Names the keys by which the machine or its disks are encrypted; `None` when nothing is.
    fn encrypted_by(&self) -> Option<String> {
        let disks = self.details.disks.iter().filter(|disk| disk.backing.encrypted);
        let disks: Vec<_> = disks.map(|disk| format!("disk {}", disk.key.0)).collect();
        let mut parts: Vec<_> = self.key.iter().map(|key| format!("key {key}")).collect();
        parts.extend(disks);
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Tells whether a backup enables change tracking.
    pub(super) fn enables_tracking(&self, wish: ChangeTracking) -> bool {
        matches!(self.tracking(wish), Some((Condition::TrackingToBeEnabled, _)))
    }

    /// Returns what is to be said of change tracking, unless all is well.
    fn tracking(&self, wish: ChangeTracking) -> Option<(Condition, String)> {
        let details = &self.details;
        // Those of our jobs are removed before.
        let foreign = |found: &&Snapshot| marker::job_in(&found.description).is_none();
        let snapshots = details.snapshots.iter().filter(foreign).count();
        if details.change_tracking_enabled {
            let waits = wish == ChangeTracking::Enable && snapshots == 0 && details.disks.iter().any(waits_for_id);
            return waits.then(|| (Condition::TrackingToBeEnabled, "it is on and disks have no change id".into()));
        }
        let too_old = details.hardware_version.is_some_and(|version| version < TRACKING_HARDWARE);
        if !details.change_tracking_supported || too_old {
            let version = details.hardware_version.map(|version| format!("virtual hardware {version}"));
            return Some((Condition::TrackingUnsupported, version.unwrap_or_default()));
        }
        Some(match wish {
            ChangeTracking::AsIs => (Condition::TrackingOff, String::new()),
            ChangeTracking::Enable if snapshots > 0 => (Condition::TrackingBlocked, format!("{snapshots} snapshots")),
            ChangeTracking::Enable if details.power_state == PowerState::Suspended => {
                (Condition::TrackingBlocked, "it is suspended".into())
            }
            ChangeTracking::Enable => (Condition::TrackingToBeEnabled, String::new()),
        })
    }
}

/// Returns why a disk is not backed up; `None` when it is.
pub(crate) fn obstacle(disk: &VirtualDiskInfo) -> Option<Finding> {
    let at = |condition, detail: &str| Some(Finding::new(condition, Subject::Disk(disk.key.0), detail));
    if let Some(obstacle) = disk.snapshot_obstacle() {
        return match obstacle {
            SnapshotObstacle::Independent => at(Condition::Independent, ""),
            SnapshotObstacle::PhysicalRdm => at(Condition::PhysicalRdm, disk.backing.lun_uuid.as_deref().unwrap_or("")),
            SnapshotObstacle::RawDevice => at(Condition::RawDevice, disk.backing.device_name.as_deref().unwrap_or("")),
            SnapshotObstacle::SharedBus => at(Condition::SharedBus, ""),
            SnapshotObstacle::MultiWriter => at(Condition::MultiWriter, ""),
            other => at(Condition::UnknownBacking, &other.to_string()),
        };
    }
    if disk.capacity == 0 {
        return at(Condition::NoCapacity, "");
    }
    if disk.backing.file_name.as_ref().is_none_or(String::is_empty) {
        return at(Condition::NoFile, "");
    }
    match &disk.backing.kind {
        BackingKind::Other(kind) => at(Condition::UnknownBacking, kind),
        BackingKind::LocalPMem => at(Condition::PersistentMemory, ""),
        _ => None,
    }
}

/// Tells whether a disk could be tracked and has no change id.
fn waits_for_id(disk: &VirtualDiskInfo) -> bool {
    DiskTracking::of(disk).is_ok_and(|disk| disk.untrackable.is_none() && disk.change_id.is_none())
}

fn disk_findings(disk: &VirtualDiskInfo, machine: &VmDetails) -> Vec<Finding> {
    if let Some(obstacle) = obstacle(disk) {
        return vec![obstacle];
    }
    let mut found = Vec::new();
    let mut add = |condition, detail: &str| found.push(Finding::new(condition, Subject::Disk(disk.key.0), detail));
    if disk.backing.kind == BackingKind::RawDiskMapping {
        add(Condition::VirtualRdm, disk.backing.lun_uuid.as_deref().unwrap_or(""));
    }
    // With snapshots there, parents are theirs.
    if !disk.backing.parents.is_empty() && machine.snapshots.is_empty() {
        add(Condition::LinkedClone, disk.base_file_name().unwrap_or(""));
    }
    if let Some(id) = &disk.fcd_id {
        add(Condition::FirstClassDisk, id);
    }
    if machine.change_tracking_enabled && disk.backing.change_id.is_none() {
        add(Condition::NotTrackedYet, "");
    }
    found
}

fn key_name(key: &CryptoKeyId) -> String {
    match &key.provider_id {
        Some(provider) => format!("{} of {}", key.key_id, provider.id),
        None => key.key_id.clone(),
    }
}

/// The first virtual hardware that can track changes.
const TRACKING_HARDWARE: u32 = 7;
