//! Volume groups, as their text describes them.

use std::collections::HashMap;

use super::text::{Section, Value};
use crate::error::{Error, Result};

/// A volume group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) name: String,
    /// Counts the changes: of several copies the one with the largest is in force.
    pub(super) seqno: u64,
    /// Bytes of an extent.
    pub(super) extent: u64,
    /// By the names that the text gives them.
    pub(super) physical: HashMap<String, PhysicalVolume>,
    pub(super) volumes: Vec<LogicalVolume>,
    by_name: HashMap<String, usize>,
}

/// A physical volume of a group.
#[derive(Debug)]
pub(super) struct PhysicalVolume {
    /// Without hyphens, as in labels.
    pub(super) id: String,
    /// Where its first extent begins, in bytes.
    pub(super) start: u64,
    /// What it was called when the group was last changed.
    pub(super) hint: String,
    /// It was away while the group was changed, so that what is on it is old.
    pub(super) is_stale: bool,
}

/// A logical volume.
#[derive(Debug)]
pub(super) struct LogicalVolume {
    pub(super) name: String,
    /// Not a part of another.
    pub(super) visible: bool,
    pub(super) extents: u64,
    /// In their order, without gaps.
    pub(super) segments: Vec<Segment>,
    /// What it is a part of in a way that makes its own bytes none of a volume.
    pub(super) part_of: Option<String>,
}

/// A part of a logical volume.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) extents: u64,
    pub(super) layout: Layout,
}

/// How a segment lies on others.
#[derive(Debug)]
pub(super) enum Layout {
    /// Side by side on one, or in turns on several.
    Striped {
        chunk: u64,
        areas: Vec<Area>,
    },
    /// The same on each, the first one being in force.
    Mirror(Vec<Area>),
    /// The same on each of so many neighbours, in turns on groups of those; each has a volume that says how fresh it is.
    Copies {
        near: usize,
        chunk: u64,
        copies: Vec<Copy>,
    },
    Zeros,
    /// Something that is not read.
    Other(String),
}

/// From an extent of a physical or logical volume on.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) on: String,
    pub(super) extent: u64,
}

/// A copy of a RAID 1 or 10.
#[derive(Debug)]
pub(super) struct Copy {
    /// The volume with its metadata.
    pub(super) metadata: String,
    /// The volume with its data.
    pub(super) image: String,
}

impl Group {
    /// Reads the text of a group.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let text = Section::parse(text)?;
        let (name, section) = text.sections().next().ok_or_else(|| damaged("", "there is no group in it"))?;
        let missing = |what: &str| damaged(name, format!("it has no {what}"));
        let extent = section.number("extent_size").and_then(|sectors| sectors.checked_mul(SECTOR));
        let mut group = Self {
            id: section.text("id").map(plain_id).ok_or_else(|| missing("id"))?,
            name: name.to_owned(),
            seqno: section.number("seqno").ok_or_else(|| missing("seqno"))?,
            extent: extent.filter(|bytes| *bytes > 0).ok_or_else(|| missing("extent_size"))?,
            physical: HashMap::new(),
            volumes: Vec::new(),
            by_name: HashMap::new(),
        };
        for (pv, section) in section.section("physical_volumes").into_iter().flat_map(|section| section.sections()) {
            let problem = |what: &str| damaged(name, format!("physical volume {pv} has no {what}"));
            let start = section.number("pe_start").and_then(|sectors| sectors.checked_mul(SECTOR));
            let volume = PhysicalVolume {
                id: section.text("id").map(plain_id).ok_or_else(|| problem("id"))?,
                start: start.ok_or_else(|| problem("pe_start"))?,
                hint: section.text("device").unwrap_or_default().to_owned(),
                is_stale: section.has("flags", "MISSING") || section.has("status", "MISSING"),
            };
            group.physical.insert(pv.to_owned(), volume);
        }
        for (lv, section) in section.section("logical_volumes").into_iter().flat_map(|section| section.sections()) {
            let volume = LogicalVolume::parse(name, lv, section)?;
            if group.by_name.insert(lv.to_owned(), group.volumes.len()).is_some() {
                return Err(damaged(name, format!("logical volume {lv} is there twice")));
            }
            group.volumes.push(volume);
        }
        group.mark_snapshots(section);
        Ok(group)
    }

    /// Finds a logical volume.
    pub(super) fn volume(&self, name: &str) -> Option<&LogicalVolume> {
        self.volumes.get(*self.by_name.get(name)?)
    }

    /// Volumes that keep what their origin was before: their own bytes are no file system.
    fn mark_snapshots(&mut self, section: &Section) {
        let volumes = section.section("logical_volumes").into_iter().flat_map(|section| section.sections());
        let segments = volumes.flat_map(|(_, volume)| volume.sections());
        // The text has no word on whether the store is visible: it is where its origin is.
        let visible = |name: &str| self.volume(name).is_some_and(|volume| volume.visible);
        let mut marks = Vec::new();
        for (_, segment) in segments.filter(|(_, segment)| segment.text("type") == Some("snapshot")) {
            let origin = segment.text("origin").unwrap_or_default();
            if let Some(store) = segment.text("cow_store") {
                marks.push((store.to_owned(), visible(origin), format!("a snapshot of {origin}")));
            }
            // While it goes back, the origin reads as the snapshot where that is not done yet.
            if let Some(store) = segment.text("merging_store") {
                marks.push((store.to_owned(), false, format!("a snapshot that {origin} goes back to")));
                marks.push((origin.to_owned(), visible(origin), format!("going back to its snapshot {store}")));
            }
        }
        for (name, visible, what) in marks {
            if let Some(volume) = self.by_name.get(&name).and_then(|number| self.volumes.get_mut(*number)) {
                volume.visible = visible;
                volume.part_of = Some(what);
            }
        }
    }
}

