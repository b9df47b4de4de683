//! The header of a member: 512 bytes of text.

use super::{BLOCK, LargeFiles, pax};
use crate::error::{Error, Result};

/// A header, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// As the header has it: long names stand elsewhere.
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    pub(super) kind: Kind,
}

/// What a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// Records for the next member.
    Pax,
    /// Records for all members.
    PaxGlobal,
    /// The name of the next member.
    LongName,
    /// Anything else, by its letter.
    Other(u8),
}

impl Header {
    /// Reads a header; the error says what is wrong with it.
    pub(super) fn parse(block: &[u8; BLOCK as usize]) -> Result<Self, String> {
        check_sum(block)?;
        let size = number(&block[SIZE]).ok_or_else(|| "its size is no number".to_owned())?;
        let kind = match block[TYPE] {
            b'0' | 0 | b'7' => Kind::File,
            b'5' => Kind::Directory,
            b'x' => Kind::Pax,
            b'g' => Kind::PaxGlobal,
            b'L' => Kind::LongName,
            other => Kind::Other(other),
        };
        let mut name = Vec::new();
        // GNU tar keeps other things there.
        if block[MAGIC] == *USTAR && block[PREFIX][0] != 0 {
            name.extend(text(&block[PREFIX]));
            name.push(b'/');
        }
        name.extend(text(&block[NAME]));
        // Before there was a type for them.
        let kind = if kind == Kind::File && name.ends_with(b"/") { Kind::Directory } else { kind };
        Ok(Self { name, size, kind })
    }
}

/// A member to be written.
#[derive(Debug, Clone, Copy)]
pub(in crate::ova) struct NewMember<'a> {
    pub(in crate::ova) name: &'a str,
    pub(in crate::ova) size: u64,
    /// Seconds since 1970.
    pub(in crate::ova) modified: u64,
    /// User and group.
    pub(in crate::ova) owner: (u32, u32),
    pub(in crate::ova) large: LargeFiles,
}

/// Writes the header of a member, and the records before it when it needs some.
///
/// # Errors
/// [`Error::InvalidInput`] for names that ustar has no room for, and for a size that may not be written.
pub(in crate::ova) fn encode(member: &NewMember<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut large = None;
    if member.size > MAX_OCTAL {
        match member.large {
            LargeFiles::Gnu => large = Some(member.size),
            LargeFiles::Pax => {
                let records = pax::record("size", &member.size.to_string());
                // Named as POSIX proposes.
                let header = NewMember { name: "PaxHeaders/size", size: records.len() as u64, ..*member };
                bytes.extend(plain(&header, b'x', None)?);
                bytes.extend(&records);
                bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
            }
            LargeFiles::Refuse => {
                let problem = format!("{} has {} bytes, and ustar ends at 8 GiB", member.name, member.size);
                return Err(Error::invalid("file", problem));
            }
        }
    }
    bytes.extend(plain(member, b'0', large)?);
    Ok(bytes)
}

fn plain(member: &NewMember<'_>, kind: u8, large: Option<u64>) -> Result<[u8; BLOCK as usize]> {
    let mut block = [0; BLOCK as usize];
    let (prefix, name) = split(member.name).ok_or_else(|| {
        Error::invalid(
            "file name",
            format!("{:?} does not fit into a tar header of the kind that vSphere reads", member.name),
        )
    })?;
    block[NAME][..name.len()].copy_from_slice(name.as_bytes());
    block[PREFIX][..prefix.len()].copy_from_slice(prefix.as_bytes());
    octal(&mut block[MODE], 0o644);
    octal(&mut block[UID], u64::from(member.owner.0.min(MAX_OWNER)));
    octal(&mut block[GID], u64::from(member.owner.1.min(MAX_OWNER)));
    octal(&mut block[MODIFIED], member.modified.min(MAX_OCTAL));
    block[TYPE] = kind;
    match large {
        Some(size) => {
            block[SIZE][0] = BASE_256;
            block[SIZE][4..].copy_from_slice(&size.to_be_bytes());
            block[MAGIC].copy_from_slice(GNU);
            if !prefix.is_empty() {
                return Err(Error::invalid(
                    "file name",
                    format!("{:?} is too long for a file of this size", member.name),
                ));
            }
        }
        // Records say the size in their own way; the header then has none.
        None => {
            octal(&mut block[SIZE], if member.size > MAX_OCTAL { 0 } else { member.size });
            block[MAGIC].copy_from_slice(USTAR);
        }
    }
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
    octal(&mut block[SUM][..7], sum);
    block[SUM][7] = b' ';
    Ok(block)
}

