//! The index of large directories: a tree of hashes of names, hidden from readers of ext2 in what look like empty blocks.

use super::{Ext, inode::Inode};
use crate::{
    bytes::{le_u16, le_u32, u8_at},
    error::Result,
    fs::{checksum::crc32c, parts::partition},
};

/// The blocks in which a name must be if the directory has it; `None` when the index does not tell.
pub(super) fn leaves(fs: &Ext, directory: &Inode, name: &[u8]) -> Result<Option<Vec<u64>>> {
    let root = fs.directory_block(directory, 0)?;
    let Some(info) = Info::parse(&root) else { return Ok(None) };
    let Some(hash) = fs.hash(info.version, name) else { return Ok(None) };
    let mut node = root;
    let mut at = ROOT_INFO + info.len;
    for level in (0..=info.levels).rev() {
        let Some(index) = Index::parse(&node, at) else { return Ok(None) };
        // The first entry has no hash: it stands for everything before the second.
        let found = partition(index.count - 1, |number| index.hash(number + 1) <= hash);
        if level == 0 {
            let mut blocks = vec![index.block(found)];
            let mut next = found + 1;
            // A hash that goes on in the next block says so in its lowest bit.
            while next < index.count && index.hash(next) & !1 == hash {
                blocks.push(index.block(next));
                next += 1;
            }
            let may_go_on = next == index.count && info.levels > 0;
            return Ok((!may_go_on).then_some(blocks));
        }
        node = fs.directory_block(directory, index.block(found))?;
        at = INNER;
    }
    Ok(None)
}

/// Whether the checksum of a node of the tree is right; it lies behind the room for its entries.
pub(super) fn is_intact(seed: u32, node: &[u8], is_root: bool) -> bool {
    let at = if is_root { ROOT_INFO + 8 } else { INNER };
    let Some(index) = Index::parse(node, at) else { return false };
    let tail = at + 8 * index.limit;
    let (Some(used), Some(reserved)) = (node.get(..at + 8 * index.count), node.get(tail..tail + 4)) else {
        return false;
    };
    let found = crc32c(crc32c(crc32c(seed, used), reserved), &[0; 4]);
    le_u32(node, tail + 4) == Some(found)
}

/// What the root of the tree says.
struct Info {
    version: u8,
    len: usize,
    levels: u8,
}

impl Info {
    fn parse(root: &[u8]) -> Option<Self> {
        let info = Self {
            version: u8_at(root, ROOT_INFO + 4)?,
            len: usize::from(u8_at(root, ROOT_INFO + 5)?),
            levels: u8_at(root, ROOT_INFO + 6)?,
        };
        (info.len == 8 && info.levels <= MAX_LEVELS).then_some(info)
    }
}

/// The entries of a node of the tree.
struct Index<'a> {
    entries: &'a [u8],
    count: usize,
    /// How many there is room for.
    limit: usize,
}

impl<'a> Index<'a> {
    fn parse(node: &'a [u8], at: usize) -> Option<Self> {
        let entries = node.get(at..)?;
        let (limit, count) = (usize::from(le_u16(entries, 0)?), usize::from(le_u16(entries, 2)?));
        (count > 0 && count <= limit && limit <= entries.len() / 8).then_some(Self { entries, count, limit })
    }

    fn hash(&self, number: usize) -> u32 {
        le_u32(self.entries, 8 * number).unwrap_or_default()
    }

    fn block(&self, number: usize) -> u64 {
        u64::from(le_u32(self.entries, 8 * number + 4).unwrap_or_default() & 0x0fff_ffff)
    }
}

impl Ext {
    /// The hash of a name; `None` for kinds that are not known.
    fn hash(&self, version: u8, name: &[u8]) -> Option<u32> {
        let unsigned = version >= 3 || self.superblock.hash_unsigned;
        let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
        if self.superblock.hash_seed != [0; 4] {
            state = self.superblock.hash_seed;
        }
        let hash = match version {
            0 | 3 => legacy(name, unsigned),
            1 | 4 => {
                for part in name.chunks(32) {
                    half_md4(&mut state, &words(part, rest_of(name, part), unsigned));
                }
                state[1]
            }
            2 | 5 => {
                for part in name.chunks(16) {
                    tea(&mut state, &words(part, rest_of(name, part), unsigned));
                }
                state[0]
            }
            _ => return None,
        } & !1;
        // The highest hash stands for the end.
        Some(if hash == 0xffff_fffe { 0xffff_fffc } else { hash })
    }
}

/// How much of a name there is from a part of it on.
fn rest_of(name: &[u8], part: &[u8]) -> usize {
    name.len() - (part.as_ptr() as usize - name.as_ptr() as usize)
}

fn legacy(name: &[u8], unsigned: bool) -> u32 {
    let (mut hash, mut before) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
    for byte in name {
        let mut next = before.wrapping_add(hash ^ widen(*byte, unsigned).wrapping_mul(7_152_373));
        if next & 0x8000_0000 != 0 {
            next = next.wrapping_sub(0x7fff_ffff);
        }
        (before, hash) = (hash, next);
    }
    hash << 1
}

/// A part of a name as numbers, filled up with the length of what is left of the name.
fn words<const N: usize>(part: &[u8], rest: usize, unsigned: bool) -> [u32; N] {
    let rest = rest as u32;
    let pad = rest | rest << 8;
    let pad = pad | pad << 16;
    let mut words = [pad; N];
    for (word, bytes) in words.iter_mut().zip(part.chunks(4)) {
        for byte in bytes {
            *word = widen(*byte, unsigned).wrapping_add(*word << 8);
        }
    }
    words
}

fn widen(byte: u8, unsigned: bool) -> u32 {
    if unsigned { u32::from(byte) } else { i32::from(byte.cast_signed()).cast_unsigned() }
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in ROUNDS {
        for (step, from) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input[from]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (state, add) in state.iter_mut().zip([a, b, c, d]) {
        *state = state.wrapping_add(add);
    }
}

fn tea(state: &mut [u32; 4], input: &[u32; 4]) {
    let [a, b, c, d] = *input;
    let (mut left, mut right, mut sum) = (state[0], state[1], 0_u32);
    let mix = |value: u32, low: u32, high: u32, sum: u32| {
        (value << 4).wrapping_add(low) ^ value.wrapping_add(sum) ^ (value >> 5).wrapping_add(high)
    };
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        left = left.wrapping_add(mix(right, a, b, sum));
        right = right.wrapping_add(mix(left, c, d, sum));
    }
    state[0] = state[0].wrapping_add(left);
    state[1] = state[1].wrapping_add(right);
}

/// Where the root tells of the tree, behind the entries for `.` and `..`.
const ROOT_INFO: usize = 0x18;
/// Where the entries of an inner node begin, behind what looks like one empty entry.
const INNER: usize = 8;
/// With the feature `large_dir`; 1 without.
const MAX_LEVELS: u8 = 3;
