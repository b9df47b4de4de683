//! What the endpoint claims to be, and the names that come with it.

use vsphere_vim_types::{AboutInfo, ManagedObjectReference};

/// Which server the simulator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Personality {
    /// A vCenter with one ESXi host.
    #[default]
    VCenter,
    /// A bare ESXi host.
    Esxi,
}

/// The managed objects that always exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fixed {
    RootFolder,
    Datacenter,
    VmFolder,
    HostFolder,
    DatastoreFolder,
    NetworkFolder,
    ComputeResource,
    Host,
    ResourcePool,
    Datastore,
    Network,
    ServiceInstance,
    PropertyCollector,
    ViewManager,
    SessionManager,
    SearchIndex,
    TaskManager,
    AuthorizationManager,
    NfcService,
    FileManager,
    DatastoreBrowser,
    VcenterDisks,
    HostDisks,
    EventManager,
    AlarmManager,
    VirtualDiskManager,
}

use Fixed::{
    AlarmManager, AuthorizationManager, ComputeResource, Datacenter, Datastore, DatastoreBrowser, DatastoreFolder,
    EventManager, FileManager, Host, HostDisks, HostFolder, Network, NetworkFolder, NfcService, PropertyCollector,
    ResourcePool, RootFolder, SearchIndex, ServiceInstance, SessionManager, TaskManager, VcenterDisks, ViewManager,
    VirtualDiskManager, VmFolder,
};

/// Every fixed object: type, id on vCenter, id on ESXi, name on vCenter, name on ESXi.
const FIXED: [(Fixed, &str, [&str; 2], [&str; 2]); 26] = [
    (RootFolder, "Folder", ["group-d1", "ha-folder-root"], ["Datacenters", "ha-folder-root"]),
    (Datacenter, "Datacenter", ["datacenter-2", "ha-datacenter"], ["dc1", "ha-datacenter"]),
    (VmFolder, "Folder", ["group-v3", "ha-folder-vm"], ["vm", "vm"]),
    (HostFolder, "Folder", ["group-h4", "ha-folder-host"], ["host", "host"]),
    (DatastoreFolder, "Folder", ["group-s5", "ha-folder-datastore"], ["datastore", "datastore"]),
    (NetworkFolder, "Folder", ["group-n6", "ha-folder-network"], ["network", "network"]),
    (
        ComputeResource,
        "ComputeResource",
        ["domain-s7", "ha-compute-res"],
        ["esx1.sim.invalid", "localhost.localdomain"],
    ),
    (Host, "HostSystem", ["host-8", "ha-host"], ["esx1.sim.invalid", "localhost.localdomain"]),
    (ResourcePool, "ResourcePool", ["resgroup-9", "ha-root-pool"], ["Resources", "Resources"]),
    (Datastore, "Datastore", ["datastore-10", "5f000000-00000000-0000-000000000000"], ["ds1", "ds1"]),
    (Network, "Network", ["network-11", "HaNetwork-VM Network"], ["VM Network", "VM Network"]),
    (ServiceInstance, "ServiceInstance", ["ServiceInstance", "ServiceInstance"], ["", ""]),
    (PropertyCollector, "PropertyCollector", ["propertyCollector", "ha-property-collector"], ["", ""]),
    (ViewManager, "ViewManager", ["ViewManager", "ViewManager"], ["", ""]),
    (SessionManager, "SessionManager", ["SessionManager", "ha-sessionmgr"], ["", ""]),
    (SearchIndex, "SearchIndex", ["SearchIndex", "ha-searchindex"], ["", ""]),
    (TaskManager, "TaskManager", ["TaskManager", "ha-taskmgr"], ["", ""]),
    (AuthorizationManager, "AuthorizationManager", ["AuthorizationManager", "ha-authmgr"], ["", ""]),
    (NfcService, "NfcService", ["nfcService", "ha-nfc-service"], ["", ""]),
    (FileManager, "FileManager", ["FileManager", "ha-nfc-file-manager"], ["", ""]),
    (DatastoreBrowser, "HostDatastoreBrowser", ["datastoreBrowser-datastore-10", "datastoreBrowser-ds1"], ["", ""]),
    // Each of the two servers has one of them; its services refuse the other.
    (VcenterDisks, "VcenterVStorageObjectManager", ["VStorageObjectManager", "VStorageObjectManager"], ["", ""]),
    (HostDisks, "HostVStorageObjectManager", ["ha-vstorage-object-manager", "ha-vstorage-object-manager"], ["", ""]),
    (EventManager, "EventManager", ["EventManager", "ha-eventmgr"], ["", ""]),
    // vCenter's; its service refuses on a host.
    (AlarmManager, "AlarmManager", ["AlarmManager", "AlarmManager"], ["", ""]),
    (VirtualDiskManager, "VirtualDiskManager", ["virtualDiskManager", "ha-vdiskmanager"], ["", ""]),
];

