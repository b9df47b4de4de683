//! Stores of others: what a vendor implements to have backups go where it keeps its own.
//!
//! A [`Sink`] takes disks, each through a [`DiskWriter`], and makes them visible together as a
//! point. What it gives back of a disk is a [`Source`], the same trait that a
//! restore reads from. Our repository is one such store: [`RepositorySink`].
//! [`Backup::run_into`](crate::Backup::run_into) backs a machine up into a sink, [`DiskCopy`] any disk.
//!
//! # The contract
//! - **One pass**: a writer is told of ranges in ascending order that do not overlap. Each begins
//!   and ends at a multiple of [`Sink::alignment`], or ends with the disk. Calls come one after the
//!   other; of disks of one point several may be written at once.
//! - **What is not told** is as in the parent, and without a parent unallocated. A disk may be
//!   larger than its parent, not smaller; where the parent ends, unallocated begins.
//! - **Own image**: a finished disk is whole by itself. Nothing that becomes of its parent later changes it.
//! - **Hidden**: nothing of a point is visible before [`Sink::commit`] succeeded; then all of it
//!   is, for ever. A writer that is aborted or dropped leaves nothing that is visible.
//! - **Exclusive**: a point's name is given once; of several commits of one name one succeeds.
//! - **Durable**: what `commit` answered survives a power failure, as does what
//!   [`checkpoint`](DiskWriter::checkpoint) answered as long as its store says.
//! - **Checkpoints**: what [`checkpoint`](DiskWriter::checkpoint) says is stored up to a byte outlives its writer, the
//!   handle and the process, until the job is [discarded](Sink::discard). [`Sink::resume`] goes on there; what was told
//!   behind it is forgotten. A store that cannot do that says byte 0.
//! - **By job**: everything that is begun belongs to a job, [`DiskMeta::job`]. Discarding a job frees what of it is in no
//!   point, finished disks and checkpoints too, and nothing else.
//! - **Zero and unallocated** both read as zeros, and stay told apart: a restore may punch holes for one
//!   and has to write the other.
//!
//! [`conformance`] checks a store for all of this.

pub mod conformance;
mod copy;
mod decorated;
mod repository;

use std::{collections::BTreeMap, fmt, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use self::copy::Told;
pub use self::{
    copy::{CopiedDisk, DiskCopy},
    decorated::{FaultySink, ThrottledSink},
    repository::RepositorySink,
};
use crate::{
    engine::Source,
    error::DiskError,
    repository::{storage::BoxFuture, unhex},
};

/// A place that takes backups.
pub trait Sink: fmt::Debug + Send + Sync + 'static {
    /// Returns by what the store is known to journals: the same text for every handle on it, in any process, and
    /// another than any other store's.
    fn id(&self) -> String;

    /// Returns what ranges are multiples of, in bytes: a power of two, 512 or more.
    fn alignment(&self) -> u64;

    /// Tells whether what is stored is encrypted, as a backup of a machine that vSphere encrypts asks by default: no,
    /// unless a store says so.
    fn encrypts(&self) -> bool {
        false
    }

    /// Begins a disk, as nothing or as a finished disk of this store, of which a part will be told anew.
    ///
    /// # Errors
    /// When the parent is not there or larger than the disk.
    ///
    /// # Cancel safety
    /// When dropped, nothing is visible.
    fn begin<'a>(
        &'a self,
        disk: DiskMeta,
        parent: Option<DiskRef>,
    ) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>>;

    /// Goes on with a disk where a checkpoint of it was, that an earlier writer gave: the last one or one before, perhaps
    /// of another process, and perhaps of a disk that was finished since. What was told before
    /// [`position`](Token::position) is there; what was told behind it is as if it never was.
    ///
    /// Asked only with tokens of a position above 0. A store that gives no such tokens need not implement it.
    ///
    /// # Errors
    /// When it is not there any more, or is in a point. The disk is begun anew then, unless the error is retryable.
    ///
    /// # Cancel safety
    /// When dropped, the checkpoint stays, or it is as if it had never been.
    fn resume<'a>(&'a self, disk: DiskMeta, token: &'a Token) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
        let what =
            format!("this store goes on with no disk, and was asked to with disk {} at {}", disk.key, token.position);
        Box::pin(async move { Err(DiskError::new(what)) })
    }

    /// Frees what a job left: its disks that are in no point, finished or not, and their checkpoints. Points stay as they
    /// are, those with disks of the job too. No writer of the job is at work, in no process.
    ///
    /// A job that the store does not know, or that left nothing, is no error: a backup asks at its end, whatever that
    /// was, and the next one asks again when there was no answer.
    ///
    /// # Errors
    /// When something stays that should not.
    ///
    /// # Cancel safety
    /// When dropped, ask again.
    fn discard<'a>(&'a self, vm: &'a str, job: &'a str) -> BoxFuture<'a, Result<(), DiskError>>;

    /// Makes finished disks visible as a point, all at once.
    ///
    /// # Errors
    /// When a point of this name is there, or a disk is not finished. Nothing is visible then.
    ///
    /// # Cancel safety
    /// When dropped, the point is visible and whole, or not visible.
    fn commit<'a>(&'a self, point: PointMeta) -> BoxFuture<'a, Result<(), DiskError>>;

    /// Returns the points of a machine, the oldest first: what was committed, as it was given.
    fn points<'a>(&'a self, vm: &'a str) -> BoxFuture<'a, Result<Vec<PointMeta>, DiskError>>;

    /// Opens a disk of a committed point.
    ///
    /// # Errors
    /// When there is no such disk.
    fn open<'a>(&'a self, disk: &'a DiskRef) -> BoxFuture<'a, Result<Box<dyn Source>, DiskError>>;
}

