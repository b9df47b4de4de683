//! What an error answers to whoever decides what to do next: its kind, the part of the work, the machine, and the
//! server's own name for it.

use std::error::Error as StdError;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::repository::storage::StorageErrorKind;

/// Whose fault an error is, and so who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The vSphere server, or a host, failed or refused something.
    Server,
    /// Reading or writing a virtual disk failed.
    Disk,
    /// The repository's storage failed.
    Storage,
    /// The repository's storage is full.
    StorageFull,
    /// The repository is damaged.
    Damage,
    /// A key is missing, wrong, or not to be had from its service.
    Key,
    /// What was asked for is not there: a repository, a point, a disk.
    NotFound,
    /// It was written by a newer release.
    Unsupported,
    /// The machine, or a hold, does not allow it now.
    Refused,
    /// Somebody else works on the same thing, or took over.
    Busy,
    /// A file of this computer failed, the journal's too.
    Local,
    /// The caller passed something that makes no sense.
    Invalid,
    /// The caller stopped the work.
    Cancelled,
    /// A fault of this crate, or the echo of an error that was told before.
    Internal,
}

/// In which part of the work an error arose.
///
/// An error knows its own part as well as its type tells; which step of a job it ended is in the job's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ErrorPhase {
    /// Asking the server what there is.
    Inventory,
    /// Locking the machine, or releasing it.
    Lock,
    /// Making or removing a snapshot.
    Snapshot,
    /// Opening the way to the disks.
    Connect,
    /// Creating, destroying or powering a machine, for a restore.
    Machine,
    /// Asking for the areas of a disk.
    Areas,
    /// Reading or writing a disk.
    Transfer,
    /// Reading or writing the repository.
    Repository,
    /// Keeping the journal.
    Journal,
    /// Reading or writing an image file.
    File,
    /// Before any of these: the call itself.
    Call,
}

impl Error {
    /// Tells whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => match error.kind {
                StorageErrorKind::Full => ErrorKind::StorageFull,
                _ => ErrorKind::Storage,
            },
            Self::Sink { .. } => ErrorKind::Storage,
            Self::NotARepository { .. } | Self::PointNotFound { .. } | Self::DiskNotFound { .. } => ErrorKind::NotFound,
            Self::UnsupportedVersion { .. } | Self::UnsupportedFeature { .. } => ErrorKind::Unsupported,
            Self::Damaged { .. }
            | Self::DamagedChunk { .. }
            | Self::DamagedPage { .. }
            | Self::UnknownDataKey { .. } => ErrorKind::Damage,
            Self::Encrypted { .. }
            | Self::NotEncrypted { .. }
            | Self::WrongKey { .. }
            | Self::NoKeySlot { .. }
            | Self::KeyService { .. } => ErrorKind::Key,
            Self::Disk { .. } => ErrorKind::Disk,
            Self::Areas { .. } | Self::MissedChange { .. } | Self::Server { .. } => ErrorKind::Server,
            Self::Refused { .. } | Self::RepositoryExists { .. } | Self::Held { .. } => ErrorKind::Refused,
            Self::File { .. } | Self::Journal { .. } => ErrorKind::Local,
            Self::JournalInUse { .. } | Self::Fenced { .. } | Self::Busy { .. } => ErrorKind::Busy,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Cancelled | Self::Abandoned => ErrorKind::Cancelled,
            Self::WriterStopped { .. } => ErrorKind::Internal,
        }
    }

    /// Tells in which part of the work it arose, as far as it knows itself.
    pub fn phase(&self) -> ErrorPhase {
        match self {
            Self::Server { operation, .. } => phase_of(operation),
            Self::Areas { .. } | Self::MissedChange { .. } => ErrorPhase::Areas,
            Self::Disk { operation: "opening", .. } => ErrorPhase::Connect,
            Self::Disk { .. } => ErrorPhase::Transfer,
            Self::Refused { .. } => ErrorPhase::Inventory,
            Self::File { .. } => ErrorPhase::File,
            Self::Journal { .. } | Self::JournalInUse { .. } => ErrorPhase::Journal,
            Self::Invalid { .. } | Self::Cancelled | Self::Abandoned => ErrorPhase::Call,
            _ => ErrorPhase::Repository,
        }
    }

    /// Returns the virtual machine that it is about, where the error names one: as the server calls it, by name, or by
    /// its `instanceUuid`.
    pub fn vm(&self) -> Option<&str> {
        match self {
            Self::Server { vm, .. } | Self::Refused { vm, .. } => Some(vm),
            Self::PointNotFound { point } | Self::DiskNotFound { point, .. } | Self::Held { point, .. } => {
                Some(point.vm().as_str())
            }
            _ => None,
        }
    }

    /// Returns vSphere's own name for it, such as `FileLocked`, where a server's fault is the cause.
    pub fn fault_name(&self) -> Option<&str> {
        let source = match self {
            Self::Disk { source, .. } | Self::Areas { source, .. } | Self::Server { source, .. } => source.inner(),
            Self::File { source, .. } => &**source,
            _ => return None,
        };
        let mut next: Option<&(dyn StdError + 'static)> = Some(source);
        while let Some(error) = next {
            let own = error.downcast_ref::<Self>().and_then(Self::fault_name);
            if let Some(name) = own.or_else(|| vim_of(error)?.fault_name()) {
                return Some(name);
            }
            next = error.source();
        }
        None
    }
}

