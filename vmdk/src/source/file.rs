//! Files and block devices of the local machine.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    ops::Range,
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, fchown},
    path::Path,
};

use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, seek},
    io::{Errno, preadv},
};

use super::{MAX_RUNS, ReadAt, SourceMap, SourceRun, WriteAt};
use crate::descriptor::Cid;

/// A local file or block device.
///
/// Holes are found with `SEEK_HOLE` and made with `fallocate`; file systems without either still work, only
/// without holes.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    is_block_device: bool,
}

impl FileSource {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// Those of the operating system, and [`io::ErrorKind::InvalidInput`] when `path` is neither a regular
    /// file nor a block device: a pipe named in a hostile descriptor would block for ever.
    pub fn open(path: &Path) -> io::Result<Self> {
        refuse_special(path)?;
        Self::from_file(File::open(path)?)
    }

    /// Opens `path` for reading and writing.
    ///
    /// # Errors
    /// As [`FileSource::open`].
    pub fn open_rw(path: &Path) -> io::Result<Self> {
        refuse_special(path)?;
        Self::from_file(File::options().read(true).write(true).open(path)?)
    }

    /// Creates `path`, which must not exist, for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] and those of the operating system.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        Self::from_file(File::options().read(true).write(true).create_new(true).open(path)?)
    }

    /// Gives the file at `path` other bytes by putting a new file, with the same owner and permissions, in its place: a crash
    /// leaves the old or the new bytes. Symbolic links stay; other hard links keep the old bytes.
    ///
    /// # Errors
    /// Those of the operating system; the file is then as it was.
    pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let old = std::fs::metadata(&path)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        // A name that nobody has: what a crash left behind must not be in the way for ever.
        name.push(format!(".{}.new", Cid::random()));
        let new = path.with_file_name(name);
        let file = Self::create_new(&new)?;
        let written = (|| {
            file.file.set_permissions(old.permissions())?;
            // Only root can give files away, and only for root it matters.
            let _ = fchown(&file.file, Some(old.uid()), Some(old.gid()));
            file.write_all_at(bytes, 0)?;
            file.file.sync_all()?;
            std::fs::rename(&new, &path)
        })();
        if let Err(error) = written {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        // The new name survives a power failure. Not all file systems can, none must.
        if let Some(directory) = path.parent() {
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
        Ok(file)
    }

    /// Takes over an open file.
    ///
    /// # Errors
    /// When the file's type cannot be read.
    pub fn from_file(file: File) -> io::Result<Self> {
        let is_block_device = file.metadata()?.file_type().is_block_device();
        Ok(Self { file, is_block_device })
    }

    /// Reads ascending ranges with small gaps between them. The bytes of the gaps are thrown away.
    fn read_neighbours(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        if ranges.len() > 1 {
            let start = ranges[0].0;
            let wanted: u64 = ranges.iter().map(|(_, buf)| buf.len() as u64).sum();
            let end = ranges.last().map_or(start, |(offset, buf)| offset + buf.len() as u64);
            let mut gaps = vec![0; (end - start - wanted) as usize];
            let mut gaps = gaps.as_mut_slice();
            let mut slices = Vec::with_capacity(2 * ranges.len());
            let mut end = start;
            for (offset, buf) in &mut *ranges {
                if *offset > end {
                    let (gap, later) = std::mem::take(&mut gaps).split_at_mut((*offset - end) as usize);
                    slices.push(IoSliceMut::new(gap));
                    gaps = later;
                }
                end = *offset + buf.len() as u64;
                slices.push(IoSliceMut::new(buf));
            }
            // What is cut short, by a signal or by the end of the file, is read piece by piece.
            if preadv(&self.file, &mut slices, start).is_ok_and(|read| read as u64 == end - start) {
                return Ok(());
            }
        }
        ranges.iter_mut().try_for_each(|(offset, buf)| self.read_exact_at(buf, *offset))
    }

    /// End of the run of data or of the hole at `offset`, and which it is.
    fn run_at(&self, offset: u64, end: u64) -> Result<SourceRun, Errno> {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Ok(SourceRun { range: offset..data.min(end), hole: true }),
            Ok(_) => {
                let hole = seek(&self.file, SeekFrom::Hole(offset))?;
                // A hole "at" the offset of data means that the file changed under us: call it data.
                let stop = if hole > offset { hole.min(end) } else { end };
                Ok(SourceRun { range: offset..stop, hole: false })
            }
            // No data up to the end of the file.
            Err(Errno::NXIO) => Ok(SourceRun { range: offset..end, hole: true }),
            Err(errno) => Err(errno),
        }
    }
}

