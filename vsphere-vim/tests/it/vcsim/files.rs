//! Datastore files and imports.
//!
//! vcsim keeps uploaded datastore files, asks for no login at `/folder`, throws the bytes of leased disks away and has
//! no exports.

use vsphere_vim::{
    Error,
    datastore::{Existing, Search},
    transport::stream::Upload,
};

use super::Vcsim;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[tokio::test]
async fn datastore_files_go_up_and_down_whole_and_in_part() {
    for options in [&["-folder", "1"][..], &["-esx"]] {
        let Some(vcsim) = Vcsim::start(options) else { return };
        let vim = vcsim.connect().await;
        let store = vim.find_datastore("LocalDS_0", None).await.unwrap();
        if vim.is_vcenter() {
            assert!(store.datacenter_path().ends_with("/DC0"), "{}", store.datacenter_path());
        } else {
            assert_eq!(store.datacenter_path(), "ha-datacenter");
        }
        let folder = store.path("backup/a b").unwrap();
        store.make_folder(&folder, true).await.unwrap();
        let again = store.make_folder(&folder, false).await.unwrap_err();
        assert!(again.is_fault("FileAlreadyExists"), "{again}");
        let (file, bytes) = (folder.join("x+y.bin").unwrap(), content(1_000_003));
        store.write(&file, Upload::from_bytes(bytes.clone())).await.unwrap();
        assert_eq!(store.stat(&file).await.unwrap().unwrap().size, Some(1_000_003));
        assert!(store.read(&file).open().await.unwrap().collect(2_000_000).await.unwrap() == bytes);
        let part = store.read(&file).range(999_000..u64::MAX).open().await.unwrap();
        assert_eq!(part.len(), Some(1003));
        assert!(part.collect(2000).await.unwrap() == bytes[999_000..]);
        let unknown = Upload::from_reader(None, std::io::Cursor::new(bytes.clone()));
        store.write(&folder.join("chunked").unwrap(), unknown).await.unwrap();
        assert_eq!(store.stat(&folder.join("chunked").unwrap()).await.unwrap().unwrap().size, Some(1_000_003));

        let (copy, moved) = (folder.join("copy").unwrap(), folder.join("moved").unwrap());
        store.copy(&file, (&store, &copy), Existing::Keep).await.unwrap();
        let again = store.copy(&file, (&store, &copy), Existing::Keep).await.unwrap_err();
        assert!(again.is_fault("FileAlreadyExists"), "{again}");
        store.rename(&copy, (&store, &moved), Existing::Keep).await.unwrap();
        let listed = store.search(&folder, &Search::new().matching("*")).await.unwrap();
        let mut names: Vec<_> = listed.iter().map(|file| (file.path.file_name().to_owned(), file.size)).collect();
        names.sort();
        assert_eq!(names, ["chunked", "moved", "x+y.bin"].map(|name| (name.to_owned(), Some(1_000_003))));
        assert!(listed.iter().all(|file| file.modified.is_some()));
        let everything = store.search(&store.path("").unwrap(), &Search::new().recursive()).await.unwrap();
        assert!(everything.iter().any(|found| found.path == moved), "{everything:?}");
        store.delete(&moved).await.unwrap();
        assert!(matches!(store.read(&moved).open().await.unwrap_err(), Error::NotFound { .. }));
        assert!(store.delete(&moved).await.unwrap_err().is_fault("FileNotFound"));
        assert!(store.list(&store.path("nowhere").unwrap()).await.unwrap_err().is_fault("FileNotFound"));
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_search_finds_the_machines_disks() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let store = vim.find_datastore("LocalDS_0", None).await.unwrap();
    let disks = store.search(&store.path("DC0_H0_VM0").unwrap(), &Search::new().disks()).await.unwrap();
    let names: Vec<_> = disks.iter().map(|disk| disk.path.to_string()).collect();
    assert_eq!(names, ["[LocalDS_0] DC0_H0_VM0/disk1.vmdk"]);
    vim.logout().await.unwrap();
}
