//! What cannot be read is refused by name, and what goes wrong on the way is healed or told.

use std::time::Duration;

use vixdisklib::{
    Access, Error,
    https::{HttpsError, HttpsOptions},
};
use vsphere_sim::{FileOptions, Injection, Power, RangeAnswers};
use vsphere_vim::{CreateSnapshotOptions, RemoveSnapshotOptions, RetryPolicy};

use super::{BASE, MIB, Site, files, https_error};
use crate::lab::{self, Random};

#[tokio::test]
async fn the_base_of_a_running_machine_is_refused_whatever_status_its_host_gives() {
    for status in [500, 403, 404] {
        let site = Site::new(Power::On, files(|files| files.locked_status = status)).await;
        let vm = lab::machine(&site.sim, "web");
        let snapshot = site.vim.create_snapshot(&vm, CreateSnapshotOptions::new("backup")).await.unwrap();
        let error = site.connect(HttpsOptions::new()).await.open(BASE).await.unwrap_err();
        let hint = error.hint().unwrap();
        assert!(hint.contains("nbdssl") && hint.contains("lease"), "{status}: {hint}");
        match https_error(error) {
            HttpsError::Refused { file, status: told, .. } => {
                assert_eq!((file.as_str(), told), ("[ds1] web/web-flat.vmdk", status));
            }
            HttpsError::NotFound { file } => assert_eq!((file.as_str(), status), ("[ds1] web/web-flat.vmdk", 404)),
            other => panic!("{other}"),
        }
        site.vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
        site.close().await;
    }
}

#[tokio::test]
async fn where_snapshots_are_hidden_the_older_base_is_not_read_instead() {
    let site = Site::new(Power::Off, files(|files| files.hide_deltas = true)).await;
    let vm = lab::machine(&site.sim, "web");
    let snapshot = site.vim.create_snapshot(&vm, CreateSnapshotOptions::new("backup")).await.unwrap();
    let error = site.connect(HttpsOptions::new()).await.open("[ds1] web/web-000001.vmdk").await.unwrap_err();
    assert!(error.hint().unwrap().contains("older"), "{:?}", error.hint());
    let error = https_error(error);
    assert!(matches!(&error, HttpsError::NotFound { file } if file == "[ds1] web/web-000001.vmdk"), "{error}");
    site.vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    site.close().await;
}

#[tokio::test]
async fn disks_that_are_objects_are_refused_before_anything_is_read() {
    let site = Site::new(Power::Off, files(|files| files.object_storage = true)).await;
    let error = site.connect(HttpsOptions::new()).await.open(BASE).await.unwrap_err();
    assert!(error.hint().unwrap().contains("nbdssl"));
    assert!(matches!(https_error(error), HttpsError::ObjectStorage { .. }));
    assert_eq!(site.sim.folder().requests(), 0);
    site.close().await;
}

#[tokio::test]
async fn writing_is_refused_by_name_and_names_must_be_of_a_datastore() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let writing = site.connect_over("https", Access::ReadWrite, HttpsOptions::new()).await.unwrap();
    let error = writing.open(BASE).await.unwrap_err();
    assert!(matches!(error, Error::NotOffered { .. }) && error.hint().unwrap().contains("upload_disk"), "{error}");
    // The next transport of the list does it.
    let either = site.connect_over("https:nbdssl", Access::ReadWrite, HttpsOptions::new()).await.unwrap();
    let disk = either.open(BASE).await.unwrap();
    assert_eq!((disk.transport().name(), disk.passed_over().len()), ("nbdssl", 1));
    disk.close().await.unwrap();
    let reading = site.connect(HttpsOptions::new()).await;
    assert!(matches!(reading.open("web/web.vmdk").await, Err(Error::WrongPath { .. })));
    let elsewhere = https_error(reading.open("[ds7] web/web.vmdk").await.unwrap_err());
    assert!(matches!(elsewhere, HttpsError::Name { .. }), "{elsewhere}");
    site.close().await;
}

#[tokio::test]
async fn names_in_descriptors_lead_to_files_of_the_machines_datastores_only() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let reading = site.connect(HttpsOptions::new()).await;
    let put = |hint: &str| {
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\
             RW 2048 VMFS \"{hint}\"\nddb.adapterType = \"lsilogic\"\n"
        );
        std::fs::write(site.sim.stored_file("odd/odd.vmdk").unwrap(), text).unwrap();
    };
    let volume = "/vmfs/volumes/ds1/data/[x] flat";
    std::fs::write(site.sim.stored_file("data/[x] flat").unwrap(), vec![9; MIB as usize]).unwrap();
    for good in [volume, "../data/[x] flat", "[ds1] data/[x] flat", "/vmfs/volumes/ds1/odd/.././data/[x] flat"] {
        put(good);
        let disk = reading.open("[ds1] odd/odd.vmdk").await.unwrap();
        assert_eq!(disk.read_at(0, 4).await.unwrap(), &[9; 4][..], "{good}");
    }
    for bad in ["/etc/passwd", "../../../etc/passwd", "/vmfs/volumes/other/x", "/vmfs/devices/disks/naa.1"] {
        put(bad);
        let error = https_error(reading.open("[ds1] odd/odd.vmdk").await.unwrap_err());
        assert!(matches!(error, HttpsError::Name { .. }), "{bad}: {error}");
    }
    put("vsan://52-1");
    let error = https_error(reading.open("[ds1] odd/odd.vmdk").await.unwrap_err());
    assert!(matches!(error, HttpsError::ObjectStorage { .. }), "{error}");
    // Those who do not trust their descriptors stay in the folder.
    put(volume);
    let strict = site.connect(HttpsOptions::new().paths(vmdk::PathPolicy::SameDirectory)).await;
    let error = strict.open("[ds1] odd/odd.vmdk").await.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    site.close().await;
}

