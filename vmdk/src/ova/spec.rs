//! What a new package is to contain, in the words of a backup product.

use super::descriptor::Bus;
use crate::error::{Error, Result};

/// A machine for which a descriptor is written, in the form that vSphere's importers (`ImportVApp`, ovftool) expect.
///
/// ```
/// use vmdk::ova::{DiskController, DiskSpec, NetworkSpec, OvfSpec};
///
/// let spec = OvfSpec::new("web")
///     .guest_os("ubuntu64Guest", 94)
///     .processors(4)
///     .memory_mib(8192)
///     .disk(DiskSpec::new("web-disk1.vmdk", 40 << 30).at(DiskController::ParaVirtual, 0, 0))
///     .network(NetworkSpec::new("VM Network"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct OvfSpec {
    pub(super) name: String,
    pub(super) os: (u16, String),
    pub(super) processors: u32,
    pub(super) memory_mib: u64,
    pub(super) hardware: String,
    pub(super) annotation: Option<String>,
    pub(super) disks: Vec<DiskSpec>,
    pub(super) networks: Vec<NetworkSpec>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) extra_files: Vec<String>,
}

impl OvfSpec {
    /// A machine with one processor and 1 GiB of memory, of hardware version 14 (vSphere 6.7), for an unnamed
    /// 64-bit system.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            os: (OTHER_OS, "otherGuest64".to_owned()),
            processors: 1,
            memory_mib: 1024,
            hardware: "vmx-14".to_owned(),
            annotation: None,
            disks: Vec::new(),
            networks: Vec::new(),
            settings: Vec::new(),
            extra_files: Vec::new(),
        }
    }

    /// Sets the operating system: VMware's name of it (`vim.vm.GuestOsDescriptor`), which importers go by, and
    /// CIM's number, which the standard wants (1: other).
    pub fn guest_os(mut self, vmware: impl Into<String>, cim: u16) -> Self {
        self.os = (cim, vmware.into());
        self
    }

    /// Sets the number of virtual processors.
    #[doc(alias = "numCPUs")]
    pub fn processors(mut self, count: u32) -> Self {
        self.processors = count;
        self
    }

    /// Sets the memory, in MiB.
    #[doc(alias = "memoryMB")]
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Sets the hardware version: 14 for `vmx-14`. A host that is older than it refuses the machine.
    pub fn hardware_version(mut self, version: u32) -> Self {
        self.hardware = format!("vmx-{version:02}");
        self
    }

    /// Sets the notes.
    pub fn annotation(mut self, text: impl Into<String>) -> Self {
        self.annotation = Some(text.into());
        self
    }

    /// Adds a disk.
    pub fn disk(mut self, disk: DiskSpec) -> Self {
        self.disks.push(disk);
        self
    }

    /// Adds an Ethernet adapter.
    pub fn network(mut self, network: NetworkSpec) -> Self {
        self.networks.push(network);
        self
    }

    /// Adds a setting of the machine that the standard has no word for, under VMware's name: `firmware` with `efi`,
    /// `bootOptions.efiSecureBootEnabled` with `true`. Importers that do not know it go on without.
    #[doc(alias = "vmw:Config")]
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Adds a file that is no disk (`nvram`, an image of a CD). The package carries it; no hardware refers to it.
    pub fn file(mut self, href: impl Into<String>) -> Self {
        self.extra_files.push(href.into());
        self
    }

    /// All names of files, in the order of the references.
    pub(super) fn hrefs(&self) -> impl Iterator<Item = &str> {
        self.disks.iter().map(|disk| disk.href.as_str()).chain(self.extra_files.iter().map(String::as_str))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.processors == 0 || self.memory_mib == 0 {
            return Err(Error::invalid("machine", "it has no processor or no memory"));
        }
        let mut places = std::collections::HashSet::new();
        for disk in &self.disks {
            disk.check()?;
            if !places.insert((disk.controller.bus(), disk.bus_number, disk.unit)) {
                return Err(Error::invalid("disk", format!("{} has the place of another", disk.href)));
            }
            let other = |of: &&DiskSpec| {
                of.controller != disk.controller
                    && (of.controller.bus(), of.bus_number) == (disk.controller.bus(), disk.bus_number)
            };
            if let Some(other) = self.disks.iter().find(other) {
                let problem = format!("{} and {} are on one controller of two kinds", disk.href, other.href);
                return Err(Error::invalid("disk", problem));
            }
        }
        Ok(())
    }
}

