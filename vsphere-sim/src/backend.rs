//! What stands behind the 902 server: tickets, the VMs' disks, and files and disks that clients store.

mod stored;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use self::stored::StoredDisk;
use crate::Fault;
use crate::files::{self, Content, FilePath, Found};
use crate::nfc::{Grant, NewDisk, NfcBackend, NfcFile, OpenRefused, RedeemError};
use crate::service::{files as operations, virtual_disks};
use crate::storage::{Access, DiskStore, NodeHandle, NodeId};
use crate::ticket::Permit;
use crate::vm::{Power, Vm};
use crate::world::World;

/// NFC code for a path that is no disk of the VM. What real hosts send is unknown.
const CODE_NOT_FOUND: u32 = 4;
/// NFC code for a disk that is in use. What real hosts send is unknown.
const CODE_LOCKED: u32 = 13;
/// NFC code when the host's own storage fails. What real hosts send is unknown.
const CODE_STORAGE: u32 = 1;

/// What a VM's disk says of itself when it is fetched as a whole.
const KEYS: [&str; 6] =
    ["adapterType", "geometry.cylinders", "geometry.heads", "geometry.sectors", "uuid", "virtualHWVersion"];

/// The disks of the simulated VMs for the 902 server.
pub(crate) struct Backend(pub(crate) Arc<World>);

impl NfcBackend for Backend {
    fn redeem(&self, session_id: &str, service: &str) -> Result<Grant, RedeemError> {
        self.0.tickets.redeem(session_id, service).map(Grant::new)
    }

    fn open(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        match permit(grant)? {
            Permit::Machine { .. } => Ok(Arc::new(self.open_disk(grant, path, write)?)),
            Permit::Datastore => self.open_stored(path, write),
        }
    }

    fn open_link(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        if matches!(permit(grant)?, Permit::Datastore) {
            // Disks that clients stored have no parents.
            return self.open_stored(path, write);
        }
        let OpenDisk { handle, capacity } = self.open_disk(grant, path, write)?;
        Ok(Arc::new(OpenDisk { handle: handle.alone(), capacity }))
    }

    fn read_file(&self, grant: &Grant, path: &str) -> Result<Vec<u8>, OpenRefused> {
        let path = self.file_path(path)?;
        let state = self.0.lock();
        if let Permit::Machine { vm, disk, .. } = permit(grant)? {
            let folder = state.vms.get(vm).map(|vm| format!("{}/", vm.folder));
            if disk.is_some() || !folder.is_some_and(|folder| path.within().starts_with(&folder)) {
                return Err(OpenRefused::new(CODE_NOT_FOUND, format!("{path} is not a file that the ticket allows")));
            }
        }
        match files::find(&self.0, &state, &path) {
            Some(Found::Stored(host)) => std::fs::read(host).map_err(|error| storage(&error)),
            Some(Found::Made(made)) => match made.content() {
                Content::Bytes(bytes) => Ok(bytes),
                _ => Err(OpenRefused::new(CODE_LOCKED, format!("{path} is part of a disk"))),
            },
            Some(Found::Folder) | None => Err(fault(&files::not_found(&path))),
        }
    }

    fn write_file(&self, grant: &Grant, path: &str, content: Vec<u8>) -> Result<(), OpenRefused> {
        let path = self.changed_path(grant, path)?;
        let host = operations::target(&self.0, &path, true).map_err(|error| fault(&error))?;
        std::fs::write(host, content).map_err(|error| storage(&error))
    }

    fn create_disk(&self, grant: &Grant, path: &str, new: &NewDisk) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        let path = self.changed_path(grant, path)?;
        let host = virtual_disks::free(&self.0, &path, new.overwrite).map_err(|error| fault(&error))?;
        Ok(Arc::new(StoredDisk::create(&host, new).map_err(|error| storage(&error))?))
    }

    fn make_directory(&self, grant: &Grant, path: &str, with_ancestors: bool) -> Result<(), OpenRefused> {
        let path = self.changed_path(grant, path)?;
        operations::make_folder(&self.0, &path, with_ancestors).map_err(|error| fault(&error))
    }

    fn delete(&self, grant: &Grant, path: &str) -> Result<(), OpenRefused> {
        let path = self.changed_path(grant, path)?;
        operations::delete(&self.0, &path).map(drop).map_err(|error| fault(&error))
    }
}

