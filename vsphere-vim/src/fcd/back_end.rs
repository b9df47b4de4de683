//! The three managers of First Class Disks, whose methods do the same under other names.

use vsphere_vim_types::{Any, FromAny, ID, MoRef, methods, mo};

use super::FcdRef;
use crate::{
    client::Vim,
    error::{Call, Error, Result},
    vslm::Vslm,
};

/// Who manages the disks.
#[derive(Clone, Debug)]
pub(super) enum BackEnd {
    /// vCenter's manager.
    VCenter(Vim, MoRef<mo::VcenterVStorageObjectManager>),
    /// An ESXi host's manager.
    Host(Vim, MoRef<mo::HostVStorageObjectManager>),
    /// vCenter's storage lifecycle service.
    Anywhere(Vslm),
}

/// Calls the method of the back end at hand: vCenter's, the host's, or the storage lifecycle service's. The arguments
/// are those that all three have; `datastore` goes to the first two. With `, end` behind them the method is one that
/// starts a task: its end is waited for, and gives the task's result.
macro_rules! on_each {
    (
        $back_end:expr, $disk:expr,
        $vcenter:ident | $host:ident | $vslm:ident { $($field:ident : $value:expr),* $(,)? } $(, $end:ident)?
    ) => {
        match $back_end {
            BackEnd::VCenter(vim, manager) => {
                let datastore = $crate::fcd::back_end::datastore($disk)?;
                let id = $disk.id.to_wire();
                let args = methods::$vcenter { id, datastore, $($field: $value,)* ..Default::default() };
                let answer = vim.invoke(manager, args).await;
                $(let answer = $crate::fcd::back_end::Tasks::$end(vim, &answer?).await;)?
                answer
            }
            BackEnd::Host(vim, manager) => {
                let datastore = $crate::fcd::back_end::datastore($disk)?;
                let id = $disk.id.to_wire();
                let args = methods::$host { id, datastore, $($field: $value,)* ..Default::default() };
                let answer = vim.invoke(manager, args).await;
                $(let answer = $crate::fcd::back_end::Tasks::$end(vim, &answer?).await;)?
                answer
            }
            BackEnd::Anywhere(vslm) => {
                let args = methods::$vslm { id: $disk.id.to_wire(), $($field: $value,)* ..Default::default() };
                let answer = vslm.invoke(&vslm.disk_manager(), args).await;
                $(let answer = $crate::fcd::back_end::Tasks::$end(vslm, &answer?).await;)?
                answer
            }
        }
    };
}
pub(super) use on_each;

/// What runs tasks.
pub(super) trait Tasks {
    type Task;

    /// Waits for the end of a task; its result.
    async fn end(&self, task: &MoRef<Self::Task>) -> Result<Any>;
}

impl Tasks for Vim {
    type Task = mo::Task;

    async fn end(&self, task: &MoRef<mo::Task>) -> Result<Any> {
        self.wait(task).await.map(|done| done.raw_result().cloned().unwrap_or_default())
    }
}

impl Tasks for Vslm {
    type Task = mo::VslmTask;

    async fn end(&self, task: &MoRef<mo::VslmTask>) -> Result<Any> {
        self.wait(task).await
    }
}

impl BackEnd {
    pub(super) fn vim(&self) -> &Vim {
        match self {
            Self::VCenter(vim, _) | Self::Host(vim, _) => vim,
            Self::Anywhere(vslm) => vslm.vim(),
        }
    }

    /// The disks of a datastore. The storage lifecycle service has another way: [`FcdStream`](super::FcdStream).
    pub(super) async fn list(&self, datastore: &MoRef<mo::Datastore>) -> Result<Vec<ID>> {
        let datastore = datastore.clone();
        match self {
            Self::VCenter(vim, manager) => {
                vim.invoke(manager, methods::ListVStorageObject { datastore, ..Default::default() }).await
            }
            Self::Host(vim, manager) => {
                vim.invoke(manager, methods::HostListVStorageObject { datastore, ..Default::default() }).await
            }
            Self::Anywhere(_) => Err(Error::unsupported("a list by datastore", "this service lists by conditions")),
        }
    }
}

/// Where the disk lies, for the managers that find it by that.
pub(super) fn datastore(disk: &FcdRef) -> Result<MoRef<mo::Datastore>> {
    let why =
        "vCenter and ESXi find a first class disk by its datastore; only the storage lifecycle service needs none";
    disk.datastore.clone().ok_or_else(|| Error::invalid_input("datastore", why))
}

/// A task's result as `V`.
pub(super) fn result<V: FromAny>(operation: &str, value: Any) -> Result<V> {
    V::from_any(value)
        .map_err(|mismatch| Error::protocol(Call::named(operation), format!("the task's result: {mismatch}")))
}
