//! A device of which some blocks are other than what is stored: what a journal would have written, kept in memory.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::{Device, check};
use crate::error::{Error, Result};

/// A device with some of its blocks replaced, by bytes or by other places of the same device.
///
/// A journal that is replayed into it costs no memory for blocks that lie in the journal as they are to be read: the
/// overlay only notes where.
#[derive(Debug)]
pub struct Overlay {
    device: Arc<dyn Device>,
    block: u32,
    patches: BTreeMap<u64, Patch>,
    /// Bytes of memory that patches take.
    held: u64,
    limit: u64,
}

/// What stands for a block.
#[derive(Clone, Debug)]
enum Patch {
    /// These bytes.
    Bytes(Box<[u8]>),
    /// The bytes at this place of the device below.
    Moved(u64),
}

impl Overlay {
    /// An overlay without any change, in blocks of `block` bytes. It takes at most `limit` bytes of memory.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a block of no bytes.
    pub fn new(device: Arc<dyn Device>, block: u32, limit: u64) -> Result<Self> {
        if block == 0 {
            return Err(Error::Invalid("an overlay of blocks without bytes".into()));
        }
        Ok(Self { device, block, patches: BTreeMap::new(), held: 0, limit })
    }

    /// Replaces a block by `bytes`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they are no whole block, or the device has no such block;
    /// [`Error::Unsupported`] when that is more than may be kept.
    pub fn put(&mut self, block: u64, bytes: Box<[u8]>) -> Result<()> {
        if bytes.len() as u64 != u64::from(self.block) {
            return Err(Error::Invalid(format!("{} bytes for a block of {}", bytes.len(), self.block)));
        }
        let cost = u64::from(self.block);
        self.insert(block, Patch::Bytes(bytes), cost)
    }

    /// Lets a block read as what lies at byte `place` of the device below.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the device has no such block or place, [`Error::Unsupported`] when that is more than may
    /// be kept.
    pub fn put_moved(&mut self, block: u64, place: u64) -> Result<()> {
        check(&*self.device, place, self.block as usize)?;
        self.insert(block, Patch::Moved(place), 0)
    }

    /// Lets a block read as what is stored again.
    pub fn take_back(&mut self, block: u64) {
        if let Some(old) = self.patches.remove(&block) {
            self.held -= self.cost(&old);
        }
    }

    /// How many blocks are other than what is stored.
    pub fn len(&self) -> usize {
        self.patches.len()
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Where the bytes of a range lie on the device below, piece by piece: `None` for what is only in memory.
    pub fn places(&self, range: Range<u64>) -> Vec<(Range<u64>, Option<u64>)> {
        let mut pieces = Vec::new();
        self.pieces(range, |piece, source| {
            let place = match source {
                Source::Below(place) => Some(place),
                Source::Memory(..) => None,
            };
            pieces.push((piece, place));
            Ok(())
        })
        .unwrap_or_default(); // The closure has no error.
        pieces
    }

    fn insert(&mut self, block: u64, patch: Patch, cost: u64) -> Result<()> {
        let start = block.checked_mul(u64::from(self.block));
        if start.is_none_or(|start| start >= self.size()) {
            return Err(Error::Invalid(format!("block {block} is not on {}", self.device.name())));
        }
        self.take_back(block);
        let cost = cost + ENTRY;
        if self.held + cost > self.limit {
            let reason = format!("its changes in flight take more than {} bytes", self.limit);
            return Err(Error::unsupported(self.device.name(), reason));
        }
        self.held += cost;
        self.patches.insert(block, patch);
        Ok(())
    }

    fn cost(&self, patch: &Patch) -> u64 {
        ENTRY + if matches!(patch, Patch::Bytes(_)) { u64::from(self.block) } else { 0 }
    }

    /// Cuts a range where its source changes.
    fn pieces<'a>(
        &'a self,
        range: Range<u64>,
        mut take: impl FnMut(Range<u64>, Source<'a>) -> Result<()>,
    ) -> Result<()> {
        let block = u64::from(self.block);
        let mut at = range.start;
        for (number, patch) in self.patches.range(range.start / block..range.end.div_ceil(block)) {
            let start = (number * block).max(at);
            let end = (number * block).saturating_add(block).min(range.end);
            if at < start {
                take(at..start, Source::Below(at))?;
            }
            let skip = start - number * block;
            let source = match patch {
                Patch::Bytes(bytes) => Source::Memory(&bytes[skip as usize..(skip + end - start) as usize]),
                Patch::Moved(place) => Source::Below(place + skip),
            };
            take(start..end, source)?;
            at = end;
        }
        if at < range.end {
            take(at..range.end, Source::Below(at))?;
        }
        Ok(())
    }
}

/// Where bytes come from.
enum Source<'a> {
    Below(u64),
    Memory(&'a [u8]),
}

impl Device for Overlay {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(self, offset, buf.len())?;
        self.pieces(offset..offset + buf.len() as u64, |piece, source| {
            let target = &mut buf[(piece.start - offset) as usize..(piece.end - offset) as usize];
            match source {
                Source::Below(place) => self.device.read_at(place, target),
                Source::Memory(bytes) => {
                    target.copy_from_slice(bytes);
                    Ok(())
                }
            }
        })
    }

