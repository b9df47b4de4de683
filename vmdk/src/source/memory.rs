//! A source in memory, for tests and for small images.

use std::{
    io,
    ops::Range,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{ReadAt, WriteAt};

/// Bytes in memory.
#[derive(Default)]
pub struct MemSource {
    bytes: RwLock<Vec<u8>>,
}

impl MemSource {
    /// Takes over `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }

    /// Returns a copy of the current content.
    pub fn to_vec(&self) -> Vec<u8> {
        self.read().clone()
    }

    // A panic elsewhere cannot leave a Vec<u8> half changed in a way that matters here.
    fn read(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemSource").field("len", &self.read().len()).finish()
    }
}

impl ReadAt for MemSource {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read().len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.read();
        let from = usize::try_from(offset)
            .ok()
            .and_then(|start| bytes.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }
}

impl WriteAt for MemSource {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.write();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(data.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if end > bytes.len() {
            grow(&mut bytes, end)?;
        }
        bytes[start..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        grow(&mut self.write(), len)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let mut bytes = self.write();
        let hole = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .and_then(|(start, end)| bytes.get_mut(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        hole.fill(0);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// As `Vec::resize`, but too much is an error instead of the end of the process.
fn grow(bytes: &mut Vec<u8>, len: usize) -> io::Result<()> {
    bytes.try_reserve(len.saturating_sub(bytes.len())).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(len, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_on_write_and_refuses_reads_past_the_end() {
        let source = MemSource::default();
        source.write_all_at(b"xy", 3).unwrap();
        assert_eq!(source.to_vec(), b"\0\0\0xy");
        let mut buf = [0; 2];
        assert!(source.read_exact_at(&mut buf, 4).is_err());
        assert!(source.read_exact_at(&mut buf, u64::MAX).is_err());
    }
}
