//! Writing an OVA to a sink that cannot seek.

use std::io::{self, Write};

use super::{
    descriptor::OvfDescriptor,
    digest::{Digest, DigestAlgorithm, Hasher},
    manifest::Manifest,
    name::has_extension,
    tar::{BLOCK, LargeFiles, NewMember, RECORD, encode},
};
use crate::error::{Error, Result};

/// How an archive is written. The defaults give the same bytes for the same content whoever writes it, and whenever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct OvaOptions {
    pub(super) digest: DigestAlgorithm,
    pub(super) modified: u64,
    pub(super) owner: (u32, u32),
    pub(super) large: LargeFiles,
}

impl OvaOptions {
    /// SHA-256 digests, times of 1970, owned by root, and GNU tar's sizes where ustar has no room.
    pub fn new() -> Self {
        Self { digest: DigestAlgorithm::Sha256, modified: 0, owner: (0, 0), large: LargeFiles::Gnu }
    }

    /// Sets the manifest's digest. vSphere before 6.5 knows SHA-1 only.
    pub fn digest(mut self, algorithm: DigestAlgorithm) -> Self {
        self.digest = algorithm;
        self
    }

    /// Sets the files' time, in seconds since 1970.
    pub fn modified(mut self, seconds: u64) -> Self {
        self.modified = seconds;
        self
    }

    /// Sets the files' user and group.
    pub fn owner(mut self, user: u32, group: u32) -> Self {
        self.owner = (user, group);
        self
    }

    /// Sets what is done with files of 8 GiB and more.
    pub fn large_files(mut self, large: LargeFiles) -> Self {
        self.large = large;
        self
    }

    fn header(&self, name: &str, size: u64) -> Result<Vec<u8>> {
        let Self { modified, owner, large, .. } = *self;
        encode(&NewMember { name, size, modified, owner, large })
    }
}

impl Default for OvaOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes an OVA, one file after the other: descriptor, manifest if it is known by then, files in the order of the
/// descriptor's references, else the manifest. The standard allows the manifest at both places.
///
/// Sizes stand before the bytes that they count, in the descriptor and in the tar, so they must be known;
/// [`Packing`](super::Packing) finds them out. Every promise is checked: order, sizes, and the digests of a manifest
/// given in advance.
///
/// ```
/// # fn main() -> vmdk::Result<()> {
/// # use std::io::Write;
/// use vmdk::ova::{OvaOptions, OvaWriter};
///
/// let descriptor = br#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
///     xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
///   <References><File ovf:id="file1" ovf:href="notes.txt" ovf:size="5"/></References></Envelope>"#;
/// let mut ova = OvaWriter::new(Vec::new(), "web.ovf", descriptor, &OvaOptions::new())?;
/// let mut file = ova.file("notes.txt", 5)?;
/// file.write_all(b"hello").unwrap();
/// file.finish()?;
/// let archive = ova.finish()?;
/// assert_eq!(archive.len() % 10240, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OvaWriter<W> {
    sink: Sink<W>,
    options: OvaOptions,
    descriptor: OvfDescriptor,
    manifest_name: String,
    /// Given in advance, and written.
    promised: Option<Manifest>,
    manifest: Manifest,
    /// Index of the next file.
    next: usize,
    /// A file was begun and not finished.
    broken: bool,
}

impl<W: Write> OvaWriter<W> {
    /// Begins an archive whose manifest comes last. `xml` is the descriptor: one of vSphere's making
    /// (`OvfManager.CreateDescriptor`), or [`Packing`](super::Packing)'s.
    ///
    /// # Errors
    /// Those of [`OvfDescriptor::parse`], [`Error::InvalidInput`] for a name that does not end in `.ovf`, and the
    /// sink's.
    #[doc(alias = "CreateDescriptor")]
    pub fn new(sink: W, name: &str, xml: &[u8], options: &OvaOptions) -> Result<Self> {
        Self::begin(sink, name, xml, None, options)
    }

