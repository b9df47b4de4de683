//! What to simulate: virtual machines and their disks.

use std::path::Path;
use std::sync::Arc;

use vsphere_vim_types::{Poly, VirtualDevice};

use crate::storage::DiskSource;
use crate::vm::{DiskMode, DiskShape, GuestBehaviour, Power};

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
    pub(crate) nvram: Option<Arc<[u8]>>,
    pub(crate) key: Option<(String, String)>,
    pub(crate) devices: Vec<Poly<VirtualDevice>>,
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
            nvram: None,
            key: None,
            devices: Vec::new(),
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

    /// The content of the file that keeps the firmware's variables. Without it there is none.
    pub fn nvram(mut self, content: &[u8]) -> Self {
        self.nvram = Some(content.into());
        self
    }

    /// Says that it is encrypted with that key. Its data is not.
    pub fn encrypted(mut self, provider: &str, key: &str) -> Self {
        self.key = Some((provider.into(), key.into()));
        self
    }

    /// One device more, such as a `VirtualTPM`. Its key has to be its own.
    pub fn device(mut self, device: Poly<VirtualDevice>) -> Self {
        self.devices.push(device);
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
    pub(crate) backing: DiskShape,
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

    /// Says that several machines may write to it. Snapshots leave it out.
    pub fn multi_writer(mut self) -> Self {
        self.mode = DiskMode::IndependentPersistent;
        self.backing = DiskShape::MultiWriter;
        self
    }

    /// Says that it maps a raw device in virtual compatibility.
    pub fn virtual_rdm(mut self) -> Self {
        self.backing = DiskShape::RawDeviceMapping("virtualMode");
        self
    }

    /// Says that it maps a raw device in physical compatibility. Snapshots leave it out.
    pub fn physical_rdm(mut self) -> Self {
        self.mode = DiskMode::IndependentPersistent;
        self.backing = DiskShape::RawDeviceMapping("physicalMode");
        self
    }

    /// The label, instead of `Hard disk N`.
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.into());
        self
    }

    fn from_source(source: DiskSource) -> Self {
        Self { source, write_through: false, mode: DiskMode::Persistent, label: None, backing: DiskShape::Flat }
    }
}
