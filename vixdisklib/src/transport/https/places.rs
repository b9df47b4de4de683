//! Which file of which datastore a name means.
//!
//! The crate that walks chains joins names as paths do. So that names of every kind come out right, disks are opened
//! by absolute names in the form that hosts use themselves: `/vmfs/volumes/DATASTORE/folder/file`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use vmdk::AsyncResolver;
use vsphere_vim::{
    MoRef, PropertyPath, Vim,
    datastore::{Datastore, DatastorePath},
    mo,
};

use super::{
    error::HttpsError,
    file::{Channel, FolderFile},
};
use crate::{error::Error, machine::Machine};

/// The datastores of a virtual machine.
#[derive(Debug)]
pub(super) struct Places {
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    store: Datastore,
    /// `5f1c…-…` of `ds:///vmfs/volumes/5f1c…-…/`: what absolute names in descriptors have.
    volume: Option<String>,
    /// `VMFS`, `NFS`, `vsan`, `VVOL`, …
    kind: String,
}

/// Opens the files of one disk.
pub(super) struct FolderResolver<'a> {
    places: &'a Places,
    channel: Arc<Channel>,
    /// Folders of files that were opened, in absolute form: behind them a name may begin with `[`.
    folders: Mutex<BTreeSet<String>>,
}

impl Places {
    /// Asks for the datastores that the machine uses, those of its snapshots and parents included.
    pub(super) async fn of(machine: &Machine, route: &vsphere_vim::datastore::FileRoute) -> Result<Self, Error> {
        let Machine { vim, vm, .. } = machine;
        let datastores = vim.get(vm, mo::VirtualMachine::DATASTORE).await;
        let datastores = datastores.map_err(machine.failed("listing the datastores"))?;
        let mut places = Vec::new();
        for datastore in datastores {
            let place = Place::of(vim, &datastore, route).await;
            places.push(place.map_err(machine.failed("looking at a datastore"))?);
        }
        Ok(Self { places })
    }

    /// `[ds1] web/web.vmdk` in absolute form.
    pub(super) fn absolute(&self, path: &DatastorePath) -> Result<PathBuf, HttpsError> {
        if self.by_name(path.datastore()).is_none() {
            let problem = "the virtual machine uses no datastore of that name";
            return Err(HttpsError::Name { name: path.to_string(), problem });
        }
        Ok(format!("{VOLUMES}{}/{}", path.datastore(), path.path()).into())
    }

    /// Refuses a disk whose datastore has no files with its bytes.
    pub(super) fn check_has_files(&self, path: &DatastorePath) -> Result<(), HttpsError> {
        match self.by_name(path.datastore()) {
            Some(place) if OBJECT_STORAGE.iter().any(|kind| place.kind.eq_ignore_ascii_case(kind)) => {
                let datastore = format!("{} ({})", place.store.name(), place.kind);
                Err(HttpsError::ObjectStorage { file: path.to_string(), datastore })
            }
            _ => Ok(()),
        }
    }

    fn by_name(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.store.name() == name)
    }

    /// The datastore and path that an absolute name means.
    fn locate(&self, name: &str) -> Result<(&Place, DatastorePath), HttpsError> {
        let refuse = |problem| HttpsError::Name { name: name.to_owned(), problem };
        let within = name.strip_prefix(VOLUMES).ok_or_else(|| refuse("it is not a file of a datastore"))?;
        let parts = normal(within).ok_or_else(|| refuse("it leaves the datastores"))?;
        let (volume, path) = parts.split_first().ok_or_else(|| refuse("it names no datastore"))?;
        let place = self.places.iter().find(|place| place.volume.as_deref() == Some(*volume));
        let place = place.or_else(|| self.by_name(volume));
        let place = place.ok_or_else(|| refuse("it lies in a datastore that the virtual machine does not use"))?;
        let path = place.store.path(&path.join("/")).map_err(|_| refuse("it is no path of a datastore"))?;
        Ok((place, path))
    }
}

