//! One bounded cache of pages for all disks of a set: file system readers ask for 4 KiB at a time, transports answer
//! 1 MiB in the time of one round trip.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::error::Result;

/// How a cache works.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheOptions {
    /// Bytes that it keeps: 64 MiB by default.
    pub capacity: u64,
    /// Bytes of a page, a power of two from 4 KiB to 1 MiB: 64 KiB by default.
    pub page: u32,
    /// The most that is read ahead of who reads on and on: 1 MiB by default, 0 for never.
    pub read_ahead: u32,
}

impl CacheOptions {
    /// Sets the bytes that are kept.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Sets the bytes of a page; they are made a power of two from 4 KiB to 1 MiB.
    #[must_use]
    pub fn page(mut self, bytes: u32) -> Self {
        self.page = bytes.clamp(4 << 10, 1 << 20).next_power_of_two();
        self
    }

    /// Sets the most that is read ahead.
    #[must_use]
    pub fn read_ahead(mut self, bytes: u32) -> Self {
        self.read_ahead = bytes.min(16 << 20);
        self
    }
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { capacity: 64 << 20, page: 64 << 10, read_ahead: 1 << 20 }
    }
}

/// What a cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheFigures {
    /// Reads of disks.
    pub reads: u64,
    /// Bytes of those.
    pub read: u64,
    /// Bytes that were asked for.
    pub asked: u64,
}

/// Pages of several disks.
#[derive(Debug)]
pub struct PageCache {
    options: CacheOptions,
    state: Mutex<State>,
    arrived: Condvar,
}

/// A page: of which disk, the how many-th.
type Key = (u32, u64);

#[derive(Debug, Default)]
struct State {
    pages: HashMap<Key, Page>,
    /// The order in which pages are looked at when one has to go; a page that was used meanwhile gets another turn.
    turns: VecDeque<Key>,
    bytes: u64,
    arriving: HashSet<Key>,
    streams: VecDeque<Stream>,
    disks: u32,
    figures: CacheFigures,
}

#[derive(Debug)]
struct Page {
    data: Arc<[u8]>,
    used: bool,
}

/// Somebody who reads on and on.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The page that comes next, if that is so.
    next: Key,
    /// Pages that are read ahead.
    window: u64,
}

/// What a reader does next.
enum Turn {
    /// The page is there.
    Here(Arc<[u8]>),
    /// So many pages from there on are this reader's to fetch.
    Fetch(u64),
}

impl PageCache {
    /// Makes an empty cache.
    pub fn new(options: CacheOptions) -> Arc<Self> {
        let page = options.page.clamp(4 << 10, 1 << 20).next_power_of_two();
        let options = CacheOptions { page, ..options };
        Arc::new(Self { options, state: Mutex::default(), arrived: Condvar::new() })
    }

    /// What it did so far.
    pub fn figures(&self) -> CacheFigures {
        self.lock().figures
    }

    /// Gives a disk its number.
    pub(super) fn disk(&self) -> u32 {
        let mut state = self.lock();
        state.disks += 1;
        state.disks
    }

