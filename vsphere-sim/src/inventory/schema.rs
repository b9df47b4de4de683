//! Which properties a managed type has: a path that a type does not have fails the whole call.

use vsphere_vim_types::{TypeInfo, mo, type_info};

use crate::Fault;

/// The properties of a type's own, without those of its bases: name and declared type.
///
/// The declared type is given where it is a data type whose fields a path may enter.
fn own(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "ExtensibleManagedObject" => &[("value", "[]"), ("availableField", "[]")],
        "ManagedEntity" => &[
            ("parent", ""),
            ("customValue", "[]"),
            ("overallStatus", ""),
            ("configStatus", ""),
            ("configIssue", "[]"),
            ("effectiveRole", "[]"),
            ("permission", "[]"),
            ("name", ""),
            ("disabledMethod", "[]"),
            ("recentTask", "[]"),
            ("declaredAlarmState", "[]"),
            ("triggeredAlarmState", "[]"),
            ("alarmActionsEnabled", ""),
            ("tag", "[]"),
        ],
        "Folder" => {
            &[("childType", "[]"), ("childEntity", "[]"), ("namespace", ""), ("externallyManagedFolderInfo", "?")]
        }
        "Datacenter" => &[
            ("vmFolder", ""),
            ("hostFolder", ""),
            ("datastoreFolder", ""),
            ("networkFolder", ""),
            ("datastore", "[]"),
            ("network", "[]"),
            ("configuration", "?"),
        ],
        "ComputeResource" => &[
            ("resourcePool", ""),
            ("host", "[]"),
            ("datastore", "[]"),
            ("network", "[]"),
            ("summary", "ComputeResourceSummary"),
            ("environmentBrowser", ""),
            ("configurationEx", "?"),
            ("lifecycleManaged", ""),
            ("configManagerEnabled", ""),
        ],
        "ClusterComputeResource" => &[
            ("configuration", "?"),
            ("recommendation", "[]"),
            ("drsRecommendation", "[]"),
            ("migrationHistory", "[]"),
            ("actionHistory", "[]"),
            ("drsFault", "[]"),
        ],
        "HostSystem" => &[
            ("runtime", "HostRuntimeInfo"),
            ("summary", "HostListSummary"),
            ("hardware", "?"),
            ("capability", "?"),
            ("licensableResource", "?"),
            ("remediationState", "?"),
            ("configManager", "?"),
            ("config", "?"),
            ("vm", "[]"),
            ("datastore", "[]"),
            ("network", "[]"),
            ("datastoreBrowser", ""),
            ("systemResources", "?"),
        ],
        "ResourcePool" => &[
            ("summary", "?"),
            ("runtime", "ResourcePoolRuntimeInfo"),
            ("owner", ""),
            ("resourcePool", "[]"),
            ("vm", "[]"),
            ("config", "?"),
            ("namespace", ""),
            ("childConfiguration", "[]"),
        ],
        "VirtualApp" => &[
            ("parentFolder", ""),
            ("datastore", "[]"),
            ("network", "[]"),
            ("vAppConfig", "?"),
            ("parentVApp", ""),
            ("childLink", "[]"),
        ],
        "VirtualMachine" => &[
            ("capability", "VirtualMachineCapability"),
            ("config", "VirtualMachineConfigInfo"),
            ("layout", "VirtualMachineFileLayout"),
            ("layoutEx", "VirtualMachineFileLayoutEx"),
            ("storage", "VirtualMachineStorageInfo"),
            ("environmentBrowser", ""),
            ("resourcePool", ""),
            ("parentVApp", ""),
            ("resourceConfig", "ResourceConfigSpec"),
            ("runtime", "VirtualMachineRuntimeInfo"),
            ("guest", "GuestInfo"),
            ("summary", "VirtualMachineSummary"),
            ("datastore", "[]"),
            ("network", "[]"),
            ("snapshot", "VirtualMachineSnapshotInfo"),
            ("rootSnapshot", "[]"),
            ("guestHeartbeatStatus", ""),
        ],
        "VirtualMachineSnapshot" => &[("config", "VirtualMachineConfigInfo"), ("childSnapshot", "[]"), ("vm", "")],
        "Task" => &[("info", "TaskInfo")],
        "Datastore" => &[
            ("info", "DatastoreInfo"),
            ("summary", "DatastoreSummary"),
            ("host", "[]"),
            ("vm", "[]"),
            ("browser", ""),
            ("capability", "DatastoreCapability"),
            ("iormConfiguration", "?"),
        ],
        "HostDatastoreBrowser" => &[("datastore", "[]"), ("supportedType", "[]")],
        "HttpNfcLease" => &[
            ("initializeProgress", ""),
            ("transferProgress", ""),
            ("mode", ""),
            ("capabilities", "?"),
            ("info", "HttpNfcLeaseInfo"),
            ("state", ""),
            ("error", "LocalizedMethodFault"),
        ],
        "Network" => &[("summary", "NetworkSummary"), ("host", "[]"), ("vm", "[]")],
        "ServiceInstance" => &[("serverClock", ""), ("capability", "?"), ("content", "ServiceContent")],
        "SessionManager" => &[
            ("sessionList", "[]"),
            ("currentSession", "UserSession"),
            ("message", ""),
            ("messageLocaleList", "[]"),
            ("supportedLocaleList", "[]"),
            ("defaultLocale", ""),
        ],
        "Alarm" => &[("info", "?")],
        "AlarmManager" => &[("defaultExpression", "[]"), ("description", "?")],
        "EventManager" => &[("description", "?"), ("latestEvent", "?"), ("maxCollector", "")],
        "HistoryCollector" => &[("filter", "?")],
        "EventHistoryCollector" => &[("latestPage", "[]")],
        "TaskManager" => &[("recentTask", "[]"), ("description", "?"), ("maxCollector", "")],
        "AuthorizationManager" => &[("privilegeList", "[]"), ("roleList", "[]"), ("description", "?")],
        "ManagedObjectView" => &[("view", "[]")],
        "ContainerView" => &[("container", ""), ("type", "[]"), ("recursive", "")],
        "ViewManager" => &[("viewList", "[]")],
        "PropertyCollector" => &[("filter", "[]")],
        "PropertyFilter" => &[("spec", "?"), ("partialUpdates", "")],
        _ => &[],
    }
}

