//! Names of FAT: long ones in UTF-16, short ones in the code page of DOS.

use crate::fs::FileName;

/// A name as the UTF-16 that DOS and Windows store, `None` when it cannot be.
pub(in crate::fs) fn units(name: &FileName) -> Option<Vec<u16>> {
    let mut units = Vec::new();
    let mut rest = name.as_bytes();
    loop {
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => {
                units.extend(text.encode_utf16());
                return Some(units);
            }
            Err(error) => error.valid_up_to(),
        };
        let (text, after) = rest.split_at(valid);
        units.extend(std::str::from_utf8(text).ok()?.encode_utf16());
        // Half of a surrogate pair, as `FileName::from_utf16` keeps it.
        let [0xed, high @ 0xa0..=0xbf, low @ 0x80..=0xbf, after @ ..] = after else { return None };
        units.push(0xd000 | u16::from(high & 0x3f) << 6 | u16::from(low & 0x3f));
        rest = after;
    }
}

/// The capital of a character, for those in one unit of UTF-16 whose capital is one too.
pub(super) fn upcase(unit: u16) -> u16 {
    let Some(char) = char::from_u32(u32::from(unit)) else { return unit };
    let mut capitals = char.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) => u16::try_from(u32::from(capital)).unwrap_or(unit),
        _ => unit,
    }
}

/// Whether two names are one to systems that do not distinguish capitals.
pub(super) fn same(one: &[u16], other: &[u16]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other || upcase(*one) == upcase(*other))
}

/// The text of a short name. `case` says what Windows NT keeps in lower case.
pub(super) fn short(raw: &[u8; 11], case: u8) -> Vec<u16> {
    let (base, extension) = raw.split_at(8);
    let mut units = Vec::with_capacity(12);
    let mut part = |bytes: &[u8], lower: bool| {
        let len = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        for byte in bytes.iter().take(len) {
            let unit = decode(*byte);
            units.push(if lower { lower_case(unit) } else { unit });
        }
        len
    };
    // 0xe5 marks what was deleted; names that begin with it have 0x05 there.
    let mut first = [0; 8];
    first.copy_from_slice(base);
    if first[0] == 0x05 {
        first[0] = 0xe5;
    }
    part(&first, case & LOWER_BASE != 0);
    if extension.iter().any(|byte| *byte != b' ') {
        part(b".", false);
        part(extension, case & LOWER_EXTENSION != 0);
    }
    units
}

/// The text of a label, which is a short name without a dot.
pub(super) fn label(raw: &[u8]) -> Vec<u16> {
    let len = raw.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    raw.iter().take(len).map(|byte| decode(*byte)).collect()
}

/// The checksum by which long names say to which short one they belong.
pub(super) fn checksum(raw: &[u8; 11]) -> u8 {
    raw.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

fn decode(byte: u8) -> u16 {
    let high = byte.checked_sub(0x80).and_then(|high| CODE_PAGE_437.chars().nth(usize::from(high)));
    high.map_or(u16::from(byte), |char| u32::from(char) as u16)
}

/// A character in lower case, if the code page has that one.
fn lower_case(unit: u16) -> u16 {
    let Some(char) = char::from_u32(unit.into()) else { return unit };
    let mut lower = char.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) if lower.is_ascii() || CODE_PAGE_437.contains(lower) => lower as u16,
        _ => unit,
    }
}

/// Flags of Windows NT in the byte after the attributes.
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

/// From 0x80 on. Which code page a volume was written with is nowhere said; this is the one that Linux assumes.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &[u8; 11], case: u8) -> String {
        String::from_utf16(&short(raw, case)).unwrap()
    }

    #[test]
    fn short_names_have_a_dot_a_case_and_a_code_page() {
        assert_eq!(text(b"README  TXT", 0), "README.TXT");
        assert_eq!(text(b"README  TXT", 0x18), "readme.txt");
        assert_eq!(text(b"README  TXT", 0x10), "README.txt");
        assert_eq!(text(b"A B     C  ", 0), "A B.C");
        assert_eq!(text(b"NODOT      ", 0), "NODOT");
        assert_eq!(text(b"\x05\x80\x99       \xff", 0), "σÇÖ.  \u{a0}");
        assert_eq!(text(b"GR\x99\xe1E   \xea\xe4 ", 0x18), "größe.Ωσ");
        assert_eq!(CODE_PAGE_437.chars().count(), 128);
    }

    #[test]
    fn names_are_compared_without_case_and_keep_half_surrogates() {
        let half = [0x61, 0xd800, 0x62];
        assert_eq!(units(&FileName::from_utf16(half)), Some(half.to_vec()));
        assert_eq!(units(&FileName::new(vec![0xff])), None);
        let name = |text: &str| units(&FileName::from(text)).unwrap();
        assert!(same(&name("Größe 漢.txt"), &name("GRÖßE 漢.TXT")));
        assert!(!same(&name("a"), &name("b")));
    }
}
