//! Properties of the objects that always exist.

use vsphere_vim_types::{
    Any, ComputeResourceSummary, DatastoreCapability, DatastoreInfo, DatastoreSummary, DateTime, HostConfigSummary,
    HostHardwareSummary, HostListSummary, HostRuntimeInfo, HostSystemConnectionState, HostSystemPowerState,
    ManagedEntityStatus, NetworkSummary, Poly, ResourcePoolRuntimeInfo, ServiceContent, VmfsDatastoreInfo,
};

use crate::collector::Collector;
use crate::personality::{Fixed, Personality};
use crate::world::{State, World};

use super::{children, references, vms};

/// Size and free space that the datastore claims, in bytes.
const DATASTORE: (i64, i64) = (64 << 40, 63 << 40);
/// Memory that the host claims, in bytes.
const HOST_MEMORY: i64 = 64 << 30;

/// A property other than those of every inventory object.
pub(super) fn property(world: &World, state: &State, session: Option<&str>, object: Fixed, name: &str) -> Any {
    let one = |other: Fixed| Any::MoRef(world.fixed(other));
    let list = |other: Fixed| references(vec![world.fixed(other)]);
    match (object, name) {
        (Fixed::RootFolder, "childType") => strings(&["Folder", "Datacenter"]),
        (Fixed::VmFolder, "childType") => strings(&["Folder", "VirtualMachine", "VirtualApp"]),
        (Fixed::HostFolder, "childType") => strings(&["Folder", "ComputeResource"]),
        (Fixed::DatastoreFolder, "childType") => strings(&["Folder", "Datastore", "StoragePod"]),
        (Fixed::NetworkFolder, "childType") => strings(&["Folder", "Network", "DistributedVirtualSwitch"]),
        (
            Fixed::RootFolder | Fixed::VmFolder | Fixed::HostFolder | Fixed::DatastoreFolder | Fixed::NetworkFolder,
            "childEntity",
        ) => references(children(world, state, &world.fixed(object))),
        (Fixed::Datacenter, "vmFolder") => one(Fixed::VmFolder),
        (Fixed::Datacenter, "hostFolder") => one(Fixed::HostFolder),
        (Fixed::Datacenter, "datastoreFolder") => one(Fixed::DatastoreFolder),
        (Fixed::Datacenter, "networkFolder") => one(Fixed::NetworkFolder),
        (Fixed::Datacenter | Fixed::ComputeResource | Fixed::Host, "datastore") => list(Fixed::Datastore),
        (Fixed::Datacenter | Fixed::ComputeResource | Fixed::Host, "network") => list(Fixed::Network),
        (Fixed::ComputeResource, "resourcePool") => one(Fixed::ResourcePool),
        (Fixed::ComputeResource | Fixed::Network, "host") => list(Fixed::Host),
        (Fixed::ComputeResource, "summary") => Any::of(&compute_summary()),
        (Fixed::ResourcePool, "owner") => one(Fixed::ComputeResource),
        (Fixed::ResourcePool, "runtime") => {
            Any::of(&ResourcePoolRuntimeInfo { overall_status: ManagedEntityStatus::Green, ..Default::default() })
        }
        (Fixed::ResourcePool, "resourcePool") => references(super::container::vapps_of(state, &world.fixed(object))),
        (Fixed::ResourcePool, "vm") => {
            let direct = |vm: &&crate::vm::Vm| !vm.template && vm.parent.type_name() != "VirtualApp";
            references(state.vms.values().filter(direct).map(crate::vm::Vm::reference).collect())
        }
        (Fixed::Host | Fixed::Datastore | Fixed::Network, "vm") => references(vms(state)),
        (Fixed::Host, "runtime") => Any::of(&host_runtime()),
        (Fixed::Host, "summary") => Any::of(&host_summary(world)),
        (Fixed::Datastore, "info") => Any::of(&datastore_info(world)),
        (Fixed::Datastore, "summary") => Any::of(&datastore_summary(world)),
        (Fixed::Datastore | Fixed::Host, "browser" | "datastoreBrowser") => {
            Any::MoRef(crate::service::files::browser(world))
        }
        (Fixed::DatastoreBrowser, "datastore") => list(Fixed::Datastore),
        (Fixed::Datastore, "capability") => Any::of(&DatastoreCapability {
            directory_hierarchy_supported: true,
            per_file_thin_provisioning_supported: true,
            se_sparse_supported: Some(true),
            ..Default::default()
        }),
        (Fixed::Network, "summary") => Any::of(&NetworkSummary {
            network: Some(world.fixed(Fixed::Network).cast()),
            name: world.personality().name(Fixed::Network).into(),
            accessible: true,
            ..Default::default()
        }),
        (Fixed::ServiceInstance, "content") => Any::of(&content(world)),
        (Fixed::ServiceInstance, "serverClock") => Any::DateTime(DateTime::now()),
        (Fixed::SessionManager, "currentSession") => {
            let own = session.and_then(|key| state.sessions.get(key).map(|session| session.to_wire(key)));
            own.as_ref().map_or(Any::Null, Any::of)
        }
        (Fixed::SessionManager, "sessionList") => {
            Any::of(&state.sessions.all().map(|(key, session)| session.to_wire(key)).collect::<Vec<_>>())
        }
        (Fixed::PropertyCollector, "filter") => {
            let session = session.and_then(|key| state.sessions.get(key));
            let common = world.fixed(object);
            session
                .and_then(|session| session.collectors.get(common.value()))
                .map_or(Any::Null, Collector::filter_references)
        }
        (Fixed::SessionManager, "message") => Any::String(String::new()),
        (Fixed::SessionManager, "defaultLocale") => Any::String("en".into()),
        (Fixed::TaskManager, "recentTask") => {
            references(state.tasks.values().map(crate::task::Task::reference).collect())
        }
        (Fixed::EventManager, "maxCollector") => Any::Int(crate::service::MAX_EVENT_COLLECTORS),
        (Fixed::TaskManager, "maxCollector") => Any::Int(32),
        (Fixed::ViewManager, "viewList") => {
            let views = session
                .and_then(|key| state.sessions.get(key))
                .map(|session| session.views.keys().cloned().collect::<Vec<_>>());
            references(
                views
                    .unwrap_or_default()
                    .iter()
                    .map(|id| vsphere_vim_types::ManagedObjectReference::of("ContainerView", id))
                    .collect(),
            )
        }
        _ => Any::Null,
    }
}

