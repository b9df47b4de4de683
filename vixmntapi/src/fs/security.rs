//! Security descriptors of Windows: owner, group and lists of who may do what, and their text (SDDL).
//!
//! After MS-DTYP sections 2.4.2 to 2.4.6 and 2.5.1. Nothing here is trusted.

use std::fmt;

use crate::{
    bytes::{array, le_u16, le_u32, u8_at},
    error::{Error, Result},
    part::Guid,
};

/// A security descriptor, from the bytes that [`FileSystem::security_descriptor`](super::FileSystem::security_descriptor)
/// gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityDescriptor {
    control: u16,
    owner: Option<Sid>,
    group: Option<Sid>,
    discretionary: Acl,
    system: Acl,
}

/// Whom Windows knows: a user, a group, a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sid {
    authority: u64,
    parts: Vec<u32>,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Acl {
    Absent,
    /// Everybody may do everything.
    Null,
    Entries(Vec<Ace>),
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ace {
    kind: u8,
    flags: u8,
    mask: u32,
    object: Option<Guid>,
    inherited_object: Option<Guid>,
    sid: Sid,
}

impl SecurityDescriptor {
    /// Reads a self-relative descriptor.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = |problem: &str| Error::damaged(WHAT, problem);
        let place = |at: usize| le_u32(bytes, at).map(|at| at as usize).ok_or_else(|| damaged("it is too short"));
        let sid = |at: usize, whose: &str| match place(at)? {
            0 => Ok(None),
            at => Sid::parse(bytes.get(at..).unwrap_or_default()).map(Some).ok_or_else(|| damaged(whose)),
        };
        let control = le_u16(bytes, 2).filter(|_| u8_at(bytes, 0) == Some(1)).ok_or_else(|| damaged("its version"))?;
        let acl = |at: usize, present: u16, whose: &str| match (control & present, place(at)?) {
            (0, _) => Ok(Acl::Absent),
            (_, 0) => Ok(Acl::Null),
            (_, at) => Acl::parse(bytes.get(at..).unwrap_or_default()).ok_or_else(|| damaged(whose)),
        };
        Ok(Self {
            control,
            owner: sid(4, "its owner")?,
            group: sid(8, "its group")?,
            discretionary: acl(16, DACL_PRESENT, "its discretionary list")?,
            system: acl(12, SACL_PRESENT, "its system list")?,
        })
    }

    /// Whose the file is.
    pub fn owner(&self) -> Option<&Sid> {
        self.owner.as_ref()
    }

    /// Its group, which counts for POSIX programs only.
    pub fn group(&self) -> Option<&Sid> {
        self.group.as_ref()
    }

    /// The descriptor as text, `O:BAG:SYD:PAI(A;OICI;FA;;;BA)`: what `Get-Acl` of PowerShell shows, and `Set-Acl` and
    /// `icacls` take. Well-known names are two letters, others numbers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for entries with conditions or attributes of resources, which are programs of their own.
    #[doc(alias = "ConvertSecurityDescriptorToStringSecurityDescriptor")]
    pub fn to_sddl(&self) -> Result<String> {
        let mut text = String::new();
        for (sid, key) in [(&self.owner, 'O'), (&self.group, 'G')] {
            if let Some(sid) = sid {
                text.push_str(&format!("{key}:{}", sid.short()));
            }
        }
        self.discretionary.write(&mut text, 'D', [DACL_PROTECTED, DACL_REQUESTED, DACL_INHERITED], self.control)?;
        self.system.write(&mut text, 'S', [SACL_PROTECTED, SACL_REQUESTED, SACL_INHERITED], self.control)?;
        Ok(text)
    }
}

