//! Collecting garbage: what no recovery point needs any more is deleted, beside running backups and restores.
//!
//! # The protocol
//! One run does both phases, for different objects:
//!
//! 1. *Condemn.* What is not reachable and older than the grace is written into a tombstone. After that, the writers
//!    that hold a lease are listed: they may not have seen the tombstone. They are written down beside it.
//! 2. *Delete.* When the grace has passed again and every writer written down has ended, or was fenced, the tombstone
//!    is *ripe*. What a new mark, begun after that, still does not reach is deleted; the rest has come back to life.
//!    Then the tombstone goes.
//!
//! A writer takes its lease, then reads the tombstones, then the index, and relies on no chunk of a condemned pack.
//!
//! # Why nothing that is needed is deleted
//! Let `o` be condemned by a ripe tombstone. Names are never given twice, so `o` can be needed only by a *carrier*: a
//! manifest, a lease that names its roots, or a record of a deletion.
//!
//! - *No carrier of `o` comes from nothing any more.* A writer whose lease began after the tombstone was durable reads
//!   it, and stores again what it would have shared. One whose lease began before held it when writers were listed
//!   (then its end was awaited: its manifest is there, or its name is fenced and never will be), or had ended by then
//!   (then its manifest is there). A listing that runs while leases are renewed misses none, by the anchor.
//! - *So a new carrier takes `o` from an old one, and both exist at one moment.* A pin is written first and its point
//!   looked for then; a manifest is created while the lease that pins its parent holds; a deletion writes its record
//!   before the manifest goes, and records go only at the begin of a run, their manifests being gone.
//! - *So marking meets one of them.* Take the carriers at the moment when marking begins. It lists leases, then
//!   manifests, then records. A lease that is not listed has ended: its manifest, if it has one, is listed behind it.
//!   A manifest that is not listed was deleted: its record is listed behind it.
//!
//! Marking before the tombstone is written proves nothing and need not: it only proposes. That is why a collector that
//! sleeps for hours between two steps and then goes on does no harm: a late tombstone is only a proposal, and a late
//! deletion deletes what was ripe and unreachable, which stays so. (Where a chunk is in several packs, all collectors
//! take it from the same one: one that is not condemned, else from the one condemned last.) There is one collector at
//! a time all the same, by a lease: it saves work.
//!
//! # Crashes
//! A crash before a tombstone is durable leaves what was there. A tombstone without the list of writers has it made
//! anew. After a crash among deletions the tombstone is still there: the next run goes on. Packs go before the segments
//! that name them are replaced (an entry counts only for packs that are there), so no pack is ever without its segment;
//! the tombstone goes last, so that a writer that does not see it does not see what it named either.
//!
//! # Memory
//! Marking takes 26 bytes for each chunk of the index (6.5 GB for 62 TiB of different chunks of 256 KiB), but never
//! more than [`GcLimits::memory`]: with less, ids are marked part by part, and segments and pages read once for each
//! part. To that come a bit for each chunk, about 120 bytes a pack and 56 a page.

pub(super) mod tomb;

mod chunks;
mod compact;
mod forget;
mod inventory;
mod mark;
mod options;
mod report;
mod sweep;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use crate::error::{Error, Result};

use self::{
    inventory::{Listed, Packs},
    mark::Marked,
    tomb::{Class, Entry, Tomb},
};
use super::{
    Repository,
    id::LeaseId,
    lease::{
        Lease,
        record::{Purpose, Roots},
        watch::{self, Found},
    },
    storage::Key,
};

pub(super) use self::tomb::Condemned;
pub use self::{
    options::{GcLimits, GcOptions},
    report::{GcReport, Tally},
};