/// `ServiceContent`: where everything begins.
pub(crate) fn content(world: &World) -> ServiceContent {
    ServiceContent {
        root_folder: world.fixed(Fixed::RootFolder).cast(),
        property_collector: world.fixed(Fixed::PropertyCollector).cast(),
        view_manager: Some(world.fixed(Fixed::ViewManager).cast()),
        about: world.personality().about(),
        session_manager: Some(world.fixed(Fixed::SessionManager).cast()),
        authorization_manager: Some(world.fixed(Fixed::AuthorizationManager).cast()),
        search_index: Some(world.fixed(Fixed::SearchIndex).cast()),
        file_manager: Some(world.fixed(Fixed::FileManager).cast()),
        virtual_disk_manager: Some(world.fixed(Fixed::VirtualDiskManager).cast()),
        task_manager: Some(world.fixed(Fixed::TaskManager).cast()),
        alarm_manager: match world.personality() {
            Personality::VCenter => Some(world.fixed(Fixed::AlarmManager).cast()),
            Personality::Esxi => None,
        },
        event_manager: Some(world.fixed(Fixed::EventManager).cast()),
        v_storage_object_manager: Some(world.fixed(disks(world.personality())).cast()),
        ..Default::default()
    }
}

/// The manager of First Class Disks that a server has.
fn disks(personality: Personality) -> Fixed {
    match personality {
        Personality::VCenter => Fixed::VcenterDisks,
        Personality::Esxi => Fixed::HostDisks,
    }
}

fn strings(values: &[&str]) -> Any {
    Any::of(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
}

fn compute_summary() -> Poly<ComputeResourceSummary> {
    Poly::new(ComputeResourceSummary {
        total_cpu: 16_000,
        total_memory: HOST_MEMORY,
        num_cpu_cores: 8,
        num_cpu_threads: 16,
        effective_cpu: 15_000,
        effective_memory: HOST_MEMORY >> 20,
        num_hosts: 1,
        num_effective_hosts: 1,
        overall_status: ManagedEntityStatus::Green,
        ..Default::default()
    })
}

fn host_runtime() -> HostRuntimeInfo {
    HostRuntimeInfo {
        connection_state: HostSystemConnectionState::Connected,
        power_state: HostSystemPowerState::PoweredOn,
        in_maintenance_mode: false,
        in_quarantine_mode: Some(false),
        ..Default::default()
    }
}

fn host_summary(world: &World) -> HostListSummary {
    let thumbprint = world.nfc.get().map(|(_, thumbprint)| thumbprint.clone());
    HostListSummary {
        host: Some(world.fixed(Fixed::Host).cast()),
        hardware: Some(HostHardwareSummary {
            vendor: "vsphere-sim".into(),
            model: "simulated host".into(),
            uuid: crate::ids::uuid_of("vsphere-sim host"),
            memory_size: HOST_MEMORY,
            cpu_model: "simulated".into(),
            cpu_mhz: 2000,
            num_cpu_pkgs: 1,
            num_cpu_cores: 8,
            num_cpu_threads: 16,
            num_nics: 1,
            ..Default::default()
        }),
        runtime: Some(host_runtime()),
        config: HostConfigSummary {
            name: world.personality().name(Fixed::Host).into(),
            port: 443,
            ssl_thumbprint: thumbprint,
            product: Some(Personality::Esxi.about()),
            vmotion_enabled: true,
            ..Default::default()
        },
        overall_status: ManagedEntityStatus::Green,
        ..Default::default()
    }
}

fn datastore_url() -> String {
    format!("ds:///vmfs/volumes/{}/", crate::ids::uuid_of("vsphere-sim datastore"))
}

fn datastore_info(world: &World) -> Poly<DatastoreInfo> {
    let base = DatastoreInfo {
        name: world.datastore.name().into(),
        url: datastore_url(),
        free_space: DATASTORE.1,
        max_file_size: 62 << 40,
        max_virtual_disk_capacity: Some(62 << 40),
        max_memory_file_size: 62 << 40,
        timestamp: Some(DateTime::now()),
        ..Default::default()
    };
    Poly::new(VmfsDatastoreInfo {
        max_physical_rdm_file_size: 64 << 40,
        max_virtual_rdm_file_size: 62 << 40,
        base,
        ..Default::default()
    })
}

fn datastore_summary(world: &World) -> DatastoreSummary {
    DatastoreSummary {
        datastore: Some(world.fixed(Fixed::Datastore).cast()),
        name: world.datastore.name().into(),
        url: datastore_url(),
        capacity: DATASTORE.0,
        free_space: DATASTORE.1,
        uncommitted: Some(0),
        accessible: true,
        multiple_host_access: Some(false),
        type_: if world.settings.files.object_storage { "vsan" } else { "VMFS" }.into(),
        maintenance_mode: Some("normal".into()),
        ..Default::default()
    }
}
