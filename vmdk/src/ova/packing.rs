//! Packing disks: whole packages from images, or from files that are ready.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use super::{
    compose::{FileFacts, compose},
    descriptor::OvfDescriptor,
    digest::{Digest, DigestAlgorithm, Hasher, Measuring},
    manifest::Manifest,
    name::{self, has_extension},
    spec::OvfSpec,
    writer::{OvaOptions, OvaWriter},
};
use crate::{
    error::{Error, Result},
    image::{Image, MapKind},
    source::ReadAt,
    stream::{Export, StreamSpec},
};

/// A package to be written: a descriptor and the contents of its files.
///
/// ```no_run
/// use vmdk::{Disk, OpenOptions};
/// use vmdk::ova::{Content, DiskSpec, OvaOptions, OvfSpec, Packing};
///
/// # fn main() -> vmdk::Result<()> {
/// let disk = Disk::open("web.vmdk", &OpenOptions::new())?;
/// let spec = OvfSpec::new("web").disk(DiskSpec::new("web-disk1.vmdk", disk.capacity()));
/// Packing::new(spec).file("web-disk1.vmdk", Content::disk(&disk)).write_ova(std::io::stdout(), &OvaOptions::new())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Packing<'a> {
    plan: Plan,
    contents: HashMap<String, Content<'a>>,
    threads: usize,
}

#[derive(Debug)]
enum Plan {
    Spec(OvfSpec),
    Ready { name: String, xml: Vec<u8> },
}

/// The bytes of a file.
#[derive(Clone)]
pub struct Content<'a> {
    bytes: Bytes<'a>,
}

#[derive(Clone)]
enum Bytes<'a> {
    Disk(&'a (dyn Image + 'a), Box<StreamSpec>),
    Ready(&'a dyn ReadAt),
}

impl<'a> Content<'a> {
    /// A disk, exported as `streamOptimized`. An OVA wants sizes and digests before the bytes, so the disk is
    /// exported twice, the first time to nowhere. The disk must not change meanwhile: that is noticed, and an error.
    pub fn disk(image: &'a (dyn Image + 'a)) -> Self {
        Self::disk_with(image, StreamSpec::new(image.capacity()))
    }

    /// As [`Content::disk`], with a level of compression, an adapter, a content id or a descriptor of the caller's
    /// choice.
    pub fn disk_with(image: &'a (dyn Image + 'a), spec: StreamSpec) -> Self {
        // A new content id for each export would make each another file.
        Self { bytes: Bytes::Disk(image, Box::new(spec.with_chosen_cid())) }
    }

    /// A file that is ready, taken as it is.
    pub fn ready(source: &'a dyn ReadAt) -> Self {
        Self { bytes: Bytes::Ready(source) }
    }

    /// How large the file will be, which whoever makes a descriptor elsewhere must know (`OvfFile.size`). For a disk,
    /// this exports it to nowhere.
    ///
    /// # Errors
    /// Those of the image or of the file.
    #[doc(alias = "OvfFile")]
    pub fn size(&self) -> Result<u64> {
        match &self.bytes {
            Bytes::Disk(image, spec) => {
                let sink = Export::new(spec).run(*image, Counting(0))?;
                Ok(sink.0)
            }
            Bytes::Ready(source) => source.len().map_err(|error| Error::io("read", "the file", None, error)),
        }
    }
}

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bytes {
            Bytes::Disk(_, spec) => f.debug_tuple("Disk").field(spec).finish(),
            Bytes::Ready(source) => f.debug_tuple("Ready").field(source).finish(),
        }
    }
}

impl<'a> Packing<'a> {
    /// A package for which the descriptor is made; it is named after the machine.
    pub fn new(spec: OvfSpec) -> Self {
        Self { plan: Plan::Spec(spec), contents: HashMap::new(), threads: 0 }
    }

    /// A package with a descriptor that is ready, named `name`, which ends in `.ovf`. The sizes that it says must be
    /// right.
    #[doc(alias = "CreateDescriptor")]
    pub fn with_descriptor(name: impl Into<String>, xml: impl Into<Vec<u8>>) -> Self {
        Self { plan: Plan::Ready { name: name.into(), xml: xml.into() }, contents: HashMap::new(), threads: 0 }
    }

