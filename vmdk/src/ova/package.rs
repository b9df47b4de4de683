//! Packages at random access: an OVA in any positioned source, or a descriptor in a directory.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    audit::{Audit, Verification},
    descriptor::{FileReference, MAX_DESCRIPTOR_BYTES, OvfDescriptor},
    file::PackageFile,
    manifest::{MAX_MANIFEST_BYTES, Manifest},
    name::has_extension,
    references::References,
    tar::{Member, Walker},
};
use crate::{
    disk::{Access, Disk, Format, OpenOptions, Resolver},
    error::{Error, Result},
    source::{FileSource, Handle, ReadAt},
};

/// A package whose files are read at random.
///
/// ```no_run
/// # fn main() -> vmdk::Result<()> {
/// let package = vmdk::ova::OvfPackage::open("web.ova")?; // or "web.ovf"
/// for at in package.descriptor().disk_attachments() {
///     println!("{} is {:?} {:?}:{:?}", at.disk_id, at.bus, at.bus_number, at.unit);
/// }
/// println!("{:?}", package.verify()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OvfPackage {
    name: String,
    store: Store,
    descriptor_name: String,
    descriptor: OvfDescriptor,
    manifest: Option<Manifest>,
    has_certificate: bool,
}

impl OvfPackage {
    /// Opens a local package: an archive, or a descriptor with its files around it. The content tells which it is.
    ///
    /// # Errors
    /// As [`OvfPackage::from_source`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let source = FileSource::open(path).map_err(|error| Error::io("open", &name, None, error))?;
        let mut start = [0; 1];
        // What is too short for this is no archive either.
        let is_text = source.read_exact_at(&mut start, 0).is_ok() && matches!(start[0], b'<' | 0xef | 0xff | 0xfe);
        if is_text || has_extension(&name, "ovf") {
            Self::directory(path, name, &source)
        } else {
            Self::from_source(Arc::new(source), name)
        }
    }

    /// Opens an archive in any source; `name` names it in errors. Only headers, descriptor and manifest are read.
    /// Descriptor, manifest and files may come in any order.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is no OVA, for a truncated one, for missing files and for sizes that contradict
    /// the descriptor; those of [`OvfDescriptor::parse`], and the source's.
    pub fn from_source(source: Arc<dyn ReadAt>, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let len = source.len().map_err(|error| Error::io("read", &name, None, error))?;
        let read = |at: u64, buf: &mut [u8]| {
            if at.checked_add(buf.len() as u64).is_none_or(|end| end > len) {
                return Err(Error::malformed(&name, format!("it ends at {len} without an end mark: it is truncated")));
            }
            source.read_exact_at(buf, at).map_err(|error| Error::io("read", &name, Some(at), error))
        };
        let mut walker = Walker::new(name.clone());
        let mut members = Vec::new();
        while let Some(member) = walker.next(read)? {
            members.push(member);
        }
        let Some(first) = members.iter().find(|member| has_extension(&member.name, "ovf")) else {
            return Err(Error::malformed(name, "it has no descriptor (.ovf)"));
        };
        let all = |member: &Member, limit: u64| {
            let mut bytes = member.buffer(limit, &name)?;
            read(member.offset, &mut bytes).map(|()| bytes)
        };
        let descriptor = OvfDescriptor::parse(&all(first, MAX_DESCRIPTOR_BYTES)?, &format!("{name}: {}", first.name))?;
        let references = References::new(&descriptor);
        let side = |extension: &str| {
            let is_side = |member: &&Member| {
                has_extension(&member.name, extension) && references.find(&descriptor, &member.name).is_none()
            };
            members.iter().filter(is_side).collect::<Vec<_>>()
        };
        let manifest = match side("mf")[..] {
            [] => None,
            [found] => Some(Manifest::parse(&all(found, MAX_MANIFEST_BYTES)?, &format!("{name}: {}", found.name))?),
            _ => return Err(Error::malformed(name, "the package has two manifests")),
        };
        let package = Self {
            has_certificate: !side("cert").is_empty(),
            descriptor_name: first.name.clone(),
            manifest,
            descriptor,
            store: Store::Archive {
                source: Arc::clone(&source),
                members: members
                    .into_iter()
                    .map(|member| (member.name, member.offset..member.offset + member.size))
                    .collect(),
            },
            name,
        };
        package.check_files()?;
        Ok(package)
    }

    fn directory(path: &Path, name: String, source: &FileSource) -> Result<Self> {
        let xml = read_small(source, &name, MAX_DESCRIPTOR_BYTES)?;
        let beside = |extension: &str| path.with_extension(extension);
        let manifest_path = beside("mf");
        let manifest = match FileSource::open(&manifest_path) {
            Ok(source) => {
                let object = manifest_path.display().to_string();
                Some(Manifest::parse(&read_small(&source, &object, MAX_MANIFEST_BYTES)?, &object)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("open", manifest_path.display().to_string(), None, error)),
        };
        let package = Self {
            descriptor: OvfDescriptor::parse(&xml, &name)?,
            descriptor_name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            has_certificate: beside("cert").exists(),
            store: Store::Directory(path.parent().unwrap_or(Path::new("")).to_owned()),
            manifest,
            name,
        };
        package.check_files()?;
        Ok(package)
    }

    /// The descriptor.
    pub fn descriptor(&self) -> &OvfDescriptor {
        &self.descriptor
    }

    /// The descriptor's name in the package.
    pub fn descriptor_name(&self) -> &str {
        &self.descriptor_name
    }

    /// The manifest, if there is one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Whether there is a certificate, of whatever worth: it is not verified.
    pub fn has_certificate(&self) -> bool {
        self.has_certificate
    }

    /// The bytes of a file, as they are in the package.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a file of another package, and those of the storage.
    pub fn file(&self, file: &FileReference) -> Result<PackageFile> {
        let mut whole = PackageFile::new();
        for (name, len) in self.parts(file)? {
            let (source, range) = self.store.open(&self.name, &name)?;
            let found = range.end - range.start;
            if found != len {
                let problem = format!("it had {len} bytes, and now has {found}");
                return Err(Error::malformed(format!("{}: {name}", self.name), problem));
            }
            whole.push(source, range);
        }
        Ok(whole)
    }

    /// The bytes of the file that holds a disk: what [`StreamReader`](crate::stream::StreamReader) and
    /// [`OvfPackage::open_disk`] take.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when there is no such disk or it has no file, [`Error::NotSupported`] when the file is
    /// compressed as a whole, and those of the storage.
    pub fn disk_file(&self, disk_id: &str) -> Result<PackageFile> {
        let disk = self
            .descriptor
            .disk(disk_id)
            .ok_or_else(|| Error::invalid("disk id", format!("{} has no disk {disk_id:?}", self.name)))?;
        let file = disk
            .file_ref
            .as_deref()
            .and_then(|id| self.descriptor.file(id))
            .ok_or_else(|| Error::invalid("disk id", format!("{disk_id:?} has no file: it is an empty disk")))?;
        file.plain(&self.name)?;
        self.file(file)
    }

    /// Opens a disk of the package for reading: VMware's, which is a sparse file with its descriptor inside.
    ///
    /// # Errors
    /// As [`OvfPackage::disk_file`] and [`Disk::open`].
    pub fn open_disk(&self, disk_id: &str) -> Result<Disk> {
        let resolver = OneFile { path: format!("{}: {disk_id}", self.name).into(), file: self.disk_file(disk_id)? };
        let path = resolver.path.clone();
        Disk::open(path, &OpenOptions::new().format(Format::Sparse).resolver(Arc::new(resolver)))
    }

    /// Reads all files and compares them with the manifest.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a file whose digest is not that of the manifest, or that the manifest lists and the
    /// package does not have; those of the storage.
    pub fn verify(&self) -> Result<Verification> {
        let mut audit = Audit::new(self.name.clone(), Some(self.manifest.clone().unwrap_or_default()));
        let mut names = BTreeSet::from([self.descriptor_name.clone()]);
        for file in &self.descriptor.files {
            names.extend(self.parts(file)?.into_iter().map(|(name, _)| name));
        }
        // Files that no reference names, but the manifest does.
        for (name, _) in self.manifest.iter().flat_map(Manifest::iter) {
            if self.store.len(name)?.is_some() {
                names.insert(name.to_owned());
            }
        }
        let mut piece = vec![0; PIECE as usize];
        for name in names {
            let mut hashers = audit.hashers(&name);
            if !hashers.is_empty() {
                let (source, range) = self.store.open(&self.name, &name)?;
                let mut at = range.start;
                while at < range.end {
                    let piece = &mut piece[..(range.end - at).min(PIECE) as usize];
                    let object = || format!("{}: {name}", self.name);
                    source.read_exact_at(piece, at).map_err(|error| Error::io("read", object(), Some(at), error))?;
                    hashers.iter_mut().for_each(|hasher| hasher.update(piece));
                    at += piece.len() as u64;
                }
            }
            audit.file(&name, hashers)?;
        }
        let mut result = audit.finish()?;
        result.has_manifest = self.manifest.is_some();
        result.has_certificate = self.has_certificate;
        Ok(result)
    }

    /// All files are there and have the sizes that the descriptor says.
    fn check_files(&self) -> Result<()> {
        self.descriptor.files.iter().try_for_each(|file| self.parts(file).map(drop))
    }

    /// Names and sizes of the members that make a file.
    fn parts(&self, file: &FileReference) -> Result<Vec<(String, u64)>> {
        let wrong = |name: &str, problem| Error::malformed(format!("{}: {name}", self.name), problem);
        let names = file.names();
        for name in &names {
            if let Some(len) = self.store.len(name)? {
                file.check_size(len).map_err(|problem| wrong(name, problem))?;
                return Ok(vec![(name.clone(), len)]);
            }
        }
        let mut parts = Vec::new();
        for name in names.iter().filter(|_| file.chunk_size.is_some()) {
            loop {
                let part = FileReference::chunk_name(name, parts.len() as u64);
                let Some(len) = self.store.len(&part)? else { break };
                let last = file.check_chunk(parts.len() as u64, len).map_err(|problem| wrong(&part, problem))?;
                parts.push((part, len));
                if last == Some(true) {
                    return Ok(parts);
                }
            }
            // Without a size, the pieces end where the next one is not.
            if !parts.is_empty() && file.size.is_none() {
                return Ok(parts);
            }
        }
        let problem = if parts.is_empty() { "it is missing" } else { "some of its pieces are missing" };
        Err(wrong(&file.href, problem.to_owned()))
    }
}

