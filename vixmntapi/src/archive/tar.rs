//! tar as POSIX.1-2001 has it: ustar headers, and pax records for what does not fit them.
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>

use std::{collections::HashMap, io::Write, ops::Range, sync::Arc};

use super::{Format, Item, Sink, Stop, Work};
use crate::{
    error::Result,
    fs::{Content, FileKind, FileName, NodeId, Timestamp, spans},
};

pub(super) struct Tar<W> {
    out: Sink<W>,
    sparse: bool,
    /// The first paths of files with several names.
    put: HashMap<NodeId, FileName>,
    buffer: Vec<u8>,
}

impl<W: Write> Tar<W> {
    pub(super) fn new(out: Sink<W>, sparse: bool) -> Self {
        Self { out, sparse, put: HashMap::new(), buffer: Vec::new() }
    }

    fn header(&mut self, header: &Header<'_>, item: &Item<'_>, records: &Records) -> Result<()> {
        if !records.0.is_empty() {
            let name = b"PaxHeaders/entry";
            let pax = Header { kind: b'x', name, target: b"", size: records.0.len() as u64, device: None };
            self.out.put(&pax.block(0o644, 0, 0, 0))?;
            self.out.put(&records.0)?;
            self.out.align(BLOCK)?;
        }
        let metadata = item.metadata;
        self.out.put(&header.block(metadata.mode, metadata.uid, metadata.gid, metadata.times.modified.seconds))
    }

    fn file(
        &mut self,
        content: &Arc<dyn Content>,
        item: &Item<'_>,
        path: &[u8],
        mut records: Records,
        work: &mut Work<'_>,
    ) -> Result<(), Stop> {
        let size = content.size();
        let map = if self.sparse { data(content).map_err(Stop::Entry)? } else { None };
        let Some(map) = map else {
            records.number("size", size, MAX_SIZE);
            let header = Header { kind: b'0', name: path, target: b"", size, device: None };
            self.header(&header, item, &records).map_err(Stop::All)?;
            let Self { out, buffer, .. } = self;
            work.pack(|told| {
                spans::for_each_bytes(content, buffer, |bytes| {
                    out.put(bytes)?;
                    told(bytes.len() as u64)
                })
            })?;
            return self.out.align(BLOCK).map_err(Stop::All);
        };
        // <https://www.gnu.org/software/tar/manual/html_node/PAX-1.html>
        let mut text = format!("{}\n", map.len());
        map.iter().for_each(|range| text.push_str(&format!("{}\n{}\n", range.start, range.end - range.start)));
        let mut text = text.into_bytes();
        text.resize(text.len().next_multiple_of(BLOCK as usize), 0);
        let stored = text.len() as u64 + map.iter().map(|range| range.end - range.start).sum::<u64>();
        records.add(b"GNU.sparse.major", b"1");
        records.add(b"GNU.sparse.minor", b"0");
        records.add(b"GNU.sparse.name", path);
        records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
        records.number("size", stored, MAX_SIZE);
        let header = Header { kind: b'0', name: b"GNUSparseFile.0/file", target: b"", size: stored, device: None };
        self.header(&header, item, &records).map_err(Stop::All)?;
        self.out.put(&text).map_err(Stop::All)?;
        let Self { out, buffer, .. } = self;
        work.pack(|told| {
            spans::for_each_piece(content, buffer, |_, bytes| match bytes {
                Some(bytes) => out.put(bytes).and_then(|()| told(bytes.len() as u64)),
                None => Ok(()),
            })
        })?;
        self.out.align(BLOCK).map_err(Stop::All)
    }
}

impl<W: Write> Format for Tar<W> {
    fn entry(&mut self, item: &Item<'_>, work: &mut Work<'_>) -> Result<bool, Stop> {
        let metadata = item.metadata;
        let mut path = item.path.as_bytes().to_vec();
        let (kind, target) = match metadata.kind {
            FileKind::File => match self.put.get(&item.node) {
                Some(first) => (b'1', first.as_bytes().to_vec()),
                None => (b'0', Vec::new()),
            },
            FileKind::Symlink => (b'2', work.files.read_link(item.node).map_err(Stop::Entry)?.as_bytes().to_vec()),
            FileKind::CharDevice => (b'3', Vec::new()),
            FileKind::BlockDevice => (b'4', Vec::new()),
            FileKind::Directory => {
                path.extend_from_slice(if path.is_empty() { b"./" } else { b"/" });
                (b'5', Vec::new())
            }
            FileKind::Fifo => (b'6', Vec::new()),
            _ => return Ok(false),
        };
        let mut records = Records::default();
        if std::str::from_utf8(&path).is_err() || std::str::from_utf8(&target).is_err() {
            records.add(b"hdrcharset", b"BINARY");
        }
        records.text(b"path", &path);
        records.text(b"linkpath", &target);
        records.number("uid", metadata.uid.into(), MAX_ID);
        records.number("gid", metadata.gid.into(), MAX_ID);
        records.time("mtime", metadata.times.modified);
        records.time("atime", metadata.times.accessed);
        if kind != b'1' {
            let of_windows = work.attributes(item.node).map_err(Stop::Entry)?;
            for (name, value) in work.files.xattrs(item.node).map_err(Stop::Entry)?.iter().chain(&of_windows) {
                records.attribute(name, value);
            }
        }
        if kind == b'0' {
            let content = work.files.clone().open(item.node, None).map_err(Stop::Entry)?;
            self.file(&content, item, &path, records, work)?;
            if metadata.links > 1 && self.put.len() < MAX_HARD_LINKED {
                self.put.insert(item.node, item.path.clone());
            }
            return Ok(true);
        }
        let header = Header { kind, name: &path, target: &target, size: 0, device: metadata.device };
        self.header(&header, item, &records).map_err(Stop::All)?;
        Ok(true)
    }

