//! The files of one link: its descriptor and its extents, found without opening the disk.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    descriptor::{Cid, Descriptor, ExtentLine, ExtentType, MAX_DESCRIPTOR_BYTES},
    disk::{PathPolicy, read_descriptor},
    error::{Error, Result},
    extent::Backing,
    layout::{HEADER_BYTES, Magic, SparseHeader},
    source::{FileSource, Handle},
};

/// A link's own files.
#[derive(Debug)]
pub(crate) struct OwnFiles {
    pub(crate) path: PathBuf,
    pub(crate) descriptor: Descriptor,
    /// Where the descriptor is in a sparse file; `None` for a text file.
    pub(super) embedded: Option<Range<u64>>,
    /// Extents in disk order with their files; `ZERO` extents have none.
    pub(super) extents: Vec<(ExtentLine, Option<PathBuf>)>,
}

impl OwnFiles {
    /// Reads the descriptor at `path`.
    pub(crate) fn read(path: &Path, paths: PathPolicy) -> Result<Self> {
        let file = open(path, false)?;
        let object = path.display().to_string();
        let len = file.len()?;
        let mut start = [0; HEADER_BYTES];
        let known = start.len().min(len as usize);
        file.read(0, &mut start[..known])?;
        let embedded = match Magic::of(&start[..known]) {
            Some(Magic::Kdmv) => {
                let range = SparseHeader::parse(&start, &object)?.descriptor_range(len, &object)?;
                Some(range.ok_or_else(|| no_disk(&object, "an extent without a descriptor: name its descriptor"))?)
            }
            Some(Magic::Cowd | Magic::SeSparse) => {
                return Err(no_disk(&object, "an extent of a snapshot: name its descriptor"));
            }
            None => None,
        };
        let range = embedded.clone().unwrap_or(0..len);
        if range.end - range.start > MAX_DESCRIPTOR_BYTES as u64 {
            return Err(no_disk(&object, "no descriptor: it is too large"));
        }
        let descriptor = read_descriptor(&file, range.start, range.end - range.start)?;
        if !Descriptor::probe(&descriptor.to_bytes()) {
            return Err(no_disk(&object, "no descriptor"));
        }
        let extents = descriptor.extents()?;
        let extents = extents.into_iter().map(|line| {
            let file = match &line.file_name {
                // A sparse file is its own extent, whatever name it gives itself.
                _ if embedded.is_some() => Some(path.to_owned()),
                Some(name) if line.kind != ExtentType::Zero => Some(paths.locate(path, name)?),
                _ => None,
            };
            Ok((line, file))
        });
        let extents = extents.collect::<Result<Vec<_>>>()?;
        Ok(Self { path: path.to_owned(), descriptor, embedded, extents })
    }

    /// Whether the link needs a parent.
    pub(crate) fn is_child(&self) -> Result<bool> {
        Ok(self.descriptor.parent_cid()? != Cid::NONE)
    }

    /// The extents' files, each once, without the file of the descriptor.
    pub(super) fn extent_files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = Vec::new();
        for (_, file) in &self.extents {
            let Some(file) = file.as_deref() else { continue };
            if file != self.path && !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }

    /// Whether [`store`](Self::store) has room for a changed descriptor.
    pub(super) fn check_room(&self, descriptor: &Descriptor) -> Result<()> {
        let Some(range) = &self.embedded else { return Ok(()) };
        let (len, room) = (descriptor.to_bytes().len() as u64, range.end - range.start);
        if len > room {
            let problem = format!("{len} bytes do not fit in the {room} bytes kept for it");
            return Err(Error::invalid("descriptor", problem));
        }
        Ok(())
    }

    /// Writes a changed descriptor back. A text file is replaced as a whole: after a crash it has the old or the new
    /// text. An embedded one is written over in one piece.
    pub(crate) fn store(&self, descriptor: &Descriptor) -> Result<()> {
        let mut bytes = descriptor.to_bytes();
        let Some(range) = &self.embedded else {
            let stored = FileSource::replace(&self.path, &bytes);
            return stored
                .map(drop)
                .map_err(|error| Error::io("replace", self.path.display().to_string(), None, error));
        };
        self.check_room(descriptor)?;
        bytes.resize((range.end - range.start) as usize, 0);
        let file = open(&self.path, true)?;
        file.write(range.start, &bytes)?;
        file.sync()
    }
}

/// Opens a local file.
pub(super) fn open(path: &Path, writable: bool) -> Result<Backing> {
    let name = path.display().to_string();
    let failed = |error| Error::io("open", &*name, None, error);
    let handle = if writable {
        Handle::ReadWrite(Arc::new(FileSource::open_rw(path).map_err(failed)?))
    } else {
        Handle::ReadOnly(Arc::new(FileSource::open(path).map_err(failed)?))
    };
    Ok(Backing::new(name, handle))
}

fn no_disk(object: &str, what: &str) -> Error {
    Error::invalid("path", format!("{object} is {what}"))
}
