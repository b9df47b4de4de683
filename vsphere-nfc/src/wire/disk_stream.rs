//! Disk streams: what the [frames](super::frames) of a disk hold.
//!
//! Every frame is either metadata, which are entries of the disk database, or runs of sectors. The
//! runs cover the disk from its first sector to its last without a gap; those of zeros have no
//! bytes.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frames::{HEAD_LEN, MAX_DISK_LEN, head};
use super::{WireError, put_u32, u32_at};

/// Bytes of a sector, whatever the disk says of itself.
pub const SECTOR: u64 = 512;
/// In front of every frame.
const FRAME_MAGIC: u32 = 0x8765_4321;
/// In front of every run.
const RUN_MAGIC: u32 = 0x1234_5678;
/// In front of every entry of the disk database.
const ENTRY_MAGIC: u32 = 0xDEAD_BEEF;
/// The most sectors of a run.
pub const MAX_RUN: u16 = 0x7FFF;
/// A run has bytes.
const DATA_BIT: u32 = 0x8000;

const FRAME_HEADER_LEN: usize = 8;
const RUN_HEADER_LEN: usize = 8;
const ENTRY_HEADER_LEN: usize = 12;
const SECTOR_LEN: usize = 512;

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Entries of the disk database: keys without `ddb.`, and values.
    Metadata(Vec<(String, String)>),
    /// Bytes from `offset`, whole sectors.
    Data {
        /// Where they lie on the disk.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Zeros.
    Zeros(Range<u64>),
}

/// Reads the frames of a disk.
#[derive(Debug)]
pub struct Reader {
    capacity: u64,
    position: u64,
}

impl Reader {
    /// A reader of a disk of `capacity` bytes.
    ///
    /// # Errors
    /// When the capacity is not in sectors.
    pub fn new(capacity: u64) -> Result<Self, WireError> {
        if !capacity.is_multiple_of(SECTOR) {
            return Err(WireError::field("the capacity of a disk", capacity));
        }
        Ok(Self { capacity, position: 0 })
    }

    /// What the frame holds; neighbouring runs of a kind are joined.
    ///
    /// # Errors
    /// When the frame does not follow the protocol, or goes beyond the capacity.
    pub fn frame(&mut self, mut frame: Bytes) -> Result<Vec<Part>, WireError> {
        let header = take(&mut frame, FRAME_HEADER_LEN, "a frame of a disk has no header")?;
        if u32_at(&header, 0) != FRAME_MAGIC {
            return Err(WireError::field("the magic number of a frame of a disk", u32_at(&header, 0)));
        }
        if u32_at(&header, 4) != 0 {
            return Ok(vec![Part::Metadata(entries(frame)?)]);
        }
        let mut parts = Vec::new();
        let mut open = Open::default();
        while !frame.is_empty() {
            let header = take(&mut frame, RUN_HEADER_LEN, "a run header is cut off")?;
            if u32_at(&header, 0) != RUN_MAGIC {
                return Err(WireError::field("the magic number of a run", u32_at(&header, 0)));
            }
            let run = u32_at(&header, 4);
            let sectors = run & !DATA_BIT;
            if sectors == 0 || sectors > u32::from(MAX_RUN) {
                return Err(WireError::field("the length of a run", run));
            }
            let len = u64::from(sectors) * SECTOR;
            let end = self.position.saturating_add(len);
            if end > self.capacity {
                return Err(WireError::field("the end of a run beyond the disk", end));
            }
            if run & DATA_BIT == 0 {
                open.close(&mut parts);
                match parts.last_mut() {
                    Some(Part::Zeros(zeros)) => zeros.end = end,
                    _ => parts.push(Part::Zeros(self.position..end)),
                }
            } else {
                // Below 2^24.
                let bytes = take(&mut frame, len as usize, "the bytes of a run are cut off")?;
                open.push(self.position, bytes);
            }
            self.position = end;
        }
        open.close(&mut parts);
        Ok(parts)
    }

    /// How much of the disk has been read, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether all of it has.
    pub fn is_complete(&self) -> bool {
        self.position == self.capacity
    }
}

/// Runs of data that are not yet a part. Only where there are several are their bytes moved.
#[derive(Default)]
struct Open {
    offset: u64,
    first: Bytes,
    joined: BytesMut,
}

impl Open {
    fn push(&mut self, offset: u64, bytes: Bytes) {
        if self.first.is_empty() {
            (self.offset, self.first) = (offset, bytes);
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(MAX_DISK_LEN);
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&bytes);
    }

