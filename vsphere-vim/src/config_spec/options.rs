//! What the new machine shall have in common with the old one.

use std::collections::BTreeMap;

use vsphere_vim_types::{MoRef, mo};

use super::{network::NetworkRule, place::DatastoreTarget};
use crate::device::DeviceKey;

/// Whether the new machine is the old one again or another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// It has the old uuids, World Wide Names and date of creation: the old machine is gone.
    #[default]
    Keep,
    /// The server gives it new ones: the old machine lives on.
    Renew,
}

/// What network adapters are called on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacAddresses {
    /// The old address in the old way. A server may replace an address that was `assigned` or `generated`.
    #[default]
    Keep,
    /// The old address, set by hand: no server replaces it, none looks for conflicts.
    KeepAsManual,
    /// New ones.
    Renew,
}

/// How the blocks of new disks are allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provisioning {
    /// As on the old machine.
    #[default]
    Keep,
    /// On first write.
    Thin,
    /// At once, zeroed on first write.
    Thick,
    /// At once, zeroed at once.
    EagerZeroed,
}

/// What the files of new disks are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskNames {
    /// After the machine, by the server. Cannot collide with anything.
    #[default]
    ServerChooses,
    /// As on the old machine, without the numbers that snapshots append. They need a folder whose name is known, so
    /// this names the machine's home too, unless [`vm_path`](super::ConfigConversion::vm_path) has.
    Keep,
}

/// What becomes of raw device mappings and of raw disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RawMappings {
    /// A virtual disk of the same size. A restore then never writes to the old machine's device.
    #[default]
    AsVirtualDisk,
    /// The same device again. The host must see it, and the old machine must not use it any more.
    Keep,
    /// Nothing.
    LeaveOut,
}

/// What becomes of the video card, which every new machine has anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VideoCard {
    /// It is described only where it differs from what a new machine gets.
    #[default]
    WhenCustom,
    /// It is always described.
    Always,
    /// It is never described; displays and memory fall back to the default.
    Never,
}

/// What becomes of a virtual TPM. Its content is not part of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tpm {
    /// The new machine has none.
    #[default]
    LeaveOut,
    /// The new machine has an empty one. It needs a key provider.
    AddNew,
}

/// What becomes of devices of the host that are passed through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostDevices {
    /// They are described as they were; the host must have them.
    #[default]
    Keep,
    /// They are left out.
    LeaveOut,
}

/// What becomes of a boot order that names disks and adapters by their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootOrder {
    /// The old keys. Servers derive keys from the place on the controller, so they fit when the places do.
    #[default]
    Keep,
    /// The negative keys of this description. Whether servers look there is not documented.
    NewKeys,
    /// No boot order.
    LeaveOut,
}

/// Where one disk goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskTarget {
    /// A new disk on that datastore.
    On(DatastoreTarget),
    /// A new disk in that file: `[datastore] folder/name.vmdk`. The folder has to exist or be the machine's own.
    NewFile(String),
    /// The disk in that file, which exists already.
    Existing(String),
    /// The machine is made without it.
    LeaveOut,
}

/// All choices.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) name: Option<String>,
    pub(super) vm_path: Option<String>,
    pub(super) datastore: Option<DatastoreTarget>,
    pub(super) disks: BTreeMap<DeviceKey, DiskTarget>,
    pub(super) disk_names: DiskNames,
    pub(super) provisioning: Provisioning,
    pub(super) raw_mappings: RawMappings,
    pub(super) identity: Identity,
    pub(super) macs: MacAddresses,
    pub(super) networks: Vec<NetworkRule>,
    pub(super) start_disconnected: bool,
    pub(super) disconnect_unmapped: bool,
    pub(super) video_card: VideoCard,
    pub(super) tpm: Tpm,
    pub(super) host_devices: HostDevices,
    pub(super) boot_order: BootOrder,
    pub(super) without_vapp: bool,
    pub(super) unknown_fields: bool,
}

impl From<&str> for DatastoreTarget {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), moref: None }
    }
}

impl From<(&str, MoRef<mo::Datastore>)> for DatastoreTarget {
    fn from((name, moref): (&str, MoRef<mo::Datastore>)) -> Self {
        Self { name: name.to_owned(), moref: Some(moref) }
    }
}
