//! The bytes of a file: extents that lie on devices, packed ones, and short contents that are kept with the inode.

use std::{
    io::Read,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Btrfs, inode::Inode, lzo, tree::Key};
use crate::{
    bytes::{le_u64, u8_at},
    error::{Error, Result},
    fs::{
        Content, Extent, ExtentKind,
        parts::{bounded, push},
        within,
    },
};

/// An open file.
pub(super) struct Open {
    fs: Arc<Btrfs>,
    inode: Inode,
    last: Mutex<Option<Unpacked>>,
}

/// The packed extent that was read last: those who read on and on come back to it.
type Unpacked = (u64, Arc<[u8]>);

impl Open {
    pub(super) fn new(fs: Arc<Btrfs>, inode: Inode) -> Self {
        Self { fs, inode, last: Mutex::default() }
    }
}

impl Content for Open {
    fn size(&self) -> u64 {
        self.inode.metadata.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let buf = within(self.size(), offset, buf);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.fs.read_content(&self.inode, offset, buf, &mut last)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(buf.len())
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let end = range.end.min(self.size());
        let mut map = Vec::new();
        let mut at = range.start;
        while at < end {
            let part = self.fs.part(&self.inode, at)?;
            let mut stop = at.saturating_add(part.len).min(end);
            let kind = match part.source {
                Source::Hole => ExtentKind::Hole,
                Source::Unwritten => ExtentKind::Unwritten,
                Source::Packed(_) => ExtentKind::Encoded,
                Source::At(address) => {
                    let places = self.fs.volume.chunks.find(address)?;
                    let main = places.iter().find(|place| place.device == self.fs.volume.main);
                    stop = stop.min(at.saturating_add(places.first().map_or(1, |place| place.len)));
                    main.map_or(ExtentKind::Encoded, |place| ExtentKind::Stored(place.at))
                }
            };
            push(&mut map, at..stop, kind);
            bounded(&map, || super::inode::describe(self.inode.node))?;
            at = stop;
        }
        Ok(map)
    }
}

/// Bytes of a file from one source.
struct Part {
    /// How many, from the one that was asked for on; at least 1.
    len: u64,
    source: Source,
}

enum Source {
    Hole,
    Unwritten,
    /// From this address on.
    At(u64),
    Packed(Packed),
}

/// An extent that has to be unpacked, or lies in the tree itself.
struct Packed {
    /// Where it begins in the file.
    start: u64,
    how: u8,
    /// Bytes of it unpacked.
    unpacked: u64,
    /// Of these the file begins with this one.
    skip: u64,
    stored: Stored,
}

enum Stored {
    Here(Vec<u8>),
    At(u64, u64),
}

