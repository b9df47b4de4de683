//! What a connection's handle stands for.

use std::sync::Arc;

use vixdisklib::{Access, Connection, ConnectionOptions};
use vixdisklib_sys::{ConnectParams, ConnectionHandle, VixCode};
use vsphere_vim::{MoRef, Vim};

use crate::{
    call::{Failure, Outcome},
    fork::PerProcess,
    given,
    handle::Table,
    library::Library,
    log::{self, Channel},
    target::Target,
};

/// All connections of the program.
pub(crate) static CONNECTIONS: PerProcess<Table<Linked>> = PerProcess::new(Table::new);

/// A connection, with the session that it needs. The session ends with the connection or its last disk.
pub(crate) struct Linked {
    connection: Connection,
    remote: Option<Remote>,
}

struct Remote {
    vim: Vim,
    target: Target,
}

/// What a program asks a connection for, beyond where to.
pub(crate) struct Wish {
    pub(crate) access: Access,
    pub(crate) snapshot: Option<String>,
    pub(crate) modes: Option<String>,
}

impl Linked {
    pub(crate) fn open(library: &Library, target: Option<Target>, wish: &Wish) -> Outcome<Self> {
        match target {
            None => Self::local(wish),
            Some(target) => library.block_on(Self::remote(library, target, wish)),
        }
    }

    fn local(wish: &Wish) -> Outcome<Self> {
        // Other transports may be named, but have nothing to offer for files of this machine.
        let list: Option<vixdisklib::TransportList> = wish.modes.as_deref().map(str::parse).transpose()?;
        if list.is_some_and(|list| !list.modes().contains(&vixdisklib::TransportMode::File)) {
            let text = "disks of this machine need the transport file; name the virtual machine by vmxSpec for others";
            return Err(Failure::new(VixCode::NOT_SUPPORTED, text));
        }
        Ok(Self { connection: Connection::local(wish.access), remote: None })
    }

    async fn remote(library: &Library, target: Target, wish: &Wish) -> Outcome<Self> {
        let vim = target.connect().await?;
        match Self::with_session(library, &vim, &target, wish).await {
            Ok(connection) => Ok(Self { connection, remote: Some(Remote { vim, target }) }),
            Err(failure) => {
                log_out(&vim).await;
                Err(failure)
            }
        }
    }

    async fn with_session(library: &Library, vim: &Vim, target: &Target, wish: &Wish) -> Outcome<Connection> {
        let machine = target.machine(vim).await?;
        let mut options = ConnectionOptions::default().nfc(library.config.nfc.clone());
        if let Some(snapshot) = &wish.snapshot {
            let value = snapshot.strip_prefix("moref=").unwrap_or(snapshot);
            options = options.snapshot(MoRef::new(value));
        }
        let usual = Connection::list_transport_modes().to_string();
        let modes = wish.modes.as_deref().unwrap_or(&usual);
        Ok(Connection::connect_with(vim, &machine, wish.access, modes, options).await?)
    }

    /// Gives up a share in the connection; the last one ends the session.
    pub(crate) fn release(self: Arc<Self>, library: &Library) {
        if let Some(Self { remote: Some(remote), .. }) = Arc::into_inner(self) {
            library.block_on(log_out(&remote.vim));
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The parameters that the program connected with, as it may have them back.
    pub(crate) fn to_params(&self) -> *mut ConnectParams {
        match &self.remote {
            Some(remote) => remote.target.to_params(),
            None => given::params(given::no_params(), given::Texts::default()),
        }
    }
}

/// The connection of a handle.
pub(crate) fn linked(handle: ConnectionHandle) -> Outcome<Arc<Linked>> {
    CONNECTIONS.find(handle as usize).ok_or_else(|| invalid("connection"))
}

pub(crate) fn invalid(what: &str) -> Failure {
    Failure::new(VixCode::INVALID_HANDLE, format!("this is no handle of an open {what}"))
}

/// Ends a session. A failure leaves it to the server, which ends idle sessions.
pub(crate) async fn log_out(vim: &Vim) {
    if let Err(error) = vim.logout().await {
        log::line(Channel::Log, &format!("the session could not be ended: {error}"));
    }
}
