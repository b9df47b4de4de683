//! The blocking facade, over files and over NFC.

use std::sync::Arc;

use tokio::runtime::Runtime;
use vixdisklib::{Access, Connection, Error, blocking};
use vmdk::{CreateKind, CreateSpec, create};

use crate::simulator::{BASE, Lab};

const MIB: u64 = 1 << 20;

#[test]
fn files_are_read_and_written_on_the_calling_thread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.vmdk");
    create(&path, &CreateSpec::new(8 * MIB, CreateKind::MonolithicSparse)).unwrap().close().unwrap();
    let runtime = Runtime::new().unwrap();
    let open = |access| {
        let connection = blocking::Connection::new(Connection::local(access), runtime.handle());
        connection.open(path.to_str().unwrap()).unwrap()
    };

    let disk = open(Access::ReadWrite);
    assert!(disk.is_direct());
    disk.write_from(MIB, &[7; 1024]).unwrap();
    disk.zero_range(MIB + 512..MIB + 768).unwrap();
    disk.flush().unwrap();
    assert_eq!(disk.allocated(0..8 * MIB).unwrap().areas, [MIB..MIB + 65536]);
    disk.close().unwrap();

    let disk = open(Access::ReadOnly);
    let mut read = [1; 1024];
    disk.read_into(MIB, &mut read).unwrap();
    assert_eq!(read[..], [&[7; 512][..], &[0; 256], &[7; 256]].concat());
    assert!(matches!(disk.read_into(8 * MIB - 1, &mut read), Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.write_from(0, &[1]), Err(Error::ReadOnly { .. })));
    assert_eq!(disk.info().unwrap().capacity, 8 * MIB);
    assert_eq!(disk.metadata("adapterType").unwrap(), disk.info().unwrap().adapter_type);
    disk.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_share_a_disk_over_nfc_those_of_the_runtime_included() {
    let lab = Lab::with_snapshot(Default::default()).await;
    let connection = lab.connect(Access::ReadOnly, "nbdssl").await;
    let runtime = tokio::runtime::Handle::current();
    // This is a thread of the runtime itself: blocking here must not stop it.
    let disk = Arc::new(blocking::Connection::new(connection, &runtime).open(BASE).unwrap());
    assert!(!disk.is_direct());
    let readers: Vec<_> = (0..4)
        .map(|at| {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || {
                let mut buffer = vec![1; 4096];
                for _ in 0..8 {
                    disk.read_into(MIB + at * 4096, &mut buffer).unwrap();
                    assert_eq!(buffer, vec![5; 4096]);
                }
                disk.read_into(20 * MIB, &mut buffer).unwrap();
                assert_eq!(buffer, vec![0; 4096]);
            })
        })
        .collect();
    tokio::task::block_in_place(|| readers.into_iter().for_each(|reader| reader.join().unwrap()));
    Arc::into_inner(disk).unwrap().close().unwrap();
    lab.end().await;
}
