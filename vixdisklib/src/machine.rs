//! The virtual machine that a connection is to, and its disks at a point in time.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use vsphere_vim::{DeviceKey, MoRef, Vim, VirtualDiskInfo, datastore::FileRoute, mo};

use crate::{
    error::{Error, Result},
    governor::{DiskDemand, Governor, Place},
};

/// A virtual machine, now or at one of its snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) vim: Vim,
    pub(crate) vm: MoRef<mo::VirtualMachine>,
    /// Where disks come from; `None` for the VM as it is.
    pub(crate) snapshot: Option<MoRef<mo::VirtualMachineSnapshot>>,
}

/// A disk that a connection can open, as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedDisk {
    /// The device's key, the same in all snapshots.
    pub key: DeviceKey,
    /// Its name in the client, such as `Hard disk 1`.
    pub label: String,
    /// What [`Connection::open`](crate::Connection::open) takes: `[ds1] web/web.vmdk`.
    pub path: String,
    /// Size in bytes.
    pub capacity: u64,
}

impl Machine {
    /// The disks of the point in time that the connection is to.
    pub(crate) async fn disks(&self) -> Result<Vec<VirtualDiskInfo>> {
        match &self.snapshot {
            Some(snapshot) => self.snapshot_disks(snapshot).await,
            None => self.vim.disks(&self.vm).await.map_err(self.failed("listing the disks")),
        }
    }

    /// Finds the disk that a file belongs to: tickets are for a device key, and snapshots change the file but not the
    /// key.
    pub(crate) async fn find(&self, path: &str) -> Result<FoundDisk> {
        let disks = self.disks().await?;
        if let Some(found) = owner(&disks, path) {
            return Ok(found);
        }
        if self.snapshot.is_none() {
            // After a revert, files of a snapshot may lie on a branch that the running disk does not build upon.
            let snapshots = self.vim.snapshots(&self.vm).await.map_err(self.failed("listing the snapshots"))?;
            for found in snapshots.iter() {
                if let Some(found) = owner(&self.snapshot_disks(&found.snapshot).await?, path) {
                    return Ok(found);
                }
            }
        }
        let found = disks.into_iter().filter_map(|disk| disk.backing.file_name).collect();
        Err(Error::NotOfVm { path: path.to_owned(), vm: self.to_string(), found })
    }

    async fn snapshot_disks(&self, snapshot: &MoRef<mo::VirtualMachineSnapshot>) -> Result<Vec<VirtualDiskInfo>> {
        self.vim.snapshot_disks(snapshot).await.map_err(self.failed("listing the disks of a snapshot"))
    }

    /// Waits for a place for one of its disks, on the host that the machine is on.
    pub(crate) async fn place(&self, governor: Option<&Governor>, memory: u64) -> Result<Option<Place>> {
        let Some(governor) = governor else { return Ok(None) };
        let vcenter = self.vim.is_vcenter().then(|| self.server().into());
        loop {
            let (host, asked) = (self.host().await?, Instant::now());
            let demand = DiskDemand { host: Arc::clone(&host), vcenter: vcenter.clone(), memory };
            let place = governor.admit(demand).await;
            // Who waited long may have to wait elsewhere: the machine may have moved.
            if asked.elapsed() < LONG || self.host().await? == host {
                return Ok(Some(place));
            }
            place.give_back();
        }
    }

    /// Lets one of its disks, whose data go past NFC, take turns with the others of its host.
    #[cfg(all(feature = "vddk", unix))]
    pub(crate) async fn share(&self, governor: Option<&Governor>) -> Result<Option<Place>> {
        let Some(governor) = governor else { return Ok(None) };
        Ok(Some(governor.share(self.host().await?)))
    }

    /// The same for a disk over HTTPS.
    pub(crate) async fn share_https(&self, governor: Option<&Governor>, route: &FileRoute) -> Result<Option<Place>> {
        let Some(governor) = governor else { return Ok(None) };
        let host = match route {
            FileRoute::Host(route) | FileRoute::HostThenServer(route) => self.name_of(route.host()),
            _ if self.vim.is_vcenter() => self.server().into(),
            _ => self.host().await?,
        };
        Ok(Some(governor.share(host)))
    }

    /// The host that the machine is on, unique over all servers.
    async fn host(&self) -> Result<Arc<str>> {
        let host = self.vim.host_of(&self.vm).await.map_err(self.failed("asking for the host"))?;
        Ok(self.name_of(&host))
    }

    fn name_of(&self, host: &MoRef<mo::HostSystem>) -> Arc<str> {
        format!("{} {host}", self.server()).into()
    }

    /// The server, whatever name it is reached by.
    fn server(&self) -> String {
        let id = self.vim.server_uuid().filter(|id| !id.is_empty());
        id.map_or_else(|| self.vim.endpoint().to_string(), str::to_owned)
    }

    pub(crate) fn failed(&self, operation: &'static str) -> impl FnOnce(vsphere_vim::Error) -> Error + use<> {
        let of = self.to_string();
        move |source| Error::Server { operation, of, source: Box::new(source) }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{} at {snapshot}", self.vm),
            None => write!(f, "{}", self.vm),
        }
    }
}

impl ListedDisk {
    /// `None` for a disk without a file, such as a raw device.
    pub(crate) fn of(disk: VirtualDiskInfo) -> Option<Self> {
        let path = disk.backing.file_name?;
        Some(Self { key: disk.key, label: disk.label, path, capacity: disk.capacity })
    }
}

/// The disk that a file belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundDisk {
    pub(crate) key: DeviceKey,
    /// The files that the file builds upon, its parent first.
    pub(crate) parents: Vec<String>,
    /// Size in bytes.
    pub(crate) capacity: u64,
}

/// The disk whose chain has the file.
fn owner(disks: &[VirtualDiskInfo], path: &str) -> Option<FoundDisk> {
    disks.iter().find_map(|disk| {
        let mut chain = disk.backing.file_name.iter().chain(&disk.backing.parents);
        chain.find(|file| *file == path)?;
        Some(FoundDisk { key: disk.key, parents: chain.cloned().collect(), capacity: disk.capacity })
    })
}

/// In less time than that nothing is moved.
const LONG: Duration = Duration::from_secs(1);
