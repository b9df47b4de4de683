//! The processor's part: zero test, identity, known?, compress, encrypt, into a pack.

use std::sync::{MutexGuard, PoisonError};

use super::{
    super::{
        frame,
        id::ChunkId,
        pack::{Borrowed, Complete, Filling, Making},
        page::Slot,
    },
    Inner, Run,
};
use crate::error::Result;

impl Inner {
    /// Runs to its end even when nobody waits, so that every claimed chunk reaches a pack. To be called on a thread for
    /// blocking work.
    pub(super) fn process(&self, data: &[u8]) -> Result<Run> {
        // A panic between claim and pack must not leave chunks that count as known.
        let mut guard = FailOnDrop { inner: self, armed: true };
        let config = self.repository.config();
        let mut run = Run { slots: Vec::new(), new_bytes: 0, stored_bytes: 0, zero_bytes: 0 };
        let mut encoder = self
            .repository
            .codec()
            .encoder()
            .map_err(|error| self.fail(format!("no compressor could be made: {error}")))?;
        let mut block: Option<Borrowed> = None;
        for plain in data.chunks(config.chunk_size as usize) {
            if frame::is_zero(plain) {
                run.slots.push(Slot::Zero);
                run.zero_bytes += plain.len() as u64;
                continue;
            }
            let id = config.keys.chunk(plain);
            run.slots.push(Slot::Ref(id.0));
            if !self.claim(id) {
                continue;
            }
            if let Some(full) = block.take_if(|block| !block.has_room(plain.len())) {
                self.give_back(full);
            }
            let block = match &mut block {
                Some(block) => block,
                none => none.insert(self.borrow()?),
            };
            let stored = block
                .push(id, plain, &mut encoder)
                .map_err(|error| self.fail(format!("compressing a chunk failed: {error}")))?;
            run.new_bytes += plain.len() as u64;
            run.stored_bytes += stored as u64;
        }
        if let Some(block) = block {
            self.give_back(block);
        }
        guard.armed = false;
        Ok(run)
    }

    /// Tells whether a chunk is new and from now on this caller's to store.
    fn claim(&self, id: ChunkId) -> bool {
        if !self.state().claimed.insert(id) {
            return false;
        }
        // In this order: `publish` adds to the index before it takes the claim back.
        if self.repository.may_reuse_chunk(&id) {
            self.state().claimed.remove(&id);
            return false;
        }
        true
    }

    fn borrow(&self) -> Result<Borrowed> {
        let begin = || self.repository.objects().new_pack().map(Making::new);
        self.filling().borrow(|| self.spare.take(), begin)
    }

    fn give_back(&self, block: Borrowed) {
        let complete = self.filling().give_back(block);
        self.seal(complete);
    }

    /// Ends the pack that is being filled. To be called while nothing is processed.
    pub(super) fn close_pack(&self) {
        let complete = self.filling().close();
        self.seal(complete);
    }

    fn seal(&self, pack: Option<Complete>) {
        let Some(pack) = pack else { return };
        // Hashing a pack takes milliseconds: not under a lock.
        let pack = pack.seal(self.repository.config().id, &self.spare);
        self.state().sealed.push(pack);
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        // A panic of a holder marks the writer as failed.
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the writer as failed unless disarmed.
struct FailOnDrop<'a> {
    inner: &'a Inner,
    armed: bool,
}

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.inner.fail("a run of bytes was not stored".into());
        }
    }
}
