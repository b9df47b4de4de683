//! Rewriting packs of which little is needed.
//!
//! What is needed of them is read, checked and stored again in new packs; the old ones are condemned like anything
//! unreachable, and deleted by a later run. A crash leaves chunks in two packs, of which the next run takes one.

use std::collections::HashMap;

use crate::error::{Error, Result};

use super::{
    super::{
        fetch::Again,
        id::{ChunkId, PackId},
        index::Index,
        pack,
        page::{ReadFault, Slot},
        writer::{Writer, WriterOptions},
    },
    Collection,
    inventory::{Pack, Packs},
    tomb::{Class, Entry},
};

impl Collection<'_> {
    /// Rewrites packs and returns those that are no longer needed.
    pub(super) async fn compact(
        &mut self,
        packs: &Packs,
        condemned: &HashMap<Entry, (u64, &str)>,
    ) -> Result<Vec<PackId>> {
        // What is needed of a pack with damage is moved to where a check does not meet the damage again, unless it is
        // itself what is damaged.
        let damaged = packs.damaged();
        let is_damaged = |pack: &Pack| packs.number(&pack.id).is_some_and(|number| damaged.contains(&number));
        let share = |pack: &Pack| pack.live_bytes as f64 / pack.bytes.max(1) as f64;
        let mut chosen: Vec<_> = packs
            .list
            .iter()
            .filter(|pack| pack.live > 0 && pack.base.is_some() && !pack.hurt)
            .filter(|pack| share(pack) < self.options.compact_below || is_damaged(pack))
            .filter(|pack| self.is_old(pack.modified) && !condemned.contains_key(&(Class::Pack, pack.id.0)))
            .collect();
        // Those that free most for what they cost come first.
        chosen.sort_by(|a, b| share(a).total_cmp(&share(b)).then(a.id.cmp(&b.id)));
        let mut room = self.options.limits.rewrite;
        chosen.retain(|pack| {
            let fits = pack.live_bytes <= room;
            room -= if fits { pack.live_bytes } else { 0 };
            fits
        });
        if self.is_dry() || chosen.is_empty() {
            self.report.compacted = chosen.len() as u64;
            return Ok(chosen.iter().map(|pack| pack.id).collect());
        }
        // Neither knows the index: one finds only what it is shown, the other stores all that it is given.
        let (source, target) = (self.repository.blank(), self.repository.blank());
        let writer = Writer::new(target, WriterOptions::default(), None);
        let mut done = Vec::new();
        for pack in chosen {
            self.check()?;
            match self.rewrite(pack, packs, &source, &writer).await {
                Ok(()) => done.push(pack.id),
                // What cannot be read must stay, and is verification's to tell.
                Err(error) if error.is_damage() => tracing::warn!(%error, "a pack that is damaged is not rewritten"),
                Err(error) => return Err(error),
            }
        }
        let totals = writer.finish().await?;
        self.report.compacted = done.len() as u64;
        self.report.rewritten = totals.bytes_written;
        Ok(done)
    }

    async fn rewrite(&self, pack: &Pack, packs: &Packs, source: &super::Repository, writer: &Writer) -> Result<()> {
        let content = pack::read_footer(source.storage(), pack.id, pack.size).await?;
        *source.write_index() = Index::default();
        source.write_index().add(&content);
        let base = pack.base.ok_or_else(|| Error::damaged(pack::key(pack.id), "what it holds is not known"))?;
        if content.entries.len() != pack.entries as usize {
            return Err(Error::damaged(pack::key(pack.id), "its footer is not what the index says"));
        }
        let needed: Vec<(ChunkId, u32)> = (base..)
            .zip(&content.entries)
            .filter(|(number, _)| packs.is_needed(*number))
            .map(|(_, entry)| (entry.id, entry.plain))
            .collect();
        for batch in needed.chunks(BATCH) {
            let chunks = source.fetch_chunks(batch, &Again::never()).await;
            for (&(id, _), chunk) in batch.iter().zip(chunks) {
                let plain = chunk.map_err(|fault| match fault {
                    ReadFault::Damaged(reason) => Error::damaged(pack::key(pack.id), format!("chunk {id}: {reason}")),
                    ReadFault::Failed(error) => error,
                })?;
                let run = writer.put_run(plain, ()).await?;
                if run.slots[..] != [Slot::Ref(id.0)] {
                    return Err(Error::damaged(pack::key(pack.id), format!("chunk {id} is another one")));
                }
            }
        }
        Ok(())
    }
}

/// Chunks in memory at a time.
const BATCH: usize = 16;
