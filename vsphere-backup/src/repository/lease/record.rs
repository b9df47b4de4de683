//! What a lease says. `FORMAT.md`, "Leases".

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::super::{
    id::{LeaseId, MetaId, PageId, PointId},
    manifest::{MAX_CAPACITY, Manifest},
    storage::Key,
    tree::TreeRoot,
};

impl LeaseId {
    /// Returns the name of a generation; 0 is the anchor.
    pub(crate) fn key(self, generation: u32) -> Key {
        Key::of(&["leases", &self.to_string(), &format!("{generation:08x}")])
    }

    /// Returns the name of the note of when a generation was first seen.
    pub(crate) fn seen_key(self, generation: u32) -> Key {
        Key::of(&["leases", &self.to_string(), &format!("{generation:08x}-seen")])
    }

    /// Returns what all names of the lease begin with.
    pub(crate) fn prefix(self) -> String {
        format!("leases/{self}")
    }
}

/// The JSON of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeaseBody {
    pub(crate) id: LeaseId,
    pub(crate) purpose: Purpose,
    /// In seconds.
    pub(crate) ttl: u64,
    /// By the holder's clock; for people.
    pub(crate) started: u64,
    /// By the holder's clock; for people.
    pub(crate) renewed: u64,
    /// The holder, for people.
    pub(crate) holder: String,
    /// The job that the holder works for, by the marker of what it makes on a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<String>,
    #[serde(default)]
    pub(crate) roots: Roots,
    /// The last generation says how the lease ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ending: Option<Ending>,
}

impl LeaseBody {
    pub(crate) fn new(id: LeaseId, purpose: Purpose, roots: Roots, ttl: Duration, now: u64) -> Self {
        let holder =
            format!("{} {}, process {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), std::process::id());
        let ttl = ttl.as_secs().max(1);
        Self { id, purpose, ttl, started: now, renewed: now, holder, job: None, roots, ending: None }
    }

    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a struct of plain fields is valid JSON").into()
    }

    pub(crate) fn decode(body: &[u8], key: &Key) -> Result<Self> {
        let damaged = |reason: String| Error::damaged(key, reason);
        let lease: Self =
            serde_json::from_slice(body).map_err(|error| damaged(format!("its content is not valid: {error}")))?;
        if !key.is_below(&lease.id.prefix()) {
            return Err(damaged(format!("it belongs to lease {}", lease.id)));
        }
        if lease.roots.trees.iter().any(|tree| tree.capacity > MAX_CAPACITY) {
            return Err(damaged("a disk of it is too large".into()));
        }
        Ok(lease)
    }

    /// Says who holds it, for messages.
    pub(crate) fn describe(&self) -> String {
        let what = match &self.purpose {
            Purpose::Write { point } => format!("writing {point}"),
            Purpose::Read { points } => {
                let points: Vec<_> = points.iter().map(PointId::to_string).collect();
                format!("reading {}", points.join(", "))
            }
            Purpose::Collect => "collecting garbage".into(),
        };
        format!("lease {} ({what}; {})", self.id, self.holder)
    }
}

/// What a lease is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub(crate) enum Purpose {
    /// Writing a point, whose name is chosen.
    Write { point: PointId },
    /// Reading points, whose roots the lease names.
    Read { points: Vec<PointId> },
    /// Collecting garbage: one at a time.
    Collect,
}

/// How a lease ended, when it could not simply be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Ending {
    /// The holder gave it back.
    Released,
    /// The holder was declared dead.
    Fenced,
}

/// What somebody needs: the begin of everything that must stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Roots {
    /// The indexes of disks.
    pub(crate) trees: Vec<TreePin>,
    /// Small objects.
    pub(crate) objects: Vec<MetaId>,
}

/// The root page of a disk's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TreePin {
    pub(crate) page: PageId,
    /// Of the disk, in bytes: it says how high the tree is.
    pub(crate) capacity: u64,
}

impl Roots {
    /// Returns what a point needs.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let mut roots = Self { trees: Vec::new(), objects: manifest.objects.values().copied().collect() };
        manifest.disks.iter().for_each(|disk| roots.add_tree(disk.root, disk.capacity));
        roots
    }

    /// Adds the index of a disk.
    pub(crate) fn add_tree(&mut self, root: TreeRoot, capacity: u64) {
        if let TreeRoot::Page(page) = root {
            self.trees.push(TreePin { page, capacity });
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.trees.extend(&other.trees);
        self.objects.extend(&other.objects);
    }
}