    fn below(&self, offset: u64) -> Option<(Arc<dyn Device>, u64, u64)> {
        if offset >= self.size() {
            return None;
        }
        let block = u64::from(self.block);
        let number = offset / block;
        let next = |number: u64| (number * block).min(self.size());
        match self.patches.get(&number) {
            Some(Patch::Bytes(_)) => None,
            Some(Patch::Moved(place)) => Some((self.device.clone(), place + offset % block, next(number + 1) - offset)),
            None => {
                let end = self.patches.range(number..).next().map_or(self.size(), |(number, _)| next(*number));
                Some((self.device.clone(), offset, end - offset))
            }
        }
    }

    fn name(&self) -> String {
        self.device.name()
    }
}

/// What the note of a patch takes besides its bytes, about.
const ENTRY: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Memory(Vec<u8>);

    impl Device for Memory {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            check(self, offset, buf.len())?;
            buf.copy_from_slice(&self.0[offset as usize..offset as usize + buf.len()]);
            Ok(())
        }
        fn name(&self) -> String {
            "memory".into()
        }
    }

    fn overlay() -> Overlay {
        let bytes = (0..100_u8).collect();
        let mut overlay = Overlay::new(Arc::new(Memory(bytes)), 8, 10_000).unwrap();
        overlay.put(1, [200; 8].into()).unwrap();
        overlay.put_moved(2, 50).unwrap();
        overlay.put_moved(12, 0).unwrap(); // The last block is cut short by the device's end.
        overlay
    }

    #[test]
    fn every_range_reads_as_stored_but_for_the_replaced_blocks() {
        let overlay = overlay();
        let mut expected: Vec<u8> = (0..100).collect();
        expected[8..16].fill(200);
        expected[16..24].copy_from_slice(&(50..58).collect::<Vec<u8>>());
        expected[96..100].copy_from_slice(&[0, 1, 2, 3]);
        for start in 0..=100 {
            for end in start..=100 {
                let mut buffer = vec![0; end - start];
                overlay.read_at(start as u64, &mut buffer).unwrap();
                assert_eq!(buffer, expected[start..end], "{start}..{end}");
            }
        }
        overlay.read_at(100, &mut [0]).unwrap_err();
    }

    #[test]
    fn places_and_below_agree_with_what_is_read() {
        let overlay = overlay();
        let places = overlay.places(4..30);
        assert_eq!(places, [(4..8, Some(4)), (8..16, None), (16..24, Some(50)), (24..30, Some(24))]);
        let below = |at| overlay.below(at).map(|(_, place, len)| (place, len));
        assert_eq!((below(3), below(9), below(17)), (Some((3, 5)), None, Some((51, 7))));
        assert_eq!((below(24), below(97), below(100)), (Some((24, 72)), Some((1, 3)), None));
    }

    #[test]
    fn memory_is_bounded_and_what_is_taken_back_is_free_again() {
        let mut overlay = Overlay::new(Arc::new(Memory(vec![0; 4096])), 64, 2 * (64 + ENTRY)).unwrap();
        overlay.put(0, [1; 64].into()).unwrap();
        overlay.put(1, [1; 64].into()).unwrap();
        overlay.put(1, [2; 64].into()).unwrap();
        assert!(matches!(overlay.put(2, [1; 64].into()), Err(Error::Unsupported { .. })));
        overlay.take_back(0);
        overlay.put(2, [1; 64].into()).unwrap();
        assert_eq!(overlay.len(), 2);
        overlay.put(64, [1; 64].into()).unwrap_err();
        overlay.put_moved(3, 4090).unwrap_err();
        overlay.put(3, [1; 63].into()).unwrap_err();
    }
}
