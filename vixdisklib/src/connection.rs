//! Where disks come from.

use std::{fmt, sync::Arc};

use vsphere_vim::{MoRef, Vim, mo};

use crate::{
    disk::Disk,
    error::{Attempt, Error, Result},
    machine::{ListedDisk, Machine},
    mode::{TransportList, TransportMode},
    open::{Access, OpenOptions},
    options::ConnectionOptions,
    transport::{Place, Transport, make},
};

/// The disks of one virtual machine, or of this machine's files.
///
/// Cheap to clone; disks keep what they need of it, so it may be dropped while they are open. There is nothing to close:
/// each disk has a network connection of its own.
#[doc(alias = "VixDiskLibConnection")]
#[doc(alias = "VixDiskLib_Init")]
#[doc(alias = "VixDiskLib_InitEx")]
#[doc(alias = "VixDiskLib_Disconnect")]
#[doc(alias = "VixDiskLib_Exit")]
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    access: Access,
    place: Place,
    list: TransportList,
    /// In the order of the list; what cannot be used stands in its place with the reason.
    transports: Vec<Slot>,
}

impl Connection {
    /// Prepares to open the disks of a virtual machine over the transports of a list such as `nbdssl:nbd`.
    ///
    /// The list's order is the order of trying, anew for every disk. Clear text (`nbd`) is used only where it is named.
    ///
    /// # Errors
    /// [`Error::UnknownTransport`]; [`Error::Unavailable`] when none of the list can be used, [`Error::Server`] when
    /// the VM cannot be read.
    ///
    /// # Privileges
    /// `System.Read` on the VM here; `VirtualMachine.Provisioning.DiskRandomRead` or `...DiskRandomAccess` when a disk
    /// is opened.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_Connect")]
    #[doc(alias = "VixDiskLib_ConnectEx")]
    pub async fn connect(vim: &Vim, vm: &MoRef<mo::VirtualMachine>, access: Access, transports: &str) -> Result<Self> {
        Self::connect_with(vim, vm, access, transports, ConnectionOptions::default()).await
    }

    /// The same with settings of the transports.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Privileges
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect_with(
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        access: Access,
        transports: &str,
        options: ConnectionOptions,
    ) -> Result<Self> {
        let machine = Machine { vim: vim.clone(), vm: vm.clone(), snapshot: options.snapshot.clone() };
        let connection = Self::assemble(transports.parse()?, access, Place::Machine(machine), &options)?;
        // Fails here, not at the first disk, when there is no such VM or no right to see it.
        let name = vim.get(vm, mo::VirtualMachine::NAME).await.map_err(|source| Error::Server {
            operation: "reading the name",
            of: vm.to_string(),
            source: Box::new(source),
        })?;
        tracing::debug!(%vm, name, transports = %connection.inner.list, ?access, "ready to open disks");
        Ok(connection)
    }

    /// Prepares to open files of this machine.
    #[doc(alias = "VixDiskLib_Connect")]
    pub fn local(access: Access) -> Self {
        Self::local_with(access, ConnectionOptions::default())
    }

    /// The same with settings.
    pub fn local_with(access: Access, options: ConnectionOptions) -> Self {
        let list = TransportList::from(TransportMode::File);
        let transports = Self::slots_of(&list, &Place::Local, &options);
        Self { inner: Arc::new(Inner { access, place: Place::Local, list, transports }) }
    }

    /// The transports that this version can use, in the order in which they are best tried.
    #[doc(alias = "VixDiskLib_ListTransportModes")]
    pub fn list_transport_modes() -> TransportList {
        TransportList::default()
    }

    fn assemble(list: TransportList, access: Access, place: Place, options: &ConnectionOptions) -> Result<Self> {
        let transports = Self::slots_of(&list, &place, options);
        if transports.iter().all(Result::is_err)
            && let Some(Err(first)) = transports.first()
        {
            return Err((*first).into());
        }
        Ok(Self { inner: Arc::new(Inner { access, place, list, transports }) })
    }

