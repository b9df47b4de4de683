//! What partitions are for.

use std::fmt;

use super::Guid;

/// What a partition is for, as its table says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartitionKind {
    /// The type byte of an MBR.
    Mbr(u8),
    /// The type GUID of a GPT.
    Gpt(Guid),
}

/// What a partition holds, as far as its type tells. The content decides: types are often wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// A file system of Linux, or anything else that Linux uses.
    Linux,
    /// A file system of Windows.
    Windows,
    /// A FAT file system from which UEFI boots.
    EfiSystem,
    /// The second stage of GRUB.
    BiosBoot,
    /// Room that Windows keeps for itself, without content.
    MicrosoftReserved,
    /// The repair system of Windows.
    Recovery,
    /// The database of Windows' dynamic disks.
    LdmMetadata,
    /// The data of Windows' dynamic disks; of an MBR the database too.
    LdmData,
    /// Storage Spaces of Windows.
    StorageSpaces,
    /// A physical volume of LVM2.
    Lvm,
    /// A member of an array of Linux md.
    Raid,
    /// Swap space of Linux.
    Swap,
    /// Encrypted with LUKS or dm-crypt.
    Encrypted,
    /// A type that means nothing here.
    Other,
}

impl PartitionKind {
    /// What the partition holds, as far as the type tells.
    pub fn role(self) -> Role {
        match self {
            Self::Mbr(byte) => of_byte(byte),
            Self::Gpt(guid) => of_guid(guid),
        }
    }
}

impl fmt::Display for PartitionKind {
    /// As `sfdisk --dump` writes it: hexadecimal digits or a GUID, in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr(byte) => write!(f, "{byte:x}"),
            Self::Gpt(guid) => write!(f, "{guid}"),
        }
    }
}

/// <https://www.win.tue.nl/~aeb/partitions/partition_types-1.html>
fn of_byte(byte: u8) -> Role {
    match byte {
        0x01 | 0x04 | 0x06 | 0x07 | 0x0b | 0x0c | 0x0e | 0x11 | 0x14 | 0x16 | 0x17 | 0x1b | 0x1c | 0x1e => {
            Role::Windows
        }
        0x27 => Role::Recovery,
        0x42 => Role::LdmData,
        0x82 => Role::Swap,
        0x83 => Role::Linux,
        0x8e => Role::Lvm,
        0xe7 => Role::StorageSpaces,
        0xe8 => Role::Encrypted,
        0xef => Role::EfiSystem,
        0xfd => Role::Raid,
        _ => Role::Other,
    }
}

fn of_guid(guid: Guid) -> Role {
    let known = ROLES.iter().find(|(known, _)| *known == guid);
    known.map_or(Role::Other, |(_, role)| *role)
}

/// UEFI specification 2.10, table 5.7; <https://learn.microsoft.com/windows/win32/api/winioctl/ns-winioctl-partition_information_gpt>;
/// <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>.
const ROLES: &[(Guid, Role)] = &[
    (Guid::new(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b), Role::EfiSystem),
    (Guid::new(0x21686148_6449_6e6f_744e_656564454649), Role::BiosBoot),
    (Guid::new(0xe3c9e316_0b5c_4db8_817d_f92df00215ae), Role::MicrosoftReserved),
    (Guid::new(0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7), Role::Windows),
    (Guid::new(0x5808c8aa_7e8f_42e0_85d2_e1e90434cfb3), Role::LdmMetadata),
    (Guid::new(0xaf9b60a0_1431_4f62_bc68_3311714a69ad), Role::LdmData),
    (Guid::new(0xde94bba4_06d1_4d40_a16a_bfd50179d6ac), Role::Recovery),
    (Guid::new(0xe75caf8f_f680_4cee_afa3_b001e56efc2d), Role::StorageSpaces),
    (Guid::new(0x0fc63daf_8483_4772_8e79_3d69d8477de4), Role::Linux),
    (Guid::new(0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709), Role::Linux), // root, x86-64
    (Guid::new(0x44479540_f297_41b2_9af7_d131d5f0458a), Role::Linux), // root, x86
    (Guid::new(0xb921b045_1df0_41c3_af44_4c6f280d3fae), Role::Linux), // root, 64-bit ARM
    (Guid::new(0xbc13c2ff_59e6_4262_a352_b275fd6f7172), Role::Linux), // /boot
    (Guid::new(0x933ac7e1_2eb4_4f13_b844_0e14e2aef915), Role::Linux), // /home
    (Guid::new(0x3b8f8425_20e0_4f3b_907f_1a25a76f98e8), Role::Linux), // /srv
    (Guid::new(0x4d21b016_b534_45c2_a9fb_5c16e091fd2d), Role::Linux), // /var
    (Guid::new(0xe6d6d379_f507_44c2_a23c_238f2a3df928), Role::Lvm),
    (Guid::new(0xa19d880f_05fc_4d3b_a006_743f0f84911e), Role::Raid),
    (Guid::new(0x0657fd6d_a4ab_43c4_84e5_0933c84b4f4f), Role::Swap),
    (Guid::new(0xca7d7ccb_63ed_4c53_861c_1742536059cc), Role::Encrypted),
    (Guid::new(0x7ffec5c9_2d00_49b7_8941_3ea10a5586b7), Role::Encrypted),
];