/// A property with its declared type: `""` a simple value, `"[]"` a list, `"?"` a type outside the model.
fn find(kind: &str, property: &str) -> Option<&'static str> {
    let types = std::iter::once(kind).chain(mo::bases(kind).iter().copied());
    types.flat_map(own).find(|(name, _)| *name == property).map(|(_, declared)| *declared)
}

/// Whether the simulator knows the properties of a type.
fn known(kind: &str) -> bool {
    !own(kind).is_empty() || mo::known_type(kind).is_some()
}

/// The names of all properties of a type.
pub(crate) fn property_names(kind: &str) -> Vec<&'static str> {
    std::iter::once(kind).chain(mo::bases(kind).iter().copied()).flat_map(own).map(|(name, _)| *name).collect()
}

/// Refuses a path that the type does not have.
///
/// Fields of subtypes are let through where the model does not say what a slot holds: a path into
/// `config.hardware.device[2000].backing.fileName` is valid though the declared base has no such field.
pub(crate) fn check_path(kind: &str, path: &str) -> Result<(), Fault> {
    let invalid = || Fault::invalid_property(path);
    if !known(kind) {
        return Err(Fault::invalid_argument("specSet.propSet.type"));
    }
    let mut steps = path.split('.');
    let first = steps.next().filter(|first| !first.is_empty()).ok_or_else(invalid)?;
    let first = first.split('[').next().unwrap_or(first);
    let mut declared = find(kind, first).ok_or_else(invalid)?;
    for step in steps {
        let (name, keyed) = step.split_once('[').map_or((step, false), |(name, _)| (name, true));
        if declared.is_empty() {
            return Err(invalid());
        }
        let Some(info) = type_info(declared) else { return Ok(()) };
        declared = field(info, name).ok_or_else(invalid)?;
        if keyed {
            // The key picks an item of some subtype; its fields are the item's business.
            return Ok(());
        }
    }
    Ok(())
}

fn field(info: &'static TypeInfo, name: &str) -> Option<&'static str> {
    let mut at = Some(info);
    while let Some(info) = at {
        if let Some(field) = info.fields.iter().find(|field| field.name == name) {
            return Some(field.declared);
        }
        at = info.base;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_step_by_step() {
        for good in [
            "name",
            "config.hardware.device",
            "config.changeTrackingEnabled",
            "config.hardware.device[2000].backing.fileName",
            "runtime.host",
            "summary.config.name",
            "customValue",
        ] {
            assert_eq!(check_path("VirtualMachine", good), Ok(()), "{good}");
        }
        for bad in ["", "nme", "config.nme", "config.hardware.devices", "name.x", "childEntity", "."] {
            assert!(check_path("VirtualMachine", bad).is_err(), "{bad}");
        }
        assert!(check_path("ManagedEntity", "name").is_ok());
        assert!(check_path("Nonsense", "name").is_err());
    }
}