/// Finds the client's error within one of the crates that are built on the client.
fn vim_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a vsphere_vim::Error> {
    let of_cbt = || error.downcast_ref::<vsphere_cbt::Error>()?.vim();
    let of_disk = || error.downcast_ref::<vixdisklib::Error>()?.vim();
    error.downcast_ref::<vsphere_vim::Error>().or_else(of_cbt).or_else(of_disk)
}

/// The operations of [`Error::Server`] that are not questions, which begin with `reading`, `looking` or `asking`.
fn phase_of(operation: &str) -> ErrorPhase {
    let found = PHASES.iter().find(|(operations, _)| operations.contains(&operation));
    found.map_or(ErrorPhase::Inventory, |(_, phase)| *phase)
}

const PHASES: [(&[&str], ErrorPhase); 4] = [
    (&["locking", "unlocking"], ErrorPhase::Lock),
    (
        &[
            "the snapshot",
            "waiting for a snapshot task",
            "reading the snapshot's disks",
            "removing a snapshot",
            "removing all snapshots",
            "removing the snapshot",
            "removing the snapshots",
            "consolidating the disks",
            "asking for consolidation",
        ],
        ErrorPhase::Snapshot,
    ),
    (&["connecting to the disks"], ErrorPhase::Connect),
    (
        &["creating the machine", "waiting for a machine of an earlier job", "powering off", "destroying"],
        ErrorPhase::Machine,
    ),
];

#[cfg(test)]
mod tests {
    use vsphere_vim::types::{FileLocked, MethodFault, Poly};

    use super::*;
    use crate::{
        error::DiskError,
        repository::{
            ChunkId, PageId, PointId, VmId,
            storage::{StorageError, StorageErrorKind as Kind},
        },
    };

    const VM: &str = "5029c440-0000-0000-0000-000000000001";

    fn locked() -> vsphere_vim::Error {
        let fault = Poly::<MethodFault>::new(FileLocked::default());
        let error = vsphere_vim::error::PropertyError {
            object: "VirtualMachine:vm-42".into(),
            path: "config".into(),
            fault: Some(fault),
            message: "no".into(),
        };
        vsphere_vim::Error::Property(Box::new(error))
    }

    fn server(operation: &'static str) -> Error {
        Error::Server { operation, vm: "vm-42".into(), source: DiskError::new(locked()) }
    }

    fn disk(operation: &'static str, source: DiskError) -> Error {
        Error::Disk { operation, disk: 2000, offset: 0, len: 512, source }
    }

    /// Kind and phase, then what else it answers.
    fn answers(error: &Error) -> String {
        let mut answers = format!("{:?} {:?}", error.kind(), error.phase());
        let rest = [
            error.vm().map(|vm| format!("vm={vm}")),
            error.is_retryable().then(|| "retry".to_owned()),
            error.hint().map(|_| "hint".to_owned()),
            error.fault_name().map(|fault| format!("fault={fault}")),
        ];
        for answer in rest.into_iter().flatten() {
            answers = format!("{answers} {answer}");
        }
        answers
    }

