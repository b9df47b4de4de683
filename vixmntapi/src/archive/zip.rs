//! zip, as APPNOTE 6.3.10 of PKWARE has it, written without seeking.
//! <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::{Format, Item, Sink, Stop, Work, sink::failed};
use crate::{
    error::{Error, Result},
    fs::{FileKind, Metadata, Timestamp, spans},
};

pub(super) struct Zip<W> {
    out: Sink<W>,
    /// The directory, which comes after all files.
    central: Vec<u8>,
    entries: u64,
    buffer: Vec<u8>,
    deflater: Deflater,
}

impl<W: Write> Zip<W> {
    pub(super) fn new(out: Sink<W>) -> Self {
        Self { out, central: Vec::new(), entries: 0, buffer: Vec::new(), deflater: Deflater::new() }
    }

    /// A header that says that sizes and checksum come after the bytes.
    fn begin(&mut self, member: &Member) -> Result<()> {
        let mut header = Fields::default();
        header.u32(0x0403_4b50).u16(member.version()).u16(member.flags()).u16(member.method).u32(member.time);
        let unknown = if member.is_large { u32::MAX } else { 0 };
        let mut extra = member.extra.clone();
        if member.is_large {
            extra.u16(1).u16(16).u64(0).u64(0);
        }
        header.u32(0).u32(unknown).u32(unknown);
        header.u16(member.name.len() as u16).u16(extra.0.len() as u16).bytes(&member.name).bytes(&extra.0);
        self.out.put(&header.0)
    }

    fn end(&mut self, member: &Member, start: u64, crc: u32, sizes: (u64, u64)) -> Result<()> {
        let (packed, size) = sizes;
        let mut after = Fields::default();
        after.u32(0x0807_4b50).u32(crc);
        if member.is_large {
            after.u64(packed).u64(size);
        } else {
            after.u32(packed as u32).u32(size as u32);
        }
        self.out.put(&after.0)?;
        let mut large = Fields::default();
        let mut narrow = |number: u64| match u32::try_from(number) {
            Ok(number) if number < u32::MAX => number,
            _ => {
                large.u64(number);
                u32::MAX
            }
        };
        // In this order in the extra field as well.
        let (size, packed, start) = (narrow(size), narrow(packed), narrow(start));
        let mut extra = member.extra.clone();
        if !large.0.is_empty() {
            extra.u16(1).u16(large.0.len() as u16).bytes(&large.0);
        }
        let mut entry = Fields::default();
        entry.u32(0x0201_4b50).u16(UNIX | 45).u16(member.version()).u16(member.flags()).u16(member.method);
        entry.u32(member.time).u32(crc).u32(packed).u32(size);
        entry.u16(member.name.len() as u16).u16(extra.0.len() as u16).u16(0).u16(0).u16(0);
        entry.u32(member.attributes).u32(start).bytes(&member.name).bytes(&extra.0);
        if self.central.len() + entry.0.len() > MAX_CENTRAL {
            return Err(Error::Invalid("there are too many files for one zip archive; take tar".into()));
        }
        self.central.extend_from_slice(&entry.0);
        self.entries += 1;
        Ok(())
    }

    /// A directory or a link: what is known at once, stored as it is.
    fn small(&mut self, member: &Member, bytes: &[u8]) -> Result<()> {
        let start = self.out.written;
        self.begin(member)?;
        self.out.put(bytes)?;
        let len = bytes.len() as u64;
        self.end(member, start, crc32fast::hash(bytes), (len, len))
    }
}

