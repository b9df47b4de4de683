//! Files in parts: what readers have in common that know where a byte of a file lies and how many lie side by side with it.

use std::{ops::Range, sync::Arc};

use super::{Extent, ExtentKind};
use crate::{
    device::{Device, Overlay},
    error::{Error, Result},
};

/// Bytes of a file side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// How many, from the one that was asked for on; at least 1.
    pub(super) len: u64,
    /// Where they lie.
    pub(super) place: Place,
}

/// Where a part of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere.
    Hole,
    /// Set aside, not written.
    Unwritten,
    /// From this byte of the volume on.
    At(u64),
}

/// A volume of which some blocks are other than what is stored, if its journal was replayed.
#[derive(Clone, Debug)]
pub(super) struct Replayed {
    /// As the guest would see it.
    pub(super) device: Arc<dyn Device>,
    /// The same, when the journal changes anything.
    overlay: Option<Arc<Overlay>>,
}

impl Replayed {
    /// A volume as it is stored.
    pub(super) fn plain(device: Arc<dyn Device>) -> Self {
        Self { device, overlay: None }
    }

    /// A volume with what its journal makes of it.
    pub(super) fn new(overlay: Overlay) -> Self {
        let overlay = Arc::new(overlay);
        Self { device: overlay.clone(), overlay: Some(overlay) }
    }

    /// Where bytes of the volume lie on the device that was opened: `None` for what is only in memory.
    pub(super) fn places(&self, range: Range<u64>) -> Vec<(Range<u64>, Option<u64>)> {
        match &self.overlay {
            Some(overlay) => overlay.places(range),
            None => vec![(range.clone(), Some(range.start))],
        }
    }

    /// Whether any byte of a range is other than what is stored there.
    pub(super) fn is_patched(&self, range: Range<u64>) -> bool {
        self.places(range).iter().any(|(piece, place)| *place != Some(piece.start))
    }

    /// Fills `buf` with the bytes of a file from `offset` on; `find` tells where they are.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8], find: impl FnMut(u64) -> Result<Part>) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        each_part(offset..end, find, |part, place| {
            let target = &mut buf[(part.start - offset) as usize..(part.end - offset) as usize];
            match place {
                Place::At(place) => self.device.read_at(place, target)?,
                Place::Hole | Place::Unwritten => target.fill(0),
            }
            Ok(())
        })
    }

    /// The map of a range of a file that `who` names.
    pub(super) fn map(
        &self,
        range: Range<u64>,
        who: impl Fn() -> String,
        find: impl FnMut(u64) -> Result<Part>,
    ) -> Result<Vec<Extent>> {
        let mut map = Vec::new();
        each_part(range, find, |part, place| {
            match place {
                Place::Hole => push(&mut map, part, ExtentKind::Hole),
                Place::Unwritten => push(&mut map, part, ExtentKind::Unwritten),
                Place::At(place) => {
                    for (piece, stored) in self.places(place..place + (part.end - part.start)) {
                        let part = part.start + (piece.start - place)..part.start + (piece.end - place);
                        push(&mut map, part, stored.map_or(ExtentKind::Encoded, ExtentKind::Stored));
                    }
                }
            }
            bounded(&map, &who)
        })?;
        Ok(map)
    }
}

/// Fails when a map has more parts than may be held at once.
pub(super) fn bounded(map: &[Extent], who: impl Fn() -> String) -> Result<()> {
    if map.len() > MOST_EXTENTS {
        let who = who();
        return Err(Error::Invalid(format!(
            "{who} has more than {MOST_EXTENTS} extents in a range: ask for a smaller one"
        )));
    }
    Ok(())
}

/// Adds a part to a map; it becomes one with the last where it goes on from it.
pub(super) fn push(map: &mut Vec<Extent>, range: Range<u64>, kind: ExtentKind) {
    if let Some(last) = map.last_mut() {
        let goes_on = match (last.kind, kind) {
            (ExtentKind::Stored(first), ExtentKind::Stored(next)) => {
                first + (last.range.end - last.range.start) == next
            }
            (one, other) => one == other,
        };
        if goes_on {
            last.range.end = range.end;
            return;
        }
    }
    map.push(Extent::new(range, kind));
}

/// Goes through the parts of a range of a file. Parts that follow each other on the volume are one.
fn each_part(
    range: Range<u64>,
    mut find: impl FnMut(u64) -> Result<Part>,
    mut take: impl FnMut(Range<u64>, Place) -> Result<()>,
) -> Result<()> {
    let mut at = range.start;
    let mut waiting: Option<(Range<u64>, u64)> = None;
    while at < range.end {
        let part = find(at)?;
        let end = at.saturating_add(part.len).min(range.end);
        match (part.place, &mut waiting) {
            (Place::At(place), Some((part, first))) if *first + (part.end - part.start) == place => part.end = end,
            (place, _) => {
                if let Some((part, place)) = waiting.take() {
                    take(part, Place::At(place))?;
                }
                match place {
                    Place::At(place) => waiting = Some((at..end, place)),
                    Place::Hole | Place::Unwritten => take(at..end, place)?,
                }
            }
        }
        at = end;
    }
    waiting.map_or(Ok(()), |(part, place)| take(part, Place::At(place)))
}

/// How many of `len` things come before the first for which `before` no longer holds.
pub(super) fn partition(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Parts of a map at once: some 200 MiB of it.
const MOST_EXTENTS: usize = 4 << 20;
