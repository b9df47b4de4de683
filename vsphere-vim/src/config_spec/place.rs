//! Where the machine and its disks go, in paths of the form `[datastore] folder/file`.

use std::collections::HashSet;

use vsphere_vim_types::{MoRef, VirtualMachineConfigInfo, VirtualMachineFileInfo, mo};

use super::{
    note::Notes,
    options::{DiskNames, Options},
};

/// A datastore as a target: its name, which stands in paths, and its reference where the caller knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatastoreTarget {
    /// Its name, without brackets.
    pub name: String,
    /// Its reference on the server that will make the machine.
    pub moref: Option<MoRef<mo::Datastore>>,
}

/// The places of one conversion.
pub(super) struct Places<'a> {
    options: &'a Options,
    /// The machine's new home, `[datastore] folder/`, where its name is known.
    home: Option<String>,
    taken: HashSet<String>,
}

/// Where a disk's file is to be.
pub(super) struct DiskPlace {
    pub(super) path: String,
    pub(super) datastore: Option<MoRef<mo::Datastore>>,
}

impl<'a> Places<'a> {
    /// Decides the machine's home.
    pub(super) fn of(
        info: &VirtualMachineConfigInfo,
        options: &'a Options,
        notes: &mut Notes,
    ) -> (Self, VirtualMachineFileInfo) {
        let old = info.files.vm_path_name.as_deref().unwrap_or_default();
        let old_store = datastore_of(old);
        let store = options.datastore.as_ref().map(|target| target.name.as_str()).or(old_store);
        let name = options.name.as_deref().unwrap_or(&info.name);
        let path = match (&options.vm_path, store, options.disk_names) {
            (Some(path), ..) => path.clone(),
            (None, Some(store), DiskNames::Keep) => {
                let folder = file_safe(name);
                format!("[{store}] {folder}/{folder}.vmx")
            }
            // Without a folder the server makes one of its own choice.
            (None, Some(store), DiskNames::ServerChooses) => format!("[{store}]"),
            (None, None, _) => {
                notes.warn("files.vmPathName", "the old machine names no datastore: say where the new one goes");
                String::new()
            }
        };
        let moved = datastore_of(&path) != old_store;
        let own_home = folder_of(old);
        let mut keep = |directory: &Option<String>, what: &str| {
            let directory = directory.clone().filter(|directory| !directory.is_empty())?;
            if own_home.is_some_and(|home| directory.trim_end_matches('/') == home.trim_end_matches('/')) {
                return None;
            }
            if moved {
                notes.warn(what, format!("{directory} was left out: the machine moves to another datastore"));
                return None;
            }
            Some(directory)
        };
        let files = VirtualMachineFileInfo {
            snapshot_directory: keep(&info.files.snapshot_directory, "files.snapshotDirectory"),
            suspend_directory: keep(&info.files.suspend_directory, "files.suspendDirectory"),
            log_directory: keep(&info.files.log_directory, "files.logDirectory"),
            vm_path_name: Some(path.clone()).filter(|path| !path.is_empty()),
            ..Default::default()
        };
        let home = folder_of(&path).map(str::to_owned);
        (Self { options, home, taken: HashSet::new() }, files)
    }

    /// A place for a new disk whose base file was `old`.
    pub(super) fn new_disk(&mut self, old: &str, target: Option<&DatastoreTarget>, notes: &mut Notes) -> DiskPlace {
        let target = target.or(self.options.datastore.as_ref());
        let datastore = target.and_then(|target| target.moref.clone());
        let Some(store) = target.map(|target| target.name.as_str()).or_else(|| datastore_of(old)) else {
            // An empty name puts it beside the machine, under a name of the server's choice.
            return DiskPlace { path: String::new(), datastore };
        };
        let base = old.rsplit(['/', ']']).next().map(str::trim).filter(|base| base.ends_with(".vmdk"));
        let folder = self.home.as_deref().and_then(|home| home.split_once("] ")).map(|(_, folder)| folder.to_owned());
        let path = match (self.options.disk_names, base, folder) {
            (DiskNames::Keep, Some(base), Some(folder)) => self.free(store, &folder, base, notes),
            _ => format!("[{store}]"),
        };
        DiskPlace { path, datastore }
    }

    /// Disks of one name from several folders meet in one: all but the first get a number.
    fn free(&mut self, store: &str, folder: &str, base: &str, notes: &mut Notes) -> String {
        let stem = base.strip_suffix(".vmdk").unwrap_or(base);
        let mut path = format!("[{store}] {folder}{base}");
        let mut number = 1;
        while !self.taken.insert(path.clone()) {
            path = format!("[{store}] {folder}{stem}_{number}.vmdk");
            number += 1;
        }
        if number > 1 {
            notes.info("backing.fileName", format!("two disks were called {base}: this one becomes {path}"));
        }
        path
    }
}

/// The datastore's name in `[name] folder/file`.
pub(super) fn datastore_of(path: &str) -> Option<&str> {
    let name = path.trim_start().strip_prefix('[')?.split_once(']')?.0;
    Some(name).filter(|name| !name.is_empty())
}

/// `[name] folder/` of `[name] folder/file`.
fn folder_of(path: &str) -> Option<&str> {
    Some(&path[..=path.rfind('/')?])
}

/// A name as a folder's: without what would leave the folder.
fn file_safe(name: &str) -> String {
    let safe: String = name.chars().map(|c| if matches!(c, '/' | '\\' | '\0' | '[' | ']') { '_' } else { c }).collect();
    if safe.trim_start_matches('.').trim().is_empty() { "vm".to_owned() } else { safe }
}
