//! The same bytes on any number of threads, and an end of all of them when something fails.

use std::{
    io::{self, Write},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use vmdk::{
    Cid, Error, Image, MapEntry, MapKind,
    stream::{Export, GrainOrder, Import, Progress, StreamReader, StreamSpec, StreamWriter, export, import},
};

use super::{ODD, compare};
use crate::support::{Random, holey, peer, run};

/// A disk in memory whose map has runs of 512 bytes and more, and whose calls can be made to be slow or to fail.
struct MemImage<F> {
    content: Mutex<Vec<u8>>,
    before_each: F,
}

impl MemImage<fn(u64) -> vmdk::Result<()>> {
    fn new(content: Vec<u8>) -> Self {
        Self { content: Mutex::new(content), before_each: |_| Ok(()) }
    }
}

impl<F: Fn(u64) -> vmdk::Result<()> + Send + Sync> Image for MemImage<F> {
    fn capacity(&self) -> u64 {
        self.content.lock().unwrap().len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> vmdk::Result<()> {
        (self.before_each)(offset)?;
        buf.copy_from_slice(&self.content.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }
    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = vmdk::Result<MapEntry>> + Send + '_> {
        let content = self.content.lock().unwrap();
        let mut entries: Vec<MapEntry> = Vec::new();
        for (sector, bytes) in content.chunks(512).enumerate() {
            let start = sector as u64 * 512;
            let end = start + bytes.len() as u64;
            let kind = if bytes.iter().all(|byte| *byte == 0) { MapKind::Unallocated } else { MapKind::Data };
            match entries.last_mut() {
                Some(last) if last.kind == kind => last.range.end = end,
                _ => entries.push(MapEntry::new(start..end, kind)),
            }
        }
        assert_eq!(range, 0..content.len() as u64, "streams ask for all");
        Box::new(entries.into_iter().map(Ok))
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> vmdk::Result<()> {
        (self.before_each)(offset)?;
        self.content.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
    fn zero_at(&self, range: Range<u64>) -> vmdk::Result<()> {
        self.content.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }
    fn flush(&self) -> vmdk::Result<()> {
        Ok(())
    }
    fn is_writable(&self) -> bool {
        true
    }
}

/// A delay that has nothing to do with the order of calls.
fn dawdle(calls: &AtomicU64) {
    let call = calls.fetch_add(1, Ordering::Relaxed);
    thread::sleep(Duration::from_micros(Random::new(call).below(1500)));
}

fn spec(capacity: usize) -> StreamSpec {
    StreamSpec::new(capacity as u64).cid(Cid(0x1234_5678))
}

/// Noise, text and holes.
fn mixed(len: usize, seed: u64) -> Vec<u8> {
    let mut content = holey(len, seed);
    for (at, byte) in content.iter_mut().enumerate().filter(|(at, _)| at / 200_000 % 3 == 0) {
        *byte = if *byte == 0 { 0 } else { b'a' + (*byte ^ at as u8) % 8 };
    }
    content
}

#[test]
fn an_export_is_the_same_on_any_number_of_threads() {
    let content = mixed(ODD, 61);
    let expected = Export::new(&spec(ODD)).threads(1).run(&MemImage::new(content.clone()), Vec::new()).unwrap();
    for threads in [2, 3, 8] {
        let calls = AtomicU64::new(threads as u64);
        let before_each = |_| {
            dawdle(&calls);
            Ok(())
        };
        let image = MemImage { content: Mutex::new(content.clone()), before_each };
        let stream = Export::new(&spec(ODD)).threads(threads).run(&image, Vec::new()).unwrap();
        assert!(stream == expected, "{threads} threads");
    }
    // Neither does it matter who reads the disk, nor in which pieces.
    let mut random = Random::new(62);
    for threads in [1, 2, 3, 8] {
        let mut writer = StreamWriter::new(Vec::new(), &spec(ODD)).unwrap().threads(threads).unwrap();
        let mut at = 0;
        while at < content.len() {
            let len = (1 + random.below(700_000) as usize).min(content.len() - at);
            writer.write_at(at as u64, &content[at..at + len]).unwrap();
            at += len;
        }
        assert!(writer.finish().unwrap() == expected, "{threads} threads of a writer");
    }
}

#[test]
fn an_import_is_the_same_on_any_number_of_threads() {
    let content = mixed(ODD, 63);
    let stream = export(&MemImage::new(content.clone()), Vec::new(), &spec(ODD)).unwrap();
    for threads in [1, 2, 3, 8] {
        for order in [GrainOrder::Ascending, GrainOrder::Any] {
            let calls = AtomicU64::new(threads as u64);
            let before_each = |_| {
                dawdle(&calls);
                Ok(())
            };
            let target = MemImage { content: Mutex::new(vec![0xee; ODD]), before_each };
            let mut reader = StreamReader::open_ordered(stream.as_slice(), "stream", order).unwrap();
            Import::new().threads(threads).run(&mut reader, &target).unwrap();
            assert!(*target.content.lock().unwrap() == content, "{threads} threads, {order:?}");
        }
    }
}

#[test]
fn progress_says_how_much_of_disk_and_stream_is_done() {
    let image = MemImage::new(mixed(ODD, 64));
    let mut steps: Vec<Progress> = Vec::new();
    let stream = Export::new(&spec(ODD)).on_progress(&mut |step| steps.push(step)).run(&image, Vec::new()).unwrap();
    assert!(steps.len() > 10);
    assert!(steps.is_sorted_by(|a, b| a.disk <= b.disk && a.stream < b.stream));
    let last = steps.last().unwrap();
    assert_eq!((last.disk, last.stream), (ODD as u64, stream.len() as u64));
    let mut steps: Vec<Progress> = Vec::new();
    let mut reader = StreamReader::open(stream.as_slice(), "stream").unwrap();
    Import::new().on_progress(&mut |step| steps.push(step)).run(&mut reader, &image).unwrap();
    assert!(steps.len() > 10 && steps.is_sorted_by(|a, b| a.disk < b.disk && a.stream < b.stream));
}

#[test]
fn an_image_that_fails_ends_all_with_its_error() {
    for threads in [1, 2, 8] {
        let calls = AtomicU64::new(0);
        let before_each = |offset| {
            calls.fetch_add(1, Ordering::Relaxed);
            let failed = Error::io("read", "bad", Some(offset), io::ErrorKind::TimedOut.into());
            if offset >= 5 << 20 { Err(failed) } else { Ok(()) }
        };
        let image = MemImage { content: Mutex::new(vec![7; ODD]), before_each };
        let outcome = Export::new(&spec(ODD)).threads(threads).run(&image, Vec::new());
        // The first of the disk, not the first in time.
        assert!(matches!(outcome, Err(Error::Io { offset: Some(5_242_880), .. })), "{outcome:?}");
        assert!(calls.load(Ordering::Relaxed) <= 10 + 3 * 8, "no more than the window was read");
        let stream = export(&MemImage::new(vec![7; ODD]), Vec::new(), &spec(ODD)).unwrap();
        let mut reader = StreamReader::open(stream.as_slice(), "stream").unwrap();
        let outcome = Import::new().threads(threads).run(&mut reader, &image);
        assert!(matches!(outcome, Err(Error::Io { offset: Some(5_242_880), .. })), "{outcome:?}");
    }
}

#[test]
fn a_flag_ends_both_ways() {
    let cancel = AtomicBool::new(false);
    let image = MemImage::new(vec![7; ODD]);
    let mut stop = |step: Progress| cancel.store(step.disk > 4 << 20, Ordering::Release);
    let outcome = Export::new(&spec(ODD)).threads(3).cancel(&cancel).on_progress(&mut stop).run(&image, Vec::new());
    assert!(matches!(outcome, Err(Error::Cancelled { operation: "export" })));
    let stream = export(&image, Vec::new(), &spec(ODD)).unwrap();
    let mut reader = StreamReader::open(stream.as_slice(), "stream").unwrap();
    let outcome = Import::new().cancel(&cancel).run(&mut reader, &image);
    assert!(matches!(outcome, Err(Error::Cancelled { operation: "import" })));
}

#[test]
fn a_panic_of_the_image_is_the_callers() {
    for threads in [1, 2, 8] {
        let before_each = |offset: u64| if offset >= 3 << 20 { panic!("image") } else { Ok(()) };
        let image = MemImage { content: Mutex::new(vec![7; ODD]), before_each };
        let run = AssertUnwindSafe(|| Export::new(&spec(ODD)).threads(threads).run(&image, Vec::new()));
        assert_eq!(catch_unwind(run).unwrap_err().downcast_ref::<&str>(), Some(&"image"));
    }
}

/// Takes so many bytes, then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_ends_all_with_its_error() {
    let image = MemImage::new(holey(ODD, 65));
    for room in [0, 65536, 5 << 20] {
        for threads in [1, 2, 8] {
            let outcome = Export::new(&spec(ODD)).threads(threads).run(&image, Full(room));
            assert!(matches!(outcome, Err(Error::Io { operation: "write", .. })));
        }
    }
    let mut writer = StreamWriter::new(Full(5 << 20), &spec(ODD)).unwrap().threads(3).unwrap();
    let content = holey(ODD, 65);
    let outcome =
        content.chunks(100_000).enumerate().try_for_each(|(at, data)| writer.write_at(at as u64 * 100_000, data));
    assert!(matches!(outcome, Err(Error::Io { operation: "write", .. })));
}

#[test]
fn a_damaged_grain_is_named_by_whatever_thread_meets_it() {
    let mut stream = export(&MemImage::new(vec![7; ODD]), Vec::new(), &spec(ODD)).unwrap();
    // The checksum of a grain; all grains are alike, of one sector each.
    let marker = 65536 + 100 * 512;
    let checksum = marker + 12 + usize::from(stream[marker + 8]) - 1;
    stream[checksum] ^= 0x40;
    for threads in [1, 2, 8] {
        let mut reader = StreamReader::open(stream.as_slice(), "stream").unwrap();
        let outcome = Import::new().threads(threads).run(&mut reader, &MemImage::new(vec![0; ODD]));
        let Err(Error::Malformed { problem, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(problem.contains(&format!("sector {}", 100 * 128)), "{problem}");
    }
}

#[test]
fn grains_of_other_sizes_are_read_by_us_and_by_qemu_img() {
    let len = 5 << 20;
    let content = mixed(len, 66);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("raw"), &content).unwrap();
    for grain in [8 << 10, 32 << 10, 256 << 10, 1 << 20] {
        let stream = export(&MemImage::new(content.clone()), Vec::new(), &spec(len).grain_bytes(grain)).unwrap();
        let target = MemImage::new(vec![0xee; len]);
        import(&mut StreamReader::open(stream.as_slice(), "stream").unwrap(), &target).unwrap();
        let read = target.content.lock().unwrap().clone();
        let wrong = read.iter().zip(&content).position(|(read, written)| read != written);
        assert_eq!(wrong, None, "first wrong byte with grains of {grain} bytes");
        if peer("qemu-img") {
            std::fs::write(dir.path().join("stream.vmdk"), &stream).unwrap();
            run("qemu-img", dir.path(), &["check", "-f", "vmdk", "stream.vmdk"]);
            compare(dir.path(), "stream.vmdk");
        }
    }
    for grain in [0, 4096, 65535, 2 << 20] {
        let refused = StreamWriter::new(Vec::new(), &spec(len).grain_bytes(grain));
        assert!(matches!(refused, Err(Error::InvalidInput { what: "grain size", .. })));
    }
}

/// Fails once, and then goes on as if nothing had been.
struct Hiccup(Vec<u8>, usize);

impl Write for Hiccup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 = self.1.wrapping_sub(1);
        if self.1 == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_that_lost_a_piece_is_never_finished() {
    let content = holey(ODD, 66);
    for threads in [1, 3] {
        for fails_at in [2, 3, 5] {
            let sink = Hiccup(Vec::new(), fails_at);
            let mut writer = StreamWriter::new(sink, &spec(ODD)).unwrap().threads(threads).unwrap();
            // A caller that looks at no error but the last.
            for (at, data) in content.chunks(100_000).enumerate() {
                let _ = writer.write_at(at as u64 * 100_000, data);
            }
            let outcome = writer.finish().map(|sink| sink.0.len());
            assert!(matches!(outcome, Err(Error::Io { operation: "write", .. })), "{threads} {fails_at} {outcome:?}");
        }
    }
}