    #[test]
    fn every_error_answers() {
        let point = PointId::new(VmId::parse(VM).unwrap(), 7).unwrap();
        let (text, reason) = (|| "x".to_owned(), || "torn".to_owned());
        let storage = |kind| Error::Storage(StorageError::new(kind, "get", "packs/1"));
        let io = || std::io::Error::other("gone");
        let away = DiskError::new("away").retryable(true);
        let wrapped = vixdisklib::Error::Server { operation: "reading", of: text(), source: Box::new(locked()) };
        let wrapped = DiskError::new(wrapped).retryable(true);
        let table = [
            (storage(Kind::Unavailable), "Storage Repository retry"),
            (storage(Kind::Full), "StorageFull Repository hint"),
            (Error::NotARepository { location: text() }, "NotFound Repository hint"),
            (Error::RepositoryExists { location: text() }, "Refused Repository"),
            (Error::UnsupportedVersion { object: text(), found: 9, supported: 1 }, "Unsupported Repository hint"),
            (Error::UnsupportedFeature { object: text(), feature: text() }, "Unsupported Repository hint"),
            (Error::Encrypted { location: text() }, "Key Repository hint"),
            (Error::NotEncrypted { location: text() }, "Key Repository hint"),
            (Error::WrongKey { kind: "password", slots: 1 }, "Key Repository hint"),
            (Error::NoKeySlot { kind: "password" }, "Key Repository hint"),
            (Error::UnknownDataKey { object: text(), generation: 7 }, "Damage Repository"),
            (Error::KeyService { operation: "unwrap", service: text(), source: away }, "Key Repository retry"),
            (
                Error::Sink { operation: "the commit", source: DiskError::new("full").retryable(true) },
                "Storage Repository retry",
            ),
            (Error::damaged("a", "b"), "Damage Repository hint"),
            (
                Error::DamagedChunk { disk: 1, offset: 0, chunk: ChunkId([1; 32]), reason: reason() },
                "Damage Repository hint",
            ),
            (
                Error::DamagedPage { disk: 1, offset: 0, page: PageId([2; 32]), reason: reason() },
                "Damage Repository hint",
            ),
            (Error::PointNotFound { point: point.clone() }, OF_POINT),
            (Error::DiskNotFound { point: point.clone(), disk: 1 }, OF_POINT),
            (
                Error::Held { point, reason: reason() },
                "Refused Repository vm=5029c440-0000-0000-0000-000000000001 hint",
            ),
            (disk("reading", wrapped), "Disk Transfer retry fault=FileLocked"),
            (disk("reading", DiskError::from_error(server("the snapshot"))), "Disk Transfer fault=FileLocked"),
            (disk("opening", DiskError::new("no")), "Disk Connect"),
            (Error::Areas { disk: 1, source: DiskError::new(locked()) }, "Server Areas fault=FileLocked"),
            (Error::MissedChange { disk: 1, offset: 0 }, "Server Areas hint"),
            (server("the snapshot"), "Server Snapshot vm=vm-42 fault=FileLocked"),
            (server("unlocking"), "Server Lock vm=vm-42 fault=FileLocked"),
            (server("connecting to the disks"), "Server Connect vm=vm-42 fault=FileLocked"),
            (server("powering off"), "Server Machine vm=vm-42 fault=FileLocked"),
            (server("reading the configuration"), "Server Inventory vm=vm-42 fault=FileLocked"),
            (Error::Refused { vm: text(), reason: reason(), hint: Some(text()) }, "Refused Inventory vm=x hint"),
            (Error::File { operation: "opening", path: "a".into(), source: io().into() }, "Local File"),
            (Error::Journal { path: "a".into(), operation: "opening", source: io() }, "Local Journal"),
            (Error::JournalInUse { path: "a".into() }, "Busy Journal retry hint"),
            (Error::Fenced { lease: text() }, "Busy Repository hint"),
            (Error::Busy { what: text() }, "Busy Repository retry"),
            (Error::invalid("x"), "Invalid Call"),
            (Error::Abandoned, "Cancelled Call"),
            (Error::Cancelled, "Cancelled Call"),
            (Error::WriterStopped { reason: reason() }, "Internal Repository"),
        ];
        for (error, expected) in table {
            assert_eq!(answers(&error), expected, "{error}");
        }
    }

    const OF_POINT: &str = "NotFound Repository vm=5029c440-0000-0000-0000-000000000001";
}
