//! LZO1X as Btrfs frames it: `Documentation/staging/lzo.rst`, `fs/btrfs/lzo.c`.

/// Unpacks an extent of `len` bytes: its whole length, then pieces of a sector each with their lengths, which do not
/// cross the sectors in which they are stored. `None` when it is damaged.
pub(super) fn unpack(packed: &[u8], len: usize, sector: usize) -> Option<Vec<u8>> {
    let number = |at: usize| crate::bytes::le_u32(packed, at).map(|number| number as usize);
    let end = number(0)?.min(packed.len());
    let mut at = 4;
    let mut out = Vec::with_capacity(len);
    while out.len() < len && at + 4 <= end {
        let piece = number(at)?;
        at += 4;
        let bytes = packed.get(at..at.checked_add(piece)?)?;
        let before = out.len();
        piece_into(&mut out, bytes, before + sector.min(len - before))?;
        if out.len() == before {
            return None;
        }
        at += piece;
        let left = sector - at % sector;
        if left < 4 {
            at += left;
        }
    }
    // What was not written is zero.
    out.resize(len, 0);
    Some(out)
}

/// Unpacks one stream behind what is there, up to `limit` bytes in all. Distances do not reach into other streams.
fn piece_into(out: &mut Vec<u8>, packed: &[u8], limit: usize) -> Option<()> {
    let start = out.len();
    let mut input = Input { packed, at: 0 };
    // How many literals came before this instruction: 0 to 3, or 4 for more.
    let mut state = 0;
    let first = input.byte()?;
    if first > 17 {
        let count = usize::from(first) - 17;
        literals(out, &mut input, count, limit)?;
        state = count.min(4);
    } else {
        input.at = 0;
    }
    loop {
        let code = usize::from(input.byte()?);
        let (len, distance, trailing);
        if code >= 64 {
            len = (code >> 5) + 1;
            distance = (usize::from(input.byte()?) << 3) + (code >> 2 & 7) + 1;
            trailing = code & 3;
        } else if code >= 32 {
            len = input.length(code & 31, 31)? + 2;
            let low = input.pair()?;
            distance = (low >> 2) + 1;
            trailing = low & 3;
        } else if code >= 16 {
            len = input.length(code & 7, 7)? + 2;
            let low = input.pair()?;
            let far = ((code & 8) << 11) + (low >> 2);
            if far == 0 {
                return (len == 3).then_some(());
            }
            distance = far + 0x4000;
            trailing = low & 3;
        } else if state == 0 {
            let count = input.length(code, 15)? + 3;
            literals(out, &mut input, count, limit)?;
            state = 4;
            continue;
        } else {
            let high = usize::from(input.byte()?) << 2;
            let near = state < 4;
            len = if near { 2 } else { 3 };
            distance = high + (code >> 2) + if near { 1 } else { 0x801 };
            trailing = code & 3;
        }
        let from = out.len().checked_sub(distance).filter(|from| *from >= start)?;
        if out.len() + len > limit {
            return None;
        }
        for at in from..from + len {
            out.push(*out.get(at)?);
        }
        literals(out, &mut input, trailing, limit)?;
        state = trailing;
    }
}

fn literals(out: &mut Vec<u8>, input: &mut Input<'_>, count: usize, limit: usize) -> Option<()> {
    let bytes = input.packed.get(input.at..input.at.checked_add(count)?)?;
    if out.len() + count > limit {
        return None;
    }
    out.extend_from_slice(bytes);
    input.at += count;
    Some(())
}

struct Input<'a> {
    packed: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.packed.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn pair(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    /// A length that goes on in further bytes when its bits are all zero.
    fn length(&mut self, bits: usize, most: usize) -> Option<usize> {
        if bits != 0 {
            return Some(bits);
        }
        let mut len = most;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255)?,
                more => return Some(len + usize::from(more)),
            }
        }
    }
}
