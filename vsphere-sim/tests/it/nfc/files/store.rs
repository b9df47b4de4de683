//! A datastore in memory behind the simulator's 902 server.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vsphere_nfc::{Error, FilesOptions, NfcFiles, SessionId, Ticket};
use vsphere_sim::nfc::{
    Grant, NewDisk, NfcBackend, NfcFile, NfcIdentity, NfcServer, NfcServerConfig, OpenRefused, RedeemError,
};

use super::super::disk::MemoryDisk;
use super::super::host::{fixed, identity};

/// The code of every refusal of the store; made up.
pub(super) const REFUSED: u32 = 99;

/// What is stored, by path.
#[derive(Default)]
pub(super) struct Store {
    pub(super) files: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(super) directories: Mutex<BTreeSet<String>>,
    pub(super) disks: Mutex<BTreeMap<String, Arc<StoredDisk>>>,
}

/// A disk, with what it was made from.
pub(super) struct StoredDisk {
    pub(super) memory: MemoryDisk,
    pub(super) ddb: Mutex<Vec<(String, String)>>,
    pub(super) new: Option<NewDisk>,
}

impl Store {
    pub(super) fn disk(&self, path: &str) -> Arc<StoredDisk> {
        Arc::clone(&self.disks.lock().unwrap()[path])
    }

    pub(super) fn add_disk(&self, path: &str, memory: MemoryDisk, ddb: &[(&str, &str)]) {
        let ddb = ddb.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let disk = StoredDisk { memory, ddb: Mutex::new(ddb), new: None };
        self.disks.lock().unwrap().insert(path.to_owned(), Arc::new(disk));
    }
}

fn refused(text: &str) -> OpenRefused {
    OpenRefused::new(REFUSED, text)
}

impl NfcBackend for Store {
    fn redeem(&self, session_id: &str, _service: &str) -> Result<Grant, RedeemError> {
        (session_id == "good").then(|| Grant::new(())).ok_or(RedeemError::Unknown)
    }

    fn open(&self, _grant: &Grant, path: &str, _write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        let disk = self.disks.lock().unwrap().get(path).cloned();
        disk.map(|disk| disk as Arc<dyn NfcFile>).ok_or_else(|| refused("File not found"))
    }

    fn read_file(&self, _grant: &Grant, path: &str) -> Result<Vec<u8>, OpenRefused> {
        self.files.lock().unwrap().get(path).cloned().ok_or_else(|| refused("File not found"))
    }

    fn write_file(&self, _grant: &Grant, path: &str, content: Vec<u8>) -> Result<(), OpenRefused> {
        self.files.lock().unwrap().insert(path.to_owned(), content);
        Ok(())
    }

    fn create_disk(&self, _grant: &Grant, path: &str, new: &NewDisk) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        let disk = StoredDisk { memory: MemoryDisk::new(new.capacity), ddb: Mutex::default(), new: Some(new.clone()) };
        let disk = Arc::new(disk);
        self.disks.lock().unwrap().insert(path.to_owned(), Arc::clone(&disk));
        Ok(disk)
    }

    fn make_directory(&self, _grant: &Grant, path: &str, with_ancestors: bool) -> Result<(), OpenRefused> {
        let mut directories = self.directories.lock().unwrap();
        if let Some((above, _)) = path.rsplit_once('/')
            && !directories.contains(above)
        {
            if !with_ancestors {
                return Err(refused("No such directory"));
            }
            directories.insert(above.to_owned());
        }
        directories.insert(path.to_owned());
        Ok(())
    }

    fn delete(&self, _grant: &Grant, path: &str) -> Result<(), OpenRefused> {
        let removed = self.files.lock().unwrap().remove(path);
        removed.map(drop).ok_or_else(|| refused("File not found"))
    }
}

impl NfcFile for StoredDisk {
    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.memory.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write_at(offset, data)
    }

    fn allocated(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.memory.allocated(range)
    }

    fn ddb(&self, key: &str) -> Option<String> {
        self.ddb.lock().unwrap().iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    fn ddb_entries(&self) -> Vec<(String, String)> {
        self.ddb.lock().unwrap().clone()
    }

    fn set_ddb(&self, entries: &[(String, String)]) -> io::Result<()> {
        self.ddb.lock().unwrap().extend_from_slice(entries);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.memory.flush()
    }
}

/// A server with a datastore.
pub(super) struct Shelf {
    pub(super) server: NfcServer,
    pub(super) store: Arc<Store>,
}

impl Shelf {
    pub(super) async fn start(config: NfcServerConfig) -> Self {
        Self::start_with(identity(), config).await
    }

    pub(super) async fn start_with(identity: NfcIdentity, config: NfcServerConfig) -> Self {
        let store = Arc::<Store>::default();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = NfcServer::bind(address, identity, Arc::clone(&store) as _, config).await.unwrap();
        Self { server, store }
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            host: "127.0.0.1".to_owned(),
            port: self.server.local_addr().port(),
            pin: Some(self.server.identity().thumbprint_sha1().parse().unwrap()),
            service: "vpxa-nfc".to_owned(),
            session_id: SessionId::new("good"),
        }
    }

    pub(super) async fn connect(&self, options: FilesOptions) -> Result<NfcFiles, Error> {
        NfcFiles::connect(&*fixed(self.ticket()), options).await
    }

    pub(super) fn add_file(&self, path: &str, content: &[u8]) {
        self.store.files.lock().unwrap().insert(path.to_owned(), content.to_vec());
    }
}
