//! Names: the wire's in Rust dress.

/// `capacityInKB` -> `capacity_in_kb`, `numCPUs` -> `num_cpus`, `vAppConfig` -> `vapp_config`.
pub(super) fn snake(name: &str) -> String {
    // Words that the rule below would tear apart.
    const WORDS: [(&str, &str); 10] = [
        ("CPUs", "Cpus"),
        ("IPv4", "Ipv4"),
        ("IPv6", "Ipv6"),
        ("VMs", "Vms"),
        ("vApp", "Vapp"),
        ("vFlash", "Vflash"),
        ("vSAN", "Vsan"),
        ("vVol", "Vvol"),
        ("VApp", "Vapp"),
        ("vNIC", "Vnic"),
    ];
    let mut name = name.to_owned();
    for (from, to) in WORDS {
        name = name.replace(from, to);
    }
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, c) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let after = letters.get(at + 1);
        let boundary = c.is_ascii_uppercase()
            && before.is_some_and(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || (b.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if boundary && !out.ends_with('_') {
            out.push('_');
        }
        out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    match out.as_str() {
        "type" | "self" | "match" | "ref" | "move" | "box" | "use" | "where" | "in" | "final" | "virtual"
        | "abstract" | "base" | "unknown" | "mod" | "loop" | "impl" | "static" | "enum" | "default" => out + "_",
        _ => out,
    }
}

/// `poweredOn` -> `PoweredOn`, `vmx-07` -> `Vmx07`, `4k` -> `V4k`.
pub(super) fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut upper = true;
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        } else {
            upper = true;
        }
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, 'V');
    }
    if out == "Self" { "Self_".to_owned() } else { out }
}

/// `NAME` for the property `name`.
pub(super) fn constant(name: &str) -> String {
    snake(name).trim_end_matches('_').to_ascii_uppercase()
}

/// The module of a data type: its VMODL package.
pub(super) fn module(vmodl: &str) -> String {
    let package = vmodl.rsplit_once('.').map_or("root", |(package, _)| package);
    package.split('.').map(snake).map(|part| part.trim_end_matches('_').to_owned()).collect::<Vec<_>>().join("_")
}

/// The full path of a data type or enumeration.
pub(super) fn data_path(vmodl: &str, wsdl: &str) -> String {
    format!("crate::generated::data::{}::{wsdl}", module(vmodl))
}

/// The Rust name of a method: `reloadVirtualMachineFromPath_Task` starts in lower case on the wire.
pub(super) fn method(wsdl: &str) -> String {
    let mut letters = wsdl.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase()).into_iter();
    first.chain(letters).collect()
}

/// `[8, 0, 3, 0]` for `8.0.3.0`.
pub(super) fn version(text: &str) -> String {
    let mut numbers = [0u8; 4];
    for (at, part) in text.split(['.', 'u']).enumerate().take(4) {
        numbers[at] = part.parse().unwrap_or(0);
    }
    format!("{numbers:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_names_become_rust_names() {
        for (wire, rust) in [
            ("capacityInKB", "capacity_in_kb"),
            ("numCPUs", "num_cpus"),
            ("vAppConfig", "vapp_config"),
            ("instanceUuid", "instance_uuid"),
            ("type", "type_"),
            ("biosUUIDString", "bios_uuid_string"),
            ("memoryMB", "memory_mb"),
        ] {
            assert_eq!(snake(wire), rust);
        }
        assert_eq!(
            (camel("poweredOn"), camel("4k"), camel("vmx-07")),
            ("PoweredOn".into(), "V4k".into(), "Vmx07".into())
        );
        assert_eq!(module("vim.vm.device.VirtualDisk.FlatVer2BackingInfo"), "vim_vm_device_virtual_disk");
    }
}
