//! Puts a read together out of fragments in any order, without copying and without zeroing.

use std::collections::BTreeMap;

use bytes::BytesMut;

use crate::wire::WireError;

/// The destination of one read request.
///
/// The buffer is cut where a fragment arrives ahead of its turn, every piece is filled by appending,
/// and at the end the pieces, which still lie side by side in memory, are joined again.
pub(crate) struct Assembly {
    total: u32,
    received: u32,
    /// By the offset of the first byte.
    pieces: BTreeMap<u32, Piece>,
}

struct Piece {
    /// Where the piece ends in the request.
    end: u32,
    /// What has arrived, from the start of the piece; its capacity reaches to `end`.
    bytes: BytesMut,
}

impl Assembly {
    /// Assembles `total` bytes in `buffer`, from its first byte.
    pub(crate) fn new(mut buffer: BytesMut, total: u32) -> Self {
        buffer.clear();
        buffer.reserve(size(total));
        let pieces = BTreeMap::from([(0, Piece { end: total, bytes: buffer })]);
        Self { total, received: 0, pieces }
    }

    /// An assembly of nothing.
    pub(crate) fn empty() -> Self {
        Self { total: 0, received: 0, pieces: BTreeMap::new() }
    }

    /// The length of the whole request.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Where to append the `len` bytes of the fragment at `offset`; they count as received.
    ///
    /// # Errors
    /// When the fragment is empty, reaches outside the request or overlaps another one.
    pub(crate) fn slot(&mut self, offset: u32, len: u32) -> Result<&mut BytesMut, WireError> {
        const OVERLAP: WireError = WireError::Malformed("a fragment overlaps another one");
        let end = offset
            .checked_add(len)
            .filter(|end| len > 0 && *end <= self.total)
            .ok_or(WireError::Malformed("a fragment lies outside its request"))?;
        let (&start, piece) = self.pieces.range_mut(..=offset).next_back().ok_or(OVERLAP)?;
        // Within u32: a piece never holds more than `end - start`.
        let filled = start + u32::try_from(piece.bytes.len()).map_err(|_| OVERLAP)?;
        if offset < filled || end > piece.end {
            return Err(OVERLAP);
        }
        if offset > filled {
            let ahead = Piece { end: piece.end, bytes: piece.bytes.split_off(size(offset - start)) };
            piece.end = offset;
            self.pieces.insert(offset, ahead);
        }
        self.received += len;
        let piece = self.pieces.get_mut(if offset > filled { &offset } else { &start });
        Ok(&mut piece.ok_or(OVERLAP)?.bytes)
    }

    /// Whether every byte has a fragment.
    pub(crate) fn is_complete(&self) -> bool {
        self.received == self.total
    }

    /// The whole request, once it is complete.
    pub(crate) fn finish(self) -> BytesMut {
        let mut pieces = self.pieces.into_values().map(|piece| piece.bytes);
        let mut whole = pieces.next().unwrap_or_default();
        for piece in pieces {
            whole.unsplit(piece);
        }
        whole
    }
}

/// Bytes as an index; targets of this crate have at least 32 bits.
fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(assembly: &mut Assembly, offset: u32, data: &[u8]) -> Result<(), WireError> {
        assembly.slot(offset, data.len() as u32)?.extend_from_slice(data);
        Ok(())
    }

    #[test]
    fn fragments_in_reverse_end_up_in_order_without_moving() {
        let buffer = BytesMut::with_capacity(1024);
        let place = buffer.as_ptr();
        let mut assembly = Assembly::new(buffer, 1024);
        put(&mut assembly, 512, &[2; 512]).unwrap();
        assert!(!assembly.is_complete());
        put(&mut assembly, 0, &[1; 512]).unwrap();
        assert!(assembly.is_complete());
        let whole = assembly.finish();
        assert_eq!(whole, [[1; 512], [2; 512]].concat());
        assert_eq!(whole.as_ptr(), place);
    }

    #[test]
    fn overlap_duplicate_and_overrun_are_refused() {
        let mut assembly = Assembly::new(BytesMut::new(), 4096);
        put(&mut assembly, 1024, &[0; 1024]).unwrap();
        for (offset, len) in [(1024, 1024), (1536, 512), (512, 1024), (0, 4096), (2047, 1), (4096, 512), (0, 0)] {
            assert!(assembly.slot(offset, len).is_err(), "{offset}+{len}");
        }
        assert!(assembly.slot(u32::MAX, 2).is_err());
        assert!(assembly.slot(3584, 513).is_err());
        assert!(assembly.slot(2048, 2048).is_ok());
    }

    proptest! {
        #[test]
        fn any_order_of_fragments_gives_the_same_bytes(
            cuts in prop::collection::btree_set(1u32..5000, 0..20),
            seed: u64,
        ) {
            let data: Vec<u8> = (0..5000u32).map(|at| (at * 7 / 3) as u8).collect();
            let mut bounds: Vec<u32> = cuts.into_iter().collect();
            bounds.insert(0, 0);
            bounds.push(5000);
            let mut parts: Vec<(u32, u32)> = bounds.windows(2).map(|w| (w[0], w[1])).collect();
            parts.sort_by_key(|(start, _)| (u64::from(*start) + 1).wrapping_mul(seed | 1));
            let mut assembly = Assembly::new(BytesMut::new(), 5000);
            for (start, end) in parts {
                prop_assert!(!assembly.is_complete());
                put(&mut assembly, start, &data[start as usize..end as usize]).unwrap();
            }
            prop_assert!(assembly.is_complete());
            prop_assert_eq!(assembly.finish(), data);
        }

        #[test]
        fn hostile_fragments_never_panic(fragments: Vec<(u32, u16)>) {
            let mut assembly = Assembly::new(BytesMut::new(), 100_000);
            for (offset, len) in fragments {
                let _ = put(&mut assembly, offset % 120_000, &vec![0; len.into()]);
            }
        }
    }
}
