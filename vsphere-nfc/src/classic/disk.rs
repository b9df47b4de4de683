//! Disks as streams of data and zeros.

use std::collections::VecDeque;

use bytes::Bytes;

use super::files::NfcFiles;
use super::link::Sent;
use crate::error::{Phase, Result};
use crate::wire::WireError;
use crate::wire::classic_file::conversion;
use crate::wire::disk_stream::{Part, Reader, SECTOR, Writer, metadata_frame};
use crate::wire::frames::Incoming;

/// A disk that is being fetched.
///
/// Dropped before its end, it makes the connection useless.
#[derive(Debug)]
pub struct DiskReader<'a> {
    files: &'a mut NfcFiles,
    stream: Reader,
    capacity: u64,
    parts: VecDeque<Part>,
    is_over: bool,
    /// A frame made no sense, so none behind it does.
    is_broken: bool,
}

impl<'a> DiskReader<'a> {
    pub(super) fn new(files: &'a mut NfcFiles, stream: Reader, capacity: u64) -> Self {
        Self { files, stream, capacity, parts: VecDeque::new(), is_over: false, is_broken: false }
    }

    /// The disk's size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The next part: metadata first, where there is any, then data and zeros in ascending order
    /// without gaps; `None` behind the last byte.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when reading fails on the host;
    /// [`Error::Protocol`](crate::Error::Protocol) when the parts do not make up the disk.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Ok(Some(part));
            }
            if self.is_over {
                return Ok(None);
            }
            let link = &mut self.files.link;
            if self.is_broken {
                return Err(link.blame().lost(Phase::GetFile, "a frame before made no sense"));
            }
            if self.stream.is_complete() {
                // Nothing is known to follow.
                link.empty_frame_may_follow = self.files.quirks.skip_empty_frame;
                link.end();
                self.is_over = true;
                continue;
            }
            match link.receive(Phase::GetFile, self.files.timeouts.read).await? {
                Incoming::Frame(frame) => {
                    self.is_broken = true;
                    let parts = self.stream.frame(frame);
                    self.parts = parts.map_err(|error| link.blame().wire(Phase::GetFile, &error))?.into();
                    self.is_broken = false;
                }
                Incoming::End => {
                    let what = format!("the disk ended after {} of {} bytes", self.stream.position(), self.capacity);
                    return Err(link.blame().protocol(Phase::GetFile, what));
                }
                other => return Err(link.unexpected(Phase::GetFile, &other)),
            }
        }
    }
}

/// A disk that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskSpec {
    /// The size in bytes, a multiple of 512.
    pub capacity: u64,
    /// How storage is taken. Default: thin.
    pub provisioning: Provisioning,
    /// `lsilogic` and `ide` are told to the host; others it is not known to understand.
    /// Default: `lsilogic`.
    pub adapter: String,
    /// Entries of the disk database: keys without `ddb.`, and values.
    pub metadata: Vec<(String, String)>,
}

/// How storage is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Provisioning {
    /// As it is needed.
    #[default]
    Thin,
    /// All at once.
    Thick,
}

impl DiskSpec {
    /// A thin disk of `capacity` bytes for an LSI Logic adapter.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, provisioning: Provisioning::Thin, adapter: "lsilogic".to_owned(), metadata: Vec::new() }
    }

    /// Chooses how storage is taken.
    #[must_use]
    pub fn provisioning(mut self, provisioning: Provisioning) -> Self {
        self.provisioning = provisioning;
        self
    }

    /// Chooses the adapter.
    #[must_use]
    pub fn adapter(mut self, adapter: &str) -> Self {
        adapter.clone_into(&mut self.adapter);
        self
    }

    /// Adds an entry of the disk database; `key` is without `ddb.`.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn conversion(&self) -> u32 {
        let thin = match self.provisioning {
            Provisioning::Thin => conversion::THIN,
            Provisioning::Thick => 0,
        };
        let adapter = match self.adapter.as_str() {
            "lsilogic" => conversion::LSILOGIC,
            "ide" => conversion::IDE,
            _ => 0,
        };
        thin | adapter
    }

    /// The frame of the disk database, unless it is empty.
    pub(super) fn metadata_frame(&self) -> Result<Option<Bytes>, WireError> {
        if !self.capacity.is_multiple_of(SECTOR) {
            return Err(WireError::field("the capacity of a disk", self.capacity));
        }
        (!self.metadata.is_empty()).then(|| metadata_frame(&self.metadata)).transpose()
    }
}

