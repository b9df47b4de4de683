//! `file`: images on file systems of this machine, through the crate `vmdk`.
//!
//! File I/O blocks, so it runs on the runtime's blocking threads.

mod attached;
mod clone;
mod handle;
mod local_image;
mod rewrite;

use tokio::task::{JoinError, spawn_blocking};
use vmdk::{
    GrowOptions,
    check::{CheckOptions, check},
    repair::Repair,
};

use self::{clone::clone_to_file, handle::FileHandle};
use super::{BoxFuture, DiskHandle, Transport};
use crate::{
    clone::CloneJob,
    create::CreateSpec,
    error::{Error, Result},
    governor::Governor,
    mode::TransportMode,
    open::{Access, OpenOptions},
    progress::{Progress, tell},
    upkeep::CheckOutcome,
};

/// Opens files of this machine.
pub(crate) struct FileTransport {
    options: vmdk::OpenOptions,
    governor: Option<Governor>,
}

impl FileTransport {
    pub(crate) fn new(options: vmdk::OpenOptions, governor: Option<Governor>) -> Self {
        Self { options, governor }
    }

    async fn open_disk(&self, path: &str, access: Access, options: &OpenOptions) -> Result<FileHandle> {
        check_path(path)?;
        if options.compression.is_some() {
            tracing::info!(path, "nothing travels here: the wish for compression changes nothing");
        }
        let vmdk_options = self.options.clone().access(access.into()).single_link(options.single_link);
        let opening = (path.to_owned(), vmdk_options.clone());
        let disk = blocking("opening", path, move || vmdk::Disk::open(opening.0, &opening.1)).await?;
        let place = self.governor.as_ref().map(|governor| governor.share(THIS_MACHINE.into()));
        Ok(FileHandle::new(disk, path, vmdk_options, options, place))
    }
}

impl Transport for FileTransport {
    fn mode(&self) -> TransportMode {
        TransportMode::File
    }

    fn open<'a>(
        &'a self,
        path: &'a str,
        access: Access,
        options: &'a OpenOptions,
    ) -> BoxFuture<'a, Result<Box<dyn DiskHandle>>> {
        Box::pin(async move { Ok(Box::new(self.open_disk(path, access, options).await?) as Box<dyn DiskHandle>) })
    }

    fn create<'a>(&'a self, path: &'a str, spec: &'a CreateSpec) -> BoxFuture<'a, Result<()>> {
        let Some(vmdk_spec) = spec.for_vmdk() else {
            let hint = "a clone makes stream-optimized disks; redo logs of ESXi come from snapshots";
            return super::refuse("create empty disks of this kind", self.mode(), hint);
        };
        Box::pin(async move {
            check_path(path)?;
            let name = path.to_owned();
            blocking("creating", path, move || vmdk::create(name, &vmdk_spec)?.close()).await
        })
    }

    fn unlink<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        let (name, paths) = (path.to_owned(), self.options.path_policy());
        Box::pin(async move {
            check_path(path)?;
            blocking("removing", path, move || vmdk::unlink(name, paths)).await
        })
    }

    fn grow<'a>(
        &'a self,
        path: &'a str,
        capacity: u64,
        update_geometry: bool,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<()>> {
        let options = GrowOptions::new().paths(self.options.path_policy()).update_geometry(update_geometry);
        let name = path.to_owned();
        Box::pin(async move {
            check_path(path)?;
            blocking("growing", path, move || vmdk::grow(name, capacity, &options)).await?;
            tell(progress.as_ref(), 1, 1);
            Ok(())
        })
    }

    fn clone_from<'a>(&'a self, path: &'a str, job: &'a CloneJob) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            check_path(path)?;
            clone_to_file(path, self.options.path_policy(), job).await
        })
    }

    fn check_repair<'a>(&'a self, path: &'a str, repair: bool) -> BoxFuture<'a, Result<CheckOutcome>> {
        let (name, options) = (path.to_owned(), CheckOptions::from(&self.options));
        Box::pin(async move {
            check_path(path)?;
            let work = move || {
                let found = check(&name, &options)?;
                if !repair || found.is_clean() {
                    return Ok(CheckOutcome { found, left: None });
                }
                Repair::plan(&name, &options)?.apply_in_place()?;
                Ok(CheckOutcome { found, left: Some(check(&name, &options)?) })
            };
            blocking("checking", path, work).await
        })
    }
}

/// Refuses datastore paths, which a file could be called like.
pub(crate) fn check_path(path: &str) -> Result<()> {
    if !path.starts_with('[') {
        return Ok(());
    }
    let expected = "it takes files of this machine, not datastore paths";
    Err(Error::WrongPath { mode: TransportMode::File, path: path.to_owned(), expected })
}

/// The files of a disk and of its parents.
fn files_of(disk: &vmdk::Disk) -> Vec<String> {
    let files = |link: &vmdk::LinkInfo| {
        let descriptor = link.path.to_string_lossy().into_owned();
        std::iter::once(descriptor).chain(link.data_files.clone()).collect::<Vec<_>>()
    };
    disk.links().flat_map(|link| files(&link)).collect()
}

/// Runs `work` on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &str,
    work: impl FnOnce() -> vmdk::Result<T> + Send + 'static,
) -> Result<T> {
    flatten(spawn_blocking(work).await, operation, path)
}

fn flatten<T>(done: Result<vmdk::Result<T>, JoinError>, operation: &'static str, path: &str) -> Result<T> {
    match done {
        Ok(done) => done.map_err(Error::file(operation, path)),
        Err(_) => Err(Error::CutOff { operation, path: path.to_owned() }),
    }
}

/// The host of all files. No host of a server is called so: those have the server's name before theirs.
pub(super) const THIS_MACHINE: &str = "this machine";
