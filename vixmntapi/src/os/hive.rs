//! Hives of the Windows registry, read at the places that are asked for and never whole.
//!
//! Places are those of Maxim Suhanov's "Windows registry file format specification". What Windows had not yet written into
//! a hive is read from its logs; [`Hive::is_dirty`] says whether they do not have it.

use std::sync::Arc;

use super::replay::{Base, Replayed};
use crate::{
    bytes::{array, le_u16, le_u32, slice},
    error::{Error, Result},
    fs::Content,
};

/// An open hive.
pub(super) struct Hive {
    content: Replayed,
    /// Where its cells end, from the first of them on.
    end: u32,
    root: u32,
    dirty: bool,
}

/// A key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    node: Vec<u8>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) name: String,
    kind: u32,
    pub(super) data: Vec<u8>,
}

impl Value {
    /// Text, as far as it goes to the first NUL.
    pub(super) fn text(&self) -> Option<String> {
        if !matches!(self.kind, TEXT | EXPANDABLE_TEXT) {
            return None;
        }
        let units = self.data.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        Some(char::decode_utf16(units.take_while(|unit| *unit != 0)).map(|unit| unit.unwrap_or('\u{fffd}')).collect())
    }

    /// A number of 32 bits.
    pub(super) fn number(&self) -> Option<u32> {
        if self.kind == NUMBER { le_u32(&self.data, 0) } else { None }
    }
}

impl Hive {
    /// Opens a file that is a hive; its logs are asked for when it needs them.
    pub(super) fn open(
        content: Arc<dyn Content>,
        logs: impl FnOnce() -> Result<Vec<Arc<dyn Content>>>,
    ) -> Result<Self> {
        let mut start = vec![0; BASE];
        if content.read_at(0, &mut start)? < BASE || !start.starts_with(b"regf") {
            return Err(damaged("it does not begin as one"));
        }
        let base = Base::parse(&start).ok_or_else(|| damaged("the checksum of its header is wrong"))?;
        if base.version.0 != 1 {
            let (major, minor) = base.version;
            return Err(Error::unsupported("this registry hive", format!("it has version {major}.{minor}")));
        }
        let mut content = Replayed::stored(content, base);
        let dirty = base.is_dirty() && !content.apply(&logs()?)?;
        let room = content.size().saturating_sub(BASE as u64);
        let end = u32::try_from(room).unwrap_or(u32::MAX).min(content.base.len);
        let root = content.base.root;
        Ok(Self { content, end, root, dirty })
    }

    /// Whether Windows had more to write into it than is in its logs.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Finds a key by its path, names divided by `\`, without regard to case.
    pub(super) fn key(&self, path: &str) -> Result<Option<Key>> {
        let mut key = self.node(self.root)?;
        for name in path.split('\\').filter(|name| !name.is_empty()) {
            let Some(child) = self.child(&key, name)? else { return Ok(None) };
            key = child;
        }
        Ok(Some(key))
    }

