//! Settings of a connection.

use vsphere_nfc::NfcOptions;
use vsphere_vim::{MoRef, mo};

use crate::{governor::Governor, https::HttpsOptions};

/// Settings of the transports. The defaults are meant to be right.
#[doc(alias = "VixDiskLib_AllocateConnectParams")]
#[doc(alias = "VixDiskLib_GetConnectParams")]
#[doc(alias = "VixDiskLib_FreeConnectParams")]
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ConnectionOptions {
    pub(crate) nfc: NfcOptions,
    pub(crate) file: vmdk::OpenOptions,
    pub(crate) https: HttpsOptions,
    pub(crate) snapshot: Option<MoRef<mo::VirtualMachineSnapshot>>,
    pub(crate) governor: Option<Governor>,
    #[cfg(all(feature = "vddk", unix))]
    pub(crate) vddk: Option<crate::vddk::Choice>,
    #[cfg(all(feature = "vddk", unix))]
    pub(crate) vddk_server: Option<crate::vddk::Server>,
}

impl ConnectionOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Buffers, time-outs and doubtful facts of `nbd` and `nbdssl`. The channel is set by the transport's name.
    pub fn nfc(self, nfc: NfcOptions) -> Self {
        Self { nfc, ..self }
    }

    /// Format, path policy and caches of `file`. The access is set by the connection.
    pub fn file(self, file: vmdk::OpenOptions) -> Self {
        Self { file, ..self }
    }

    /// Connections, read-ahead and limits of `https`.
    pub fn https(self, https: HttpsOptions) -> Self {
        Self { https, ..self }
    }

    /// The point in time that disks are taken from. Paths are then looked for among the disks of this snapshot, and
    /// only there; without it, among those of the VM and of all its snapshots.
    #[doc(alias = "snapshotRef")]
    pub fn snapshot(self, snapshot: MoRef<mo::VirtualMachineSnapshot>) -> Self {
        Self { snapshot: Some(snapshot), ..self }
    }

    /// What keeps disks within the limits of hosts, and shares bandwidth between them: see [`Governor`]. Give the same
    /// to all connections. Without it nothing waits, and hosts refuse what is above their limits.
    pub fn governor(self, governor: Governor) -> Self {
        Self { governor: Some(governor), ..self }
    }

    /// Uses VMware's library: for the transports that this crate has not, or for all but `https`.
    ///
    /// A remote disk needs [`vddk_server`](Self::vddk_server) as well.
    #[cfg(all(feature = "vddk", unix))]
    pub fn vddk(self, library: crate::vddk::Library, used_for: crate::vddk::VddkUse) -> Self {
        Self { vddk: Some(crate::vddk::Choice { library, used_for }), ..self }
    }

    /// Who VMware's library connects to.
    #[cfg(all(feature = "vddk", unix))]
    pub fn vddk_server(self, server: crate::vddk::Server) -> Self {
        Self { vddk_server: Some(server), ..self }
    }
}
