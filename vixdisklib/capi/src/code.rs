//! Errors as numbers of VMware's.
//!
//! Programs look at few of them: what to try again, what to tell a user to change. Where VMware documents a number for
//! a cause, it is that number.

use std::io::ErrorKind;

use vixdisklib::{AttachProblem, Error, https::HttpsError};
use vixdisklib_sys::VixCode;
use vsphere_nfc::Error as Nfc;
use vsphere_vim::error::TransportErrorKind;

/// The number of an error.
pub(crate) fn of(error: &Error) -> VixCode {
    match error {
        Error::UnknownTransport { .. } => VixCode::INVALID_ARG,
        Error::Unavailable { .. } | Error::NotOffered { .. } => VixCode::NOT_SUPPORTED,
        Error::NoTransport { attempts, .. } => {
            // What the most able transport found: not that another one could not have been asked at all.
            let asked = |error: &&Error| {
                !matches!(error, Error::Unavailable { .. } | Error::NotOffered { .. } | Error::WrongPath { .. })
            };
            let errors = || attempts.iter().map(|attempt| &attempt.error);
            errors().find(asked).or_else(|| errors().next()).map_or(VixCode::FAIL, of)
        }
        Error::WrongPath { .. } => VixCode::FILE_NAME_INVALID,
        Error::NotOfVm { .. } => VixCode::FILE_NOT_FOUND,
        Error::OutOfRange { .. } => VixCode::DISK_OUTOFRANGE,
        Error::Unaligned { .. } => VixCode::SECTORSIZE,
        Error::ReadOnly { .. } => VixCode::FILE_READ_ONLY,
        Error::NotAttachable { problem, .. } => match problem {
            AttachProblem::ChildIsBase => VixCode::DISK_ATTACH_ROOTLINK,
            AttachProblem::ParentIsPart => VixCode::DISK_PARTIALCHAIN,
            AttachProblem::ContentId { .. } => VixCode::DISK_CID_MISMATCH,
            AttachProblem::Capacity { .. } => VixCode::DISK_CAPACITY_MISMATCH,
            _ => VixCode::DISK_INVAL,
        },
        Error::Exists { .. } => VixCode::FILE_ALREADY_EXISTS,
        Error::InvalidIdentity { .. } => VixCode::INVALID_ARG,
        Error::AccessLocked { .. } => VixCode::OBJECT_IS_BUSY,
        Error::Journal { .. } => VixCode::FILE_ERROR,
        Error::Nfc { source, .. } => match error.vim() {
            Some(server) => of_server(server),
            None => of_nfc(source),
        },
        Error::File { source, .. } => of_image(source),
        Error::Server { source, .. } => of_server(source),
        Error::Https { source, .. } => of_https(source),
        Error::Unfinished { .. } => VixCode::UNFINISHED_JOB,
        Error::CutOff { .. } => VixCode::CANCELLED,
        _ => VixCode::FAIL,
    }
}

/// The number of an error of a datastore's files over HTTPS.
fn of_https(error: &HttpsError) -> VixCode {
    match error {
        HttpsError::Refused { .. } => VixCode::FILE_ACCESS_ERROR,
        HttpsError::NotFound { .. } => VixCode::FILE_NOT_FOUND,
        HttpsError::ObjectStorage { .. } | HttpsError::RangeIgnored { .. } => VixCode::NOT_SUPPORTED_ON_REMOTE_OBJECT,
        HttpsError::TimedOut { .. } => VixCode::TCP_CONN_LOST,
        HttpsError::Name { .. } => VixCode::FILE_NAME_INVALID,
        HttpsError::Exists { .. } => VixCode::FILE_ALREADY_EXISTS,
        HttpsError::Server { source, .. } => of_server(source),
        _ => VixCode::FILE_ERROR,
    }
}

/// The number of an error of NFC.
fn of_nfc(error: &Nfc) -> VixCode {
    match error {
        Nfc::Ticket(_) => VixCode::AUTHENTICATION_FAIL,
        Nfc::Connect { source, .. } => match source.kind() {
            ErrorKind::ConnectionRefused => VixCode::NETWORK_CONN_REFUSED,
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                VixCode::CANNOT_CONNECT_TO_HOST
            }
            // Looking up a name fails without a number of the system's.
            _ if source.raw_os_error().is_none() => VixCode::SERVER_NOT_FOUND,
            _ => VixCode::TCP_SOCKET_ERROR,
        },
        // What VMware's library answers to a thumbprint that does not match.
        Nfc::ThumbprintMismatch { .. } => VixCode::FAIL,
        Nfc::AuthdRefused { line, .. } if line.starts_with("530") => VixCode::AUTHENTICATION_FAIL,
        Nfc::InvalidTicket(_)
        | Nfc::Tls { .. }
        | Nfc::AuthdRefused { .. }
        | Nfc::StartRefused { .. }
        | Nfc::SessionRefused { .. }
        | Nfc::Protocol { .. } => VixCode::NETBLKDEV_HANDSHAKE,
        Nfc::OpenRefused { .. } => VixCode::FILE_ACCESS_ERROR,
        Nfc::ReadOnly { .. } => VixCode::FILE_READ_ONLY,
        Nfc::OutOfNfcMemory { .. } => VixCode::OUT_OF_MEMORY,
        Nfc::Timeout { .. } | Nfc::Disconnected { .. } => VixCode::TCP_CONN_LOST,
        Nfc::WriteInDoubt { source, .. } => of_nfc(source),
        Nfc::InvalidRequest { .. } => VixCode::INVALID_ARG,
        _ => VixCode::FILE_ERROR,
    }
}

