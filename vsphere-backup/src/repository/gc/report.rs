//! What a collection tells.

use serde::Serialize;

use super::tomb::Class;

/// Objects of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Packs.
    pub packs: u64,
    /// Pages of disks' indexes.
    pub pages: u64,
    /// Small objects.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

impl Tally {
    pub(super) fn add(&mut self, class: Class, bytes: u64) {
        *match class {
            Class::Pack => &mut self.packs,
            Class::Page => &mut self.pages,
            Class::Meta => &mut self.objects,
        } += 1;
        self.bytes += bytes;
    }

    /// Tells whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a collection found and did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GcReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Recovery points.
    pub points: u64,
    /// Chunks that are needed and stored.
    pub chunks: u64,
    /// References to chunks that are in no pack that was listed: of backups that were made meanwhile, or damage.
    pub missing: u64,
    /// In how many passes chunks were marked.
    pub passes: u32,
    /// Holders of leases that were reckoned with, in words.
    pub holders: Vec<String>,
    /// Holders that were declared dead.
    pub fenced: Vec<String>,
    /// Condemned now: deleted by a later run.
    pub condemned: Tally,
    /// Deleted now.
    pub deleted: Tally,
    /// Condemned before, and needed after all.
    pub revived: Tally,
    /// Condemned before, and not ripe: the grace runs, or writers do that may need it.
    pub waiting: Tally,
    /// Packs of which little was needed, which were rewritten and condemned.
    pub compacted: u64,
    /// Bytes that were written for that.
    pub rewritten: u64,
    /// Marks of restores and of distrust that no point needs any more, deleted now.
    pub marks: u64,
    /// Remains of writes that a crash had cut short, deleted now; a dry run does not look for them.
    pub unfinished: u64,
    /// Objects that the store refuses to delete, for now or for ever; at most 1000 names.
    pub refused: Vec<String>,
}
