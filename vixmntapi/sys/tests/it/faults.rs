//! Every call fails once, at every step: the error tells it, nothing is left behind, and what comes after works.

use vixmntapi_sys::{
    OpenFlags, VixCode,
    load::{Error, MountMode, Result},
};

use crate::fake::{Begun, alone};

/// All that can be done with a set. The functions are counted from opening on, without those that cannot fail.
fn everything(begun: &Begun, path: &str) -> Result<()> {
    let set = begun.library.open_disks(&begun.connect(), &[path], OpenFlags::READ_ONLY)?;
    set.info()?;
    let volumes = set.volumes()?;
    let first = volumes[0].mount(MountMode::ReadOnly)?;
    volumes[1].info()?;
    set.os_info()?;
    let third = volumes[2].mount(MountMode::ReadOnly)?;
    third.dismount(false)?;
    first.dismount(false)?;
    drop(volumes);
    set.close()
}

/// The functions in the order in which [`everything`] calls them.
const STEPS: [&str; 14] = [
    "VixMntapi_OpenDisks",
    "VixMntapi_GetDiskSetInfo",
    "VixMntapi_GetVolumeHandles",
    "VixMntapi_MountVolume",
    "VixMntapi_GetVolumeInfo",
    "VixMntapi_GetVolumeInfo",
    "VixMntapi_GetOsInfo",
    "VixMntapi_MountVolume",
    "VixMntapi_GetVolumeInfo",
    "VixMntapi_DismountVolume",
    "VixMntapi_DismountVolume",
    // Of the end: what the library may have mounted by itself is looked for.
    "",
    "",
    "",
];

#[test]
fn each_call_that_fails_is_told_and_leaves_nothing_behind() {
    alone("faults::each_call_that_fails_is_told_and_leaves_nothing_behind", || {
        let begun = Begun::windows();
        everything(&begun, "a").unwrap();
        let mut failed = 0;
        for (step, function) in (1..).zip(STEPS) {
            let result = everything(&begun, &format!("fail={step},24020"));
            match function {
                // A failure while looking means that there is nothing to dismount.
                "" => result.unwrap(),
                function => {
                    let error = result.unwrap_err();
                    let failure = error.failure().unwrap_or_else(|| panic!("{step}: {error}"));
                    assert_eq!(
                        (failure.function, failure.error.code()),
                        (function, VixCode::MNTAPI_INTERNAL),
                        "{step}"
                    );
                    assert_eq!(failure.error.0 >> 16, 7, "all bits are kept");
                    assert!(error.to_string().contains("VIX_E_MNTAPI_INTERNAL (24020)"), "{error}");
                    failed += 1;
                }
            }
            begun.log.assert_nothing_bad();
            everything(&begun, "after").unwrap();
        }
        let closing = STEPS.len() + 1;
        let error = everything(&begun, &format!("fail={closing},24021")).unwrap_err();
        assert_eq!(error.failure().unwrap().function, "VixMntapi_CloseDiskSet");
        everything(&begun, "after").unwrap();
        println!("{} calls made to fail, each with an error of its own", failed + 1);
        begun.end();
    });
}

#[test]
fn a_volume_is_not_left_mounted_when_it_cannot_be_described() {
    alone("faults::a_volume_is_not_left_mounted_when_it_cannot_be_described", || {
        let begun = Begun::linux();
        // Opening, listing, mounting; the fourth call describes.
        let set = begun.open("fail=4,24021");
        let volume = set.volumes().unwrap().remove(0);
        let error = volume.mount(MountMode::ReadOnly).unwrap_err();
        assert_eq!(error.failure().unwrap().function, "VixMntapi_GetVolumeInfo");
        assert_eq!(begun.log.mnt(), ["list", "mount 0 ro", "dismount 0"]);
        volume.mount(MountMode::ReadOnly).unwrap();
        drop((volume, set));
        begun.end();
    });
}

#[test]
fn a_library_that_succeeds_and_gives_nothing_is_not_believed() {
    alone("faults::a_library_that_succeeds_and_gives_nothing_is_not_believed", || {
        let begun = Begun::windows();
        for (null, function) in [
            ("open", "VixMntapi_OpenDisks"),
            ("setinfo", "VixMntapi_GetDiskSetInfo"),
            ("handles", "VixMntapi_GetVolumeHandles"),
            ("info", "VixMntapi_GetVolumeInfo"),
            ("os", "VixMntapi_GetOsInfo"),
        ] {
            let error = everything(&begun, &format!("null={null}")).unwrap_err();
            assert!(matches!(error, Error::Answer { function: of, .. } if of == function), "{null}: {error}");
            begun.log.assert_nothing_bad();
        }
        let empty = begun.open("empty");
        assert!(empty.volumes().unwrap().is_empty());
        drop(empty);
        let error = begun.open("flood").volumes().unwrap()[0].info().unwrap_err();
        assert!(error.to_string().contains("1099511627776 mount points"), "{error}");
        begun.end();
    });
}
