//! Arrays, put together of the members that are there.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::Member;
use crate::{
    device::Device,
    error::{Error, Result},
    set::VolumeKind,
    volume::{Assembled, Leg, Mapped},
};

/// The members of an array that were found.
#[derive(Default)]
pub(super) struct Array {
    members: Vec<(Arc<dyn Device>, Member)>,
}

/// A device, and what is missing of it or of what it was made of.
type Made = (Mapped, Option<String>);

impl Array {
    pub(super) fn add(&mut self, device: Arc<dyn Device>, member: Member) {
        self.members.push((device, member));
    }

    /// The array. The member that was changed last says how it is made.
    pub(super) fn finish(mut self) -> Option<Assembled> {
        self.members.sort_by_key(|(_, member)| Reverse(member.events));
        let (_, newest) = self.members.first()?.clone();
        let name = if newest.name.is_empty() { newest.uuid.clone() } else { newest.name.clone() };
        let name = format!("md array {name}");
        let (device, degraded, size) = match self.map(&newest, &name) {
            Ok((mapped, degraded)) => {
                let size = mapped.size();
                (Ok(Arc::new(mapped) as Arc<dyn Device>), degraded, size)
            }
            Err(error) => (Err(error), None, size(&newest)),
        };
        let id = format!("md/{}", newest.uuid);
        let kind = VolumeKind::Md { name: newest.name, uuid: newest.uuid };
        Some(Assembled { id, kind, size, device, degraded })
    }

    fn map(&self, newest: &Member, name: &str) -> Result<Made> {
        if newest.is_reshaped {
            return Err(Error::unsupported(name, "it is being given another form"));
        }
        let found = self.in_places(newest, name)?;
        let mut mapped = Mapped::new(name);
        let degraded = match newest.level {
            LINEAR => {
                for (device, member) in whole(&found, newest, name)? {
                    mapped.append(rounded(member.room, newest.chunk), Leg::On(device.clone(), member.start))?;
                }
                None
            }
            0 => {
                stripe_zones(&mut mapped, &whole(&found, newest, name)?, newest, name)?;
                None
            }
            1 => copies(&mut mapped, &found, newest, newest.slots, u64::MAX, name)?,
            10 => {
                let near = newest.layout & 0xff;
                if newest.layout >> 8 != 1 || near == 0 || !newest.slots.is_multiple_of(near) {
                    let reason = format!("its copies do not lie side by side (layout {:#x})", newest.layout);
                    return Err(Error::unsupported(name, reason));
                }
                copies(&mut mapped, &found, newest, near, newest.chunk, name)?
            }
            4..=6 => return Err(Error::unsupported(name, format!("it has parity (RAID {})", newest.level))),
            level => return Err(Error::unsupported(name, format!("it is of level {level}"))),
        };
        Ok((mapped, degraded))
    }

    /// The freshest member of each place.
    fn in_places(&self, newest: &Member, name: &str) -> Result<Found<'_>> {
        let mut found: Found<'_> = BTreeMap::new();
        for (device, member) in &self.members {
            let Some(slot) = member.slot else { continue };
            match found.get(&slot) {
                Some((other, old)) if old.events == member.events && old.start == member.start => {
                    let (one, two) = (device.name(), other.name());
                    return Err(Error::damaged(name, format!("member {slot} is there twice: {one} and {two}")));
                }
                Some(_) => {}
                None if member.level == newest.level && member.slots == newest.slots => {
                    found.insert(slot, (device, member));
                }
                None => {}
            }
        }
        Ok(found)
    }
}

/// Members by their places.
type Found<'a> = BTreeMap<u32, (&'a Arc<dyn Device>, &'a Member)>;

/// All members in their order, of an array that is nothing when one is missing.
fn whole<'a>(found: &Found<'a>, newest: &Member, name: &str) -> Result<Vec<(&'a Arc<dyn Device>, &'a Member)>> {
    let member = |slot| {
        let missing = || Error::damaged(name, format!("member {slot} of {} is missing", newest.slots));
        found.get(&slot).copied().ok_or_else(missing)
    };
    (0..newest.slots).map(member).collect()
}

