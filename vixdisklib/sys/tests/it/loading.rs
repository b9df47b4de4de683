//! Finding, beginning, sharing and ending a library.

use std::sync::Arc;

use vixdisklib_sys::{
    VixCode,
    load::{Config, ConnectSpec, Error, Library, LibraryOptions, LogLevel},
};

use crate::fake::{Fake, Log, alone, begin, compile};

#[test]
fn every_file_that_was_tried_is_named_with_the_reason() {
    let fake = Fake::empty();
    std::fs::write(fake.file("libvixDiskLib.so.7"), "no library at all").unwrap();
    let error = Library::load(fake.path(), LibraryOptions::default()).unwrap_err();
    let Error::NotFound { tried, .. } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 8);
    let broken = tried.iter().find(|attempt| attempt.file.ends_with("lib64/libvixDiskLib.so.7")).unwrap();
    assert!(broken.reason.contains("file too short") || broken.reason.contains("invalid ELF"), "{}", broken.reason);
    assert!(error.to_string().contains("libvixDiskLib.so.9: ") && error.hint().unwrap().contains("lib64"), "{error}");
}

#[test]
fn a_library_whose_own_libraries_are_missing_gets_the_hint_about_the_path() {
    let fake = Fake::empty();
    let gone = fake.file("libgone.so");
    compile(&gone, &[]);
    compile(&fake.file("libvixDiskLib.so.8"), &["-Wl,--no-as-needed", gone.to_str().unwrap()]);
    std::fs::remove_file(&gone).unwrap();
    let error = Library::load(fake.path(), LibraryOptions::default()).unwrap_err();
    assert!(error.hint().unwrap().contains("LD_LIBRARY_PATH"), "{error}");
}

#[test]
fn a_missing_mandatory_function_is_named() {
    let fake = Fake::empty().build("libvixDiskLib.so.8", &["-DWITHOUT_INIT"]);
    let error = Library::load(fake.path(), LibraryOptions::default()).unwrap_err();
    assert!(matches!(error, Error::MissingSymbol { symbol: "VixDiskLib_InitEx", .. }), "{error}");
}

#[test]
fn the_newest_that_can_be_loaded_is_taken() {
    alone("loading::the_newest_that_can_be_loaded_is_taken", || {
        let fake = Fake::newest().build("libvixDiskLib.so.7", &[]);
        std::fs::write(fake.file("libvixDiskLib.so.9"), "broken").unwrap();
        let (library, log) = begin(&fake, LibraryOptions::default());
        assert_eq!((library.file(), library.generation()), (&*fake.file("libvixDiskLib.so.8"), Some(8)));
        let directory = fake.path().display();
        assert_eq!(log.calls(), [format!("init 6.5 dir={directory}")]);
        assert_eq!(library.api().missing(), ["VixDiskLib_Init", "VixDiskLib_Connect"]);
        let modes = library.transport_modes().wait().unwrap();
        assert_eq!(modes.as_deref(), Some("file:san:hotadd:nbdssl:nbd"));
    });
}

#[test]
fn log_lines_arrive_formatted_and_long_ones_are_cut() {
    alone("loading::log_lines_arrive_formatted_and_long_ones_are_cut", || {
        let (_library, log) = begin(&Fake::newest(), LibraryOptions::default());
        assert_eq!(log.of(LogLevel::Warning), ["warned -7 8 2.50 x    ab| abcdef 1 2 3"]);
        let [line] = &log.of(LogLevel::Panic)[..] else { panic!() };
        assert!(line.starts_with("0000") && line.ends_with("0... (9000 bytes)"), "{}", line.len());
    });
}

#[test]
fn a_sink_that_panics_harms_nobody() {
    alone("loading::a_sink_that_panics_harms_nobody", || {
        let options = LibraryOptions::default().log(Arc::new(|_, _| panic!("a bad listener")));
        let library = Library::load(Fake::newest().path(), options).unwrap();
        assert!(library.connect(ConnectSpec::local()).wait().is_ok());
    });
}

#[test]
fn settings_reach_the_library_in_a_file_that_goes_with_it() {
    alone("loading::settings_reach_the_library_in_a_file_that_goes_with_it", || {
        let config = Config::default().nfc_buffers(1 << 20, 8).tmp_directory("/var/tmp/x");
        let options = LibraryOptions::default().config(config).version(7, 0).lib_dir("/elsewhere");
        let (library, log) = begin(&Fake::newest(), options);
        let calls = log.calls();
        assert_eq!(calls[0], "init 7.0 dir=/elsewhere");
        let file = calls[1].strip_prefix("config ").unwrap().to_owned();
        let settings = calls[2..].iter().map(|line| line.strip_prefix("setting ").unwrap().trim_end());
        let expected = ["vixDiskLib.nfcAio.Session.BufSizeIn64KB=16", "vixDiskLib.nfcAio.Session.BufCount=8"];
        assert_eq!(settings.collect::<Vec<_>>(), [&expected[..], &["tmpDirectory=/var/tmp/x"]].concat());
        assert!(std::fs::exists(&file).unwrap());
        library.shut_down().wait().unwrap();
        assert!(!std::fs::exists(&file).unwrap());
    });
}

#[test]
fn there_is_one_library_a_process_and_one_beginning() {
    alone("loading::there_is_one_library_a_process_and_one_beginning", || {
        let (fake, other) = (Fake::newest(), Fake::newest());
        // One that refuses to begin does not count.
        let refused = Library::load(fake.path(), LibraryOptions::default().version(9, 0)).unwrap_err();
        assert_eq!(refused.vix_code(), Some(VixCode::DISK_SUBSYSTEM_INIT_FAIL));
        assert!(refused.to_string().ends_with("(in the library's words: words for 16053)"), "{refused}");

        let (first, log) = begin(&fake, LibraryOptions::default());
        let again = Library::load(fake.path(), LibraryOptions::default()).unwrap();
        let by_file = Library::load(fake.file("libvixDiskLib.so.8"), LibraryOptions::default()).unwrap();
        assert_eq!((again.file(), by_file.file()), (first.file(), first.file()));
        let differs = Library::load(fake.path(), LibraryOptions::default().version(7, 0)).unwrap_err();
        assert!(matches!(differs, Error::InUse { difference: "other settings", .. }), "{differs}");
        let second = Library::load(other.path(), LibraryOptions::default()).unwrap_err();
        assert!(matches!(&second, Error::InUse { loaded, .. } if loaded == first.file()), "{second}");

        // Others still have it: the end waits for them.
        let end = first.shut_down();
        drop((again, by_file));
        end.wait().unwrap();
        assert_eq!(log.calls().last().unwrap(), "exit with 0 connections, 0 disks, at most 0 under way");
        let ended = Library::load(fake.path(), LibraryOptions::default()).unwrap_err();
        assert!(matches!(ended, Error::ShutDown { .. }) && ended.hint().is_some(), "{ended}");
    });
}

#[test]
fn dropping_a_library_keeps_it_for_the_next() {
    alone("loading::dropping_a_library_keeps_it_for_the_next", || {
        let fake = Fake::newest();
        let (library, log) = begin(&fake, LibraryOptions::default());
        drop(library);
        let _again = Library::load(fake.path(), LibraryOptions::default().log(Log::default().sink())).unwrap();
        assert_eq!(log.calls().len(), 1, "begun once, not ended");
    });
}