    /// Begins an archive whose manifest is known, and comes right after the descriptor, so that readers can check
    /// files while they come. `files` has the digests of the files; that of the descriptor is added.
    ///
    /// # Errors
    /// As [`OvaWriter::new`], and [`Error::InvalidInput`] when `files` lacks a file or lists others.
    pub fn with_manifest(sink: W, name: &str, xml: &[u8], files: &Manifest, options: &OvaOptions) -> Result<Self> {
        Self::begin(sink, name, xml, Some(files), options)
    }

    fn begin(sink: W, name: &str, xml: &[u8], files: Option<&Manifest>, options: &OvaOptions) -> Result<Self> {
        let Some((stem, _)) = name.rsplit_once('.').filter(|_| has_extension(name, "ovf")) else {
            return Err(Error::invalid("descriptor name", format!("{name:?} does not end in .ovf")));
        };
        let descriptor = OvfDescriptor::parse(xml, name)?;
        if let Some(cut) = descriptor.files.iter().find(|file| file.chunk_size.is_some()) {
            return Err(Error::not_supported(
                name,
                format!("{} in pieces", cut.href),
                "archives are written with whole files",
            ));
        }
        let manifest_name = format!("{stem}.mf");
        for file in &descriptor.files {
            if file.names().iter().any(|own| *own == name || *own == manifest_name) {
                return Err(Error::invalid("file", format!("{} is a name of the package's own", file.href)));
            }
            // Better now than when half of the archive is written.
            options.header(&file.href, file.size.unwrap_or(0))?;
        }
        let mut manifest = Manifest::new();
        manifest.insert(name, Hasher::digest(options.digest, xml));
        let promised = files.map(|files| promise(&manifest, files, &descriptor)).transpose()?;
        let mut writer = Self {
            sink: Sink { inner: sink, at: 0, failed: false },
            options: *options,
            descriptor,
            manifest_name,
            promised,
            manifest,
            next: 0,
            broken: false,
        };
        writer.whole(name, xml)?;
        if let Some(manifest) = &writer.promised {
            let text = manifest.to_string();
            writer.whole(&writer.manifest_name.clone(), text.as_bytes())?;
        }
        Ok(writer)
    }

    /// Begins the next file, which must be the next one of the descriptor's references and have the size that is
    /// said there, if one is. [`OvaFileWriter::finish`] ends it.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for another file or size, and the sink's.
    pub fn file(&mut self, href: &str, size: u64) -> Result<OvaFileWriter<'_, W>> {
        self.check_whole()?;
        let expected = self.descriptor.files.get(self.next);
        let Some(file) = expected.filter(|file| file.href == href) else {
            let expected = expected.map_or("the end", |file| &file.href);
            return Err(Error::invalid(
                "file",
                format!("{href:?} is not the next one of the descriptor: {expected:?} is"),
            ));
        };
        file.check_size(size).map_err(|problem| Error::invalid("file", format!("{href}: {problem}")))?;
        self.header(href, size)?;
        self.next += 1;
        self.broken = true;
        let hasher = Hasher::new(self.options.digest);
        Ok(OvaFileWriter { href: href.to_owned(), left: size, hasher, writer: self })
    }

    /// Writes the manifest if it was not, and the end mark, flushes the sink and gives it back.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when files are missing, and the sink's.
    pub fn finish(mut self) -> Result<W> {
        self.check_whole()?;
        if let Some(missing) = self.descriptor.files.get(self.next) {
            return Err(Error::invalid("archive", format!("{} is missing", missing.href)));
        }
        if self.promised.is_none() {
            let text = self.manifest.to_string();
            self.whole(&self.manifest_name.clone(), text.as_bytes())?;
        }
        let end = (self.sink.at + 2 * BLOCK).next_multiple_of(RECORD);
        self.sink.zeros(end - self.sink.at).map_err(|error| self.failed(error))?;
        self.sink.inner.flush().map_err(|error| self.failed(error))?;
        Ok(self.sink.inner)
    }

    /// Bytes written to the sink so far.
    pub fn bytes_written(&self) -> u64 {
        self.sink.at
    }

    fn whole(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.header(name, bytes.len() as u64)?;
        self.sink.write(bytes).and_then(|()| self.sink.pad()).map_err(|error| self.failed(error))
    }

    fn header(&mut self, name: &str, size: u64) -> Result<()> {
        let header = self.options.header(name, size)?;
        self.sink.write(&header).map_err(|error| self.failed(error))
    }

    fn check_whole(&self) -> Result<()> {
        if self.broken {
            return Err(Error::invalid("archive", "a file was begun and not finished"));
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("write", "the archive", Some(self.sink.at), error)
    }
}

