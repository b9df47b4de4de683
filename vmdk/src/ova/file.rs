//! A file of a package as a positioned source.

use std::{
    io::{self, ErrorKind, Read},
    ops::Range,
    sync::Arc,
};

use crate::source::{ReadAt, SourceMap};

/// A file inside a package, made of the bytes of one member or of several pieces.
#[derive(Debug, Clone)]
pub struct PackageFile {
    parts: Vec<Part>,
    len: u64,
}

#[derive(Debug, Clone)]
struct Part {
    /// Where it begins in the file.
    start: u64,
    source: Arc<dyn ReadAt>,
    /// Where its bytes are in the source.
    range: Range<u64>,
}

impl PackageFile {
    pub(super) fn new() -> Self {
        Self { parts: Vec::new(), len: 0 }
    }

    /// Adds bytes at the end. Empty parts add nothing.
    pub(super) fn push(&mut self, source: Arc<dyn ReadAt>, range: Range<u64>) {
        let start = self.len;
        if range.start < range.end {
            self.len += range.end - range.start;
            self.parts.push(Part { start, source, range });
        }
    }

    /// Reads the file from its beginning, as a stream.
    pub fn reader(&self) -> impl Read + '_ {
        Cursor { file: self, at: 0 }
    }

    /// The parts that `offset..offset + len` touches, with the ranges inside of them.
    fn touched(&self, offset: u64, len: u64) -> io::Result<impl Iterator<Item = (&Part, Range<u64>)>> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len).ok_or(ErrorKind::UnexpectedEof)?;
        let first = self.parts.partition_point(|part| part.start <= offset).saturating_sub(1);
        let parts = self.parts[first.min(self.parts.len())..].iter().take_while(move |part| part.start < end);
        Ok(parts.map(move |part| {
            let from = part.range.start + (offset.max(part.start) - part.start);
            let to = part.range.start + (end - part.start).min(part.range.end - part.range.start);
            (part, from..to)
        }))
    }
}

impl ReadAt for PackageFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut rest = &mut *buf;
        for (part, range) in self.touched(offset, rest.len() as u64)? {
            let (now, later) = rest.split_at_mut((range.end - range.start) as usize);
            part.source.read_exact_at(now, range.start)?;
            rest = later;
        }
        Ok(())
    }

    /// Hands all ranges to the source at once when it is one, as it may know a better way than one by one.
    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        let [part] = &self.parts[..] else {
            return ranges.iter_mut().try_for_each(|(offset, buf)| self.read_exact_at(buf, *offset));
        };
        let inside = |offset: u64, len: usize| offset.checked_add(len as u64).is_some_and(|end| end <= self.len);
        if !ranges.iter().all(|(offset, buf)| inside(*offset, buf.len())) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut moved: Vec<(u64, &mut [u8])> =
            ranges.iter_mut().map(|(offset, buf)| (part.range.start + *offset, &mut **buf)).collect();
        part.source.read_ranges(&mut moved)
    }

    fn map(&self, range: Range<u64>) -> io::Result<SourceMap> {
        let [part] = &self.parts[..] else { return Ok(SourceMap::AllData) };
        if range.start > range.end || range.end > self.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let base = part.range.start;
        let mut map = part.source.map(base + range.start..base + range.end)?;
        if let SourceMap::Runs(runs) = &mut map {
            for run in runs {
                run.range = run.range.start - base..run.range.end - base;
            }
        }
        Ok(map)
    }
}

struct Cursor<'a> {
    file: &'a PackageFile,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = (self.file.len - self.at).min(buf.len() as u64) as usize;
        self.file.read_exact_at(&mut buf[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemSource;

    #[test]
    fn parts_read_as_one() {
        let source: Arc<dyn ReadAt> = Arc::new(MemSource::new((0..100).collect()));
        let mut file = PackageFile::new();
        for range in [10..13, 50..50, 20..21, 90..96] {
            file.push(Arc::clone(&source), range);
        }
        let all = [10, 11, 12, 20, 90, 91, 92, 93, 94, 95];
        for start in 0..=all.len() {
            for end in start..=all.len() {
                let mut buf = vec![0; end - start];
                file.read_exact_at(&mut buf, start as u64).unwrap();
                assert_eq!(buf, all[start..end]);
            }
        }
        assert!(file.read_exact_at(&mut [0; 2], 9).is_err());
        assert!(file.read_exact_at(&mut [0; 2], u64::MAX).is_err());
        let [mut first, mut second] = [[0; 2], [0; 2]];
        file.read_ranges(&mut [(2, &mut first), (8, &mut second)]).unwrap();
        assert_eq!([first, second], [[12, 20], [94, 95]]);
        let mut one = PackageFile::new();
        one.push(Arc::clone(&source), 10..20);
        one.read_ranges(&mut [(8, &mut first), (0, &mut second)]).unwrap();
        assert_eq!([first, second], [[18, 19], [10, 11]]);
        assert!(one.read_ranges(&mut [(9, &mut first)]).is_err(), "beyond the part, though not beyond the source");
        let mut read = Vec::new();
        file.reader().read_to_end(&mut read).unwrap();
        assert_eq!(read, all);
        assert!(PackageFile::new().read_exact_at(&mut [], 0).is_ok());
    }
}