    fn close(&mut self, parts: &mut Vec<Part>) {
        let Self { offset, first, joined } = std::mem::take(self);
        if !first.is_empty() {
            let bytes = if joined.is_empty() { first } else { joined.freeze() };
            parts.push(Part::Data { offset, bytes });
        }
    }
}

fn take(frame: &mut Bytes, len: usize, otherwise: &'static str) -> Result<Bytes, WireError> {
    if frame.len() < len {
        return Err(WireError::Malformed(otherwise));
    }
    Ok(frame.split_to(len))
}

/// The entries of a metadata frame, up to one without a key or the end of the frame.
fn entries(mut frame: Bytes) -> Result<Vec<(String, String)>, WireError> {
    let mut entries = Vec::new();
    while !frame.is_empty() {
        let header = take(&mut frame, ENTRY_HEADER_LEN, "an entry of the disk database is cut off")?;
        if u32_at(&header, 0) != ENTRY_MAGIC {
            return Err(WireError::field("the magic number of an entry", u32_at(&header, 0)));
        }
        let mut text = |at| {
            // Longer than a frame is cut off in any case.
            let len = usize::try_from(u32_at(&header, at)).unwrap_or(usize::MAX);
            let bytes = take(&mut frame, len, "the text of an entry is cut off")?;
            Ok(super::classic_file::path_text(&bytes))
        };
        let (key, value) = (text(4)?, text(8)?);
        if key.is_empty() {
            break;
        }
        entries.push((key, value));
    }
    Ok(entries)
}

/// A whole frame, with what stands in front of it, that holds `entries`.
///
/// # Errors
/// When they do not fit into a frame, a key is empty, or a text has a control character.
pub fn metadata_frame(entries: &[(String, String)]) -> Result<Bytes, WireError> {
    let mut frame = empty_frame(1);
    for (key, value) in entries {
        // The host writes them into a file of lines.
        if key.is_empty() || key.chars().chain(value.chars()).any(char::is_control) {
            return Err(WireError::Malformed("a key must not be empty, and no text may have a control character"));
        }
        // Whatever does not fit into a u32 does not fit into a frame.
        let len = |text: &str| u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
        for word in [ENTRY_MAGIC, len(key), len(value)] {
            frame.put_u32_le(word);
        }
        for text in [key, value] {
            frame.put_slice(text.as_bytes());
            frame.put_u8(0);
        }
    }
    for word in [ENTRY_MAGIC, 0, 0] {
        frame.put_u32_le(word);
    }
    if frame.len() - HEAD_LEN > MAX_DISK_LEN {
        return Err(WireError::Malformed("the entries of the disk database do not fit into a frame"));
    }
    Ok(finished(frame))
}

/// A frame without runs or entries, and with room in front for its length.
fn empty_frame(metadata: u32) -> BytesMut {
    let mut frame = BytesMut::with_capacity(if metadata == 0 { HEAD_LEN + MAX_DISK_LEN } else { 4096 });
    frame.put_bytes(0, HEAD_LEN);
    frame.put_u32_le(FRAME_MAGIC);
    frame.put_u32_le(metadata);
    frame
}

fn finished(mut frame: BytesMut) -> Bytes {
    // At most 256 KiB.
    let len = u32::try_from(frame.len() - HEAD_LEN).unwrap_or(u32::MAX);
    frame[..HEAD_LEN].copy_from_slice(&head(len));
    frame.freeze()
}

/// Writes the frames of a disk: runs one after the other, in the order they are given.
#[derive(Debug)]
pub struct Writer {
    frame: BytesMut,
    run_sectors: u16,
}

impl Writer {
    /// A writer whose runs of data have at most `run_sectors` sectors.
    pub fn new(run_sectors: u16) -> Self {
        Self { frame: empty_frame(0), run_sectors: run_sectors.clamp(1, MAX_RUN) }
    }

    /// Takes whole sectors from the front of `data`, up to all; returns a frame when it is full.
    pub fn data(&mut self, data: &mut Bytes) -> Option<Bytes> {
        while data.len() >= SECTOR_LEN {
            let fits = self.room().saturating_sub(RUN_HEADER_LEN) / SECTOR_LEN;
            if fits == 0 {
                return Some(self.full());
            }
            let sectors = fits.min(data.len() / SECTOR_LEN).min(self.run_sectors.into());
            let len = sectors * SECTOR_LEN;
            // At most MAX_RUN.
            self.run(DATA_BIT | sectors as u32);
            self.frame.put_slice(&data[..len]);
            data.advance(len);
        }
        None
    }

