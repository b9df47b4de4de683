//! The states of a machine, of its disks and of what is around it, and what a backup does about each.
//!
//! The table is the only place where that is said: the backup refuses, leaves out and warns by it, the pre-flight
//! report shows it, and the documentation prints it ([`Condition::table`]).

use std::fmt;

use serde::{Serialize, Serializer};

/// What a condition means for a backup, from harmless to fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is lost by it.
    Note,
    /// The backup goes on with less than there could be.
    Warning,
    /// A disk, or a file beside the disks, is not in the point.
    LeftOut,
    /// There is no backup.
    Refused,
}

macro_rules! conditions {
    ($($(#[doc = $what:literal])+ $name:ident: $code:literal, $severity:ident, $advice:literal;)+) => {
        /// A state that a backup has a way for, or none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Condition {
            $($(#[doc = $what])+ $name,)+
        }

        impl Condition {
            /// All conditions: of the machine, of disks, of what is around them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the code, which does not change between releases.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// Says what is so, and what a backup does about it.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($what),+).trim_ascii(),)+
                }
            }

            /// Returns what the condition means at its worst; options may make a [`Severity::Refused`] of it.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }

            /// Says what can be done; empty when nothing has to be.
            pub fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)+
                }
            }
        }
    };
}

conditions! {
    /// The server has no connection to the machine's host: there is no backup.
    Disconnected: "disconnected", Refused, "reconnect its host";
    /// The machine has no instanceUuid by which it would be known again: there is no backup.
    NoIdentity: "no-identity", Refused, "register it with a vCenter Server, or give it an instanceUuid";
    /// None of the machine's disks can be backed up: there is no backup.
    NoDisks: "no-disks", Refused, "see the disks' own findings";
    /// It is a template, of which no snapshot can be made: its disks are read directly and in full, and the backup fails when it is converted or changed meanwhile.
    Template: "template", Note, "";
    /// The machine is off: its disks are as its last shutdown left them, and quiescing has no meaning.
    PoweredOff: "powered-off", Note, "";
    /// The machine is suspended: its disks are stored as after a power cut, its memory (vmss) is not.
    Suspended: "suspended", Warning, "resume it, or shut it down, for a point that includes what the guest had in memory";
    /// The machine is suspended and a point as after a power cut is not good enough: there is no backup.
    SuspendedNeedsGuest: "suspended-needs-guest", Refused, "resume it, or allow a point that is as after a power cut";
    /// The machine or a disk is encrypted by vSphere, and data arrives in clear: it is stored in an encrypted repository.
    Encrypted: "encrypted", Note, "";
    /// The machine or a disk is encrypted by vSphere, and data would be stored in clear in this repository: there is no backup unless that is allowed.
    EncryptedIntoPlain: "encrypted-into-plain", Refused, "back it up to an encrypted repository, or allow plain ones for encrypted machines";
    /// The machine or a disk is encrypted by vSphere, and its data is stored in clear, as was allowed.
    EncryptedStoredPlain: "encrypted-stored-plain", Warning, "prefer an encrypted repository";
    /// The machine has a virtual TPM: its secrets lie in the NVRAM, sealed under the machine's key, and are of use only to this machine while its key provider has the key. A machine restored as new has an empty TPM.
    VirtualTpm: "vtpm", Warning, "keep recovery keys of what the guest sealed (BitLocker, LUKS) outside of it";
    /// The machine has a virtual TPM, and such machines were excluded: there is no backup.
    VirtualTpmRefused: "vtpm-refused", Refused, "allow machines with a virtual TPM";
    /// A device of the host is passed through: a snapshot of the running machine is usually refused by the server.
    Passthrough: "passthrough", Warning, "back it up while it is off, or remove the device for that time";
    /// The machine has snapshots: they stay, what is stored is the running state as one full image. A restore in place needs them gone.
    Snapshots: "snapshots", Note, "";
    /// Disks of removed snapshots wait to be merged: the backup merges them first.
    ConsolidationNeeded: "consolidation-needed", Warning, "consolidate the disks at a quiet time";
    /// Somebody has locked methods that the backup or its lock needs.
    MethodsLocked: "methods-locked", Warning, "find out by whom; a lock that a dead backup left is removed by its next run";
    /// An earlier job of ours left something on the server, which is undone first.
    Leftover: "leftover", Warning, "";
    /// The way to quiesce the guest that is preferred cannot be had now: the next in the chain is tried.
    QuiesceFallback: "quiesce-fallback", Warning, "see to VMware Tools in the guest";
    /// The machine cannot have change tracking: every backup reads all that is allocated.
    TrackingUnsupported: "tracking-unsupported", Warning, "upgrade the virtual hardware to version 7 or newer while the machine is off";
    /// Change tracking is off: every backup reads all that is allocated.
    TrackingOff: "tracking-off", Warning, "let the backup enable it (ChangeTracking::Enable) while the machine has no snapshot";
    /// Change tracking is off, or on without change ids, and is to be enabled: the backup does so by a snapshot that it makes and removes before its own, and reads all that is allocated once more.
    TrackingToBeEnabled: "tracking-to-be-enabled", Note, "";
    /// Change tracking is off and was to be enabled, which the machine's state forbids: every backup reads all that is allocated.
    TrackingBlocked: "tracking-blocked", Warning, "remove the machine's snapshots, resume it, then run the backup again";

    /// The caller left the disk out.
    Excluded: "excluded", LeftOut, "";
    /// The disk is independent: snapshots leave it out, and so does the backup.
    Independent: "independent-disk", LeftOut, "change its mode to dependent while the machine is off, or back it up in the guest";
    /// The disk maps a raw device in physical compatibility, of which no snapshot can be made.
    PhysicalRdm: "rdm-physical", LeftOut, "back it up in the guest or on the storage, or change it to virtual compatibility";
    /// The disk maps a raw device in virtual compatibility: it is stored as an image, and restored as an ordinary disk unless it is restored in place.
    VirtualRdm: "rdm-virtual", Note, "";
    /// The disk is a raw device of the host, of which no snapshot can be made.
    RawDevice: "raw-device", LeftOut, "back it up in the guest or on the storage";
    /// The disk is on a controller whose bus several machines share, which forbids snapshots of it; a server may refuse one of the whole running machine.
    SharedBus: "shared-bus", LeftOut, "back it up in the guest or on the storage";
    /// Several machines write to the disk, which forbids snapshots of it; a server may refuse one of the whole machine unless the disk is independent too.
    MultiWriter: "multi-writer", LeftOut, "back it up in the guest or on the storage";
    /// The disk lies in persistent memory of a host, which no transport reads.
    PersistentMemory: "persistent-memory", LeftOut, "back it up in the guest";
    /// The disk's backing is of a kind that this release does not know.
    UnknownBacking: "unknown-backing", LeftOut, "report the kind";
    /// The server does not say how large the disk is.
    NoCapacity: "no-capacity", LeftOut, "look at the disk's descriptor";
    /// The disk has no file that could be opened.
    NoFile: "no-file", LeftOut, "look at the disk's backing";
    /// The disk is a linked clone or has parents: the whole chain is stored as one full image, and restored as one.
    LinkedClone: "linked-clone", Note, "";
    /// The disk lies on object storage (vSAN, vVol): it is read over NFC, as such disks have no flat file.
    ObjectStorage: "object-storage", Note, "";
    /// The disk is a First Class Disk that the machine uses: it is stored with the machine, its own snapshots are not.
    FirstClassDisk: "first-class-disk", Note, "";
    /// The disk has no change id although tracking is on: it is read in full until the machine was stunned or power-cycled.
    NotTrackedYet: "not-tracked-yet", Note, "";

    /// The account lacks a privilege that the backup needs.
    PrivilegeMissing: "privilege-missing", Refused, "grant it on the named object";
    /// The account lacks a privilege whose use the backup can do without.
    PrivilegeOptional: "privilege-optional", Warning, "grant it on the named object";
    /// The server does not tell which privileges the account has.
    PrivilegesUnknown: "privileges-unknown", Note, "";
    /// A datastore has little room for the snapshot to grow in while the disks are read.
    LittleSpace: "little-space", Warning, "make room: a datastore that fills up stops the machines on it";
    /// A datastore cannot be reached now.
    DatastoreInaccessible: "datastore-inaccessible", Refused, "see to the storage";
    /// The server's version is known for wrong areas after a tracked disk grew (KB 2090639): such a disk is read in full.
    DefectKb2090639: "kb-2090639", Warning, "update the host";
    /// The server's version is known to lose changes made while a snapshot is consolidated (KB 2136854).
    DefectKb2136854: "kb-2136854", Warning, "update the host; until then take full backups or verify by sampling";
    /// A file beside the disks is not stored.
    FileLeftOut: "file-left-out", LeftOut, "";
}