impl<W: Write> Format for Zip<W> {
    fn entry(&mut self, item: &Item<'_>, work: &mut Work<'_>) -> Result<bool, Stop> {
        let metadata = item.metadata;
        let mut name = item.path.as_bytes().to_vec();
        if name.len() > MAX_NAME {
            return Err(Stop::Entry(Error::Invalid(format!("zip has no paths of more than {MAX_NAME} bytes"))));
        }
        // It has no place for them; this counts them.
        work.attributes(item.node).map_err(Stop::Entry)?;
        match metadata.kind {
            FileKind::Directory if name.is_empty() => Ok(true),
            FileKind::Directory => {
                name.push(b'/');
                self.small(&Member::new(name, metadata, 0o040_000 << 16 | 0x10, STORED), b"").map_err(Stop::All)?;
                Ok(true)
            }
            FileKind::Symlink => {
                let target = work.files.read_link(item.node).map_err(Stop::Entry)?;
                let member = Member::new(name, metadata, 0o120_000 << 16, STORED);
                self.small(&member, target.as_bytes()).map_err(Stop::All)?;
                Ok(true)
            }
            FileKind::File => {
                let content = work.files.clone().open(item.node, None).map_err(Stop::Entry)?;
                let member = Member::new(name, metadata, 0o100_000 << 16, DEFLATED);
                let start = self.out.written;
                self.begin(&member).map_err(Stop::All)?;
                let from = self.out.written;
                let mut crc = crc32fast::Hasher::new();
                let Self { out, buffer, deflater, .. } = self;
                deflater.compress.reset();
                work.pack(|told| {
                    spans::for_each_bytes(&content, buffer, |bytes| {
                        crc.update(bytes);
                        deflater.put(bytes, FlushCompress::None, out)?;
                        told(bytes.len() as u64)
                    })
                })?;
                deflater.put(b"", FlushCompress::Finish, out).map_err(Stop::All)?;
                let packed = self.out.written - from;
                self.end(&member, start, crc.finalize(), (packed, content.size())).map_err(Stop::All)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn finish(mut self) -> Result<()> {
        let start = self.out.written;
        self.out.put(&self.central)?;
        let len = self.central.len() as u64;
        let mut end = Fields::default();
        if self.entries >= u16::MAX.into() || start >= u32::MAX.into() {
            let at = self.out.written;
            end.u32(0x0606_4b50).u64(44).u16(UNIX | 45).u16(45).u32(0).u32(0);
            end.u64(self.entries).u64(self.entries).u64(len).u64(start);
            end.u32(0x0706_4b50).u32(0).u64(at).u32(1);
        }
        let entries = u16::try_from(self.entries).unwrap_or(u16::MAX);
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        end.u32(0x0605_4b50).u16(0).u16(0).u16(entries).u16(entries).u32(len as u32).u32(start).u16(0);
        self.out.put(&end.0)?;
        self.out.finish()
    }
}

/// One compressor for all files: making one takes longer than a small file.
struct Deflater {
    compress: Compress,
    packed: Vec<u8>,
}

impl Deflater {
    fn new() -> Self {
        Self { compress: Compress::new(Compression::default(), false), packed: Vec::with_capacity(64 << 10) }
    }

    fn put<W: Write>(&mut self, mut bytes: &[u8], flush: FlushCompress, out: &mut Sink<W>) -> Result<()> {
        loop {
            self.packed.clear();
            let before = self.compress.total_in();
            let status = self.compress.compress_vec(bytes, &mut self.packed, flush);
            let status = status.map_err(|error| failed(error.into()))?;
            bytes = bytes.get((self.compress.total_in() - before) as usize..).unwrap_or_default();
            out.put(&self.packed)?;
            let is_full = self.packed.len() == self.packed.capacity();
            match flush {
                FlushCompress::Finish if status != Status::StreamEnd => {}
                FlushCompress::None if is_full || !bytes.is_empty() => {}
                _ => return Ok(()),
            }
        }
    }
}

/// What is said of a file at its place and in the directory.
struct Member {
    name: Vec<u8>,
    method: u16,
    /// Date and time of DOS.
    time: u32,
    attributes: u32,
    extra: Fields,
    is_large: bool,
}

impl Member {
    fn new(name: Vec<u8>, metadata: &Metadata, kind: u32, method: u16) -> Self {
        let modified = metadata.times.modified;
        let mut extra = Fields::default();
        if let Ok(seconds) = i32::try_from(modified.seconds) {
            extra.u16(0x5455).u16(5).bytes(&[1]).u32(seconds as u32);
        }
        extra.u16(0x7875).u16(11).bytes(&[1, 4]).u32(metadata.uid).bytes(&[4]).u32(metadata.gid);
        // What deflates to more than it was does so by far less than this leaves.
        let is_large = metadata.size > 0xf000_0000;
        Self { name, method, time: dos_time(modified), attributes: kind | metadata.mode << 16, extra, is_large }
    }

    fn version(&self) -> u16 {
        if self.is_large { 45 } else { 20 }
    }

    /// Sizes come after the bytes; the name is UTF-8, where it is.
    fn flags(&self) -> u16 {
        1 << 3 | if std::str::from_utf8(&self.name).is_ok() { 1 << 11 } else { 0 }
    }
}

/// Numbers, one after the other, least byte first.
#[derive(Clone, Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }
}

/// In UTC, from 1980 to 2107, by two seconds: date in the upper half, time in the lower.
fn dos_time(time: Timestamp) -> u32 {
    let seconds = time.seconds.clamp(SECONDS_1980, SECONDS_2107);
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March 2000 on, backwards too: a year of the calendar ends with its leap day then.
    let days = days - 11_017;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * of_era + of_era / 4 - of_era / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 2000 + era * 400 + of_era + i64::from(month <= 2);
    let date = (year - 1980) << 9 | month << 5 | of_month;
    let time = (seconds / 3600) << 11 | (seconds / 60 % 60) << 5 | (seconds % 60 / 2);
    (date << 16 | time) as u32
}

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const UNIX: u16 = 3 << 8;
const MAX_NAME: usize = 0xf000;
/// Its length is a number of 32 bits; and it is kept in memory.
const MAX_CENTRAL: usize = 1 << 30;
const SECONDS_1980: i64 = 315_532_800;
const SECONDS_2107: i64 = 4_354_819_198;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let dos = |seconds| dos_time(Timestamp::new(seconds, 0));
        let date = |year: u32, month: u32, day: u32| (year - 1980) << 25 | month << 21 | day << 16;
        assert_eq!(dos(0), date(1980, 1, 1));
        assert_eq!(dos(951_782_399), date(2000, 2, 28) | 23 << 11 | 59 << 5 | 29);
        assert_eq!(dos(951_782_400), date(2000, 2, 29));
        assert_eq!(dos(4_107_542_400), date(2100, 3, 1));
        assert_eq!(dos(i64::MAX), date(2107, 12, 31) | 23 << 11 | 59 << 5 | 29);
    }
}
