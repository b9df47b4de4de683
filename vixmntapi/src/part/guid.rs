//! GUIDs as Microsoft and UEFI store them.

use std::fmt;

/// A GUID, in the order in which it is written; disks have its first three fields little-endian.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(u128);

impl Guid {
    /// From the number whose 32 hexadecimal digits are those of the GUID as it is written.
    pub const fn new(digits: u128) -> Self {
        Self(digits)
    }

    /// From the 16 bytes on a disk.
    pub const fn from_disk(bytes: [u8; 16]) -> Self {
        let [a3, a2, a1, a0, b1, b0, c1, c0, rest @ ..] = bytes;
        let [d0, d1, e0, e1, e2, e3, e4, e5] = rest;
        Self(u128::from_be_bytes([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, e0, e1, e2, e3, e4, e5]))
    }

    /// Whether all bits are 0, which stands for nothing.
    pub const fn is_nil(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Guid {
    /// In lower case, as Linux writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let mut rest = digits.as_str();
        for (number, len) in [8, 4, 4, 4, 12].into_iter().enumerate() {
            let (part, after) = rest.split_at(len);
            rest = after;
            write!(f, "{}{part}", if number == 0 { "" } else { "-" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_fields_are_little_endian_on_disks() {
        let disk = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        assert_eq!(Guid::from_disk(disk).to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(Guid::from_disk(disk), Guid::new(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b));
    }
}
