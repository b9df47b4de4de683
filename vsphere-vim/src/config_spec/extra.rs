//! Keys of `extraConfig` that the server writes for itself.

/// Keys that are not carried, in lower case, and why. A star stands for any text.
pub const SERVER_KEYS: &[(&str, &str)] = &[
    ("uuid.bios", "stands in a field of its own"),
    ("uuid.location", "tells a moved machine from a copied one"),
    ("vc.uuid", "stands in a field of its own"),
    ("viv.moid", "the reference on the old vCenter"),
    ("nvram", "the name of the old machine's NVRAM file"),
    ("extendedconfigfile", "the name of an old file"),
    ("migrate.hostlog*", "the log of an old migration"),
    ("vmotion.*", "sizes of the last migration"),
    ("sched.swap.derivedname", "the path of the old swap file"),
    ("*.redo", "the redo log of an old disk"),
    ("*.ctkenabled", "follows from changeTrackingEnabled"),
    ("ctkenabled", "stands in a field of its own"),
    ("checkpoint.*", "the state of the last suspend"),
    ("snapshot.action", "a default of old products"),
    ("snapshot.numsnapshots", "counts the old snapshots"),
    ("snapshot.current", "names an old snapshot"),
    ("cleanshutdown", "how the last run ended"),
    ("softpoweroff", "how the last run ended"),
    ("hostcpuid.*", "the processor of the last host"),
    ("guestcpuid.*", "what the guest last saw of it"),
    ("usercpuid.*", "what the guest last saw of it"),
    ("evccompatibilitymode", "set by the cluster at power-on"),
    ("monitor.phys_bits_used", "measured at power-on"),
    ("numa.autosize.*", "computed by the host at power-on"),
    ("toolsinstallmanager.*", "counts installations of VMware Tools"),
    ("vmware.tools.*", "what VMware Tools last reported"),
    ("guestinfo.vmtools.*", "what VMware Tools last reported"),
    ("guestinfo.appinfo", "what VMware Tools last reported"),
    ("guestinfo.detailed.data", "what VMware Tools last reported"),
    ("vmxstats.filename", "the name of an old file"),
    ("replay.filename", "the name of an old file"),
    ("hbr_filter.*", "the replication of the old machine"),
    ("encryption.*", "keys of the old machine"),
    ("encrypteddatafilekey", "keys of the old machine"),
    ("datafilekey", "keys of the old machine"),
    ("vtpm.*", "the secrets of the old virtual TPM"),
    ("ethernet*.generatedaddress*", "stands in the network adapter"),
    ("ethernet*.address", "stands in the network adapter"),
    ("ethernet*.addresstype", "stands in the network adapter"),
];

/// Why the server owns a key; `None` for keys of users and programs.
pub(super) fn owned_by_server(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase();
    SERVER_KEYS.iter().find(|(pattern, _)| matches(pattern, &key)).map(|(_, why)| *why)
}

/// Whether `text` fits `pattern`; the parts between stars have to occur in their order.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_keys_are_known_in_any_case_and_the_users_are_not() {
        for key in ["uuid.bios", "scsi0:0.redo", "migrate.hostLog", "migrate.hostLogState", "scsi0:1.ctkEnabled"] {
            assert!(owned_by_server(key).is_some(), "{key}");
        }
        for key in ["ethernet0.generatedAddressOffset", "numa.autosize.cookie", "hbr_filter.gid", "nvram"] {
            assert!(owned_by_server(key).is_some(), "{key}");
        }
        for key in ["disk.EnableUUID", "guestinfo.metadata", "ethernet0.pciSlotNumber", "nvramx", "", "tools.syncTime"]
        {
            assert!(owned_by_server(key).is_none(), "{key}");
        }
    }

    #[test]
    fn the_table_is_in_lower_case() {
        assert!(SERVER_KEYS.iter().all(|(pattern, _)| *pattern == pattern.to_ascii_lowercase()));
    }
}
