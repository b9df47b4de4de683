//! FastLZ blocks, both levels: literals and references to bytes before them.
//!
//! An instruction is a byte `c`. Below 32, `c + 1` literals follow. Else it copies bytes from a
//! distance: the upper three bits are the length less 2 (7: more of it follows), the lower five the
//! upper bits of the distance less 1, whose lower eight follow. Level 2 has lengths without a limit
//! and, behind the distance 8191, a longer one. The first instruction is always literals, so its
//! upper bits are free to tell the level.
//!
//! The encoder here is our own; blocks are read by the public reference, which wants some literals
//! at the end, and the other way round (`tests/it/fastlz.rs`).

use crate::wire::WireError;

/// Shorter data is not compressed.
const MIN_LEN: usize = 16;
/// From so many bytes on, level 2 is used.
const LEVEL_2_LEN: usize = 64 * 1024;
/// The last bytes are literals, and no reference begins in the last ones.
const TAIL: usize = 4;
const LAST_START: usize = 13;
/// The most literals of an instruction.
const MAX_LITERALS: usize = 32;
/// What is looked for. Three bytes could be referred to, but save one byte at most.
const MIN_MATCH: usize = 4;
/// What a reference over a long distance, four bytes, has to save.
const MIN_FAR_MATCH: usize = 6;
/// The longest reference of level 1.
const MAX_MATCH_1: usize = 264;
/// Distances less 1 that fit into an instruction; level 2 uses the last one as a mark.
const NEAR_1: usize = 8192;
const NEAR_2: usize = 8191;
/// Distances less 1 of level 2.
const FAR_2: usize = NEAR_2 + 65536;
/// Lengths less 3 from here on are continued behind the instruction.
const LONG: usize = 6;

const HASH_BITS: u32 = 13;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    One,
    Two,
}

/// A block that is shorter than `data`, if there is one.
pub(super) fn compress(data: &[u8]) -> Option<Vec<u8>> {
    compress_at(data, if data.len() < LEVEL_2_LEN { Level::One } else { Level::Two })
}

fn compress_at(data: &[u8], level: Level) -> Option<Vec<u8>> {
    if data.len() < MIN_LEN || u32::try_from(data.len()).is_err() {
        return None;
    }
    let reach = match level {
        Level::One => NEAR_1,
        Level::Two => FAR_2,
    };
    let mut block = Block { level, out: Vec::with_capacity(data.len()), room: data.len() - 1 };
    // The latest place of four bytes with this hash.
    let mut places = [0u32; 1 << HASH_BITS];
    let mut literals = 0;
    let mut at = 1;
    while at + LAST_START <= data.len() {
        let word = word(data, at);
        // Less than the length, which is a u32.
        let earlier = std::mem::replace(&mut places[hash(word)], at as u32) as usize;
        let distance = at - earlier;
        let mut len = 0;
        if distance <= reach && distance > 0 && self::word(data, earlier) == word {
            len = MIN_MATCH + common(data, earlier + MIN_MATCH, at + MIN_MATCH, data.len() - TAIL);
            if distance > NEAR_2 && len < MIN_FAR_MATCH {
                len = 0;
            }
        }
        if len == 0 {
            // What has not been compressible for a while is searched less closely.
            at += 1 + ((at - literals) >> 6);
            continue;
        }
        block.literals(&data[literals..at])?;
        block.reference(distance - 1, len)?;
        at += len;
        literals = at;
        if at + LAST_START <= data.len() {
            places[hash(self::word(data, at - 1))] = (at - 1) as u32;
        }
    }
    block.literals(&data[literals..])?;
    if level == Level::Two {
        block.out[0] |= 1 << 5;
    }
    Some(block.out)
}

/// A block that is being written. Every step is `None` when the block gets as long as its data.
struct Block {
    level: Level,
    out: Vec<u8>,
    /// The most bytes that are of use.
    room: usize,
}

impl Block {
    fn literals(&mut self, data: &[u8]) -> Option<()> {
        for part in data.chunks(MAX_LITERALS) {
            // At most 31.
            self.out.push((part.len() - 1) as u8);
            self.out.extend_from_slice(part);
        }
        self.fits()
    }

