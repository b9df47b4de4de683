//! The crate's error: what was being done to which disk, whose fault it is, and what to do next.

use std::{error::Error as _, fmt, io, path::PathBuf};

use crate::{https::HttpsError, mode::TransportMode};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something with a virtual disk failed.
///
/// [`Error::Nfc`], [`Error::Https`], [`Error::File`] and [`Error::Server`] are the fault of what lies below and keep its error whole; the
/// rest is found here, before anything is sent or written.
#[doc(alias = "VixDiskLib_GetErrorText")]
#[doc(alias = "VixDiskLib_FreeErrorText")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A list names a transport that does not exist.
    #[error("there is no transport {name:?}")]
    UnknownTransport {
        /// The name.
        name: String,
    },

    /// A transport exists but cannot be used.
    #[error("transport {mode} is not available: {reason}")]
    Unavailable {
        /// The transport.
        mode: TransportMode,
        /// Why.
        reason: &'static str,
    },

    /// A transport that has a disk, or could, does not do this with it.
    #[error("transport {mode} does not {operation}")]
    NotOffered {
        /// What was asked for, as a verb with its object.
        operation: &'static str,
        /// The transport.
        mode: TransportMode,
        /// What to do instead.
        hint: &'static str,
    },

    /// None of several transports could open a disk, or do with it what was asked for.
    #[error("no transport could do it with {path}: {}", listed(.attempts))]
    NoTransport {
        /// The disk.
        path: String,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },

    /// The name of a disk is not of the form that the transport needs.
    #[error("transport {mode} cannot open {path:?}: {expected}")]
    WrongPath {
        /// The transport.
        mode: TransportMode,
        /// The name.
        path: String,
        /// What it takes.
        expected: &'static str,
    },

    /// No disk of the VM, nor of its snapshots, has that file.
    #[error("{path} is not a disk of {vm} or of its snapshots")]
    NotOfVm {
        /// The file.
        path: String,
        /// The virtual machine.
        vm: String,
        /// The files that its disks have now.
        found: Vec<String>,
    },

    /// Bytes outside the disk.
    #[error("cannot {operation} {len} bytes at offset {offset} of {path}: it has {capacity} bytes")]
    OutOfRange {
        /// What was asked for, as a verb.
        operation: &'static str,
        /// The disk.
        path: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The disk's size in bytes.
        capacity: u64,
    },

    /// Offset or length are not whole sectors.
    #[error("cannot {operation} {len} bytes at offset {offset} of {path}: both must be multiples of {alignment}")]
    Unaligned {
        /// What was asked for, as a verb.
        operation: &'static str,
        /// The disk.
        path: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// What the transport needs, in bytes.
        alignment: u32,
    },

    /// A write through a connection that was opened for reading.
    #[error("cannot {operation} {path}: its connection was opened for reading")]
    ReadOnly {
        /// What was asked for, as a verb.
        operation: &'static str,
        /// The disk.
        path: String,
    },

    /// Two open disks cannot be put together to a chain.
    #[error("{child} cannot have {parent} under it: {problem}")]
    NotAttachable {
        /// The child.
        child: String,
        /// The parent.
        parent: String,
        /// What does not fit.
        problem: AttachProblem,
    },

    /// There is a disk, or a file of one, of that name already.
    #[error("cannot {operation} {path}: it exists")]
    Exists {
        /// What was asked for, as a verb.
        operation: &'static str,
        /// The disk.
        path: String,
    },

    /// A name that cannot stand for the holder of a lock.
    #[error("{identity:?} cannot be the identity of a lock: {reason}")]
    InvalidIdentity {
        /// The name.
        identity: String,
        /// Why not.
        reason: &'static str,
    },

    /// Somebody else keeps a VM in its place.
    #[error("{vm} is locked against migration by {} after {attempts} attempts", known_holder(.holder.as_deref()))]
    AccessLocked {
        /// The virtual machine.
        vm: String,
        /// Who, as far as the server says.
        holder: Option<String>,
        /// How often the lock was asked for.
        attempts: u32,
    },

    /// The journal of locks could not be used.
    #[error("{operation} the journal of locks in {} failed", directory.display())]
    Journal {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// Where it is.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// NFC over port 902 failed.
    #[error("{operation} {path} over NFC failed")]
    Nfc {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// The disk.
        path: String,
        /// Why.
        source: Box<vsphere_nfc::Error>,
    },

    /// The image or the file system under it failed.
    #[error("{operation} {path} failed")]
    File {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// The disk.
        path: String,
        /// Why.
        source: Box<vmdk::Error>,
    },

    /// Files of a datastore over HTTPS failed.
    #[error("{operation} {path} over HTTPS failed")]
    Https {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// The disk.
        path: String,
        /// Why.
        source: Box<HttpsError>,
    },

    /// A disk of a lease did not come to its end, and the lease was to be completed, or the disk to be gone on with. A
    /// lease that was to be completed is given up.
    #[error("{operation} {disk} did not come to its end")]
    Unfinished {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// The lease's name for the disk.
        disk: String,
    },

    /// The vCenter or host could not be asked about the VM.
    #[error("{operation} of {of} failed")]
    Server {
        /// What was asked for.
        operation: &'static str,
        /// About what.
        of: String,
        /// Why.
        source: Box<vsphere_vim::Error>,
    },

    /// A disk could not be served, or not be closed after it was.
    #[cfg(feature = "nbd-server")]
    #[error("{operation} the NBD server at {address} failed")]
    Serve {
        /// What was being done, in the form `listening on`.
        operation: &'static str,
        /// Where the server listens, or should.
        address: String,
        /// Why.
        source: std::io::Error,
    },

    /// VMware's library failed, or could not be used.
    #[cfg(all(feature = "vddk", unix))]
    #[error("{operation} {path} by VMware's library failed")]
    Vddk {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// The disk, or the library.
        path: String,
        /// Why.
        source: Box<vixdisklib_sys::load::Error>,
    },

    /// A disk of the caller's own failed ([`Disk::from_backend`](crate::Disk::from_backend)).
    #[error("{operation} {path} failed")]
    Backend {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// The disk.
        path: String,
        /// Why.
        source: crate::BackendError,
    },

    /// The runtime ended while a file operation was under way.
    #[error("{operation} {path} was cut off: the runtime is shutting down or the work panicked")]
    CutOff {
        /// What was being done, in the form `reading`.
        operation: &'static str,
        /// The disk.
        path: String,
    },
}

