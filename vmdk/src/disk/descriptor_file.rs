//! The descriptor of a disk that is open: edited in memory and in its file.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use super::options::Resolver;
use crate::{
    SECTOR,
    descriptor::{Descriptor, MAX_DESCRIPTOR_BYTES},
    error::{Error, Result},
    extent::Backing,
};

/// A descriptor and where it is kept.
#[derive(Debug)]
pub(super) struct DescriptorFile {
    current: RwLock<Current>,
    place: DescriptorPlace,
}

/// Where a descriptor is.
pub(super) enum DescriptorPlace {
    /// In a range of a sparse file, padded with NULs.
    Embedded(Range<u64>),
    /// In a text file of its own, which the resolver may be able to replace.
    File {
        /// Its path.
        path: PathBuf,
        /// Who opened it.
        resolver: Arc<dyn Resolver>,
    },
}

/// What the file holds now.
#[derive(Debug)]
struct Current {
    descriptor: Descriptor,
    backing: Backing,
}

impl DescriptorFile {
    pub(super) fn new(descriptor: Descriptor, backing: Backing, place: DescriptorPlace) -> Self {
        Self { current: RwLock::new(Current { descriptor, backing }), place }
    }

    pub(super) fn read<T>(&self, view: impl FnOnce(&Descriptor) -> T) -> T {
        view(&self.current().descriptor)
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.current().backing.sync()
    }

    /// Changes the descriptor in the file and in memory.
    pub(super) fn edit(&self, change: impl FnOnce(&mut Descriptor) -> Result<()>) -> Result<()> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = current.descriptor.to_bytes();
        let mut next = current.descriptor.clone();
        change(&mut next)?;
        let new = next.to_bytes();
        if new == old {
            return Ok(());
        }
        let (start, room) = match &self.place {
            DescriptorPlace::Embedded(range) => (range.start, range.end - range.start),
            DescriptorPlace::File { .. } => (0, MAX_DESCRIPTOR_BYTES as u64),
        };
        if new.len() as u64 > room {
            let problem = format!("{} bytes do not fit in the {room} bytes kept for it", new.len());
            return Err(Error::invalid("descriptor", problem));
        }
        let changed = changed(&old, &new);
        let in_sector = (start + changed.start as u64) / SECTOR == (start + changed.end.max(1) as u64 - 1) / SECTOR;
        if new.len() == old.len() && in_sector {
            current.backing.write(start + changed.start as u64, &new[changed])?;
        } else if let Some(replaced) = self.replace(&new)? {
            current.backing = replaced;
        } else {
            write_over(&current.backing, start, new, old.len(), &self.place)?;
        }
        current.descriptor = next;
        Ok(())
    }

    /// Puts a new file in the place of the old one, if the storage can.
    fn replace(&self, bytes: &[u8]) -> Result<Option<Backing>> {
        let DescriptorPlace::File { path, resolver } = &self.place else { return Ok(None) };
        let name = path.display().to_string();
        match resolver.replace(path, bytes) {
            Ok(handle) => Ok(handle.map(|handle| Backing::new(name, handle))),
            Err(error) => Err(Error::io("replace", name, None, error)),
        }
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DescriptorPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(range) => f.debug_tuple("Embedded").field(range).finish(),
            Self::File { path, .. } => f.debug_struct("File").field("path", path).finish_non_exhaustive(),
        }
    }
}

/// The bytes of `new` that are not the same in `old`, from both ends.
fn changed(old: &[u8], new: &[u8]) -> Range<usize> {
    let same = |(a, b): &(&u8, &u8)| a == b;
    let first = old.iter().zip(new).take_while(same).count();
    let last = old[first..].iter().rev().zip(new[first..].iter().rev()).take_while(same).count();
    first..new.len() - last
}

/// Writes `new` over the old descriptor.
fn write_over(backing: &Backing, start: u64, mut new: Vec<u8>, old_len: usize, place: &DescriptorPlace) -> Result<()> {
    if matches!(place, DescriptorPlace::Embedded(_)) {
        // NULs over what remains of a longer one.
        new.resize(new.len().max(old_len), 0);
        return backing.write(start, &new);
    }
    backing.write(start, &new)?;
    backing.set_len(new.len() as u64)
}

/// Reads a descriptor up to the first NUL, which pads embedded ones.
pub(crate) fn read_descriptor(backing: &Backing, offset: u64, len: u64) -> Result<Descriptor> {
    check_len(len, &backing.name)?;
    let mut bytes = vec![0; len as usize];
    backing.read(offset, &mut bytes)?;
    parse_padded(&bytes)
}

pub(super) fn check_len(len: u64, object: &str) -> Result<()> {
    if len > MAX_DESCRIPTOR_BYTES as u64 {
        return Err(Error::malformed(object, format!("a descriptor of {len} bytes")));
    }
    Ok(())
}

pub(super) fn parse_padded(bytes: &[u8]) -> Result<Descriptor> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Descriptor::parse(&bytes[..end])
}
