//! Bits and Huffman codes, as XPRESS and LZX store them: 16 bits at a time, little-endian, the highest bit first.

/// Bits of a chunk, from its first on.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The byte from which the next 16 bits come.
    at: usize,
    /// Bits that were fetched, the next one highest.
    held: u64,
    have: u32,
    /// How many of those are zeros past the end, which may be looked at and not taken.
    beyond: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, have: 0, beyond: 0 }
    }

    /// Fetches until there are so many bits, 17 at most. What XPRESS stores as bytes lies behind what was fetched.
    pub(super) fn need(&mut self, bits: u32) {
        while self.have < bits {
            let unit = match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
                Some(unit) => {
                    self.at += 2;
                    u16::from_le_bytes(*unit)
                }
                None => {
                    self.beyond += 16;
                    0
                }
            };
            self.held |= u64::from(unit) << (48 - self.have);
            self.have += 16;
        }
    }

    /// Takes up to 17 bits as a number.
    pub(super) fn take(&mut self, bits: u32) -> Option<u32> {
        self.need(bits);
        let number = self.peek(bits);
        self.skip(bits)?;
        Some(number)
    }

    /// Takes a byte that is stored whole.
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.raw(1)?.first().copied()
    }

    /// Takes bytes that are stored whole, behind what was fetched.
    pub(super) fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(bytes)
    }

    /// Leaves the 16 bits that were begun, or the next 16 when none were, and gives back what was fetched beyond.
    pub(super) fn leave_unit(&mut self) -> Option<()> {
        self.need(1);
        self.skip(if self.have.is_multiple_of(16) { 16 } else { self.have % 16 })?;
        // Zeros past the end were not fetched from anywhere.
        self.at -= (self.have - self.beyond) as usize / 8;
        (self.held, self.have, self.beyond) = (0, 0, 0);
        Some(())
    }

    fn peek(&self, bits: u32) -> u32 {
        (self.held >> 1 >> (63 - bits)) as u32
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        self.held <<= bits;
        self.have -= bits;
        (self.have >= self.beyond).then_some(())
    }
}

/// A canonical Huffman code of up to 512 symbols and 16 bits.
#[derive(Debug)]
pub(super) struct Code {
    /// By the next bits: a symbol and its length; zero where more bits are needed or none has that code.
    fast: [u16; 1 << FAST],
    /// By length: the first code, how many there are, and where their symbols begin.
    lengths: [(u32, u32, u32); LONGEST + 1],
    /// Symbols in the order of their codes.
    symbols: [u16; MOST],
}

impl Code {
    /// Makes a code from the length of each symbol's, 0 for symbols that have none. `None` when no code is such. A code
    /// that leaves bits without a symbol is taken: then those bits are refused.
    pub(super) fn new(of_symbols: &[u8]) -> Option<Self> {
        let mut code = Self { fast: [0; 1 << FAST], lengths: [(0, 0, 0); LONGEST + 1], symbols: [0; MOST] };
        for len in of_symbols.iter().filter(|len| **len > 0) {
            code.lengths.get_mut(usize::from(*len))?.1 += 1;
        }
        let (mut first, mut place) = (0, 0);
        for (len, (of_len, count, symbols)) in code.lengths.iter_mut().enumerate().skip(1) {
            first <<= 1;
            (*of_len, *symbols) = (first, place);
            first += *count;
            place += *count;
            if first > 1 << len {
                return None;
            }
        }
        let mut next = code.lengths.map(|(first, _, place)| (first, place as usize));
        for (symbol, len) in of_symbols.iter().enumerate().filter(|(_, len)| **len > 0) {
            let len = usize::from(*len);
            let (value, place) = next.get_mut(len)?;
            *code.symbols.get_mut(*place)? = symbol as u16;
            if len <= FAST {
                let from = (*value as usize) << (FAST - len);
                code.fast.get_mut(from..from + (1 << (FAST - len)))?.fill((symbol as u16) << 4 | len as u16);
            }
            *value += 1;
            *place += 1;
        }
        Some(code)
    }

    /// Takes the next symbol.
    pub(super) fn take(&self, bits: &mut Bits<'_>) -> Option<usize> {
        bits.need(LONGEST as u32);
        let fast = *self.fast.get(bits.peek(FAST as u32) as usize)?;
        if fast != 0 {
            bits.skip(u32::from(fast & 0xf))?;
            return Some(usize::from(fast >> 4));
        }
        for (len, (first, count, place)) in self.lengths.iter().enumerate().skip(FAST + 1) {
            let into = bits.peek(len as u32).wrapping_sub(*first);
            if into < *count {
                bits.skip(len as u32)?;
                return self.symbols.get((place + into) as usize).map(|symbol| usize::from(*symbol));
            }
        }
        None
    }
}

const LONGEST: usize = 16;
const FAST: usize = 10;
const MOST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_from_the_highest_of_each_16() {
        let mut bits = Bits::new(&[0x34, 0x92, 0xff, 0x00, 7, 8]);
        assert_eq!((bits.take(1), bits.take(3), bits.take(12)), (Some(1), Some(1), Some(0x234)));
        assert_eq!((bits.take(0), bits.take(9), bits.byte(), bits.take(7)), (Some(0), Some(1), Some(7), Some(0x7f)));
        assert_eq!(bits.take(1), None, "a single byte is no 16 bits");
    }

    #[test]
    fn a_unit_that_was_begun_is_left_and_what_was_fetched_beyond_is_given_back() {
        let mut bits = Bits::new(&[0, 0x80, 1, 2, 3, 4]);
        assert_eq!(bits.take(1), Some(1));
        bits.need(17);
        bits.leave_unit().unwrap();
        assert_eq!(bits.raw(1), Some(&[1][..]));
        let mut bits = Bits::new(&[1, 2, 3, 4]);
        assert_eq!(bits.take(16), Some(0x201));
        bits.leave_unit().unwrap();
        assert_eq!((bits.raw(1), bits.leave_unit()), (None, None));
    }

    #[test]
    fn codes_are_given_by_length_and_then_by_symbol() {
        let mut lengths = [0; 300];
        (lengths[7], lengths[9], lengths[11], lengths[299]) = (1, 12, 2, 12);
        let code = Code::new(&lengths).unwrap();
        // 0, 10, and then 1100 0000 0000 and the next.
        let mut bits = Bits::new(&[0b0000_0000, 0b0101_1000, 0b0001_0000, 0b0110_0000]);
        let symbols: Vec<_> = (0..4).map(|_| code.take(&mut bits)).collect();
        assert_eq!(symbols, [Some(7), Some(11), Some(11 - 2), Some(7)], "{bits:?}");
        assert!(Code::new(&[1, 1, 1]).is_none());
        assert!(Code::new(&[17]).is_none());
        assert_eq!(Code::new(&[0, 0]).unwrap().take(&mut Bits::new(&[0, 0])), None);
    }
}
