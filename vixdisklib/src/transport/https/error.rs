//! What goes wrong with files behind `/folder`.

use std::{fmt, io, ops::Range, time::Duration};

/// Why a file of a disk could not be read over HTTPS.
///
/// Names are datastore paths. Whose fault it is: the server's for [`Refused`](Self::Refused) to
/// [`Changed`](Self::Changed), the network's for [`TimedOut`](Self::TimedOut) and most of [`Server`](Self::Server), the
/// image's for [`Name`](Self::Name).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpsError {
    /// The server has the file and does not give it: it is locked by a running VM, or the right to read it is missing.
    #[error("the server refuses {file} with HTTP status {status}")]
    Refused {
        /// The file.
        file: String,
        /// The HTTP status. 500 is what locked files answer with, 403 a missing right.
        status: u16,
        /// What the server said.
        source: vsphere_vim::Error,
    },
    /// There is no such file, or the server does not show it.
    #[error("the server has no {file}")]
    NotFound {
        /// The file.
        file: String,
    },
    /// The datastore keeps disks as objects: there is no file with the bytes.
    #[error("{file} has its data in an object of {datastore}, not in a file")]
    ObjectStorage {
        /// The disk.
        file: String,
        /// The datastore, with its kind.
        datastore: String,
    },
    /// The server answers a range with the whole file.
    #[error("the server ignores that only {range:?} of {file} is wanted")]
    RangeIgnored {
        /// The file.
        file: String,
        /// What was asked for, in bytes.
        range: Range<u64>,
    },
    /// The server's answer is not the range that was asked for.
    #[error("the server answers {range:?} of {file} wrongly: {problem}")]
    WrongAnswer {
        /// The file.
        file: String,
        /// What was asked for, in bytes.
        range: Range<u64>,
        /// What is wrong.
        problem: String,
    },
    /// The file became another one while the disk was open.
    #[error("{file} changed while it was open: {change}")]
    Changed {
        /// The file.
        file: String,
        /// What is no longer as it was.
        change: String,
    },
    /// A range did not come in time, all tries together.
    #[error("{range:?} of {file} did not come within {after:?}")]
    TimedOut {
        /// The file.
        file: String,
        /// What was asked for, in bytes.
        range: Range<u64>,
        /// The limit.
        after: Duration,
    },
    /// A name in a descriptor leads nowhere that could be read.
    #[error("the name {name:?} of a file cannot be read over HTTPS: {problem}")]
    Name {
        /// The name, made absolute.
        name: String,
        /// Why not.
        problem: &'static str,
    },
    /// There is a file of that name already, and nothing is replaced.
    #[error("there is {file} already")]
    Exists {
        /// The file.
        file: String,
    },
    /// A file that was put there has another size than what was sent.
    #[error("{file} was sent with {expected} bytes, and the server says that it has {}", size(*.found))]
    WrongSize {
        /// The file.
        file: String,
        /// Bytes that were sent.
        expected: u64,
        /// Bytes that it has; `None` when it is not there.
        found: Option<u64>,
    },
    /// Anything else that the server or the network answered with.
    #[error("asking the server about {file}, or sending it, failed")]
    Server {
        /// The file.
        file: String,
        /// Why.
        source: vsphere_vim::Error,
    },
}