/// The only file that a disk of a package may open.
struct OneFile {
    path: PathBuf,
    file: PackageFile,
}

impl Resolver for OneFile {
    fn open(&self, path: &Path, _: Access) -> io::Result<Handle> {
        if path != self.path {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Handle::ReadOnly(Arc::new(self.file.clone())))
    }

    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

/// Where a package's files are.
#[derive(Debug)]
enum Store {
    Archive { source: Arc<dyn ReadAt>, members: HashMap<String, Range<u64>> },
    Directory(PathBuf),
}

impl Store {
    fn len(&self, name: &str) -> Result<Option<u64>> {
        match self {
            Self::Archive { members, .. } => Ok(members.get(name).map(|range| range.end - range.start)),
            Self::Directory(directory) => {
                let path = directory.join(name);
                match path.metadata() {
                    Ok(metadata) => Ok(Some(metadata.len())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::io("open", path.display().to_string(), None, error)),
                }
            }
        }
    }

    fn open(&self, object: &str, name: &str) -> Result<(Arc<dyn ReadAt>, Range<u64>)> {
        let missing = || Error::invalid("file", format!("{object} has no {name}"));
        match self {
            Self::Archive { source, members } => {
                let range = members.get(name).ok_or_else(missing)?.clone();
                Ok((Arc::clone(source), range))
            }
            Self::Directory(directory) => {
                let path = directory.join(name);
                let failed = |error| Error::io("open", path.display().to_string(), None, error);
                let source = FileSource::open(&path).map_err(failed)?;
                let len = source.len().map_err(failed)?;
                Ok((Arc::new(source), 0..len))
            }
        }
    }
}

fn read_small(source: &FileSource, object: &str, limit: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", object, None, error);
    let size = source.len().map_err(failed)?;
    let mut bytes = Member { name: object.to_owned(), offset: 0, size }.buffer(limit, object)?;
    source.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

/// Bytes that are digested at once.
const PIECE: u64 = 256 << 10;
