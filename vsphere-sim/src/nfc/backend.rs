//! What the 902 server asks of the simulator behind it: tickets and files.
//!
//! The server knows the protocol and nothing else. Who may open what, and where the bytes are, is
//! decided behind these two traits, so that the storage engine and the protocol can be tested apart.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

pub use vsphere_nfc::wire::file::Geometry;

/// Redeems tickets and opens files. Calls may block; the server runs them off its own threads.
pub trait NfcBackend: Send + Sync + 'static {
    /// Uses up the ticket `session_id` for `service` (`vpxa-nfc` or `nfc`, never with `ssl`).
    ///
    /// # Errors
    /// [`RedeemError`] when the ticket is unknown, used, expired or meant for another service.
    fn redeem(&self, session_id: &str, service: &str) -> Result<Grant, RedeemError>;

    /// Opens the file `path` (`[datastore] folder/file.vmdk`) under what `grant` allows.
    ///
    /// # Errors
    /// [`OpenRefused`] with the NFC code and text that the client is to see.
    fn open(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused>;

    /// The same without the parents of the file: what it does not hold reads as zeros. A backend whose files have no
    /// parents need not tell the difference.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_link(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        self.open(grant, path, write)
    }

    /// The content of the plain file `path`.
    ///
    /// # Errors
    /// [`OpenRefused`] with the NFC code and text that the client is to see; so it is with all below.
    fn read_file(&self, _grant: &Grant, _path: &str) -> Result<Vec<u8>, OpenRefused> {
        Err(OpenRefused::not_offered())
    }

    /// Stores the plain file `path`.
    ///
    /// # Errors
    /// As above.
    fn write_file(&self, _grant: &Grant, _path: &str, _content: Vec<u8>) -> Result<(), OpenRefused> {
        Err(OpenRefused::not_offered())
    }

    /// Makes a disk of zeros, open for writing.
    ///
    /// # Errors
    /// As above.
    fn create_disk(&self, _grant: &Grant, _path: &str, _new: &NewDisk) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        Err(OpenRefused::not_offered())
    }

    /// Makes the directory `path`, with those above it or only in one that is there.
    ///
    /// # Errors
    /// As above.
    fn make_directory(&self, _grant: &Grant, _path: &str, _with_ancestors: bool) -> Result<(), OpenRefused> {
        Err(OpenRefused::not_offered())
    }

    /// Deletes the file `path`.
    ///
    /// # Errors
    /// As above.
    fn delete(&self, _grant: &Grant, _path: &str) -> Result<(), OpenRefused> {
        Err(OpenRefused::not_offered())
    }
}

/// An open disk: positioned, blocking input and output in bytes.
pub trait NfcFile: Send + Sync + 'static {
    /// The size in bytes.
    fn capacity(&self) -> u64;

    /// Bytes in a sector, as the open reply tells it. A 0 is sent as it is; clients take it as 512.
    fn sector_size(&self) -> u32 {
        512
    }

    /// The physical geometry of the open reply.
    fn geometry(&self) -> Geometry {
        Geometry::for_capacity(self.capacity())
    }

    /// Fills `buf` from `offset`. The server has checked that the range is inside the capacity.
    ///
    /// # Errors
    /// What the storage says; the client sees an NFC error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The bytes from `offset` where they lie in memory already, so that giving them neither blocks nor copies; `None`
    /// has them read by [`read_at`](Self::read_at). The server has checked that the range is inside the capacity.
    fn resident(&self, _offset: u64, _len: usize) -> Option<Bytes> {
        None
    }

    /// Writes all of `data` at `offset`. The server has checked range and write access.
    ///
    /// # Errors
    /// What the storage says; the client sees an NFC error.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// The parts of `range` that have storage behind them: ascending, merged, clipped to `range`.
    ///
    /// # Errors
    /// What the storage says; the client sees an NFC error.
    fn allocated(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>>;

    /// The disk database entry `key` (without `ddb.`), if there is one.
    fn ddb(&self, key: &str) -> Option<String>;

    /// All entries of the disk database: keys without `ddb.`, and values.
    fn ddb_entries(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Sets entries of the disk database.
    ///
    /// # Errors
    /// What the storage says; the client sees an NFC error.
    fn set_ddb(&self, _entries: &[(String, String)]) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the disk database cannot be written"))
    }

    /// Makes everything written durable; called when a writable file is closed.
    ///
    /// # Errors
    /// What the storage says; the client sees an NFC error as the answer to its close.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewDisk {
    /// The size in bytes, a multiple of 512.
    pub capacity: u64,
    /// Storage is taken as it is needed.
    pub thin: bool,
    /// `lsilogic` or `ide`, where the client said so.
    pub adapter: Option<&'static str>,
    /// A disk that exists is overwritten.
    pub overwrite: bool,
}

/// What a redeemed ticket allows. Its content is the backend's own business.
#[derive(Clone)]
pub struct Grant(Arc<dyn Any + Send + Sync>);

impl Grant {
    /// Wraps the backend's own description of what was granted.
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// The description again, when it is a `T`.
    pub fn downcast<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grant(..)")
    }
}

/// Why a ticket was not redeemed. The client sees only `530 Login incorrect` or a close.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// No such ticket was ever issued.
    #[error("the ticket is unknown")]
    Unknown,
    /// The ticket has been redeemed before.
    #[error("the ticket was used before")]
    Used,
    /// The ticket is too old.
    #[error("the ticket has expired")]
    Expired,
    /// The ticket is for another service than the one asked for.
    #[error("the ticket is for another service")]
    WrongService,
}

/// Why a file was not opened: what the NFC error message carries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NFC code {code}: {text}")]
pub struct OpenRefused {
    /// The NFC error code. Known on real hosts: 5 (out of NFC memory) and 0x0B (read-only ticket).
    pub code: u32,
    /// The text sent with it.
    pub text: String,
}

impl OpenRefused {
    /// A refusal with `code` and `text`.
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The answer of a backend that does not do this.
    pub fn not_offered() -> Self {
        Self::new(super::session::CODE_INVALID, "The operation is not offered here")
    }

    /// The answer to write flags under a read-only ticket.
    pub fn read_only() -> Self {
        Self::new(vsphere_nfc::wire::fault::CODE_READ_ONLY, "The file is read-only")
    }
}