impl Acl {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.get(8..usize::from(le_u16(bytes, 2)?))?;
        let count = usize::from(le_u16(bytes, 4)?);
        let mut entries = Vec::new();
        for _ in 0..count {
            let (entry, after) = rest.split_at_checked(usize::from(le_u16(rest, 2)?))?;
            entries.push(Ace::parse(entry)?);
            rest = after;
        }
        Some(Self::Entries(entries))
    }

    /// `flags`: the bits of the descriptor that say of this list that it is protected, is to be inherited, and was.
    fn write(&self, text: &mut String, key: char, flags: [u16; 3], control: u16) -> Result<()> {
        if *self == Self::Absent {
            return Ok(());
        }
        text.push(key);
        text.push(':');
        for (flag, name) in flags.into_iter().zip(["P", "AR", "AI"]) {
            if control & flag != 0 {
                text.push_str(name);
            }
        }
        match self {
            Self::Entries(entries) => entries.iter().try_for_each(|entry| entry.write(text))?,
            _ => text.push_str("NO_ACCESS_CONTROL"),
        }
        Ok(())
    }
}

impl Ace {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = u8_at(bytes, 0)?;
        let mut at = 8;
        let mut guids = [None; 2];
        if matches!(kind, 5..=8 | 0x0b | 0x0c | 0x0f | 0x10) {
            let there = le_u32(bytes, at)?;
            at += 4;
            for (number, guid) in guids.iter_mut().enumerate() {
                if there >> number & 1 != 0 {
                    *guid = Some(Guid::from_disk(array(bytes, at)?));
                    at += 16;
                }
            }
        }
        let [object, inherited_object] = guids;
        let sid = Sid::parse(bytes.get(at..)?)?;
        Some(Self { kind, flags: u8_at(bytes, 1)?, mask: le_u32(bytes, 4)?, object, inherited_object, sid })
    }

    fn write(&self, text: &mut String) -> Result<()> {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind);
        let (_, kind) = kind
            .ok_or_else(|| Error::unsupported(WHAT, format!("an entry of kind {:#x} has no text here", self.kind)))?;
        let flags = FLAGS.iter().filter(|(bit, _)| self.flags & bit != 0);
        let flags: String = flags.map(|(_, name)| *name).collect();
        let rights = match RIGHTS.iter().find(|(mask, _)| *mask == self.mask) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("{:#x}", self.mask),
        };
        let guid = |guid: Option<Guid>| guid.map(|guid| guid.to_string()).unwrap_or_default();
        let (object, inherited) = (guid(self.object), guid(self.inherited_object));
        text.push_str(&format!("({kind};{flags};{rights};{object};{inherited};{})", self.sid.short()));
        Ok(())
    }
}

impl Sid {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let count = usize::from(u8_at(bytes, 1)?);
        if u8_at(bytes, 0)? != 1 || count > MOST_PARTS {
            return None;
        }
        let authority = array::<6>(bytes, 2)?.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte));
        let parts = (0..count).map(|part| le_u32(bytes, 8 + 4 * part)).collect::<Option<_>>()?;
        Some(Self { authority, parts })
    }

    /// Two letters for one that is the same everywhere.
    fn short(&self) -> String {
        let parts = &*self.parts;
        let known = KNOWN.iter().find(|(authority, of_known, _)| *authority == self.authority && *of_known == parts);
        known.map_or_else(|| self.to_string(), |(.., name)| (*name).to_owned())
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.authority) {
            Ok(authority) => write!(f, "S-1-{authority}")?,
            Err(_) => write!(f, "S-1-{:#014x}", self.authority)?,
        }
        self.parts.iter().try_for_each(|part| write!(f, "-{part}"))
    }
}

/// For messages.
const WHAT: &str = "a security descriptor";
/// `SECURITY_DESCRIPTOR_CONTROL`, MS-DTYP section 2.4.6.
const DACL_PRESENT: u16 = 4;
const SACL_PRESENT: u16 = 0x10;
const DACL_REQUESTED: u16 = 0x100;
const SACL_REQUESTED: u16 = 0x200;
const DACL_INHERITED: u16 = 0x400;
const SACL_INHERITED: u16 = 0x800;
const DACL_PROTECTED: u16 = 0x1000;
const SACL_PROTECTED: u16 = 0x2000;
/// `SID_MAX_SUB_AUTHORITIES`.
const MOST_PARTS: usize = 15;
/// MS-DTYP section 2.4.4.1.
const KINDS: [(u8, &str); 9] =
    [(0, "A"), (1, "D"), (2, "AU"), (3, "AL"), (5, "OA"), (6, "OD"), (7, "OU"), (0x11, "ML"), (0x13, "SP")];