impl Repository {
    /// Deletes what no recovery point needs, in two phases, and rewrites packs of which little is needed.
    ///
    /// A run condemns what is not reachable and deletes what an earlier run condemned; so it takes two runs, with the
    /// grace and the end of all writers of the time between them, until space is free. Marks of restores that no point
    /// needs go at once. It may run beside backups,
    /// restores, prunes and other collections (of which one works and the others return [`Error::Busy`]). A writer that
    /// has not renewed its lease, seen so by two runs, is fenced.
    ///
    /// ```no_run
    /// # use vsphere_backup::repository::{GcOptions, Repository, Retention};
    /// # async fn example(repository: Repository) -> vsphere_backup::Result<()> {
    /// let rules = Retention::keep().last(3).daily(14).weekly(8).monthly(12);
    /// for pruned in repository.prune(None, &rules, false).await?.points {
    ///     println!("{}: {}", pruned.point, pruned.fate);
    /// }
    /// let report = repository.collect_garbage(&GcOptions::default()).await?;
    /// println!("{} bytes freed, {} bytes to be freed later", report.deleted.bytes, report.condemned.bytes);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] when another collection runs; [`Error::Damaged`] when a manifest, a page or a lease cannot be
    /// read: what it needs is not known, so nothing is deleted before it is repaired or deleted; [`Error::Fenced`] when
    /// this collection was taken for dead; [`Error::Storage`], [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// When dropped, a later run goes on.
    pub async fn collect_garbage(&self, options: &GcOptions) -> Result<GcReport> {
        if !options.dry_run {
            self.may_delete(&Key::of(&["packs"]))?;
        }
        if options.dry_run {
            return Collection { repository: self, options, lease: None, report: GcReport::default() }.run().await;
        }
        let lease = Lease::begin(self.objects(), Purpose::Collect, Roots::default(), options.lease).await?;
        let collection = Collection { repository: self, options, lease: Some(&lease), report: GcReport::default() };
        let done = collection.run().await;
        lease.release().await;
        done
    }
}

/// One run.
struct Collection<'a> {
    repository: &'a Repository,
    options: &'a GcOptions,
    /// `None` for a dry run.
    lease: Option<&'a Lease>,
    report: GcReport,
}

