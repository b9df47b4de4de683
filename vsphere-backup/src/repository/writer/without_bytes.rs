//! Chunks that are in the index only, for tests of disks that are too large for their bytes.

use bytes::Bytes;

use super::super::{
    PackId, Repository,
    frame::PackEntry,
    id::ChunkId,
    index,
    pack::{self, PackEntries, PackSeal},
    random,
};
use crate::error::Result;

impl Repository {
    /// Adds chunks to the index, stored too, without their bytes: each pack is put as its size, 8 bytes.
    pub(crate) async fn add_chunks_without_bytes(&self, ids: &[ChunkId]) -> Result<()> {
        let packs: Vec<_> = ids
            .chunks(256)
            .map(|ids| {
                let entry = |(at, &id): (usize, &ChunkId)| PackEntry {
                    id,
                    offset: 64 + at as u64 * (128 << 10),
                    stored: 100 << 10,
                    plain: 256 << 10,
                };
                let seal = PackSeal { generation: 0, salt: random()? };
                let entries = ids.iter().enumerate().map(entry).collect();
                Ok(PackEntries { id: PackId(random()?), size: 64 << 20, seal, entries })
            })
            .collect::<Result<_>>()?;
        for pack in &packs {
            let size = Bytes::copy_from_slice(&pack.size.to_le_bytes());
            self.storage().put(&pack::key(pack.id), vec![size]).await?;
        }
        let segment = index::write_segment(self.objects(), &packs).await?;
        self.add_to_index(segment, &packs);
        Ok(())
    }
}
