//! Space given back and grains put in order.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use vmdk::{CopyOptions, CreateKind, CreateSpec, CreateType, Disk, MapKind, convert};

use crate::progress::{Progress, tell};

/// Makes zeros into holes: blocks of 64 KiB that the disk itself stores and that hold nothing but zeros lose their
/// storage. The file keeps its size; its blocks go back to the file system.
pub(super) fn shrink(disk: &Disk, progress: Option<&Progress>) -> vmdk::Result<()> {
    let capacity = disk.capacity();
    let mut buffer = vec![0; BLOCK as usize];
    let own = |entry: &vmdk::MapEntry| entry.kind == MapKind::Data && entry.layer == Some(0);
    let mut start = 0;
    while start < capacity {
        let window = start..capacity.min(start + WINDOW);
        // Read before it is changed.
        let entries = disk.map(window.clone()).collect::<vmdk::Result<Vec<_>>>()?;
        for entry in entries.into_iter().filter(own) {
            let mut at = entry.range.start;
            while at < entry.range.end {
                let end = (at / BLOCK + 1).saturating_mul(BLOCK).min(entry.range.end);
                let block = &mut buffer[..(end - at) as usize];
                disk.read_at(at, block)?;
                if block.iter().all(|byte| *byte == 0) {
                    disk.zero_at(at..end)?;
                }
                at = end;
            }
        }
        start = window.end;
        tell(progress, start, capacity);
    }
    disk.flush()
}

/// A disk written anew next to the old one.
pub(super) struct Rewritten {
    path: PathBuf,
}

/// Writes the disk's grains in the order of the disk to a new file, with the same descriptor and content id, so that
/// children still fit. `None` for what is not a base disk in one sparse file.
pub(super) fn defragment(
    disk: &Disk,
    path: &str,
    is_attached: bool,
    progress: Option<&Progress>,
) -> vmdk::Result<Option<Rewritten>> {
    let Some(descriptor) = disk.descriptor() else { return Ok(None) };
    let is_one_file = matches!(descriptor.create_type(), Some(CreateType::MonolithicSparse));
    if !is_one_file || is_attached || descriptor.parent_cid()? != vmdk::Cid::NONE {
        return Ok(None);
    }
    let rewritten = Rewritten { path: beside(Path::new(path)) };
    let capacity = disk.capacity();
    let told = |bytes| tell(progress, bytes, capacity);
    // One thread: the order of writing is the order in the file.
    let options = CopyOptions::new().threads(1).progress(&told);
    let spec = CreateSpec::new(capacity, CreateKind::MonolithicSparse).cid(descriptor.cid()?).like(descriptor);
    convert(disk, &rewritten.path, &spec, &options)?.close()?;
    Ok(Some(rewritten))
}

impl Rewritten {
    /// Puts the new file in the place of the old one. A crash leaves one or the other.
    pub(super) fn replace(&self, path: &str) -> vmdk::Result<()> {
        let same_rights = fs::metadata(path).and_then(|old| fs::set_permissions(&self.path, old.permissions()));
        same_rights
            .and_then(|()| fs::rename(&self.path, path))
            .map_err(|error| failed("replace", Path::new(path), error))
    }
}

impl Drop for Rewritten {
    fn drop(&mut self) {
        // Gone already when it took the old one's place.
        let _ = fs::remove_file(&self.path);
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-in-order.vmdk", std::process::id()));
    path.with_file_name(name)
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> vmdk::Error {
    vmdk::Error::io(operation, path.display().to_string(), None, error)
}

/// The usual grain.
const BLOCK: u64 = 64 << 10;

/// What is mapped at once.
const WINDOW: u64 = 16 << 30;
