//! Disks of this machine that become disks of a datastore, over port 902 or `/folder`.

use std::{error::Error as _, sync::Arc, time::Duration};

use vixdisklib::{Access, CloneOptions, Connection, DatastoreTickets, DiskKind, Error, TransportMode, clone_disk};
use vsphere_nfc::{Channel, DiskPart, FilesOptions, NfcFiles, NfcOptions};
use vsphere_sim::{
    Injection, Power,
    nfc::{FaultAction, Step},
};

use crate::{
    clones::filled,
    images::{MIB, holey, progress, within},
    simulator::Lab,
};

const TARGET: &str = "[ds1] web/restored.vmdk";
const FILES: [&str; 2] = [TARGET, "[ds1] web/restored-flat.vmdk"];

/// What the disk reads as when a host sends it over port 902.
async fn fetched(lab: &Lab, channel: Channel) -> Vec<u8> {
    let ds = lab.vim.find_datastore("ds1", None).await.unwrap();
    let tickets = DatastoreTickets::new(&lab.vim, ds.moref());
    let options = FilesOptions::new(NfcOptions::default().channel(channel));
    let mut files = NfcFiles::connect(&tickets, options).await.unwrap();
    let mut disk = files.get_disk(TARGET).await.unwrap();
    let mut content = vec![0; disk.capacity() as usize];
    while let Some(part) = disk.next().await.unwrap() {
        if let DiskPart::Data { offset, bytes } = part {
            content[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
    }
    files.close().await.unwrap();
    content
}

/// The sizes of the disk's files.
async fn sizes(lab: &Lab) -> [Option<Option<u64>>; 2] {
    let ds = lab.vim.find_datastore("ds1", None).await.unwrap();
    let mut sizes = [None, None];
    for (size, file) in sizes.iter_mut().zip(FILES) {
        *size = ds.stat(&file.parse().unwrap()).await.unwrap().map(|stat| stat.size);
    }
    sizes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_disk_is_stored_over_port_902_and_its_holes_do_not_travel() {
    let lab = Lab::new(Power::Off).await;
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    let mut expected = holey(4 * MIB);
    expected.extend(vec![0; 8 << 20]);
    expected.extend(holey(MIB));
    expected.extend([3; 512]);
    let local = Connection::local(Access::ReadWrite);
    filled(&source, &expected).await;
    let shrinking = local.open(&source).await.unwrap();
    shrinking.defragment(None).await.unwrap();
    shrinking.close().await.unwrap();
    let ways = [("nbdssl", Channel::Tls, DiskKind::VmfsThin), ("nbd", Channel::Clear, DiskKind::VmfsFlat)];
    for (written_before, (transport, channel, kind)) in ways.into_iter().enumerate() {
        let store = lab.connect(Access::ReadWrite, transport).await;
        let (told, last) = progress();
        let options = CloneOptions::new().kind(kind).overwrite(written_before > 0).progress(told);
        clone_disk(&store, TARGET, &local, &source, &options).await.unwrap();
        assert_eq!(last.load(std::sync::atomic::Ordering::SeqCst), 100);
        let traffic = lab.sim.nfc().counters().file(TARGET);
        let most = (written_before as u64 + 1) * 6 * MIB;
        assert!((MIB..most).contains(&traffic.written), "{transport}: {traffic:?}");
        assert!(fetched(&lab, channel).await == expected, "{transport}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_the_host_does_not_take_goes_to_folder() {
    let lab = Lab::new(Power::Off).await;
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    let expected = holey(3 * MIB);
    filled(&source, &expected).await;
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    for (step, action) in [
        (Step::PutFile, FaultAction::Error { code: 5, text: "out of memory".into() }),
        (Step::PutDone, FaultAction::Close),
    ] {
        lab.sim.nfc().inject(step, action);
        let (told, _) = progress();
        let options = CloneOptions::new().overwrite(true).progress(told);
        clone_disk(&store, TARGET, &Connection::local(Access::ReadOnly), &source, &options).await.unwrap();
        assert!(fetched(&lab, Channel::Tls).await == expected, "{step:?}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_breaks_both_ways_leaves_nothing_and_both_reasons_are_told() {
    let lab = Lab::new(Power::Off).await;
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    filled(&source, &holey(4 * MIB)).await;
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    let local = Connection::local(Access::ReadOnly);
    lab.sim.nfc().inject_after(Step::PutData, 4, FaultAction::Close);
    lab.sim.faults().inject("PUT /folder", Injection::DropAfter);
    let broken = clone_disk(&store, TARGET, &local, &source, &CloneOptions::new()).await.unwrap_err();
    let Error::NoTransport { attempts, .. } = &broken else { panic!("{broken}") };
    let modes: Vec<_> = attempts.iter().map(|attempt| attempt.mode).collect();
    assert_eq!(modes, [TransportMode::NbdSsl, TransportMode::Https]);
    assert!(matches!(attempts[0].error, Error::Nfc { .. }) && attempts[0].error.source().is_some(), "{broken}");
    assert_eq!(sizes(&lab).await, [None, None]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_with_another_certificate_gets_the_disk_in_no_way() {
    let lab = Lab::new(Power::Off).await;
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    filled(&source, &holey(MIB)).await;
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    let other = Lab::new(Power::Off).await;
    let identity = other.sim.nfc().identity().clone();
    lab.sim.nfc().configure(|config| config.service_identity = Some(identity));
    let local = Connection::local(Access::ReadOnly);
    let refused = clone_disk(&store, TARGET, &local, &source, &CloneOptions::new()).await.unwrap_err();
    let Error::Nfc { source, .. } = &refused else { panic!("{refused}") };
    assert!(matches!(**source, vsphere_nfc::Error::ThumbprintMismatch { .. }), "{source}");
    assert_eq!(sizes(&lab).await, [None, None]);
    other.end().await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_nobody_waits_for_leaves_nothing_on_the_datastore() {
    let lab = Lab::new(Power::Off).await;
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    filled(&source, &holey(8 * MIB)).await;
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    let (seen, first) = tokio::sync::oneshot::channel();
    let seen = std::sync::Mutex::new(Some(seen));
    let told: vixdisklib::Progress = Arc::new(move |_| {
        if let Some(seen) = seen.lock().unwrap().take() {
            let _ = seen.send(());
        }
    });
    let (options, local) = (CloneOptions::new().progress(told), Connection::local(Access::ReadOnly));
    lab.sim.nfc().inject_after(Step::PutData, 8, FaultAction::Stall);
    tokio::select! {
        biased;
        _ = first => {}
        done = clone_disk(&store, TARGET, &local, &source, &options) => panic!("too fast: {done:?}"),
    }
    let mut left = sizes(&lab).await;
    for _ in 0..100 {
        if left == [None, None] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        left = sizes(&lab).await;
    }
    assert_eq!(left, [None, None]);
    // The removal is on its way until it has seen twice that nothing is there.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    lab.end().await;
}