    /// A value of a key.
    pub(super) fn value(&self, key: &Key, name: &str) -> Result<Option<Value>> {
        let mut found = None;
        self.each_value(key, |cell, raw_name| {
            if same(raw_name, name) {
                found = Some(self.read_value(cell, raw_name)?);
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    /// All values of a key.
    pub(super) fn values(&self, key: &Key) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        self.each_value(key, |cell, name| {
            found.push(self.read_value(cell, name)?);
            Ok(true)
        })?;
        Ok(found)
    }

    fn child(&self, key: &Key, name: &str) -> Result<Option<Key>> {
        let count = le_u32(&key.node, 20).unwrap_or_default();
        if count == 0 {
            return Ok(None);
        }
        let mut lists = vec![(le_u32(&key.node, 28).unwrap_or_default(), 0)];
        let mut left = MOST_CHILDREN;
        while let Some((at, depth)) = lists.pop() {
            let list = self.cell(at)?;
            let entries = usize::from(le_u16(&list, 2).unwrap_or_default());
            let width = match list.get(..2) {
                Some(b"lf" | b"lh") => 8,
                Some(b"li") => 4,
                Some(b"ri") if depth == 0 => 4,
                _ => return Err(damaged(format!("the list of keys at {at:#x} is none"))),
            };
            let nested = list.starts_with(b"ri");
            for entry in 0..entries {
                left -= 1;
                let place = le_u32(&list, 4 + entry * width).filter(|_| left > 0);
                let place = place.ok_or_else(|| damaged(format!("the list of keys at {at:#x} is too long")))?;
                if nested {
                    lists.push((place, 1));
                    continue;
                }
                let child = self.node(place)?;
                if child.name().is_some_and(|found| same(&found, name)) {
                    return Ok(Some(child));
                }
            }
        }
        Ok(None)
    }

    fn node(&self, at: u32) -> Result<Key> {
        let node = self.cell(at)?;
        if node.get(..2) != Some(b"nk") || node.len() < 76 {
            return Err(damaged(format!("the key at {at:#x} is none")));
        }
        Ok(Key { node })
    }

    /// Goes through the values of a key, until `take` says no.
    fn each_value(&self, key: &Key, mut take: impl FnMut(&[u8], &str) -> Result<bool>) -> Result<()> {
        let count = le_u32(&key.node, 36).unwrap_or_default();
        if count == 0 {
            return Ok(());
        }
        let list = self.cell(le_u32(&key.node, 40).unwrap_or_default())?;
        if count > MOST_CHILDREN {
            return Err(damaged(format!("a key has {count} values")));
        }
        for index in 0..count as usize {
            let at = le_u32(&list, index * 4).ok_or_else(|| damaged("a list of values ends early"))?;
            let cell = self.cell(at)?;
            let name = || {
                let raw = slice(&cell, 20, le_u16(&cell, 2)?.into())?;
                cell.starts_with(b"vk").then(|| decoded(raw, le_u16(&cell, 16).unwrap_or_default() & 1 != 0))
            };
            let name = name().ok_or_else(|| damaged(format!("the value at {at:#x} is none")))?;
            if !take(&cell, &name)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_value(&self, cell: &[u8], name: &str) -> Result<Value> {
        let wrong = || damaged(format!("the value {name:?} is none"));
        let (stored, at) = le_u32(cell, 4).zip(le_u32(cell, 8)).ok_or_else(wrong)?;
        let len = (stored & !RESIDENT) as usize;
        let data = if stored & RESIDENT != 0 {
            slice(cell, 8, len).filter(|data| data.len() <= 4).ok_or_else(wrong)?.to_vec()
        } else if len == 0 {
            Vec::new()
        } else if len > MAX_VALUE {
            return Err(damaged(format!("the value {name:?} has {len} bytes")));
        } else {
            let data = self.cell(at)?;
            if len > SEGMENT && data.starts_with(b"db") {
                self.segments(&data, len)?
            } else {
                slice(&data, 0, len).ok_or_else(wrong)?.to_vec()
            }
        };
        Ok(Value { name: name.to_owned(), kind: le_u32(cell, 12).ok_or_else(wrong)?, data })
    }

    /// A large value, which is kept in pieces.
    fn segments(&self, header: &[u8], len: usize) -> Result<Vec<u8>> {
        let wrong = || damaged("a large value ends early");
        let list = self.cell(le_u32(header, 4).ok_or_else(wrong)?)?;
        let mut data = Vec::with_capacity(len);
        for index in 0..usize::from(le_u16(header, 2).ok_or_else(wrong)?) {
            let piece = self.cell(le_u32(&list, index * 4).ok_or_else(wrong)?)?;
            data.extend(piece.iter().take(SEGMENT.min(len - data.len())));
        }
        if data.len() == len { Ok(data) } else { Err(wrong()) }
    }

    /// What is in the cell at a place.
    fn cell(&self, at: u32) -> Result<Vec<u8>> {
        let wrong = || damaged(format!("the cell at {at:#x} is none"));
        let mut size = [0; 4];
        if at.checked_add(4).is_none_or(|end| end > self.end) {
            return Err(wrong());
        }
        let place = BASE as u64 + u64::from(at);
        if self.content.read_at(place, &mut size)? < 4 {
            return Err(wrong());
        }
        // Cells in use have sizes below zero.
        let size = i32::from_le_bytes(size).checked_neg().and_then(|size| u32::try_from(size).ok());
        let size = size.filter(|size| *size >= 8 && at.checked_add(*size).is_some_and(|end| end <= self.end));
        let len = size.filter(|size| *size as usize <= MAX_CELL).ok_or_else(wrong)? as usize - 4;
        let mut cell = vec![0; len];
        if self.content.read_at(place + 4, &mut cell)? < len {
            return Err(wrong());
        }
        Ok(cell)
    }
}

impl Key {
    fn name(&self) -> Option<String> {
        let raw = slice(&self.node, 76, le_u16(&self.node, 72)?.into())?;
        Some(decoded(raw, le_u16(&self.node, 2)? & NAME_OF_BYTES != 0))
    }
}

/// A name of Latin-1 bytes or of UTF-16.
fn decoded(raw: &[u8], of_bytes: bool) -> String {
    if of_bytes {
        return raw.iter().map(|byte| char::from(*byte)).collect();
    }
    let units = raw.chunks_exact(2).filter_map(|unit| array(unit, 0).map(u16::from_le_bytes));
    char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect()
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || one.to_uppercase() == other.to_uppercase()
}

/// An error of a hive.
fn damaged(problem: impl Into<String>) -> Error {
    Error::damaged("the registry hive", problem)
}

/// Bytes before the first cell.
const BASE: usize = 4096;
/// In the flags of a key: its name is in bytes.
const NAME_OF_BYTES: u16 = 0x20;
/// In the length of a value: its bytes are where their place would be.
const RESIDENT: u32 = 0x8000_0000;
/// Bytes of each piece of a large value.
const SEGMENT: usize = 16_344;
const TEXT: u32 = 1;
const EXPANDABLE_TEXT: u32 = 2;
const NUMBER: u32 = 4;
/// Bytes of a value that is read at all, and of a cell.
const MAX_VALUE: usize = 1 << 20;
const MAX_CELL: usize = 4 << 20;
/// Keys or values of one key that are looked at.
const MOST_CHILDREN: u32 = 1 << 20;
