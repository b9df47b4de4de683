//! What identifies a virtual machine.

use std::fmt;

use vsphere_vim_types::{MoRef, PropertyPath, mo};

use crate::property::Property;

/// A virtual machine and everything that identifies it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct VmRef {
    /// The reference on this server, now.
    pub moref: MoRef<mo::VirtualMachine>,
    /// The display name; not unique.
    pub name: String,
    /// Unique within the vCenter Server; `None` while the configuration is not readable.
    pub instance_uuid: Option<String>,
    /// The BIOS id; the fallback on servers before 4.0.
    pub bios_uuid: Option<String>,
    /// The id of the vCenter Server or host that the reference belongs to.
    pub server_uuid: Option<String>,
}

impl VmRef {
    pub(super) fn new(moref: MoRef<mo::VirtualMachine>, values: Identity, server_uuid: Option<&str>) -> Self {
        let (name, instance_uuid, bios_uuid) = values;
        Self {
            name: name.present().unwrap_or_else(|| moref.value().to_owned()),
            moref,
            instance_uuid: instance_uuid.present(),
            bios_uuid: bios_uuid.present(),
            server_uuid: server_uuid.map(str::to_owned),
        }
    }

    /// True when `other` is the same machine, as far as ids can tell: by instance id if both have one, else by
    /// server and reference, else by BIOS id.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        if let (Some(own), Some(other)) = (&self.instance_uuid, &other.instance_uuid) {
            return own.eq_ignore_ascii_case(other);
        }
        if self.server_uuid.is_some() && self.server_uuid == other.server_uuid {
            return self.moref == other.moref;
        }
        matches!((&self.bios_uuid, &other.bios_uuid), (Some(own), Some(other)) if own.eq_ignore_ascii_case(other))
    }
}

impl fmt::Display for VmRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.moref.value())
    }
}

/// The properties behind [`VmRef`].
pub(super) const IDENTITY: (VmPath<String>, VmPath<String>, VmPath<String>) =
    (mo::VirtualMachine::NAME, VmPath::new("config.instanceUuid"), VmPath::new("config.uuid"));

pub(super) type VmPath<V> = PropertyPath<mo::VirtualMachine, V>;

pub(super) type IdentityPaths = (VmPath<String>, VmPath<String>, VmPath<String>);

pub(super) type Identity = (Property<String>, Property<String>, Property<String>);

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(moref: &str, instance: Option<&str>, server: Option<&str>) -> VmRef {
        VmRef {
            moref: MoRef::new(moref),
            name: "web".into(),
            instance_uuid: instance.map(str::to_owned),
            bios_uuid: Some("b".into()),
            server_uuid: server.map(str::to_owned),
        }
    }

    #[test]
    fn the_instance_id_decides_before_the_reference() {
        assert!(vm("vm-1", Some("A"), Some("s")).is_same_machine(&vm("vm-2", Some("a"), Some("s"))));
        assert!(!vm("vm-1", Some("A"), Some("s")).is_same_machine(&vm("vm-1", Some("b"), Some("s"))));
        assert!(!vm("vm-1", None, Some("s")).is_same_machine(&vm("vm-2", Some("b"), Some("s"))));
        assert!(vm("vm-1", None, None).is_same_machine(&vm("vm-2", None, None)), "the BIOS id is the last resort");
    }
}
