//! LZX as WIM images and WOF have it: a window of 32 KiB, and chunks that do not know of each other.

use super::{
    bits::{Bits, Code},
    output::Output,
};

/// Fills `output` from a chunk of up to 32 KiB. `None` when the chunk contradicts itself.
pub(super) fn unpack(chunk: &[u8], output: &mut [u8]) -> Option<()> {
    Chunk { bits: Bits::new(chunk), recent: [1; 3], main: [0; MAIN], length: [0; LENGTHS] }
        .unpack(&mut Output::new(output))?;
    calls(output);
    Some(())
}

/// What lasts from one block of a chunk to the next.
struct Chunk<'a> {
    bits: Bits<'a>,
    /// The distances of the last matches.
    recent: [usize; 3],
    /// Lengths of the codes, which the next block's are told by.
    main: [u8; MAIN],
    length: [u8; LENGTHS],
}

/// The codes of a block.
struct Codes {
    main: Code,
    length: Code,
    /// For the last three bits of distances.
    aligned: Option<Code>,
}

impl Chunk<'_> {
    fn unpack(&mut self, output: &mut Output<'_>) -> Option<()> {
        while output.room() > 0 {
            let kind = self.bits.take(3)?;
            let len = match self.bits.take(1)? {
                0 => self.bits.take(16)? as usize,
                _ => DEFAULT_BLOCK,
            };
            if len == 0 || len > output.room() {
                return None;
            }
            match kind {
                VERBATIM => self.packed(None, len, output)?,
                ALIGNED => {
                    let mut lengths = [0; 8];
                    for length in &mut lengths {
                        *length = self.bits.take(3)? as u8;
                    }
                    self.packed(Some(Code::new(&lengths)?), len, output)?;
                }
                STORED => self.stored(len, output)?,
                _ => return None,
            }
        }
        Some(())
    }

    /// A block that is stored as it is, and the three distances before it.
    fn stored(&mut self, len: usize, output: &mut Output<'_>) -> Option<()> {
        self.bits.leave_unit()?;
        for distance in &mut self.recent {
            *distance = u32::from_le_bytes(*self.bits.raw(4)?.first_chunk()?) as usize;
        }
        output.append(self.bits.raw(len)?)?;
        // Bits go on at an even place, if there are more.
        if len % 2 == 1 && output.room() > 0 {
            self.bits.byte()?;
        }
        Some(())
    }

    fn packed(&mut self, aligned: Option<Code>, len: usize, output: &mut Output<'_>) -> Option<()> {
        let (bytes, matches) = self.main.split_at_mut(LITERALS);
        read_lengths(&mut self.bits, bytes)?;
        read_lengths(&mut self.bits, matches)?;
        read_lengths(&mut self.bits, &mut self.length)?;
        let codes = Codes { main: Code::new(&self.main)?, length: Code::new(&self.length)?, aligned };
        let end = output.room() - len;
        while output.room() > end {
            let symbol = codes.main.take(&mut self.bits)?;
            match symbol.checked_sub(LITERALS) {
                None => output.push(symbol as u8)?,
                Some(found) => {
                    let (back, len) = self.found(found, &codes)?;
                    // No match leaves its block.
                    output.copy(back, Some(len).filter(|len| *len <= output.room() - end)?)?;
                }
            }
        }
        Some(())
    }

    /// The distance and length of a match.
    fn found(&mut self, symbol: usize, codes: &Codes) -> Option<(usize, usize)> {
        let (slot, len) = (symbol / 8, symbol % 8);
        let len = match len {
            7 => 7 + codes.length.take(&mut self.bits)?,
            len => len,
        };
        let back = match slot {
            0..3 => {
                self.recent.swap(0, slot);
                self.recent[0]
            }
            slot => {
                let (base, spare) = distances(slot);
                let more = match &codes.aligned {
                    Some(code) if spare >= 3 => {
                        (self.bits.take(spare - 3)? as usize) << 3 | code.take(&mut self.bits)?
                    }
                    _ => self.bits.take(spare)? as usize,
                };
                self.recent = [base + more - 2, self.recent[0], self.recent[1]];
                self.recent[0]
            }
        };
        Some((back, len + SHORTEST))
    }
}