    /// Sets the content of a file that the descriptor names.
    pub fn file(mut self, href: impl Into<String>, content: Content<'a>) -> Self {
        self.contents.insert(href.into(), content);
        self
    }

    /// Sets the number of threads that compress disks, as for [`Export::threads`].
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Writes an OVA to a sink that cannot seek: descriptor, manifest, files.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a spec that makes no sense, contents that do not fit to it, and disks that change
    /// while they are packed; those of images, files and the sink.
    pub fn write_ova<W: Write>(&self, sink: W, options: &OvaOptions) -> Result<W> {
        let jobs = self.jobs()?;
        let mut manifest = Manifest::new();
        let mut facts = Vec::new();
        for job in &jobs {
            let (_, size, digest) = job.send(io::sink(), options.digest)?;
            facts.push(job.facts(size)?);
            manifest.insert(&job.href, digest);
        }
        let (name, xml) = self.descriptor(&facts)?;
        let mut writer = OvaWriter::with_manifest(sink, &name, &xml, &manifest, options)?;
        for (job, facts) in jobs.iter().zip(&facts) {
            let mut file = writer.file(&job.href, facts.size)?;
            job.send(&mut file, options.digest)?;
            file.finish()?;
        }
        writer.finish()
    }

    /// Writes the package as files in a directory that exists; files that exist are not overwritten. Every disk is
    /// exported once. The descriptor comes last, so that a package that is there is whole.
    ///
    /// # Errors
    /// As [`Packing::write_ova`]; what was written stays.
    pub fn write_directory(&self, directory: &Path, digest: DigestAlgorithm) -> Result<()> {
        let mut manifest = Vec::new();
        let mut facts = Vec::new();
        let jobs = self.jobs()?;
        for job in &jobs {
            let path = directory.join(&job.href);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)
                    .map_err(|error| Error::io("create", parent.display().to_string(), None, error))?;
            }
            let (size, found) = create(&path, |file| {
                let (_, size, found) = job.send(file, digest)?;
                Ok((size, found))
            })?;
            facts.push(job.facts(size)?);
            manifest.push((&job.href, found));
        }
        let (name, xml) = self.descriptor(&facts)?;
        let sizes = OvfDescriptor::parse(&xml, &name)?;
        for (file, facts) in sizes.files.iter().zip(&facts) {
            file.check_size(facts.size)
                .map_err(|problem| Error::invalid("file", format!("{}: {problem}", file.href)))?;
        }
        let mut all = Manifest::new();
        all.insert(&name, Hasher::digest(digest, &xml));
        for (href, found) in manifest {
            all.insert(href, found);
        }
        for (path, bytes) in [(Path::new(&name).with_extension("mf"), all.to_string().into_bytes()), (name.into(), xml)]
        {
            let path = directory.join(path);
            create(&path, |file| {
                file.write_all(&bytes).map_err(|error| Error::io("write", path.display().to_string(), None, error))
            })?;
        }
        Ok(())
    }

    /// The files of the descriptor with their contents, in order.
    fn jobs(&self) -> Result<Vec<Job<'_>>> {
        let (hrefs, capacities): (Vec<String>, HashMap<&str, u64>) = match &self.plan {
            Plan::Spec(spec) => (
                spec.hrefs().map(str::to_owned).collect(),
                spec.disks.iter().map(|disk| (disk.href.as_str(), disk.capacity)).collect(),
            ),
            Plan::Ready { name, xml } => {
                let descriptor = OvfDescriptor::parse(xml, name)?;
                (descriptor.files.into_iter().map(|file| file.href).collect(), HashMap::new())
            }
        };
        if let Some(stray) = self.contents.keys().find(|href| !hrefs.contains(href)) {
            return Err(Error::invalid("file", format!("{stray:?} is not named by the descriptor")));
        }
        let job = |href: String| {
            let content =
                self.contents.get(&href).ok_or_else(|| Error::invalid("file", format!("{href} has no content")))?;
            let wanted = capacities.get(href.as_str()).copied();
            Job::new(href, content, wanted, self.threads)
        };
        hrefs.into_iter().map(job).collect()
    }

    /// Name and bytes of the descriptor.
    fn descriptor(&self, facts: &[FileFacts]) -> Result<(String, Vec<u8>)> {
        match &self.plan {
            Plan::Spec(spec) => {
                // The name becomes that of a file.
                let plain = |found: char| if found.is_alphanumeric() || "-_. ".contains(found) { found } else { '_' };
                let name = spec.name.chars().map(plain).collect::<String>();
                let name = name.trim_matches(['.', ' ']);
                Ok((format!("{}.ovf", if name.is_empty() { "machine" } else { name }), compose(spec, facts)?))
            }
            Plan::Ready { name, xml }
                if has_extension(name, "ovf") && name::normal(name).is_ok_and(|normal| normal == *name) =>
            {
                Ok((name.clone(), xml.clone()))
            }
            Plan::Ready { name, .. } => {
                Err(Error::invalid("descriptor name", format!("{name:?} is not a name like a.ovf")))
            }
        }
    }
}

