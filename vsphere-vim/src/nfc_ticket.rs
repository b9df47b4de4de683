//! Tickets for disks over port 902 (NFC).
//!
//! The methods are not part of the public model; their names and parameters come from captures of others. A ticket
//! is good for one connection: fetch it just before dialling.

use std::fmt;

use vsphere_vim_types::{
    HostServiceTicket, MoRef,
    internal::{
        NfcFileManagement, NfcGetServerNfcLibVersion, NfcRandomAccessOpenDisk, NfcRandomAccessOpenReadonly, NfcService,
        RetrieveInternalContent,
    },
    mo,
};

use crate::{
    client::{Vim, service_instance},
    device::DeviceKey,
    error::{Call, Error, Result},
    secret::Secret,
    trust::Thumbprint,
};

/// What the ticket's holder may do with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskAccess {
    /// Read. Enough for backups.
    ReadOnly,
    /// Read and write. The virtual machine has to be off.
    ReadWrite,
}

/// A right to open one connection to the disk service of a host.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[doc(alias = "HostServiceTicket")]
pub struct NfcTicket {
    /// The host to dial: named by vCenter, or the ESXi host that this client is connected to.
    pub host: String,
    /// The TCP port, 902.
    pub port: u16,
    /// The digest of the host's certificate.
    pub thumbprint: Option<Thumbprint>,
    /// The host's certificate as PEM; newer servers send it instead of the thumbprint.
    pub certificate: Option<String>,
    /// The service to ask for: `vpxa-nfc` from vCenter, `nfc` from a host.
    pub service: String,
    /// The service's version, `1.1`.
    pub service_version: String,
    /// The secret that opens the door once.
    pub session_id: Secret,
}

impl fmt::Debug for NfcTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NfcTicket")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Vim {
    /// Gets a ticket for one disk of a virtual machine.
    ///
    /// The ticket names the disk by its key; which point in time is read is decided by the path that is opened later.
    /// `host` is where the machine runs (`runtime.host`).
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the server has no such service or its host is too old, `NoPermission`,
    /// [`Error::Protocol`] when the ticket's thumbprint, port, service or session id is not usable. A ticket with
    /// neither thumbprint nor certificate is none of these: whoever dials has to refuse it.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomRead` to read, `...DiskRandomAccess` to write.
    ///
    /// # Cancel safety
    /// A dropped future may leave a ticket that nobody uses; it expires.
    #[doc(alias = "NfcRandomAccessOpenReadonly")]
    #[doc(alias = "NfcRandomAccessOpenDisk")]
    pub async fn nfc_ticket(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        disk: DeviceKey,
        host: Option<&MoRef<mo::HostSystem>>,
        access: DiskAccess,
    ) -> Result<NfcTicket> {
        let service = self.nfc_service().await?;
        let (vm, disk_device_key, host_for_access) = (vm.clone(), disk.0, host.cloned());
        let (operation, ticket) = match access {
            DiskAccess::ReadOnly => {
                let args = NfcRandomAccessOpenReadonly { vm, disk_device_key, host_for_access, ..Default::default() };
                ("NfcRandomAccessOpenReadonly", self.invoke(&service, args).await)
            }
            DiskAccess::ReadWrite => {
                let args = NfcRandomAccessOpenDisk { vm, disk_device_key, host_for_access, ..Default::default() };
                ("NfcRandomAccessOpenDisk", self.invoke(&service, args).await)
            }
        };
        let ticket = ticket.map_err(|error| too_old(operation, error))?;
        NfcTicket::from_wire(ticket, self.endpoint().host())
            .map_err(|what| Error::protocol(Call::on(operation, service.as_untyped()), what))
    }

    /// Gets a ticket for the files of a datastore: files and whole disks are fetched and stored with it, directories
    /// made, files deleted.
    ///
    /// # Errors
    /// As [`nfc_ticket`](Self::nfc_ticket).
    ///
    /// # Privileges
    /// `Datastore.FileManagement`, as far as its name tells.
    ///
    /// # Cancel safety
    /// A dropped future may leave a ticket that nobody uses; it expires.
    #[doc(alias = "NfcFileManagement")]
    pub async fn nfc_datastore_ticket(&self, datastore: &MoRef<mo::Datastore>) -> Result<NfcTicket> {
        const OPERATION: &str = "NfcFileManagement";
        let service = self.nfc_service().await?;
        let args = NfcFileManagement { ds: datastore.clone(), ..Default::default() };
        let ticket = self.invoke(&service, args).await.map_err(|error| too_old(OPERATION, error))?;
        NfcTicket::from_wire(ticket, self.endpoint().host())
            .map_err(|what| Error::protocol(Call::on(OPERATION, service.as_untyped()), what))
    }

    /// The version of the disk service on a host: 11 on ESXi 8, 7 on 7.0, 2 on 6.7, 0 on 6.5.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on ESXi 6.0 and older.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "NfcGetServerNfcLibVersion")]
    pub async fn nfc_version(&self, host: &MoRef<mo::HostSystem>) -> Result<i32> {
        let args = NfcGetServerNfcLibVersion { host_for_access: host.clone(), ..Default::default() };
        let service = self.nfc_service().await?;
        self.invoke(&service, args).await.map_err(|error| too_old("NfcGetServerNfcLibVersion", error))
    }

    /// Finds the service; it has another name on each kind of server.
    async fn nfc_service(&self) -> Result<MoRef<NfcService>> {
        if let Some(service) = self.nfc_service_cell().get() {
            return Ok(service.clone());
        }
        let content = self.invoke(&service_instance(), RetrieveInternalContent::default()).await?;
        let service = content
            .nfc_service
            .ok_or_else(|| Error::unsupported("disk access over port 902", "the server has no NfcService"))?;
        Ok(self.nfc_service_cell().get_or_init(|| service).clone())
    }

    /// The host that a virtual machine runs on, as tickets want it.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn host_of(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<MoRef<mo::HostSystem>> {
        self.get(vm, vsphere_vim_types::PropertyPath::new("runtime.host")).await
    }
}

