//! Asynchronous disks: the same bytes and maps as blocking ones, and few requests.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, poll_fn},
    io,
    ops::Range,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use bytes::Bytes;
use proptest::{collection, prelude::*};
use vmdk::{
    Access, AsyncDisk, AsyncReadAt, AsyncResolver, Cid, Disk, Error, MapEntry, MapKind, OpenOptions, SourceHint,
    SourceMap, SourceRun,
    descriptor::{CreateType, ExtentLine, ExtentType, NewDescriptor},
    stream::{StreamSpec, StreamWriter},
};

use crate::support::{
    MemFiles, Random, assert_is, holey,
    snapshot::{Snapshot, Stored},
};

/// Runs a future to its end; says how often it was polled.
fn block_on<F: Future>(future: F) -> (F::Output, usize) {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    for polls in 1.. {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return (output, polls),
            Poll::Pending => thread::park(),
        }
    }
    unreachable!()
}

/// Files behind a network: every request is pending once, so that one more poll is one more round trip.
#[derive(Default)]
struct Far {
    files: HashMap<String, Bytes>,
    hint: SourceHint,
    opens: AtomicUsize,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    requests: AtomicUsize,
    ranges: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct FarFile {
    bytes: Bytes,
    hint: SourceHint,
    count: Arc<Count>,
}

async fn round_trip() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Far {
    fn new(files: &[(String, Vec<u8>)], hint: SourceHint) -> Self {
        let files = files.iter().map(|(name, bytes)| (name.clone(), Bytes::from(bytes.clone()))).collect();
        Self { files, hint, ..Self::default() }
    }

    /// Requests, ranges and bytes since it was last asked.
    fn counted(&self) -> (usize, usize, usize) {
        let Count { requests, ranges, bytes } = &*self.count;
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(requests), take(ranges), take(bytes))
    }
}

impl AsyncResolver for Far {
    type Source = FarFile;

    async fn open(&self, path: &Path) -> io::Result<FarFile> {
        round_trip().await;
        self.opens.fetch_add(1, Ordering::Relaxed);
        let bytes = self.files.get(path.to_str().unwrap()).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(FarFile { bytes, hint: self.hint, count: Arc::clone(&self.count) })
    }
}

impl AsyncReadAt for FarFile {
    async fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    async fn read_ranges(&self, ranges: Vec<Range<u64>>) -> io::Result<Vec<Bytes>> {
        round_trip().await;
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
        self.count.requests.fetch_add(1, Ordering::Relaxed);
        self.count.ranges.fetch_add(ranges.len(), Ordering::Relaxed);
        let read = ranges.into_iter().map(|range| {
            assert!(range.end - range.start <= self.hint.longest);
            self.count.bytes.fetch_add((range.end - range.start) as usize, Ordering::Relaxed);
            let inside = range.end <= self.bytes.len() as u64;
            inside.then(|| self.bytes.slice(range.start as usize..range.end as usize))
        });
        read.map(|bytes| bytes.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())).collect()
    }

    /// Blocks of zeros are holes.
    async fn map(&self, range: Range<u64>) -> io::Result<SourceMap> {
        let mut runs: Vec<SourceRun> = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = (start / 4096 * 4096 + 4096).min(range.end);
            let hole = self.bytes[start as usize..end as usize].iter().all(|&byte| byte == 0);
            match runs.last_mut() {
                Some(last) if last.hole == hole => last.range.end = end,
                _ => runs.push(SourceRun { range: start..end, hole }),
            }
            start = end;
        }
        Ok(SourceMap::Runs(runs))
    }

    fn hint(&self) -> SourceHint {
        self.hint
    }
}

/// A chain of any kinds.
#[derive(Debug, Clone)]
struct Links {
    base_sectors: u64,
    seed: u64,
    compressed: bool,
    /// Grain sectors: 8 for seSparse, else COWD.
    snapshots: Vec<Snapshot>,
}