/// A disk that is being stored, from its first byte to its last.
///
/// Dropped before [`finish`](Self::finish), it leaves an unfinished disk and makes the connection
/// useless.
#[derive(Debug)]
pub struct DiskWriter<'a> {
    files: &'a mut NfcFiles,
    stream: Writer,
    capacity: u64,
    position: u64,
    parts: Sent,
}

impl<'a> DiskWriter<'a> {
    pub(super) fn new(files: &'a mut NfcFiles, capacity: u64) -> Self {
        let stream = Writer::new(files.quirks.run_sectors);
        Self { files, stream, capacity, position: 0, parts: Sent::default() }
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Appends data, whole sectors. Bytes are collected to frames of 256 KiB.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) for data that is not in sectors or
    /// does not fit; whatever the host says.
    ///
    /// # Cancel safety
    /// A dropped future, and an error of the connection, make writer and connection useless: what follows is refused,
    /// as it would land where it does not belong.
    pub async fn data(&mut self, mut data: Bytes) -> Result<()> {
        self.advance(data.len() as u64)?;
        while let Some(frame) = self.stream.data(&mut data) {
            self.send(frame).await?;
        }
        self.parts.end();
        Ok(())
    }

    /// Appends zeros, whole sectors.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    ///
    /// # Cancel safety
    /// As [`data`](Self::data).
    pub async fn zeros(&mut self, mut len: u64) -> Result<()> {
        self.advance(len)?;
        while let Some(frame) = self.stream.zeros(&mut len) {
            self.send(frame).await?;
        }
        self.parts.end();
        Ok(())
    }

    /// Appends zeros up to the end of the disk, and waits until the host has stored it.
    ///
    /// # Errors
    /// Whatever the host says.
    ///
    /// # Cancel safety
    /// The disk may have been stored; the connection is useless.
    pub async fn finish(mut self) -> Result<()> {
        self.zeros(self.capacity - self.position).await?;
        if let Some(frame) = self.stream.finish() {
            self.files.link.send(Phase::PutFile, self.files.timeouts.write, frame).await?;
        }
        self.files.finish_put().await
    }

    fn advance(&mut self, len: u64) -> Result<()> {
        if !len.is_multiple_of(SECTOR) || len > self.capacity - self.position {
            let what = format!("{len} bytes at {} are not in sectors or beyond the disk's end", self.position);
            return Err(self.files.link.blame().invalid(what));
        }
        self.files.link.begin_part(&mut self.parts, Phase::PutFile)?;
        self.position += len;
        Ok(())
    }

    async fn send(&mut self, frame: Bytes) -> Result<()> {
        self.files.link.send(Phase::PutFile, self.files.timeouts.write, frame).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_becomes_the_flags_of_the_annotated_example() {
        let spec = DiskSpec::new(1 << 30);
        assert_eq!(spec.conversion() | conversion::VMFS | conversion::CREATE_OVERWRITE, 0x198);
        assert_eq!(spec.clone().provisioning(Provisioning::Thick).adapter("ide").conversion(), conversion::IDE);
        assert_eq!(spec.clone().metadata_frame().unwrap(), None);
        assert!(spec.metadata("uuid", "60 00").metadata_frame().unwrap().is_some());
        assert!(DiskSpec::new(1000).metadata_frame().is_err());
    }
}