    /// Reads through the cache a disk of `size` bytes that `fetch` reads. Reads that are long enough to be worth a round
    /// trip of their own, and are not there already, leave the cache as it is.
    pub(super) fn read(
        &self,
        disk: u32,
        size: u64,
        offset: u64,
        buf: &mut [u8],
        fetch: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let page = u64::from(self.options.page);
        self.lock().figures.asked += buf.len() as u64;
        // Who reads so much at once reads it once: nothing is read ahead or kept, and what such a read leaves of the pages at
        // its ends is fetched anew by whoever wants it.
        let long = buf.len() as u64 >= LONG.max(u64::from(self.options.read_ahead) / 2);
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let rest = &mut buf[done..];
            let wanted = (at + rest.len() as u64).div_ceil(page) - at / page;
            match self.turn((disk, at / page), wanted, size.div_ceil(page), long) {
                Turn::Here(data) => {
                    let from = (at % page) as usize;
                    // The last page is as short as the disk.
                    let len = rest.len().min(data.len().saturating_sub(from));
                    if len == 0 {
                        return Err(crate::Error::Invalid(format!("a read at byte {at} of a disk of {size} bytes")));
                    }
                    rest[..len].copy_from_slice(&data[from..from + len]);
                    done += len;
                }
                Turn::Fetch(pages) => {
                    let arriving = Arriving { cache: self, first: (disk, at / page), pages };
                    let start = at / page * page;
                    let end = (start + pages * page).min(size);
                    let whole = at == start && rest.len() as u64 >= end - start && end - start >= LONG;
                    if long || whole {
                        // Straight to where it is wanted.
                        let len = rest.len().min((end - at) as usize);
                        fetch(at, &mut rest[..len])?;
                        self.count(len as u64);
                        done += len;
                        continue;
                    }
                    let mut data = vec![0; (end - start) as usize];
                    fetch(start, &mut data)?;
                    self.count(end - start);
                    arriving.keep(&data, self.options.page as usize);
                }
            }
        }
        Ok(())
    }

    /// Finds a page, or what has to be fetched for it, no more than is wanted when the read is a long one. Waits while
    /// somebody else fetches it.
    fn turn(&self, key: Key, wanted: u64, of_disk: u64, long: bool) -> Turn {
        let mut state = self.lock();
        loop {
            if let Some(found) = state.pages.get_mut(&key) {
                found.used = true;
                return Turn::Here(found.data.clone());
            }
            if !state.arriving.contains(&key) {
                break;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let most = (u64::from(self.options.read_ahead) / u64::from(self.options.page)).max(1);
        let window = if long { 1 } else { state.window(key, wanted, most) };
        let longest = (LONGEST / u64::from(self.options.page)).max(1);
        let limit = wanted.max(window).min(longest).min(of_disk.saturating_sub(key.1)).max(1);
        let mut pages = 1;
        while pages < limit {
            let next = (key.0, key.1 + pages);
            if state.pages.contains_key(&next) || state.arriving.contains(&next) {
                break;
            }
            pages += 1;
        }
        state.follow(key, pages, window);
        state.arriving.extend((0..pages).map(|page| (key.0, key.1 + page)));
        Turn::Fetch(pages)
    }

    fn count(&self, bytes: u64) {
        let mut state = self.lock();
        state.figures.reads += 1;
        state.figures.read += bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under the lock, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many pages are worth reading for somebody who misses this one: more and more for who reads on and on.
    fn window(&self, key: Key, wanted: u64, most: u64) -> u64 {
        let stream = self.streams.iter().find(|stream| stream.next == key);
        stream.map_or(1, |stream| (stream.window.max(wanted) * 2).min(most))
    }

    /// Notes where a reader will be next if it reads on.
    fn follow(&mut self, key: Key, pages: u64, window: u64) {
        self.streams.retain(|stream| stream.next != key);
        if self.streams.len() >= STREAMS {
            self.streams.pop_front();
        }
        self.streams.push_back(Stream { next: (key.0, key.1 + pages), window });
    }

    fn insert(&mut self, key: Key, data: Arc<[u8]>, capacity: u64) {
        self.bytes += data.len() as u64;
        if let Some(old) = self.pages.insert(key, Page { data, used: false }) {
            self.bytes -= old.data.len() as u64;
        } else {
            self.turns.push_back(key);
        }
        while self.bytes > capacity && self.turns.len() > 1 {
            let Some(oldest) = self.turns.pop_front() else { break };
            let Some(page) = self.pages.get_mut(&oldest) else { continue };
            if std::mem::take(&mut page.used) || oldest == key {
                self.turns.push_back(oldest);
            } else if let Some(gone) = self.pages.remove(&oldest) {
                self.bytes -= gone.data.len() as u64;
            }
        }
    }
}

/// Pages that a reader is fetching; others wait for them until this is dropped.
struct Arriving<'a> {
    cache: &'a PageCache,
    first: Key,
    pages: u64,
}

impl Arriving<'_> {
    fn keep(self, data: &[u8], page: usize) {
        let mut state = self.cache.lock();
        for (number, data) in data.chunks(page).enumerate() {
            let key = (self.first.0, self.first.1 + number as u64);
            state.insert(key, data.into(), self.cache.options.capacity);
        }
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        for page in 0..self.pages {
            state.arriving.remove(&(self.first.0, self.first.1 + page));
        }
        drop(state);
        self.cache.arrived.notify_all();
    }
}

