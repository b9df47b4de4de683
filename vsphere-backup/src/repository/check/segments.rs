//! Checking segments of the chunk index.

use crate::error::Result;

use super::{
    super::{id::SegmentId, index},
    Check,
};

impl Check<'_> {
    /// Reads a segment and looks whether the packs that it names are there.
    pub(super) async fn segment(&mut self, id: SegmentId) -> Result<()> {
        match index::read_segment(self.repository.objects(), id).await {
            Ok(packs) => {
                let index = self.repository.read_index();
                // One that came since the check began names packs that came since.
                let gone = index.has_segment(&id) && packs.iter().any(|pack| index.seal(pack.id).is_none());
                if gone && self.report.stale_segments.len() < MAX_STALE {
                    self.report.stale_segments.push(id);
                }
                Ok(())
            }
            Err(error) => self.report.take(Err(error)),
        }
    }
}

const MAX_STALE: usize = 10_000;
