//! What to simulate: virtual machines and their disks.

use std::path::Path;
use std::sync::Arc;

use crate::storage::DiskSource;
use crate::vm::{DiskMode, GuestBehaviour, Power};

/// A virtual machine to simulate.
#[derive(Debug, Clone)]
#[must_use]
pub struct VmSpec {
    pub(crate) name: String,
    pub(crate) disks: Vec<DiskSpec>,
    pub(crate) power: Power,
    pub(crate) tracking: bool,
    pub(crate) hardware_version: u32,
    pub(crate) annotation: String,
    pub(crate) guest_id: String,
    pub(crate) memory_mb: i32,
    pub(crate) cpus: i32,
    pub(crate) guest: GuestBehaviour,
}

impl VmSpec {
    /// A running VM without disks, hardware version 19, change tracking off.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            disks: Vec::new(),
            power: Power::On,
            tracking: false,
            hardware_version: 19,
            annotation: String::new(),
            guest_id: "otherLinux64Guest".into(),
            memory_mb: 1024,
            cpus: 1,
            guest: GuestBehaviour::default(),
        }
    }

    /// One disk more. The first has key 2000.
    pub fn disk(mut self, disk: DiskSpec) -> Self {
        self.disks.push(disk);
        self
    }

    /// Whether it runs at the beginning.
    pub fn power(mut self, power: Power) -> Self {
        self.power = power;
        self
    }

    /// Whether changed block tracking is on and active from the beginning.
    pub fn change_tracking(mut self, tracking: bool) -> Self {
        self.tracking = tracking;
        self
    }

    /// The virtual hardware version; below 7 there is no change tracking.
    pub fn hardware_version(mut self, version: u32) -> Self {
        self.hardware_version = version;
        self
    }

    /// The notes that people wrote about it.
    pub fn annotation(mut self, annotation: &str) -> Self {
        self.annotation = annotation.into();
        self
    }

    /// What the guest does when it is asked to shut down. Default: it is off at once.
    pub fn guest(mut self, guest: GuestBehaviour) -> Self {
        self.guest = guest;
        self
    }

    /// The guest operating system's id, such as `ubuntu64Guest`.
    pub fn guest_id(mut self, guest_id: &str) -> Self {
        self.guest_id = guest_id.into();
        self
    }
}

/// A disk to simulate.
#[derive(Debug, Clone)]
#[must_use]
pub struct DiskSpec {
    pub(crate) source: DiskSource,
    pub(crate) write_through: bool,
    pub(crate) mode: DiskMode,
    pub(crate) label: Option<String>,
}

impl DiskSpec {
    /// The bytes of a file. The file itself stays as it is; see [`write_through`](Self::write_through).
    pub fn raw_file(path: impl AsRef<Path>) -> Self {
        Self::from_source(DiskSource::Raw(path.as_ref().to_owned()))
    }

    /// A VMDK file: a descriptor with its extents, or a monolithic sparse file.
    pub fn vmdk_file(path: impl AsRef<Path>) -> Self {
        Self::from_source(DiskSource::Vmdk(path.as_ref().to_owned()))
    }

    /// Zeros, as many bytes.
    pub fn empty(bytes: u64) -> Self {
        Self::from_source(DiskSource::Empty(bytes))
    }

    /// Any image.
    pub fn image(image: Arc<dyn vmdk::Image>) -> Self {
        Self::from_source(DiskSource::Image(image))
    }

    /// Writes go into the file that was given, not into a layer over it.
    pub fn write_through(mut self) -> Self {
        self.write_through = true;
        self
    }

    /// Leaves the disk out of snapshots.
    pub fn independent(mut self) -> Self {
        self.mode = DiskMode::IndependentPersistent;
        self
    }

    /// The label, instead of `Hard disk N`.
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.into());
        self
    }

    fn from_source(source: DiskSource) -> Self {
        Self { source, write_through: false, mode: DiskMode::Persistent, label: None }
    }
}
