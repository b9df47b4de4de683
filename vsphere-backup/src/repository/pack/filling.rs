//! Packs while they are filled: several workers at once make frames, each in a [`Block`] of its own.
//!
//! A worker borrows a block, which belongs to one pack for good, makes frames in it, and gives it back. A pack is
//! complete when it is large enough and none of its blocks is borrowed: nothing is ever copied to where it belongs.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{
    super::{
        frame::{Block, Encoder, FrameCipher},
        id::ChunkId,
    },
    PackSeal,
};
use crate::error::Result;

/// What all frames of one pack are made with.
#[derive(Debug)]
pub(crate) struct Making {
    pub(super) seal: PackSeal,
    pub(super) cipher: Option<FrameCipher>,
    /// The number of the next frame: as many as there are chunks, far below 2^32.
    next: AtomicU32,
}

impl Making {
    /// `(seal, cipher)` are what [`Objects::new_pack`](super::super::object::Objects::new_pack) gives.
    pub(crate) fn new((seal, cipher): (PackSeal, Option<FrameCipher>)) -> Self {
        Self { seal, cipher, next: AtomicU32::new(0) }
    }
}

/// A block that a worker has borrowed, and the pack that it is part of.
pub(crate) struct Borrowed {
    making: Arc<Making>,
    block: Block,
    /// Bytes and chunks that it had when it was borrowed.
    had: (usize, usize),
}

impl Borrowed {
    /// Tells whether a chunk of this length surely fits.
    pub(crate) fn has_room(&self, plain: usize) -> bool {
        self.block.has_room(plain)
    }

    /// Makes the frame of a chunk [that fits](Self::has_room); returns its length.
    ///
    /// # Errors
    /// What the compressor says.
    pub(crate) fn push(&mut self, id: ChunkId, plain: &[u8], encoder: &mut Encoder<'_>) -> std::io::Result<usize> {
        let number = self.making.next.fetch_add(1, Ordering::Relaxed);
        self.block.push(id, plain, number, encoder, self.making.cipher.as_ref())
    }
}

/// When a pack is large enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enough {
    pub(crate) bytes: usize,
    pub(crate) chunks: usize,
    /// The longest chunk in bytes: a block without room for one is full.
    pub(crate) chunk: usize,
}

/// The packs of one writer that are not complete.
#[derive(Debug)]
pub(crate) struct Filling {
    enough: Enough,
    /// Takes further frames.
    open: Option<Open>,
    /// Large enough; some of their blocks are borrowed.
    closing: Vec<Open>,
}

/// All blocks of a pack that is complete.
pub(crate) struct Complete {
    pub(super) making: Arc<Making>,
    pub(super) blocks: Vec<Block>,
}

struct Open {
    making: Arc<Making>,
    full: Vec<Block>,
    /// With room left; no worker has them.
    idle: Vec<Block>,
    borrowed: usize,
    bytes: usize,
    chunks: usize,
}

impl Filling {
    pub(crate) fn new(enough: Enough) -> Self {
        Self { enough, open: None, closing: Vec::new() }
    }

    /// Borrows a block with room for a chunk; `memory` and `begin` make what is not there.
    ///
    /// # Errors
    /// What `begin` returns.
    pub(crate) fn borrow(
        &mut self,
        memory: impl FnOnce() -> Vec<u8>,
        begin: impl FnOnce() -> Result<Making>,
    ) -> Result<Borrowed> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::new(begin()?)),
        };
        let block = open.idle.pop().unwrap_or_else(|| Block::new(memory()));
        open.borrowed += 1;
        Ok(Borrowed { making: open.making.clone(), had: (block.len(), block.entries().len()), block })
    }

    /// Takes a block back. Returns its pack when that is complete by now.
    pub(crate) fn give_back(&mut self, borrowed: Borrowed) -> Option<Complete> {
        let Borrowed { making, block, had } = borrowed;
        let closing = self.closing.iter().position(|open| Arc::ptr_eq(&open.making, &making));
        let open = match closing {
            Some(at) => &mut self.closing[at],
            None => self.open.as_mut()?,
        };
        open.borrowed -= 1;
        open.bytes += block.len() - had.0;
        open.chunks += block.entries().len() - had.1;
        if block.has_room(self.enough.chunk) {
            open.idle.push(block);
        } else {
            open.full.push(block);
        }
        let (borrowed, enough) = (open.borrowed, open.bytes >= self.enough.bytes || open.chunks >= self.enough.chunks);
        match closing {
            Some(at) if borrowed == 0 => Some(self.closing.swap_remove(at).complete()),
            None if enough && borrowed == 0 => self.open.take().map(Open::complete),
            None if enough => {
                self.closing.extend(self.open.take());
                None
            }
            _ => None,
        }
    }

    /// Ends the pack that takes frames, when there is one. While a block of it is borrowed it is complete only when that
    /// is back.
    pub(crate) fn close(&mut self) -> Option<Complete> {
        if self.open.as_ref().is_some_and(|open| open.borrowed > 0) {
            self.closing.extend(self.open.take());
        }
        self.open.take().filter(|open| open.chunks > 0).map(Open::complete)
    }
}