    fn slots_of(list: &TransportList, place: &Place, options: &ConnectionOptions) -> Vec<Slot> {
        let slot =
            |mode: &TransportMode| make(*mode, place, options).map_err(|reason| Unavailable { mode: *mode, reason });
        list.modes().iter().map(slot).collect()
    }

    /// Opens a disk by the first transport of the list that can.
    ///
    /// Remote disks are named by datastore path, as in `[ds1] web/web.vmdk`. **The path decides which point in time is
    /// read**: after a snapshot, the file that the VM had before it.
    ///
    /// # Errors
    /// The transport's own error when only one was tried, [`Error::NoTransport`] with all reasons when several were. A
    /// certificate that is not the expected one ends the search.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomRead` to read, `...DiskRandomAccess` to write.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened. A ticket may have been used up.
    #[doc(alias = "VixDiskLib_Open")]
    pub async fn open(&self, path: impl Into<String>) -> Result<Disk> {
        self.open_with(path, OpenOptions::default()).await
    }

    /// The same with options for this disk.
    ///
    /// # Errors
    /// As [`open`](Self::open), [`Error::ReadOnly`] for more access than the connection has, and
    /// [`Error::NotOffered`] for what a transport cannot.
    ///
    /// # Privileges
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    #[doc(alias = "VixDiskLib_Open")]
    pub async fn open_with(&self, path: impl Into<String>, options: OpenOptions) -> Result<Disk> {
        let path = path.into();
        let access = options.access.unwrap_or(self.inner.access);
        if access.is_writing() {
            self.check_writable("open for writing", &path)?;
        }
        let mut attempts: Vec<Attempt> = Vec::new();
        for transport in &self.inner.transports {
            let (mode, error) = match transport {
                Err(unavailable) => (unavailable.mode, (*unavailable).into()),
                Ok(transport) => match transport.open(&path, access, &options).await {
                    Ok(handle) => {
                        tracing::debug!(path, transport = %transport.mode(), capacity = handle.capacity(), "disk opened");
                        return Ok(Disk::new(self.clone(), path, access, handle, attempts));
                    }
                    Err(error) if error.is_distrust() => return Err(error),
                    Err(error) => (transport.mode(), error),
                },
            };
            tracing::debug!(path, transport = %mode, %error, "not opened");
            attempts.push(Attempt { mode, error });
        }
        Err(Error::of_attempts(path, attempts))
    }

    /// The disks that can be opened, as the server lists them: those of the connection's snapshot, or of the VM as it
    /// is. None for files of this machine.
    ///
    /// # Errors
    /// [`Error::Server`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn disks(&self) -> Result<Vec<ListedDisk>> {
        match &self.inner.place {
            Place::Local => Ok(Vec::new()),
            Place::Machine(machine) => Ok(machine.disks().await?.into_iter().filter_map(ListedDisk::of).collect()),
        }
    }

    /// What disks are opened for.
    pub fn access(&self) -> Access {
        self.inner.access
    }

    /// The transports in the order of trying.
    pub fn transports(&self) -> &TransportList {
        &self.inner.list
    }

    /// The server that a datastore path is on.
    pub(crate) fn server_of(&self, path: &str) -> Option<&Vim> {
        match &self.inner.place {
            Place::Machine(machine) if path.starts_with('[') => Some(&machine.vim),
            _ => None,
        }
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.inner.transports
    }

    pub(crate) fn check_writable(&self, operation: &'static str, path: &str) -> Result<()> {
        match self.inner.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Error::ReadOnly { operation, path: path.to_owned() }),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("access", &self.inner.access)
            .field("transports", &format_args!("{}", self.inner.list))
            .finish_non_exhaustive()
    }
}

/// A transport, or why there is none.
pub(crate) type Slot = Result<Box<dyn Transport>, Unavailable>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Unavailable {
    pub(crate) mode: TransportMode,
    pub(crate) reason: &'static str,
}

