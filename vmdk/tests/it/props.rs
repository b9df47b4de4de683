//! Properties of descriptors and of disks under random writes.

use proptest::prelude::*;
use vmdk::{CreateKind, CreateSpec, Descriptor, OpenOptions, create, descriptor::ExtentLine};

use crate::support::assert_is;

proptest! {
    #[test]
    fn parsing_and_writing_a_descriptor_is_the_identity(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(Descriptor::parse(&bytes).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn lines_of_any_shape_survive(text in "([#a-zA-Z0-9_.= \t\"-]{0,30}(\n|\r\n|\r)){0,20}[a-z=\"]{0,9}") {
        let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(descriptor.to_bytes(), text.as_bytes());
        let _ = (descriptor.version(), descriptor.cid(), descriptor.extents(), descriptor.ddb().count());
    }

    #[test]
    fn what_is_set_is_read_back_and_the_rest_is_kept(
        text in "([a-z.]{1,8} ?= ?\"?[a-z ]{0,8}\"?(\n|\r\n)){0,12}",
        key in "(ddb\\.)?[a-z]{1,8}",
        value in "[a-z0-9 =#]{0,12}",
    ) {
        let before = Descriptor::parse(text.as_bytes()).unwrap();
        let mut after = before.clone();
        after.set_value(&key, &value).unwrap();
        let read = after.value(&key).unwrap().into_owned();
        prop_assert_eq!(read.trim(), value.trim());
        let count = |descriptor: &Descriptor| descriptor.to_string().lines().count();
        let new = usize::from(before.value(&key).is_none());
        prop_assert_eq!(count(&after), count(&before) + new);
        after.remove_value(&key);
        prop_assert_eq!(after.value(&key), None);
    }

    #[test]
    fn extent_lines_round_trip(line in "(RW|RDONLY|NOACCESS) [0-9]{1,16} (FLAT|VMFS|SPARSE) \"[a-zA-Z0-9 =#./-]{1,20}\"( [0-9]{1,16}( [a-z0-9]{1,8}){0,2})?") {
        if let Ok(extent) = ExtentLine::parse(&line) {
            prop_assert_eq!(ExtentLine::parse(&extent.to_string()).unwrap(), extent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_disk_is_the_sum_of_its_writes(
        sectors in 1_u64..20_000,
        sparse in any::<bool>(),
        changes in prop::collection::vec((0.0..1.0_f64, 0.0..0.1_f64, any::<u8>()), 0..30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.vmdk");
        let kind = if sparse { CreateKind::MonolithicSparse } else { CreateKind::Flat };
        let disk = create(&path, &CreateSpec::new(sectors * 512, kind)).unwrap();
        let mut expected = vec![0_u8; (sectors * 512) as usize];
        for (at, len, fill) in changes {
            let start = (at * expected.len() as f64) as usize;
            let end = (start + (len * expected.len() as f64) as usize).min(expected.len());
            expected[start..end].fill(fill);
            if fill % 4 == 0 {
                expected[start..end].fill(0);
                disk.zero_at(start as u64..end as u64).unwrap();
            } else {
                disk.write_at(start as u64, &expected[start..end]).unwrap();
            }
        }
        assert_is(&disk, &expected);
        disk.close().unwrap();
        assert_is(&vmdk::Disk::open(&path, &OpenOptions::new()).unwrap(), &expected);
    }
}
