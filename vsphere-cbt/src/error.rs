//! The crate's error: what was asked about which disk, whose fault it is, and what to do next.

use vsphere_vim::types;

use crate::{change_id::ParseChangeIdError, page::PageProblem, preflight::Blocker};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why changed block tracking could not be used.
///
/// After every error of a query the way on is the same: a full backup. The variants tell what to write into its report
/// as the reason, and what to do so that the next one can be incremental.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A stored or reported change id is none.
    #[error("{of} has an unusable change id")]
    ChangeId {
        /// The disk.
        of: String,
        /// Why.
        source: ParseChangeIdError,
    },

    /// The server cannot tell what changed since that id: tracking was reset, or the id is of another disk.
    #[error("{of}: changes since {since} cannot be told")]
    ChangeIdStale {
        /// The disk.
        of: String,
        /// The id asked for.
        since: String,
        /// The server's refusal.
        source: Box<vsphere_vim::Error>,
    },

    /// The server cannot even tell what is allocated: tracking was off when the snapshot was made.
    #[error("{of} is not tracked in this snapshot")]
    NotTracked {
        /// The disk.
        of: String,
        /// The server's refusal.
        source: Box<vsphere_vim::Error>,
    },

    /// The server refused the offset: the capacity that was given is not that of the snapshot's disk.
    #[error("{of}: the server refused offset {start} of {capacity} bytes")]
    OffsetRefused {
        /// The disk.
        of: String,
        /// The offset asked from.
        start: u64,
        /// The capacity that was given.
        capacity: u64,
        /// The server's refusal.
        source: Box<vsphere_vim::Error>,
    },

    /// The server's answer breaks a rule, so none of it can be relied on.
    #[error("{of}: the answer about changed areas is wrong: {problem}")]
    Answer {
        /// The disk.
        of: String,
        /// Which rule.
        problem: PageProblem,
    },

    /// The server's answer could not be understood, so none of it can be relied on.
    #[error("{of}: the answer about changed areas cannot be read")]
    Unreadable {
        /// The disk.
        of: String,
        /// What is wrong with it.
        source: Box<vsphere_vim::Error>,
    },

    /// Tracking cannot be enabled on this VM as it is.
    #[error("change tracking of {vm} cannot be enabled: {blocker}")]
    Blocked {
        /// The virtual machine.
        vm: String,
        /// What stands in the way.
        blocker: Blocker,
    },

    /// The server accepted the setting and did not keep it.
    #[error("change tracking of {vm} is still off after it was switched on")]
    NotKept {
        /// The virtual machine.
        vm: String,
    },

    /// A call to the server failed for a reason that has nothing to do with change tracking.
    #[error("{operation} failed for {of}")]
    Server {
        /// What was being done.
        operation: &'static str,
        /// To what.
        of: String,
        /// Why.
        source: Box<vsphere_vim::Error>,
    },

    /// Enabling came to its end or failed, and its snapshot could not be removed.
    #[error("the snapshot {snapshot} of {vm}, made to start change tracking, was left behind")]
    Leftover {
        /// The virtual machine.
        vm: String,
        /// The snapshot, such as `VirtualMachineSnapshot:snapshot-12`.
        snapshot: String,
        /// Why it could not be removed.
        source: Box<vsphere_vim::Error>,
    },
}

