//! Connections and disks for callers without async: file systems in user space, C programs, readers of file systems.
//!
//! Every call runs on the calling thread until it is done; the runtime's own threads only move network data. Files of
//! this machine are read and written by the calling thread itself.
//!
//! ```no_run
//! use vixdisklib::{Access, Connection, blocking};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Runtime::new()?;
//! let disks = blocking::Connection::new(Connection::local(Access::ReadOnly), runtime.handle());
//! let disk = disks.open("/vm/web.vmdk")?;
//! let mut sector = [0; 512];
//! disk.read_into(0, &mut sector)?;
//! disk.close()?;
//! # Ok(())
//! # }
//! ```

mod connection;
mod disk;

use tokio::runtime::{Handle, RuntimeFlavor};

pub use self::{connection::Connection, disk::Disk};

/// Runs `future` to its end on the calling thread, wherever that is.
///
/// The runtime has to be one of several threads. A thread of it may call too, as a callback of some completion does:
/// another thread then takes over its work meanwhile.
///
/// # Panics
/// On a thread of a runtime of the kind `current_thread`.
pub fn block_on<F: Future>(runtime: &Handle, future: F) -> F::Output {
    match Handle::try_current() {
        Ok(_) => tokio::task::block_in_place(|| runtime.block_on(future)),
        Err(_) => runtime.block_on(future),
    }
}

/// Runs work that may block on the calling thread, wherever that is. Another thread takes over the work of a runtime of
/// several threads meanwhile; one of a single thread waits.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