/// Prefix and name; what is longer than a name goes to the prefix, split at a slash.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME.end {
        return Some(("", name));
    }
    let mut splits = name.rmatch_indices('/').map(|(at, _)| (&name[..at], &name[at + 1..]));
    splits.find(|(prefix, name)| prefix.len() <= PREFIX.end - PREFIX.start && name.len() <= NAME.end)
}

/// Octal digits and a NUL. The value fits: callers see to it.
fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
}

/// Octal with blanks around it, or base 256. Negative and absurd numbers are none.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & BASE_256 != 0 {
        let digit = |value: u64, byte: &u8| value.checked_mul(256)?.checked_add(u64::from(*byte));
        let value = rest.iter().try_fold(0, digit)?;
        return (*first == BASE_256 && value <= MAX_SIZE).then_some(value);
    }
    let digits = text(field);
    let digits = std::str::from_utf8(digits).ok()?.trim_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

fn check_sum(block: &[u8; BLOCK as usize]) -> Result<(), String> {
    let wanted = number(&block[SUM]).ok_or_else(|| "its checksum is no number".to_owned())?;
    let rest = block.iter().enumerate().filter(|(index, _)| !SUM.contains(index)).map(|(_, byte)| *byte);
    let blanks = 8 * i64::from(b' ');
    let unsigned = rest.clone().map(i64::from).sum::<i64>() + blanks;
    // Some old programs added signed bytes.
    let signed = rest.map(|byte| i64::from(byte as i8)).sum::<i64>() + blanks;
    match i64::try_from(wanted) {
        Ok(wanted) if wanted == unsigned || wanted == signed => Ok(()),
        _ => Err(format!("its checksum is {wanted:o}, and should be {unsigned:o}")),
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

type Field = std::ops::Range<usize>;
const NAME: Field = 0..100;
const MODE: Field = 100..108;
const UID: Field = 108..116;
const GID: Field = 116..124;
const SIZE: Field = 124..136;
const MODIFIED: Field = 136..148;
const SUM: Field = 148..156;
const TYPE: usize = 156;
/// Magic and version together.
const MAGIC: Field = 257..265;
const PREFIX: Field = 345..500;

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";
/// First byte of a number in base 256.
const BASE_256: u8 = 0x80;
/// Eleven octal digits: 8 GiB less one byte.
const MAX_OCTAL: u64 = (1 << 33) - 1;
/// Seven octal digits.
const MAX_OWNER: u32 = (1 << 21) - 1;
/// Offsets in files end here.
pub(super) const MAX_SIZE: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, size: u64, large: LargeFiles) -> NewMember<'_> {
        NewMember { name, size, modified: 0, owner: (0, 0), large }
    }

    fn block(bytes: &[u8]) -> [u8; 512] {
        bytes[..512].try_into().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(90));
        for (name, size) in
            [("a.vmdk", 0), ("a.vmdk", MAX_OCTAL), ("a.vmdk", MAX_OCTAL + 1), ("ä.vmdk", 3 << 40), (&long, 5)]
        {
            let bytes = encode(&member(name, size, LargeFiles::Gnu)).unwrap();
            assert_eq!(bytes.len(), 512);
            let header = Header::parse(&block(&bytes)).unwrap();
            assert_eq!(header, Header { name: name.as_bytes().to_vec(), size, kind: Kind::File });
        }
        assert!(encode(&member(&"x".repeat(101), 1, LargeFiles::Gnu)).is_err());
        assert!(encode(&member("a", MAX_OCTAL + 1, LargeFiles::Refuse)).is_err());
        assert_eq!(encode(&member("a", MAX_OCTAL + 1, LargeFiles::Pax)).unwrap().len(), 3 * 512);
    }

    #[test]
    fn numbers_that_lie_are_none() {
        assert_eq!(number(b"00000000017\0"), Some(15));
        assert_eq!(number(b"        17 \0"), Some(15));
        for field in [
            *b"            ",
            *b"000000000-1\0",
            *b"00000000008\0",
            *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(number(&field), None);
        }
        assert_eq!(number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None);
        assert_eq!(number(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), None);
        // Fields of any length, as that of the checksum.
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(number(b""), None);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let good = encode(&member("a.vmdk", 5, LargeFiles::Gnu)).unwrap();
        for at in [0, 130, 156, 400] {
            let mut bad = block(&good);
            bad[at] ^= 4;
            assert!(Header::parse(&bad).unwrap_err().contains("checksum"));
        }
    }
}