impl Place {
    async fn of(
        vim: &Vim,
        datastore: &MoRef<mo::Datastore>,
        route: &vsphere_vim::datastore::FileRoute,
    ) -> vsphere_vim::Result<Self> {
        let store = vim.open_datastore(datastore).await?.route(route.clone());
        let kind = vim.get_optional(datastore, PropertyPath::<_, String>::new("summary.type")).await?;
        let url = vim.get_optional(datastore, PropertyPath::<_, String>::new("summary.url")).await?;
        Ok(Self { store, volume: url.as_deref().and_then(volume_of), kind: kind.unwrap_or_default() })
    }
}

impl<'a> FolderResolver<'a> {
    pub(super) fn new(places: &'a Places, channel: Arc<Channel>) -> Self {
        Self { places, channel, folders: Mutex::default() }
    }

    /// `/vmfs/volumes/ds1/web/[ds2] base/base.vmdk`, which is what joining makes of a name in the datastores' own
    /// notation, becomes `/vmfs/volumes/ds2/base/base.vmdk`. A folder whose name has brackets stays what it is.
    fn rejoined(&self, name: &str) -> String {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = folders.iter().rev().find_map(|folder| name.strip_prefix(folder)?.strip_prefix('/'));
        let notation = behind.filter(|rest| rest.starts_with('[')).and_then(|rest| rest.parse::<DatastorePath>().ok());
        match notation.filter(|path| self.places.by_name(path.datastore()).is_some()) {
            Some(path) => format!("{VOLUMES}{}/{}", path.datastore(), path.path()),
            None => name.to_owned(),
        }
    }

    /// The file of a link of the disk in the datastores' own notation.
    pub(super) fn named(&self, link: &Path) -> Option<String> {
        Some(self.locate(link).ok()?.1.to_string())
    }

    fn locate(&self, path: &Path) -> Result<(&'a Place, DatastorePath), HttpsError> {
        self.places.locate(&self.rejoined(&path.to_string_lossy()))
    }
}

impl AsyncResolver for FolderResolver<'_> {
    type Source = FolderFile;

    async fn open(&self, path: &Path) -> std::io::Result<FolderFile> {
        let (place, found) = self.locate(path).map_err(HttpsError::into_io)?;
        if let Some(folder) = path.parent().and_then(Path::to_str) {
            let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            folders.insert(folder.to_owned());
        }
        let file = FolderFile::open(Arc::clone(&self.channel), place.store.clone(), found).await;
        file.map_err(HttpsError::into_io)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        match self.locate(path) {
            Ok((_, found)) => found.to_string().into(),
            // Opening it says why not.
            Err(_) => path.to_owned(),
        }
    }
}

/// The parts of a path without `.` and `..`; `None` when it leaves its root.
fn normal(path: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts)
}

/// The volume in a datastore's URL.
fn volume_of(url: &str) -> Option<String> {
    let (_, volume) = url.split_once(VOLUMES)?;
    Some(volume.trim_matches('/').to_owned()).filter(|volume| !volume.is_empty())
}

/// Where hosts mount their datastores, by id and by name.
const VOLUMES: &str = "/vmfs/volumes/";

/// Kinds of datastores whose disks are objects behind a descriptor.
const OBJECT_STORAGE: [&str; 3] = ["vsan", "vsanD", "VVOL"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_normal_and_never_leave_their_root() {
        assert_eq!(normal("a/./b//../c"), Some(vec!["a", "c"]));
        assert_eq!(normal("ds1/web/../../ds2/x"), Some(vec!["ds2", "x"]));
        assert_eq!(normal("a/../../b"), None);
    }

    #[test]
    fn volumes_are_read_from_urls() {
        let volume = |url| volume_of(url);
        assert_eq!(volume("ds:///vmfs/volumes/5f1c-22/"), Some("5f1c-22".to_owned()));
        assert_eq!(volume("ds:///vmfs/volumes/vsan:52-11/"), Some("vsan:52-11".to_owned()));
        assert_eq!(volume("/vmfs/volumes/"), None);
        assert_eq!(volume("netfs://192.0.2.1/export"), None);
    }
}
