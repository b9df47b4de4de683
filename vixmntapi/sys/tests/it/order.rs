//! In which order the library is called, whatever is dropped first and from however many threads.

use std::thread;

use vixmntapi_sys::{
    OpenFlags, VixCode,
    load::{Error, MountMode, Mounted},
};

use crate::fake::{Begun, alone};

const ENDING: [&str; 3] = ["free handles", "close a", "disconnect with 0 disks"];

/// What is called when everything is gone, without VixMntapi's mark.
fn ending(begun: &Begun) -> Vec<String> {
    begun.log.calls().iter().map(|call| call.trim_start_matches("mnt ").to_owned()).collect()
}

#[test]
fn volumes_are_dismounted_before_handles_are_freed_before_the_set_is_closed_before_the_connection_ends() {
    alone(
        "order::volumes_are_dismounted_before_handles_are_freed_before_the_set_is_closed_before_the_connection_ends",
        || {
            let begun = Begun::linux();
            // Every order in which a connection, a set, a volume and a mounted one can be dropped.
            for order in permutations() {
                let connection = begun.connect();
                let set = begun.library.open_disks(&connection, &["a"], OpenFlags::READ_ONLY).unwrap();
                let volume = set.volumes().unwrap().remove(0);
                let mounted = volume.mount(MountMode::ReadOnly).unwrap();
                begun.log.calls();
                let mut parts: Vec<Option<Box<dyn std::any::Any>>> = vec![
                    Some(Box::new(connection)),
                    Some(Box::new(set)),
                    Some(Box::new(volume)),
                    Some(Box::new(mounted)),
                ];
                for part in order {
                    parts[part] = None;
                }
                // The connection ends behind one's back; asking for something waits for it.
                begun.disks.transport_modes().wait().unwrap();
                assert_eq!(ending(&begun), [&["dismount 0"], &ENDING[..]].concat(), "{order:?}");
            }
            begun.end();
        },
    );
}

fn permutations() -> Vec<[usize; 4]> {
    let all = (0..256).map(|number| [number >> 6, number >> 4 & 3, number >> 2 & 3, number & 3]);
    let all: Vec<[usize; 4]> = all.filter(|order| (0..4).all(|part| order.contains(&part))).collect();
    assert_eq!(all.len(), 24);
    all
}

#[test]
fn a_volume_is_mounted_once_for_all_who_use_it_and_in_one_mode() {
    alone("order::a_volume_is_mounted_once_for_all_who_use_it_and_in_one_mode", || {
        let begun = Begun::linux();
        let set = begun.library.open_disks(&begun.connect(), &["a"], OpenFlags::NONE).unwrap();
        let volume = set.volumes().unwrap().remove(1);
        begun.log.calls();
        let first = volume.mount(MountMode::ReadOnly).unwrap();
        let second = set.volumes().unwrap()[1].mount(MountMode::ReadOnly).unwrap();
        let refused = volume.mount(MountMode::ReadWrite).unwrap_err();
        assert!(matches!(refused, Error::MountedOtherwise { volume: 1, .. }), "{refused}");
        first.dismount(false).unwrap();
        assert_eq!(begun.log.mnt(), ["mount 1 ro"]);
        drop(second);
        let written = volume.mount(MountMode::ReadWrite).unwrap();
        written.dismount(true).unwrap();
        assert_eq!(begun.log.mnt(), ["dismount 1", "mount 1 rw", "dismount 1 by force"]);
        drop((volume, set));
        begun.end();
    });
}

#[test]
fn a_volume_that_is_mounted_already_is_mounted() {
    alone("order::a_volume_that_is_mounted_already_is_mounted", || {
        let begun = Begun::linux();
        let set = begun.open("mounted");
        let mounted: Vec<Mounted> =
            set.volumes().unwrap().iter().map(|volume| volume.mount(MountMode::ReadOnly).unwrap()).collect();
        assert!(mounted.iter().all(|mounted| mounted.info().is_mounted));
        drop((mounted, set));
        assert_eq!(begun.log.mnt().iter().filter(|call| call.starts_with("dismount")).count(), 3);
        begun.end();
    });
}

#[test]
fn what_is_in_use_stays_mounted_until_its_set_is_closed() {
    alone("order::what_is_in_use_stays_mounted_until_its_set_is_closed", || {
        let begun = Begun::linux();
        let set = begun.open("busy");
        let volumes = set.volumes().unwrap();
        let error = volumes[0].mount(MountMode::ReadOnly).unwrap().dismount(false).unwrap_err();
        assert_eq!(error.vix_code(), Some(VixCode::MNTAPI_OPEN_HANDLES));
        assert!(error.is_retryable() && error.to_string().contains("volume 0 of busy"), "{error}");
        // Another use of what is left mounted, which then goes by force.
        volumes[0].mount(MountMode::ReadOnly).unwrap().dismount(true).unwrap();
        drop(volumes[2].mount(MountMode::ReadOnly).unwrap());
        begun.log.calls();
        drop(volumes);
        set.close().unwrap();
        assert_eq!(begun.log.mnt(), ["dismount 2 by force", "free handles", "close busy"]);
        begun.end();
    });
}

#[test]
fn what_the_library_mounts_by_itself_is_dismounted_with_the_set() {
    alone("order::what_the_library_mounts_by_itself_is_dismounted_with_the_set", || {
        let begun = Begun::windows();
        for listed_before in [false, true] {
            let set = begun.open("a");
            if listed_before {
                set.volumes().unwrap();
            }
            set.os_info().unwrap();
            begun.log.calls();
            drop(set);
            let calls = begun.log.mnt();
            let calls = calls.iter().filter(|call| *call != "list").collect::<Vec<_>>();
            assert_eq!(calls, ["dismount 0 by force", "free handles", "close a"]);
        }
        begun.end();
    });
}

#[test]
fn calls_of_many_threads_never_overlap() {
    alone("order::calls_of_many_threads_never_overlap", || {
        let begun = Begun::linux();
        let connection = begun.connect();
        thread::scope(|scope| {
            for thread in 0..8 {
                let (library, connection) = (&begun.library, &connection);
                scope.spawn(move || {
                    for round in 0..25 {
                        let path = format!("a{thread}-{round}");
                        let set = library.open_disks(connection, &[&path], OpenFlags::READ_ONLY).unwrap();
                        let volumes = set.volumes().unwrap();
                        let mounted: Vec<_> =
                            volumes.iter().map(|volume| volume.mount(MountMode::ReadOnly).unwrap()).collect();
                        assert!(set.info().unwrap().mount_path.is_some());
                        if round % 2 == 0 {
                            drop(volumes);
                            drop(set);
                        }
                        drop(mounted);
                    }
                });
            }
            // Disks are opened and closed all the while.
            scope.spawn(|| {
                for _ in 0..100 {
                    connection.open("b", OpenFlags::READ_ONLY).wait().unwrap().close().wait().unwrap();
                }
            });
        });
        // One volume, mounted and left by all.
        let set = begun.library.open_disks(&connection, &["shared"], OpenFlags::READ_ONLY).unwrap();
        let volume = set.volumes().unwrap().remove(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mounted = volume.mount(MountMode::ReadOnly).unwrap();
                        assert!(mounted.info().is_mounted);
                    }
                });
            }
        });
        drop((volume, set, connection));
        begun.end();
    });
}