    /// A reference to `len` bytes at the distance `back + 1`.
    fn reference(&mut self, back: usize, mut len: usize) -> Option<()> {
        match self.level {
            Level::One => {
                while len > MAX_MATCH_1 {
                    // What is left has to be long enough for another one.
                    let part = MAX_MATCH_1.min(len - 3);
                    self.instruction(back >> 8, part - 3);
                    self.out.push(back as u8);
                    len -= part;
                }
                self.instruction(back >> 8, len - 3);
                self.out.push(back as u8);
            }
            Level::Two if back < NEAR_2 => {
                self.instruction(back >> 8, len - 3);
                self.out.push(back as u8);
            }
            Level::Two => {
                self.instruction(31, len - 3);
                self.out.push(255);
                // Within reach, so it fits.
                self.out.extend(((back - NEAR_2) as u16).to_be_bytes());
            }
        }
        self.fits()
    }

    fn instruction(&mut self, high: usize, len: usize) {
        // Both parts fit: 5 bits of distance, 3 of length.
        self.out.push(((len.min(LONG) + 1) << 5 | high) as u8);
        let Some(mut more) = len.checked_sub(LONG) else { return };
        while self.level == Level::Two && more >= 255 {
            self.out.push(255);
            more -= 255;
        }
        self.out.push(more as u8);
    }

    fn fits(&self) -> Option<()> {
        (self.out.len() <= self.room).then_some(())
    }
}

fn word(data: &[u8], at: usize) -> u32 {
    crate::wire::u32_at(data, at)
}