/// Appends bytes that are the same on `near` neighbours, in turns on groups of those.
fn copies(
    mapped: &mut Mapped,
    found: &Found<'_>,
    newest: &Member,
    near: u32,
    chunk: u64,
    name: &str,
) -> Result<Option<String>> {
    let mut lack = None;
    let mut legs = Vec::new();
    for group in 0..newest.slots / near {
        let slots = group * near..(group + 1) * near;
        let in_step = |slot: &u32| {
            // The kernel takes one that missed the last change of all, too.
            let member = found.get(slot).filter(|(_, member)| member.events.saturating_add(1) >= newest.events);
            member.filter(|(_, member)| !member.is_behind && newest.active.contains(slot))
        };
        lack = lack.or_else(|| {
            let slot = slots.clone().find(|slot| in_step(slot).is_none())?;
            let why = if found.contains_key(&slot) { "is not in step with the others" } else { "is missing" };
            Some(format!("member {slot} of {} {why}", newest.slots))
        });
        // Of those that are equally fresh, a resync copies from the first.
        let best = slots.filter_map(|slot| in_step(&slot)).min_by_key(|(_, member)| Reverse(member.events));
        let Some((device, member)) = best else {
            let reason = lack.unwrap_or_else(|| "it has no members".into());
            return Err(Error::damaged(name, format!("no copy can be relied on: {reason}")));
        };
        legs.push(Leg::On((*device).clone(), member.start));
    }
    let len = newest.size.checked_mul(legs.len() as u64).ok_or_else(|| Error::damaged(name, "it is too large"))?;
    mapped.append_stripes(len, chunk, legs)?;
    Ok(lack)
}

/// Appends the zones of a RAID 0: all members as far as the smallest goes, then the larger ones, and so on.
fn stripe_zones(
    mapped: &mut Mapped,
    members: &[(&Arc<dyn Device>, &Member)],
    newest: &Member,
    name: &str,
) -> Result<()> {
    let chunk = newest.chunk;
    if chunk == 0 {
        return Err(Error::damaged(name, "its chunks have no bytes"));
    }
    let room = |member: &Member| rounded(member.room, chunk);
    let mut sizes: Vec<u64> = members.iter().map(|(_, member)| room(member)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.len() > 1 && !matches!(newest.layout, ZONES_OF_ARRAY | ZONES_OF_THEIR_OWN) {
        return Err(Error::unsupported(name, "its members differ in size, and nothing says which layout it has"));
    }
    let mut from = 0;
    for to in sizes {
        let of_zone = members.iter().filter(|(_, member)| room(member) > from);
        let mut legs = of_zone
            .map(|(device, member)| {
                let start = member.start.checked_add(from).ok_or_else(|| Error::damaged(name, "it is too large"))?;
                Ok(Leg::On((*device).clone(), start))
            })
            .collect::<Result<Vec<_>>>()?;
        if newest.layout == ZONES_OF_ARRAY {
            // The turns are counted from the start of the array, not of the zone.
            let first = mapped.size() / chunk % (legs.len() as u64).max(1);
            legs.rotate_left(first as usize);
        }
        let len = (to - from).checked_mul(legs.len() as u64).ok_or_else(|| Error::damaged(name, "it is too large"))?;
        mapped.append_stripes(len, chunk, legs)?;
        from = to;
    }
    Ok(())
}

/// How large an array is that is not put together.
fn size(member: &Member) -> u64 {
    let slots = u64::from(member.slots);
    let data = match member.level {
        4 | 5 => slots.saturating_sub(1),
        6 => slots.saturating_sub(2),
        10 => slots / u64::from((member.layout & 0xff) * (member.layout >> 8 & 0xff)).max(1),
        1 => 1,
        _ => slots,
    };
    let each = if member.size > 0 { member.size } else { member.room };
    each.saturating_mul(data)
}

/// Whole chunks.
fn rounded(bytes: u64, chunk: u64) -> u64 {
    bytes.checked_div(chunk).map_or(bytes, |chunks| chunks * chunk)
}

/// `LEVEL_LINEAR`.
const LINEAR: i32 = -1;
/// `RAID0_ORIG_LAYOUT`.
const ZONES_OF_ARRAY: u32 = 1;
/// `RAID0_ALT_MULTIZONE_LAYOUT`.
const ZONES_OF_THEIR_OWN: u32 = 2;
