//! The data of any disk in new files of this machine.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use tokio::runtime::Handle;
use vmdk::{CopyOptions, Image, PathPolicy, convert, stream};

use super::{blocking, files_of};
use crate::{
    clone::CloneJob,
    create::{CreateSpec, DiskKind},
    error::Result,
    mode::TransportMode,
    progress::{Progress, tell},
    transport::{image::blocking_image, refuse},
};

/// Makes a disk at `path`. The source is read ahead by many threads, which is what keeps a network busy.
pub(super) async fn clone_to_file(path: &str, paths: PathPolicy, job: &CloneJob) -> Result<()> {
    let spec = job.spec(DiskKind::MonolithicSparse);
    if spec.kind == DiskKind::VmfsSparse {
        let hint = "redo logs are made by ESXi alone; choose another kind";
        return refuse("make disks of this kind", TransportMode::File, hint).await;
    }
    let source = blocking_image(Arc::clone(&job.source), &job.name, Handle::current());
    let work = Work {
        path: path.into(),
        paths,
        spec,
        overwrite: job.options.overwrite,
        source_chain: job.source.chain().await?,
        progress: job.options.progress.clone(),
        cancelled: Arc::clone(&job.cancelled),
    };
    blocking("cloning to", path, move || work.run(&*source)).await
}

struct Work {
    path: PathBuf,
    paths: PathPolicy,
    spec: CreateSpec,
    overwrite: bool,
    /// The files of the source, which must not be removed.
    source_chain: Vec<String>,
    progress: Option<Progress>,
    cancelled: Arc<AtomicBool>,
}

impl Work {
    fn run(&self, source: &dyn Image) -> vmdk::Result<()> {
        if self.path.exists() {
            self.make_way()?;
        }
        match self.spec.for_vmdk() {
            Some(spec) => self.convert(source, &spec),
            None => self.export(source),
        }
    }

    /// Removes the disk that is in the way, if that is wanted and it is not the source.
    fn make_way(&self) -> vmdk::Result<()> {
        let exists = || {
            let name = self.path.display().to_string();
            vmdk::Error::io("create", name, None, io::ErrorKind::AlreadyExists.into())
        };
        let real = |file: &String| Path::new(file).canonicalize().ok();
        if !self.overwrite {
            return Err(exists());
        }
        let own = std::iter::once(self.path.to_string_lossy().into_owned()).chain(self.files_in_the_way());
        let own: Vec<_> = own.filter_map(|file| real(&file)).collect();
        if self.source_chain.iter().filter_map(real).any(|file| own.contains(&file)) {
            return Err(exists());
        }
        vmdk::unlink(&self.path, self.paths)
    }

    /// Those that the disk in the way has, as far as it can be read: its descriptor may name files of the source.
    fn files_in_the_way(&self) -> Vec<String> {
        let options = vmdk::OpenOptions::new().single_link(true).paths(self.paths);
        vmdk::Disk::open(&self.path, &options).map_or_else(|_| Vec::new(), |disk| files_of(&disk))
    }

    fn convert(&self, source: &dyn Image, spec: &vmdk::CreateSpec) -> vmdk::Result<()> {
        let capacity = source.capacity();
        let report = |bytes| tell(self.progress.as_ref(), bytes, capacity);
        let options = CopyOptions::new().threads(THREADS).cancel(&self.cancelled).progress(&report);
        convert(source, &self.path, spec, &options)?.close()
    }

    fn export(&self, source: &dyn Image) -> vmdk::Result<()> {
        let failed = |operation| {
            let name = self.path.display().to_string();
            move |error: io::Error| vmdk::Error::io(operation, name, None, error)
        };
        let file = File::options().write(true).create_new(true).open(&self.path).map_err(failed("create"))?;
        let half_made = RemovedUnlessKept { path: &self.path, kept: false };
        let mut spec = stream::StreamSpec::new(source.capacity()).name(file_name(&self.path));
        if let Some(adapter) = self.spec.adapter.clone() {
            spec = spec.adapter_type(adapter);
        } else if let Some(adapter) = source.ddb_get("adapterType") {
            spec = spec.adapter_type(vmdk::AdapterType::from_name(&adapter));
        }
        if let Some(version) = self.spec.hardware_version {
            spec = spec.hardware_version(version);
        }
        let mut report = |at: stream::Progress| tell(self.progress.as_ref(), at.disk, source.capacity());
        let export = stream::Export::new(&spec).threads(THREADS).cancel(&self.cancelled).on_progress(&mut report);
        let buffered = export.run(source, io::BufWriter::with_capacity(1 << 20, file))?;
        let file = buffered.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        file.sync_all().map_err(failed("flush"))?;
        half_made.keep();
        Ok(())
    }
}

/// A file that goes away when its making fails.
struct RemovedUnlessKept<'a> {
    path: &'a Path,
    kept: bool,
}

impl RemovedUnlessKept<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for RemovedUnlessKept<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(self.path);
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads in flight: each is one piece of 256 or 512 KiB, so that 8 to 16 MiB are on their way.
const THREADS: usize = 16;
