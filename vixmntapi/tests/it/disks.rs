//! Devices for tests: image files through the cache, and bytes in memory.
#![allow(dead_code)] // Each reader takes what it needs.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use vixmntapi::{
    Error, Result,
    device::{CacheOptions, CachedDisk, Device, PageCache},
    set::DiskSet,
};

use crate::peers::peer;

/// A raw image as a disk of its own, behind a cache as in use.
pub(crate) fn raw(image: &Path) -> Arc<dyn Device> {
    raw_with(image, &PageCache::new(CacheOptions::default()))
}

/// The same with a cache whose figures the test wants.
pub(crate) fn raw_with(image: &Path, cache: &Arc<PageCache>) -> Arc<dyn Device> {
    let disk = vmdk::Disk::open_raw(image, vmdk::Access::ReadOnly).unwrap();
    Arc::new(CachedDisk::new(Arc::new(disk), cache, "disk 0"))
}

/// Bytes in memory as a device.
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.0.len())
    }
}

impl Device for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let from = usize::try_from(offset).ok().and_then(|start| self.0.get(start..start.checked_add(buf.len())?));
        let Some(from) = from else {
            let (device, len) = (self.name(), buf.len() as u64);
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "outside");
            return Err(Error::Read { device, offset, len, source });
        };
        buf.copy_from_slice(from);
        Ok(())
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

/// Bytes of which single bits are wrong.
#[derive(Debug)]
pub(crate) struct Flipped {
    whole: Arc<Memory>,
    bits: Vec<(usize, u8)>,
}

impl Flipped {
    /// With these bits of bytes the other way round.
    pub(crate) fn new(whole: &Arc<Memory>, bits: Vec<(usize, u8)>) -> Self {
        Self { whole: whole.clone(), bits }
    }
}

impl Device for Flipped {
    fn size(&self) -> u64 {
        self.whole.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.whole.read_at(offset, buf)?;
        for (at, bit) in &self.bits {
            if let Some(byte) = at.checked_sub(offset as usize).and_then(|at| buf.get_mut(at)) {
                *byte ^= 1 << bit;
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.whole.name()
    }
}

/// A set of disks in memory.
pub(crate) fn set(disks: impl IntoIterator<Item = Vec<u8>>) -> DiskSet {
    let devices = disks.into_iter().map(|disk| Arc::new(Memory(disk)) as Arc<dyn Device>);
    devices.fold(DiskSet::builder(), |set, disk| set.device(disk)).open().unwrap()
}

/// Reads here and there of the volumes of a set that may be damaged; errors are fine, panics are not.
pub(crate) fn touch(set: &DiskSet) {
    for device in set.volumes_until_damage().iter().filter_map(|volume| volume.device().ok()) {
        for at in [0, device.size() / 2, device.size().saturating_sub(512)] {
            let _ = device.read_at(at, &mut [0; 512]);
            let _ = device.below(at);
        }
    }
}

/// Makes disks with partitions.
pub(crate) struct Partitions;

impl Partitions {
    /// A disk with a GPT whose partitions have these contents.
    pub(crate) fn gpt(contents: &[&[u8]]) -> Option<Vec<u8>> {
        Self::with_types("gpt", &contents.iter().map(|content| (*content, "L")).collect::<Vec<_>>())
    }

    /// The same with an MBR.
    pub(crate) fn mbr(contents: &[&[u8]]) -> Option<Vec<u8>> {
        Self::with_types("dos", &contents.iter().map(|content| (*content, "L")).collect::<Vec<_>>())
    }

    /// The same with the types of the partitions, in the words of sfdisk. `None` where there is no sfdisk, which is
    /// said. Contents are whole MiB.
    pub(crate) fn with_types(label: &str, contents: &[(&[u8], &str)]) -> Option<Vec<u8>> {
        let sfdisk = peer("sfdisk")?;
        let image = tempfile::NamedTempFile::new().unwrap();
        let total: usize = contents.iter().map(|(content, _)| content.len()).sum();
        image.as_file().set_len((total + (2 << 20)) as u64).unwrap();
        let lines = contents.iter().map(|(content, kind)| format!("size={}M,type={kind}\n", content.len() >> 20));
        let script = format!("label: {label}\n{}", lines.collect::<String>());
        let mut child = Command::new(sfdisk).arg("-q").arg(image.path()).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let mut bytes = std::fs::read(image.path()).unwrap();
        let mut at = 1 << 20;
        for (content, _) in contents {
            bytes[at..at + content.len()].copy_from_slice(content);
            at += content.len();
        }
        Some(bytes)
    }
}
