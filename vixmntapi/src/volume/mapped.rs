//! A device put together of parts of others: side by side, in stripes, or with parts missing.

use std::{io, ops::Range, sync::Arc};

use crate::{
    device::{Device, check},
    error::{Error, Result},
};

/// What a volume manager makes of disks.
#[derive(Debug)]
pub(crate) struct Mapped {
    name: String,
    sector_size: u32,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    range: Range<u64>,
    /// Bytes after which the next leg has its turn.
    chunk: u64,
    legs: Vec<Leg>,
}

/// One of the devices that a piece lies on.
#[derive(Clone, Debug)]
pub(crate) enum Leg {
    /// From this byte of a device on.
    On(Arc<dyn Device>, u64),
    /// It is not there; reads fail, and say this.
    Missing(String),
    /// Zeros.
    Zeros,
}

impl Mapped {
    /// A device without any bytes yet.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), sector_size: 512, pieces: Vec::new() }
    }

    /// Appends `len` bytes that lie side by side.
    pub(crate) fn append(&mut self, len: u64, leg: Leg) -> Result<()> {
        self.append_stripes(len, u64::MAX, vec![leg])
    }

    /// Appends `len` bytes that change legs after every `chunk` bytes.
    pub(crate) fn append_stripes(&mut self, len: u64, chunk: u64, legs: Vec<Leg>) -> Result<()> {
        let start = self.size();
        let end = start.checked_add(len).ok_or_else(|| Error::damaged(&*self.name, "it is too large"))?;
        let count = legs.len() as u64;
        if count == 0 || chunk == 0 || (count > 1 && chunk > MAX_CHUNK) {
            return Err(Error::damaged(&*self.name, format!("{count} stripes of {chunk} bytes")));
        }
        for leg in &legs {
            let Leg::On(device, offset) = leg else { continue };
            self.sector_size = self.sector_size.max(device.sector_size());
            if offset.checked_add(len / count).is_none_or(|end| end > device.size()) {
                let (of, has) = (device.name(), device.size());
                let problem =
                    format!("{} bytes from byte {offset} of {of} on are to be its, that has {has}", len / count);
                return Err(Error::damaged(&*self.name, problem));
            }
        }
        if len > 0 {
            self.pieces.push(Piece { range: start..end, chunk, legs });
        }
        Ok(())
    }

    /// What of it is not there.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.pieces.iter().flat_map(|piece| &piece.legs).find_map(|leg| match leg {
            Leg::Missing(what) => Some(&**what),
            Leg::On(..) | Leg::Zeros => None,
        })
    }

    /// On which leg a byte lies, as the how many-th byte counted from the leg's start, and how many lie there side by
    /// side.
    fn locate(&self, offset: u64) -> Option<(&Leg, u64, u64)> {
        let number = self.pieces.partition_point(|piece| piece.range.end <= offset);
        let piece = self.pieces.get(number).filter(|piece| piece.range.contains(&offset))?;
        let (within, rest) = (offset - piece.range.start, piece.range.end - offset);
        let count = piece.legs.len() as u64;
        let (turn, at) = (within / piece.chunk, within % piece.chunk);
        let leg = piece.legs.get((turn % count) as usize)?;
        // Below `within`, so that nothing overflows.
        let place = turn / count * piece.chunk + at;
        Some((leg, place, rest.min(piece.chunk - at)))
    }
}

impl Device for Mapped {
    fn size(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.range.end)
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(self, offset, buf.len())?;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let (leg, place, run) = self.locate(at).ok_or_else(|| crate::device::outside(self, at, rest.len()))?;
            let len = rest.len().min(usize::try_from(run).unwrap_or(usize::MAX));
            let part = &mut rest[..len];
            match leg {
                Leg::On(device, start) => device.read_at(start + place, part)?,
                Leg::Zeros => part.fill(0),
                Leg::Missing(what) => {
                    let source = io::Error::new(io::ErrorKind::NotFound, what.clone());
                    return Err(Error::Read { device: self.name(), offset: at, len: len as u64, source });
                }
            }
            done += len;
        }
        Ok(())
    }

    fn below(&self, offset: u64) -> Option<(Arc<dyn Device>, u64, u64)> {
        match self.locate(offset)? {
            (Leg::On(device, start), place, run) => Some((device.clone(), start + place, run)),
            (Leg::Missing(_) | Leg::Zeros, ..) => None,
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Bytes of a chunk: more than any volume manager allows.
const MAX_CHUNK: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceExt;

    #[derive(Debug)]
    struct Bytes(Vec<u8>);

    impl Device for Bytes {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            check(self, offset, buf.len())?;
            buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]);
            Ok(())
        }

        fn name(&self) -> String {
            "bytes".into()
        }
    }

    fn on(first: u8, len: u8, offset: u64) -> Leg {
        Leg::On(Arc::new(Bytes((first..first + len).collect())), offset)
    }

    #[test]
    fn pieces_follow_each_other_and_stripes_take_turns() {
        let mut mapped = Mapped::new("mapped");
        mapped.append(3, on(0, 8, 2)).unwrap();
        mapped.append_stripes(8, 2, vec![on(10, 4, 0), on(20, 5, 1)]).unwrap();
        mapped.append(2, Leg::Zeros).unwrap();
        let expected = [2, 3, 4, 10, 11, 21, 22, 12, 13, 23, 24, 0, 0];
        assert_eq!(mapped.read_vec(0, 13).unwrap(), expected);
        for start in 0..13 {
            for end in start..=13 {
                assert_eq!(mapped.read_vec(start as u64, end - start).unwrap(), expected[start..end]);
            }
        }
        let (device, place, run) = mapped.below(6).unwrap();
        assert_eq!((device.size(), place, run), (5, 2, 1));
        assert!(mapped.below(11).is_none() && mapped.below(13).is_none());
        assert!(mapped.read_vec(13, 1).is_err());
    }

    #[test]
    fn what_is_missing_fails_the_reads_that_need_it_alone() {
        let mut mapped = Mapped::new("mapped");
        mapped.append(4, on(0, 4, 0)).unwrap();
        assert_eq!(mapped.missing(), None);
        mapped.append_stripes(8, 2, vec![on(10, 4, 0), Leg::Missing("the other disk".into())]).unwrap();
        assert_eq!(mapped.missing(), Some("the other disk"));
        assert_eq!(mapped.read_vec(0, 6).unwrap(), [0, 1, 2, 3, 10, 11]);
        let error = mapped.read_vec(5, 2).unwrap_err();
        assert!(matches!(error, Error::Read { offset: 6, len: 1, .. }), "{error:?}");
    }

    #[test]
    fn what_does_not_fit_on_its_devices_is_refused() {
        let mut mapped = Mapped::new("mapped");
        mapped.append(4, on(0, 4, 1)).unwrap_err();
        mapped.append(4, on(0, 4, u64::MAX)).unwrap_err();
        mapped.append_stripes(4, 0, vec![on(0, 4, 0)]).unwrap_err();
        mapped.append_stripes(4, 2, vec![]).unwrap_err();
        mapped.append(u64::MAX, Leg::Zeros).unwrap();
        mapped.append(1, Leg::Zeros).unwrap_err();
    }
}
