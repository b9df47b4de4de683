//! OVF packages: machines with their disks, as an archive (OVA) or as files in a directory.
//!
//! A package is a descriptor (`.ovf`, XML), the files that it names, and usually a manifest (`.mf`) with a digest for
//! each of them. An OVA is all of that in one tar, the descriptor first. The standard is DMTF's DSP0243 (ISO/IEC
//! 17203), versions 1 and 2; where it leaves a choice, what vSphere and ovftool do decides.
//!
//! | To | there is |
//! |---|---|
//! | read an OVA from a pipe or a socket, checking digests on the way | [`OvaReader`] |
//! | read an OVA in any positioned source, or an `.ovf` with its files, at random | [`OvfPackage`] |
//! | understand a descriptor | [`OvfDescriptor`] |
//! | pack disks, descriptor included | [`Packing`] with an [`OvfSpec`] |
//! | pack with a descriptor of vSphere's making | [`Packing::with_descriptor`] |
//! | write an archive piece by piece | [`OvaWriter`] |
//!
//! ```
//! use vmdk::{CreateKind, CreateSpec, create, ova::{Content, DiskSpec, OvaOptions, OvaReader, OvfSpec, Packing}};
//!
//! # fn main() -> vmdk::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("web.vmdk");
//! let disk = create(path, &CreateSpec::new(1 << 20, CreateKind::MonolithicSparse))?;
//! disk.write_at(65536, b"some data")?;
//! let spec = OvfSpec::new("web").guest_os("ubuntu64Guest", 94).disk(DiskSpec::new("web-disk1.vmdk", 1 << 20));
//! let archive = Packing::new(spec)
//!     .file("web-disk1.vmdk", Content::disk(&disk))
//!     .write_ova(Vec::new(), &OvaOptions::new())?;
//!
//! let reader = OvaReader::open(archive.as_slice(), "web.ova")?;
//! assert_eq!(reader.descriptor().disks.len(), 1);
//! assert_eq!(reader.finish()?.verified, ["web.ovf", "web-disk1.vmdk"]);
//! # Ok(())
//! # }
//! ```
//!
//! # What others get wrong, and what is done about it
//! - ustar ends at 8 GiB. How larger files are written, and why, says [`LargeFiles`].
//! - Names are read as written and as `%`-escaped URIs. A name that leaves the package, a URL, and members that are
//!   links or devices are refused.
//! - Files may come in another order than the references; the descriptor must come first only for [`OvaReader`].
//! - Files in pieces (`ovf:chunkSize`) are read as one. Files that are compressed as a whole (`ovf:compression`) can
//!   be read as they are, but not as disks.
//! - Sizes in the descriptor that are not those of the files are errors: vSphere fails on them too.
//! - Certificates (`.cert`) are noticed, not verified.
//!
//! Everything in a package is taken as hostile: documents, names and counts are bounded, XML has no entities, and no
//! size that is claimed makes anything be allocated.

mod audit;
mod compose;
mod descriptor;
mod digest;
mod file;
mod manifest;
mod name;
mod package;
mod packing;
mod reader;
mod references;
mod spec;
mod tar;
mod writer;
mod xml;

pub use self::{
    audit::Verification,
    descriptor::{
        Bus, Capacity, Compression, DiskAttachment, FileReference, HardwareItem, OvfDescriptor, STREAM_OPTIMIZED,
        VirtualDisk, VirtualSystem, resource,
    },
    digest::{Digest, DigestAlgorithm},
    file::PackageFile,
    manifest::Manifest,
    package::OvfPackage,
    packing::{Content, Packing},
    reader::{OvaFile, OvaReader},
    spec::{DiskController, DiskSpec, NetworkSpec, OvfSpec},
    tar::LargeFiles,
    writer::{OvaFileWriter, OvaOptions, OvaWriter},
};