/// The first distance of a slot, two too large, and how many bits are added to it.
fn distances(slot: usize) -> (usize, u32) {
    match slot {
        0..4 => (slot, 0),
        slot => {
            let spare = slot as u32 / 2 - 1;
            ((2 + slot % 2) << spare, spare)
        }
    }
}

/// Reads the lengths of codes, told by how they differ from those before.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Option<()> {
    let mut of_symbols = [0; 20];
    for length in &mut of_symbols {
        *length = bits.take(4)? as u8;
    }
    let code = Code::new(&of_symbols)?;
    let mut at = 0;
    while at < lengths.len() {
        let before = *lengths.get(at)?;
        let less = |symbol: usize| (before + 17 - symbol as u8) % 17;
        let (count, length) = match code.take(bits)? {
            17 => (4 + bits.take(4)?, 0),
            18 => (20 + bits.take(5)?, 0),
            19 => {
                let count = 4 + bits.take(1)?;
                (count, less(code.take(bits).filter(|symbol| *symbol < 17)?))
            }
            symbol => (1, less(symbol)),
        };
        lengths.get_mut(at..at + count as usize)?.fill(length);
        at += count as usize;
    }
    Some(())
}

/// Makes the targets of calls of x86 relative again, which were made absolute because that packs better.
fn calls(output: &mut [u8]) {
    let mut at = 0;
    // A call in the last ten bytes was left alone.
    let end = output.len().saturating_sub(10);
    while at < end {
        if output.get(at) != Some(&CALL) {
            at += 1;
            continue;
        }
        if let Some(target) = output.get_mut(at + 1..).and_then(<[u8]>::first_chunk_mut::<4>) {
            let absolute = i32::from_le_bytes(*target);
            let here = at as i32;
            if (-here..FILE_SIZE).contains(&absolute) {
                let relative = if absolute >= 0 { absolute - here } else { absolute + FILE_SIZE };
                *target = relative.to_le_bytes();
            }
        }
        at += 5;
    }
}

/// Kinds of blocks.
const VERBATIM: u32 = 1;
const ALIGNED: u32 = 2;
const STORED: u32 = 3;
const DEFAULT_BLOCK: usize = 32 << 10;
const LITERALS: usize = 256;
/// Bytes, and eight lengths for each of the 30 slots of distances in 32 KiB.
const MAIN: usize = LITERALS + 8 * 30;
const LENGTHS: usize = 249;
const SHORTEST: usize = 2;
const CALL: u8 = 0xe8;
/// Calls are packed as if any file had this size.
const FILE_SIZE: i32 = 12_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_distances_follow_each_other_without_gaps() {
        let mut next = 3;
        for slot in 3..30 {
            let (base, spare) = distances(slot);
            assert_eq!(base, next, "slot {slot}");
            next = base + (1 << spare);
        }
        assert_eq!(next, 32 << 10);
    }

    #[test]
    fn a_stored_block_is_taken_as_it_is() {
        // Kind 3, and the size 3 in 16 bits; then padding, distances, bytes.
        let mut chunk = vec![0x00, 0x60, 0x00, 0x30];
        chunk.extend([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        chunk.extend(b"abc");
        let mut output = [0; 3];
        unpack(&chunk, &mut output).unwrap();
        assert_eq!(&output, b"abc");
        for len in 0..chunk.len() {
            assert_eq!(unpack(&chunk[..len], &mut output), None, "{len} bytes");
        }
    }

    #[test]
    fn targets_of_calls_become_relative_but_for_the_last() {
        let mut bytes = vec![0; 30];
        bytes[5] = CALL;
        bytes[6..10].copy_from_slice(&1000_i32.to_le_bytes());
        bytes[10] = CALL;
        bytes[11..15].copy_from_slice(&(-3_i32).to_le_bytes());
        bytes[15] = CALL;
        bytes[16..20].copy_from_slice(&(-16_i32).to_le_bytes());
        bytes[20] = CALL;
        let before = bytes.clone();
        calls(&mut bytes);
        let number = |at: usize| i32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!((number(6), number(11), number(16)), (995, FILE_SIZE - 3, -16));
        assert_eq!(bytes[20..], before[20..]);
    }
}
