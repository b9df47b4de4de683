//! The rest of the functions: each reaches the library with its arguments.

use std::sync::{Arc, Mutex};

use vixdisklib_sys::{
    DiskType, OpenFlags,
    load::{ConnectSpec, CreateSpec, Error, LibraryOptions, Login, Object, Progress, attach, is_attach_possible},
};

use crate::fake::{Fake, alone, begin};

fn listener() -> (Progress, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&heard);
    (Arc::new(move |percent| list.lock().unwrap().push(percent)), heard)
}

#[test]
fn what_is_done_by_path() {
    alone("calls::what_is_done_by_path", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let local = library.connect(ConnectSpec::local()).wait().unwrap();
        let (progress, heard) = listener();
        local.create("new", CreateSpec::new(2048, DiskType::SPLIT_FLAT), Some(progress)).wait().unwrap();
        assert_eq!(*heard.lock().unwrap(), [0, 50, 100], "kept within percent");
        local.grow("new", 4096, true, None).wait().unwrap();
        local.check_repair("new", true).wait().unwrap();
        library.rename("new", "newer").wait().unwrap();
        local.unlink("newer").wait().unwrap();
        let login = Login::User { name: "u".into(), password: String::new().into() };
        let remote = library.connect(ConnectSpec::server("vc", login)).wait().unwrap();
        let spec = CreateSpec::new(0, DiskType::VMFS_THIN);
        remote.clone_disk("[ds] b", &local, "a", spec, None, true).wait().unwrap();
        let calls = log.calls();
        let expected = [
            "create new type 4 adapter 3 sectors 2048",
            "grow new 4096 1",
            "check new 1",
            "rename new newer",
            "unlink newer",
        ];
        assert_eq!(calls[2..7], expected);
        assert_eq!(calls[8], "clone :a to vc:[ds] b type 7 overwrite 1");
    });
}

#[test]
fn what_is_done_to_an_open_disk() {
    alone("calls::what_is_done_to_an_open_disk", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let local = library.connect(ConnectSpec::local()).wait().unwrap();
        let disk = local.open("a", OpenFlags::NONE).wait().unwrap();
        assert_eq!(disk.metadata("adapterType").wait().unwrap().as_deref(), Some("lsilogic"));
        assert_eq!(disk.metadata("nothing").wait().unwrap(), None);
        disk.set_metadata("comment", "").wait().unwrap();
        assert_eq!(disk.metadata("comment").wait().unwrap().as_deref(), Some(""), "empty, and there");
        assert_eq!(disk.metadata_keys().wait().unwrap(), ["adapterType", "uuid"]);
        disk.set_metadata("uuid", "1234").wait().unwrap();
        assert_eq!(disk.metadata("uuid").wait().unwrap().as_deref(), Some("1234"));
        assert_eq!(disk.allocated(256, 1024, 128).wait().unwrap(), [256..384, 512..640, 768..896]);
        assert!(disk.allocated(0, 100, 100).wait().is_err());
        let empty = local.open("empty", OpenFlags::NONE).wait().unwrap();
        assert!(empty.allocated(0, 128, 128).wait().unwrap().is_empty());
        let (progress, heard) = listener();
        disk.shrink(Some(Arc::clone(&progress))).wait().unwrap();
        disk.defragment(Some(progress)).wait().unwrap();
        assert_eq!(*heard.lock().unwrap(), [50, 50]);
        assert_eq!(disk.space_needed_for_clone(DiskType::VMFS_FLAT).wait().unwrap(), 5000);
        disk.create_child("b", DiskType::SPLIT_SPARSE, None).wait().unwrap();
        assert_eq!(log.calls().last().unwrap(), "child b of a type 3");
    });
}

#[test]
fn a_listener_that_panics_harms_nobody() {
    alone("calls::a_listener_that_panics_harms_nobody", || {
        let (library, _log) = begin(&Fake::newest(), LibraryOptions::default());
        let local = library.connect(ConnectSpec::local()).wait().unwrap();
        let disk = local.open("a", OpenFlags::NONE).wait().unwrap();
        disk.shrink(Some(Arc::new(|_| panic!("a bad listener")))).wait().unwrap();
    });
}

#[test]
fn access_to_a_vm_and_leftovers() {
    alone("calls::access_to_a_vm_and_leftovers", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let login = Login::User { name: "u".into(), password: String::new().into() };
        let spec = ConnectSpec::server("vc", login).object(Object::Vm("moref=vm-1".into()));
        library.prepare_for_access(spec.clone(), "me").wait().unwrap();
        library.end_access(spec.clone(), "me").wait().unwrap();
        assert_eq!(log.calls()[1..], ["prepare moref=vm-1 for me", "end moref=vm-1 for me"]);
        let left = library.clean_up(spec).wait().unwrap();
        assert_eq!((left.removed, left.remaining), (3, 1));
    });
}

#[test]
fn attaching_in_both_directions_at_once_ends() {
    alone("calls::attaching_in_both_directions_at_once_ends", || {
        let (library, log) = begin(&Fake::newest(), LibraryOptions::default());
        let local = library.connect(ConnectSpec::local()).wait().unwrap();
        let (a, b) = (local.open("a", OpenFlags::NONE), local.open("b", OpenFlags::NONE));
        let (a, b) = (a.wait().unwrap(), b.wait().unwrap());
        let answers: Vec<_> = (0..100)
            .flat_map(|n| [drop(a.read(n, 1)), drop(b.read(n, 1))].map(|()| [attach(&a, &b), attach(&b, &a)]))
            .flatten()
            .collect();
        for answer in answers {
            answer.wait().unwrap();
        }
        is_attach_possible(&a, &b).wait().unwrap();
        assert!(matches!(attach(&a, &a).wait(), Err(Error::SameDisk)));
        let calls = log.calls();
        assert_eq!(calls.iter().filter(|call| *call == "attach b to a").count(), 200);
        assert_eq!(calls.iter().filter(|call| *call == "attach a to b").count(), 200);
    });
}