impl Collection<'_> {
    async fn run(mut self) -> Result<GcReport> {
        self.report.dry_run = self.is_dry();
        let leases = self.leases().await?;
        let tombs = self.tombs().await?;
        let (ripe, unripe): (Vec<_>, Vec<_>) = tombs.into_iter().partition(|tomb| self.is_ripe(tomb, &leases));
        let over = self.repository.finish_deletions(&self.options.clock, !self.is_dry()).await?;

        // Before anything is marked: what comes later is not listed and so not touched.
        let objects = self.repository.objects();
        let mut packs = Packs::list(objects).await?;
        let mut pages = Listed::read(objects, "pages").await?;
        let mut metas = Listed::read(objects, "meta").await?;
        // Again: the leases of before may have pinned more since.
        let leases = watch::survey(objects, &self.options.clock, false).await?;
        let needs = mark::roots(self.repository, &leases, &over).await?;
        let condemned: HashMap<Entry, (u64, &str)> = ripe
            .iter()
            .chain(&unripe)
            .flat_map(|tomb| tomb.entries.iter().map(|entry| (*entry, (tomb.created, tomb.name.as_str()))))
            .collect();
        let rank = |packs: &Packs| rank(packs, &condemned);
        let all = (&mut packs, &mut pages, &mut metas);
        let (memory, cancel) = (self.options.limits.memory, &self.options.cancel);
        let marked = mark::mark(self.repository, &needs, all, rank, memory, cancel).await?;
        let Marked { points, chunks, missing, passes } = marked;
        self.report = GcReport { points, chunks, missing, passes, ..self.report };

        for tomb in &unripe {
            for &(class, id) in &tomb.entries {
                let size = size_of(class, &id, &packs, &pages, &metas);
                size.into_iter().for_each(|size| self.report.waiting.add(class, size));
            }
        }
        let swept = self.delete(&ripe, &packs, &pages, &metas).await?;
        let compacted = self.compact(&packs, &condemned).await?;
        let mut doomed = self.unreachable(&packs, &pages, &metas);
        doomed.extend(
            compacted.iter().map(|id| ((Class::Pack, id.0), size_of(Class::Pack, &id.0, &packs, &pages, &metas))),
        );
        doomed.retain(|(entry, _)| !condemned.contains_key(entry) && !swept.contains(entry));
        self.condemn(&doomed).await?;
        self.forget_marks().await?;
        self.remove_unfinished().await?;
        Ok(self.report)
    }

    fn is_dry(&self) -> bool {
        self.lease.is_none()
    }

    /// Fails when this collection was taken for dead or cancelled: asked before every step that changes something.
    fn check(&self) -> Result<()> {
        self.options.cancel.check()?;
        self.lease.map_or(Ok(()), Lease::check)
    }

    /// Looks at all leases, ends those of the dead, and returns the others.
    async fn leases(&mut self) -> Result<Vec<Found>> {
        let objects = self.repository.objects();
        let mut alive = Vec::new();
        for found in watch::survey(objects, &self.options.clock, !self.is_dry()).await? {
            if self.lease.is_some_and(|own| own.id() == found.id()) {
                continue;
            }
            if !found.is_alive() {
                self.report.fenced.push(found.body.describe());
                if self.is_dry() || watch::fence(objects, &found).await? {
                    continue;
                }
                self.report.fenced.pop();
            }
            if found.body.purpose == Purpose::Collect && !self.is_dry() {
                // Each of two that begin at once sees the other: both step back.
                return Err(Error::from(&found));
            }
            self.report.holders.push(found.body.describe());
            alive.push(found);
        }
        Ok(alive)
    }

    /// Reads all tombstones, removes what is left of old ones, and completes those that a crash cut short.
    async fn tombs(&self) -> Result<Vec<Tomb>> {
        let objects = self.repository.objects();
        let mut tombs = Vec::new();
        for (name, keys) in tomb::names(objects).await? {
            match tomb::read(objects, &name).await {
                Ok(Some(tomb)) if self.is_from_the_future(&tomb) => {
                    // By a clock that was ahead: it would not be ripe for as long. What it condemned is condemned anew.
                    tracing::warn!(tomb = name, "a tombstone from the future is dropped");
                    if !self.is_dry() {
                        sweep::remove_tomb(self.repository.storage(), &name).await?;
                    }
                }
                Ok(Some(mut tomb)) => {
                    if tomb.waits.is_none() {
                        tomb.waits = Some(self.writers().await?);
                        if !self.is_dry() {
                            tomb::write_waits(objects, &name, tomb.waits.as_deref().unwrap_or_default()).await?;
                        }
                    }
                    tombs.push(tomb);
                }
                Ok(None) if !self.is_dry() => sweep::remove_all(self.repository.storage(), &keys).await?,
                Err(error) if error.is_damage() => {
                    // What it condemned is condemned anew.
                    tracing::warn!(%error, "a damaged tombstone is dropped");
                    if !self.is_dry() {
                        sweep::remove_all(self.repository.storage(), &keys).await?;
                    }
                }
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tombs)
    }

    /// Returns the writers that hold a lease now.
    async fn writers(&self) -> Result<Vec<LeaseId>> {
        let leases = watch::survey(self.repository.objects(), &self.options.clock, false).await?;
        Ok(leases.iter().filter(|lease| lease.is_writer()).map(Found::id).collect())
    }

    /// Tells whether the collector's clock was ahead of this one by more than clocks differ.
    fn is_from_the_future(&self, tomb: &Tomb) -> bool {
        let ahead = self.options.grace.as_secs().max(CLOCKS_DIFFER);
        tomb.created > self.options.clock.seconds().saturating_add(ahead)
    }

    fn is_ripe(&self, tomb: &Tomb, leases: &[Found]) -> bool {
        let age = self.options.clock.seconds().saturating_sub(tomb.created);
        let ended = |id: &LeaseId| leases.iter().all(|lease| lease.id() != *id);
        // Whole seconds: no less than the grace has passed. One without end never does.
        let grace = self.options.grace.as_secs().saturating_add(u64::from(self.options.grace.subsec_nanos() > 0));
        age >= grace && tomb.waits.as_ref().is_some_and(|waits| waits.iter().all(ended))
    }

    fn is_old(&self, modified: Option<std::time::SystemTime>) -> bool {
        modified.is_none_or(|at| self.options.clock.now().duration_since(at).is_ok_and(|age| age >= self.options.grace))
    }

    /// Returns what is listed, old, and not reachable.
    fn unreachable(&self, packs: &Packs, pages: &Listed, metas: &Listed) -> Vec<(Entry, Option<u64>)> {
        let of = |class| move |(id, size, _): &([u8; 32], u64, _)| ((class, *id), Some(*size));
        let old = |object: &&([u8; 32], u64, _)| self.is_old(object.2);
        let idle = packs.list.iter().filter(|pack| !pack.is_needed() && self.is_old(pack.modified));
        idle.map(|pack| ((Class::Pack, pack.id.0), Some(pack.size)))
            .chain(pages.unreached().filter(old).map(of(Class::Page)))
            .chain(metas.unreached().filter(old).map(of(Class::Meta)))
            .collect()
    }

    /// Writes tombstones, then the writers that may not have seen them.
    async fn condemn(&mut self, doomed: &[(Entry, Option<u64>)]) -> Result<()> {
        for &((class, _), size) in doomed {
            self.report.condemned.add(class, size.unwrap_or_default());
        }
        if self.is_dry() {
            return Ok(());
        }
        let (objects, created) = (self.repository.objects(), self.options.clock.seconds());
        let mut names = Vec::new();
        for part in doomed.chunks(tomb::MAX_ENTRIES) {
            self.check()?;
            let entries: Vec<_> = part.iter().map(|(entry, _)| *entry).collect();
            names.push(tomb::write(objects, created, &entries).await?);
        }
        if names.is_empty() {
            return Ok(());
        }
        let writers = self.writers().await?;
        for name in names {
            tomb::write_waits(objects, &name, &writers).await?;
        }
        Ok(())
    }

    /// Deletes what ripe tombstones name and nobody needs; returns what they named.
    async fn delete(
        &mut self,
        ripe: &[Tomb],
        packs: &Packs,
        pages: &Listed,
        metas: &Listed,
    ) -> Result<BTreeSet<Entry>> {
        let mut named = BTreeSet::new();
        let mut deleted = BTreeSet::new();
        for tomb in ripe {
            for &(class, id) in &tomb.entries {
                named.insert((class, id));
                let Some(size) = size_of(class, &id, packs, pages, metas) else { continue };
                let needed = match class {
                    Class::Pack => {
                        let number = packs.number(&super::PackId(id));
                        number.is_some_and(|number| packs.list[number as usize].is_needed())
                    }
                    Class::Page => pages.is_reached(&id),
                    Class::Meta => metas.is_reached(&id),
                };
                if needed {
                    self.report.revived.add(class, size);
                    continue;
                }
                self.check()?;
                if self.is_dry()
                    || sweep::delete(self.repository.storage(), class, id, &mut self.report.refused).await?
                {
                    self.report.deleted.add(class, size);
                    deleted.insert((class, id));
                }
            }
        }
        if self.is_dry() {
            return Ok(named);
        }
        self.check()?;
        sweep::replace_segments(self.repository.objects(), packs, &deleted).await?;
        // What a mark names is gone.
        let marks: Vec<_> = packs.marks.iter().filter(|(_, holds)| !holds).map(|(key, _)| key.clone()).collect();
        sweep::remove_all(self.repository.storage(), &marks).await?;
        // Last: a writer that sees no tombstone must not see what it named, unless that stays.
        for tomb in ripe {
            self.check()?;
            sweep::remove_tomb(self.repository.storage(), &tomb.name).await?;
        }
        Ok(named)
    }
}

