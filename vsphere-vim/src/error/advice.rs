//! What a fault means for whoever has to go on: does it pass, and what helps.

use vsphere_vim_types::{InvalidPowerState, MethodFault, NoPermission, Poly};

/// Faults of a moment: another task, a lock, a host that is away. Subtypes are meant too.
const PASSING: &[&str] = &[
    "HostCommunication",
    "Timedout",
    "TaskInProgress",
    "ResourceInUse",
    "ConcurrentAccess",
    "FileLocked",
    "ToolsUnavailable",
    "VmConfigFileLocked",
];

/// True when the fault may be gone at the next try.
pub(super) fn passes_by_itself(fault: &Poly<MethodFault>) -> bool {
    PASSING.iter().any(|name| fault.is_a(name))
}

/// The next step, for the faults that backup programs meet.
pub(super) fn hint(operation: &str, fault: &Poly<MethodFault>) -> Option<String> {
    // Query errors first: there a plain fault has a meaning of its own.
    if operation == "QueryChangedDiskAreas" {
        if fault.is_a("FileFault") {
            return Some("the change id is unusable (tracking was reset or is off): take a full backup".to_owned());
        }
        if fault.is_a("InvalidArgument") {
            return Some("the offset lies at or beyond the capacity, or the change id is malformed".to_owned());
        }
    }
    if let Some(fault) = fault.downcast_ref::<NoPermission>() {
        let privilege = fault.privilege_id.as_deref().filter(|id| !id.is_empty());
        let object = fault.object.as_ref().map(ToString::to_string);
        return Some(format!(
            "grant the account {} on {}",
            privilege.unwrap_or("the missing privilege"),
            object.as_deref().unwrap_or("this object")
        ));
    }
    if let Some(fault) = fault.downcast_ref::<InvalidPowerState>() {
        let wanted = fault.requested_state.as_ref().map(|state| format!("; needed is {state}"));
        return Some(format!("the virtual machine is {}{}", fault.existing_state, wanted.unwrap_or_default()));
    }
    HINTS.iter().find(|(name, _)| fault.is_a(name)).map(|(_, text)| (*text).to_owned())
}

/// Nearest types first: the first match wins.
const HINTS: &[(&str, &str)] = &[
    ("InvalidLogin", "check user name (user@domain on vCenter) and password; repeated tries can lock the account"),
    ("NotAuthenticated", "the session ended; log in again"),
    ("ManagedObjectNotFound", "the object is gone or belongs to another server; look it up again"),
    (
        "MethodDisabled",
        "a program (often a backup) has locked this operation; see the object's disabledMethod property",
    ),
    ("TaskInProgress", "wait for the running task to end"),
    (
        "ApplicationQuiesceFault",
        "quiescing failed: check VMware Tools and the guest's VSS writers, or snapshot without quiescing",
    ),
    ("FilesystemQuiesceFault", "quiescing failed: check VMware Tools, or snapshot without quiescing"),
    ("TooManySnapshotLevels", "consolidate or remove snapshots first"),
    ("MemorySnapshotOnIndependentDisk", "snapshot without memory"),
    ("SnapshotNoChange", "the disks did not change since the last snapshot"),
    ("NoDiskSpace", "free space on the datastore"),
    ("FileLocked", "another process holds the file: a running virtual machine, a backup proxy, or another host"),
    ("RestrictedVersion", "this operation needs a paid licence on the host"),
    ("HostNotConnected", "the host is disconnected from vCenter"),
    ("InvalidDatastorePath", "datastore paths have the form `[datastore] folder/file`"),
    ("InvalidProperty", "the property does not exist for this type in the server's version"),
    ("UserNotFound", "the account does not exist"),
];