/// A file being written to an OVA, by [`Write`].
#[derive(Debug)]
#[must_use = "a file that is not finished makes the archive useless"]
pub struct OvaFileWriter<'a, W> {
    writer: &'a mut OvaWriter<W>,
    href: String,
    left: u64,
    hasher: Hasher,
}

impl<W: Write> OvaFileWriter<'_, W> {
    /// Ends the file and returns its digest.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when bytes are missing or differ from those that the manifest was made of, and the
    /// sink's.
    pub fn finish(self) -> Result<Digest> {
        let Self { writer, href, left, hasher } = self;
        if left > 0 {
            return Err(Error::invalid("file", format!("{href} ends {left} bytes early")));
        }
        writer.sink.pad().map_err(|error| writer.failed(error))?;
        let digest = hasher.finish();
        if let Some(promised) = writer.promised.as_ref().and_then(|manifest| manifest.get(&href))
            && *promised != digest
        {
            let problem =
                format!("{href} has digest {digest}, and was promised with {promised}: it has changed meanwhile");
            return Err(Error::invalid("file", problem));
        }
        writer.manifest.insert(href, digest);
        writer.broken = false;
        Ok(digest)
    }
}

impl<W: Write> Write for OvaFileWriter<'_, W> {
    /// Takes no more than the file's size: at its end, nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if len == 0 && !bytes.is_empty() {
            let problem = format!("{} is longer than was said", self.href);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        self.writer.sink.write(&bytes[..len])?;
        self.hasher.update(&bytes[..len]);
        self.left -= len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.sink.inner.flush()
    }
}

/// The whole manifest, when the files' part of it is that of the descriptor.
fn promise(start: &Manifest, files: &Manifest, descriptor: &OvfDescriptor) -> Result<Manifest> {
    let mut promised = start.clone();
    for file in &descriptor.files {
        let digest =
            files.get(&file.href).filter(|digest| start.iter().all(|(_, of)| of.algorithm() == digest.algorithm()));
        let digest =
            digest.ok_or_else(|| Error::invalid("manifest", format!("it has no such digest of {}", file.href)))?;
        promised.insert(&file.href, *digest);
    }
    if files.iter().len() != descriptor.files.len() {
        return Err(Error::invalid("manifest", "it lists files that the descriptor does not"));
    }
    Ok(promised)
}

/// Counts what goes out.
#[derive(Debug)]
struct Sink<W> {
    inner: W,
    at: u64,
    /// A write failed: nothing that follows can be at its place.
    failed: bool,
}

impl<W: Write> Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write failed, and a part of it may be in the archive"));
        }
        self.failed = true;
        self.inner.write_all(bytes)?;
        self.failed = false;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> io::Result<()> {
        self.zeros(self.at.next_multiple_of(BLOCK) - self.at)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        let zeros = [0; BLOCK as usize];
        let mut left = count;
        while left > 0 {
            let len = left.min(BLOCK);
            self.write(&zeros[..len as usize])?;
            left -= len;
        }
        Ok(())
    }
}
