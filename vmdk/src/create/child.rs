//! New children: sparse disks that hold only what differs from their parent.

use std::path::{Path, PathBuf};

use super::{CreateKind, CreateSpec, layout::file_name, make};
use crate::{
    descriptor::{Cid, CreateType},
    disk::{Disk, OpenOptions, PathPolicy},
    error::{Error, Result},
};

/// What [`create_child`] makes. Everything has a default.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ChildSpec {
    capacity: Option<u64>,
    kind: Option<CreateKind>,
    cid: Option<Cid>,
    zeroed_grains: bool,
    grain_bytes: Option<u64>,
    options: OpenOptions,
}

impl ChildSpec {
    /// A child of the parent's size; in several files if the parent is, else in one; opened with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the child larger than its parent; the rest reads as zero.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets which of the sparse kinds the child is.
    pub fn kind(mut self, kind: CreateKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Sets the content id; a random one by default.
    pub fn cid(mut self, cid: Cid) -> Self {
        self.cid = Some(cid);
        self
    }

    /// Sets the grain size, as [`CreateSpec::grain_bytes`].
    pub fn grain_bytes(mut self, bytes: u64) -> Self {
        self.grain_bytes = Some(bytes);
        self
    }

    /// Lets the child hide the parent without storing zeros, as [`CreateSpec::zeroed_grains`].
    pub fn zeroed_grains(mut self, zeroed: bool) -> Self {
        self.zeroed_grains = zeroed;
        self
    }

    /// Sets how parent and child are opened. A parent outside of the child's directory needs [`PathPolicy::Any`],
    /// here and at every later open.
    pub fn options(mut self, options: OpenOptions) -> Self {
        self.options = options;
        self
    }
}

/// Creates a child of the disk at `parent` and opens it, with its parents, for writing.
///
/// The parent is opened for reading and its content id becomes the child's `parentCID`: a parent that is written
/// later is noticed when the child is opened. The hint is the parent's path from the child's directory if the
/// parent lies there or below, else, with [`PathPolicy::Any`], its absolute path.
///
/// # Errors
/// Those of opening the parent and of [`create`](super::create()); [`Error::InvalidInput`] for a child that is
/// smaller than its parent or not sparse, and for a raw parent; [`Error::PathRefused`] for a parent outside of the
/// child's directory.
#[doc(alias = "VixDiskLib_CreateChild")]
pub fn create_child(parent: impl AsRef<Path>, path: impl AsRef<Path>, spec: &ChildSpec) -> Result<Disk> {
    let (parent, path) = (parent.as_ref(), path.as_ref());
    let opened = Disk::open(parent, &spec.options.clone().access(crate::disk::Access::ReadOnly))?;
    let Some(descriptor) = opened.descriptor() else {
        return Err(Error::invalid("parent", format!("{} has no descriptor, so no content id", parent.display())));
    };
    let cid = descriptor.cid()?;
    let capacity = spec.capacity.unwrap_or(opened.capacity());
    if capacity < opened.capacity() {
        let problem = format!("{capacity} bytes, less than the parent's {}", opened.capacity());
        return Err(Error::invalid("capacity", problem));
    }
    let is_split =
        matches!(descriptor.create_type(), Some(CreateType::TwoGbMaxExtentFlat | CreateType::TwoGbMaxExtentSparse));
    let like_parent = if is_split { CreateKind::TwoGbMaxExtentSparse } else { CreateKind::MonolithicSparse };
    let kind = spec.kind.unwrap_or(like_parent);
    if !kind.is_sparse() {
        return Err(Error::invalid("kind", format!("{kind:?}: only sparse disks can be children")));
    }
    let mut new = CreateSpec::new(capacity, kind).zeroed_grains(spec.zeroed_grains);
    if let Some(bytes) = spec.grain_bytes {
        new = new.grain_bytes(bytes);
    }
    if let Some(cid) = spec.cid {
        new = new.cid(cid);
    }
    // The adapter belongs to the whole chain; links that copy it stay true when they are used alone.
    if let Some(adapter) = opened.ddb_get("adapterType") {
        new = new.adapter_type(crate::descriptor::AdapterType::from_name(&adapter));
    }
    let hint = parent_hint(parent, path, spec.options.path_policy())?;
    make(path, &new, Some((cid, hint)), spec.options.clone(), Ok)
}

/// The name of `parent` for the descriptor at `child`.
pub(crate) fn parent_hint(parent: &Path, child: &Path, policy: PathPolicy) -> Result<String> {
    let name = file_name(parent)?;
    let from = real_directory(child)?;
    let to = real_directory(parent)?;
    let found = match to.strip_prefix(&from) {
        Ok(below) => below.join(name),
        Err(_) if policy == PathPolicy::Any => to.join(name),
        Err(_) => {
            let reason = "the parent is outside of the child's directory";
            return Err(Error::PathRefused { object: child.display().to_string(), name: name.to_owned(), reason });
        }
    };
    let text = found.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid("path", format!("{} is not UTF-8", found.display())))
}

fn real_directory(file: &Path) -> Result<PathBuf> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    directory.canonicalize().map_err(|error| Error::io("resolve", directory.display().to_string(), None, error))
}
