//! Connections, disks, and reads and writes that overlap.

use std::time::Duration;

use vixdisklib_sys::{
    OpenFlags, SECTOR, VixCode,
    load::{ConnectSpec, Connection, Error, Library, LibraryOptions, Login, Object},
};

use crate::fake::{Fake, alone, begin};

fn server(name: &str) -> ConnectSpec {
    let login = Login::User { name: "backup".into(), password: String::from("secret").into() };
    ConnectSpec::server(name, login).object(Object::Vm("moref=vm-16".into()))
}

fn remote(library: &Library) -> Connection {
    library.connect(server("vc")).wait().unwrap()
}

fn sector(number: u64) -> Vec<u8> {
    vec![(number % 251) as u8; SECTOR as usize]
}

#[test]
fn a_disk_keeps_its_connection_and_a_connection_its_library() {
    alone("disks::a_disk_keeps_its_connection_and_a_connection_its_library", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let connection = library.connect(ConnectSpec::local()).wait().unwrap();
        let (one, two) = (connection.open("one", OpenFlags::READ_ONLY), connection.open("two", OpenFlags::NONE));
        let (one, two) = (one.wait().unwrap(), two.wait().unwrap());
        let end = library.shut_down();
        drop(connection);
        drop(one);
        assert_eq!(two.read(5, 1).wait().unwrap(), sector(5), "alive after its connection was dropped");
        two.close().wait().unwrap();
        end.wait().unwrap();
        let expected = [
            "connect locally",
            "open one flags 4",
            "open two flags 0",
            "close one with 0 under way",
            "close two with 0 under way",
            "disconnect with 0 disks",
            "exit with 0 connections, 0 disks, at most 1 under way",
        ];
        assert_eq!(log.calls()[1..], expected);
        assert_eq!(log.threads(&["init", "connect", "open", "close", "disconnect", "exit"]).len(), 1);
    });
}

#[test]
fn what_a_connection_needs_reaches_the_library() {
    alone("disks::what_a_connection_needs_reaches_the_library", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let spec = server("vc").thumbprint("AA:BB").ports(8443, 0).read_only(true).snapshot("snapshot-2");
        let connection = library.connect(spec.transports("nbdssl:nbd")).wait().unwrap();
        let to = connection.connected_to().wait().unwrap();
        assert_eq!((to.server.as_deref(), to.ports), (Some("vc"), (8443, 0)));
        let session = Login::Session { cookie: String::from("52-c0").into(), user: None, key: None };
        let disk = Object::FirstClassDisk { id: "fcd-1".into(), datastore: "datastore-7".into(), snapshot: None };
        library.connect(ConnectSpec::server("vc", session).object(disk)).wait().unwrap();
        let calls = log.calls();
        let expected = [
            "connect vc moref=vm-16 thumb=AA:BB cred=1 backup/secret port=8443 ro=1 snapshot=snapshot-2 \
             modes=nbdssl:nbd",
            "connect vc - thumb=- cred=2 52-c0/- port=0 ro=0 snapshot=- modes=-",
            "spec 1 fcd-1 datastore-7",
        ];
        assert_eq!(calls[1..4], expected);
        let nul = library.connect(server("v\0c")).wait().unwrap_err();
        assert!(matches!(nul, Error::Nul { what: "server's name" }), "{nul}");
    });
}

#[test]
fn errors_keep_all_bits_and_both_sides_words() {
    alone("disks::errors_keep_all_bits_and_both_sides_words", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let away = library.connect(server("away")).wait().unwrap_err();
        let failure = away.failure().unwrap();
        assert_eq!((failure.function, failure.error.0), ("VixDiskLib_ConnectEx", (0x12 << 32) | 14009));
        assert_eq!(
            (failure.object.as_str(), failure.text.as_deref()),
            ("moref=vm-16 at away", Some("words for 77309425337"))
        );
        assert!(away.is_retryable() && !away.to_string().contains("secret"), "{away}");

        let connection = remote(&library);
        let missing = connection.open("missing", OpenFlags::NONE).wait().unwrap_err();
        assert_eq!((missing.vix_code(), missing.is_retryable()), (Some(VixCode::FILE_NOT_FOUND), false));
        // Opened, but it cannot say what it is: closed again.
        let blank = connection.open("blank", OpenFlags::NONE).wait().unwrap_err();
        assert_eq!(blank.vix_code(), Some(VixCode::DISK_INVALIDDISK));
        let sour = connection.open("sour", OpenFlags::NONE).wait().unwrap();
        assert_eq!(sour.close().wait().unwrap_err().vix_code(), Some(VixCode::FILE_ERROR));
        assert!(log.calls().contains(&"close blank with 0 under way".into()));
    });
}

#[test]
fn info_has_both_geometries_and_the_sector_sizes() {
    alone("disks::info_has_both_geometries_and_the_sector_sizes", || {
        let (library, _log) = begin(&Fake::newest(), LibraryOptions::default());
        let disk = remote(&library).open("a", OpenFlags::NONE).wait().unwrap();
        let info = disk.info();
        assert_eq!(
            (info.capacity, info.links, info.bios_geometry.heads, info.physical_geometry.heads),
            (16384, 2, 16, 255)
        );
        assert_eq!((info.parent_hint.as_deref(), info.uuid.as_deref()), (Some("/parent.vmdk"), Some("60 00 C2 9a")));
        assert_eq!((info.sector_sizes, disk.transport_mode()), (Some((512, 4096)), "nbdssl"));
    });
}