impl LogicalVolume {
    fn parse(group: &str, name: &str, section: &Section) -> Result<Self> {
        let problem = |what: String| damaged(group, format!("logical volume {name} {what}"));
        let mut segments = Vec::new();
        for (of, section) in section.sections().filter(|(name, _)| name.starts_with("segment")) {
            let (start, extents) = (section.number("start_extent"), section.number("extent_count"));
            let (Some(start), Some(extents)) = (start, extents) else {
                return Err(problem(format!("has a {of} without beginning or end")));
            };
            let layout = Layout::parse(section).ok_or_else(|| problem(format!("has a {of} that lies nowhere")))?;
            segments.push((start, Segment { extents, layout }));
        }
        segments.sort_by_key(|(start, _)| *start);
        let mut end = 0_u64;
        for (start, segment) in &segments {
            if *start != end {
                return Err(problem(format!("has nothing or two things at extent {end}")));
            }
            end = start.checked_add(segment.extents).ok_or_else(|| problem("is too large".into()))?;
        }
        let segments = segments.into_iter().map(|(_, segment)| segment).collect();
        let visible = section.has("status", "VISIBLE");
        Ok(Self { name: name.to_owned(), visible, extents: end, segments, part_of: None })
    }
}

impl Layout {
    fn parse(section: &Section) -> Option<Self> {
        let chunk = || section.number("stripe_size").and_then(|sectors| sectors.checked_mul(SECTOR));
        // What follows a `+` (`+METADATA_FORMAT`) changes the text, not the layout.
        let kind = section.text("type")?.split('+').next()?;
        Some(match kind {
            "striped" | "linear" => {
                let areas = areas(section.list("stripes"))?;
                let chunk = if areas.len() > 1 { chunk()? } else { u64::MAX };
                Self::Striped { chunk, areas }
            }
            "mirror" => Self::Mirror(areas(section.list("mirrors"))?),
            "raid1" => {
                let copies = copies(section)?;
                Self::Copies { near: copies.len(), chunk: u64::MAX, copies }
            }
            // The word for how many copies there are is newer than the type.
            "raid10" | "raid10_near" => {
                let near = if section.has_value("data_copies") { section.number("data_copies")? } else { 2 };
                Self::Copies { near: usize::try_from(near).ok()?, chunk: chunk()?, copies: copies(section)? }
            }
            "raid0" | "raid0_meta" => {
                let (images, step) = match section.list("raid0_lvs") {
                    [] => (section.list("raids"), 2),
                    images => (images, 1),
                };
                let images = images.iter().skip(step - 1).step_by(step).map(|image| match image {
                    Value::Text(on) => Some(Area { on: on.clone(), extent: 0 }),
                    _ => None,
                });
                Self::Striped { chunk: chunk()?, areas: images.collect::<Option<_>>()? }
            }
            "zero" => Self::Zeros,
            other => Self::Other(other.to_owned()),
        })
    }
}

/// Pairs of a volume with metadata and one with data.
fn copies(section: &Section) -> Option<Vec<Copy>> {
    let pairs = section.list("raids").chunks_exact(2).map(|pair| match pair {
        [Value::Text(metadata), Value::Text(image)] => Some(Copy { metadata: metadata.clone(), image: image.clone() }),
        _ => None,
    });
    pairs.collect::<Option<Vec<_>>>().filter(|copies| !copies.is_empty())
}

/// Pairs of a name and an extent.
fn areas(list: &[Value]) -> Option<Vec<Area>> {
    let pairs = list.chunks_exact(2).map(|pair| match pair {
        [Value::Text(on), Value::Number(extent)] => Some(Area { on: on.clone(), extent: u64::try_from(*extent).ok()? }),
        _ => None,
    });
    pairs.collect::<Option<Vec<_>>>().filter(|areas| !areas.is_empty())
}

/// An id without the hyphens that make it readable.
fn plain_id(id: &str) -> String {
    id.replace('-', "")
}

fn damaged(group: &str, problem: impl Into<String>) -> Error {
    Error::damaged(format!("LVM2 metadata of volume group {group}"), problem)
}

/// Bytes of a sector in LVM2's text, whatever the disks have.
const SECTOR: u64 = 512;
