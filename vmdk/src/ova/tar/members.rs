//! The members of an archive, one after the other.

use std::collections::HashSet;

use super::{
    BLOCK,
    header::{Header, Kind},
    pax::Records,
};
use crate::{
    error::{Error, Result},
    ova::name,
};

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ova) struct Member {
    /// Checked and in normal form.
    pub(in crate::ova) name: String,
    /// Where its bytes begin in the archive.
    pub(in crate::ova) offset: u64,
    pub(in crate::ova) size: u64,
}

/// Goes from header to header. Reads nothing itself, so that pipes and positioned sources are walked alike.
#[derive(Debug)]
pub(in crate::ova) struct Walker {
    object: String,
    /// Where the next header is.
    at: u64,
    ended: bool,
    names: HashSet<String>,
    name_bytes: usize,
}

impl Walker {
    pub(in crate::ova) fn new(object: impl Into<String>) -> Self {
        Self { object: object.into(), at: 0, ended: false, names: HashSet::new(), name_bytes: 0 }
    }

    /// The next file, or `None` at the end mark. `read` fills a buffer from an offset, and is asked for ascending
    /// offsets only.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::PathRefused`], and those of `read`.
    pub(in crate::ova) fn next(
        &mut self,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<Option<Member>> {
        let mut pending = Records::default();
        let mut records = 0;
        while !self.ended {
            let mut block = [0; BLOCK as usize];
            read(self.at, &mut block)?;
            // The standard wants two such blocks; one is as clear.
            if block == [0; BLOCK as usize] {
                if pending != Records::default() {
                    return Err(self.malformed("it extends a member that does not follow"));
                }
                self.ended = true;
                break;
            }
            let header = Header::parse(&block).map_err(|problem| self.malformed(&problem))?;
            let data = self.at + BLOCK;
            match header.kind {
                Kind::File => return self.file(&header, data, pending).map(Some),
                Kind::Directory => {
                    self.advance(data, 0)?;
                    pending = Records::default();
                    continue;
                }
                Kind::Other(letter) => return Err(self.refuse(letter, &header)),
                Kind::Pax | Kind::PaxGlobal | Kind::LongName => {}
            }
            records += 1;
            if header.size > MAX_RECORD_BYTES || records > MAX_RECORDS {
                return Err(self.malformed(&format!("it extends a member with {} bytes", header.size)));
            }
            // Bounded just now.
            let mut bytes = vec![0; header.size as usize];
            read(data, &mut bytes)?;
            let said = self.records(header.kind, &bytes)?;
            self.advance(data, header.size)?;
            pending.path = said.path.or(pending.path);
            pending.size = said.size.or(pending.size);
        }
        Ok(None)
    }

    fn records(&self, kind: Kind, bytes: &[u8]) -> Result<Records> {
        if kind == Kind::LongName {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            return Ok(Records { path: Some(self.utf8(&bytes[..end])?), size: None });
        }
        let records = Records::parse(bytes).map_err(|problem| self.malformed(&problem))?;
        if kind == Kind::PaxGlobal && records != Records::default() {
            return Err(self.malformed("it gives all members one name or one size"));
        }
        Ok(records)
    }

    fn file(&mut self, header: &Header, offset: u64, pending: Records) -> Result<Member> {
        let name = match pending.path {
            Some(path) => path,
            None => self.utf8(&header.name)?,
        };
        let name = name::normal(&name).map_err(|reason| Error::PathRefused {
            object: self.object.clone(),
            name: name.clone(),
            reason,
        })?;
        let size = pending.size.unwrap_or(header.size);
        self.name_bytes += name.len();
        if self.names.len() >= MAX_MEMBERS || self.name_bytes > MAX_NAME_BYTES {
            return Err(self.malformed("it is one of more members than a package can have"));
        }
        if !self.names.insert(name.clone()) {
            return Err(self.malformed(&format!("it is the second one of {name}")));
        }
        self.advance(offset, size)?;
        Ok(Member { name, offset, size })
    }

    /// Steps over `size` bytes at `data`.
    fn advance(&mut self, data: u64, size: u64) -> Result<()> {
        let next = size.checked_next_multiple_of(BLOCK).and_then(|size| data.checked_add(size));
        // No source is that large; what follows may then add without care.
        match next.filter(|next| *next <= super::header::MAX_SIZE) {
            Some(next) => self.at = next,
            None => return Err(self.malformed(&format!("its member ends behind {size} bytes"))),
        }
        Ok(())
    }

    fn utf8(&self, bytes: &[u8]) -> Result<String> {
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed("its name is no UTF-8"))
    }

    fn refuse(&self, letter: u8, header: &Header) -> Error {
        let what = match letter {
            b'1' | b'2' | b'K' => "a link",
            b'3' | b'4' | b'6' => "a device or a pipe",
            b'S' => "a sparse file",
            _ => "of a kind that is unknown",
        };
        let name = String::from_utf8_lossy(&header.name);
        self.malformed(&format!("its member {name:?} is {what}, which has no place in a package"))
    }

    fn malformed(&self, problem: &str) -> Error {
        Error::malformed(&self.object, format!("the tar header at offset {}: {problem}", self.at))
    }
}

/// Most bytes that may extend one header: names and sizes need few.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Most extensions of one member.
const MAX_RECORDS: usize = 8;
/// A disk of 62 TiB in pieces of 1 GiB is one of these.
const MAX_MEMBERS: usize = 65_536;
/// Of all names together: they must be remembered.
const MAX_NAME_BYTES: usize = 8 << 20;
