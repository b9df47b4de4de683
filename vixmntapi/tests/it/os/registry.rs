//! Hives: an empty one by hand, filled by hivexsh; and damaged ones.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::Path,
    sync::{Arc, OnceLock},
};

use proptest::prelude::*;
use vixmntapi::set::DiskSet;

use crate::{
    disks::Memory,
    peers::{peer, run},
};

/// A value.
#[derive(Clone)]
pub(super) enum Setting {
    Text(String),
    Number(u32),
    Bytes(Vec<u8>),
}

/// Makes a hive with values in keys. `None` where there is no hivexsh, which is said.
pub(super) fn hive(path: &Path, keys: &[(&str, &[(String, Setting)])]) -> Option<()> {
    let hivexsh = peer("hivexsh")?;
    fs::write(path, empty()).unwrap();
    let mut script = String::new();
    let mut made = std::collections::BTreeSet::new();
    for (key, values) in keys {
        writeln!(script, "cd \\ ").unwrap();
        let mut whole = String::new();
        for name in key.split('\\') {
            whole = format!("{whole}\\{name}");
            if made.insert(whole.clone()) {
                writeln!(script, "add {name}").unwrap();
            }
            writeln!(script, "cd {name}").unwrap();
        }
        writeln!(script, "setval {}", values.len()).unwrap();
        for (name, value) in *values {
            let value = match value {
                Setting::Number(number) => format!("dword:{number}"),
                Setting::Text(text) => {
                    let units = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
                    format!("hex:1:{}", hex(units))
                }
                Setting::Bytes(bytes) => format!("hex:3:{}", hex(bytes.iter().copied())),
            };
            writeln!(script, "{name}\n{value}").unwrap();
        }
    }
    writeln!(script, "commit").unwrap();
    let commands = path.with_extension("commands");
    fs::write(&commands, script).unwrap();
    run(hivexsh, &[&"-w", &"-f", &commands, &path]);
    fs::remove_file(commands).unwrap();
    Some(())
}

fn hex(bytes: impl Iterator<Item = u8>) -> String {
    bytes.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(",")
}

/// A hive of version 1.3 with a root key and room for more.
fn empty() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
    put(0, b"regf");
    for (at, number) in [(4, 1_u32), (8, 1), (20, 1), (24, 3), (28, 0), (32, 1), (36, 0x20), (40, 4096), (44, 1)] {
        put(at, &number.to_le_bytes());
    }
    put(4096, b"hbin");
    put(4096 + 8, &4096_u32.to_le_bytes());
    // The root key: 76 bytes and its name.
    put(4128, &(-88_i32).to_le_bytes());
    put(4132, b"nk");
    put(4134, &0x2c_u16.to_le_bytes());
    for (at, number) in [(16, u32::MAX), (28, u32::MAX), (32, u32::MAX), (40, u32::MAX), (44, 0x78), (48, u32::MAX)] {
        put(4132 + at, &number.to_le_bytes());
    }
    put(4132 + 72, &4_u16.to_le_bytes());
    put(4132 + 76, b"ROOT");
    // The security descriptor that every key has to have, in a ring of one.
    let security = 4096 + 0x78;
    put(security, &(-48_i32).to_le_bytes());
    put(security + 4, b"sk");
    for (at, number) in [(8, 0x78_u32), (12, 0x78), (16, 1), (20, 20)] {
        put(security + at, &number.to_le_bytes());
    }
    put(security + 24, &[1, 0, 0, 0x80]);
    let rest = security + 48;
    put(rest, &((8192 - rest) as i32).to_le_bytes());
    let sum = bytes.as_chunks::<4>().0.iter().take(127).fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_hives_are_problems_and_never_a_panic_or_endless(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..20),
    ) {
        let Some((image, places)) = volume() else { return Ok(()) };
        let mut bytes = image.clone();
        for (place, bit) in flips {
            bytes[places[place.index(places.len())]] ^= 1 << bit;
        }
        let report = DiskSet::builder().device(Arc::new(Memory(bytes))).open().unwrap().os_info();
        // Damage does not hide that a Windows is there.
        prop_assert_eq!(report.systems.len(), 1);
    }
}

/// A volume of FAT with hives, and the places of all their bytes that are not zero.
fn volume() -> Option<&'static (Vec<u8>, Vec<usize>)> {
    static VOLUME: OnceLock<Option<(Vec<u8>, Vec<usize>)>> = OnceLock::new();
    let make = || {
        let (mkfs, mcopy) = (peer("mkfs.fat")?, peer("mcopy")?);
        let folder = super::windows("x86", &[(r"\DosDevices\C:".into(), Setting::Bytes(vec![1; 12]))])?;
        let image = folder.path().join("fat.img");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        run(mkfs, &[&image]);
        run(mcopy, &[&"-s", &"-i", &image, &folder.path().join("WINDOWS"), &"::"]);
        let bytes = fs::read(&image).unwrap();
        let hives = bytes.chunks(512).enumerate().filter(|(_, sector)| sector.starts_with(b"regf"));
        let hives: Vec<_> = hives.map(|(number, _)| number * 512..number * 512 + 12288).collect();
        assert_eq!(hives.len(), 2);
        let places = hives.into_iter().flatten().filter(|at| bytes.get(*at).is_some_and(|byte| *byte != 0)).collect();
        Some((bytes, places))
    };
    VOLUME.get_or_init(make).as_ref()
}
