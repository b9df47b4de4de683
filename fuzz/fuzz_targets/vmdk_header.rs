//! Each binary header and entry: parsed without a panic, and what a header says lies where it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmdk::layout::{
    COWD_HEADER_BYTES, CowdHeader, HEADER_BYTES, Magic, Marker, SESPARSE_HEADER_BYTES, SeSparseDirectoryEntry,
    SeSparseEntry, SeSparseHeader, SeSparseVolatileHeader, SparseHeader,
};

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let _ = Magic::of(data);
    // Lengths of files that are shorter, longer and absurd.
    let lengths = [0, data.len() as u64, 1 << 40, u64::MAX];
    match kind % 6 {
        0 => {
            let Ok(header) = SparseHeader::parse(&padded::<HEADER_BYTES>(data), "fuzz") else { return };
            for len in lengths {
                for sector in [header.directory_sector, header.redundant_directory_sector] {
                    if let Ok(offset) = header.directory_offset(sector, len, "fuzz") {
                        assert!(offset + header.directory_entries() * 4 <= len);
                    }
                }
                if let Ok(Some(range)) = header.descriptor_range(len, "fuzz") {
                    assert!(range.start < range.end && range.end <= len);
                }
            }
            assert_eq!(SparseHeader::parse(&header.encode(), "fuzz").expect("a header reads its own bytes"), header);
        }
        1 => {
            let Ok(header) = CowdHeader::parse(&padded::<COWD_HEADER_BYTES>(data), "fuzz") else { return };
            for len in lengths {
                if let Ok(range) = header.directory_range(len, "fuzz") {
                    assert!(range.start <= range.end && range.end <= len);
                }
            }
            let bytes = header.encode().expect("a header that was read can be written");
            assert_eq!(CowdHeader::parse(&bytes, "fuzz").expect("a header reads its own bytes"), header);
        }
        2 => {
            let Ok(header) = SeSparseHeader::parse(&padded::<SESPARSE_HEADER_BYTES>(data), "fuzz") else { return };
            for len in lengths {
                if let Ok(range) = header.directory_range(len, "fuzz") {
                    assert!(range.start <= range.end && range.end <= len);
                }
            }
            for word in data.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))) {
                let _ = (header.table_offset(word as u32), header.grain_offset(word));
            }
        }
        3 => drop(SeSparseVolatileHeader::parse(&padded::<SESPARSE_HEADER_BYTES>(data), "fuzz")),
        4 => {
            let marker = Marker::parse(&padded::<16>(data));
            let bytes = padded::<16>(&marker.encode());
            assert_eq!(Marker::parse(&bytes), marker);
        }
        _ => {
            let entry = u64::from_le_bytes(padded::<8>(data));
            let _ = (SeSparseEntry::decode(entry), SeSparseDirectoryEntry::decode(entry));
        }
    }
});

/// The first bytes of `data`, zeros where there are too few.
fn padded<const N: usize>(data: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    bytes
}