/// Reads of so many bytes are worth a round trip of their own and pass the cache by.
const LONG: u64 = 256 << 10;
/// No read of a disk is longer than this.
const LONGEST: u64 = 4 << 20;
/// Readers that are followed at once.
const STREAMS: usize = 32;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at / 7 + at / 4096) as u8).collect()
    }

    struct Disk {
        content: Vec<u8>,
        number: u32,
        cache: Arc<PageCache>,
        reads: AtomicU64,
    }

    impl Disk {
        fn new(size: usize, cache: &Arc<PageCache>) -> Self {
            Self { content: content(size), number: cache.disk(), cache: cache.clone(), reads: AtomicU64::new(0) }
        }

        fn read(&self, offset: usize, len: usize) -> Vec<u8> {
            let mut buffer = vec![0; len];
            let fetch = |at: u64, buf: &mut [u8]| {
                self.reads.fetch_add(1, Ordering::Relaxed);
                buf.copy_from_slice(&self.content[at as usize..at as usize + buf.len()]);
                Ok(())
            };
            self.cache.read(self.number, self.content.len() as u64, offset as u64, &mut buffer, fetch).unwrap();
            assert!(buffer == self.content[offset..offset + len], "{offset}+{len}");
            buffer
        }
    }

    #[test]
    fn small_reads_in_a_row_become_few_long_ones() {
        let cache = PageCache::new(CacheOptions::default());
        let disk = Disk::new((8 << 20) + 777, &cache);
        for at in (0..8 << 20).step_by(4096) {
            disk.read(at, 4096);
        }
        disk.read(8 << 20, 777);
        let figures = cache.figures();
        assert!(figures.reads <= 8 + 6 && figures.read <= 9 << 20, "{figures:?}");
    }

    #[test]
    fn scattered_reads_fetch_one_page_each_and_a_page_once() {
        let cache = PageCache::new(CacheOptions::default());
        let disk = Disk::new(64 << 20, &cache);
        for _ in 0..2 {
            for number in 0..50_usize {
                disk.read((number * 37 % 50) * (1 << 20) + 12345, 512);
            }
        }
        assert_eq!(cache.figures().read, 50 * (64 << 10));
    }

    #[test]
    fn memory_stays_bounded_and_long_reads_leave_the_cache_alone() {
        let cache = PageCache::new(CacheOptions::default().capacity(1 << 20));
        let disk = Disk::new(32 << 20, &cache);
        disk.read(0, 512);
        disk.read(1 << 20, 16 << 20);
        assert_eq!(cache.lock().bytes, 64 << 10);
        for at in (0..32 << 20).step_by(100_000) {
            disk.read(at, 1000);
        }
        assert!(cache.lock().bytes <= 1 << 20);
        assert!(cache.lock().turns.len() <= 17);
    }

    #[test]
    fn long_reads_that_begin_and_end_within_pages_read_what_is_wanted_and_no_more() {
        let cache = PageCache::new(CacheOptions::default());
        let disk = Disk::new(16 << 20, &cache);
        for at in (5000..9 << 20).step_by(1 << 20) {
            disk.read(at, 1 << 20);
        }
        assert_eq!((cache.figures().reads, cache.figures().read), (9, 9 << 20));
        disk.read((16 << 20) - 700_000, 700_000);
        assert_eq!(cache.lock().bytes, 0);
        // Pages that somebody else has read ahead are used, and then it goes on so.
        let cache = PageCache::new(CacheOptions::default());
        let disk = Disk::new(16 << 20, &cache);
        (0..1 << 20).step_by(4096).for_each(|at| drop(disk.read(at, 4096)));
        let (before, kept) = (cache.figures(), cache.lock().bytes);
        for number in 0..8 {
            disk.read(kept as usize - 300_000 + (number << 20), 1 << 20);
        }
        let after = cache.figures();
        assert_eq!((after.reads - before.reads, after.read - before.read), (8, (8 << 20) - 300_000));
    }

    #[test]
    fn a_failed_read_is_the_readers_error_and_the_next_one_tries_again() {
        let cache = PageCache::new(CacheOptions::default());
        let number = cache.disk();
        let mut buffer = [0; 512];
        let fails = |_: u64, _: &mut [u8]| Err(crate::Error::Invalid("gone".into()));
        cache.read(number, 1 << 20, 0, &mut buffer, fails).unwrap_err();
        let works = |_: u64, buf: &mut [u8]| {
            buf.fill(7);
            Ok(())
        };
        cache.read(number, 1 << 20, 0, &mut buffer, works).unwrap();
        assert_eq!(buffer, [7; 512]);
    }

    #[test]
    fn readers_of_one_page_at_once_fetch_it_once() {
        let cache = PageCache::new(CacheOptions::default().read_ahead(0));
        let disk = Disk::new(4 << 20, &cache);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..4 << 20).step_by(64 << 10).for_each(|at| drop(disk.read(at + 100, 1000))));
            }
        });
        assert_eq!(disk.reads.load(Ordering::Relaxed), 64);
    }
}
