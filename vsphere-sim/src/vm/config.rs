//! `VirtualMachineConfigInfo` of a VM and of a snapshot, and what the host can do with it.

use vsphere_vim_types::{
    Any, CryptoKeyId, KeyProviderId, OptionValue, Poly, ToolsConfigInfo, VirtualMachineCapability,
    VirtualMachineConfigInfo, VirtualMachineDefaultPowerOpInfo, VirtualMachineFileInfo, VirtualMachineFlagInfo,
};

use crate::world::World;

use super::{Snapshot, Vm};

/// The configuration of the VM, or with `snapshot` as it was then.
pub(crate) fn config(world: &World, vm: &Vm, snapshot: Option<&Snapshot>) -> VirtualMachineConfigInfo {
    let settings = snapshot.map_or(&vm.settings, |snapshot| &snapshot.settings);
    let extra = settings.extra.iter().map(|(key, value)| {
        Poly::new(OptionValue { key: key.clone(), value: Some(Any::String(value.clone())), ..Default::default() })
    });
    VirtualMachineConfigInfo {
        change_version: change_version(vm),
        modified: snapshot.map_or(vm.modified, |snapshot| snapshot.created),
        name: settings.name.clone(),
        guest_full_name: guest_full_name(&settings.guest_id).into(),
        version: format!("vmx-{:02}", vm.hardware_version),
        uuid: vm.bios_uuid.clone(),
        create_date: Some(vm.created),
        instance_uuid: Some(vm.instance_uuid.clone()),
        template: vm.template,
        guest_id: settings.guest_id.clone(),
        alternate_guest_name: String::new(),
        annotation: Some(settings.annotation.clone()),
        files: files(world, vm),
        tools: Some(ToolsConfigInfo {
            tools_version: Some(12352),
            after_power_on: Some(true),
            after_resume: Some(true),
            before_guest_standby: Some(true),
            before_guest_shutdown: Some(true),
            tools_upgrade_policy: Some("manual".into()),
            sync_time_with_host_allowed: Some(true),
            sync_time_with_host: Some(false),
            ..Default::default()
        }),
        flags: VirtualMachineFlagInfo {
            enable_logging: Some(true),
            disk_uuid_enabled: Some(false),
            snapshot_disabled: Some(false),
            snapshot_locked: Some(false),
            virtual_mmu_usage: Some("automatic".into()),
            virtual_exec_usage: Some("hvAuto".into()),
            ..Default::default()
        },
        default_power_ops: VirtualMachineDefaultPowerOpInfo {
            power_off_type: Some("soft".into()),
            suspend_type: Some("hard".into()),
            reset_type: Some("soft".into()),
            default_power_off_type: Some("soft".into()),
            default_suspend_type: Some("hard".into()),
            default_reset_type: Some("soft".into()),
            standby_action: Some("checkpoint".into()),
            ..Default::default()
        },
        hardware: super::hardware::hardware(world, settings, snapshot),
        memory_hot_add_enabled: Some(false),
        cpu_hot_add_enabled: Some(false),
        extra_config: extra.collect(),
        change_tracking_enabled: Some(settings.tracking),
        firmware: Some("bios".into()),
        key_id: settings.key.as_ref().map(|(provider, id)| CryptoKeyId {
            key_id: id.clone(),
            provider_id: Some(KeyProviderId { id: provider.clone(), ..Default::default() }),
            ..Default::default()
        }),
        nested_hv_enabled: Some(false),
        ..Default::default()
    }
}

/// What names the present configuration; a reconfiguration may demand that it is still this one.
pub(crate) fn change_version(vm: &Vm) -> String {
    format!("{}.{}", vm.created.unix_seconds(), vm.revision)
}

/// The path of the configuration file.
pub(crate) fn vmx_path(world: &World, vm: &Vm) -> String {
    let suffix = if vm.template { "vmtx" } else { "vmx" };
    format!("[{}] {}/{}.{suffix}", world.datastore.name(), vm.folder, vm.file_name)
}

/// Where the VM's files lie.
pub(crate) fn files(world: &World, vm: &Vm) -> VirtualMachineFileInfo {
    let folder = format!("[{}] {}/", world.datastore.name(), vm.folder);
    VirtualMachineFileInfo {
        vm_path_name: Some(vmx_path(world, vm)),
        snapshot_directory: Some(folder.clone()),
        suspend_directory: Some(folder.clone()),
        log_directory: Some(folder),
        ..Default::default()
    }
}

/// What can be done with the VM.
pub(crate) fn capability(vm: &Vm) -> VirtualMachineCapability {
    VirtualMachineCapability {
        snapshot_operations_supported: true,
        multiple_snapshots_supported: true,
        snapshot_config_supported: true,
        powered_off_snapshots_supported: true,
        memory_snapshots_supported: true,
        revert_to_snapshot_supported: true,
        quiesced_snapshots_supported: true,
        // Hardware version 7 is the first with change tracking.
        change_tracking_supported: vm.hardware_version >= 7,
        boot_options_supported: true,
        ..Default::default()
    }
}

/// The name that goes with a guest id.
pub(crate) fn guest_full_name(guest_id: &str) -> &'static str {
    match guest_id {
        "otherLinux64Guest" => "Other Linux (64-bit)",
        "ubuntu64Guest" => "Ubuntu Linux (64-bit)",
        "windows2019srv_64Guest" => "Microsoft Windows Server 2019 (64-bit)",
        _ => "Other (64-bit)",
    }
}
