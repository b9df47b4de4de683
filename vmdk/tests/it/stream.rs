//! `streamOptimized`: our writer and reader against each other, qemu-img and damage.

#[cfg(feature = "async")]
mod asynchronous;
mod damage;
mod foreign;
mod parallel;

use std::{fs, io, path::Path};

use proptest::prelude::*;
use vmdk::{
    CreateKind, CreateSpec, Disk, Error, Image, OpenOptions, SECTOR, create,
    stream::{StreamDecoder, StreamEnd, StreamReader, StreamSpec, StreamWriter, export, import},
};

use crate::support::{Random, content, holey, peer, run};

/// Two tables, the last grain short.
const ODD: usize = 36 * 1024 * 1024 + 3 * 65536 + 5 * 512;

fn stream_of(content: &[u8]) -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(content.len() as u64)).unwrap();
    let mut random = Random::new(5);
    let mut at = 0;
    while at < content.len() {
        let len = (1 + random.below(150_000) as usize).min(content.len() - at);
        writer.write_at(at as u64, &content[at..at + len]).unwrap();
        at += len;
    }
    writer.finish().unwrap()
}

/// Reads a stream to its end.
fn decoded(stream: impl io::Read) -> vmdk::Result<(Vec<u8>, StreamEnd)> {
    let mut reader = StreamReader::open(stream, "test")?;
    let mut content = vec![0; reader.capacity() as usize];
    while let Some(grain) = reader.next_grain()? {
        content[grain.offset as usize..grain.offset as usize + grain.data.len()].copy_from_slice(grain.data);
    }
    Ok((content, reader.end().unwrap()))
}

/// Gives one to three bytes at a time.
struct Drip<'a>(&'a [u8], usize);

impl io::Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        let len = (self.1 % 3 + 1).min(self.0.len()).min(buf.len());
        let (now, rest) = self.0.split_at(len);
        buf[..len].copy_from_slice(now);
        self.0 = rest;
        Ok(len)
    }
}

#[test]
fn what_is_written_is_read_whatever_the_pieces() {
    let disk = holey(ODD, 3);
    let stream = stream_of(&disk);
    assert!(stream.len() < disk.len());
    let (read, end) = decoded(stream.as_slice()).unwrap();
    assert!(read == disk);
    assert_eq!(end, StreamEnd::Marked);
    let small = holey(300 * 512, 4);
    let stream = stream_of(&small);
    assert!(decoded(Drip(&stream, 0)).unwrap().0 == small);
}

#[test]
fn the_same_disk_gives_the_same_stream_but_for_its_content_id() {
    let descriptor =
        vmdk::Descriptor::parse(b"# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\n").unwrap();
    let make = || {
        let spec = StreamSpec::new(1 << 20).descriptor(descriptor.clone());
        let mut writer = StreamWriter::new(Vec::new(), &spec).unwrap();
        writer.write_at(70_000, &holey(500_000, 9)).unwrap();
        writer.finish().unwrap()
    };
    assert!(make() == make());
    let stream = make();
    let reader = StreamReader::open(stream.as_slice(), "x").unwrap();
    let text = reader.descriptor().unwrap().to_string();
    assert!(text.contains("0badcafe") && text.contains("streamOptimized"), "{text}");
}

#[test]
fn qemu_img_reads_what_is_streamed() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (len, seed) in [(ODD, 11), (512, 12), (65536, 13), (32 << 20, 14)] {
        let disk = holey(len, seed);
        fs::write(dir.path().join("raw"), &disk).unwrap();
        fs::write(dir.path().join("stream.vmdk"), stream_of(&disk)).unwrap();
        compare(dir.path(), "stream.vmdk");
        run("qemu-img", dir.path(), &["check", "-f", "vmdk", "stream.vmdk"]);
        run("qemu-img", dir.path(), &["convert", "-f", "vmdk", "-O", "raw", "stream.vmdk", "back"]);
        assert!(fs::read(dir.path().join("back")).unwrap() == disk);
    }
    // A disk of zeros has no grains at all.
    fs::write(dir.path().join("raw"), vec![0; 1 << 20]).unwrap();
    fs::write(dir.path().join("stream.vmdk"), stream_of(&vec![0; 1 << 20])).unwrap();
    compare(dir.path(), "stream.vmdk");
}

#[test]
fn reads_forward_what_qemu_img_writes() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = holey(ODD, 21);
    fs::write(dir.path().join("raw"), &disk).unwrap();
    let option = "subformat=streamOptimized";
    run("qemu-img", dir.path(), &["convert", "-f", "raw", "-O", "vmdk", "-o", option, "raw", "stream.vmdk"]);
    let stream = fs::read(dir.path().join("stream.vmdk")).unwrap();
    let (read, end) = decoded(stream.as_slice()).unwrap();
    assert!(read == disk);
    assert_eq!(end, StreamEnd::Marked);
    // Its directory lies in front, so it may also end without the marker.
    let data_end = stream.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (read, end) = decoded(&stream[..data_end.next_multiple_of(512)]).unwrap();
    assert!(read == disk);
    assert_eq!(end, StreamEnd::Unmarked);
}

