//! The datastore as files: what clients stored, and what the server makes of its VMs.
//!
//! A VM's files (configuration, descriptors, extents) are not kept as files: they are shown from the VM's state, so
//! they never disagree with it. What clients upload lies in a hidden folder of the datastore's directory.

mod counters;
mod delta;
mod made;
mod path;
mod zip;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

pub use counters::FolderCounters;
pub(crate) use counters::Metered;
pub(crate) use delta::Delta;
pub use delta::DeltaFormat;
pub(crate) use made::{Content, Made};
pub(crate) use path::FilePath;
pub(crate) use zip::zip;

use crate::Fault;
use crate::world::{State, World};

/// What a path names.
pub(crate) enum Found {
    /// A folder.
    Folder,
    /// A file that a client stored, on the simulator's host.
    Stored(PathBuf),
    /// A file that belongs to a VM.
    Made(Made),
}

/// One line of a listing.
pub(crate) struct Listed {
    /// The name within the folder.
    pub(crate) name: String,
    /// Size in bytes; folders have none.
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    pub(crate) folder: bool,
    /// The capacity of the disk, for descriptors.
    pub(crate) capacity: Option<u64>,
}

/// Where a client's file with this path lies on the simulator's host, whether or not it exists.
pub(crate) fn host_path(world: &World, path: &FilePath) -> PathBuf {
    world.datastore.root().join(".files").join(path.within())
}

/// Looks a path up.
pub(crate) fn find(world: &World, state: &State, path: &FilePath) -> Option<Found> {
    if path.within().is_empty() {
        return Some(Found::Folder);
    }
    let host = host_path(world, path);
    if host.is_file() {
        return Some(Found::Stored(host));
    }
    let below = format!("{}/", path.within());
    let mut made = shown(world, state);
    if let Some(at) = made.iter().position(|(name, _)| name == path.within()) {
        return Some(Found::Made(made.swap_remove(at).1));
    }
    let is_folder = host.is_dir() || made.iter().any(|(name, _)| name.starts_with(&below));
    is_folder.then_some(Found::Folder)
}

/// The entries of a folder, by name; `None` when there is no such folder.
pub(crate) fn list(world: &World, state: &State, folder: &FilePath) -> Option<Vec<Listed>> {
    if !matches!(find(world, state, folder)?, Found::Folder) {
        return None;
    }
    let prefix = if folder.within().is_empty() { String::new() } else { format!("{}/", folder.within()) };
    let mut list: Vec<Listed> = Vec::new();
    let mut folders = BTreeSet::new();
    for (name, made) in shown(world, state) {
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        match rest.split_once('/') {
            Some((folder, _)) => {
                folders.insert(folder.to_owned());
            }
            None => list.push(Listed {
                name: rest.to_owned(),
                size: made.size(),
                modified: made.modified(),
                folder: false,
                capacity: made.capacity(),
            }),
        }
    }
    for entry in std::fs::read_dir(host_path(world, folder)).into_iter().flatten().flatten() {
        let (Ok(meta), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
        if meta.is_dir() {
            folders.insert(name);
            continue;
        }
        // A file that a client stored hides one that is made, as `find` has it.
        list.retain(|listed| listed.name != name);
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        list.push(Listed { name, size: meta.len(), modified, folder: false, capacity: None });
    }
    let folder = |name| Listed { name, size: 0, modified: SystemTime::now(), folder: true, capacity: None };
    list.extend(folders.into_iter().map(folder));
    list.sort_by(|one, other| one.name.cmp(&other.name));
    Some(list)
}

/// The VMs' files that this server shows.
fn shown(world: &World, state: &State) -> Vec<(String, Made)> {
    let options = &world.settings.files;
    let mut files = made::all(world, state);
    files.retain(|(_, made)| !(options.hide_deltas && made.is_delta || options.object_storage && made.is_extent()));
    files
}

/// `FileNotFound`
pub(crate) fn not_found(path: &FilePath) -> Fault {
    Fault::new("FileNotFound", &format!("File {path} was not found")).field("file", &path.to_string())
}