impl Condition {
    /// Finds a condition by its code.
    pub fn by_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|condition| condition.code() == code)
    }

    /// Returns the table of all conditions in Markdown, as it stands in the documentation.
    pub fn table() -> String {
        let rows = Self::ALL.iter().map(|condition| {
            let severity = format!("{:?}", condition.severity());
            format!("| `{}` | {severity} | {} | {} |\n", condition.code(), condition.what(), condition.advice())
        });
        ["| Code | Severity | What is so, and what is done | Advice |\n|---|---|---|---|\n".to_owned()]
            .into_iter()
            .chain(rows)
            .collect()
    }
}

impl fmt::Display for Condition {
    /// Writes the code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Condition {
    /// Writes the code.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Subject {
    /// The machine.
    Machine,
    /// A disk, by its device key.
    Disk(i32),
    /// A datastore, by its name.
    Datastore(String),
    /// The server or its host.
    Server,
}

/// A condition that was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// Which.
    pub condition: Condition,
    /// What it means here.
    pub severity: Severity,
    /// What it is about.
    pub subject: Subject,
    /// Names, numbers and reasons of this case; may be empty.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(condition: Condition, subject: Subject, detail: impl Into<String>) -> Self {
        Self { condition, severity: condition.severity(), subject, detail: detail.into() }
    }

    pub(crate) fn machine(condition: Condition, detail: impl Into<String>) -> Self {
        Self::new(condition, Subject::Machine, detail)
    }

    /// Returns what can be done about it, if something has to be.
    pub fn advice(&self) -> Option<&'static str> {
        Some(self.condition.advice()).filter(|advice| !advice.is_empty())
    }

    /// Says what is so in one sentence, without the advice.
    pub(crate) fn reason(&self) -> String {
        let what = self.condition.what().trim_end_matches('.');
        if self.detail.is_empty() { what.to_owned() } else { format!("{what} ({})", self.detail) }
    }

    /// Says what is so, and what to do.
    pub(crate) fn text(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{}; {advice}", self.reason()),
            None => self.reason(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Machine => f.write_str("machine")?,
            Subject::Disk(key) => write!(f, "disk {key}")?,
            Subject::Datastore(name) => write!(f, "datastore {name}")?,
            Subject::Server => f.write_str("server")?,
        }
        write!(f, " [{}]: {}", self.condition, self.text())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_stable_names_of_one_condition_each() {
        let codes: BTreeSet<_> = Condition::ALL.iter().map(|condition| condition.code()).collect();
        assert_eq!(codes.len(), Condition::ALL.len());
        for &condition in Condition::ALL {
            let code = condition.code();
            assert!(code.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'), "{code}");
            assert_eq!(Condition::by_code(code), Some(condition));
            assert!(condition.what().ends_with('.'), "{code}");
            assert!(!condition.what().contains('|') && !condition.advice().contains('|'), "{code} breaks the table");
            let fatal = condition.severity() == Severity::Refused;
            assert!(!fatal || !condition.advice().is_empty(), "{code} leaves people without advice");
        }
    }

    #[test]
    fn the_documentation_prints_this_table() {
        assert_eq!(include_str!("../../CONDITIONS.md"), format!("{HEAD}{}", Condition::table()));
    }

    const HEAD: &str = "# What a backup does about the state of a machine\n\nThe table is `Condition` in the code, \
                        which the backup, the pre-flight report and this page share.\n\n";
}
