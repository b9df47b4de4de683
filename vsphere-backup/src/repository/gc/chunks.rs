//! Which chunk lies where, in 26 bytes for each entry of a pack: the first 16 of the chunk's id, the pack, the entry
//! within it, and its length.
//!
//! Ids are keyed hashes, of which 16 bytes tell 2^28 chunks apart but for a chance of 2^-73. A table may hold a part of
//! all ids only: a collection with little memory marks in several passes.

use super::{super::id::ChunkId, inventory::Packs};

/// The entries of all packs whose chunk ids lie in one part of all ids.
#[derive(Debug)]
pub(super) struct ChunkTable {
    rows: Vec<[u8; ROW]>,
    /// A bit for each row: the first of a chunk's rows stands for all.
    reached: Vec<u64>,
    part: Part,
}

/// One of several equal parts of all ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) of: u32,
}

impl Part {
    fn contains(self, id: &ChunkId) -> bool {
        let head = u32::from_be_bytes(id.0[..4].try_into().expect("4 bytes"));
        (u64::from(head) * u64::from(self.of)) >> 32 == u64::from(self.number)
    }
}

impl ChunkTable {
    /// Bytes of memory for each entry.
    pub(super) const ROW: u64 = ROW as u64;

    pub(super) fn new(part: Part) -> Self {
        Self { rows: Vec::new(), reached: Vec::new(), part }
    }

    /// Adds an entry of a pack. All are added before [`sort`](Self::sort).
    pub(super) fn add(&mut self, id: &ChunkId, pack: u32, entry: u32, stored: u32) {
        if !self.part.contains(id) {
            return;
        }
        let mut row = [0; ROW];
        row[..ID].copy_from_slice(&id.0[..ID]);
        row[ID..20].copy_from_slice(&pack.to_be_bytes());
        // Both are below 2^24: a pack has at most 1 GiB, an entry with its frame 104 bytes at least, a chunk 4 MiB.
        row[20..23].copy_from_slice(&entry.to_be_bytes()[1..]);
        row[23..26].copy_from_slice(&stored.to_be_bytes()[1..]);
        self.rows.push(row);
    }

    pub(super) fn sort(&mut self) {
        self.rows.sort_unstable();
        self.reached = vec![0; self.rows.len().div_ceil(64)];
    }

    /// Notes that a chunk is reachable. Returns whether it is in a pack; of another part's chunks nothing is known.
    pub(super) fn reach(&mut self, id: &ChunkId) -> bool {
        if !self.part.contains(id) {
            return true;
        }
        let first = self.rows.partition_point(|row| row[..ID] < id.0[..ID]);
        let found = self.rows.get(first).is_some_and(|row| row[..ID] == id.0[..ID]);
        if found {
            self.reached[first / 64] |= 1 << (first % 64);
        }
        found
    }

    /// Decides for each reachable chunk from which pack it is taken: where its frame is not known to be damaged, the one
    /// of the lowest rank. Returns how many reachable chunks there are.
    pub(super) fn settle(&self, packs: &mut Packs, rank: &[u32]) -> u64 {
        let mut chunks = 0;
        let mut at = 0;
        while at < self.rows.len() {
            let same = self.rows[at..].iter().take_while(|row| row[..ID] == self.rows[at][..ID]).count();
            if self.reached[at / 64] & 1 << (at % 64) != 0 {
                chunks += 1;
                let half = self.rows[at][..ID].try_into().expect("half of 32 bytes");
                let place = |row: &(u32, u32, u32)| (packs.is_damaged(row.0, half), rank[row.0 as usize]);
                let best = self.rows[at..at + same].iter().map(decode).min_by_key(place);
                let (pack, entry, stored) = best.expect("a chunk has at least one row");
                let base = packs.list[pack as usize].base.expect("its entries were read");
                packs.list[pack as usize].hurt |= packs.is_damaged(pack, half);
                packs.need(pack, base + u64::from(entry), stored);
            }
            at += same;
        }
        chunks
    }
}

fn decode(row: &[u8; ROW]) -> (u32, u32, u32) {
    let wide = |at: usize| u32::from_be_bytes([0, row[at], row[at + 1], row[at + 2]]);
    (u32::from_be_bytes(row[ID..20].try_into().expect("4 bytes")), wide(20), wide(23))
}

const ID: usize = 16;
const ROW: usize = 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_id_once() {
        for of in [1, 2, 3, 7] {
            for byte in 0..=255u8 {
                let id = ChunkId([byte; 32]);
                let parts = (0..of).filter(|&number| Part { number, of }.contains(&id)).count();
                assert_eq!(parts, 1);
            }
        }
    }

    #[test]
    fn a_row_survives_a_round_trip() {
        let mut table = ChunkTable::new(Part { number: 0, of: 1 });
        table.add(&ChunkId([7; 32]), u32::MAX, (1 << 24) - 1, 4 << 20);
        table.sort();
        assert_eq!(decode(&table.rows[0]), (u32::MAX, (1 << 24) - 1, 4 << 20));
        assert!(table.reach(&ChunkId([7; 32])) && !table.reach(&ChunkId([8; 32])));
    }
}
