//! A store: a folder with a file for each disk and one for each point. (Its calls block; for an example that will do.)
use std::{fs, future::ready, io, ops::Range, os::unix::fs::FileExt, path::PathBuf};

use bytes::Bytes;
use tempfile::NamedTempFile;
use vsphere_backup::{DiskError, engine::{DiskSource, Source}, repository::storage::BoxFuture, store::*};

const STEP: u64 = 4096;
type Answer<'a, T> = BoxFuture<'a, Result<T, DiskError>>;

#[derive(Clone, Debug)] pub(crate) struct Folder(pub(crate) PathBuf);
/// A disk: its bytes, how far its one pass is, whether it has a parent.
#[derive(Debug)] struct Disk(NamedTempFile, OnePass, bool);
#[derive(Debug)] struct Stored(fs::File);
fn now<'a, T: Send + 'a>(done: io::Result<T>) -> Answer<'a, T> { Box::pin(ready(done.map_err(DiskError::new))) }

impl Folder {
    fn start(&self, disk: &DiskMeta, parent: Option<DiskRef>) -> io::Result<Disk> {
        let mut file = tempfile::Builder::new().prefix(&disk.job).tempfile_in(&self.0)?; // Dropped, the file goes.
        if let Some(parent) = &parent {
            let copied = io::copy(&mut self.read(parent)?, &mut file)?;
            (copied <= disk.capacity).then_some(()).ok_or(io::Error::other("the parent is larger"))?;
        }
        file.as_file().set_len(disk.capacity)?;
        Ok(Disk(file, OnePass::new(disk.capacity, STEP), parent.is_some()))
    }
    fn read(&self, disk: &DiskRef) -> io::Result<fs::File> { fs::File::open(self.0.join(disk.as_str())) }
    fn end(&self, point: &PointMeta) -> io::Result<()> {
        point.disks.iter().try_for_each(|disk| self.read(&disk.disk).map(drop))?;
        let (folder, draft) = (self.0.join(&point.vm), NamedTempFile::new_in(&self.0)?);
        fs::create_dir_all(&folder)?;
        serde_json::to_writer(&draft, point)?;
        draft.as_file().sync_all()?;
        draft.persist_noclobber(folder.join(&point.name))?; // Whole or not at all, and once.
        [&folder, &self.0].iter().try_for_each(|folder| fs::File::open(folder)?.sync_all())
    }
    fn free(&self, vm: &str, job: &str) -> io::Result<()> {
        let used: Vec<_> = self.list(vm)?.into_iter().flat_map(|point| point.disks).map(|disk| disk.disk).collect();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = DiskRef::new(entry.file_name().to_string_lossy());
            if name.as_str().starts_with(job) && !used.contains(&name) { fs::remove_file(entry.path())?; }
        }
        Ok(())
    }
    fn list(&self, vm: &str) -> io::Result<Vec<PointMeta>> {
        fs::create_dir_all(self.0.join(vm))?;
        let read = |entry: io::Result<fs::DirEntry>| Ok(serde_json::from_slice(&fs::read(entry?.path())?)?);
        let mut points: Vec<PointMeta> = fs::read_dir(self.0.join(vm))?.map(read).collect::<io::Result<_>>()?;
        points.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(points)
    }
}

impl Disk {
    fn set(&mut self, range: Range<u64>, data: &[u8]) -> io::Result<()> {
        self.1.take(&range).map_err(io::Error::other)?;
        self.0.as_file().write_all_at(data, range.start)
    }
    fn keep(self) -> io::Result<DiskRef> {
        self.0.as_file().sync_all()?;
        Ok(DiskRef::new(self.0.keep()?.1.file_name().unwrap_or_default().to_string_lossy()))
    }
}

impl Sink for Folder {
    fn id(&self) -> String { self.0.display().to_string() }
    fn alignment(&self) -> u64 { STEP }
    fn begin<'a>(&'a self, disk: DiskMeta, parent: Option<DiskRef>) -> Answer<'a, Box<dyn DiskWriter>> {
        now(self.start(&disk, parent).map(|disk| Box::new(disk) as _))
    }
    fn discard<'a>(&'a self, vm: &'a str, job: &'a str) -> Answer<'a, ()> { now(self.free(vm, job)) }
    fn commit<'a>(&'a self, point: PointMeta) -> Answer<'a, ()> { now(self.end(&point)) }
    fn points<'a>(&'a self, vm: &'a str) -> Answer<'a, Vec<PointMeta>> { now(self.list(vm)) }
    fn open<'a>(&'a self, disk: &'a DiskRef) -> Answer<'a, Box<dyn Source>> {
        now(self.read(disk).map(|disk| Box::new(Stored(disk)) as _))
    }
}

impl DiskWriter for Disk {
    fn write(&mut self, at: u64, data: Bytes) -> Answer<'_, ()> { now(self.set(at..at + data.len() as u64, &data)) }
    fn zero(&mut self, range: Range<u64>) -> Answer<'_, ()> {
        now(self.set(range.clone(), &vec![0; (range.end - range.start) as usize]))
    }
    fn unallocated(&mut self, range: Range<u64>) -> Answer<'_, ()> { self.zero(range) }
    fn unchanged(&mut self, range: Range<u64>) -> Answer<'_, ()> {
        now(if self.2 { self.1.take(&range).map_err(io::Error::other) } else { Err(io::Error::other("no parent")) })
    }
    fn finish(self: Box<Self>) -> Answer<'static, DiskRef> { now(self.keep()) }
}

impl Source for Stored {}
impl DiskSource for Stored {
    fn capacity(&self) -> u64 { self.0.metadata().map_or(0, |file| file.len()) }
    fn read_at(&self, at: u64, len: usize) -> Answer<'_, Bytes> {
        let mut bytes = vec![0; len];
        now(self.0.read_exact_at(&mut bytes, at).map(|()| bytes.into()))
    }
}
