//! What Windows' shadow copy service said about a quiesced snapshot: its backup components and writers.
//!
//! VMware Tools collect it while a snapshot is quiesced, the host keeps it beside the snapshot as a zip file. A backup
//! stores it, because application-aware restores (of Exchange, SQL Server, ..) are made with it.

use vsphere_vim_types::{MoRef, PropertyPath, VirtualMachineSnapshotInfo, VirtualMachineSnapshotTree, mo};

use super::{DatastorePath, FileReader, Search};
use crate::{
    client::Vim,
    error::{Error, Result},
};

/// Where a snapshot's shadow copy manifest lies.
#[derive(Clone, Debug)]
#[doc(alias = "vss-manifest.zip")]
#[doc(alias = "backupManifest")]
pub struct VssManifest {
    vim: Vim,
    path: DatastorePath,
    datacenter: Option<MoRef<mo::Datacenter>>,
}

impl Vim {
    /// Finds the manifest of a snapshot; `None` when it has none (not quiesced by VSS).
    ///
    /// The server names it in the snapshot tree, as a full datastore path or relative to the machine's snapshot
    /// directory: both are understood.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the machine has no such snapshot; those of [`Vim::get`].
    ///
    /// # Privileges
    /// `System.Read` on the machine.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// vSphere 4.0 (`VirtualMachineSnapshotTree.backupManifest`).
    pub async fn vss_manifest(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
    ) -> Result<Option<VssManifest>> {
        let path = PropertyPath::<mo::VirtualMachine, VirtualMachineSnapshotInfo>::new("snapshot");
        let tree = self.get_optional(vm, path).await?.map(|info| info.root_snapshot_list).unwrap_or_default();
        let Some(node) = find(&tree, snapshot) else {
            return Err(Error::not_found(format!("{snapshot} of {vm}")));
        };
        let Some(name) = node.backup_manifest.as_deref().filter(|name| !name.trim().is_empty()) else {
            return Ok(None);
        };
        let path = if name.trim_start().starts_with('[') {
            name.parse()?
        } else {
            self.snapshot_directory(vm).await?.join(name)?
        };
        Ok(Some(self.manifest_at(vm, path).await?))
    }

    /// Looks for manifests in a machine's snapshot directory by their names, for servers that do not name them in the
    /// snapshot tree: `patterns`, or else [`VssManifest::PATTERNS`]. Which belongs to which snapshot is the caller's to
    /// tell (by number or time).
    ///
    /// # Errors
    /// Those of [`Vim::get`] and of a search.
    ///
    /// # Privileges
    /// `Datastore.Browse`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn search_vss_manifests(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        patterns: &[&str],
    ) -> Result<Vec<VssManifest>> {
        let directory = self.snapshot_directory(vm).await?;
        let patterns = if patterns.is_empty() { VssManifest::PATTERNS } else { patterns };
        let search = patterns.iter().fold(Search::new().ignore_case(), |search, pattern| search.matching(*pattern));
        let here = self.manifest_at(vm, directory.clone()).await?;
        let store = self.find_datastore(directory.datastore(), here.datacenter.as_ref()).await?;
        let files = store.search(&directory, &search).await?;
        Ok(files.into_iter().map(|file| VssManifest { path: file.path, ..here.clone() }).collect())
    }

    async fn snapshot_directory(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<DatastorePath> {
        let directory: Option<String> =
            self.get_optional(vm, PropertyPath::new("config.files.snapshotDirectory")).await?;
        match directory.filter(|directory| !directory.trim().is_empty()) {
            Some(directory) => directory.parse(),
            // Unset: where the configuration is.
            None => {
                let vmx: String = self.get(vm, PropertyPath::new("config.files.vmPathName")).await?;
                let vmx: DatastorePath = vmx.parse()?;
                vmx.parent().ok_or_else(|| Error::not_found(format!("the folder of {vm}")))
            }
        }
    }

    async fn manifest_at(&self, vm: &MoRef<mo::VirtualMachine>, path: DatastorePath) -> Result<VssManifest> {
        // Any of the machine's datastores tells the datacenter, within which the path's datastore is unique.
        let stores = PropertyPath::<mo::VirtualMachine, Vec<MoRef<mo::Datastore>>>::new("datastore");
        let datacenter = match self.get_optional(vm, stores).await?.unwrap_or_default().first() {
            Some(store) => Some(self.open_datastore(store).await?.datacenter().clone()),
            None => None,
        };
        Ok(VssManifest { vim: self.clone(), path, datacenter })
    }
}

impl VssManifest {
    /// Names under which hosts have been seen to keep manifests: `web-vss_manifests1.zip`, and the name in VMware's
    /// documentation.
    pub const PATTERNS: &[&str] = &["*vss_manifests*.zip", "*vss-manifest*.zip"];

    /// Where it is.
    pub fn path(&self) -> &DatastorePath {
        &self.path
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`ReadFile::open`](super::ReadFile::open).
    ///
    /// # Privileges
    /// As [`ReadFile::open`](super::ReadFile::open).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open(&self) -> Result<FileReader> {
        let store = self.vim.find_datastore(self.path.datastore(), self.datacenter.as_ref()).await?;
        store.read(&self.path).open().await
    }
}

/// The node of a snapshot, without recursion: the tree's depth is the server's word.
fn find<'a>(
    tree: &'a [VirtualMachineSnapshotTree],
    snapshot: &MoRef<mo::VirtualMachineSnapshot>,
) -> Option<&'a VirtualMachineSnapshotTree> {
    let mut waiting: Vec<_> = tree.iter().collect();
    while let Some(node) = waiting.pop() {
        if node.snapshot == *snapshot {
            return Some(node);
        }
        waiting.extend(&node.child_snapshot_list);
    }
    None
}
