//! The descriptor of a disk that is open: edited in memory and in its file.

use std::{
    ops::Range,
    sync::{PoisonError, RwLock},
};

use crate::{
    descriptor::{Descriptor, MAX_DESCRIPTOR_BYTES},
    error::{Error, Result},
    extent::Backing,
};

/// A descriptor and where it is kept.
#[derive(Debug)]
pub(super) struct DescriptorFile {
    current: RwLock<Descriptor>,
    pub(super) backing: Backing,
    /// Where it is inside a sparse file; `None` for a text file of its own.
    embedded: Option<Range<u64>>,
}

impl DescriptorFile {
    pub(super) fn new(descriptor: Descriptor, backing: Backing, embedded: Option<Range<u64>>) -> Self {
        Self { current: RwLock::new(descriptor), backing, embedded }
    }

    pub(super) fn read<T>(&self, view: impl FnOnce(&Descriptor) -> T) -> T {
        view(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the descriptor in the file and in memory. A change that keeps the length, such as a new
    /// content id, is one write inside a sector.
    pub(super) fn edit(&self, change: impl FnOnce(&mut Descriptor) -> Result<()>) -> Result<()> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = current.to_bytes();
        let mut next = current.clone();
        change(&mut next)?;
        let new = next.to_bytes();
        if new == old {
            return Ok(());
        }
        let (start, room) = match &self.embedded {
            Some(range) => (range.start, range.end - range.start),
            None => (0, MAX_DESCRIPTOR_BYTES as u64),
        };
        if new.len() as u64 > room {
            let problem = format!("{} bytes do not fit in the {room} bytes kept for it", new.len());
            return Err(Error::invalid("descriptor", problem));
        }
        if new.len() == old.len() {
            let same = |(a, b): &(&u8, &u8)| a == b;
            let first = old.iter().zip(&new).take_while(same).count();
            let last = new.len() - old.iter().rev().zip(new.iter().rev()).take_while(same).count();
            self.backing.write(start + first as u64, &new[first..last])?;
        } else {
            let mut padded = new;
            // NULs over what remains of a longer embedded descriptor; a text file is cut instead.
            if self.embedded.is_some() {
                padded.resize(padded.len().max(old.len()), 0);
            }
            self.backing.write(start, &padded)?;
            if self.embedded.is_none() {
                self.backing.set_len(padded.len() as u64)?;
            }
        }
        *current = next;
        Ok(())
    }
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
