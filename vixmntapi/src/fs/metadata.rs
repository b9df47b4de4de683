//! What there is to know of a file.

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A file with bytes.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, or a junction of Windows.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// Something else, such as a whiteout or a reparse point of a kind that is not known.
    Other,
}

impl FileKind {
    /// From a mode of POSIX with its kind.
    pub(crate) fn from_mode(mode: u32) -> Self {
        match mode >> 12 & 0xf {
            0x1 => Self::Fifo,
            0x2 => Self::CharDevice,
            0x4 => Self::Directory,
            0x6 => Self::BlockDevice,
            0x8 => Self::File,
            0xa => Self::Symlink,
            0xc => Self::Socket,
            _ => Self::Other,
        }
    }

    /// From what directories of ext, XFS and Btrfs say of their entries; `None` when that is nothing.
    pub(crate) fn from_directory(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => return None,
        })
    }
}

/// What there is to know of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// In bytes.
    pub size: u64,
    /// Bytes that it takes on the volume.
    pub allocated: u64,
    /// Names that it has.
    pub links: u32,
    /// Permissions with setuid, setgid and sticky, without the kind: 0o7777 at most. Made up for file systems that have none.
    pub mode: u32,
    /// The owner; 0 for file systems that have none.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When what happened.
    pub times: Times,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// The attributes of Windows (`FILE_ATTRIBUTE_*`), where the file system has them.
    pub attributes: Option<u32>,
    /// The tag of a reparse point.
    pub reparse_tag: Option<u32>,
}

impl Metadata {
    /// Makes one with what every file has.
    pub fn new(kind: FileKind, size: u64) -> Self {
        let mode = if kind == FileKind::Directory { 0o755 } else { 0o644 };
        Self {
            kind,
            size,
            allocated: size,
            links: 1,
            mode,
            uid: 0,
            gid: 0,
            times: Times::default(),
            device: None,
            attributes: None,
            reparse_tag: None,
        }
    }
}

/// When a file was changed and read, as precisely as its file system says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// The content (mtime).
    pub modified: Timestamp,
    /// The last reading (atime).
    pub accessed: Timestamp,
    /// The metadata (ctime).
    pub changed: Timestamp,
    /// Where the file system has it (btime).
    pub created: Option<Timestamp>,
}

/// A moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Since 1970-01-01 00:00 UTC, negative before.
    pub seconds: i64,
    /// Nanoseconds after that, below 1 000 000 000.
    pub nanos: u32,
}

impl Timestamp {
    /// Makes one.
    pub fn new(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos: nanos.min(999_999_999) }
    }

    /// From 100 ns since 1601, the clock of Windows.
    pub fn from_filetime(ticks: u64) -> Self {
        let seconds = (ticks / 10_000_000) as i64 - SECONDS_1601_TO_1970;
        Self { seconds, nanos: (ticks % 10_000_000) as u32 * 100 }
    }
}

const SECONDS_1601_TO_1970: i64 = 11_644_473_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_windows_becomes_seconds_and_nanoseconds() {
        assert_eq!(Timestamp::from_filetime(116_444_736_000_000_000), Timestamp::new(0, 0));
        assert_eq!(Timestamp::from_filetime(116_444_736_000_000_001), Timestamp::new(0, 100));
        assert_eq!(Timestamp::from_filetime(0).seconds, -11_644_473_600);
        assert_eq!(Timestamp::from_filetime(u64::MAX).nanos, 955_161_500);
    }
}
