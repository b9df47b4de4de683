//! The NVRAM beside a new machine: boot entries, Secure Boot variables.

use vsphere_vim::{MoRef, datastore::DatastorePath, mo, transport::stream::Upload};

use super::Maker;
use crate::{
    backup::NVRAM_OBJECT,
    error::{Error, Result},
    restore::Restore,
    server::failed,
    step::Step,
};

impl Restore {
    /// Puts the stored NVRAM, if there is one, where the new machine looks for it. A server that does not take it is
    /// a note: the firmware makes an empty one.
    pub(super) async fn put_nvram(
        &self,
        maker: &Maker<'_>,
        vm: &MoRef<mo::VirtualMachine>,
        notes: &mut Vec<String>,
    ) -> Result<bool> {
        let (vim, steps) = (maker.vim(), maker.steps());
        let Some(bytes) = self.point.object(NVRAM_OBJECT).await? else { return Ok(false) };
        let wrong = || failed("reading the configuration", vm.value());
        let config = steps.take(Step::FindMachine, || async { vim.config(vm).await.map_err(wrong()) }).await?;
        let path = config.files.vm_path_name.as_deref().unwrap_or_default();
        // Where it is named, beside the configuration file; else after that one.
        let named = config.extra_config.iter().find(|option| option.key.eq_ignore_ascii_case("nvram"));
        let named = named.and_then(|option| match &option.value {
            Some(vsphere_vim::Any::String(name)) if !name.is_empty() && !name.contains(['/', '\\']) => {
                Some(name.clone())
            }
            _ => None,
        });
        let put = async {
            let file: DatastorePath = path.parse()?;
            let stem = file.file_name().strip_suffix(".vmx").unwrap_or(file.file_name());
            let name = named.unwrap_or_else(|| format!("{stem}.nvram"));
            let folder = file.parent().map_or_else(|| DatastorePath::new(file.datastore(), ""), Ok)?;
            let place = folder.join(&name)?;
            // Of the machine's own: a name alone may mean several.
            for datastore in vim.get(vm, mo::VirtualMachine::DATASTORE).await? {
                let store = vim.open_datastore(&datastore).await?;
                if store.name() == file.datastore() {
                    return store.write(&place, Upload::from_bytes(bytes)).await.map(|()| true);
                }
            }
            Ok(false)
        };
        let done: vsphere_vim::Result<bool> = steps.once(Step::WriteNvram, async { Ok(put.await) }).await?;
        match done {
            Ok(true) => Ok(true),
            Ok(false) => {
                notes.push(format!("its NVRAM is new: the datastore of {path} is not among the machine's"));
                Ok(false)
            }
            Err(vsphere_vim::Error::Cancelled { .. }) => Err(Error::Cancelled),
            Err(error) => {
                notes.push(format!("its NVRAM is new: the stored one could not be put beside it: {error}"));
                Ok(false)
            }
        }
    }
}