    /// Takes whole sectors of zeros off `len`, up to all; returns a frame when it is full.
    pub fn zeros(&mut self, len: &mut u64) -> Option<Bytes> {
        while *len >= SECTOR {
            if self.room() < RUN_HEADER_LEN {
                return Some(self.full());
            }
            let sectors = (*len / SECTOR).min(MAX_RUN.into());
            self.run(sectors as u32);
            *len -= sectors * SECTOR;
        }
        None
    }

    /// The last frame, unless nothing is left.
    pub fn finish(self) -> Option<Bytes> {
        (self.frame.len() > HEAD_LEN + FRAME_HEADER_LEN).then(|| finished(self.frame))
    }

    fn room(&self) -> usize {
        HEAD_LEN + MAX_DISK_LEN - self.frame.len()
    }

    fn full(&mut self) -> Bytes {
        finished(std::mem::replace(&mut self.frame, empty_frame(0)))
    }

    fn run(&mut self, count: u32) {
        let mut header = [0; RUN_HEADER_LEN];
        put_u32(&mut header, 0, RUN_MAGIC);
        put_u32(&mut header, 4, count);
        self.frame.put_slice(&header);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frames::{Decoder, Incoming};
    use super::super::hex;
    use super::*;

    fn entry(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    /// The annotated example E17.
    #[test]
    fn runs_of_zeros_and_data_decode_and_encode() {
        let text =
            format!("21436587 00000000 78563412 00080000 78563412 02800000 {} 78563412 ff7f0000", "11".repeat(1024));
        let content = hex(&text);
        assert_eq!(content.len(), 0x420);
        let mut reader = Reader::new((2048 + 2 + 32767) * 512).unwrap();
        let parts = reader.frame(content.clone().into()).unwrap();
        let data = Bytes::from(vec![0x11; 1024]);
        let (start, end) = (2048 * 512, 2050 * 512);
        let expected = [
            Part::Zeros(0..start),
            Part::Data { offset: start, bytes: data.clone() },
            Part::Zeros(end..end + 32767 * 512),
        ];
        assert_eq!(parts, expected);
        assert!(reader.is_complete());
        let mut writer = Writer::new(MAX_RUN);
        assert_eq!(writer.zeros(&mut (2048 * 512)), None);
        assert_eq!(writer.data(&mut data.clone()), None);
        assert_eq!(writer.zeros(&mut (32767 * 512)), None);
        assert_eq!(writer.finish().unwrap()[HEAD_LEN..], content);
    }

    /// The annotated example E18.
    #[test]
    fn entry_of_the_disk_database_decodes_and_encodes() {
        let content = hex("21436587 01000000 efbeadde 0c000000 09000000 616461707465725479706500
            6c73696c6f67696300 efbeadde 0000000000000000");
        assert_eq!(content.len(), 0x35);
        let entries = vec![entry("adapterType", "lsilogic")];
        let parts = Reader::new(512).unwrap().frame(content.clone().into()).unwrap();
        assert_eq!(parts, [Part::Metadata(entries.clone())]);
        assert_eq!(metadata_frame(&entries).unwrap()[HEAD_LEN..], content);
        // The end of the frame ends the list as well.
        let parts = Reader::new(512).unwrap().frame(content[..content.len() - 12].to_vec().into()).unwrap();
        assert_eq!(parts, [Part::Metadata(entries)]);
    }

    #[test]
    fn illegal_frames_are_refused() {
        let sector = "22".repeat(512);
        for (what, content) in [
            ("nothing", String::new()),
            ("magic", "21436586 00000000".into()),
            ("run magic", "21436587 00000000 78563413 01000000".into()),
            ("empty run", "21436587 00000000 78563412 00000000".into()),
            ("empty data run", "21436587 00000000 78563412 00800000".into()),
            ("long run", "21436587 00000000 78563412 01000100".into()),
            ("beyond the disk", "21436587 00000000 78563412 05000000".into()),
            ("data beyond the disk", format!("21436587 00000000 78563412 03000000 78563412 02800000 {sector}{sector}")),
            ("half a header", "21436587 00000000 78563412".into()),
            ("run across the frame", format!("21436587 00000000 78563412 02800000 {sector}")),
            ("key across the frame", "21436587 01000000 efbeadde ff000000 01000000 61".into()),
            ("huge value", "21436587 01000000 efbeadde 02000000 ffffffff 6100".into()),
            ("entry magic", "21436587 01000000 efbeadd0 00000000 00000000".into()),
        ] {
            assert!(Reader::new(4 * 512).unwrap().frame(hex(&content).into()).is_err(), "{what}");
        }
        assert!(Reader::new(513).is_err());
    }

    #[test]
    fn entries_that_a_frame_cannot_hold_are_refused() {
        assert!(metadata_frame(&[entry("", "x")]).is_err());
        for text in ["b\0c", "b\nRW 1 FLAT \"/etc/shadow\" 0", "b\rc"] {
            assert!(metadata_frame(&[entry("a", text)]).is_err(), "{text:?}");
            assert!(metadata_frame(&[entry(text, "a")]).is_err(), "{text:?}");
        }
        assert!(metadata_frame(&[entry("a", &"x".repeat(MAX_DISK_LEN))]).is_err());
        let frame = metadata_frame(&[]).unwrap();
        assert_eq!(Reader::new(0).unwrap().frame(frame.slice(HEAD_LEN..)).unwrap(), [Part::Metadata(Vec::new())]);
    }

    #[test]
    fn runs_of_one_sector_are_joined_again() {
        let data = Bytes::from((0..2000 * 512u32).map(|at| (at / 512 % 251) as u8).collect::<Vec<_>>());
        let mut writer = Writer::new(1);
        let mut rest = data.clone();
        let mut frames: Vec<Bytes> = std::iter::from_fn(|| writer.data(&mut rest)).collect();
        frames.extend(writer.finish());
        assert_eq!(frames.len(), 4);
        let mut reader = Reader::new(data.len() as u64).unwrap();
        let mut all = Vec::new();
        for frame in frames {
            assert!(frame.len() <= 256 * 1024);
            let parts = reader.frame(frame.slice(HEAD_LEN..)).unwrap();
            let [Part::Data { offset, bytes }] = parts.as_slice() else { panic!("{} parts", parts.len()) };
            assert_eq!(*offset, all.len() as u64);
            all.extend_from_slice(bytes);
        }
        assert!(all == data);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(runs in prop::collection::vec((any::<bool>(), 1u64..70_000), 0..8), most: u16) {
            let mut writer = Writer::new(most);
            // The byte that every sector is full of.
            let mut sectors = Vec::new();
            let mut stream = BytesMut::new();
            for (is_data, len) in runs {
                let (len, fill) = if is_data { (len % 1500, 1 + (len % 200) as u8) } else { (len, 0) };
                sectors.resize(sectors.len() + len as usize, fill);
                let mut zeros = len * SECTOR;
                let mut data = Bytes::from(vec![fill; if is_data { zeros as usize } else { 0 }]);
                let mut next = || if is_data { writer.data(&mut data) } else { writer.zeros(&mut zeros) };
                while let Some(frame) = next() {
                    stream.extend_from_slice(&frame);
                }
            }
            stream.extend(writer.finish().into_iter().flatten());
            let mut reader = Reader::new(sectors.len() as u64 * SECTOR).unwrap();
            let mut decoder = Decoder::default();
            while let Some(incoming) = decoder.next(&mut stream).unwrap() {
                let Incoming::Frame(frame) = incoming else { panic!("{incoming:?}") };
                prop_assert!(frame.len() <= MAX_DISK_LEN);
                for part in reader.frame(frame).unwrap() {
                    let (offset, bytes) = match part {
                        Part::Data { offset, bytes } => (offset, bytes),
                        Part::Zeros(range) => {
                            let range = (range.start / SECTOR) as usize..(range.end / SECTOR) as usize;
                            prop_assert!(sectors[range].iter().all(|fill| *fill == 0));
                            continue;
                        }
                        Part::Metadata(_) => panic!("metadata"),
                    };
                    for (sector, fill) in bytes.chunks(SECTOR_LEN).zip(&sectors[(offset / SECTOR) as usize..]) {
                        prop_assert!(sector == [*fill; SECTOR_LEN]);
                    }
                }
            }
            prop_assert!(reader.is_complete());
        }

        #[test]
        fn any_frame_gives_a_value_or_an_error(bytes: Vec<u8>, metadata in 0u32..2, run: u32) {
            let header = [FRAME_MAGIC, metadata, if metadata == 0 { RUN_MAGIC } else { ENTRY_MAGIC }, run];
            let frame: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).chain(bytes).collect();
            let _ = Reader::new(1 << 30).unwrap().frame(frame.into());
        }
    }
}
