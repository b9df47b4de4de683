//! Reading an OVA forward: from a pipe, a socket, a tape.

use std::io::{self, ErrorKind, Read};

use super::{
    audit::{Audit, Verification},
    descriptor::{FileReference, MAX_DESCRIPTOR_BYTES, OvfDescriptor, VirtualDisk},
    digest::Hasher,
    manifest::{MAX_MANIFEST_BYTES, Manifest},
    name::has_extension,
    references::{Place, References},
    tar::{Member, Walker},
};
use crate::error::{Error, Result};

/// Reads an OVA from a source that cannot seek, file by file, and compares each with the manifest on the way.
///
/// The descriptor must come first, as the standard wants; files may come in any order. When the manifest comes last,
/// all files are digested in all three ways until it is there: about 4 CPU seconds for 1 GB on a processor with
/// instructions for SHA, where one digest takes 1 to 2.
///
/// ```no_run
/// use vmdk::{ova::OvaReader, stream::StreamReader};
///
/// # fn main() -> vmdk::Result<()> {
/// let mut ova = OvaReader::open(std::io::stdin(), "web.ova")?;
/// while let Some(mut file) = ova.next_file()? {
///     if let Some(disk) = file.disk() {
///         println!("{} of {:?}", disk.id, disk.capacity);
///         let mut grains = StreamReader::open(&mut file, "disk")?;
///         while let Some(grain) = grains.next_grain()? {
///             println!("{} bytes at {}", grain.data.len(), grain.offset);
///         }
///     }
/// }
/// // Only now is it known that nothing is missing and every digest is right.
/// println!("{:?}", ova.finish()?.verified);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OvaReader<R> {
    input: Input<R>,
    walker: Walker,
    /// A member that was met while looking for the manifest.
    pending: Option<Member>,
    descriptor_name: String,
    descriptor: OvfDescriptor,
    references: References,
    audit: Audit,
    current: Option<Current>,
    /// Which files of the descriptor have begun.
    begun: Vec<bool>,
    /// After an error nothing that is read can be trusted.
    failed: bool,
}

/// The file being read.
#[derive(Debug)]
struct Current {
    place: Option<Place>,
    /// Name of the file; for one in pieces, without their numbers.
    name: String,
    part: String,
    left: u64,
    size: Option<u64>,
    is_last: bool,
    hashers: Vec<Hasher>,
}

impl<R: Read> OvaReader<R> {
    /// Reads the descriptor, and the manifest if it follows; `name` names the archive in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is no OVA or does not begin with a descriptor, those of
    /// [`OvfDescriptor::parse`], and the source's.
    pub fn open(source: R, name: impl Into<String>) -> Result<Self> {
        let mut input = Input { source, name: name.into(), at: 0 };
        let mut walker = Walker::new(input.name.clone());
        let mut audit = Audit::new(input.name.clone(), None);
        let first = walker.next(|at, buf| input.read_at(at, buf))?;
        let Some(first) = first.filter(|member| has_extension(&member.name, "ovf")) else {
            let problem = "it does not begin with a descriptor (.ovf): if it has one, read it at random";
            return Err(Error::malformed(input.name, problem));
        };
        let object = format!("{}: {}", input.name, first.name);
        let xml = input.read_all(&first, MAX_DESCRIPTOR_BYTES)?;
        let descriptor = OvfDescriptor::parse(&xml, &object)?;
        let mut hashers = audit.hashers(&first.name);
        hashers.iter_mut().for_each(|hasher| hasher.update(&xml));
        audit.file(&first.name, hashers)?;
        let mut reader = Self {
            input,
            walker,
            pending: None,
            descriptor_name: first.name,
            references: References::new(&descriptor),
            begun: vec![false; descriptor.files.len()],
            descriptor,
            audit,
            current: None,
            failed: false,
        };
        reader.pending = reader.next_member()?;
        Ok(reader)
    }

    /// The descriptor.
    pub fn descriptor(&self) -> &OvfDescriptor {
        &self.descriptor
    }

    /// The descriptor's name in the archive.
    pub fn descriptor_name(&self) -> &str {
        &self.descriptor_name
    }