/// Hosts before 6.5 answer `InvalidRequest` to a method that they lack.
fn too_old(operation: &str, error: Error) -> Error {
    if error.is_fault("InvalidRequest") || error.is_fault("MethodNotFound") || error.is_fault("NotSupported") {
        Error::unsupported(operation, error.to_string())
    } else {
        error
    }
}

impl NfcTicket {
    fn from_wire(mut ticket: HostServiceTicket, connected_to: &str) -> Result<Self, String> {
        let session_id = Secret::new(std::mem::take(&mut ticket.session_id));
        let present = |text: &String| !text.trim().is_empty();
        let thumbprint = match ticket.ssl_thumbprint.filter(present) {
            Some(text) => Some(text.parse().map_err(|error: Error| format!("the ticket's {error}"))?),
            None => None,
        };
        let port = match ticket.port {
            None | Some(0) => DEFAULT_PORT,
            Some(port) => u16::try_from(port).map_err(|_| format!("the ticket's port is {port}"))?,
        };
        if session_id.expose().is_empty() || !printable(session_id.expose()) || !printable(&ticket.service) {
            return Err("the ticket holds no usable session id or service".to_owned());
        }
        Ok(Self {
            // A host that hands out tickets for itself leaves its name out.
            host: ticket.host.filter(present).unwrap_or_else(|| connected_to.to_owned()),
            port,
            thumbprint,
            certificate: ticket.ssl_certificate.filter(present),
            service: ticket.service,
            service_version: ticket.service_version,
            session_id,
        })
    }
}

/// Both go into a line protocol: a line break within would be another command.
fn printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where ESXi serves NFC when a ticket does not say it.
const DEFAULT_PORT: u16 = 902;

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> HostServiceTicket {
        HostServiceTicket {
            service: "nfc".into(),
            service_version: "1.1".into(),
            session_id: "52-secret".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_host_without_a_name_is_the_one_that_was_asked() {
        let plain = NfcTicket::from_wire(ticket(), "esx1").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.thumbprint), ("esx1", 902, None));
        let named = HostServiceTicket { host: Some("192.0.2.10".into()), port: Some(9902), ..ticket() };
        let named = NfcTicket::from_wire(named, "vc").unwrap();
        assert_eq!((named.host.as_str(), named.port), ("192.0.2.10", 9902));
    }

    #[test]
    fn thumbprints_of_both_lengths_are_taken_and_broken_ones_refused() {
        for length in [20, 32] {
            let thumbprint = vec!["0A"; length].join(":");
            let ticket = HostServiceTicket { ssl_thumbprint: Some(thumbprint.clone()), ..ticket() };
            assert_eq!(NfcTicket::from_wire(ticket, "h").unwrap().thumbprint.unwrap().to_string(), thumbprint);
        }
        assert!(
            NfcTicket::from_wire(HostServiceTicket { ssl_thumbprint: Some("0A:1B".into()), ..ticket() }, "h").is_err()
        );
    }

    #[test]
    fn a_ticket_cannot_smuggle_commands_into_the_line_protocol() {
        assert!(
            NfcTicket::from_wire(HostServiceTicket { session_id: "a\r\nPROXY x".into(), ..ticket() }, "h").is_err()
        );
        assert!(NfcTicket::from_wire(HostServiceTicket { service: "nfc\n".into(), ..ticket() }, "h").is_err());
        assert!(NfcTicket::from_wire(HostServiceTicket { port: Some(-1), ..ticket() }, "h").is_err());
    }

    #[test]
    fn debug_hides_the_session_id() {
        assert!(!format!("{:?}", NfcTicket::from_wire(ticket(), "h").unwrap()).contains("secret"));
    }
}
