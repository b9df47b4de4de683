//! How a single disk is opened.

use vsphere_nfc::CompressionWish;
use vsphere_vim::DiskAccess;

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

impl From<Access> for vmdk::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::ReadOnly => Self::ReadOnly,
            Access::ReadWrite => Self::ReadWrite,
        }
    }
}

/// How [`Connection::open_with`](crate::Connection::open_with) opens a disk. The defaults are what
/// [`Connection::open`](crate::Connection::open) does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct OpenOptions {
    pub(crate) single_link: bool,
    pub(crate) unbuffered: bool,
    pub(crate) compression: Option<CompressionWish>,
    pub(crate) access: Option<Access>,
}

impl OpenOptions {
    /// The whole chain, buffered, with the connection's compression and access.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens this file alone, without its parents: what it does not hold is a hole that means "ask the parent"
    /// ([`Holes::AskParent`](crate::Holes::AskParent)), and reads as zeros.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_SINGLE_LINK")]
    pub fn single_link(self, single_link: bool) -> Self {
        Self { single_link, ..self }
    }

    /// Asks for no caching by the operating system.
    ///
    /// A wish: `file` makes every write durable before it returns, and reads through the cache as always; remote
    /// transports have no cache here, and ignore it with a line in the log.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_UNBUFFERED")]
    pub fn unbuffered(self, unbuffered: bool) -> Self {
        Self { unbuffered, ..self }
    }

    /// Wishes for data to travel compressed. `nbd` and `nbdssl` ask the host, which may answer with plain data all
    /// the same; other transports ignore it with a line in the log.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB")]
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ")]
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ")]
    pub fn compression(self, wish: CompressionWish) -> Self {
        Self { compression: Some(wish), ..self }
    }

    /// Opens for less than the connection allows: a connection for writing opens this disk for reading. The other way
    /// is refused.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_READ_ONLY")]
    pub fn access(self, access: Access) -> Self {
        Self { access: Some(access), ..self }
    }
}