/// The versions offered, newest first.
const VERSIONS: [&str; 19] = [
    "8.0.3.0", "8.0.2.0", "8.0.1.0", "8.0.0.2", "8.0.0.1", "8.0.0.0", "7.0.3.2", "7.0.3.0", "7.0.2.0", "7.0.1.0",
    "7.0.0.0", "6.7.3", "6.7", "6.5", "6.0", "5.5", "5.1", "5.0", "4.1",
];

impl Personality {
    /// The reference of a fixed object.
    pub(crate) fn fixed(self, object: Fixed) -> ManagedObjectReference {
        let (_, kind, ids, _) = row(object);
        ManagedObjectReference::of(kind, ids[self.column()])
    }

    /// The name of a fixed inventory object.
    pub(crate) fn name(self, object: Fixed) -> &'static str {
        row(object).3[self.column()]
    }

    /// The fixed object behind a reference.
    pub(crate) fn find(self, object: &ManagedObjectReference) -> Option<Fixed> {
        FIXED
            .iter()
            .find(|(_, kind, ids, _)| ids[self.column()] == object.value() && *kind == object.type_name())
            .map(|(fixed, ..)| *fixed)
    }

    /// The service whose name a 902 ticket carries.
    pub(crate) fn nfc_service(self) -> &'static str {
        match self {
            Personality::VCenter => "vpxa-nfc",
            Personality::Esxi => "nfc",
        }
    }

    pub(crate) fn about(self) -> AboutInfo {
        let (name, line, api) = match self {
            Personality::VCenter => ("VMware vCenter Server", "vpx", "VirtualCenter"),
            Personality::Esxi => ("VMware ESXi", "embeddedEsx", "HostAgent"),
        };
        AboutInfo {
            name: name.into(),
            full_name: format!("{name} 8.0.3 build-0 (simulated by vsphere-sim)"),
            vendor: "VMware, Inc.".into(),
            version: "8.0.3".into(),
            build: "0".into(),
            os_type: "linux-x64".into(),
            product_line_id: line.into(),
            api_type: api.into(),
            api_version: "8.0.3.0".into(),
            instance_uuid: (self == Personality::VCenter).then(|| crate::ids::uuid_of("vsphere-sim")),
            ..Default::default()
        }
    }

    /// `/sdk/vimServiceVersions.xml`.
    pub(crate) fn versions_xml(self) -> String {
        let prior: String = VERSIONS[1..].iter().map(|version| format!("<version>{version}</version>")).collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\n<namespaces version=\"1.0\"><namespace><name>urn:vim25</name><version>{}</version><priorVersions>{prior}</priorVersions></namespace></namespaces>\n",
            VERSIONS[0]
        )
    }

    fn column(self) -> usize {
        match self {
            Personality::VCenter => 0,
            Personality::Esxi => 1,
        }
    }
}

fn row(object: Fixed) -> &'static (Fixed, &'static str, [&'static str; 2], [&'static str; 2]) {
    FIXED.iter().find(|(fixed, ..)| *fixed == object).expect("the table lists every fixed object; a test checks it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_so_every_object_is_listed() {
        assert!(FIXED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(FIXED.last().unwrap().0, Fixed::VirtualDiskManager);
        for personality in [Personality::VCenter, Personality::Esxi] {
            for (fixed, ..) in FIXED {
                assert_eq!(personality.find(&personality.fixed(fixed)), Some(fixed));
            }
        }
    }
}
