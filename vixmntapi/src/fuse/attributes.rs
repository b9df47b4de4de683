//! What the kernel is told of files, and of what went wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo};

use crate::{
    error::Error,
    fs::{FileKind, Metadata, Timestamp},
};

/// What the kernel calls a file. What is none of its kinds is a file that cannot be opened.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File | FileKind::Other => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::CharDevice => FileType::CharDevice,
    }
}

/// The answer to `stat`, of a file system with blocks of so many bytes: space is counted in whole ones.
pub(super) fn attributes(id: u64, metadata: &Metadata, block_size: u32) -> FileAttr {
    let times = &metadata.times;
    FileAttr {
        ino: INodeNo(id),
        size: metadata.size,
        blocks: metadata.allocated.div_ceil(block_size.into()).saturating_mul(block_size.into()).div_ceil(512),
        atime: time(times.accessed),
        mtime: time(times.modified),
        ctime: time(times.changed),
        crtime: times.created.map_or(UNIX_EPOCH, time),
        kind: file_type(metadata.kind),
        perm: (metadata.mode & 0o7777) as u16,
        nlink: metadata.links.max(1),
        uid: metadata.uid,
        gid: metadata.gid,
        rdev: metadata.device.map_or(0, |(major, minor)| device(major, minor)),
        blksize: BLOCK,
        flags: 0,
    }
}

/// The name is known, and nothing else: whoever asks for more gets the error that was met here.
pub(super) fn unreadable(id: u64, kind: Option<FileKind>) -> FileAttr {
    attributes(id, &Metadata::new(kind.unwrap_or(FileKind::File), 0), 1)
}

/// As `new_encode_dev` of Linux packs it: 12 bits of the major and 20 of the minor number.
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

fn time(stamp: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(stamp.seconds.unsigned_abs());
    let whole = if stamp.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(stamp.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// What a program gets for an error.
pub(super) fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound(_) => Errno::ENOENT,
        Error::NotADirectory(_) => Errno::ENOTDIR,
        Error::NotAFile { kind, .. } if kind.contains("directory") => Errno::EISDIR,
        Error::TooManyLinks(_) => Errno::ELOOP,
        Error::Invalid(_) => Errno::EINVAL,
        Error::Unsupported { .. } | Error::NotAFile { .. } => Errno::EOPNOTSUPP,
        Error::Encrypted { .. } => Errno::from_i32(rustix::io::Errno::NOKEY.raw_os_error()),
        Error::At { source, .. } => errno(source),
        Error::Read { .. } | Error::Damaged { .. } | Error::Local { .. } => Errno::EIO,
        #[cfg(feature = "vendor")]
        Error::Vendor { .. } => Errno::EIO,
    }
}

/// Bytes that `stat` tells programs to read at once. The kernel caches by pages whatever it says.
const BLOCK: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_beyond_all_clocks_are_told() {
        let of = |seconds, nanos| time(Timestamp { seconds, nanos });
        assert_eq!(of(0, 5), UNIX_EPOCH + Duration::new(0, 5));
        assert_eq!(of(-1, 999_999_999), UNIX_EPOCH - Duration::new(0, 1));
        assert_eq!(of(4_102_444_800, 7), UNIX_EPOCH + Duration::new(4_102_444_800, 7));
        for far in [i64::MIN, i64::MAX] {
            of(far, 999_999_999);
        }
    }

    #[test]
    fn device_numbers_are_packed_as_linux_unpacks_them() {
        for (major, minor) in [(1, 3), (259, 1000), (4095, 0xf_ffff), (8, 0x12345)] {
            let packed = u64::from(device(major, minor));
            // new_decode_dev
            assert_eq!(
                ((packed & 0xfff00) >> 8, (packed & 0xff) | ((packed >> 12) & 0xfff00)),
                (major.into(), minor.into())
            );
        }
    }
}