    fn finish(mut self) -> Result<()> {
        self.out.put(&[0; 2 * BLOCK as usize])?;
        self.out.finish()
    }
}

/// What is stored of a file; `None` when there are no holes, or more pieces than are worth it.
fn data(content: &Arc<dyn Content>) -> Result<Option<Vec<Range<u64>>>> {
    let mut map = Vec::new();
    let mut has_holes = false;
    for span in spans::Spans::new(content) {
        let span = span?;
        has_holes |= span.is_zero;
        if !span.is_zero {
            map.push(span.range);
        }
        if map.len() > MAX_PIECES {
            return Ok(None);
        }
    }
    // The file's size is said by a last piece without bytes.
    map.push(content.size()..content.size());
    Ok(has_holes.then_some(map))
}

struct Header<'h> {
    kind: u8,
    name: &'h [u8],
    target: &'h [u8],
    size: u64,
    device: Option<(u32, u32)>,
}

impl Header<'_> {
    /// The block; what does not fit is cut, and is in the records.
    fn block(&self, mode: u32, uid: u32, gid: u32, modified: i64) -> Vec<u8> {
        let (major, minor) = self.device.unwrap_or_default();
        let mut block = Vec::with_capacity(BLOCK as usize);
        text(&mut block, self.name, 100);
        number(&mut block, mode.into(), 8);
        number(&mut block, uid.into(), 8);
        number(&mut block, gid.into(), 8);
        number(&mut block, self.size, 12);
        number(&mut block, modified.max(0) as u64, 12);
        let sum_at = block.len();
        block.extend_from_slice(b"        ");
        block.push(self.kind);
        text(&mut block, self.target, 100);
        block.extend_from_slice(b"ustar\x0000");
        block.resize(block.len() + 64, 0);
        number(&mut block, major.into(), 8);
        number(&mut block, minor.into(), 8);
        block.resize(BLOCK as usize, 0);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block.splice(sum_at..sum_at + 8, format!("{sum:06o}\0 ").into_bytes());
        block
    }
}

fn text(block: &mut Vec<u8>, text: &[u8], len: usize) {
    let end = block.len() + len;
    block.extend_from_slice(text.get(..len).unwrap_or(text));
    block.resize(end, 0);
}

/// In octal digits with NUL after them; 0 for what has more.
fn number(block: &mut Vec<u8>, number: u64, len: usize) {
    let digits = len - 1;
    let fits = number >> (3 * digits as u32) == 0;
    block.extend(format!("{:0digits$o}\0", if fits { number } else { 0 }).into_bytes());
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`, of which the length counts its own digits.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.0.extend(format!("{len} ").into_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn text(&mut self, key: &[u8], value: &[u8]) {
        if value.len() > 100 || !value.is_ascii() {
            self.add(key, value);
        }
    }

    fn number(&mut self, key: &str, number: u64, fits: u64) {
        if number > fits {
            self.add(key.as_bytes(), number.to_string().as_bytes());
        }
    }

    fn time(&mut self, key: &str, time: Timestamp) {
        if key == "mtime" && time.nanos == 0 && (0..=MAX_SIZE as i64).contains(&time.seconds) {
            return;
        }
        // Before 1970 the fraction counts backwards: -5 s and 999 999 999 ns is -4.000000001.
        let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
        let (seconds, nanos) = (total / 1_000_000_000, total % 1_000_000_000);
        self.add(key.as_bytes(), format!("{sign}{seconds}.{nanos:09}").as_bytes());
    }

    /// `=` ends a key; GNU tar writes it, and `%`, by their numbers.
    fn attribute(&mut self, name: &FileName, value: &[u8]) {
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in name.as_bytes() {
            match byte {
                b'=' => key.extend_from_slice(b"%3D"),
                b'%' => key.extend_from_slice(b"%25"),
                byte => key.push(*byte),
            }
        }
        self.add(&key, value);
    }
}

const BLOCK: u64 = 512;
/// In 7 and in 11 octal digits.
const MAX_ID: u64 = (1 << 21) - 1;
const MAX_SIZE: u64 = (1 << 33) - 1;
/// Of a file with holes; its map is kept in memory.
const MAX_PIECES: usize = 1 << 18;
const MAX_HARD_LINKED: usize = 1 << 20;