/// One disk on its way into a [`Sink`]. Dropped, nothing of it can be finished but by [`Sink::resume`].
pub trait DiskWriter: fmt::Debug + Send {
    /// Takes the bytes of a range.
    ///
    /// # Errors
    /// When the range is out of order, not aligned or behind the end; nothing of the disk can be finished then.
    fn write(&mut self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Takes that a range holds zeros.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn zero(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Takes that nothing is allocated in a range.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn unallocated(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Takes that a range is as in the parent. The same as to leave it out.
    ///
    /// # Errors
    /// As [`write`](Self::write); when there is no parent.
    fn unchanged(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Makes durable what was told so far, as far as the store can; the token says up to where, and the writer goes on.
    ///
    /// A token is kept in a journal, so its state should be small. It is good until the disk is aborted or its job discarded.
    ///
    /// A store that goes on with no disk need not implement it: its tokens are of position 0.
    ///
    /// # Errors
    /// When anything told before was not stored.
    fn checkpoint(&mut self) -> BoxFuture<'_, Result<Token, DiskError>> {
        Box::pin(std::future::ready(Ok(Token { position: 0, state: String::new() })))
    }

    /// Ends the disk. Only a [`commit`](Sink::commit) that names it makes it visible.
    ///
    /// # Errors
    /// When anything told before was not stored.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<DiskRef, DiskError>>;

    /// Gives the disk up and frees what it took, where that is at once possible, with its checkpoints: their tokens may
    /// be refused. The same as to drop it, for a store that needs no more.
    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), DiskError>> {
        drop(self);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The name of a finished disk, as its store chose it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskRef(String);

impl DiskRef {
    /// Wraps a name of the store's choice.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far a disk is stored durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Everything before this byte of the disk: of what was told, up to a multiple of the alignment or the disk's end.
    pub position: u64,
    /// What the store wants to know of it, as it chose.
    pub state: String,
}

/// What a disk is, when it is begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMeta {
    /// The machine's `instanceUuid`.
    pub vm: String,
    /// The device key within the machine.
    pub key: i32,
    /// In bytes.
    pub capacity: u64,
    /// The job that writes it, by a random name of hex digits: what [`Sink::discard`] is told.
    pub job: String,
}

/// What a point is, when it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointMeta {
    /// The machine's `instanceUuid`.
    pub vm: String,
    /// The point's name: letters, digits, `-`, `_`; names of one machine sort by age.
    pub name: String,
    /// The disks.
    pub disks: Vec<PointDisk>,
    /// Texts by name: whatever a restore needs beside the disks. Those of a backup are listed at
    /// [`Backup::run_into`](crate::Backup::run_into); the firmware's variables may take some hundred KiB.
    pub properties: BTreeMap<String, String>,
}

impl PointMeta {
    /// Returns a small file of the machine that a backup kept in the properties, such as
    /// [`CONFIG_OBJECT`](crate::CONFIG_OBJECT).
    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        let text = self.properties.get(&format!("{OBJECT}{name}"));
        let digits = || unhex(self.properties.get(&format!("{OBJECT}{name}{IN_HEX}"))?);
        text.map(|text| text.clone().into_bytes()).or_else(digits)
    }
}

/// One disk of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointDisk {
    /// The device key within the machine.
    pub key: i32,
    /// In bytes.
    pub capacity: u64,
    /// The finished disk.
    pub disk: DiskRef,
    /// The change id that the next incremental backup asks with, when changes are tracked.
    pub change_id: Option<String>,
}

/// The rules of the one pass, for implementations: checks each range that a writer is told.
#[derive(Clone, Copy, Debug)]
pub struct OnePass {
    capacity: u64,
    alignment: u64,
    position: u64,
}

impl OnePass {
    /// Begins at the start of a disk.
    pub fn new(capacity: u64, alignment: u64) -> Self {
        Self { capacity, alignment: alignment.max(1), position: 0 }
    }

    /// Goes on behind a byte of a disk, as a checkpoint has it.
    ///
    /// # Errors
    /// When no range can have ended there.
    pub fn at(capacity: u64, alignment: u64, position: u64) -> Result<Self, DiskError> {
        let pass = Self { position, ..Self::new(capacity, alignment) };
        let sound = position == capacity || position < capacity && position.is_multiple_of(pass.alignment);
        let wrong = || DiskError::new(format!("byte {position} of a disk of {capacity} bytes is no end of a range"));
        if sound { Ok(pass) } else { Err(wrong()) }
    }

    /// Returns the first byte of which nothing was told yet.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next range.
    ///
    /// # Errors
    /// When it is out of order, not aligned or behind the end of the disk.
    pub fn take(&mut self, range: &Range<u64>) -> Result<(), DiskError> {
        let aligned = |at: u64| at.is_multiple_of(self.alignment);
        let sound = range.start >= self.position
            && range.start < range.end
            && range.end <= self.capacity
            && aligned(range.start)
            && (aligned(range.end) || range.end == self.capacity);
        if !sound {
            let (start, end) = (range.start, range.end);
            return Err(DiskError::new(format!(
                "the range {start}..{end} is out of order, not aligned or behind the end"
            )));
        }
        self.position = range.end;
        Ok(())
    }
}

/// What properties begin with that hold a small file of the machine.
pub(crate) const OBJECT: &str = "object.";
/// What they end with when the file is no text.
pub(crate) const IN_HEX: &str = ".hex";
