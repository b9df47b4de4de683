//! What stands behind the 902 server: tickets and the VMs' disks.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::nfc::{Grant, NfcBackend, NfcFile, OpenRefused, RedeemError};
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

/// The disks of the simulated VMs for the 902 server.
pub(crate) struct Backend(pub(crate) Arc<World>);

impl NfcBackend for Backend {
    fn redeem(&self, session_id: &str, service: &str) -> Result<Grant, RedeemError> {
        self.0.tickets.redeem(session_id, service).map(Grant::new)
    }

    fn open(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        Ok(Arc::new(self.open_disk(grant, path, write)?))
    }

    fn open_link(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        let OpenDisk { handle, capacity } = self.open_disk(grant, path, write)?;
        Ok(Arc::new(OpenDisk { handle: handle.alone(), capacity }))
    }
}

impl Backend {
    fn open_disk(&self, grant: &Grant, path: &str, write: bool) -> Result<OpenDisk, OpenRefused> {
        let refuse = |code: u32, text: String| OpenRefused::new(code, text);
        let permit: &Permit = grant.downcast().ok_or_else(|| refuse(CODE_NOT_FOUND, "no grant".into()))?;
        if write && !permit.write {
            return Err(OpenRefused::read_only());
        }
        let path = self.datastore_path(path);
        let state = self.0.lock();
        let vm =
            state.vms.get(&permit.vm).ok_or_else(|| refuse(CODE_NOT_FOUND, "The virtual machine is gone".into()))?;
        let (store, node) = find(vm, permit, &path)
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
fn find(vm: &Vm, permit: &Permit, path: &str) -> Option<(Arc<DiskStore>, NodeId)> {
    let of_snapshots = vm.snapshots.values().flat_map(|snapshot| snapshot.settings.disks.values());
    let mut disks =
        vm.settings.disks.values().chain(of_snapshots).filter(|disk| permit.disk.is_none_or(|key| key == disk.key));
    disks.find_map(|disk| Some((disk.store.clone(), disk.store.find(path)?)))
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

    fn flush(&self) -> io::Result<()> {
        self.handle.sync().map_err(io::Error::other)
    }
}