impl ReadAt for FileSource {
    fn len(&self) -> io::Result<u64> {
        // A block device's metadata says 0. All other access is positioned, so moving the cursor is harmless.
        if self.is_block_device { Ok(seek(&self.file, SeekFrom::End(0))?) } else { Ok(self.file.metadata()?.len()) }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Neighbours in the file are one system call, across gaps of up to a page too.
    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        let mut rest = ranges;
        while let Some((first, _)) = rest.split_first() {
            let mut end = first.0.saturating_add(first.1.len() as u64);
            let follows = |(offset, buf): &&(u64, &mut [u8])| {
                let joins = *offset >= end && *offset - end <= MAX_GAP as u64;
                end = offset.saturating_add(buf.len() as u64);
                joins
            };
            let count = 1 + rest[1..].iter().take(MAX_NEIGHBOURS - 1).take_while(follows).count();
            let (now, later) = rest.split_at_mut(count);
            self.read_neighbours(now)?;
            rest = later;
        }
        Ok(())
    }

    fn map(&self, range: Range<u64>) -> io::Result<SourceMap> {
        let len = self.len()?;
        if range.end > len || range.start > range.end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.is_block_device || range.is_empty() {
            return Ok(SourceMap::AllData);
        }
        let mut runs = Vec::new();
        let mut offset = range.start;
        while offset < range.end && runs.len() < MAX_RUNS {
            match self.run_at(offset, range.end) {
                Ok(run) => {
                    offset = run.range.end;
                    runs.push(run);
                }
                // File systems without SEEK_HOLE.
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    return Ok(SourceMap::AllData);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(SourceMap::Runs(runs))
    }
}

impl WriteAt for FileSource {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => write_zeros(self, range),
            Err(errno) => Err(errno.into()),
        }
    }

    fn flush(&self) -> io::Result<()> {
        // Nothing is buffered in this process.
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Bytes between two ranges that are read along: about what a system call costs.
const MAX_GAP: usize = 4096;

/// Ranges of one system call: half of what systems allow, as each may have a gap before it.
const MAX_NEIGHBOURS: usize = 512;

fn refuse_special(path: &Path) -> io::Result<()> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a block device"))
    }
}

fn write_zeros(target: &dyn WriteAt, range: Range<u64>) -> io::Result<()> {
    const BLOCK: usize = 256 * 1024;
    let zeros = vec![0; BLOCK];
    let mut offset = range.start;
    while offset < range.end {
        let len = (range.end - offset).min(BLOCK as u64);
        target.write_all_at(&zeros[..len as usize], offset)?;
        offset += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> (tempfile::TempDir, FileSource) {
        let dir = tempfile::tempdir().unwrap();
        let source = FileSource::create_new(&dir.path().join("f")).unwrap();
        (dir, source)
    }

    #[test]
    fn reading_past_the_end_is_an_error_not_zeros() {
        let (_dir, file) = temporary();
        file.write_all_at(b"abc", 0).unwrap();
        let mut buf = [1; 4];
        assert_eq!(file.read_exact_at(&mut buf, 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn many_ranges_are_read_as_if_one_by_one() {
        let (_dir, file) = temporary();
        let content: Vec<u8> = (0..40_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        file.write_all_at(&content, 0).unwrap();
        // Neighbours, small gaps, large gaps, going back, overlapping.
        let places = [(0, 10), (10, 5), (20, 100), (4000, 96), (20_000, 9000), (100, 7), (105, 7), (39_990, 10)];
        let mut bufs: Vec<Vec<u8>> = places.iter().map(|&(_, len)| vec![0; len]).collect();
        let mut ranges: Vec<_> =
            places.iter().zip(&mut bufs).map(|(&(at, _), buf)| (at as u64, buf.as_mut_slice())).collect();
        file.read_ranges(&mut ranges).unwrap();
        for ((at, len), buf) in places.into_iter().zip(bufs) {
            assert!(buf == content[at..at + len], "{at}");
        }
        let (mut one, mut two) = ([0; 4], [0; 4]);
        let error = file.read_ranges(&mut [(39_990, &mut one), (39_998, &mut two)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn punched_ranges_read_as_zero_and_map_as_holes() {
        let (_dir, file) = temporary();
        file.write_all_at(&[7; 1 << 20], 0).unwrap();
        file.punch(65536..524_288).unwrap();
        let mut buf = [1; 16];
        file.read_exact_at(&mut buf, 65536).unwrap();
        assert_eq!(buf, [0; 16]);
        file.read_exact_at(&mut buf, 524_288).unwrap();
        assert_eq!(buf, [7; 16]);
        // Not every file system keeps holes, but an answer must be contiguous.
        if let SourceMap::Runs(runs) = file.map(0..1 << 20).unwrap() {
            assert_eq!(runs.first().unwrap().range.start, 0);
            assert_eq!(runs.last().unwrap().range.end, 1 << 20);
            assert!(runs.windows(2).all(|pair| pair[0].range.end == pair[1].range.start));
        }
    }

    #[test]
    fn refuses_what_is_not_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FileSource::open(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