/// The number of an error of an image on this machine.
fn of_image(error: &vmdk::Error) -> VixCode {
    match error {
        vmdk::Error::Io { source, .. } => match source.kind() {
            ErrorKind::NotFound => VixCode::FILE_NOT_FOUND,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => VixCode::FILE_ACCESS_ERROR,
            ErrorKind::AlreadyExists => VixCode::FILE_ALREADY_EXISTS,
            ErrorKind::ResourceBusy | ErrorKind::WouldBlock => VixCode::FILE_ALREADY_LOCKED,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => VixCode::DISK_FULL,
            ErrorKind::FileTooLarge => VixCode::FILE_TOO_BIG,
            ErrorKind::InvalidFilename => VixCode::FILE_NAME_INVALID,
            ErrorKind::UnexpectedEof => VixCode::FILE_ERROR_EOF,
            _ => VixCode::FILE_ERROR,
        },
        vmdk::Error::Malformed { .. } => VixCode::DISK_INVALIDDISK,
        vmdk::Error::NotSupported { .. } => VixCode::DISK_NOTSUPPORTED,
        vmdk::Error::Chain { problem, .. } => match problem {
            vmdk::ChainProblem::CidMismatch { .. } => VixCode::DISK_CID_MISMATCH,
            vmdk::ChainProblem::NoParentHint { .. } => VixCode::DISK_OPENPARENT,
            vmdk::ChainProblem::TooDeep { .. } => VixCode::DISK_TOOMANYREDO,
            _ => VixCode::DISK_INVALIDCHAIN,
        },
        vmdk::Error::PathRefused { .. } => VixCode::FILE_NAME_INVALID,
        vmdk::Error::OutOfRange { .. } => VixCode::DISK_OUTOFRANGE,
        vmdk::Error::ReadOnly { .. } => VixCode::FILE_READ_ONLY,
        vmdk::Error::Cancelled { .. } => VixCode::CANCELLED,
        vmdk::Error::InvalidInput { .. } => VixCode::INVALID_ARG,
        _ => VixCode::FAIL,
    }
}

/// The number of an error of the vCenter or host.
pub(crate) fn of_server(error: &vsphere_vim::Error) -> VixCode {
    if let Some((_, code)) = FAULTS.iter().find(|(fault, _)| error.is_fault(fault)) {
        return *code;
    }
    if let Some(kind) = error.transport_kind() {
        return match kind {
            TransportErrorKind::Resolve => VixCode::SERVER_NOT_FOUND,
            TransportErrorKind::Connect => VixCode::NETWORK_CONN_REFUSED,
            TransportErrorKind::Tls => VixCode::NETBLKDEV_HANDSHAKE,
            TransportErrorKind::Untrusted => VixCode::FAIL,
            TransportErrorKind::Disconnected => VixCode::TCP_CONN_LOST,
            _ => VixCode::CANNOT_CONNECT_TO_HOST,
        };
    }
    match error {
        vsphere_vim::Error::InvalidInput { .. } => VixCode::INVALID_ARG,
        vsphere_vim::Error::NotFound { .. } => VixCode::VM_NOT_FOUND,
        vsphere_vim::Error::Ambiguous { .. } => VixCode::DUPLICATE_NAME,
        vsphere_vim::Error::Unsupported { .. } => VixCode::NOT_SUPPORTED,
        vsphere_vim::Error::SessionEnded { .. } => VixCode::INVALID_AUTHENTICATION_SESSION,
        vsphere_vim::Error::Token(_) => VixCode::AUTHENTICATION_FAIL,
        vsphere_vim::Error::Cancelled { .. } => VixCode::CANCELLED,
        _ => VixCode::FAIL,
    }
}

