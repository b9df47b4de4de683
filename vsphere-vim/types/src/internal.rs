//! Methods that the public model leaves out and that vSphere servers answer.
//!
//! Tickets for the disk service on port 902, and the method locks with which a backup keeps a virtual machine
//! in its place. Names and argument order come from captures of others; nothing here was run against a real
//! server by this project.

use crate::rt::{ApiVersion, Element, Managed, ManagedObjectReference, Method, MoRef, Unknown, data_object};
use crate::{HostServiceTicket, mo};

/// The service that gives tickets for network file copy. Found through [`RetrieveInternalContent`].
#[derive(Debug, Clone, Copy)]
pub enum NfcService {}

impl Managed for NfcService {
    const TYPE: &'static str = "NfcService";
    const BASES: &'static [&'static str] = &[];
}

const VIM: &str = "urn:vim25";
const INTERNAL: &str = "urn:internalvim25";

macro_rules! method {
    ($(#[$doc:meta])* $name:ident($target:ty, $namespace:expr) -> $output:ty, $returns:literal;
     $($(#[$fdoc:meta])* $field:ident: $type:ty = $wire:literal $declared:literal),* $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            /// Arguments beyond this model.
            pub unknown: Unknown,
        }
        data_object! { $name, stringify!($name), stringify!($name), [0, 0, 0, 0];
            $($field: $wire $declared [0, 0, 0, 0] public,)* }
        impl Method for $name {
            const NAME: &'static str = stringify!($name);
            const NAMESPACE: &'static str = $namespace;
            const ANSWER_NAMESPACE: &'static str = VIM;
            const SINCE: ApiVersion = ApiVersion::new(0, 0, 0, 0);
            const RETURNS: &'static str = $returns;
            type Target = $target;
            type Output = $output;
        }
    };
}

method! {
    /// Finds the services that the public content leaves out; `nfcService` among the answer's children.
    RetrieveInternalContent(mo::ServiceInstance, VIM) -> InternalContent, "InternalServiceInstanceContent";
}

method! {
    /// A ticket to read one disk of a virtual machine.
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomRead` (by name; not checked on a server).
    NfcRandomAccessOpenReadonly(NfcService, VIM) -> HostServiceTicket, "HostServiceTicket";
    /// The virtual machine.
    vm: MoRef<mo::VirtualMachine> = "vm" "ManagedObjectReference",
    /// `VirtualDisk.key`; the same in all snapshots.
    disk_device_key: i32 = "diskDeviceKey" "int",
    /// The host that runs the machine; declared optional, send it.
    host_for_access: Option<MoRef<mo::HostSystem>> = "hostForAccess" "ManagedObjectReference",
}

method! {
    /// A ticket to read and write one disk of a virtual machine.
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomAccess` (by name; not checked on a server).
    NfcRandomAccessOpenDisk(NfcService, VIM) -> HostServiceTicket, "HostServiceTicket";
    /// The virtual machine.
    vm: MoRef<mo::VirtualMachine> = "vm" "ManagedObjectReference",
    /// `VirtualDisk.key`.
    disk_device_key: i32 = "diskDeviceKey" "int",
    /// The host that runs the machine; declared optional, send it.
    host_for_access: Option<MoRef<mo::HostSystem>> = "hostForAccess" "ManagedObjectReference",
}

method! {
    /// A ticket to read any file of a virtual machine.
    /// # Privileges
    /// `VirtualMachine.Provisioning.GetVmFiles` (by name; not checked on a server).
    NfcGetVmFiles(NfcService, VIM) -> HostServiceTicket, "HostServiceTicket";
    /// The virtual machine.
    vm: MoRef<mo::VirtualMachine> = "vm" "ManagedObjectReference",
}

method! {
    /// A ticket for file operations on a datastore.
    /// # Privileges
    /// `Datastore.FileManagement` (by name; not checked on a server).
    NfcFileManagement(NfcService, VIM) -> HostServiceTicket, "HostServiceTicket";
    /// The datastore.
    ds: MoRef<mo::Datastore> = "ds" "ManagedObjectReference",
}

method! {
    /// The version of the disk service on a host: 11 on ESXi 8, 7 on 7.0, 2 on 6.7, 0 on 6.5; missing on 6.0.
    NfcGetServerNfcLibVersion(NfcService, VIM) -> i32, "int";
    /// The host asked about; required.
    host_for_access: MoRef<mo::HostSystem> = "hostForAccess" "ManagedObjectReference",
}

method! {
    /// Forbids methods on entities until [`EnableMethods`]: how a backup keeps a machine from being relocated.
    DisableMethods(mo::AuthorizationManager, INTERNAL) -> (), "";
    /// The entities, virtual machines as a rule.
    entity: Vec<ManagedObjectReference> = "entity" "ManagedObjectReference",
    /// The methods by wire name, each with its reason.
    method: Vec<DisabledMethodRequest> = "method" "DisabledMethodRequest",
    /// Who forbids; the same id is needed to allow again.
    source_id: String = "sourceId" "string",
    /// Whether the lock ends with the session.
    session_scope: Option<bool> = "sessionScope" "boolean",
}

method! {
    /// Allows methods again that the same source has forbidden.
    EnableMethods(mo::AuthorizationManager, INTERNAL) -> (), "";
    /// The entities.
    entity: Vec<ManagedObjectReference> = "entity" "ManagedObjectReference",
    /// The methods by wire name.
    method: Vec<String> = "method" "string",
    /// The id that was given when they were forbidden.
    source_id: String = "sourceId" "string",
}

/// One method to forbid, in [`DisableMethods`].
#[derive(Clone, Default, PartialEq)]
pub struct DisabledMethodRequest {
    /// The method's wire name: `RelocateVM_Task`.
    pub method: String,
    /// An id of the reason, for the log and the fault.
    pub reason_id: String,
    /// What the peer sent beyond this model.
    pub unknown: Unknown,
}

data_object! { DisabledMethodRequest, "DisabledMethodRequest", "vim.AuthorizationManager.DisabledMethodRequest", [0, 0, 0, 0];
    method: "method" "string" [0, 0, 0, 0] public,
    reason_id: "reason" "string" [0, 0, 0, 0] public,
}

/// The answer to [`RetrieveInternalContent`]; of about twenty services only one is read.
#[derive(Clone, Default, PartialEq)]
pub struct InternalContent {
    /// The service that gives tickets for port 902, where the server has it.
    pub nfc_service: Option<MoRef<NfcService>>,
    /// The other services, as they came.
    pub unknown: Unknown,
}

data_object! { InternalContent, "InternalServiceInstanceContent", "vim.InternalServiceInstanceContent", [0, 0, 0, 0];
    nfc_service: "nfcService" "ManagedObjectReference" [0, 0, 0, 0] public,
}

impl InternalContent {
    /// A service that has no field here, by its element's name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<ManagedObjectReference> {
        let element: &Element = self.unknown.elements().iter().find(|element| element.name() == name)?;
        Some(ManagedObjectReference::of(element.attribute("type")?, element.text()))
    }
}