    /// The manifest, as soon as it was met.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.audit.manifest()
    }

    /// Goes to the next file; what is left of the one before is read and checked. `None` at the end.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a truncated or damaged archive, for sizes that contradict the descriptor, and for a
    /// file whose digest is not that of the manifest; the source's errors. The reader is then of no use any more.
    pub fn next_file(&mut self) -> Result<Option<OvaFile<'_, R>>> {
        self.drain()?;
        self.current = None;
        let member = match self.pending.take() {
            Some(member) => Some(member),
            None => self.guarded(Self::next_member)?,
        };
        let Some(member) = member else { return Ok(None) };
        self.guarded(|reader| reader.begin(member))?;
        Ok(Some(OvaFile { reader: self }))
    }

    /// Reads and checks the rest; every file that descriptor or manifest names must have been there.
    ///
    /// # Errors
    /// As [`OvaReader::next_file`].
    pub fn finish(mut self) -> Result<Verification> {
        while self.next_file()?.is_some() {}
        if let Some(missing) = self.begun.iter().position(|begun| !begun) {
            let problem = format!("{} is missing", self.descriptor.files[missing].href);
            return Err(Error::malformed(self.input.name, problem));
        }
        self.audit.finish()
    }

    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.failed {
            return Err(Error::malformed(&self.input.name, "reading failed before and cannot go on"));
        }
        let outcome = step(self);
        self.failed = outcome.is_err();
        outcome
    }

    /// The next member that is neither manifest nor certificate; these are taken in.
    fn next_member(&mut self) -> Result<Option<Member>> {
        loop {
            let member = self.walker.next(|at, buf| self.input.read_at(at, buf))?;
            let Some(member) = member else { return Ok(None) };
            if self.references.find(&self.descriptor, &member.name).is_some() {
                return Ok(Some(member));
            }
            if has_extension(&member.name, "mf") {
                let bytes = self.input.read_all(&member, MAX_MANIFEST_BYTES)?;
                let object = format!("{}: {}", self.input.name, member.name);
                self.audit.set_manifest(Manifest::parse(&bytes, &object)?)?;
            } else if has_extension(&member.name, "cert") {
                self.audit.certificate();
            } else {
                return Ok(Some(member));
            }
        }
    }

    fn begin(&mut self, member: Member) -> Result<()> {
        let place = self.references.find(&self.descriptor, &member.name);
        let mut current = Current {
            place,
            name: member.name.clone(),
            hashers: self.audit.hashers(&member.name),
            part: member.name,
            left: member.size,
            size: Some(member.size),
            is_last: true,
        };
        if let Some(place) = place {
            let file = &self.descriptor.files[place.file];
            let wrong = |problem| Error::malformed(format!("{}: {}", self.input.name, current.part), problem);
            if place.chunk.unwrap_or(0) != 0 {
                return Err(wrong("this piece of a file does not follow the one before".to_owned()));
            }
            // Also a file that comes whole and in pieces.
            if std::mem::replace(&mut self.begun[place.file], true) {
                return Err(wrong("the file comes for the second time".to_owned()));
            }
            match place.chunk {
                None => file.check_size(member.size).map_err(wrong)?,
                Some(chunk) => {
                    current.is_last = file.check_chunk(chunk, member.size).map_err(wrong)?.unwrap_or(false);
                    current.size = file.size;
                    let digits = FileReference::chunk_name("", chunk).len();
                    current.name.truncate(current.name.len() - digits);
                }
            }
        }
        self.input.skip_to(member.offset)?;
        self.current = Some(current);
        Ok(())
    }

    /// Bytes of the current file; 0 at its end, when its digest has been compared.
    fn read_current(&mut self, buf: &mut [u8]) -> Result<usize> {
        while let Some(current) = &mut self.current {
            if current.left > 0 {
                let len = buf.len().min(usize::try_from(current.left).unwrap_or(usize::MAX));
                let read = self.input.read(&mut buf[..len])?;
                current.left -= read as u64;
                current.hashers.iter_mut().for_each(|hasher| hasher.update(&buf[..read]));
                return Ok(read);
            }
            if current.part.is_empty() {
                break;
            }
            let part = std::mem::take(&mut current.part);
            let hashers = std::mem::take(&mut current.hashers);
            let place = current.place.filter(|_| !current.is_last);
            self.audit.file(&part, hashers)?;
            if let Some(place) = place {
                self.next_part(place)?;
            }
        }
        Ok(0)
    }

    /// Goes on with the next piece of a file that comes in pieces.
    fn next_part(&mut self, before: Place) -> Result<()> {
        let wanted = Place { file: before.file, chunk: before.chunk.map(|chunk| chunk + 1) };
        let member = self.next_member()?;
        let found = member.as_ref().and_then(|member| self.references.find(&self.descriptor, &member.name));
        let file = &self.descriptor.files[before.file];
        let (Some(member), true) = (&member, found == Some(wanted)) else {
            if file.size.is_some() {
                return Err(Error::malformed(&self.input.name, format!("pieces of {} are missing", file.href)));
            }
            // Without a size, the pieces end where others begin.
            self.pending = member;
            return Ok(());
        };
        let wrong = |problem| Error::malformed(format!("{}: {}", self.input.name, member.name), problem);
        let last = file.check_chunk(wanted.chunk.unwrap_or(0), member.size).map_err(wrong)?;
        let hashers = self.audit.hashers(&member.name);
        self.input.skip_to(member.offset)?;
        if let Some(current) = &mut self.current {
            current.place = Some(wanted);
            current.part.clone_from(&member.name);
            current.left = member.size;
            current.is_last = last.unwrap_or(false);
            current.hashers = hashers;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let mut piece = vec![0; if self.current.is_some() { PIECE } else { 0 }];
        while self.current.is_some() && self.guarded(|reader| reader.read_current(&mut piece))? > 0 {}
        Ok(())
    }
}