impl Links {
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let text = |new: NewDescriptor| new.build().unwrap().to_bytes();
        let content = holey(self.base_sectors as usize * 512, self.seed);
        let extent = |kind, name: &str| ExtentLine::new(kind, self.base_sectors, name);
        let (kind, line, bytes) = if self.compressed {
            (CreateType::StreamOptimized, extent(ExtentType::Sparse, "d0-s.vmdk"), packed(&content))
        } else {
            (CreateType::Vmfs, extent(ExtentType::Vmfs, "d0-flat.vmdk"), content)
        };
        let data = line.file_name.clone().unwrap();
        let mut files =
            vec![("d0.vmdk".to_owned(), text(NewDescriptor::new(kind, vec![line]).cid(Cid(100)))), (data, bytes)];
        for (index, snapshot) in self.snapshots.iter().enumerate() {
            let (number, sesparse) = (index as u32 + 1, snapshot.grain_sectors == 8);
            let (kind, extent, bytes) = if sesparse {
                (CreateType::SeSparse, ExtentType::SeSparse, snapshot.sesparse())
            } else {
                (CreateType::VmfsSparse, ExtentType::VmfsSparse, snapshot.cowd())
            };
            let data = format!("d{number}-delta.vmdk");
            let new = NewDescriptor::new(kind, vec![ExtentLine::new(extent, snapshot.sectors, &*data)])
                .parent(Cid(99 + number), format!("d{index}.vmdk"));
            files.push((format!("d{number}.vmdk"), text(new.cid(Cid(100 + number)))));
            files.push((data, bytes));
        }
        files
    }

    fn content(&self) -> Vec<u8> {
        let base = holey(self.base_sectors as usize * 512, self.seed);
        self.snapshots.iter().fold(base, |under, snapshot| snapshot.over(under))
    }

    fn top(&self) -> String {
        format!("d{}.vmdk", self.snapshots.len())
    }
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(content.len() as u64)).unwrap();
    writer.write_at(0, content).unwrap();
    writer.finish().unwrap()
}

fn blocking(files: &[(String, Vec<u8>)], top: &str) -> Disk {
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    Disk::open(top, &OpenOptions::new().resolver(MemFiles::with(&files))).unwrap()
}

fn entries(disk: &Disk) -> Vec<MapEntry> {
    disk.map(0..disk.capacity()).map(|entry| entry.unwrap()).collect()
}

