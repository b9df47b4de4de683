//! What a backup has to know about a virtual machine before it begins, read in one call.

use vsphere_vim_types::{MoRef, PropertyPath, VirtualMachineConnectionState, mo};

use super::{PowerState, SnapshotTree};
use crate::{
    client::Vim,
    device::VirtualDiskInfo,
    error::Result,
    inventory::VmRef,
    property::single::{property_error, required},
};

/// A virtual machine, as far as a backup is concerned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct VmDetails {
    /// Who it is.
    pub identity: VmRef,
    /// Its power state.
    pub power_state: PowerState,
    /// The host that it runs on or is registered at.
    pub host: Option<MoRef<mo::HostSystem>>,
    /// False while the host is away or the machine's files cannot be read.
    pub connected: bool,
    /// The hardware version's number: 19 for `vmx-19`.
    pub hardware_version: Option<u32>,
    /// The guest's type as configured, such as `ubuntu64Guest`.
    pub guest_id: Option<String>,
    /// The path of its configuration file: `[datastore] folder/name.vmx`.
    pub config_path: Option<String>,
    /// Templates cannot be snapshotted; their disks can be read directly.
    pub is_template: bool,
    /// Whether changed block tracking is possible.
    pub change_tracking_supported: bool,
    /// Whether changed block tracking is configured.
    pub change_tracking_enabled: bool,
    /// Whether disks of removed snapshots still wait to be merged.
    pub consolidation_needed: bool,
    /// Its snapshots.
    pub snapshots: SnapshotTree,
    /// Its disks as they are now.
    pub disks: Vec<VirtualDiskInfo>,
    /// The methods that somebody has locked, by wire name.
    pub disabled_methods: Vec<String>,
}

impl Vim {
    /// Reads everything that a backup plan needs, in one call.
    ///
    /// # Errors
    /// [`Error::Property`](crate::Error::Property) when configuration, runtime or snapshots cannot be read (the machine
    /// is inaccessible or the account may not), `ManagedObjectNotFound` when it is gone.
    ///
    /// # Privileges
    /// `System.Read` on the machine.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn vm_details(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<VmDetails> {
        const TRACKING_SUPPORTED: PropertyPath<mo::VirtualMachine, bool> =
            PropertyPath::new("capability.changeTrackingSupported");
        let selection = (
            mo::VirtualMachine::NAME,
            mo::VirtualMachine::CONFIG,
            mo::VirtualMachine::RUNTIME,
            mo::VirtualMachine::SNAPSHOT,
            TRACKING_SUPPORTED,
            mo::VirtualMachine::DISABLED_METHOD,
        );
        let (name, config, runtime, snapshots, tracking, disabled) = self.read(vm, selection).await?;
        let config = required(vm, "config", config)?;
        let runtime = required(vm, "runtime", runtime)?;
        // None and "not to be read" are not the same: a restore must not write beneath snapshots that it does not see.
        let snapshots = snapshots.optional().map_err(|fault| property_error(vm, "snapshot", *fault))?;
        Ok(VmDetails {
            power_state: PowerState::from(&runtime.power_state),
            connected: runtime.connection_state == VirtualMachineConnectionState::Connected,
            consolidation_needed: runtime.consolidation_needed,
            host: runtime.host,
            hardware_version: hardware_version(&config.version),
            change_tracking_supported: tracking.present().unwrap_or(false),
            change_tracking_enabled: config.change_tracking_enabled.unwrap_or(false),
            is_template: config.template,
            snapshots: snapshots.map(SnapshotTree::from).unwrap_or_default(),
            disks: VirtualDiskInfo::all_of(&config.hardware.device),
            disabled_methods: disabled.present().unwrap_or_default(),
            identity: VmRef {
                moref: vm.clone(),
                name: name.present().unwrap_or_else(|| config.name.clone()),
                instance_uuid: config.instance_uuid.filter(|uuid| !uuid.is_empty()),
                bios_uuid: Some(config.uuid).filter(|uuid| !uuid.is_empty()),
                server_uuid: self.server_uuid().map(str::to_owned),
            },
            guest_id: Some(config.guest_id).filter(|id| !id.is_empty()),
            config_path: Some(config.files.vm_path_name.unwrap_or_default()).filter(|path| !path.is_empty()),
        })
    }
}

/// The number in `vmx-19`.
fn hardware_version(version: &str) -> Option<u32> {
    version.strip_prefix("vmx-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_versions_are_numbers() {
        assert_eq!(hardware_version("vmx-07"), Some(7));
        assert_eq!(hardware_version("vmx-21"), Some(21));
        assert_eq!(hardware_version("next"), None);
    }
}
