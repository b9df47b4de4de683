//! Where disks come from.

use std::{fmt, sync::Arc};

use vsphere_nfc::{Channel, NfcOptions};
use vsphere_vim::{DiskAccess, MoRef, Vim, mo};

use crate::{
    disk::Disk,
    error::{Attempt, Error, Result},
    mode::{TransportList, TransportMode},
    transport::{FileTransport, NfcTransport, Transport},
};

/// What the disks of a connection are opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reading. Several may read at once.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_READ_ONLY")]
    ReadOnly,
    /// Reading and writing. The VM has to be powered off.
    ReadWrite,
}

impl Access {
    pub(crate) fn is_writing(self) -> bool {
        self == Self::ReadWrite
    }
}

impl From<Access> for DiskAccess {
    fn from(access: Access) -> Self {
        match access {
            Access::ReadOnly => Self::ReadOnly,
            Access::ReadWrite => Self::ReadWrite,
        }
    }
}

/// Settings of the transports. The defaults are meant to be right.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ConnectionOptions {
    nfc: NfcOptions,
    file: vmdk::OpenOptions,
}

impl ConnectionOptions {
    /// Buffers, time-outs and doubtful facts of `nbd` and `nbdssl`. The channel is set by the transport's name.
    pub fn nfc(self, nfc: NfcOptions) -> Self {
        Self { nfc, ..self }
    }

    /// Format, path policy and caches of `file`. The access is set by the connection.
    pub fn file(self, file: vmdk::OpenOptions) -> Self {
        Self { file, ..self }
    }
}

/// The disks of one virtual machine, or of this machine's files.
///
/// Cheap to clone; disks keep what they need of it, so it may be dropped while they are open. There is nothing to close:
/// each disk has a network connection of its own.
#[doc(alias = "VixDiskLibConnection")]
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    access: Access,
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
        let list: TransportList = transports.parse()?;
        let connection = Self::assemble(list, access, &options, |channel| {
            let mut nfc = options.nfc.clone();
            nfc.channel = channel;
            Some(Box::new(NfcTransport::new(vim.clone(), vm.clone(), access, nfc)))
        })?;
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
        let transport: Box<dyn Transport> = Box::new(FileTransport::new(access, options.file));
        let list = TransportList::from(TransportMode::File);
        Self { inner: Arc::new(Inner { access, list, transports: vec![Ok(transport)] }) }
    }

    fn assemble(
        list: TransportList,
        access: Access,
        options: &ConnectionOptions,
        nfc: impl Fn(Channel) -> Option<Box<dyn Transport>>,
    ) -> Result<Self> {
        let transport = |mode: &TransportMode| {
            let made: Option<Box<dyn Transport>> = match mode {
                TransportMode::File => Some(Box::new(FileTransport::new(access, options.file.clone()))),
                TransportMode::NbdSsl => nfc(Channel::Tls),
                TransportMode::Nbd => nfc(Channel::Clear),
                TransportMode::Https | TransportMode::San | TransportMode::HotAdd => None,
            };
            let reason = mode.not_offered().unwrap_or("it needs a connection to a server");
            made.ok_or(NotOffered { mode: *mode, reason })
        };
        let transports: Vec<_> = list.modes().iter().map(transport).collect();
        if transports.iter().all(Result::is_err)
            && let Some(Err(first)) = transports.first()
        {
            return Err((*first).into());
        }
        Ok(Self { inner: Arc::new(Inner { access, list, transports }) })
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
        let path = path.into();
        let mut attempts: Vec<Attempt> = Vec::new();
        for transport in &self.inner.transports {
            let (mode, error) = match transport {
                Err(not_offered) => (not_offered.mode, (*not_offered).into()),
                Ok(transport) => match transport.open(&path).await {
                    Ok(handle) => {
                        tracing::debug!(path, transport = %transport.mode(), capacity = handle.capacity(), "disk opened");
                        return Ok(Disk::new(self.clone(), path, transport.mode(), handle, attempts));
                    }
                    Err(error) if error.is_distrust() => return Err(error),
                    Err(error) => (transport.mode(), error),
                },
            };
            tracing::debug!(path, transport = %mode, %error, "not opened");
            attempts.push(Attempt { mode, error });
        }
        Err(match attempts.pop() {
            Some(only) if attempts.is_empty() => only.error,
            last => {
                attempts.extend(last);
                Error::NoTransport { path, attempts }
            }
        })
    }

    /// What disks are opened for.
    pub fn access(&self) -> Access {
        self.inner.access
    }

    /// The transports in the order of trying.
    pub fn transports(&self) -> &TransportList {
        &self.inner.list
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
type Slot = Result<Box<dyn Transport>, NotOffered>;

#[derive(Debug, Clone, Copy)]
struct NotOffered {
    mode: TransportMode,
    reason: &'static str,
}

impl From<NotOffered> for Error {
    fn from(NotOffered { mode, reason }: NotOffered) -> Self {
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
        Connection { inner: Arc::new(Inner { access: Access::ReadOnly, list, transports }) }
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
        let san = Err(NotOffered { mode: TransportMode::San, reason: "no" });
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
            Connection::assemble(list.parse().unwrap(), Access::ReadOnly, &ConnectionOptions::default(), |_| None)
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
