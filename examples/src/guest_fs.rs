//! A FAT32 file system, made and changed in Rust: what the guest of the examples keeps on its disk.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Positioned bytes of a guest's disk: an image file, or the guest side of a simulated machine.
pub trait GuestDisk {
    /// The disk's size in bytes.
    fn capacity(&self) -> u64;
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// What the disk answers.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// What the disk answers.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

impl GuestDisk for std::fs::File {
    fn capacity(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }
}

/// A cursor over a disk, as the file system driver wants it, with the last block kept: the driver reads and
/// writes a few bytes at a time.
struct Cursor<'a> {
    disk: &'a dyn GuestDisk,
    at: u64,
    block: Vec<u8>,
    block_at: Option<u64>,
    dirty: bool,
}

const BLOCK: u64 = 4096;

impl<'a> Cursor<'a> {
    fn new(disk: &'a dyn GuestDisk) -> Self {
        Self { disk, at: 0, block: Vec::new(), block_at: None, dirty: false }
    }

    /// The kept block's bytes from the cursor on.
    fn here(&mut self) -> io::Result<&mut [u8]> {
        let start = self.at / BLOCK * BLOCK;
        if self.block_at != Some(start) {
            self.flush()?;
            let len = BLOCK.min(self.disk.capacity().saturating_sub(start));
            self.block.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            self.disk.read_at(start, &mut self.block)?;
            self.block_at = Some(start);
        }
        let within = usize::try_from(self.at - start).map_err(io::Error::other)?;
        Ok(self.block.get_mut(within..).unwrap_or_default())
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let here = self.here()?;
        let len = here.len().min(buffer.len());
        buffer[..len].copy_from_slice(&here[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Cursor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let here = self.here()?;
        let len = here.len().min(bytes.len());
        here[..len].copy_from_slice(&bytes[..len]);
        self.dirty = true;
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let (true, Some(start)) = (self.dirty, self.block_at) {
            self.disk.write_at(start, &self.block)?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => i128::from(at),
            SeekFrom::Current(by) => i128::from(self.at) + i128::from(by),
            SeekFrom::End(by) => i128::from(self.disk.capacity()) + i128::from(by),
        };
        self.at = u64::try_from(target).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        // The driver flushes on unmount; what is left here had no other chance.
        if let Err(error) = self.flush() {
            eprintln!("guest file system: the last block was not written: {error}");
        }
    }
}

/// A small generator of repeatable bytes: the examples make the same disk every time.
pub struct Noise(u64);

impl Noise {
    /// Begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number (xorshift64*).
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// `len` bytes: every third lot random, the others like text, so that compression has something to do.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 16);
        let random = self.number().is_multiple_of(3);
        while out.len() < len {
            let number = self.number();
            if random {
                out.extend_from_slice(&number.to_le_bytes());
            } else {
                out.extend_from_slice(format!("line {:04} of the log\n", number % 4096).as_bytes());
            }
        }
        out.truncate(len);
        out
    }
}

/// Formats the disk as FAT32 and fills it with `files` files of a few KiB in folders of a hundred.
///
/// # Errors
/// What the disk answers.
pub fn format_and_fill(disk: &dyn GuestDisk, files: u32, noise: &mut Noise) -> io::Result<()> {
    let options = FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).volume_label(*b"QUICKSTART ");
    fatfs::format_volume(Cursor::new(disk), options)?;
    write_files(disk, "data", files, noise)
}

/// Writes (again) `files` files under `root`, as a guest does while the machine runs.
///
/// # Errors
/// What the disk answers.
pub fn write_files(disk: &dyn GuestDisk, root: &str, files: u32, noise: &mut Noise) -> io::Result<()> {
    let fs = FileSystem::new(Cursor::new(disk), FsOptions::new())?;
    {
        let top = fs.root_dir().create_dir(root)?;
        for number in 0..files {
            let folder = top.create_dir(&format!("folder-{:03}", number / 100))?;
            let mut file = folder.create_file(&format!("file-{number:05}.dat"))?;
            file.truncate()?;
            let len = usize::try_from(1024 + noise.number() % 60_000).map_err(io::Error::other)?;
            file.write_all(&noise.bytes(len))?;
        }
    }
    fs.unmount()
}

/// Every file of the disk by path, with its length and a checksum of its bytes.
///
/// # Errors
/// What the disk answers, and a file system that cannot be read.
pub fn list_files(disk: &dyn GuestDisk) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let fs = FileSystem::new(Cursor::new(disk), FsOptions::new().update_accessed_date(false))?;
    let mut found = BTreeMap::new();
    let mut todo = vec![(String::new(), fs.root_dir())];
    while let Some((path, folder)) = todo.pop() {
        for entry in folder.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{path}/{name}");
            if entry.is_dir() {
                todo.push((path, entry.to_dir()));
            } else {
                let mut bytes = Vec::new();
                entry.to_file().read_to_end(&mut bytes)?;
                // FNV-1a: no more than a fingerprint for the comparison of a list.
                let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
                    (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
                });
                found.insert(path, (bytes.len() as u64, sum));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_as_they_were_written_and_change_when_rewritten() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        let mut noise = Noise::new(7);
        format_and_fill(&file, 150, &mut noise).unwrap();
        let first = list_files(&file).unwrap();
        assert_eq!(first.len(), 150);
        assert!(first.contains_key("/data/folder-001/file-00149.dat"));
        write_files(&file, "data", 3, &mut noise).unwrap();
        let second = list_files(&file).unwrap();
        assert_eq!(first.iter().filter(|(path, sum)| second[*path] != **sum).count(), 3);
    }
}
