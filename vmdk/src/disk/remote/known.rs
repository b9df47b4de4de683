//! What is known of a disk while it is opened: files, and pieces of them. What is asked for and not known is noted, and
//! fetched together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Remote, Stop,
    fetch::{Boxed, ReadOfFile, all, coalesce, read},
};
use crate::{
    cache::FileId,
    disk::{Access, open::Files},
    error::{Error, Result},
    source::{AsyncReadAt, AsyncResolver},
};

/// Files and bytes that were fetched.
pub(super) struct Known<'a, R: AsyncResolver> {
    resolver: &'a R,
    files: Vec<File<R::Source>>,
    by_path: HashMap<PathBuf, FileId>,
    /// And whether their beginning will be looked at.
    missing_files: BTreeMap<PathBuf, bool>,
    missing_ranges: BTreeSet<(FileId, u64, u64)>,
}

struct File<S> {
    remote: Remote<S>,
    /// By offset.
    pieces: Vec<(u64, Bytes)>,
}

/// Read of every file that is looked at as soon as it is open: headers, most descriptors, small directories.
const START_BYTES: u64 = 64 << 10;

impl<'a, R: AsyncResolver> Known<'a, R> {
    pub(super) fn new(resolver: &'a R) -> Self {
        Self {
            resolver,
            files: Vec::new(),
            by_path: HashMap::new(),
            missing_files: BTreeMap::new(),
            missing_ranges: BTreeSet::new(),
        }
    }

    pub(super) fn into_files(self) -> Vec<Remote<R::Source>> {
        self.files.into_iter().map(|file| file.remote).collect()
    }

    /// Fetches everything that was asked for.
    pub(super) async fn fetch(&mut self) -> Result<()> {
        let resolver = self.resolver;
        let paths = std::mem::take(&mut self.missing_files);
        let opens = paths.iter().map(|(path, look)| Box::pin(open(resolver, path, *look)) as Boxed<'_, _>);
        let opened: Vec<Result<File<R::Source>>> = all(opens.collect()).await;
        for ((path, _), file) in paths.into_iter().zip(opened) {
            self.by_path.insert(path, self.files.len() as FileId);
            self.files.push(file?);
        }
        let wanted: Vec<_> = std::mem::take(&mut self.missing_ranges).into_iter().collect();
        let reads = wanted.chunk_by(|a, b| a.0 == b.0).map(|of_file| {
            let (file, ..) = of_file[0];
            let Remote { name, len, source } = &self.files[file as usize].remote;
            let ranges = coalesce(of_file.iter().map(|(_, start, end)| *start..*end), source.hint());
            Box::pin(async move { (file, read(source, name, *len, ranges).await) }) as ReadOfFile<'_>
        });
        for (file, pieces) in all(reads.collect()).await {
            self.files[file as usize].pieces.extend(pieces?);
        }
        Ok(())
    }
}

impl<R: AsyncResolver> Known<'_, R> {
    fn find(&mut self, path: &Path, access: Access, look: bool) -> Result<FileId, Stop> {
        if access == Access::ReadWrite {
            let (object, reason) = (path.display().to_string(), "asynchronous disks can only be read");
            return Err(Error::ReadOnly { operation: "open for writing", object, reason }.into());
        }
        self.by_path.get(path).copied().ok_or_else(|| {
            *self.missing_files.entry(path.to_owned()).or_default() |= look;
            Stop::Missing
        })
    }
}

impl<R: AsyncResolver> Files for Known<'_, R> {
    type Stop = Stop;

    fn open(&mut self, path: &Path, access: Access) -> Result<FileId, Stop> {
        self.find(path, access, true)
    }

    fn open_flat(&mut self, path: &Path, access: Access) -> Result<FileId, Stop> {
        self.find(path, access, false)
    }

    fn identity(&mut self, path: &Path) -> Result<PathBuf, Stop> {
        Ok(self.resolver.identity(path))
    }

    fn name(&self, file: FileId) -> Arc<str> {
        Arc::clone(&self.files[file as usize].remote.name)
    }

    fn len(&mut self, file: FileId) -> Result<u64, Stop> {
        Ok(self.files[file as usize].remote.len)
    }

    fn read(&mut self, file: FileId, range: Range<u64>) -> Result<Vec<u8>, Stop> {
        let File { remote, pieces } = &self.files[file as usize];
        if range.end > remote.len {
            let (len, start) = (range.end - range.start, range.start);
            let problem = format!("of {len} bytes at offset {start} some lie beyond its end");
            return Err(Error::malformed(&*remote.name, problem).into());
        }
        match gather(pieces, &range) {
            Some(bytes) => Ok(bytes),
            None => {
                self.missing_ranges.insert((file, range.start, range.end));
                Err(Stop::Missing)
            }
        }
    }

    fn put_off(&mut self, stop: Stop) -> Result<Stop, Stop> {
        match stop {
            Stop::Missing => Ok(Stop::Missing),
            failed => Err(failed),
        }
    }
}

/// Opens a file and, to `look` at it, reads its beginning.
async fn open<R: AsyncResolver>(resolver: &R, path: &Path, look: bool) -> Result<File<R::Source>> {
    let name: Arc<str> = path.display().to_string().into();
    let failed = |operation| {
        let name = name.to_string();
        move |error: io::Error| Error::io(operation, name, None, error)
    };
    let source = resolver.open(path).await.map_err(failed("open"))?;
    let len = source.len().await.map_err(failed("size"))?;
    let start = if look { 0..len.min(START_BYTES) } else { 0..0 };
    let pieces = if start.is_empty() { Vec::new() } else { read(&source, &name, len, vec![start]).await? };
    Ok(File { remote: Remote { name, len, source }, pieces })
}

/// The bytes of `range`, from as many pieces as it takes.
fn gather(pieces: &[(u64, Bytes)], range: &Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let has = |(start, piece): &&(u64, Bytes)| *start <= at && at - start < piece.len() as u64;
        let (start, piece) = pieces.iter().find(has)?;
        let from = (at - start) as usize;
        let to = piece.len().min((range.end - start) as usize);
        bytes.extend_from_slice(&piece[from..to]);
        at = start + to as u64;
    }
    Some(bytes)
}
