//! Run-time state, guest information and the summary of a VM.

use vsphere_vim_types::{
    DateTime, GuestInfo, ManagedEntityStatus, MoRef, VirtualMachineConfigSummary, VirtualMachineConnectionState,
    VirtualMachineFaultToleranceState, VirtualMachineGuestSummary, VirtualMachineQuickStats,
    VirtualMachineRecordReplayState, VirtualMachineRuntimeInfo, VirtualMachineStorageSummary, VirtualMachineSummary,
    VirtualMachineToolsStatus,
};

use crate::personality::Fixed;
use crate::world::World;

use super::config::{files, guest_full_name};
use super::{GuestBehaviour, Power, Vm};

/// `runtime`
pub(crate) fn runtime(world: &World, vm: &Vm) -> VirtualMachineRuntimeInfo {
    VirtualMachineRuntimeInfo {
        host: Some(world.fixed(Fixed::Host).cast()),
        connection_state: VirtualMachineConnectionState::Connected,
        power_state: vm.power.to_wire(),
        fault_tolerance_state: VirtualMachineFaultToleranceState::NotConfigured,
        boot_time: (vm.power == Power::On).then_some(vm.booted),
        max_cpu_usage: Some(2000),
        max_memory_usage: Some(vm.settings.memory_mb),
        record_replay_state: VirtualMachineRecordReplayState::Inactive,
        clean_power_off: (vm.power == Power::Off).then_some(true),
        consolidation_needed: vm.consolidation_needed(),
        ..Default::default()
    }
}

/// `guest`
pub(crate) fn guest(vm: &Vm) -> GuestInfo {
    let running = vm.power == Power::On;
    GuestInfo {
        tools_status: Some(tools_status(vm)),
        tools_version_status2: Some("guestToolsCurrent".into()),
        tools_running_status: Some(tools_running(vm).into()),
        tools_version: Some("12352".into()),
        guest_id: running.then(|| vm.settings.guest_id.clone()),
        guest_family: running.then(|| "linuxGuest".into()),
        guest_full_name: running.then(|| guest_full_name(&vm.settings.guest_id).into()),
        host_name: running.then(|| host_name(vm)),
        ip_address: running.then(|| ip_address(vm)),
        guest_state: if running { "running" } else { "notRunning" }.into(),
        guest_operations_ready: Some(running),
        ..Default::default()
    }
}

/// `summary`
pub(crate) fn summary(world: &World, vm: &Vm) -> VirtualMachineSummary {
    let running = vm.power == Power::On;
    let settings = &vm.settings;
    let capacity: u64 = settings.disks.values().map(|disk| disk.store.capacity()).sum();
    VirtualMachineSummary {
        vm: Some(MoRef::new(&vm.id)),
        runtime: runtime(world, vm),
        guest: Some(VirtualMachineGuestSummary {
            guest_id: running.then(|| settings.guest_id.clone()),
            guest_full_name: running.then(|| guest_full_name(&settings.guest_id).into()),
            tools_status: Some(tools_status(vm)),
            tools_version_status2: Some("guestToolsCurrent".into()),
            tools_running_status: Some(tools_running(vm).into()),
            host_name: running.then(|| host_name(vm)),
            ip_address: running.then(|| ip_address(vm)),
            ..Default::default()
        }),
        config: VirtualMachineConfigSummary {
            name: settings.name.clone(),
            vm_path_name: files(world, vm).vm_path_name.unwrap_or_default(),
            memory_size_mb: Some(settings.memory_mb),
            num_cpu: Some(settings.cpus),
            num_ethernet_cards: Some(1),
            num_virtual_disks: Some(settings.disks.len() as i32),
            uuid: Some(vm.bios_uuid.clone()),
            instance_uuid: Some(vm.instance_uuid.clone()),
            guest_id: Some(settings.guest_id.clone()),
            guest_full_name: Some(guest_full_name(&settings.guest_id).into()),
            annotation: Some(settings.annotation.clone()),
            hw_version: Some(format!("vmx-{:02}", vm.hardware_version)),
            ..Default::default()
        },
        storage: Some(VirtualMachineStorageSummary {
            committed: committed(vm) as i64,
            uncommitted: capacity.saturating_sub(committed(vm)) as i64,
            unshared: committed(vm) as i64,
            timestamp: DateTime::now(),
            ..Default::default()
        }),
        quick_stats: VirtualMachineQuickStats { guest_heartbeat_status: heartbeat(vm), ..Default::default() },
        overall_status: vm.health.clone(),
        ..Default::default()
    }
}

/// `guestHeartbeatStatus`
pub(crate) fn heartbeat(vm: &Vm) -> ManagedEntityStatus {
    if vm.power == Power::On { ManagedEntityStatus::Green } else { ManagedEntityStatus::Gray }
}

/// The guest's DNS name, also for `FindByDnsName`.
pub(crate) fn host_name(vm: &Vm) -> String {
    format!("{}.sim.invalid", vm.folder)
}

/// An address from the documentation range that follows from the VM's number, also for `FindByIp`.
pub(crate) fn ip_address(vm: &Vm) -> String {
    let number: u32 = vm.id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(1);
    format!("198.51.{}.{}", 100 + number / 254 % 100, number % 254 + 1)
}

fn committed(vm: &Vm) -> u64 {
    vm.all_stores().iter().flat_map(|store| store.files()).map(|(_, _, bytes)| bytes).sum()
}

/// Whether VMware Tools answer.
pub(crate) fn has_tools(vm: &Vm) -> bool {
    vm.power == Power::On && vm.guest != GuestBehaviour::NoTools
}

fn tools_status(vm: &Vm) -> VirtualMachineToolsStatus {
    if has_tools(vm) { VirtualMachineToolsStatus::ToolsOk } else { VirtualMachineToolsStatus::ToolsNotRunning }
}

fn tools_running(vm: &Vm) -> &'static str {
    if has_tools(vm) { "guestToolsRunning" } else { "guestToolsNotRunning" }
}