impl Open {
    fn new(making: Making) -> Self {
        Self { making: Arc::new(making), full: Vec::new(), idle: Vec::new(), borrowed: 0, bytes: 0, chunks: 0 }
    }

    fn complete(mut self) -> Complete {
        self.full.append(&mut self.idle);
        self.full.retain(|block| block.len() > 0);
        Complete { making: self.making, blocks: self.full }
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Open({} bytes, {} blocks borrowed)", self.bytes, self.borrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::frame::Codec;

    const ENOUGH: Enough = Enough { bytes: 10_000, chunks: 100, chunk: 4096 };

    fn borrow(filling: &mut Filling) -> Borrowed {
        let making = || Ok(Making::new((PackSeal { generation: 0, salt: [0; 32] }, None)));
        filling.borrow(|| vec![0; Block::size_for(4096)], making).unwrap()
    }

    fn push(borrowed: &mut Borrowed, byte: u8) -> u64 {
        let mut noise = [0; 4096];
        blake3::Hasher::new().update(&[byte]).finalize_xof().fill(&mut noise);
        borrowed.push(ChunkId([byte; 32]), &noise, &mut Codec::default().encoder().unwrap()).unwrap() as u64
    }

    #[test]
    fn a_pack_is_complete_when_the_last_borrowed_block_of_it_is_back() {
        let mut filling = Filling::new(ENOUGH);
        let (mut one, mut other) = (borrow(&mut filling), borrow(&mut filling));
        for byte in 1..4 {
            push(&mut one, byte);
        }
        assert!(filling.give_back(one).is_none(), "one of its blocks is still borrowed");
        // What is borrowed from now on belongs to the next pack.
        let mut next = borrow(&mut filling);
        push(&mut next, 5);
        push(&mut other, 4);
        let complete = filling.give_back(other).unwrap();
        let ids: Vec<_> = complete.blocks.iter().flat_map(|block| block.entries()).map(|entry| entry.id.0[0]).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        assert!(filling.give_back(next).is_none());
        assert_eq!(filling.close().unwrap().blocks.len(), 1);
        assert!(filling.close().is_none());
    }

    #[test]
    fn a_pack_that_is_closed_while_a_block_is_borrowed_keeps_that_block() {
        let mut filling = Filling::new(ENOUGH);
        let mut one = borrow(&mut filling);
        push(&mut one, 1);
        assert!(filling.close().is_none(), "one of its blocks is still borrowed");
        let mut next = borrow(&mut filling);
        push(&mut next, 2);
        let complete = filling.give_back(one).unwrap();
        assert_eq!(complete.blocks[0].entries()[0].id, ChunkId([1; 32]));
        assert!(filling.give_back(next).is_none());
        assert_eq!(filling.close().unwrap().blocks[0].entries()[0].id, ChunkId([2; 32]));
    }

    #[test]
    fn a_block_with_room_is_borrowed_again_and_an_empty_pack_is_none() {
        let mut filling = Filling::new(ENOUGH);
        let mut one = borrow(&mut filling);
        let len = push(&mut one, 1);
        assert!(filling.give_back(one).is_none());
        let mut again = borrow(&mut filling);
        push(&mut again, 2);
        assert_eq!(again.block.entries()[1].offset, len);
        assert!(filling.give_back(again).is_none());
        assert_eq!(filling.close().unwrap().blocks.len(), 1);
        let nothing = borrow(&mut filling);
        assert!(filling.give_back(nothing).is_none());
        assert!(filling.close().is_none());
    }

    #[test]
    fn no_two_frames_of_a_pack_have_one_number() {
        let mut filling = Filling::new(ENOUGH);
        let mut blocks = [borrow(&mut filling), borrow(&mut filling)];
        for byte in 0..6 {
            push(&mut blocks[usize::from(byte % 2)], byte);
        }
        let [one, other] = blocks;
        filling.give_back(one);
        let complete = filling.give_back(other).unwrap();
        let mut numbers: Vec<_> = complete
            .blocks
            .iter()
            .flat_map(|block| block.entries().iter().map(|entry| &block.frames()[entry.offset as usize + 48..][..4]))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 6);
    }
}