fn hash(word: u32) -> usize {
    (word.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
}

/// How many bytes from `a` and from `b`, which is behind it, are the same, up to `end`.
fn common(data: &[u8], a: usize, b: usize, end: usize) -> usize {
    const STEP: usize = 8;
    let (earlier, later) = (&data[a..], &data[b..end]);
    let mut len = 0;
    for (one, other) in earlier.chunks_exact(STEP).zip(later.chunks_exact(STEP)) {
        let (one, other) = (crate::wire::u64_at(one, 0), crate::wire::u64_at(other, 0));
        if one != other {
            return len + ((one ^ other).trailing_zeros() / 8) as usize;
        }
        len += STEP;
    }
    len + earlier[len..].iter().zip(&later[len..]).take_while(|(one, other)| one == other).count()
}

/// Fills `out`.
pub(super) fn decompress_into(data: &[u8], out: &mut [u8]) -> Result<(), WireError> {
    let mut input = Input(data);
    let first = input.byte()?;
    let level = match first >> 5 {
        0 => Level::One,
        1 => Level::Two,
        other => return Err(WireError::field("the level of a FastLZ fragment", other)),
    };
    let mut instruction = first & 31;
    let mut at = 0;
    loop {
        if usize::from(instruction) < MAX_LITERALS {
            let literals = input.bytes(usize::from(instruction) + 1)?;
            let place = out.get_mut(at..at + literals.len()).ok_or(TOO_LONG)?;
            place.copy_from_slice(literals);
            at += literals.len();
        } else {
            let (back, len) = input.reference(level, instruction)?;
            if back >= at {
                return Err(WireError::Malformed("a FastLZ fragment refers to what is before it"));
            }
            if len > out.len() - at {
                return Err(TOO_LONG);
            }
            repeat(out, at, back + 1, len);
            at += len;
        }
        match input.0.split_first() {
            Some((next, rest)) => (instruction, input.0) = (*next, rest),
            None if at == out.len() => return Ok(()),
            None => return Err(WireError::Malformed("a FastLZ fragment is too short")),
        }
    }
}

const TOO_LONG: WireError = WireError::Malformed("a FastLZ fragment is too long");
const CUT_OFF: WireError = WireError::Malformed("a FastLZ fragment is cut off");

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, WireError> {
        let (byte, rest) = self.0.split_first().ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// The rest of a reference: its distance less 1, and its length.
    fn reference(&mut self, level: Level, instruction: u8) -> Result<(usize, usize), WireError> {
        let high = usize::from(instruction & 31);
        let mut len = usize::from(instruction >> 5) - 1;
        if len == LONG {
            loop {
                let more = self.byte()?;
                // At most 255 for each byte of the block.
                len += usize::from(more);
                if level == Level::One || more < 255 {
                    break;
                }
            }
        }
        let mut back = high << 8 | usize::from(self.byte()?);
        if level == Level::Two && back == NEAR_2 {
            back += usize::from(self.byte()?) << 8 | usize::from(self.byte()?);
        }
        Ok((back, len + 3))
    }
}

/// Copies `len` bytes to `at` from `distance` before it; what is copied may be part of the source.
fn repeat(out: &mut [u8], at: usize, distance: usize, len: usize) {
    let start = at - distance;
    if distance == 1 {
        let byte = out[start];
        out[at..at + len].fill(byte);
        return;
    }
    // Every copy doubles what can be copied at once.
    let mut done = 0;
    while done < len {
        let part = (distance + done).min(len - done);
        out.copy_within(start..start + part, at + done);
        done += part;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::hex;

    fn unpacked(block: &[u8], len: usize) -> Vec<u8> {
        let mut out = vec![0xEE; len];
        decompress_into(block, &mut out).unwrap();
        out
    }

    /// The annotated example E8: 65536 zeros in 262 bytes.
    #[test]
    fn zeros_of_the_annotated_example_decode() {
        let block = hex(&format!("210000e0{}f500", "ff".repeat(256)));
        assert_eq!(block.len(), 262);
        assert_eq!(unpacked(&block, 65536), [0; 65536]);
    }

    /// As packed by pyfastlz 0.0.1, which wraps the public reference.
    #[test]
    fn blocks_of_the_reference_decode() {
        let count: Vec<u8> = (0..30).collect();
        let data = [&count, b"abc".repeat(90).as_slice(), &count].concat();
        let first = "1f000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d6162";
        let second = first.replacen("1f", "3f", 1);
        let one = hex(&format!("{first}0063e0fd026002e1102b04191a1b1c1d"));
        let two = hex(&format!("{second}0063e0ff0302e1102b04191a1b1c1d"));
        assert_eq!(unpacked(&one, data.len()), data);
        assert_eq!(unpacked(&two, data.len()), data);
    }

    #[test]
    fn level_follows_from_the_length() {
        assert_eq!(compress(&[0; 65535]).unwrap()[0] >> 5, 0);
        assert_eq!(compress(&[0; 65536]).unwrap()[0] >> 5, 1);
    }

    #[test]
    fn distances_at_the_edges_of_each_form_come_back() {
        for distance in [1, 2, 7, 8190, 8191, 8192, 8193, 73726, 73727, 73728] {
            let mut data = super::super::noise(distance.max(20));
            let from = data.len() - distance;
            for at in from..from + 700 {
                data.push(data[at]);
            }
            data.extend_from_slice(&[0; 5000]);
            for level in [Level::One, Level::Two] {
                let block = compress_at(&data, level).unwrap();
                assert!(unpacked(&block, data.len()) == data, "{distance} {level:?}");
            }
        }
    }

    #[test]
    fn lengths_at_the_edges_of_each_form_come_back() {
        for len in (16..1100).chain([65535, 65536, 65537]) {
            let data = vec![7; len];
            for level in [Level::One, Level::Two] {
                if let Some(block) = compress_at(&data, level) {
                    assert!(unpacked(&block, len) == data, "{len} {level:?}");
                }
            }
        }
    }

    #[test]
    fn hostile_blocks_are_refused() {
        for (what, block) in [
            ("nothing", ""),
            ("level 3", "4061"),
            ("literals cut off", "0261"),
            ("length cut off", "0061e0"),
            ("distance cut off", "006120"),
            ("before the start", "00612001"),
            ("long distance cut off", "20613fff00"),
            ("length without an end", "2061e0ffffffffff"),
        ] {
            assert!(decompress_into(&hex(block), &mut [0; 64]).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn both_levels_give_the_same_bytes_back(data in super::super::fragments()) {
            for level in [Level::One, Level::Two] {
                if let Some(block) = compress_at(&data, level) {
                    prop_assert!(unpacked(&block, data.len()) == data, "{:?}", level);
                }
            }
        }
    }
}
