//! Finding, beginning, sharing and ending a library.

use vixdisklib_sys::load::{ConnectSpec, Library as DiskLibrary};
use vixmntapi_sys::{
    OpenFlags, VixCode,
    load::{Error, Library, LibraryOptions},
};

use crate::fake::{Begun, Fake, alone, begin_disks};

fn load(fake: &Fake, disks: &DiskLibrary) -> Result<Library, Error> {
    Library::load(disks, fake.path(), LibraryOptions::default())
}

#[test]
fn every_file_that_was_tried_is_named_with_the_reason() {
    alone("loading::every_file_that_was_tried_is_named_with_the_reason", || {
        let fake = Fake::without();
        std::fs::write(fake.file("libvixMntapi.so"), "no library at all").unwrap();
        let (disks, _log) = begin_disks(&fake);
        let error = load(&fake, &disks).unwrap_err();
        let Error::NotFound { tried, .. } = &error else { panic!("{error}") };
        assert_eq!(tried.len(), 4);
        let broken = tried.iter().find(|attempt| attempt.file.ends_with("lib64/libvixMntapi.so")).unwrap();
        assert!(broken.reason.contains("file too short") || broken.reason.contains("invalid ELF"), "{}", broken.reason);
        assert!(
            error.to_string().contains("libvixMntapi.so.1: ") && error.hint().unwrap().contains("lib64"),
            "{error}"
        );
    });
}

#[test]
fn a_missing_function_is_named_with_its_file_and_the_one_that_linux_lacks_is_not_missed() {
    alone("loading::a_missing_function_is_named_with_its_file_and_the_one_that_linux_lacks_is_not_missed", || {
        let fake = Fake::with(&["-DWITHOUT_FREE"]);
        let (disks, _log) = begin_disks(&fake);
        let error = load(&fake, &disks).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::MissingSymbol { symbol: "VixMntapi_FreeVolumeHandles", .. }), "{text}");
        assert!(text.contains(fake.file("libvixMntapi.so.1").to_str().unwrap()), "{text}");

        let whole = Fake::with(&[]);
        let library = load(&whole, &disks).unwrap();
        assert!(library.api().open_disk_set.is_none());
        let disk = disks.connect(ConnectSpec::local()).wait().unwrap().open("a", OpenFlags::READ_ONLY).wait().unwrap();
        let error = library.open_disk_set(vec![disk], OpenFlags::READ_ONLY).unwrap_err();
        assert!(matches!(error, Error::NotThere { symbol: "VixMntapi_OpenDiskSet" }), "{error}");
        assert!(error.hint().is_some());
    });
}

#[test]
fn there_is_one_library_a_process_and_one_beginning() {
    alone("loading::there_is_one_library_a_process_and_one_beginning", || {
        let (fake, other) = (Fake::with(&[]), Fake::with(&["-DWINDOWS"]));
        let (disks, log) = begin_disks(&fake);
        // One that refuses to begin does not count.
        let refuse = LibraryOptions::default().lib_dir("/refuse");
        let refused = Library::load(&disks, fake.path(), refuse).unwrap_err();
        assert_eq!(refused.vix_code(), Some(VixCode::MNTAPI_LOOP_FAILED));
        assert!(refused.to_string().ends_with("(in the library's words: words for 24018)"), "{refused}");

        let first = load(&fake, &disks).unwrap();
        let again = load(&fake, &disks).unwrap();
        let by_file = Library::load(&disks, fake.file("libvixMntapi.so.1"), LibraryOptions::default()).unwrap();
        assert_eq!((again.file(), by_file.file()), (first.file(), first.file()));
        let differs = Library::load(&disks, fake.path(), LibraryOptions::default().log_level(3)).unwrap_err();
        assert!(matches!(differs, Error::InUse { difference: "other settings", .. }), "{differs}");
        let second = load(&other, &disks).unwrap_err();
        assert!(matches!(&second, Error::InUse { loaded, .. } if loaded == first.file()), "{second}");

        // Others still have it: the end waits for them.
        first.shut_down();
        assert!(!log.mnt().iter().any(|call| call.starts_with("exit")));
        drop((again, by_file));
        assert_eq!(log.mnt(), ["exit with 0 sets, 0 arrays, 0 infos, 0 mounts"]);
        let ended = load(&fake, &disks).unwrap_err();
        assert!(matches!(ended, Error::ShutDown { .. }) && ended.hint().is_some(), "{ended}");
    });
}

#[test]
fn settings_reach_the_library_in_a_file_that_goes_with_it() {
    alone("loading::settings_reach_the_library_in_a_file_that_goes_with_it", || {
        let fake = Fake::with(&[]);
        let (disks, log) = begin_disks(&fake);
        log.calls();
        let options = LibraryOptions::default().tmp_directory("/var/tmp/x").log_level(4);
        let library = Library::load(&disks, fake.path(), options).unwrap();
        let expected = [
            format!("init 1.0 dir={}", fake.path().display()),
            "setting tmpDirectory=/var/tmp/x".to_owned(),
            "setting vixMntapi.cfg.LogLevel=4".to_owned(),
        ];
        assert_eq!(log.mnt(), expected);
        library.shut_down();
    });
}

#[test]
fn the_disk_library_ends_after_this_one_whatever_is_dropped_first() {
    alone("loading::the_disk_library_ends_after_this_one_whatever_is_dropped_first", || {
        let Begun { disks, library, log, fake: _fake } = Begun::linux();
        let end = disks.shut_down();
        library.shut_down();
        end.wait().unwrap();
        let calls = log.calls();
        assert!(calls[0].starts_with("mnt exit") && calls[1].starts_with("exit with 0 connections"), "{calls:?}");
    });
}