/// Orders packs for chunks that are in several: those that are not condemned, the newest first; then those that were
/// condemned last. All collectors must agree on which of several condemned ones is taken.
fn rank(packs: &Packs, condemned: &HashMap<Entry, (u64, &str)>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..packs.list.len() as u32).collect();
    order.sort_by_cached_key(|&number| {
        let pack = &packs.list[number as usize];
        match condemned.get(&(Class::Pack, pack.id.0)) {
            None => (0, None, Reverse(pack.modified), pack.id),
            Some(&tomb) => (1, Some(Reverse(tomb)), Reverse(None), pack.id),
        }
    });
    let mut rank = vec![0; order.len()];
    for (place, number) in order.into_iter().enumerate() {
        rank[number as usize] = place as u32;
    }
    rank
}

/// Returns the size of an object in bytes; `None` when it was not listed.
fn size_of(class: Class, id: &[u8; 32], packs: &Packs, pages: &Listed, metas: &Listed) -> Option<u64> {
    match class {
        Class::Pack => packs.number(&super::PackId(*id)).map(|number| packs.list[number as usize].size),
        Class::Page => pages.is_listed(id),
        Class::Meta => metas.is_listed(id),
    }
}

/// Seconds by which the clocks of two computers may differ without harm.
const CLOCKS_DIFFER: u64 = 3600;