/// A file to be written.
struct Job<'a> {
    href: String,
    bytes: &'a Bytes<'a>,
    threads: usize,
}

impl<'a> Job<'a> {
    fn new(href: String, content: &'a Content<'a>, capacity: Option<u64>, threads: usize) -> Result<Self> {
        // It is written as it is, into archives and directories.
        if name::normal(&href).is_ok_and(|normal| normal != href) {
            return Err(Error::invalid("file", format!("{href:?} has a plainer form")));
        }
        if let Err(reason) = name::normal(&href) {
            return Err(Error::invalid("file", format!("{href:?}: {reason}")));
        }
        if let (Bytes::Disk(image, _), Some(wanted)) = (&content.bytes, capacity)
            && image.capacity() != wanted
        {
            let problem = format!("{href} is a disk of {} bytes, not of {wanted}", image.capacity());
            return Err(Error::invalid("capacity", problem));
        }
        Ok(Self { href, bytes: &content.bytes, threads })
    }

    /// Writes the file to `sink`; returns its size and digest too.
    fn send<W: Write>(&self, sink: W, algorithm: DigestAlgorithm) -> Result<(W, u64, Digest)> {
        let mut measuring = Measuring::new(sink, algorithm);
        match self.bytes {
            Bytes::Disk(image, spec) => measuring = Export::new(spec).threads(self.threads).run(*image, measuring)?,
            Bytes::Ready(source) => copy(*source, &mut measuring, &self.href)?,
        }
        Ok(measuring.finish())
    }

    fn facts(&self, size: u64) -> Result<FileFacts> {
        let populated = match self.bytes {
            Bytes::Ready(_) => None,
            Bytes::Disk(image, _) => {
                let mut populated = 0;
                for entry in image.map(0..image.capacity()) {
                    let entry = entry?;
                    if entry.kind == MapKind::Data {
                        populated += entry.range.end - entry.range.start;
                    }
                }
                Some(populated)
            }
        };
        Ok(FileFacts { size, populated })
    }
}

/// A sink that keeps nothing but the count.
struct Counting(u64);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn copy(source: &dyn ReadAt, sink: &mut dyn Write, name: &str) -> Result<()> {
    let failed = |operation, at, error| Error::io(operation, name, at, error);
    let len = source.len().map_err(|error| failed("read", None, error))?;
    let mut piece = vec![0; PIECE.min(len) as usize];
    let mut at = 0;
    while at < len {
        let piece = &mut piece[..(len - at).min(PIECE) as usize];
        source.read_exact_at(piece, at).map_err(|error| failed("read", Some(at), error))?;
        sink.write_all(piece).map_err(|error| failed("write", Some(at), error))?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Creates a file, lets it be written, and returns when it is on stable storage.
fn create<T>(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    let failed = |operation, error| Error::io(operation, path.display().to_string(), None, error);
    let file = File::create_new(path).map_err(|error| failed("create", error))?;
    let mut file = BufWriter::with_capacity(PIECE as usize, file);
    let outcome = write(&mut file)?;
    let file = file.into_inner().map_err(|error| failed("write", error.into_error()))?;
    file.sync_all().map_err(|error| failed("flush", error))?;
    Ok(outcome)
}

/// Bytes that are copied at once.
const PIECE: u64 = 256 << 10;