impl From<Unavailable> for Error {
    fn from(Unavailable { mode, reason }: Unavailable) -> Self {
        Self::Unavailable { mode, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::Scripted;

    fn assert_send_sync<T: Send + Sync>(value: T) -> T {
        value
    }

    fn assert_send<T: Send>(value: T) -> T {
        value
    }

    fn of(transports: Vec<Slot>) -> Connection {
        let list = "nbdssl:nbd".parse().unwrap();
        Connection { inner: Arc::new(Inner { access: Access::ReadOnly, place: Place::Local, list, transports }) }
    }

    fn refusing(mode: TransportMode, error: fn() -> vsphere_nfc::Error) -> Slot {
        Ok(Box::new(Scripted::refusing(mode, move || Error::nfc("opening", "[ds1] a.vmdk")(error()))))
    }

    fn gone() -> vsphere_nfc::Error {
        vsphere_nfc::Error::Disconnected {
            endpoint: "esx:902".into(),
            phase: vsphere_nfc::Phase::Banner,
            reason: "reset".into(),
        }
    }

    fn impostor() -> vsphere_nfc::Error {
        vsphere_nfc::Error::ThumbprintMismatch {
            endpoint: "esx:902".into(),
            phase: vsphere_nfc::Phase::ServiceTls,
            expected: "AA".into(),
            actual: "BB".into(),
        }
    }

    #[tokio::test]
    async fn the_first_transport_that_works_wins_and_the_reasons_of_the_others_are_kept() {
        let san = Err(Unavailable { mode: TransportMode::San, reason: "no" });
        let works: Box<dyn Transport> = Box::new(Scripted::opening(TransportMode::Nbd, 1 << 20));
        let connection = of(vec![san, refusing(TransportMode::NbdSsl, gone), Ok(works)]);
        let disk = connection.open("[ds1] a.vmdk").await.unwrap();
        assert_eq!(disk.transport(), TransportMode::Nbd);
        let passed_over: Vec<_> = disk.passed_over().iter().map(|attempt| attempt.mode).collect();
        assert_eq!(passed_over, [TransportMode::San, TransportMode::NbdSsl]);
    }

    #[tokio::test]
    async fn a_wrong_certificate_never_leads_to_clear_text() {
        let works: Box<dyn Transport> = Box::new(Scripted::opening(TransportMode::Nbd, 1 << 20));
        let connection = of(vec![refusing(TransportMode::NbdSsl, impostor), Ok(works)]);
        let error = connection.open("[ds1] a.vmdk").await.unwrap_err();
        assert!(error.is_distrust(), "{error}");
    }

    #[tokio::test]
    async fn one_failure_is_told_as_it_is_and_several_as_a_list() {
        let one = of(vec![refusing(TransportMode::NbdSsl, gone)]);
        assert!(matches!(one.open("[ds1] a.vmdk").await, Err(Error::Nfc { .. })));
        let two = of(vec![refusing(TransportMode::NbdSsl, gone), refusing(TransportMode::Nbd, gone)]);
        let error = two.open("[ds1] a.vmdk").await.unwrap_err();
        assert!(matches!(&error, Error::NoTransport { attempts, .. } if attempts.len() == 2));
        assert!(error.is_retryable());
    }

    #[test]
    fn a_list_without_any_offered_transport_is_refused_at_once() {
        let assemble = |list: &str| {
            let options = ConnectionOptions::default();
            Connection::assemble(list.parse().unwrap(), Access::ReadOnly, Place::Local, &options)
        };
        let error = assemble("hotadd:san").unwrap_err();
        assert!(matches!(error, Error::Unavailable { mode: TransportMode::HotAdd, .. }), "{error}");
        assert!(assemble("san:file").is_ok());
    }

    #[tokio::test]
    async fn connections_disks_and_their_futures_move_between_threads() {
        let connection = assert_send_sync(Connection::local(Access::ReadOnly));
        let future = assert_send(connection.open("/nowhere.vmdk"));
        let _: Result<Disk> = future.await.map(assert_send_sync);
    }
}
