//! Tickets for one disk of a virtual machine.

use vsphere_nfc::{BoxFuture, Pin, SessionId, Ticket, TicketError, TicketSource};
use vsphere_vim::{DeviceKey, MoRef, NfcTicket, Thumbprint, Vim, VirtualDiskInfo, mo};

use crate::{
    connection::Access,
    error::{Error, Result},
};

/// Asks for a ticket whenever a connection is made.
pub(super) struct VmTickets {
    vim: Vim,
    vm: MoRef<mo::VirtualMachine>,
    disk: DeviceKey,
    access: Access,
}

impl VmTickets {
    /// Finds the disk that a file belongs to: tickets are for a device key, and snapshots change the file but not the
    /// key.
    pub(super) async fn for_disk(
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        path: &str,
        access: Access,
    ) -> Result<Self> {
        let failed =
            |operation| move |source| Error::Server { operation, of: vm.to_string(), source: Box::new(source) };
        let disks = vim.disks(vm).await.map_err(failed("listing the disks"))?;
        let mut key = owner(&disks, path);
        if key.is_none() {
            // After a revert, files of a snapshot may lie on a branch that the running disk does not build upon.
            let snapshots = vim.snapshots(vm).await.map_err(failed("listing the snapshots"))?;
            for found in snapshots.iter() {
                let disks = vim.snapshot_disks(&found.snapshot).await;
                key = owner(&disks.map_err(failed("listing the disks of a snapshot"))?, path);
                if key.is_some() {
                    break;
                }
            }
        }
        let Some(disk) = key else {
            let found = disks.into_iter().filter_map(|disk| disk.backing.file_name).collect();
            return Err(Error::NotOfVm { path: path.to_owned(), vm: vm.to_string(), found });
        };
        Ok(Self { vim: vim.clone(), vm: vm.clone(), disk, access })
    }

    async fn fetch(&self) -> Result<Ticket, TicketError> {
        let failed = |message: String| {
            move |error: vsphere_vim::Error| TicketError::from_error(message, error.is_retryable(), error)
        };
        // Asked for each time: the VM may have moved.
        let host = self.vim.host_of(&self.vm).await;
        let host = host.map_err(failed(format!("the host of {} is not known", self.vm)))?;
        let ticket = self.vim.nfc_ticket(&self.vm, self.disk, Some(&host), self.access.into()).await;
        let ticket = ticket.map_err(failed(format!("no ticket for disk {} of {} on {host}", self.disk, self.vm)))?;
        convert(ticket)
    }
}

impl TicketSource for VmTickets {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        Box::pin(self.fetch())
    }
}

/// The disk whose chain has the file.
fn owner(disks: &[VirtualDiskInfo], path: &str) -> Option<DeviceKey> {
    let builds_on =
        |disk: &&VirtualDiskInfo| disk.backing.file_name.iter().chain(&disk.backing.parents).any(|file| file == path);
    disks.iter().find(builds_on).map(|disk| disk.key)
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