/// Why two disks do not make a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachProblem {
    /// The child has no parent by its descriptor: all of its data are its own.
    #[error("the child is a base disk")]
    ChildIsBase,
    /// The child was opened with its parents.
    #[error("the child was opened with its parents; open it as a single link")]
    ChildHasParents,
    /// The parent was opened without its own parents.
    #[error("the parent is a single link itself, and its own parent is missing")]
    ParentIsPart,
    /// The parent's content is not what it was when the child was made.
    #[error("the child wants a parent with content id {wanted}, and this one has {found}")]
    ContentId {
        /// What the child has written down.
        wanted: vmdk::Cid,
        /// What the parent has.
        found: vmdk::Cid,
    },
    /// The parent is larger.
    #[error("the parent has {parent} bytes and the child {child}")]
    Capacity {
        /// Bytes of the parent.
        parent: u64,
        /// Bytes of the child.
        child: u64,
    },
}

/// A transport that did not open a disk, or did not do what was asked for, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The transport.
    pub mode: TransportMode,
    /// Why not.
    pub error: Error,
}

impl Error {
    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Nfc { source, .. } => source.is_retryable(),
            Self::File { source, .. } => source.is_retryable(),
            Self::Https { source, .. } => source.is_retryable(),
            Self::Server { source, .. } => source.is_retryable(),
            #[cfg(all(feature = "vddk", unix))]
            Self::Vddk { source, .. } => source.is_retryable(),
            Self::NoTransport { attempts, .. } => attempts.iter().any(|attempt| attempt.error.is_retryable()),
            #[cfg(feature = "nbd-server")]
            Self::Serve { .. } => false,
            Self::AccessLocked { .. } => true,
            Self::UnknownTransport { .. }
            | Self::Unavailable { .. }
            | Self::NotOffered { .. }
            | Self::NotAttachable { .. }
            | Self::Exists { .. }
            | Self::InvalidIdentity { .. }
            | Self::Journal { .. }
            | Self::WrongPath { .. }
            | Self::NotOfVm { .. }
            | Self::OutOfRange { .. }
            | Self::Unaligned { .. }
            | Self::ReadOnly { .. }
            | Self::Unfinished { .. }
            | Self::Backend { .. }
            | Self::CutOff { .. } => false,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownTransport { .. } => "name transports as in `nbdssl:nbd:file`",
            Self::Unavailable { .. } => "use `nbdssl`",
            Self::NotOffered { hint, .. } => hint,
            Self::Exists { .. } => "choose another name, or say that it may be overwritten",
            Self::InvalidIdentity { .. } => "name the program, in 1 to 50 characters",
            Self::AccessLocked { .. } => "wait for the other program, or end its access if it died",
            Self::NotAttachable { .. } => "attach the disk that the child was made of, as it was then",
            Self::Journal { .. } => "make the directory writable; without a note no lock is taken",
            Self::NotOfVm { .. } => {
                "take the path from the VM's or its snapshot's present hardware; snapshots and consolidation change it"
            }
            Self::Unaligned { .. } => "round the range outward to whole sectors, and cut the bytes afterwards",
            Self::ReadOnly { .. } => "open the connection with Access::ReadWrite",
            Self::NoTransport { attempts, .. } => return attempts.iter().find_map(|attempt| attempt.error.hint()),
            Self::Nfc { source, .. } => {
                let text = source.hint().map(str::to_owned);
                return text.or_else(|| self.vim()?.hint());
            }
            Self::File { source, .. } => return source.hint().map(str::to_owned),
            Self::Https { source, .. } => return source.hint(),
            Self::Unfinished { .. } => {
                "read or write every disk that was begun to its end before completing the lease; after an error, from its beginning"
            }
            Self::Server { source, .. } => return source.hint(),
            #[cfg(feature = "nbd-server")]
            Self::Serve { .. } => return None,
            #[cfg(all(feature = "vddk", unix))]
            Self::Vddk { source, .. } => return source.hint().map(str::to_owned),
            Self::WrongPath { .. } | Self::OutOfRange { .. } | Self::Backend { .. } | Self::CutOff { .. } => {
                return None;
            }
        };
        Some(text.to_owned())
    }

    /// The server's own error, also when it only kept a ticket from being had.
    pub fn vim(&self) -> Option<&vsphere_vim::Error> {
        match self {
            Self::Server { source, .. } => Some(source),
            Self::Https { source, .. } => source.vim(),
            Self::Nfc { source, .. } => match &**source {
                vsphere_nfc::Error::Ticket(error) => error.inner()?.downcast_ref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The code of VMware's library, where it was the library that failed.
    #[cfg(all(feature = "vddk", unix))]
    pub fn vix_code(&self) -> Option<vixdisklib_sys::VixCode> {
        match self {
            Self::Vddk { source, .. } => source.vix_code(),
            _ => None,
        }
    }

    /// True when whoever answered cannot be trusted, so that no other way of asking is any better.
    pub(crate) fn is_distrust(&self) -> bool {
        match self {
            Self::Nfc { source, .. } => {
                matches!(**source, vsphere_nfc::Error::ThumbprintMismatch { .. } | vsphere_nfc::Error::InvalidTicket(_))
            }
            Self::Server { .. } | Self::Https { .. } => {
                let kind = self.vim().and_then(vsphere_vim::Error::transport_kind);
                kind == Some(vsphere_vim::error::TransportErrorKind::Untrusted)
            }
            _ => false,
        }
    }

    /// What to say after transports were tried in vain: the error of the only one, or all of them.
    pub(crate) fn of_attempts(path: String, mut attempts: Vec<Attempt>) -> Self {
        match attempts.pop() {
            Some(only) if attempts.is_empty() => only.error,
            last => {
                attempts.extend(last);
                Self::NoTransport { path, attempts }
            }
        }
    }

    pub(crate) fn nfc(operation: &'static str, path: &str) -> impl FnOnce(vsphere_nfc::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Nfc { operation, path, source: Box::new(source) }
    }

    pub(crate) fn https(operation: &'static str, path: &str) -> impl FnOnce(HttpsError) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Https { operation, path, source: Box::new(source) }
    }

    #[cfg(all(feature = "vddk", unix))]
    pub(crate) fn vddk(
        operation: &'static str,
        path: &str,
    ) -> impl FnOnce(vixdisklib_sys::load::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Vddk { operation, path, source: Box::new(source) }
    }

    pub(crate) fn file(operation: &'static str, path: &str) -> impl FnOnce(vmdk::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source: Box::new(source) }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.mode, self.error)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn known_holder(name: Option<&str>) -> &str {
    name.unwrap_or("somebody")
}

/// All attempts with all their causes: a list has no single source to hand on.
fn listed(attempts: &[Attempt]) -> String {
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_attempts_tells_every_cause() {
        let source = Box::new(vsphere_vim::Error::NotFound { what: "VirtualMachine:vm-1".into() });
        let server = Error::Server { operation: "listing the disks", of: "vm-1".into(), source };
        let file = Error::WrongPath { mode: TransportMode::File, path: "[a] b".into(), expected: "no" };
        let attempts = vec![
            Attempt { mode: TransportMode::NbdSsl, error: server },
            Attempt { mode: TransportMode::File, error: file },
        ];
        let error = Error::NoTransport { path: "[a] b".into(), attempts };
        let text = error.to_string();
        for part in ["[a] b", "nbdssl: listing the disks of vm-1 failed: VirtualMachine:vm-1 was not found", "file: "] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!error.is_retryable());
    }

    #[test]
    fn errors_are_small_enough_to_return() {
        assert!(size_of::<Error>() <= 96, "{}", size_of::<Error>());
    }
}
