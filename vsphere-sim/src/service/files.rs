//! FileManager and HostDatastoreBrowser: what is done with the datastore's files besides moving their bytes.

use std::sync::Arc;
use std::time::SystemTime;

use vsphere_vim_types::methods::{
    CopyDatastoreFile_Task, DeleteDatastoreFile_Task, MakeDirectory, MoveDatastoreFile_Task, SearchDatastore_Task,
    SearchDatastoreSubFolders_Task,
};
use vsphere_vim_types::{
    Any, DateTime, FileInfo, FolderFileInfo, FolderFileQuery, HostDatastoreBrowserSearchResults,
    HostDatastoreBrowserSearchSpec, ManagedObjectReference, Method, MoRef, Poly, VmConfigFileInfo, VmDiskFileInfo,
    VmDiskFileQuery, VmLogFileInfo, mo,
};

use crate::Fault;
use crate::files::{self, FilePath, Found, Listed};
use crate::personality::{Fixed, Personality};
use crate::world::World;

use super::{Call, Reply, start_task_on};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "MakeDirectory" => {
            let args: MakeDirectory = call.args()?;
            let path = resolve(call, &args.name, args.datacenter.as_ref())?;
            make_folder(call.world, &path, args.create_parent_directories == Some(true))?;
            Ok(call.reply::<MakeDirectory>(&()))
        }
        "DeleteDatastoreFile_Task" => {
            let args: DeleteDatastoreFile_Task = call.args()?;
            let path = resolve(call, &args.name, args.datacenter.as_ref())?;
            start::<DeleteDatastoreFile_Task>(call, move |world| delete(world, &path))
        }
        "CopyDatastoreFile_Task" => {
            let args: CopyDatastoreFile_Task = call.args()?;
            let from = resolve(call, &args.source_name, args.source_datacenter.as_ref())?;
            let target = args.destination_datacenter.as_ref().or(args.source_datacenter.as_ref());
            let to = resolve(call, &args.destination_name, target)?;
            let force = args.force == Some(true);
            start::<CopyDatastoreFile_Task>(call, move |world| copy(world, &from, &to, force))
        }
        "MoveDatastoreFile_Task" => {
            let args: MoveDatastoreFile_Task = call.args()?;
            let from = resolve(call, &args.source_name, args.source_datacenter.as_ref())?;
            let target = args.destination_datacenter.as_ref().or(args.source_datacenter.as_ref());
            let to = resolve(call, &args.destination_name, target)?;
            let force = args.force == Some(true);
            start::<MoveDatastoreFile_Task>(call, move |world| rename(world, &from, &to, force))
        }
        "SearchDatastore_Task" => {
            let args: SearchDatastore_Task = call.args()?;
            let folder = FilePath::parse(call.world, &args.datastore_path)?;
            let spec = args.search_spec.unwrap_or_default();
            start::<SearchDatastore_Task>(call, move |world| Ok(Any::of(&search(world, &folder, &spec)?)))
        }
        "SearchDatastoreSubFolders_Task" => {
            let args: SearchDatastoreSubFolders_Task = call.args()?;
            let folder = FilePath::parse(call.world, &args.datastore_path)?;
            let spec = args.search_spec.unwrap_or_default();
            let task = begin(call, SearchDatastoreSubFolders_Task::NAME, move |world| {
                let mut results = Vec::new();
                let mut waiting = vec![folder];
                while let Some(folder) = waiting.pop() {
                    results.push(search(world, &folder, &spec)?);
                    let entries = files::list(world, &world.lock(), &folder).unwrap_or_default();
                    waiting.extend(entries.iter().filter(|entry| entry.folder).map(|entry| folder.child(&entry.name)));
                }
                Ok(Any::of(&results))
            });
            Ok(call.reply::<SearchDatastoreSubFolders_Task>(&Some(task)))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

/// Tasks on files have the datastore as their object.
pub(super) fn start<M: Method<Output = MoRef<mo::Task>>>(
    call: &Call<'_>,
    work: impl FnOnce(&Arc<World>) -> Result<Any, Fault> + Send + 'static,
) -> Result<Reply, Fault> {
    let datastore = call.world.fixed(Fixed::Datastore);
    start_task_on::<M>(call, datastore, call.world.datastore.name().to_owned(), Arc::default(), work)
}

fn begin(
    call: &Call<'_>,
    method: &'static str,
    work: impl FnOnce(&Arc<World>) -> Result<Any, Fault> + Send + 'static,
) -> MoRef<mo::Task> {
    let job = crate::task::Job {
        method,
        entity: call.world.fixed(Fixed::Datastore),
        entity_name: call.world.datastore.name().to_owned(),
        user: call.user(),
        gate: Arc::default(),
        injected: call.task_fault.clone(),
    };
    crate::task::start(call.world, job, work)
}

/// A path, checked with the datacenter that it needs on a vCenter.
pub(super) fn resolve(
    call: &Call<'_>,
    path: &str,
    datacenter: Option<&MoRef<mo::Datacenter>>,
) -> Result<FilePath, Fault> {
    let own = call.world.fixed(Fixed::Datacenter);
    match datacenter {
        Some(datacenter) if *datacenter.as_untyped() != own => Err(Fault::not_found(datacenter.as_untyped())),
        None if call.world.personality() == Personality::VCenter => Err(Fault::invalid_argument("datacenter")),
        _ => FilePath::parse(call.world, path),
    }
}

pub(crate) fn make_folder(world: &World, path: &FilePath, parents: bool) -> Result<(), Fault> {
    let state = world.lock();
    if files::find(world, &state, path).is_some() {
        return Err(exists(path));
    }
    let parent = path.parent();
    match files::find(world, &state, &parent) {
        Some(Found::Folder) => {}
        Some(_) => return Err(exists(&parent)),
        None if parents => {}
        None => return Err(files::not_found(&parent)),
    }
    std::fs::create_dir_all(files::host_path(world, path)).map_err(|error| io_fault("CannotCreateFile", path, &error))
}

pub(crate) fn delete(world: &World, path: &FilePath) -> Result<Any, Fault> {
    let state = world.lock();
    if path.within().is_empty() {
        return Err(
            Fault::new("CannotDeleteFile", "The datastore itself cannot be deleted").field("file", &path.to_string())
        );
    }
    match files::find(world, &state, path) {
        None => Err(files::not_found(path)),
        Some(Found::Made(_)) => Err(Fault::file_locked(&path.to_string())),
        Some(Found::Stored(host)) => {
            std::fs::remove_file(host).map(|()| Any::Null).map_err(|error| io_fault("CannotDeleteFile", path, &error))
        }
        Some(Found::Folder) => {
            let host = files::host_path(world, path);
            let held_by_vm = state
                .vms
                .values()
                .any(|vm| vm.folder == path.within() || vm.folder.starts_with(&format!("{}/", path.within())));
            if held_by_vm {
                return Err(Fault::file_locked(&path.to_string()));
            }
            std::fs::remove_dir_all(host)
                .map(|()| Any::Null)
                .map_err(|error| io_fault("CannotDeleteFile", path, &error))
        }
    }
}

fn copy(world: &Arc<World>, from: &FilePath, to: &FilePath, force: bool) -> Result<Any, Fault> {
    let source = files::find(world, &world.lock(), from).ok_or_else(|| files::not_found(from))?;
    if from == to {
        // Opened to be overwritten, it would be empty before it is read.
        return Err(exists(to));
    }
    let target = target(world, to, force)?;
    let failed = |error: std::io::Error| io_fault("CannotCreateFile", to, &error);
    match source {
        Found::Folder => Err(Fault::not_supported("copying a folder")),
        Found::Stored(host) => std::fs::copy(host, target).map(|_| Any::Null).map_err(failed),
        Found::Made(made) if made.is_extent() && made.running => Err(Fault::file_locked(&from.to_string())),
        Found::Made(made) => {
            use std::io::Write as _;
            let size = made.size();
            let mut file = std::fs::File::create(target).map_err(failed)?;
            match made.content() {
                files::Content::Bytes(bytes) => file.write_all(&bytes).map_err(failed)?,
                files::Content::Flat(store, node) => {
                    let handle =
                        store.open(node, crate::storage::Access::ReadOnly).map_err(|error| Fault::storage(&error))?;
                    let mut at = 0;
                    while at < size {
                        let mut piece = vec![0; (size - at).min(1 << 20) as usize];
                        handle.read_at(at, &mut piece).map_err(|error| Fault::storage(&error))?;
                        file.write_all(&piece).map_err(failed)?;
                        at += piece.len() as u64;
                    }
                }
                files::Content::Delta(store, node, format) => {
                    let mut write = |bytes: bytes::Bytes| file.write_all(&bytes);
                    files::Delta::new(store, node, format).send(0..size, &mut write).map_err(failed)?;
                }
            }
            Ok(Any::Null)
        }
    }
}

fn rename(world: &Arc<World>, from: &FilePath, to: &FilePath, force: bool) -> Result<Any, Fault> {
    let source = files::find(world, &world.lock(), from).ok_or_else(|| files::not_found(from))?;
    let host = match source {
        Found::Stored(host) => host,
        Found::Made(_) => return Err(Fault::file_locked(&from.to_string())),
        Found::Folder => {
            let host = files::host_path(world, from);
            if world.lock().vms.values().any(|vm| vm.folder == from.within()) || !host.is_dir() {
                return Err(Fault::file_locked(&from.to_string()));
            }
            host
        }
    };
    let target = target(world, to, force)?;
    std::fs::rename(host, target).map(|()| Any::Null).map_err(|error| io_fault("CannotCreateFile", to, &error))
}

/// Where a new file goes; its folder has to exist.
pub(crate) fn target(world: &World, to: &FilePath, force: bool) -> Result<std::path::PathBuf, Fault> {
    let state = world.lock();
    match files::find(world, &state, to) {
        Some(Found::Stored(_)) if force => {}
        Some(_) => return Err(exists(to)),
        None => {}
    }
    let parent = to.parent();
    match files::find(world, &state, &parent) {
        Some(Found::Folder) => {}
        _ => return Err(files::not_found(&parent)),
    }
    // The folder of a VM exists without one of its own for clients' files.
    std::fs::create_dir_all(files::host_path(world, &parent))
        .map_err(|error| io_fault("CannotCreateFile", to, &error))?;
    Ok(files::host_path(world, to))
}

fn search(
    world: &World,
    folder: &FilePath,
    spec: &HostDatastoreBrowserSearchSpec,
) -> Result<HostDatastoreBrowserSearchResults, Fault> {
    let entries = files::list(world, &world.lock(), folder).ok_or_else(|| files::not_found(folder))?;
    let file = entries.iter().filter(|entry| wanted(entry, spec)).map(|entry| info(entry, spec)).collect();
    let folder_path = if folder.within().is_empty() { folder.to_string() } else { format!("{folder}/") };
    Ok(HostDatastoreBrowserSearchResults {
        datastore: Some(world.fixed(Fixed::Datastore).cast()),
        folder_path: Some(folder_path),
        file,
        ..Default::default()
    })
}

fn wanted(entry: &Listed, spec: &HostDatastoreBrowserSearchSpec) -> bool {
    let fold = |text: &str| {
        if spec.search_case_insensitive == Some(true) { text.to_lowercase() } else { text.to_owned() }
    };
    let by_name = spec.match_pattern.is_empty()
        || spec.match_pattern.iter().any(|pattern| matches(fold(pattern).as_bytes(), fold(&entry.name).as_bytes()));
    let by_kind = spec.query.is_empty()
        || spec.query.iter().any(|query| {
            if query.downcast_ref::<VmDiskFileQuery>().is_some() {
                is_disk(entry)
            } else if query.downcast_ref::<FolderFileQuery>().is_some() {
                entry.folder
            } else {
                query.type_name() == "FileQuery" || kind(entry) == query.type_name().replace("Query", "Info")
            }
        });
    by_name && by_kind
}

/// A descriptor; the extents belong to it.
fn is_disk(entry: &Listed) -> bool {
    let extent = ["-flat.vmdk", "-sesparse.vmdk", "-delta.vmdk"].iter().any(|suffix| entry.name.ends_with(suffix));
    !entry.folder && entry.name.ends_with(".vmdk") && !extent
}

fn kind(entry: &Listed) -> &'static str {
    match entry.name.rsplit('.').next() {
        _ if entry.folder => "FolderFileInfo",
        Some("vmdk") if is_disk(entry) => "VmDiskFileInfo",
        Some("vmx") => "VmConfigFileInfo",
        Some("log") => "VmLogFileInfo",
        _ => "FileInfo",
    }
}

