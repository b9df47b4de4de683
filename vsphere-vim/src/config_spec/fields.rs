//! The fields of a configuration, one by one.

use std::collections::BTreeMap;

use vsphere_vim_types::{
    Poly, ScheduledHardwareUpgradeInfo, ToolsConfigInfo, VirtualDeviceConfigSpec, VirtualHardware,
    VirtualMachineBootOptions, VirtualMachineBootOptionsBootableDiskDevice,
    VirtualMachineBootOptionsBootableEthernetDevice, VirtualMachineConfigInfo, VirtualMachineConfigSpec,
    VirtualMachineCpuIdInfoSpec, VirtualMachineDefaultPowerOpInfo, VirtualMachineFileInfo, VirtualMachineFlagInfo,
    VirtualMachineVirtualNuma,
};

use super::{
    extra,
    note::Notes,
    options::{BootOrder, Identity, Options},
    vapp,
};
use crate::device::DeviceKey;

/// What becomes of a field of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFate {
    /// It is written as it was.
    Carried,
    /// It is written in another form, or in part.
    Converted(&'static str),
    /// It is left out.
    Dropped(&'static str),
}

use FieldFate::{Carried, Converted, Dropped};

/// Every field of `VirtualMachineConfigInfo`, by its wire name, with what becomes of it.
pub const FIELDS: &[(&str, FieldFate)] = &[
    ("changeVersion", Dropped("names a state of the old machine")),
    ("modified", Dropped("when the old machine was changed")),
    ("name", Converted("or the new name")),
    ("guestFullName", Dropped("follows from guestId")),
    ("version", Carried),
    ("uuid", Converted("when the identity is kept")),
    ("createDate", Converted("when the identity is kept")),
    ("instanceUuid", Converted("when the identity is kept")),
    ("npivNodeWorldWideName", Converted("when the identity is kept")),
    ("npivPortWorldWideName", Converted("when the identity is kept")),
    ("npivWorldWideNameType", Converted("when the identity is kept and there are names")),
    ("npivDesiredNodeWwns", Carried),
    ("npivDesiredPortWwns", Carried),
    ("npivTemporaryDisabled", Carried),
    ("npivOnNonRdmDisks", Carried),
    ("locationId", Dropped("a hash of the old machine's path")),
    ("template", Dropped("a machine becomes a template by its own call")),
    ("guestId", Carried),
    ("alternateGuestName", Converted("when it is not empty")),
    ("annotation", Carried),
    ("files", Converted("the new datastore or path; directories outside the machine's own stay")),
    ("tools", Converted("the policies; not the installed version, nor pending customizations")),
    ("flags", Converted("all but record/replay and the fault tolerance type")),
    ("consolePreferences", Carried),
    ("defaultPowerOps", Converted("powerOpInfo, without the host's defaults")),
    ("rebootPowerOff", Carried),
    ("hardware", Converted("the numbers one by one, the devices as additions")),
    ("vcpuConfig", Carried),
    ("cpuAllocation", Carried),
    ("memoryAllocation", Carried),
    ("latencySensitivity", Carried),
    ("memoryHotAddEnabled", Carried),
    ("cpuHotAddEnabled", Carried),
    ("cpuHotRemoveEnabled", Carried),
    ("hotPlugMemoryLimit", Dropped("computed by the server")),
    ("hotPlugMemoryIncrementSize", Dropped("computed by the server")),
    ("cpuAffinity", Carried),
    ("memoryAffinity", Carried),
    ("networkShaper", Carried),
    ("extraConfig", Converted("all but the keys that the server writes for itself")),
    ("cpuFeatureMask", Converted("each entry as an addition")),
    ("datastoreUrl", Dropped("the paths of the old host")),
    ("swapPlacement", Carried),
    ("bootOptions", Converted("the boot order as chosen")),
    ("ftInfo", Dropped("ties the old machine to its double")),
    ("repConfig", Dropped("names the replication of the old machine")),
    ("vAppConfig", Converted("each entry as an addition")),
    ("vAssertsEnabled", Carried),
    ("changeTrackingEnabled", Carried),
    ("firmware", Carried),
    ("maxMksConnections", Carried),
    ("guestAutoLockEnabled", Carried),
    ("managedBy", Carried),
    ("memoryReservationLockedToMax", Carried),
    ("initialOverhead", Dropped("computed by the server")),
    ("nestedHVEnabled", Carried),
    ("vPMCEnabled", Carried),
    ("scheduledHardwareUpgradeInfo", Converted("the policy, not how the last try ended")),
    ("forkConfigInfo", Dropped("tells of the old machine's instant clones")),
    ("vFlashCacheReservation", Dropped("follows from the disks")),
    ("vmxConfigChecksum", Dropped("of the old configuration file")),
    ("messageBusTunnelEnabled", Carried),
    ("vmStorageObjectId", Dropped("the old object on vSAN")),
    ("swapStorageObjectId", Dropped("the old object on vSAN")),
    ("keyId", Dropped("the key that the old machine was encrypted with")),
    ("guestIntegrityInfo", Dropped("measured in the running guest")),
    ("migrateEncryption", Carried),
    ("sgxInfo", Carried),
    ("contentLibItemInfo", Dropped("where the old machine was deployed from")),
    ("ftEncryptionMode", Carried),
    ("guestMonitoringModeInfo", Carried),
    ("sevEnabled", Carried),
    ("numaInfo", Converted("virtualNuma, where it is not automatic")),
    ("pmemFailoverEnabled", Carried),
    ("vmxStatsCollectionEnabled", Carried),
    ("vmOpNotificationToAppEnabled", Carried),
    ("vmOpNotificationTimeout", Carried),
    ("deviceSwap", Dropped("tells of a swap that the old machine went through")),
    ("pmem", Carried),
    ("deviceGroups", Carried),
    ("fixedPassthruHotPlugEnabled", Carried),
    ("metroFtEnabled", Dropped("ties the old machine to its double")),
    ("vmxRuntimeConfig", Dropped("of the running machine")),
    ("metroFtHostGroup", Dropped("ties the old machine to its double")),
    ("tdxEnabled", Carried),
    ("sevSnpEnabled", Carried),
    ("guestArchitecture", Dropped("follows from guestId")),
];

/// Writes every field where it belongs.
///
/// Both structs are named field by field: a field that a newer model brings does not compile until somebody has
/// decided what becomes of it.
pub(super) fn carry(
    info: &VirtualMachineConfigInfo,
    options: &Options,
    files: VirtualMachineFileInfo,
    device_change: Vec<Poly<VirtualDeviceConfigSpec>>,
    keys: &BTreeMap<DeviceKey, DeviceKey>,
    notes: &mut Notes,
) -> VirtualMachineConfigSpec {
    remark(info, options, notes);
    let info = info.clone();
    let same = options.identity == Identity::Keep;
    let named = !info.npiv_node_world_wide_name.is_empty() || !info.npiv_port_world_wide_name.is_empty();
    let VirtualHardware {
        num_cpu,
        num_cores_per_socket,
        auto_cores_per_socket,
        memory_mb,
        virtual_ich7_m_present,
        virtual_smc_present,
        device: _,
        motherboard_layout,
        simultaneous_threads,
        unknown: _,
    } = info.hardware;
    VirtualMachineConfigSpec {
        change_version: None,
        name: Some(options.name.clone().unwrap_or(info.name)).filter(|name| !name.is_empty()),
        version: text(info.version),
        create_date: info.create_date.filter(|_| same),
        uuid: text(info.uuid).filter(|_| same),
        instance_uuid: info.instance_uuid.and_then(text).filter(|_| same),
        npiv_node_world_wide_name: if same { info.npiv_node_world_wide_name } else { Vec::new() },
        npiv_port_world_wide_name: if same { info.npiv_port_world_wide_name } else { Vec::new() },
        npiv_world_wide_name_type: info.npiv_world_wide_name_type.filter(|_| same && named),
        npiv_desired_node_wwns: info.npiv_desired_node_wwns,
        npiv_desired_port_wwns: info.npiv_desired_port_wwns,
        npiv_temporary_disabled: info.npiv_temporary_disabled,
        npiv_on_non_rdm_disks: info.npiv_on_non_rdm_disks,
        npiv_world_wide_name_op: None,
        location_id: None,
        guest_id: text(info.guest_id),
        alternate_guest_name: text(info.alternate_guest_name),
        annotation: info.annotation,
        files: Some(files),
        tools: info.tools.map(tools),
        flags: Some(flags(info.flags)),
        console_preferences: info.console_preferences,
        power_op_info: Some(power_operations(info.default_power_ops)),
        reboot_power_off: info.reboot_power_off,
        num_cpus: Some(num_cpu).filter(|cpus| *cpus > 0),
        vcpu_config: info.vcpu_config,
        // Set by the server, it is not a wish of anybody's.
        num_cores_per_socket: num_cores_per_socket.filter(|_| auto_cores_per_socket != Some(true)),
        memory_mb: Some(i64::from(memory_mb)).filter(|megabytes| *megabytes > 0),
        memory_hot_add_enabled: info.memory_hot_add_enabled,
        cpu_hot_add_enabled: info.cpu_hot_add_enabled,
        cpu_hot_remove_enabled: info.cpu_hot_remove_enabled,
        virtual_ich7_m_present,
        virtual_smc_present,
        device_change,
        cpu_allocation: info.cpu_allocation,
        memory_allocation: info.memory_allocation,
        latency_sensitivity: info.latency_sensitivity,
        cpu_affinity: info.cpu_affinity,
        memory_affinity: info.memory_affinity,
        network_shaper: info.network_shaper,
        cpu_feature_mask: info
            .cpu_feature_mask
            .into_iter()
            .map(|mask| VirtualMachineCpuIdInfoSpec { info: Some(mask), base: vapp::add() })
            .collect(),
        extra_config: info
            .extra_config
            .into_iter()
            .filter(|option| extra::owned_by_server(&option.key).is_none())
            .collect(),
        swap_placement: info.swap_placement,
        boot_options: info.boot_options.map(|boot| boot_options(boot, options, keys, notes)),
        vapp_config: info.vapp_config.filter(|_| !options.without_vapp).map(|vapp| Poly::new(vapp::spec(&vapp))),
        ft_info: None,
        rep_config: None,
        vapp_config_removed: None,
        v_asserts_enabled: info.v_asserts_enabled,
        change_tracking_enabled: info.change_tracking_enabled,
        firmware: info.firmware,
        max_mks_connections: info.max_mks_connections,
        guest_auto_lock_enabled: info.guest_auto_lock_enabled,
        managed_by: info.managed_by,
        memory_reservation_locked_to_max: info.memory_reservation_locked_to_max,
        nested_hv_enabled: info.nested_hv_enabled,
        v_pmc_enabled: info.v_pmc_enabled,
        scheduled_hardware_upgrade_info: info.scheduled_hardware_upgrade_info.map(|planned| {
            ScheduledHardwareUpgradeInfo { scheduled_hardware_upgrade_status: None, fault: None, ..planned }
        }),
        vm_profile: Vec::new(),
        message_bus_tunnel_enabled: info.message_bus_tunnel_enabled,
        crypto: None,
        migrate_encryption: info.migrate_encryption,
        sgx_info: info.sgx_info,
        ft_encryption_mode: info.ft_encryption_mode,
        guest_monitoring_mode_info: info.guest_monitoring_mode_info,
        sev_enabled: info.sev_enabled,
        virtual_numa: info.numa_info.map(|numa| VirtualMachineVirtualNuma {
            cores_per_numa_node: numa.cores_per_numa_node.filter(|_| numa.auto_cores_per_numa_node != Some(true)),
            expose_vnuma_on_cpu_hotadd: numa.vnuma_on_cpu_hotadd_exposed,
            ..Default::default()
        }),
        motherboard_layout,
        pmem_failover_enabled: info.pmem_failover_enabled,
        vmx_stats_collection_enabled: info.vmx_stats_collection_enabled,
        vm_op_notification_to_app_enabled: info.vm_op_notification_to_app_enabled,
        vm_op_notification_timeout: info.vm_op_notification_timeout,
        device_swap: None,
        simultaneous_threads,
        pmem: info.pmem,
        device_groups: info.device_groups,
        fixed_passthru_hot_plug_enabled: info.fixed_passthru_hot_plug_enabled,
        metro_ft_enabled: None,
        metro_ft_host_group: None,
        tdx_enabled: info.tdx_enabled,
        sev_snp_enabled: info.sev_snp_enabled,
        tag_specs: Vec::new(),
        vm_placement_policies: Vec::new(),
        unknown: if options.unknown_fields { info.unknown } else { Default::default() },
    }
}

/// Says what a reader of the new machine would miss.
fn remark(info: &VirtualMachineConfigInfo, options: &Options, notes: &mut Notes) {
    if info.template {
        notes.warn("template", "the old one was a template: mark the new machine as one when it is complete");
    }
    if info.key_id.is_some() {
        notes.warn("keyId", "the machine was encrypted; the new one is not, unless a storage policy says so");
    }
    if info.ft_info.is_some() {
        notes.warn("ftInfo", "the machine was fault tolerant; the new one is not");
    }
    if info.rep_config.is_some() {
        notes.warn("repConfig", "the machine was replicated; the new one is not");
    }
    if info.firmware.as_deref() == Some("efi") {
        notes
            .info("firmware", "boot entries and Secure Boot variables are in the NVRAM file, not in the configuration");
    }
    if info.managed_by.is_some() {
        notes.info("managedBy", "names an extension of the old vCenter");
    }
    for (what, affinity) in [("cpuAffinity", &info.cpu_affinity), ("memoryAffinity", &info.memory_affinity)] {
        if affinity.as_ref().is_some_and(|affinity| !affinity.affinity_set.is_empty()) {
            notes.warn(what, "numbers processors or nodes of the old host");
        }
    }
    if options.without_vapp && info.vapp_config.is_some() {
        notes.info("vAppConfig", "left out, as was asked for");
    }
    for option in &info.extra_config {
        if let Some(why) = extra::owned_by_server(&option.key) {
            notes.info("extraConfig", format!("{} was left out: {why}", option.key));
        }
    }
    let unknown = info.unknown.elements().iter().chain(info.hardware.unknown.elements());
    for element in unknown.filter(|_| !options.unknown_fields) {
        notes.warn(element.name(), "is unknown to this version and was left out");
    }
}

fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn tools(tools: ToolsConfigInfo) -> ToolsConfigInfo {
    ToolsConfigInfo {
        tools_version: None,
        tools_install_type: None,
        pending_customization: None,
        customization_key_id: None,
        last_install_info: None,
        ..tools
    }
}

fn flags(flags: VirtualMachineFlagInfo) -> VirtualMachineFlagInfo {
    VirtualMachineFlagInfo { record_replay_enabled: None, fault_tolerance_type: None, ..flags }
}

fn power_operations(operations: VirtualMachineDefaultPowerOpInfo) -> VirtualMachineDefaultPowerOpInfo {
    VirtualMachineDefaultPowerOpInfo {
        default_power_off_type: None,
        default_suspend_type: None,
        default_reset_type: None,
        ..operations
    }
}

/// The boot order names devices; those that are left out cannot be booted from.
fn boot_options(
    mut boot: VirtualMachineBootOptions,
    options: &Options,
    keys: &BTreeMap<DeviceKey, DeviceKey>,
    notes: &mut Notes,
) -> VirtualMachineBootOptions {
    if options.boot_order == BootOrder::LeaveOut {
        boot.boot_order.clear();
        return boot;
    }
    boot.boot_order.retain_mut(|device| {
        let key = if let Some(disk) = device.downcast_mut::<VirtualMachineBootOptionsBootableDiskDevice>() {
            &mut disk.device_key
        } else if let Some(card) = device.downcast_mut::<VirtualMachineBootOptionsBootableEthernetDevice>() {
            &mut card.device_key
        } else {
            return true;
        };
        let new = keys.get(&DeviceKey(*key));
        match new {
            None => notes.warn("bootOptions.bootOrder", format!("device {key} is not there to boot from")),
            Some(new) if options.boot_order == BootOrder::NewKeys => *key = new.0,
            Some(_) => {}
        }
        new.is_some()
    });
    boot
}