#[test]
fn many_reads_and_writes_are_under_way_up_to_the_depth() {
    alone("disks::many_reads_and_writes_are_under_way_up_to_the_depth", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default().depth(5));
        let disk = remote(&library).open("a", OpenFlags::NONE).wait().unwrap();
        let writes: Vec<_> = (0..50).map(|n| disk.write(200 + n, vec![n as u8; 512])).collect();
        let reads: Vec<_> = (0..150).map(|n| (n, disk.read(n, 2))).collect();
        for (n, read) in reads {
            assert_eq!(read.wait().unwrap(), [sector(n), sector(n + 1)].concat());
        }
        for write in writes {
            write.wait().unwrap();
        }
        disk.flush().wait().unwrap();
        for n in 0..50 {
            assert_eq!(disk.read(200 + n, 1).wait().unwrap(), vec![n as u8; 512]);
        }
        disk.close().wait().unwrap();
        library.shut_down().wait().unwrap();
        assert!(log.calls().contains(&"flush a with 0 under way".into()));
        assert_eq!(log.calls().last().unwrap(), "exit with 0 connections, 0 disks, at most 5 under way");
    });
}

#[test]
fn operations_given_up_are_finished_before_the_disk_is_closed() {
    alone("disks::operations_given_up_are_finished_before_the_disk_is_closed", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let disk = remote(&library).open("a", OpenFlags::NONE).wait().unwrap();
        for n in 0..30 {
            drop(disk.read(n, 64));
            drop(disk.write(n * 64, vec![7; 64 << 9]));
        }
        drop(disk);
        library.shut_down().wait().unwrap();
        assert!(log.calls().contains(&"close a with 0 under way".into()), "{:?}", log.calls());
    });
}

#[test]
fn a_library_that_breaks_the_rules_of_completion_does_no_harm() {
    alone("disks::a_library_that_breaks_the_rules_of_completion_does_no_harm", || {
        let (library, _log) = begin(&Fake::newest(), LibraryOptions::default());
        let disk = remote(&library).open("a", OpenFlags::NONE).wait().unwrap();
        let refused = disk.read(1001, 1).wait().unwrap_err();
        assert_eq!((refused.vix_code(), refused.is_retryable()), (Some(VixCode::TCP_CONN_LOST), true));
        let nothing = disk.read(1002, 1).wait().unwrap_err();
        assert!(matches!(nothing, Error::Nothing { function: "VixDiskLib_ReadAsync" }), "zeros are not what was read");
        assert_eq!(disk.read(1003, 1).wait().unwrap(), sector(1003), "completed inside the call");
        assert_eq!(disk.read(3003, 1).wait().unwrap(), sector(3003), "and told twice");
        std::thread::sleep(Duration::from_millis(5));
        // Fails on another thread, after the call has returned.
        let outside = disk.read(16383, 2).wait().unwrap_err();
        let failure = outside.failure().unwrap();
        assert_eq!(
            (failure.error.code(), failure.text.as_deref()),
            (VixCode::DISK_OUTOFRANGE, Some("words for 16007"))
        );
        assert_eq!(disk.read(9, 1).wait().unwrap(), sector(9), "goes on");
        disk.close().wait().unwrap();
    });
}

#[test]
fn lengths_that_are_not_sectors_are_refused() {
    alone("disks::lengths_that_are_not_sectors_are_refused", || {
        let (library, _log) = begin(&Fake::newest(), LibraryOptions::default());
        let disk = remote(&library).open("a", OpenFlags::NONE).wait().unwrap();
        for len in [0, 1, 511, 513] {
            let refused = disk.write(0, vec![0; len]).wait().unwrap_err();
            assert!(matches!(refused, Error::Length { len: found } if found == len), "{refused}");
        }
        for count in [0, u64::MAX, u64::MAX / 512 + 1] {
            assert!(matches!(disk.read(0, count).wait().unwrap_err(), Error::Length { .. }));
        }
    });
}

#[test]
fn eight_threads_on_eight_disks() {
    alone("disks::eight_threads_on_eight_disks", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let connection = remote(&library);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let connection = connection.clone();
                scope.spawn(move || {
                    for round in 0..5 {
                        let disk = connection.open(&format!("{thread}-{round}"), OpenFlags::NONE).wait().unwrap();
                        disk.write(thread, vec![thread as u8; 512]).wait().unwrap();
                        assert_eq!(disk.read(thread, 1).wait().unwrap(), vec![thread as u8; 512]);
                        disk.close().wait().unwrap();
                    }
                });
            }
        });
        assert_eq!(log.threads(&["open", "close"]).len(), 1);
        drop(connection);
        library.shut_down().wait().unwrap();
        assert!(log.calls().last().unwrap().starts_with("exit with 0 connections, 0 disks"));
    });
}