/// A disk of a new package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct DiskSpec {
    pub(super) href: String,
    pub(super) capacity: u64,
    pub(super) controller: DiskController,
    pub(super) bus_number: u32,
    pub(super) unit: u32,
}

impl DiskSpec {
    /// A disk of `capacity` bytes in file `href`, at unit 0 of the first LSI Logic SAS controller.
    pub fn new(href: impl Into<String>, capacity: u64) -> Self {
        Self { href: href.into(), capacity, controller: DiskController::LsiLogicSas, bus_number: 0, unit: 0 }
    }

    /// Sets controller, its bus number, and the unit on it: `scsi1:3` is bus 1, unit 3.
    pub fn at(mut self, controller: DiskController, bus_number: u32, unit: u32) -> Self {
        (self.controller, self.bus_number, self.unit) = (controller, bus_number, unit);
        self
    }

    fn check(&self) -> Result<()> {
        let (buses, units) = match self.controller.bus() {
            Bus::Ide => (2, 2),
            Bus::Sata => (4, 30),
            Bus::Nvme => (4, 64),
            _ if self.controller == DiskController::ParaVirtual => (4, 64),
            _ => (4, 16),
        };
        // The SCSI controller itself.
        let taken = self.controller.bus() == Bus::Scsi && self.unit == 7;
        if self.bus_number >= buses || self.unit >= units || taken {
            let problem =
                format!("{}: {}:{} is no place of {:?}", self.href, self.bus_number, self.unit, self.controller);
            return Err(Error::invalid("disk", problem));
        }
        Ok(())
    }
}

/// A controller of disks, as vSphere has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskController {
    /// IDE.
    #[doc(alias = "VirtualIDEController")]
    Ide,
    /// BusLogic SCSI.
    #[doc(alias = "VirtualBusLogicController")]
    BusLogic,
    /// LSI Logic SCSI.
    #[doc(alias = "VirtualLsiLogicController")]
    LsiLogic,
    /// LSI Logic SAS.
    #[doc(alias = "VirtualLsiLogicSASController")]
    LsiLogicSas,
    /// VMware Paravirtual SCSI.
    #[doc(alias = "ParaVirtualSCSIController")]
    ParaVirtual,
    /// SATA.
    #[doc(alias = "VirtualAHCIController")]
    Sata,
    /// NVMe.
    #[doc(alias = "VirtualNVMEController")]
    Nvme,
}

impl DiskController {
    pub(super) fn bus(self) -> Bus {
        match self {
            Self::Ide => Bus::Ide,
            Self::Sata => Bus::Sata,
            Self::Nvme => Bus::Nvme,
            Self::BusLogic | Self::LsiLogic | Self::LsiLogicSas | Self::ParaVirtual => Bus::Scsi,
        }
    }

    /// `rasd:ResourceSubType`, as VMware writes it.
    pub(super) fn subtype(self) -> Option<&'static str> {
        match self {
            Self::Ide => None,
            Self::BusLogic => Some("buslogic"),
            Self::LsiLogic => Some("lsilogic"),
            Self::LsiLogicSas => Some("lsilogicsas"),
            Self::ParaVirtual => Some("VirtualSCSI"),
            Self::Sata => Some("vmware.sata.ahci"),
            Self::Nvme => Some("vmware.nvme.controller"),
        }
    }
}

/// An Ethernet adapter of a new package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct NetworkSpec {
    pub(super) network: String,
    pub(super) adapter: String,
}

impl NetworkSpec {
    /// A `VmxNet3` adapter on a network, which whoever imports the package maps to one of theirs.
    pub fn new(network: impl Into<String>) -> Self {
        Self { network: network.into(), adapter: "VmxNet3".to_owned() }
    }

    /// Sets the adapter: `VmxNet3`, `E1000`, `E1000e`, `PCNet32`.
    pub fn adapter(mut self, adapter: impl Into<String>) -> Self {
        self.adapter = adapter.into();
        self
    }
}

/// CIM's number of an operating system that it has none for.
const OTHER_OS: u16 = 1;