const FLAGS: [(u8, &str); 7] = [(1, "OI"), (2, "CI"), (4, "NP"), (8, "IO"), (0x10, "ID"), (0x40, "SA"), (0x80, "FA")];
/// All that files have, and the rights that stand for others.
const RIGHTS: [(u32, &str); 8] = [
    (0x001f_01ff, "FA"),
    (0x0012_0089, "FR"),
    (0x0012_0116, "FW"),
    (0x0012_00a0, "FX"),
    (0x1000_0000, "GA"),
    (0x2000_0000, "GX"),
    (0x4000_0000, "GW"),
    (0x8000_0000, "GR"),
];
/// MS-DTYP section 2.5.1.1: those that are no part of a domain.
const KNOWN: &[(u64, &[u32], &str)] = &[
    (1, &[0], "WD"),
    (3, &[0], "CO"),
    (3, &[1], "CG"),
    (3, &[4], "OW"),
    (5, &[2], "NU"),
    (5, &[4], "IU"),
    (5, &[6], "SU"),
    (5, &[7], "AN"),
    (5, &[9], "ED"),
    (5, &[10], "PS"),
    (5, &[11], "AU"),
    (5, &[12], "RC"),
    (5, &[18], "SY"),
    (5, &[19], "LS"),
    (5, &[20], "NS"),
    (5, &[32, 544], "BA"),
    (5, &[32, 545], "BU"),
    (5, &[32, 546], "BG"),
    (5, &[32, 547], "PU"),
    (5, &[32, 548], "AO"),
    (5, &[32, 549], "SO"),
    (5, &[32, 550], "PO"),
    (5, &[32, 551], "BO"),
    (5, &[32, 552], "RE"),
    (5, &[32, 554], "RU"),
    (5, &[32, 555], "RD"),
    (5, &[32, 556], "NO"),
    (15, &[2, 1], "AC"),
    (16, &[4096], "LW"),
    (16, &[8192], "ME"),
    (16, &[12288], "HI"),
    (16, &[16384], "SI"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A descriptor with a system list of one label and a discretionary list, present or null.
    fn descriptor(null: bool) -> Vec<u8> {
        let mut bytes = vec![1, 0, 0x14, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, if null { 0 } else { 48 }, 0, 0, 0];
        bytes.extend([2, 0, 28, 0, 1, 0, 0, 0, 0x11, 0, 20, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 16, 0, 16, 0, 0]);
        bytes.extend([2, 0, 8, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn labels_and_lists_that_are_null_or_empty_have_a_text() {
        for (null, text) in [(true, "D:NO_ACCESS_CONTROLS:(ML;;0x1;;;LW)"), (false, "D:S:(ML;;0x1;;;LW)")] {
            let read = SecurityDescriptor::parse(&descriptor(null)).unwrap();
            assert_eq!(read.to_sddl().unwrap(), text);
            assert_eq!((read.owner(), read.group()), (None, None));
        }
        let mut conditional = descriptor(false);
        conditional[28] = 9;
        assert!(matches!(SecurityDescriptor::parse(&conditional).unwrap().to_sddl(), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn what_is_cut_off_or_leads_outside_is_damaged() {
        let whole = descriptor(false);
        for len in 0..whole.len() {
            assert!(matches!(SecurityDescriptor::parse(&whole[..len]), Err(Error::Damaged { .. })), "{len} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 5, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = SecurityDescriptor::parse(&bytes).and_then(|read| read.to_sddl());
            }
        }
    }

    #[test]
    fn an_authority_of_more_than_32_bits_is_written_in_hexadecimal() {
        let sid = |authority| Sid { authority, parts: vec![7] }.to_string();
        assert_eq!((sid(5), sid(0x10_0000_0000)), ("S-1-5-7".into(), "S-1-0x001000000000-7".into()));
    }
}
