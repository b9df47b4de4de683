//! Ascending writes of any size, made to pieces that can be packed.

use super::{PackedGrains, Packer, spec::Packing};
use crate::error::{Error, Result};

/// Collects what is written to a stream, until a piece of the disk is full.
#[derive(Debug)]
pub(super) struct Assembler {
    packing: Packing,
    /// The piece being filled.
    piece: Piece,
    /// Nothing below this offset may come any more.
    next: u64,
    spare: Vec<Piece>,
}

/// Some grains of one table: their data, then their packed form.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Of a grain.
    offset: u64,
    data: Vec<u8>,
    pub(super) packed: PackedGrains,
}

/// What of a write is still to be put into pieces.
#[derive(Debug)]
pub(super) struct Put<'a> {
    offset: u64,
    data: &'a [u8],
}

impl Assembler {
    pub(super) fn new(packing: Packing) -> Self {
        Self { packing, piece: Piece::default(), next: 0, spare: Vec::new() }
    }

    /// Begins a write: to be [filled](Self::fill) in before the next one begins.
    pub(super) fn put<'a>(&mut self, offset: u64, data: &'a [u8]) -> Result<Put<'a>> {
        let (capacity, len) = (self.packing.capacity, data.len() as u64);
        let end = offset.checked_add(len).filter(|end| *end <= capacity);
        let Some(end) = end else {
            return Err(Error::OutOfRange { operation: "write", offset, len, capacity });
        };
        if offset < self.next {
            let problem = format!("{offset} lies before {}, and a stream cannot go back", self.next);
            return Err(Error::invalid("offset", problem));
        }
        self.next = end;
        Ok(Put { offset, data })
    }

    /// Goes on with a write: a piece that is full, or `None` when all is put.
    pub(super) fn fill(&mut self, put: &mut Put<'_>) -> Option<Piece> {
        let size = self.packing.piece();
        while !put.data.is_empty() {
            let at = put.offset;
            if self.piece.data.is_empty() {
                self.piece.offset = at - at % self.packing.grain;
            } else if at / size != self.piece.offset / size {
                return self.close();
            }
            let (now, later) = put.data.split_at(put.data.len().min((size - at % size) as usize));
            self.piece.data.resize((at - self.piece.offset) as usize, 0);
            self.piece.data.extend_from_slice(now);
            *put = Put { offset: at + now.len() as u64, data: later };
        }
        None
    }

    /// The piece being filled, with zeros up to the end of its last grain; `None` when nothing is in it.
    pub(super) fn close(&mut self) -> Option<Piece> {
        if self.piece.data.is_empty() {
            return None;
        }
        let mut piece = std::mem::replace(&mut self.piece, self.spare.pop().unwrap_or_default());
        let end = piece.offset + piece.data.len() as u64;
        let end = end.next_multiple_of(self.packing.grain).min(self.packing.capacity);
        piece.data.resize((end - piece.offset) as usize, 0);
        Some(piece)
    }

    /// Takes a piece back that is done, for its memory.
    pub(super) fn take_back(&mut self, piece: Piece) {
        self.spare.push(piece);
    }
}

impl Piece {
    /// Packs the grains, and forgets their data.
    pub(super) fn pack(&mut self, packer: &mut Packer) -> Result<()> {
        self.packed.clear();
        packer.pack(self.offset, &self.data, &mut self.packed)?;
        self.data.clear();
        Ok(())
    }
}