#[tokio::test]
async fn wrong_answers_to_a_range_are_errors_and_short_ones_are_continued() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let content = Random::new(9).bytes(MIB as usize);
    site.guest_writes(MIB, &content);
    let disk = site.connect(HttpsOptions::new().read_ahead(0)).await.open(BASE).await.unwrap();
    let bytes = site.sim.folder().bytes();
    for (answers, wrong) in [
        (RangeAnswers::Ignored, "RangeIgnored"),
        (RangeAnswers::Shifted, "WrongAnswer"),
        (RangeAnswers::Unsaid, "WrongAnswer"),
    ] {
        site.sim.faults().inject("GET /folder", Injection::Ranges(answers));
        let error = https_error(disk.read_at(MIB, MIB as usize).await.unwrap_err());
        assert!(format!("{error:?}").starts_with(wrong), "{answers:?}: {error:?}");
        assert!(!error.is_retryable() && error.hint().is_some());
    }
    // A server without ranges is noticed by its head: the 32 MiB do not travel.
    assert!(site.sim.folder().bytes() - bytes < 8 * MIB);
    site.sim.faults().inject("GET /folder", Injection::Ranges(RangeAnswers::Halved));
    assert!(disk.read_at(MIB, MIB as usize).await.unwrap() == content);
    site.close().await;
}

#[tokio::test]
async fn breaks_and_dead_sessions_are_healed_and_what_does_not_heal_is_told() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let content = Random::new(10).bytes(4 << 20);
    site.guest_writes(0, &content);
    let soon = RetryPolicy::default().attempts(4).back_off(Duration::from_millis(1), Duration::from_millis(5));
    let options = HttpsOptions::new().retry(soon).longest(1 << 20).request_timeout(Duration::from_millis(600));
    let disk = site.connect(options).await.open(BASE).await.unwrap();
    for cut in [1, 700_000, 65_536, 5] {
        site.sim.faults().inject("GET /folder", Injection::CutBody(cut));
    }
    site.sim.faults().inject("GET /folder", Injection::Http(503));
    site.sim.faults().inject("GET /folder", Injection::DropBefore);
    assert!(disk.read_at(0, 4 << 20).await.unwrap() == content);
    site.sim.faults().clear();
    site.sim.expire_sessions();
    assert!(disk.read_at(0, 4 << 20).await.unwrap() == content);
    assert_eq!(site.sim.leftovers().sessions, 1, "eight ranges at once, one login");
    site.sim.faults().inject("GET /folder", Injection::StallBody(1000));
    let error = https_error(disk.read_at(0, 4096).await.unwrap_err());
    assert!(matches!(error, HttpsError::TimedOut { .. }) && error.is_retryable(), "{error}");
    for _ in 0..20 {
        site.sim.faults().inject("GET /folder", Injection::DropBefore);
    }
    let error = disk.read_at(0, 4096).await.unwrap_err();
    assert!(error.is_retryable() && error.vim().is_some(), "{error:?}");
    site.sim.faults().clear();
    // And nothing of it lasts.
    assert!(disk.read_at(0, 4 << 20).await.unwrap() == content);
    site.close().await;
}

#[tokio::test]
async fn a_file_that_changes_under_an_open_disk_is_an_error() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let file = site.sim.stored_file("put/put-flat.vmdk").unwrap();
    let text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\
                RW 2048 VMFS \"put-flat.vmdk\"\n";
    std::fs::write(site.sim.stored_file("put/put.vmdk").unwrap(), text).unwrap();
    std::fs::write(&file, vec![1; MIB as usize]).unwrap();
    let careless =
        site.connect(HttpsOptions::new().check_modified(false)).await.open("[ds1] put/put.vmdk").await.unwrap();
    let disk = site.connect(HttpsOptions::new()).await.open("[ds1] put/put.vmdk").await.unwrap();
    disk.read_at(0, 512).await.unwrap();
    // As long, written later: HTTP tells times in seconds.
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    let error = disk.read_at(0, 512).await.unwrap_err();
    assert!(error.hint().unwrap().contains("snapshot"));
    assert!(matches!(https_error(error), HttpsError::Changed { .. }));
    careless.read_at(0, 512).await.unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(2 * MIB).unwrap();
    assert!(matches!(https_error(careless.read_at(0, 512).await.unwrap_err()), HttpsError::Changed { .. }));
    site.close().await;
}

#[tokio::test]
async fn a_read_that_is_given_up_leaves_no_request_behind() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let disk = site.connect(HttpsOptions::new().read_ahead(0)).await.open(BASE).await.unwrap();
    for _ in 0..4 {
        site.sim.faults().inject("GET /folder", Injection::StallBody(10));
    }
    let given_up = tokio::time::timeout(Duration::from_millis(100), disk.read_at(0, 8 << 20)).await;
    assert!(given_up.is_err());
    for _ in 0..300 {
        if site.sim.folder().running() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(site.sim.folder().running(), 0);
    disk.read_at(0, 8 << 20).await.unwrap();
    site.close().await;
}