fn links() -> impl Strategy<Value = Links> {
    let stored =
        prop_oneof![3 => any::<u64>().prop_map(Stored::Data), 1 => Just(Stored::Zero), 1 => Just(Stored::Unmapped)];
    let run = (0..1000_u64, 1..40_u64, stored);
    let snapshot = (collection::vec(run, 0..12), any::<bool>(), any::<u64>());
    (4097..20_000_u64, any::<u64>(), any::<bool>(), collection::vec(snapshot, 0..4)).prop_map(
        |(base_sectors, seed, compressed, snapshots)| {
            let snapshot = |(runs, sesparse, order): (Vec<(u64, u64, Stored)>, bool, u64)| {
                let grain_sectors = if sesparse { 8 } else { 1 };
                let count = base_sectors.div_ceil(grain_sectors);
                let mut grains = BTreeMap::new();
                for (place, len, stored) in runs {
                    let start = place * count / 1000;
                    for grain in start..(start + len).min(count) {
                        match stored {
                            Stored::Data(seed) => grains.insert(grain, Stored::Data(seed ^ grain)),
                            // COWD has no zeros.
                            other if sesparse => grains.insert(grain, other),
                            _ => None,
                        };
                    }
                }
                Snapshot { sectors: base_sectors, grain_sectors, grains, order }
            };
            Links { base_sectors, seed, compressed, snapshots: snapshots.into_iter().map(snapshot).collect() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn asynchronous_and_blocking_disks_are_the_model(links in links(), gap in 0..100_000_u64, longest in 0..300_000_u64) {
        let (files, content) = (links.files(), links.content());
        let disk = blocking(&files, &links.top());
        assert_is(&disk, &content);

        let far = Far::new(&files, SourceHint::default().gap(gap).longest(longest.max(65536)));
        let options = OpenOptions::new().cache_bytes(0).grain_cache_bytes(0);
        let (remote, _) = block_on(AsyncDisk::open(links.top(), &far, &options));
        let remote = remote.unwrap();
        prop_assert_eq!(remote.capacity(), disk.capacity());
        prop_assert_eq!(remote.links().len(), disk.links().len());
        let mut random = Random::new(links.seed);
        for round in 0..20 {
            let start = if round == 0 { 0 } else { random.below(content.len() as u64) as usize };
            let most = content.len() - start;
            let len = if round == 0 { most } else { most.min(random.below(1 << 20) as usize) };
            let mut buf = vec![0xee; len];
            block_on(remote.read_at(start as u64, &mut buf)).0.unwrap();
            prop_assert!(buf == content[start..start + len], "{}+{} differs", start, len);
        }
        // The same but for holes of flat files, which memory has not and this network has.
        let solid = |entries: Vec<MapEntry>| -> Vec<_> {
            entries.into_iter().filter(|entry| entry.layer.is_some_and(|layer| layer < links.snapshots.len())).collect()
        };
        let map = block_on(remote.map(0..u64::MAX)).0.unwrap();
        prop_assert_eq!(solid(map.clone()), solid(entries(&disk)));
        let mut at = 0;
        for entry in map {
            prop_assert_eq!(entry.range.start, at);
            at = entry.range.end;
            let bytes = &content[entry.range.start as usize..at as usize];
            prop_assert!(entry.kind == MapKind::Data || bytes.iter().all(|&byte| byte == 0));
        }
        prop_assert_eq!(at, disk.capacity());
    }
}

/// Three links of 64 MiB; the snapshots have every other MiB, in disorder.
fn large() -> (Links, Vec<(String, Vec<u8>)>) {
    let snapshot = |shift: u64| {
        let grains = (0..64).filter(|mib| mib % 4 == shift).flat_map(|mib| mib * 256..mib * 256 + 256);
        let grains = grains.map(|grain| (grain, Stored::Data(grain ^ shift))).collect();
        Snapshot { sectors: 1 << 17, grain_sectors: 8, grains, order: 1 }
    };
    let links = Links { base_sectors: 1 << 17, seed: 4, compressed: false, snapshots: vec![snapshot(0), snapshot(1)] };
    let files = links.files();
    (links, files)
}

#[test]
fn a_chain_of_three_is_read_in_three_rounds() {
    let (links, files) = large();
    let far = Far::new(&files, SourceHint::default());
    let (disk, _) = block_on(AsyncDisk::open(links.top(), &far, &OpenOptions::new()));
    let disk = disk.unwrap();
    // A descriptor and a data file for each link.
    assert_eq!(far.opens.load(Ordering::Relaxed), 6);
    let (requests, _, _) = far.counted();
    assert!(requests <= 10, "{requests} requests to open");

    let mut buf = vec![0; 64 << 20];
    let (read, polls) = block_on(disk.read_at(0, &mut buf));
    read.unwrap();
    let (requests, ranges, bytes) = far.counted();
    assert!(buf == links.content());
    // Directory pages of both snapshots, their tables, and the data of three files.
    assert_eq!((polls, requests), (4, 7));
    assert!(ranges <= 4 + 3 * 17, "{ranges} ranges");
    assert!(bytes < 100 << 20, "{bytes} bytes");

    // The tables are here now.
    let (read, polls) = block_on(disk.read_at(5 << 20, &mut buf[..4 << 20]));
    read.unwrap();
    assert_eq!((polls, far.counted().0), (2, 3));
    let (map, polls) = block_on(disk.map(0..u64::MAX));
    assert!(map.unwrap().len() > 60);
    assert_eq!((polls, far.counted().0), (1, 0));
}

#[test]
fn what_fails_in_one_way_fails_in_the_other() {
    let text = |extra: &str| format!("version=1\nCID=1\nparentCID=ffffffff\n{extra}\n").into_bytes();
    let file = |name: &str, bytes: Vec<u8>| (name.to_owned(), bytes);
    let cases = [
        vec![],
        vec![file("d.vmdk", text("RW 1 FLAT \"missing\" 0"))],
        vec![file("d.vmdk", text("RW 3 FLAT \"short\" 0")), file("short", vec![0; 1535])],
        vec![file("d.vmdk", text("RW 1 VMFSRDM \"x-rdm.vmdk\""))],
        vec![file("d.vmdk", text("RW 1 FLAT \"../x\" 0"))],
        vec![file("d.vmdk", text("RW 1 SPARSE \"d.vmdk\""))],
        vec![file("d.vmdk", Vec::new())],
        vec![file("d.vmdk", b"version=1\nCID=1\nparentCID=1\nparentFileNameHint=\"d.vmdk\"\nRW 1 ZERO\n".to_vec())],
        vec![
            file("d.vmdk", b"version=1\nCID=1\nparentCID=2\nparentFileNameHint=\"p.vmdk\"\nRW 1 ZERO\n".to_vec()),
            file("p.vmdk", text("RW 1 ZERO")),
        ],
    ];
    for files in cases {
        let far = Far::new(&files, SourceHint::default());
        let (remote, _) = block_on(AsyncDisk::open("d.vmdk", &far, &OpenOptions::new()));
        let named: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let local = Disk::open("d.vmdk", &OpenOptions::new().resolver(MemFiles::with(&named)));
        assert_eq!(remote.unwrap_err().to_string(), local.unwrap_err().to_string());
    }
}

#[test]
fn its_futures_can_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let files = [("d.img".to_owned(), vec![7; 1000])];
    let far = Far::new(&files, SourceHint::default());
    let options = OpenOptions::new().access(Access::ReadWrite);
    let disk = block_on(is_send(AsyncDisk::open("d.img", &far, &options))).0.unwrap();
    let mut buf = [0; 10];
    block_on(is_send(disk.read_at(990, &mut buf))).0.unwrap();
    assert_eq!(buf, [7; 10]);
    let error = block_on(is_send(disk.read_at(991, &mut buf))).0.unwrap_err();
    assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    assert_eq!(block_on(is_send(disk.map(0..10))).0.unwrap(), [MapEntry::new(0..10, MapKind::Data)]);
}
