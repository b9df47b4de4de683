//! Controllers: their kinds, and how much hangs on each.

use vsphere_vim_types::{
    ParaVirtualSCSIController, Poly, VirtualAHCIController, VirtualBusLogicController, VirtualController,
    VirtualDevice, VirtualLsiLogicController, VirtualLsiLogicSASController, VirtualNVMEController,
    VirtualSATAController, VirtualSCSIController, VirtualSCSISharing,
};

/// A kind of disk controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ControllerKind {
    /// Paravirtual SCSI.
    #[doc(alias = "ParaVirtualSCSIController")]
    ParaVirtual,
    /// LSI Logic parallel SCSI.
    #[doc(alias = "VirtualLsiLogicController")]
    LsiLogic,
    /// LSI Logic SAS.
    #[doc(alias = "VirtualLsiLogicSASController")]
    LsiLogicSas,
    /// BusLogic parallel SCSI, of old guests.
    #[doc(alias = "VirtualBusLogicController")]
    BusLogic,
    /// IDE. Every machine has two, and no more can be added.
    #[doc(alias = "VirtualIDEController")]
    Ide,
    /// SATA (AHCI).
    #[doc(alias = "VirtualAHCIController")]
    Sata,
    /// NVMe.
    #[doc(alias = "VirtualNVMEController")]
    Nvme,
}

use ControllerKind::{BusLogic, Ide, LsiLogic, LsiLogicSas, Nvme, ParaVirtual, Sata};

impl ControllerKind {
    /// The kind of a device, if it is a controller for disks.
    pub fn of(device: &Poly<VirtualDevice>) -> Option<Self> {
        Some(match device.type_name() {
            "ParaVirtualSCSIController" => ParaVirtual,
            "VirtualLsiLogicController" => LsiLogic,
            "VirtualLsiLogicSASController" => LsiLogicSas,
            "VirtualBusLogicController" => BusLogic,
            "VirtualIDEController" => Ide,
            "VirtualAHCIController" | "VirtualSATAController" => Sata,
            "VirtualNVMEController" => Nvme,
            _ => return None,
        })
    }

    /// True for all kinds that share the SCSI buses 0 to 3.
    pub fn is_scsi(self) -> bool {
        matches!(self, ParaVirtual | LsiLogic | LsiLogicSas | BusLogic)
    }

    /// How many unit numbers there are, from 0 on. On SCSI, the controller itself takes number 7.
    ///
    /// Paravirtual controllers have 64 and NVMe controllers 64 on recent hardware versions; the numbers here hold on
    /// all.
    pub fn units(self) -> i32 {
        match self {
            ParaVirtual | LsiLogic | LsiLogicSas | BusLogic => 16,
            Ide => 2,
            Sata => 30,
            Nvme => 15,
        }
    }

    /// How many a machine can have; all kinds of SCSI count together.
    pub fn most(self) -> i32 {
        if self == Ide { 2 } else { 4 }
    }

    /// A new one of this kind; `None` for IDE, of which none can be added.
    pub(super) fn new_device(self, key: i32, bus_number: i32) -> Option<Poly<VirtualDevice>> {
        let scsi = || VirtualSCSIController { shared_bus: VirtualSCSISharing::NoSharing, ..Default::default() };
        let mut device: Poly<VirtualDevice> = match self {
            ParaVirtual => Poly::new(ParaVirtualSCSIController { base: scsi() }),
            LsiLogic => Poly::new(VirtualLsiLogicController { base: scsi() }),
            LsiLogicSas => Poly::new(VirtualLsiLogicSASController { base: scsi() }),
            BusLogic => Poly::new(VirtualBusLogicController { base: scsi() }),
            Sata => Poly::new(VirtualAHCIController { base: VirtualSATAController::default() }),
            Nvme => Poly::new(VirtualNVMEController::default()),
            Ide => return None,
        };
        device.key = key;
        device.downcast_mut::<VirtualController>()?.bus_number = bus_number;
        Some(device)
    }

    /// Whether two kinds share their bus numbers.
    pub(super) fn shares_buses_with(self, other: Self) -> bool {
        self == other || (self.is_scsi() && other.is_scsi())
    }
}