/// Faults of the server, the more particular before the more general.
const FAULTS: &[(&str, VixCode)] = &[
    ("InvalidLogin", VixCode::AUTHENTICATION_FAIL),
    ("NotAuthenticated", VixCode::INVALID_AUTHENTICATION_SESSION),
    ("NoPermission", VixCode::HOST_USER_PERMISSIONS),
    ("RestrictedVersion", VixCode::LICENSE),
    ("LicenseRestricted", VixCode::LICENSE),
    ("ManagedObjectNotFound", VixCode::VM_NOT_FOUND),
    ("FileLocked", VixCode::FILE_ALREADY_LOCKED),
    ("FileNotFound", VixCode::FILE_NOT_FOUND),
    ("FileAlreadyExists", VixCode::FILE_ALREADY_EXISTS),
    ("NoDiskSpace", VixCode::DISK_FULL),
    ("CannotAccessFile", VixCode::FILE_ACCESS_ERROR),
    ("HostNotConnected", VixCode::HOST_NOT_CONNECTED),
    ("HostNotReachable", VixCode::VM_HOST_DISCONNECTED),
    ("MethodAlreadyDisabledFault", VixCode::OBJECT_IS_BUSY),
    ("TaskInProgress", VixCode::OBJECT_IS_BUSY),
    ("InvalidState", VixCode::OBJECT_IS_BUSY),
    ("NotSupported", VixCode::NOT_SUPPORTED),
    ("InvalidArgument", VixCode::INVALID_ARG),
];

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use vsphere_nfc::Phase;

    use super::*;

    fn nfc(source: Nfc) -> Error {
        let source = Box::new(source);
        Error::Nfc { operation: "opening", path: "[ds1] a/a.vmdk".into(), source }
    }

    fn connect(kind: ErrorKind) -> Error {
        nfc(Nfc::Connect { endpoint: "esx:902".into(), source: Arc::new(io::Error::from(kind)) })
    }

    fn image(kind: ErrorKind) -> Error {
        let source = Box::new(vmdk::Error::io("open", "a.vmdk", None, io::Error::from(kind)));
        Error::File { operation: "opening", path: "a.vmdk".into(), source }
    }

    fn https(source: HttpsError) -> Error {
        Error::Https { operation: "reading", path: "[ds1] a/a.vmdk".into(), source: Box::new(source) }
    }

    fn not_attachable(problem: AttachProblem) -> Error {
        Error::NotAttachable { parent: "a".into(), child: "b".into(), problem }
    }

    fn refused(line: &str) -> Error {
        nfc(Nfc::AuthdRefused { endpoint: "esx:902".into(), command: "PROXY", line: line.into() })
    }

    #[test]
    fn what_a_program_may_try_again_later_is_told_from_what_a_user_has_to_change() {
        let lost = || Nfc::Disconnected { endpoint: "e".into(), phase: Phase::Write, reason: "reset".into() };
        let doubt = Nfc::WriteInDoubt { path: "a".into(), range: 0..512, source: Box::new(lost()) };
        let server = vsphere_vim::Error::NotFound { what: "vm-1".into() };
        let table = [
            (connect(ErrorKind::ConnectionRefused), 14009),
            (connect(ErrorKind::TimedOut), 18000),
            (nfc(lost()), 14011),
            (nfc(doubt), 14011),
            (refused("530 Login failed: ticket expired"), 35),
            (refused("501 what"), 14006),
            (nfc(Nfc::InvalidTicket("no host")), 14006),
            (nfc(Nfc::ReadOnly { path: "a".into(), fault: None }), 11),
            (image(ErrorKind::NotFound), 4),
            (image(ErrorKind::PermissionDenied), 13),
            (image(ErrorKind::StorageFull), 8),
            (image(ErrorKind::AlreadyExists), 12),
            (image(ErrorKind::Other), 7),
            (Error::Server { operation: "reading", of: "vm-1".into(), source: Box::new(server) }, 4000),
            (https(HttpsError::NotFound { file: "[ds1] a/a.vmdk".into() }), 4),
            (https(HttpsError::Exists { file: "[ds1] a/a.vmdk".into() }), 12),
            (
                https(HttpsError::Server {
                    file: "a".into(),
                    source: vsphere_vim::Error::NotFound { what: "a".into() },
                }),
                4000,
            ),
            (not_attachable(AttachProblem::ChildIsBase), 16069),
            (not_attachable(AttachProblem::Capacity { parent: 512, child: 1024 }), 16067),
            (Error::Exists { operation: "cloning to", path: "a".into() }, 12),
            (Error::AccessLocked { vm: "vm-1".into(), holder: None, attempts: 1 }, 5),
            (Error::InvalidIdentity { identity: String::new(), reason: "it is empty" }, 3),
            (Error::Unfinished { operation: "reading", disk: "disk-0".into() }, 29),
            (Error::UnknownTransport { name: "nfs".into() }, 3),
            (Error::CutOff { operation: "reading", path: "a".into() }, 10),
            (Error::ReadOnly { operation: "write to", path: "a".into() }, 11),
        ];
        for (error, code) in table {
            assert_eq!(of(&error).0, code, "{error}: {error:?}");
        }
    }
}
