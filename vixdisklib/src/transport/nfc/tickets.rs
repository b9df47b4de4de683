//! Tickets for one disk of a virtual machine, and for the files of a datastore.

use vsphere_nfc::{BoxFuture, Pin, ServerVersion, SessionId, Ticket, TicketError, TicketSource};
use vsphere_vim::{DeviceKey, MoRef, NfcTicket, Thumbprint, Vim, mo};

use crate::{
    machine::{FoundDisk, Machine},
    open::Access,
};

/// Tickets for one disk of a virtual machine, for users of the crate `vsphere-nfc`.
///
/// The server is asked for one whenever a connection is made, and for the machine's host each time, as it may have moved.
pub struct VmTickets {
    machine: Machine,
    disk: DeviceKey,
    access: Access,
    capacity: Option<u64>,
}

impl VmTickets {
    /// Tickets for the disk with that key.
    pub fn of_disk(vim: &Vim, vm: &MoRef<mo::VirtualMachine>, disk: DeviceKey, access: Access) -> Self {
        Self { machine: Machine { vim: vim.clone(), vm: vm.clone(), snapshot: None }, disk, access, capacity: None }
    }

    pub(super) fn new(machine: &Machine, disk: &FoundDisk, access: Access) -> Self {
        Self { machine: machine.clone(), disk: disk.key, access, capacity: Some(disk.capacity) }
    }

    /// Says how large the disk is: hosts before ESXi 6.7 do not, and are read only when it is known.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    async fn ask_version(&self) -> ServerVersion {
        let Ok(host) = self.machine.vim.host_of(&self.machine.vm).await else { return ServerVersion::Unknown };
        match self.machine.vim.nfc_version(&host).await {
            Ok(version) => u32::try_from(version).map_or(ServerVersion::Unknown, ServerVersion::Known),
            Err(vsphere_vim::Error::Unsupported { .. }) => ServerVersion::Missing,
            Err(error) => {
                tracing::debug!(%host, %error, "the NFC version of a host is not known");
                ServerVersion::Unknown
            }
        }
    }

    async fn fetch(&self) -> Result<Ticket, TicketError> {
        let failed = |message: String| {
            move |error: vsphere_vim::Error| TicketError::from_error(message, error.is_retryable(), error)
        };
        let Machine { vim, vm, .. } = &self.machine;
        // Asked for each time: the VM may have moved.
        let host = vim.host_of(vm).await.map_err(failed(format!("the host of {vm} is not known")))?;
        let ticket = vim.nfc_ticket(vm, self.disk, Some(&host), self.access.into()).await;
        let ticket = ticket.map_err(failed(format!("no ticket for disk {} of {vm} on {host}", self.disk)))?;
        convert(ticket)
    }
}

impl TicketSource for VmTickets {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        Box::pin(self.fetch())
    }

    fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    fn server_version(&self) -> BoxFuture<'_, ServerVersion> {
        Box::pin(self.ask_version())
    }
}

/// Tickets for the files of a datastore, for [`vsphere_nfc::NfcFiles`]. The server is asked for one whenever a connection
/// is made.
pub struct DatastoreTickets {
    vim: Vim,
    store: MoRef<mo::Datastore>,
}

impl DatastoreTickets {
    /// Tickets for that datastore.
    pub fn new(vim: &Vim, store: &MoRef<mo::Datastore>) -> Self {
        Self { vim: vim.clone(), store: store.clone() }
    }

    async fn fetch(&self) -> Result<Ticket, TicketError> {
        let failed = |error: vsphere_vim::Error| {
            let message = format!("no ticket for the files of {}", self.store);
            TicketError::from_error(message, error.is_retryable(), error)
        };
        convert(self.vim.nfc_datastore_ticket(&self.store).await.map_err(failed)?)
    }
}

impl TicketSource for DatastoreTickets {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        Box::pin(self.fetch())
    }
}

fn convert(ticket: NfcTicket) -> Result<Ticket, TicketError> {
    let pin = match (&ticket.certificate, ticket.thumbprint) {
        (Some(pem), _) => {
            let broken = |error| TicketError::from_error("the ticket's certificate is broken", false, error);
            Some(Pin::from_pem(pem).map_err(broken)?)
        }
        (None, Some(Thumbprint::Sha1(digest))) => Some(Pin::Sha1(digest)),
        (None, Some(Thumbprint::Sha256(digest))) => Some(Pin::Sha256(digest)),
        (None, None) => None,
    };
    Ok(Ticket {
        host: ticket.host,
        port: ticket.port,
        pin,
        service: ticket.service,
        session_id: SessionId::new(ticket.session_id.expose()),
    })
}
