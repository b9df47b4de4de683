//! How a connection for files is made, and a switch for every doubtful fact about the classic layer.

use crate::options::NfcOptions;
use crate::wire::classic_file::{conversion, operation};
use crate::wire::fssrvr;

/// Options of [`NfcFiles`](super::NfcFiles).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FilesOptions {
    /// How to connect. Buffers, compression and what else is about open disks makes no difference.
    pub connection: NfcOptions,
    /// Doubtful facts.
    pub quirks: ClassicQuirks,
}

impl FilesOptions {
    /// The defaults over a connection of your own making.
    pub fn new(connection: NfcOptions) -> Self {
        Self { connection, quirks: ClassicQuirks::default() }
    }

    /// Sets the switches for doubtful facts.
    #[must_use]
    pub fn quirks(mut self, quirks: ClassicQuirks) -> Self {
        self.quirks = quirks;
        self
    }
}

/// Facts about the classic layer. Those that VMware's own Java client shows are no switches.
///
/// | Doubt | Switch | Default |
/// |-|-|-|
/// | whether a host reads runs of several sectors | [`run_sectors`](Self::run_sectors) | runs of one, as VMware's client sends |
/// | flags of a plain file | [`file_conversion`](Self::file_conversion) | overwrite |
/// | flags of a disk besides provisioning and adapter | [`disk_conversion`](Self::disk_conversion) | VMFS, overwrite |
/// | the answer DELTA_DISK, and what zeros mean in it | [`take_delta_disk`](Self::take_delta_disk) | refused |
/// | an empty frame after the last sector of a fetched disk | [`skip_empty_frame`](Self::skip_empty_frame) | one is passed over |
/// | flags of mkdir and delete | [`directory_flags`](Self::directory_flags), [`delete_flags`](Self::delete_flags) | 2, as VMware's client sends |
/// | PING and RATE_CONTROL | [`max_noise`](Self::max_noise) | passed over without an answer |
/// | whether a fetched file may end before its announced size | [`take_short_files`](Self::take_short_files) | refused |
/// | what a read of synchronous access looks like | [`read_direction`](Self::read_direction), [`read_when_writable`](Self::read_when_writable) | 0, on disks open for reading only |
/// | open flags of synchronous access | [`open_flags_read_only`](Self::open_flags_read_only), [`open_flags_read_write`](Self::open_flags_read_write) | 0x0E, 0x0A |
/// | the largest request of synchronous access | [`max_request`](Self::max_request) | 1 MiB |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassicQuirks {
    /// The most sectors of a run of data that is sent, up to 32767. More than one saves 1.6 % of the
    /// bytes, and is legal by what VMware's client reads. Default: 1, which is what it writes.
    pub run_sectors: u16,
    /// The conversion flags of a plain file that is stored. Default: 0x10, CREATE_OVERWRITE.
    pub file_conversion: u32,
    /// The conversion flags of a disk that is stored, besides those of provisioning and adapter.
    /// Default: 0x18, VMFS and CREATE_OVERWRITE.
    pub disk_conversion: u32,
    /// Whether a host may send a child disk for a disk that was asked for. Whether its zeros are
    /// zeros or "as the parent" is not known. Default: no.
    pub take_delta_disk: bool,
    /// Whether an empty frame after a fetched disk is passed over. Default: yes.
    pub skip_empty_frame: bool,
    /// Flags of a directory to make. Default: 2, CREATEDIRHIER.
    pub directory_flags: u32,
    /// Flags of a file to delete. Default: 2, which VMware's client sends here too.
    pub delete_flags: u32,
    /// The most PING and RATE_CONTROL messages that are passed over where another is expected.
    /// Default: 16.
    pub max_noise: u32,
    /// Whether a fetched file may have fewer bytes than the host said before. Default: no. More it
    /// may always have: logs grow.
    pub take_short_files: bool,
    /// What says "read" in synchronous access. Default: 0, as 1 is a write; the asynchronous layer
    /// has it the other way round.
    pub read_direction: u32,
    /// Whether a disk is read that is open for writing in synchronous access. Default: no.
    pub read_when_writable: bool,
    /// Open flags of a disk that is read in synchronous access. Default: 0x0E.
    pub open_flags_read_only: u32,
    /// Open flags of a disk that is written in synchronous access. Default: 0x0A, as VMware's client
    /// sends.
    pub open_flags_read_write: u32,
    /// The most bytes of a request of synchronous access. Default: 1 MiB; hosts are known to fail
    /// for want of memory at 2 MiB.
    pub max_request: u32,
}

impl Default for ClassicQuirks {
    fn default() -> Self {
        Self {
            run_sectors: 1,
            file_conversion: conversion::CREATE_OVERWRITE,
            disk_conversion: conversion::VMFS | conversion::CREATE_OVERWRITE,
            take_delta_disk: false,
            skip_empty_frame: true,
            directory_flags: operation::CREATE_HIERARCHY,
            delete_flags: operation::CREATE_HIERARCHY,
            max_noise: 16,
            take_short_files: false,
            read_direction: 0,
            read_when_writable: false,
            open_flags_read_only: fssrvr::flags::READ_ONLY,
            open_flags_read_write: fssrvr::flags::READ_WRITE,
            max_request: 1024 * 1024,
        }
    }
}