impl Btrfs {
    /// Fills `buf` with the bytes of a file from `offset` on.
    pub(super) fn read_content(
        &self,
        inode: &Inode,
        offset: u64,
        buf: &mut [u8],
        last: &mut Option<Unpacked>,
    ) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let part = self.part(inode, at)?;
            let len = part.len.min((buf.len() - done) as u64) as usize;
            let target = &mut buf[done..done + len];
            match part.source {
                Source::Hole | Source::Unwritten => target.fill(0),
                Source::At(address) => self.volume.read_summed(address, target, |wrong| {
                    let byte = (at + wrong).saturating_sub(address);
                    inode.damaged(format!("the checksum of the block at byte {byte} is wrong"))
                })?,
                Source::Packed(packed) => {
                    let bytes = match last {
                        Some((start, bytes)) if *start == packed.start => bytes.clone(),
                        _ => self.unpack(inode, &packed)?,
                    };
                    *last = Some((packed.start, bytes.clone()));
                    let from = at - packed.start + packed.skip;
                    let wanted = bytes.iter().skip(usize::try_from(from).unwrap_or(usize::MAX));
                    // What is missing at the end of an extent is zero.
                    let bytes = wanted.copied().chain(std::iter::repeat(0));
                    target.iter_mut().zip(bytes).for_each(|(target, byte)| *target = byte);
                }
            }
            done += len;
        }
        Ok(())
    }

    /// Where a byte of a file is, and those after it.
    fn part(&self, inode: &Inode, at: u64) -> Result<Part> {
        let number = inode.node.number;
        let (found, next) = self.volume.around(inode.tree, Key::new(number, EXTENT_DATA, at))?;
        let mine = |key: &Key| (key.object, key.kind) == (number, EXTENT_DATA);
        let next = next.filter(mine).map_or(u64::MAX, |next| next.offset);
        let hole = Part { len: next.saturating_sub(at).max(1), source: Source::Hole };
        let Some((key, item)) = found.filter(|(key, _)| mine(key)) else { return Ok(hole) };
        let wrong = || inode.damaged(format!("the extent at byte {} is none", key.offset));
        let (unpacked, how) = le_u64(&item, 8).zip(u8_at(&item, 16)).ok_or_else(wrong)?;
        let kind = u8_at(&item, 20).ok_or_else(wrong)?;
        if item.get(17..20) != Some(&[0; 3]) {
            return Err(Error::unsupported(super::inode::describe(inode.node), "its content is encrypted or encoded"));
        }
        let into = at - key.offset;
        if kind == INLINE {
            if unpacked > LARGEST_PACKED {
                return Err(wrong());
            }
            let Some(len) = unpacked.checked_sub(into).filter(|len| *len > 0) else { return Ok(hole) };
            let stored = Stored::Here(item.get(21..).unwrap_or_default().to_vec());
            let packed = Packed { start: key.offset, how, unpacked, skip: 0, stored };
            return Ok(Part { len: len.min(next - at), source: Source::Packed(packed) });
        }
        let field = |at| le_u64(&item, at).ok_or_else(wrong);
        let (address, stored_len, skip, len) = (field(21)?, field(29)?, field(37)?, field(45)?);
        let Some(left) = len.checked_sub(into).filter(|left| *left > 0) else { return Ok(hole) };
        let len = left.min(next - at);
        let source = match (kind, address, how) {
            (REGULAR | PREALLOCATED, 0, _) => Source::Hole,
            (PREALLOCATED, ..) => Source::Unwritten,
            (REGULAR, _, 0) => {
                let start = address.checked_add(skip).and_then(|start| start.checked_add(into)).ok_or_else(wrong)?;
                Source::At(start)
            }
            (REGULAR, ..) => {
                if unpacked > LARGEST_PACKED || stored_len > LARGEST_PACKED || skip > unpacked {
                    return Err(wrong());
                }
                let stored = Stored::At(address, stored_len);
                Source::Packed(Packed { start: key.offset, how, unpacked, skip, stored })
            }
            _ => return Err(wrong()),
        };
        Ok(Part { len, source })
    }

    fn unpack(&self, inode: &Inode, packed: &Packed) -> Result<Arc<[u8]>> {
        let bytes = match &packed.stored {
            Stored::Here(bytes) => bytes.clone(),
            Stored::At(address, len) => {
                let mut bytes = vec![0; *len as usize];
                self.volume.read_summed(*address, &mut bytes, |_| {
                    inode.damaged(format!("a checksum of the packed extent at byte {} is wrong", packed.start))
                })?;
                bytes
            }
        };
        let len = packed.unpacked as usize;
        let failed = || inode.damaged(format!("the packed extent at byte {} cannot be unpacked", packed.start));
        let unpacked = match packed.how {
            0 => bytes,
            ZLIB => take(flate2::read::ZlibDecoder::new(&bytes[..]), len).ok_or_else(failed)?,
            LZO => lzo::unpack(&bytes, len, self.volume.superblock.sector_size as usize).ok_or_else(failed)?,
            ZSTD => {
                let decoder = zstd::stream::read::Decoder::with_buffer(&bytes[..]).map_err(|_| failed())?;
                take(decoder.single_frame(), len).ok_or_else(failed)?
            }
            other => {
                let what = super::inode::describe(inode.node);
                return Err(Error::unsupported(what, format!("its content is packed in way {other}")));
            }
        };
        Ok(unpacked.into())
    }
}

/// Reads up to `len` bytes.
fn take(from: impl Read, len: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    from.take(len as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

const EXTENT_DATA: u8 = 108;
/// Kinds of extents.
pub(super) const INLINE: u8 = 0;
pub(super) const REGULAR: u8 = 1;
pub(super) const PREALLOCATED: u8 = 2;
/// Ways to pack.
const ZLIB: u8 = 1;
const LZO: u8 = 2;
const ZSTD: u8 = 3;
/// Bytes of a packed extent, eight times what the kernel writes.
const LARGEST_PACKED: u64 = 1 << 20;
