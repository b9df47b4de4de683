//! A library before 6.7: fewer functions, smaller structures.

use vixdisklib_sys::{
    OpenFlags, VixCode,
    load::{ConnectSpec, Error, LibraryOptions, Login, Object},
};

use crate::fake::{Fake, alone, begin};

#[test]
fn a_library_with_few_functions_and_small_structures_works() {
    alone("old::a_library_with_few_functions_and_small_structures_works", || {
        let fake = Fake::empty().build("libvixDiskLib.so.6", &["-DOLD"]);
        let (library, log) = begin(&fake, LibraryOptions::default());
        assert_eq!(library.generation(), Some(6));
        assert!(library.api().missing().contains(&"VixDiskLib_ReadAsync"));
        let login = Login::User { name: "u".into(), password: String::from("p").into() };
        let spec = ConnectSpec::server("vc", login).object(Object::Vm("moref=vm-1".into()));
        let connection = library.connect(spec).wait().unwrap();
        let disk = connection.open("[ds] a", OpenFlags::NONE).wait().unwrap();
        assert_eq!(disk.info().sector_sizes, None, "reading them would have been a crash");
        assert_eq!(disk.info().uuid.as_deref(), Some("60 00 C2 9a"));
        disk.write(3, vec![9; 512]).wait().unwrap();
        assert_eq!(disk.read(3, 1).wait().unwrap(), vec![9; 512]);
        assert_eq!(disk.read(20_000, 1).wait().unwrap_err().vix_code(), Some(VixCode::DISK_OUTOFRANGE));
        for refused in [disk.flush().wait(), disk.allocated(0, 128, 128).wait().map(drop)] {
            assert!(matches!(refused, Err(Error::NotThere { .. })));
        }
        assert_eq!(library.transport_modes().wait().unwrap(), None);
        disk.close().wait().unwrap();
        drop(connection);
        library.shut_down().wait().unwrap();
        assert!(log.calls().last().unwrap().starts_with("exit with 0 connections, 0 disks"));
    });
}

#[test]
fn parameters_that_an_old_library_makes_are_as_short_as_it_has_them() {
    alone("old::parameters_that_an_old_library_makes_are_as_short_as_it_has_them", || {
        let fake = Fake::empty().build("libvixDiskLib.so.6", &["-DOLD", "-DALLOCATE"]);
        let (library, log) = begin(&fake, LibraryOptions::default());
        let login = || Login::User { name: "u".into(), password: String::from("p").into() };
        let vm = ConnectSpec::server("vc", login()).object(Object::Vm("moref=vm-1".into()));
        // Touching what lies behind them would have been a crash.
        library.connect(vm).wait().unwrap();
        assert!(log.calls()[1].starts_with("connect vc moref=vm-1"), "{:?}", log.calls());
        let (id, datastore) = (String::from("id"), String::from("ds-1"));
        let disk = Object::FirstClassDisk { id, datastore: datastore.clone(), snapshot: None };
        for object in [disk, Object::Datastore { datastore, folder: "x".into() }] {
            let refused = library.connect(ConnectSpec::server("vc", login()).object(object)).wait();
            assert!(matches!(refused, Err(Error::TooOld { since: "6.7", .. })), "{refused:?}");
        }
    });
}

#[test]
fn a_library_without_a_number_is_read_as_the_oldest() {
    alone("old::a_library_without_a_number_is_read_as_the_oldest", || {
        let fake = Fake::empty().build("libvixDiskLib.so", &["-DOLD"]);
        let file = fake.file("libvixDiskLib.so");
        let library = vixdisklib_sys::load::Library::load(&file, LibraryOptions::default()).unwrap();
        let connection = library.connect(ConnectSpec::local()).wait().unwrap();
        let disk = connection.open("a", OpenFlags::NONE).wait().unwrap();
        assert_eq!((library.generation(), disk.info().sector_sizes), (None, None));
    });
}