fn info(entry: &Listed, spec: &HostDatastoreBrowserSearchSpec) -> Poly<FileInfo> {
    let details = spec.details.clone().unwrap_or_default();
    let since = entry.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let base = FileInfo {
        path: entry.name.clone(),
        file_size: details.file_size.then_some(entry.size as i64),
        modification: details.modification.then(|| DateTime::from_unix(since.as_secs() as i64, since.subsec_nanos())),
        owner: details.file_owner.then(|| "root".to_owned()),
        ..Default::default()
    };
    if entry.folder {
        return Poly::new(FolderFileInfo { base });
    }
    let by_query = |name: &str| spec.query.iter().any(|query| query.type_name() == name);
    match kind(entry) {
        "VmDiskFileInfo" if details.file_type || by_query("VmDiskFileQuery") => Poly::new(VmDiskFileInfo {
            disk_type: Some("VirtualDiskFlatVer2BackingInfo".into()),
            capacity_kb: entry.capacity.map(|bytes| (bytes / 1024) as i64),
            hardware_version: Some(14),
            disk_extents: vec![entry.name.replace(".vmdk", "-flat.vmdk")],
            thin: Some(true),
            base,
            ..Default::default()
        }),
        "VmConfigFileInfo" if details.file_type => Poly::new(VmConfigFileInfo { base, ..Default::default() }),
        "VmLogFileInfo" if details.file_type => Poly::new(VmLogFileInfo { base }),
        _ => Poly::new(base),
    }
}

