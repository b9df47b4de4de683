//! The storage's part: packs, then the segments of the index that name them.

use std::mem;

use super::{
    super::{index, pack, pack::SealedPack},
    Inner,
};
use crate::error::{Result, in_one_line};

impl Inner {
    pub(super) async fn store(&self, pack: SealedPack) -> Result<()> {
        let SealedPack { parts, entries } = pack;
        self.repository.storage().put(&pack::key(entries.id), parts).await?;
        {
            let mut state = self.state();
            state.totals.packs += 1;
            state.totals.bytes_written += entries.size;
            state.stored.push(entries);
        }
        self.publish(SEGMENT_PACKS).await
    }

    /// Writes a segment when at least `least` packs wait for one.
    pub(super) async fn publish(&self, least: usize) -> Result<()> {
        let stored = {
            let mut state = self.state();
            if state.stored.len() < least {
                return Ok(());
            }
            mem::take(&mut state.stored)
        };
        let segment = match index::write_segment(self.repository.objects(), &stored).await {
            Ok(segment) => segment,
            Err(error) => {
                self.fail(in_one_line(&error));
                return Err(error);
            }
        };
        self.repository.add_to_index(segment, &stored);
        let mut state = self.state();
        for entry in stored.iter().flat_map(|pack| &pack.entries) {
            state.claimed.remove(&entry.id);
        }
        Ok(())
    }
}

/// Packs that one segment of the index names.
const SEGMENT_PACKS: usize = 8;
