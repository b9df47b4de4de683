//! Marvin32, the hash of entries in logs of the registry: Microsoft's US patent 20130262421, and .NET's `Marvin.cs`.

/// The hash of bytes.
pub(super) fn marvin32(bytes: &[u8], seed: u64) -> u64 {
    let (mut low, mut high) = (seed as u32, (seed >> 32) as u32);
    let mut mix = |word: u32| {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    };
    let (words, rest) = bytes.as_chunks::<4>();
    words.iter().for_each(|word| mix(u32::from_le_bytes(*word)));
    let mut last = [0; 4];
    last.iter_mut().zip(rest.iter().chain(&[0x80])).for_each(|(target, byte)| *target = *byte);
    mix(u32::from_le_bytes(last));
    mix(0);
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_dot_net_come_out() {
        let seed = 0x004f_b61a_001b_dbcc;
        assert_eq!(marvin32(&[], seed), 0x30ed_35c1_00cd_3c7d);
        assert_eq!(marvin32(&[0xaf], seed), 0x48e7_3fc7_7d75_ddc1);
        assert_eq!(marvin32(&[0xe7, 0x0f], seed), 0xb5f6_e1fc_485d_bff8);
        assert_eq!(marvin32(&[0x37, 0xf4, 0x95], seed), 0xf0b0_7c78_9b8c_f7e8);
    }
}