/// `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut retry {
                Some((star, from)) => {
                    *from += 1;
                    (p, n) = (*star + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

pub(super) fn exists(path: &FilePath) -> Fault {
    Fault::new(
        "FileAlreadyExists",
        &format!("Cannot complete the operation because the file or folder {path} already exists"),
    )
    .field("file", &path.to_string())
}

fn io_fault(name: &str, path: &FilePath, error: &std::io::Error) -> Fault {
    Fault::new(name, &format!("{path}: {error}")).field("file", &path.to_string())
}

/// A ticket for one HTTP request; `AcquireGenericServiceTicket`.
pub(super) fn service_ticket(call: &Call<'_>) -> Result<Reply, Fault> {
    use vsphere_vim_types::methods::AcquireGenericServiceTicket;
    use vsphere_vim_types::{SessionManagerGenericServiceTicket, SessionManagerHttpServiceRequestSpec};
    let args: AcquireGenericServiceTicket = call.args()?;
    let Some(spec) = args.spec.downcast_ref::<SessionManagerHttpServiceRequestSpec>() else {
        return Err(Fault::not_supported("tickets for services other than HTTP"));
    };
    let method = match spec.method.as_deref() {
        None | Some("httpGet") => "GET",
        Some("httpHead") => "HEAD",
        Some("httpPut") => "PUT",
        Some("httpPost") => "POST",
        Some("httpDelete") => "DELETE",
        Some(_) => return Err(Fault::invalid_argument("spec.method")),
    };
    let after_scheme = spec.url.split_once("://").map(|(_, rest)| rest);
    let Some(resource) = after_scheme.and_then(|rest| rest.find('/').map(|at| &rest[at..])) else {
        return Err(Fault::invalid_argument("spec.url"));
    };
    let id = call.world.lock().http_tickets.issue(method, resource);
    let (_, thumbprint) = call.world.nfc.get().cloned().unzip();
    Ok(call.reply::<AcquireGenericServiceTicket>(&SessionManagerGenericServiceTicket {
        id,
        host_name: Some(call.world.personality().name(Fixed::Host).into()),
        ssl_thumbprint: thumbprint,
        ..Default::default()
    }))
}

/// The browser of the only datastore.
pub(crate) fn browser(world: &World) -> ManagedObjectReference {
    world.fixed(Fixed::DatastoreBrowser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_know_stars_and_question_marks() {
        for (pattern, name, wanted) in [
            ("*", "x", true),
            ("*.vmdk", "web.vmdk", true),
            ("*vss_manifests*.zip", "web-vss_manifests1.zip", true),
            ("w?b*", "web", true),
            ("w?b", "wb", false),
            ("*a*b", "aXbXb", true),
            ("*a*b", "aXbXc", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
    }
}
