//! A parent of any transport in the place of the file that a child names.
//!
//! The crate `vmdk` then sees a chain as any other, and knows what a partial write to a child needs of its parent.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use vmdk::{
    Access, Cid, CreateKind, CreateSpec, Descriptor, Handle, Image, LocalFiles, MapKind, MemSource, PathPolicy, ReadAt,
    Resolver, SourceMap, SourceRun,
};

/// Opens files as [`LocalFiles`] does, but for one: the parent that was attached.
pub(super) struct WithParent {
    /// What the child calls its parent.
    descriptor: PathBuf,
    /// Where the descriptor that stands in for it has its data.
    data: PathBuf,
    text: Vec<u8>,
    parent: Arc<dyn Image>,
}

impl WithParent {
    /// `hint` is the name of the parent that the child at `path` has written down, `content` what it wants there.
    pub(super) fn new(path: &str, hint: &str, content: Cid, parent: Arc<dyn Image>) -> vmdk::Result<Self> {
        let descriptor = Path::new(path).parent().unwrap_or(Path::new("")).join(hint);
        let spec = CreateSpec::new(parent.capacity(), CreateKind::Flat).cid(content);
        let text: Descriptor = spec.to_descriptor(STAND_IN)?;
        Ok(Self { data: descriptor.with_file_name(DATA), text: text.to_bytes(), descriptor, parent })
    }

    /// The options that open the child over it.
    pub(super) fn into_options(self, options: &vmdk::OpenOptions) -> vmdk::OpenOptions {
        // The child's own files have passed the stricter policy; its parent may be called anything.
        options.clone().single_link(false).paths(PathPolicy::Any).resolver(Arc::new(self))
    }
}

impl Resolver for WithParent {
    fn open(&self, path: &Path, access: Access) -> io::Result<Handle> {
        if path == self.descriptor {
            Ok(Handle::ReadOnly(Arc::new(MemSource::new(self.text.clone()))))
        } else if path == self.data {
            Ok(Handle::ReadOnly(Arc::new(ImageSource(Arc::clone(&self.parent)))))
        } else {
            LocalFiles.open(path, access)
        }
    }

    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        if path == self.descriptor || path == self.data {
            // No file is called so: the real one of that name may be another link of the chain.
            return Ok(PathBuf::from(format!("\0attached {}", path.display())));
        }
        LocalFiles.identity(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<Option<Handle>> {
        LocalFiles.replace(path, bytes)
    }
}

/// The bytes of a disk as those of a flat file.
struct ImageSource(Arc<dyn Image>);

impl ReadAt for ImageSource {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.capacity())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(offset, buf).map_err(io::Error::other)
    }

    fn map(&self, range: Range<u64>) -> io::Result<SourceMap> {
        let mut runs = Vec::new();
        for entry in self.0.map(range).take(MAX_RUNS) {
            let entry = entry.map_err(io::Error::other)?;
            runs.push(SourceRun { range: entry.range, hole: entry.kind != MapKind::Data });
        }
        Ok(if runs.is_empty() { SourceMap::AllData } else { SourceMap::Runs(runs) })
    }
}

impl fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ImageSource").field(&self.0.capacity()).finish()
    }
}

/// The names of the files that stand in for the parent.
const STAND_IN: &str = "attached.vmdk";
const DATA: &str = "attached-flat.vmdk";

/// Bounds one answer.
const MAX_RUNS: usize = 1024;