impl Error {
    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Server { source, .. } | Self::Leftover { source, .. } => source.is_retryable(),
            Self::ChangeId { .. }
            | Self::ChangeIdStale { .. }
            | Self::NotTracked { .. }
            | Self::OffsetRefused { .. }
            | Self::Answer { .. }
            | Self::Unreadable { .. }
            | Self::Blocked { .. }
            | Self::NotKept { .. } => false,
        }
    }

    /// True when the disk has to be read in full instead, and nothing else is wrong.
    pub fn needs_full_backup(&self) -> bool {
        matches!(
            self,
            Self::ChangeId { .. }
                | Self::ChangeIdStale { .. }
                | Self::NotTracked { .. }
                | Self::OffsetRefused { .. }
                | Self::Answer { .. }
                | Self::Unreadable { .. }
        )
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::ChangeId { source: ParseChangeIdError::Empty, .. } => {
                "physical raw mappings, independent disks and disks on shared buses cannot be tracked: read the whole disk"
            }
            Self::ChangeId { .. } => "take a full backup and store the change id of its snapshot",
            Self::ChangeIdStale { .. } => {
                "tracking was reset (a power failure, a revert, a restore or an administrator does that): take a full backup"
            }
            Self::NotTracked { .. } => {
                "enable change tracking, then take the snapshot anew; until then read the whole disk"
            }
            Self::OffsetRefused { .. } => {
                "take the capacity from the snapshot's own disk; the disk may have been resized"
            }
            Self::Answer { .. } | Self::Unreadable { .. } => {
                "take a full backup, and reset change tracking if this happens again"
            }
            Self::Blocked { blocker, .. } => return Some(blocker.remedy().to_owned()),
            Self::NotKept { .. } => "look for a profile or a program that sets changeTrackingEnabled back",
            Self::Leftover { .. } => "remove the snapshot in the vSphere Client; the next attempt to enable also does",
            Self::Server { source, .. } => return source.hint(),
        };
        Some(text.to_owned())
    }

    /// The server's own refusal or failure, when there is one.
    pub fn vim(&self) -> Option<&vsphere_vim::Error> {
        match self {
            Self::ChangeIdStale { source, .. }
            | Self::NotTracked { source, .. }
            | Self::OffsetRefused { source, .. }
            | Self::Unreadable { source, .. }
            | Self::Server { source, .. }
            | Self::Leftover { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn server(operation: &'static str, of: impl Into<String>) -> impl FnOnce(vsphere_vim::Error) -> Self {
        let of = of.into();
        move |source| Self::Server { operation, of, source: Box::new(source) }
    }
}

/// The question that the server refused.
pub(crate) struct Refused<'a> {
    pub(crate) of: String,
    /// `None` when it was about what is allocated.
    pub(crate) since: Option<&'a str>,
    pub(crate) start: u64,
    pub(crate) capacity: u64,
}

impl Refused<'_> {
    /// Sorts a refusal of `QueryChangedDiskAreas` by what it means.
    pub(crate) fn because(self, source: vsphere_vim::Error) -> Error {
        let Self { of, since, start, capacity } = self;
        let invalid = source.fault::<types::InvalidArgument>().map(|fault| {
            // `startOffset`, or in full `virtualMachine.queryChangedDiskAreas.startOffset`.
            let name = fault.invalid_property.as_deref().unwrap_or_default();
            name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase()
        });
        let about = |name: &str| invalid.as_deref() == Some(name);
        let unreadable = matches!(source, vsphere_vim::Error::Protocol(_));
        let unusable_id = source.is_fault("FileFault") || about("changeid");
        let source = Box::new(source);
        match since {
            Some(since) if unusable_id => Error::ChangeIdStale { of, since: since.to_owned(), source },
            None if unusable_id => Error::NotTracked { of, source },
            _ if about("startoffset") => Error::OffsetRefused { of, start, capacity, source },
            _ if unreadable => Error::Unreadable { of, source },
            _ => Error::Server { operation: "QueryChangedDiskAreas", of, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vsphere_vim::{
        Poly,
        error::{Call, ServerFault},
    };

    use super::*;

    fn refusal(fault: Poly<types::MethodFault>) -> vsphere_vim::Error {
        let call = Call { operation: "QueryChangedDiskAreas".into(), object: None, elapsed: Duration::ZERO, tries: 1 };
        vsphere_vim::Error::Fault(Box::new(ServerFault { call, fault, message: "no".into() }))
    }

    fn sorted(since: Option<&str>, fault: Poly<types::MethodFault>) -> Error {
        Refused { of: "disk 2000".into(), since, start: 4096, capacity: 8192 }.because(refusal(fault))
    }

    fn invalid(property: &str) -> Poly<types::MethodFault> {
        Poly::new(types::InvalidArgument { invalid_property: Some(property.into()), ..Default::default() })
    }

    #[test]
    fn a_file_fault_means_that_the_id_is_stale_or_the_disk_not_tracked() {
        let stale = sorted(Some("a/1"), Poly::new(types::FileFault::default()));
        assert!(matches!(&stale, Error::ChangeIdStale { since, .. } if since == "a/1"));
        assert!(stale.needs_full_backup() && !stale.is_retryable());
        let subtype = sorted(Some("a/1"), Poly::new(types::FileNotFound::default()));
        assert!(matches!(subtype, Error::ChangeIdStale { .. }));
        assert!(matches!(sorted(None, Poly::new(types::FileFault::default())), Error::NotTracked { .. }));
    }

    #[test]
    fn an_invalid_argument_is_sorted_by_the_argument() {
        let offset = sorted(Some("a/1"), invalid("startOffset"));
        assert!(matches!(offset, Error::OffsetRefused { start: 4096, capacity: 8192, .. }));
        assert!(matches!(sorted(Some("a/1"), invalid("changeId")), Error::ChangeIdStale { .. }));
        assert!(matches!(sorted(Some("a/1"), invalid("deviceKey")), Error::Server { .. }));
    }

    #[test]
    fn other_faults_keep_their_own_verdict() {
        let error = sorted(Some("a/1"), Poly::new(types::TaskInProgress::default()));
        assert!(error.is_retryable() && !error.needs_full_backup());
        assert_eq!(error.vim().unwrap().fault_name(), Some("TaskInProgress"));
    }
}