/// A file of the package, read by [`Read`]. At its end its digest is compared with the manifest's: the last read
/// fails when they differ. A file in pieces is read as one.
#[derive(Debug)]
pub struct OvaFile<'a, R> {
    reader: &'a mut OvaReader<R>,
}

impl<R> OvaFile<'_, R> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.current().map_or("", |current| &current.name)
    }

    /// Its size; `None` when it comes in pieces and the descriptor does not say.
    pub fn size(&self) -> Option<u64> {
        self.current().and_then(|current| current.size)
    }

    /// What the descriptor says of it; `None` for files that it does not name.
    pub fn reference(&self) -> Option<&FileReference> {
        let place = self.current()?.place?;
        self.reader.descriptor.files.get(place.file)
    }

    /// The disk that it holds, if it holds one.
    pub fn disk(&self) -> Option<&VirtualDisk> {
        self.reader.descriptor.disk_of(self.reference()?)
    }

    fn current(&self) -> Option<&Current> {
        self.reader.current.as_ref()
    }
}

impl<R: Read> Read for OvaFile<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.reader.guarded(|reader| reader.read_current(buf)).map_err(into_io)
    }
}

/// Keeps the kind for those who retry, and the message for all.
fn into_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::Io { source, .. } => source.kind(),
        _ => ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}

/// A source and how far it was read.
#[derive(Debug)]
struct Input<R> {
    source: R,
    name: String,
    at: u64,
}

impl<R: Read> Input<R> {
    /// Reads something; the source's end is an error.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.source.read(buf) {
                Ok(0) if !buf.is_empty() => {
                    let problem = format!("it ends at {} without an end mark: it is truncated", self.at);
                    return Err(Error::malformed(&self.name, problem));
                }
                Ok(read) => {
                    self.at += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.name, Some(self.at), error)),
            }
        }
    }

    fn read_at(&mut self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        self.skip_to(offset)?;
        while !buf.is_empty() {
            let read = self.read(buf)?;
            buf = &mut buf[read..];
        }
        Ok(())
    }

    fn skip_to(&mut self, offset: u64) -> Result<()> {
        if offset > self.at {
            let mut piece = vec![0; (offset - self.at).min(PIECE as u64) as usize];
            while self.at < offset {
                let len = (offset - self.at).min(PIECE as u64) as usize;
                self.read(&mut piece[..len])?;
            }
        }
        Ok(())
    }

    /// All of a member that may not be larger than `limit`.
    fn read_all(&mut self, member: &Member, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = member.buffer(limit, &self.name)?;
        self.read_at(member.offset, &mut bytes)?;
        Ok(bytes)
    }
}

impl Member {
    /// Room for a member that is read as a whole.
    pub(super) fn buffer(&self, limit: u64, object: &str) -> Result<Vec<u8>> {
        if self.size > limit {
            let problem = format!("it has {} bytes, more than the {limit} that it may have", self.size);
            return Err(Error::malformed(format!("{object}: {}", self.name), problem));
        }
        // Bounded just now.
        Ok(vec![0; self.size as usize])
    }
}

/// Bytes that are skipped at once.
const PIECE: usize = 64 << 10;
