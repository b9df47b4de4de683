//! What the library tells arrives as it is, and what a platform cannot do is refused before the library is asked.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use vixdisklib_sys::load::ConnectSpec;
use vixmntapi_sys::{
    OpenFlags, OsFamily, VixCode, VolumeType,
    load::{Error, LibraryOptions, MountMode},
};

use crate::fake::{Begun, Fake, alone};

#[test]
fn volumes_with_no_one_and_three_mount_points_are_told_apart() {
    alone("told::volumes_with_no_one_and_three_mount_points_are_told_apart", || {
        let begun = Begun::windows();
        let set = begun.open("a");
        let volumes = set.volumes().unwrap();
        let mounted: Vec<_> = volumes.iter().map(|volume| volume.mount(MountMode::ReadOnly).unwrap()).collect();
        let points: Vec<_> = mounted.iter().map(|mounted| &mounted.info().guest_mount_points).collect();
        assert_eq!(*points[0], Vec::<Vec<u8>>::new());
        assert_eq!(*points[1], [b"C:\\".to_vec()]);
        // One of three is null.
        assert_eq!(*points[2], [b"C:\\".to_vec(), b"C:\\Daten\\\xe4".to_vec()]);
        let kinds: Vec<_> = mounted.iter().map(|mounted| mounted.info().volume_type).collect();
        assert_eq!(kinds, [VolumeType::BASIC_PARTITION, VolumeType::GPT_PARTITION, VolumeType::DYNAMIC_VOLUME]);
        drop((mounted, volumes, set));
        begun.end();
    });
}

#[test]
fn null_texts_and_texts_that_are_not_utf_8_are_kept_apart_and_whole() {
    alone("told::null_texts_and_texts_that_are_not_utf_8_are_kept_apart_and_whole", || {
        let options = LibraryOptions::default().tmp_directory("/t");
        let begun = Begun::with(Fake::with(&["-DWINDOWS"]), options.assume_proxy(vixmntapi_sys::load::Proxy::Windows));
        let set = begun.open("a");
        assert_eq!(set.info().unwrap().mount_path.as_deref(), Some(Path::new("/t")));
        assert_eq!(set.info().unwrap().open_flags, OpenFlags::READ_ONLY);
        let folders = set.volumes().unwrap().into_iter().map(|volume| {
            assert_eq!(volume.info().unwrap().symbolic_link, None);
            volume.mount(MountMode::ReadOnly).unwrap().folder().map(Path::to_owned)
        });
        let folders: Vec<_> = folders.collect();
        assert_eq!(folders[..2], [Some(Path::new("/t/volume0").to_owned()), None]);
        assert_eq!(folders[2].as_deref(), Some(Path::new(OsStr::from_bytes(b"/t/volume\xff"))));

        let os = set.os_info().unwrap();
        assert_eq!((os.family, os.version, os.is_64_bit), (OsFamily::WINDOWS, (10, 0), true));
        assert_eq!((os.vendor, os.edition.as_deref()), (None, Some("Server\u{fffd}Standard")));
        assert_eq!(os.directory.as_deref(), Some(&b"\\Windows"[..]));
        drop(set);
        begun.end();
    });
}

#[test]
fn what_linux_cannot_do_is_refused_without_a_call() {
    alone("told::what_linux_cannot_do_is_refused_without_a_call", || {
        let begun = Begun::linux();
        let connection = begun.connect();
        let set = begun.open("a");
        let volume = set.volumes().unwrap().remove(2);
        begun.log.calls();
        let refused = [
            begun.library.open_disks(&connection, &[], OpenFlags::READ_ONLY).map(drop),
            begun.library.open_disks(&connection, &["a", "b"], OpenFlags::READ_ONLY).map(drop),
            set.os_info().map(drop),
            volume.mount(MountMode::ReadWrite).map(drop),
        ];
        for result in refused {
            assert!(matches!(result, Err(Error::Limit { .. })), "{result:?}");
        }
        assert!(matches!(begun.library.open_disks(&connection, &["a\0"], OpenFlags::NONE), Err(Error::Nul { .. })));
        assert!(begun.log.mnt().is_empty());
        // The count of mount points means nothing there, and is not looked at.
        assert!(volume.mount(MountMode::ReadOnly).unwrap().info().guest_mount_points.is_empty());
        drop((volume, set, connection));
        begun.end();
    });
}

#[test]
fn windows_takes_several_disks_by_path_or_as_they_are() {
    alone("told::windows_takes_several_disks_by_path_or_as_they_are", || {
        let begun = Begun::windows();
        let connection = begun.connect();
        let by_path = begun.library.open_disks(&connection, &["a", "b"], OpenFlags::NONE).unwrap();
        drop(by_path);
        assert_eq!(begun.log.mnt(), ["open a+b flags 0", "close a+b"]);

        let open = |path| begun.disks.connect(ConnectSpec::local()).wait().unwrap().open(path, OpenFlags::NONE).wait();
        let disks = vec![open("a").unwrap(), open("b").unwrap()];
        // Something is under way on the first, which takes a while.
        let _reads = [6, 13, 20].map(|sector| disks[0].read(sector, 1));
        begun.log.calls();
        let set = begun.library.open_disk_set(disks, OpenFlags::READ_ONLY).unwrap();
        assert_eq!(set.volumes().unwrap().len(), 3);
        drop((set, connection));
        assert!(matches!(begun.library.open_disk_set(vec![], OpenFlags::NONE), Err(Error::Limit { .. })));
        // The disks are closed behind one's back, after the set.
        let Begun { library, disks, log, fake: _fake } = begun;
        library.shut_down();
        disks.shut_down().wait().unwrap();
        let calls = log.calls();
        let at =
            |part: &str| calls.iter().position(|call| call.starts_with(part)).unwrap_or_else(|| panic!("{calls:?}"));
        assert!(at("mnt open set of 2 disks flags 4") < at("mnt close") && at("mnt close") < at("close"), "{calls:?}");
        assert!(
            at("mnt close") < at("mnt exit") && calls.last().unwrap().starts_with("exit with 0 connections, 0 disks")
        );
    });
}

#[test]
fn every_code_of_mounting_has_its_name_and_meaning() {
    let codes = (24000..=24022).chain(24300..=24322).map(VixCode);
    for code in codes.clone() {
        let text = code.to_string();
        assert!(text.starts_with("VIX_E_MNTAPI_") && text.contains(&format!("({}): ", code.0)), "{text}");
    }
    assert_eq!(codes.count(), 46);
    // As VMware spells them.
    assert_eq!(VixCode(24010).name(), Some("VIX_E_MNTAPI_NO_MOUNTABLE_PARTITONS"));
    assert_eq!(VixCode(24310).name(), Some("VIX_E_MNTAPI_UNSUPPROTED_BOOT_LOADER"));
    assert_eq!(VixCode(24311).name(), Some("VIX_E_MNTAPI_UNSUPPROTED_OS"));
    assert_eq!(VixCode(24305).name(), Some("VIX_E_MNTAPI_VOLUME_ALREADY_MOUNTED"));
    assert_eq!(VixCode(24999).to_string(), "VIX error 24999: an error of mounting");
}