#[test]
fn disks_go_out_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = holey(ODD, 31);
    let source = create(dir.path().join("a.vmdk"), &CreateSpec::new(ODD as u64, CreateKind::MonolithicSparse)).unwrap();
    source.write_at(0, &disk).unwrap();
    let stream = export(&source, Vec::new(), &StreamSpec::new(ODD as u64)).unwrap();
    let target = create(dir.path().join("b.vmdk"), &CreateSpec::new(ODD as u64, CreateKind::MonolithicSparse)).unwrap();
    // Old bytes must not shine through where the stream has nothing.
    target.write_at(0, &vec![0xee; ODD]).unwrap();
    let mut reader = StreamReader::open(stream.as_slice(), "stream").unwrap();
    assert_eq!(import(&mut reader, &target as &dyn Image).unwrap(), StreamEnd::Marked);
    target.close().unwrap();
    let target = Disk::open(dir.path().join("b.vmdk"), &OpenOptions::new()).unwrap();
    assert!(content(&target) == disk);
    let small = create(dir.path().join("c.vmdk"), &CreateSpec::new(SECTOR, CreateKind::MonolithicSparse)).unwrap();
    let mut reader = StreamReader::open(stream.as_slice(), "stream").unwrap();
    assert!(matches!(import(&mut reader, &small as &dyn Image), Err(Error::InvalidInput { .. })));
}

#[test]
fn a_stream_cut_anywhere_is_an_error() {
    let stream = stream_of(&holey(5 * 65536, 41));
    // The end marker is the last sector; its first 16 bytes say all.
    for len in (0..stream.len() - 512).step_by(97) {
        let outcome = decoded(&stream[..len]);
        assert!(matches!(outcome, Err(Error::Malformed { .. })), "{len}: {:?}", outcome.map(|(_, end)| end));
    }
    assert!(decoded(&stream[..stream.len() - 496]).is_ok());
}

#[test]
fn a_writer_cannot_go_back_or_out() {
    let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(1 << 20)).unwrap();
    writer.write_at(1000, &[1; 100]).unwrap();
    assert!(matches!(writer.write_at(1099, &[1]), Err(Error::InvalidInput { .. })));
    assert!(matches!(writer.write_at(1 << 20, &[1]), Err(Error::OutOfRange { .. })));
    assert!(matches!(writer.write_at(u64::MAX, &[1, 2]), Err(Error::OutOfRange { .. })));
    writer.write_at(1100, &[2; 10]).unwrap();
    assert!(StreamWriter::new(Vec::new(), &StreamSpec::new(511)).is_err());
    assert!(StreamWriter::new(Vec::new(), &StreamSpec::new(u64::MAX - 511)).is_err());
}

#[test]
fn a_disk_of_62_tib_needs_little_memory_and_few_bytes() {
    let capacity = 62_u64 << 40;
    let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(capacity)).unwrap();
    writer.write_at(1 << 40, b"one").unwrap();
    writer.write_at(capacity - 3, b"end").unwrap();
    let stream = writer.finish().unwrap();
    assert!(stream.len() < 9 << 20, "{}", stream.len());
    let mut reader = StreamReader::open(stream.as_slice(), "large").unwrap();
    let first = reader.next_grain().unwrap().unwrap();
    assert_eq!((first.offset, &first.data[..3]), (1 << 40, &b"one"[..]));
    let last = reader.next_grain().unwrap().unwrap();
    assert_eq!((last.offset + last.data.len() as u64, &last.data[last.data.len() - 3..]), (capacity, &b"end"[..]));
    assert!(reader.next_grain().unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damage_never_panics_and_never_grows(flips in prop::collection::vec((0..80_000_usize, any::<u8>()), 1..8), cut in 0..80_000_usize) {
        let mut stream = stream_of(&holey(4 * 65536, 51));
        for (at, value) in flips {
            let len = stream.len();
            stream[at % len] = value;
        }
        stream.truncate(cut.max(1));
        let mut decoder = StreamDecoder::new("damaged");
        'all: for piece in stream.chunks(4096) {
            decoder.feed(piece);
            loop {
                match decoder.next_grain() {
                    Ok(Some(grain)) => prop_assert!(grain.data.len() <= 32 << 20),
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
    }
}

fn compare(dir: &Path, file: &str) {
    let text = run("qemu-img", dir, &["compare", "-f", "raw", "-F", "vmdk", "raw", file]);
    assert!(text.contains("identical"), "{text}");
}