impl HttpsError {
    /// Sorts an error of the server by what it means for a file.
    pub(crate) fn of_server(file: &impl fmt::Display, range: Range<u64>, source: vsphere_vim::Error) -> Self {
        use vsphere_vim::error::TransportErrorKind::HttpStatus;
        let file = file.to_string();
        match (source.transport_kind(), &source) {
            (Some(HttpStatus(status @ (403 | 423 | 500))), _) => Self::Refused { file, status, source },
            (_, vsphere_vim::Error::NotFound { .. }) => Self::NotFound { file },
            (_, vsphere_vim::Error::Unsupported { .. }) if !range.is_empty() => Self::RangeIgnored { file, range },
            (_, vsphere_vim::Error::Protocol(problem)) => {
                Self::WrongAnswer { file, range, problem: problem.what.to_string() }
            }
            _ => Self::Server { file, source },
        }
    }

    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Server { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Refused { status: 403, .. } => {
                "grant Datastore.Browse and Datastore.FileManagement on the datastore; a file that a running VM holds is \
                 also refused by some hosts: take a snapshot and read it over `nbdssl`, or export it by a lease"
            }
            Self::Refused { file, .. } if is_of_snapshot(file) => {
                "the VM runs on this file: read the snapshot's own file, over `nbdssl`, or export the snapshot by a lease"
            }
            Self::Refused { .. } => {
                "hosts keep the disks of a running VM locked, those below its snapshots too: read it over `nbdssl`, export \
                 a snapshot by a lease, or power the VM off"
            }
            Self::NotFound { file } if is_of_snapshot(file) => {
                "some servers do not show the files of snapshots. The base alone would be an older disk, so it is not \
                 read instead: use `nbdssl`, or export the snapshot by a lease"
            }
            Self::NotFound { file } if file.ends_with("-flat.vmdk") => {
                "vSAN and vVol keep no such file: use `nbdssl` or a lease; elsewhere the disk was moved or removed"
            }
            Self::NotFound { .. } => {
                "take the path from the VM's or its snapshot's present hardware; snapshots and consolidation change it"
            }
            Self::ObjectStorage { .. } => "use `nbdssl`, or export the VM or a snapshot of it by a lease",
            Self::RangeIgnored { .. } | Self::WrongAnswer { .. } => {
                "a proxy between here and the server may be at fault; go straight to the host \
                 (HttpsOptions::route), or use `nbdssl`"
            }
            Self::Changed { .. } => "something writes to the disk: read a snapshot of it, or power the VM off",
            Self::Name { .. } => "read the disk over `nbdssl`, where the host finds its files itself",
            Self::Server { source, .. } => return source.hint(),
            Self::Exists { .. } => "choose another name, or remove the disk that is there",
            Self::WrongSize { .. } => "see whether the datastore is full, and repeat",
            Self::TimedOut { .. } => return None,
        };
        Some(text.to_owned())
    }

    /// The server's own error, where there is one.
    pub fn vim(&self) -> Option<&vsphere_vim::Error> {
        match self {
            Self::Refused { source, .. } | Self::Server { source, .. } => Some(source),
            _ => None,
        }
    }

    /// As an error of I/O, for the crate that walks the chain; [`HttpsError::take`] undoes it.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Refused { .. } => io::ErrorKind::ResourceBusy,
            Self::NotFound { .. } => io::ErrorKind::NotFound,
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Server { source, .. } if source.is_retryable() => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }

    /// What an error of the chain was before, if it was one of these.
    pub(super) fn take(error: vmdk::Error) -> Result<Self, vmdk::Error> {
        match error {
            vmdk::Error::Io { source, .. } if source.get_ref().is_some_and(|inner| inner.is::<Self>()) => {
                // Looked at in the line above.
                let inner = source.into_inner().and_then(|inner| inner.downcast::<Self>().ok());
                Ok(*inner.expect("the error was asked whether it is one"))
            }
            other => Err(other),
        }
    }
}

fn size(found: Option<u64>) -> String {
    found.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string())
}

/// Whether a file belongs to a snapshot, by the number that hosts give such files: `web-000001-sesparse.vmdk`.
fn is_of_snapshot(file: &str) -> bool {
    let stem = file.strip_suffix(".vmdk").unwrap_or(file);
    let stem = ["-sesparse", "-delta"].iter().find_map(|suffix| stem.strip_suffix(suffix)).unwrap_or(stem);
    let number = stem.rsplit_once('-').map_or("", |(_, number)| number);
    number.len() == 6 && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_snapshots_are_known_by_their_number() {
        for file in ["[ds1] web/web-000001.vmdk", "a-000012-sesparse.vmdk", "a-000012-delta.vmdk"] {
            assert!(is_of_snapshot(file), "{file}");
        }
        for file in ["web.vmdk", "web-flat.vmdk", "web-00001.vmdk", "web-000001-flat.vmdk", "000001.vmdk", "web_1.vmdk"]
        {
            assert!(!is_of_snapshot(file), "{file}");
        }
    }

    #[test]
    fn an_error_survives_the_way_through_the_chain() {
        let missing = HttpsError::NotFound { file: "[ds1] web/web-000001.vmdk".into() };
        let hint = missing.hint().unwrap();
        let error = vmdk::Error::io("open", "x", None, missing.into_io());
        let back = HttpsError::take(error).unwrap();
        assert!(matches!(&back, HttpsError::NotFound { file } if file.ends_with("web-000001.vmdk")));
        assert!(hint.contains("not") && back.hint() == Some(hint));
        assert!(HttpsError::take(vmdk::Error::io("open", "x", None, io::ErrorKind::NotFound.into())).is_err());
    }
}
