//! A First Class Disk as plain values.

use vsphere_vim_types::{
    BaseConfigInfoDiskFileBackingInfo, BaseConfigInfoFileBackingInfo, BaseConfigInfoRawDiskMappingBackingInfo,
    DateTime, VStorageObject,
};

use super::{FcdId, FcdRef};
use crate::error::{Call, Error, Result};

/// A First Class Disk.
#[doc(alias = "VStorageObject")]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fcd {
    /// What names it.
    pub id: FcdId,
    /// The datastore and the id together: what the other calls take.
    pub disk: FcdRef,
    /// Its name; need not be unique.
    pub name: String,
    /// Its size in bytes.
    pub capacity: u64,
    /// When it was created or registered, by the server's clock.
    pub created_at: DateTime,
    /// The datastore path of its topmost file: `[ds1] fcd/0a1b.vmdk`. `None` for backings that are no files.
    pub path: Option<String>,
    /// The id of the topmost file; it changes with snapshots.
    pub backing_object_id: Option<String>,
    /// How its space is allocated.
    pub provisioning: Option<Provisioning>,
    /// The raw device behind it, where there is one. Such a disk has no snapshots in physical compatibility.
    pub lun_uuid: Option<String>,
    /// Who uses it: a virtual machine's id, as a rule. Empty when nobody does.
    pub consumers: Vec<FcdConsumer>,
    /// Whether it outlives a virtual machine that is deleted with it attached.
    pub keep_after_delete_vm: bool,
    /// Whether changed blocks are tracked. `None` from servers before 6.7.
    pub change_tracking: Option<bool>,
}

/// Who uses a First Class Disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FcdConsumer {
    /// The consumer's id as the server writes it; for virtual machines their instance UUID or their reference's value.
    pub id: String,
    /// The key of the disk in the virtual machine, where the server says so.
    pub device_key: Option<i32>,
}

/// How the space of a disk is allocated.
#[doc(alias = "BaseConfigInfoDiskFileBackingInfoProvisioningType")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provisioning {
    /// As it is written.
    Thin,
    /// At once, zeroed when first written.
    LazyZeroedThick,
    /// At once, and zeroed at once.
    EagerZeroedThick,
    /// A way that this crate does not know.
    Other(Box<str>),
}

impl Provisioning {
    /// The value on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Thin => "thin",
            Self::LazyZeroedThick => "lazyZeroedThick",
            Self::EagerZeroedThick => "eagerZeroedThick",
            Self::Other(other) => other,
        }
    }
}

impl From<&str> for Provisioning {
    fn from(wire: &str) -> Self {
        match wire {
            "thin" => Self::Thin,
            "lazyZeroedThick" => Self::LazyZeroedThick,
            "eagerZeroedThick" => Self::EagerZeroedThick,
            other => Self::Other(other.into()),
        }
    }
}

impl Fcd {
    /// `operation` is the call that gave `wire`.
    pub(super) fn from_wire(operation: &str, wire: VStorageObject) -> Result<Self> {
        let config = wire.config;
        let capacity = bytes(config.capacity_in_mb).ok_or_else(|| {
            Error::protocol(Call::named(operation), format!("a disk of {} MB", config.capacity_in_mb))
        })?;
        let backing = &config.base.backing;
        let file = backing.downcast_ref::<BaseConfigInfoFileBackingInfo>();
        let thickness = backing.downcast_ref::<BaseConfigInfoDiskFileBackingInfo>();
        let raw = backing.downcast_ref::<BaseConfigInfoRawDiskMappingBackingInfo>();
        let consumer = |id: &vsphere_vim_types::ID| FcdConsumer { id: id.id.clone(), device_key: None };
        let id = FcdId::from(config.base.id.clone());
        Ok(Self {
            disk: FcdRef::on(&backing.datastore, id.clone()),
            id,
            capacity,
            path: file.map(|file| file.file_path.clone()),
            backing_object_id: file.and_then(|file| file.backing_object_id.clone()),
            provisioning: thickness
                .map(|file| file.provisioning_type.as_str())
                // Servers that do not say leave the element empty.
                .filter(|kind| !kind.is_empty())
                .map(Provisioning::from),
            lun_uuid: raw.map(|raw| raw.lun_uuid.clone()),
            consumers: config.consumer_id.iter().map(consumer).collect(),
            keep_after_delete_vm: config.base.keep_after_delete_vm.unwrap_or(false),
            change_tracking: config.base.changed_block_tracking_enabled,
            created_at: config.base.create_time,
            name: config.base.name,
        })
    }
}

/// Megabytes of the wire, which are 2^20 bytes.
fn bytes(megabytes: i64) -> Option<u64> {
    u64::try_from(megabytes).ok()?.checked_mul(MEGABYTE)
}

pub(super) const MEGABYTE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{BaseConfigInfo, MoRef, Poly, VStorageObjectConfigInfo};

    use super::*;

    fn wire(capacity_in_mb: i64) -> VStorageObject {
        let file = BaseConfigInfoFileBackingInfo { file_path: "[ds1] fcd/a.vmdk".into(), ..Default::default() };
        let mut backing = BaseConfigInfoDiskFileBackingInfo { provisioning_type: "thin".into(), base: file };
        backing.datastore = MoRef::new("datastore-1");
        let base = BaseConfigInfo {
            id: FcdId::new("a").to_wire(),
            name: "data".into(),
            backing: Poly::new(backing),
            ..Default::default()
        };
        VStorageObject {
            config: VStorageObjectConfigInfo { capacity_in_mb, base, ..Default::default() },
            ..Default::default()
        }
    }

    #[test]
    fn megabytes_become_bytes_and_the_backing_a_path() {
        let disk = Fcd::from_wire("x", wire(3)).unwrap();
        assert_eq!((disk.capacity, disk.path.as_deref()), (3 << 20, Some("[ds1] fcd/a.vmdk")));
        assert_eq!(disk.disk, FcdRef::on(&MoRef::new("datastore-1"), FcdId::new("a")));
        assert_eq!(disk.provisioning, Some(Provisioning::Thin));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for megabytes in [-1, i64::MIN, i64::MAX] {
            assert!(matches!(Fcd::from_wire("x", wire(megabytes)), Err(Error::Protocol(_))), "{megabytes}");
        }
    }
}
