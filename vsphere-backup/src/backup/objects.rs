//! The small files of a machine that are kept beside its disks: configuration, firmware variables, the VSS manifest.
//!
//! They are read over HTTPS from the datastore. A server that refuses one does not fail the backup: `config.json` has
//! what a restore cannot do without. The point says what is not in it, and why.

use std::time::Duration;

use vsphere_vim::{
    PowerState,
    datastore::{Datastore, DatastorePath, FileReader},
    mo,
    vm::Snapshot,
};

use crate::{
    error::{Error, Result, in_one_line},
    repository::{PointWriter, storage::BoxFuture},
    server,
    step::{Step, Steps},
};

use super::{Backup, machine::Machine};

/// A point that takes small files.
pub(super) trait Objects: Send {
    /// Takes one.
    fn put<'a>(&'a mut self, name: &'a str, content: Vec<u8>) -> BoxFuture<'a, Result<()>>;

    /// Notes that one is not in the point, and why.
    fn leave_out(&mut self, name: &str, reason: &str);
}

impl Objects for PointWriter {
    fn put<'a>(&'a mut self, name: &'a str, content: Vec<u8>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.put_object(name, content.into()).await.map(drop) })
    }

    fn leave_out(&mut self, name: &str, reason: &str) {
        self.leave_out_object(name, reason);
    }
}

impl Backup {
    /// Stores the machine's configuration as of the snapshot, or as it is, and its small files.
    pub(super) async fn store_objects(
        &self,
        steps: &Steps,
        point: &mut dyn Objects,
        machine: &Machine,
        snapshot: Option<&Snapshot>,
    ) -> Result<()> {
        let wrong = || server::failed("reading the configuration", self.vm.value());
        let read = || async {
            let config = match snapshot {
                Some(snapshot) => self.vim.snapshot_config(&snapshot.snapshot).await,
                None => self.vim.config(&self.vm).await,
            };
            config.map_err(wrong())
        };
        let config = steps.take(Step::ReadConfig, read).await?;
        let json = serde_json::to_vec_pretty(&config)
            .map_err(|error| Error::invalid(format!("the configuration cannot be kept: {error}")))?;
        steps.once(Step::StoreConfig, point.put(CONFIG_OBJECT, json)).await?;

        if let Some(vmx) = machine.files.vmx.clone() {
            self.store(steps, point, VMX_OBJECT, self.file(&vmx)).await?;
        }
        if let Some(nvram) = machine.nvram_path() {
            self.store(steps, point, NVRAM_OBJECT, self.file(&nvram)).await?;
        }
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.backup_manifest.is_some()) {
            self.store(steps, point, VSS_OBJECT, self.vss(snapshot)).await?;
        }
        if machine.details.power_state == PowerState::Suspended {
            point.leave_out(MEMORY_OBJECT, "the memory of a suspended machine is not stored");
        }
        Ok(())
    }

    /// Stores a file, or says why it is not stored.
    async fn store(
        &self,
        steps: &Steps,
        point: &mut dyn Objects,
        name: &str,
        read: impl Future<Output = Result<Vec<u8>, String>>,
    ) -> Result<()> {
        let bounded = async {
            let late = |_| Err(format!("it could not be read within {READ_LIMIT:?}"));
            Ok(tokio::time::timeout(READ_LIMIT, read).await.unwrap_or_else(late))
        };
        match steps.once(Step::ReadConfig, bounded).await? {
            Ok(content) => steps.once(Step::StoreConfig, point.put(name, content)).await,
            Err(reason) => {
                self.events.warn(format!("{name} is not stored: {reason}"));
                point.leave_out(name, &reason);
                Ok(())
            }
        }
    }

    async fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        let read = async {
            let path: DatastorePath = path.parse()?;
            let store = self.datastore_of(&path).await?;
            store.read(&path).open().await
        };
        self.content(read.await).await
    }

    async fn vss(&self, snapshot: &Snapshot) -> Result<Vec<u8>, String> {
        match self.vim.vss_manifest(&self.vm, &snapshot.snapshot).await {
            Ok(Some(manifest)) => self.content(manifest.open().await).await,
            Ok(None) => Err("the server no longer names it".into()),
            Err(error) => self.content(Err(error)).await,
        }
    }

    /// Reads a small file whole.
    async fn content(&self, opened: vsphere_vim::Result<FileReader>) -> Result<Vec<u8>, String> {
        let wrong = |error| in_one_line(&server::failed("reading a file", self.vm.value())(error));
        let reader = opened.map_err(wrong)?;
        if let Some(size) = reader.file_size().filter(|size| *size > MAX_FILE as u64) {
            return Err(format!("it has {size} bytes, and {MAX_FILE} are kept at most"));
        }
        reader.collect(MAX_FILE).await.map_err(wrong)
    }

    /// Finds the datastore of a path: by name within the datacenter of the machine's datastores.
    async fn datastore_of(&self, path: &DatastorePath) -> vsphere_vim::Result<Datastore> {
        let own = self.vim.get_optional(&self.vm, mo::VirtualMachine::DATASTORE).await?.unwrap_or_default();
        let datacenter = match own.first() {
            Some(store) => Some(self.vim.open_datastore(store).await?.datacenter().clone()),
            None => None,
        };
        self.vim.find_datastore(path.datastore(), datacenter.as_ref()).await
    }
}

/// The name under which a point keeps the machine's configuration (`ConfigInfo` as JSON).
pub const CONFIG_OBJECT: &str = "config.json";

/// The name under which a point keeps the machine's configuration file, as it was while disks were read.
pub const VMX_OBJECT: &str = "vmx";

/// The name under which a point keeps the firmware's variables.
pub const NVRAM_OBJECT: &str = "nvram";

/// The name under which a point keeps what VSS said of a quiesced snapshot.
pub const VSS_OBJECT: &str = "vss-manifest.zip";

/// What is never stored, by the name under which a point says so.
const MEMORY_OBJECT: &str = "vmss";

/// What a point's small object may take, less than the 16 MiB of the format. A VSS manifest has some hundred KiB.
const MAX_FILE: usize = 15 << 20;

const READ_LIMIT: Duration = Duration::from_secs(60);