impl Backend {
    fn open_disk(&self, grant: &Grant, path: &str, write: bool) -> Result<OpenDisk, OpenRefused> {
        let refuse = |code: u32, text: String| OpenRefused::new(code, text);
        let Permit::Machine { vm, disk, write: may_write } = permit(grant)? else {
            return Err(refuse(CODE_NOT_FOUND, "the ticket is for no virtual machine".into()));
        };
        if write && !may_write {
            return Err(OpenRefused::read_only());
        }
        let path = self.datastore_path(path);
        let state = self.0.lock();
        let vm = state.vms.get(vm).ok_or_else(|| refuse(CODE_NOT_FOUND, "The virtual machine is gone".into()))?;
        let (store, node) = find(vm, *disk, &path)
            .ok_or_else(|| refuse(CODE_NOT_FOUND, format!("{path} is not a disk that the ticket allows")))?;
        if vm.power != Power::Off {
            if write {
                return Err(refuse(
                    CODE_LOCKED,
                    format!("{path} is in use by a virtual machine that is not powered off"),
                ));
            }
            // The host holds the running file locked; below a snapshot the files are open to readers.
            if node == store.current() {
                return Err(refuse(CODE_LOCKED, format!("{path} is locked by the running virtual machine")));
            }
        }
        let access = if write { Access::ReadWrite } else { Access::ReadOnly };
        let handle = store.open(node, access).map_err(|error| refuse(CODE_STORAGE, error.to_string()))?;
        let capacity = handle.capacity().map_err(|error| refuse(CODE_STORAGE, error.to_string()))?;
        Ok(OpenDisk { handle, capacity })
    }

    /// A disk that a client stored.
    fn open_stored(&self, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        let path = self.file_path(path)?;
        match files::find(&self.0, &self.0.lock(), &path) {
            Some(Found::Stored(host)) => Ok(Arc::new(StoredDisk::open(&host, write).map_err(|error| storage(&error))?)),
            Some(Found::Made(_)) => Err(OpenRefused::new(CODE_LOCKED, format!("{path} belongs to a virtual machine"))),
            Some(Found::Folder) | None => Err(fault(&files::not_found(&path))),
        }
    }

    /// The path of something to change, which takes a ticket for the datastore.
    fn changed_path(&self, grant: &Grant, path: &str) -> Result<FilePath, OpenRefused> {
        match permit(grant)? {
            Permit::Machine { .. } => Err(OpenRefused::read_only()),
            Permit::Datastore => self.file_path(path),
        }
    }

    fn file_path(&self, path: &str) -> Result<FilePath, OpenRefused> {
        FilePath::parse(&self.0, &self.datastore_path(path)).map_err(|error| fault(&error))
    }
    /// `[ds1] web/web.vmdk`, also for the form `[] /vmfs/volumes/ds1/web/web.vmdk`.
    fn datastore_path(&self, path: &str) -> String {
        let name = self.0.datastore.name();
        match path.trim_start().strip_prefix("[]").map(str::trim_start) {
            Some(absolute) => match absolute.strip_prefix(&format!("/vmfs/volumes/{name}/")) {
                Some(rest) => format!("[{name}] {rest}"),
                None => absolute.to_owned(),
            },
            None => path.to_owned(),
        }
    }
}

/// The layer with that path, among the disks that the ticket covers.
fn find(vm: &Vm, disk: Option<i32>, path: &str) -> Option<(Arc<DiskStore>, NodeId)> {
    let of_snapshots = vm.snapshots.values().flat_map(|snapshot| snapshot.settings.disks.values());
    let mut disks =
        vm.settings.disks.values().chain(of_snapshots).filter(|found| disk.is_none_or(|key| key == found.key));
    disks.find_map(|disk| Some((disk.store.clone(), disk.store.find(path)?)))
}

fn permit(grant: &Grant) -> Result<&Permit, OpenRefused> {
    grant.downcast().ok_or_else(|| OpenRefused::new(CODE_NOT_FOUND, "no grant"))
}

/// What the SOAP side says of a path, as the 902 server says it.
fn fault(fault: &Fault) -> OpenRefused {
    let code = match fault.name() {
        "FileNotFound" | "InvalidDatastore" | "InvalidDatastorePath" => CODE_NOT_FOUND,
        "FileLocked" => CODE_LOCKED,
        _ => CODE_STORAGE,
    };
    OpenRefused::new(code, fault.message())
}

fn storage(error: &dyn std::error::Error) -> OpenRefused {
    OpenRefused::new(CODE_STORAGE, error.to_string())
}

struct OpenDisk {
    handle: NodeHandle,
    capacity: u64,
}

impl NfcFile for OpenDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.handle.read_at(offset, buf).map_err(io::Error::other)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.handle.write_at(offset, data).map_err(io::Error::other)
    }

    fn allocated(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.handle.allocated(range).map_err(io::Error::other)
    }

    fn ddb(&self, key: &str) -> Option<String> {
        self.handle.disk().metadata(key)
    }

    fn ddb_entries(&self) -> Vec<(String, String)> {
        let entry = |key: &&str| Some(((*key).to_owned(), self.ddb(key)?));
        KEYS.iter().filter_map(entry).collect()
    }

    fn flush(&self) -> io::Result<()> {
        self.handle.sync().map_err(io::Error::other)
    }
}
