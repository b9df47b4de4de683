//! OVF descriptors (`.ovf`): which files a package has, which of them are disks, and where these are attached.

mod hardware;
mod parse;
mod units;

pub use self::hardware::{Bus, DiskAttachment, HardwareItem, resource};
use super::{name, xml};
use crate::error::{Error, Result};

/// An OVF descriptor, versions 1 and 2: what a restore needs of it in typed form, and the XML as it is.
///
/// Every file that it names is in the package: a descriptor that names others is refused when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OvfDescriptor {
    /// `References`, in order: the order of the files in an OVA.
    pub files: Vec<FileReference>,
    /// `DiskSection`.
    pub disks: Vec<VirtualDisk>,
    /// Names of the logical networks.
    pub networks: Vec<String>,
    /// The machines; those of nested collections too.
    pub systems: Vec<VirtualSystem>,
    xml: Vec<u8>,
}

impl OvfDescriptor {
    /// Reads a descriptor; `object` names it in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] for bad XML and contradictions, [`Error::PathRefused`] for files outside of the package
    /// (URLs too: nothing is fetched), [`Error::NotSupported`] for what is no OVF 1 or 2, or not in UTF-8.
    pub fn parse(xml: &[u8], object: &str) -> Result<Self> {
        parse::descriptor(xml, object)
    }

    /// The document as it was read.
    pub fn xml(&self) -> &[u8] {
        &self.xml
    }

    /// A file by its id.
    pub fn file(&self, id: &str) -> Option<&FileReference> {
        self.files.iter().find(|file| file.id == id)
    }

    /// A disk by its id.
    pub fn disk(&self, id: &str) -> Option<&VirtualDisk> {
        self.disks.iter().find(|disk| disk.id == id)
    }

    /// The disk that a file holds, if it holds one.
    pub fn disk_of(&self, file: &FileReference) -> Option<&VirtualDisk> {
        self.disks.iter().find(|disk| disk.file_ref.as_deref() == Some(&file.id))
    }

    /// Where the disks of all machines are attached.
    pub fn disk_attachments(&self) -> Vec<DiskAttachment> {
        self.systems.iter().flat_map(VirtualSystem::disk_attachments).collect()
    }
}

/// A file of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileReference {
    /// What other parts of the descriptor call it.
    pub id: String,
    /// Its name, as written; checked to stay in the package.
    pub href: String,
    /// Bytes of the file as it is in the package.
    pub size: Option<u64>,
    /// How it is compressed in the package, beside what its own format does.
    pub compression: Compression,
    /// When set, the file is cut into pieces of so many bytes, named `href.000000000`, `href.000000001`, …
    pub chunk_size: Option<u64>,
}

impl FileReference {
    /// Names that the file may have in the package.
    pub(super) fn names(&self) -> Vec<String> {
        // Checked when the descriptor was read.
        name::of_href(&self.href).unwrap_or_default()
    }

    /// Refuses what is compressed once more.
    pub(super) fn plain(&self, object: &str) -> Result<()> {
        if self.compression == Compression::None {
            return Ok(());
        }
        let format = format!("{} with ovf:compression {:?}", self.href, self.compression.name());
        Err(Error::not_supported(object, format, "its bytes can be read, but must be uncompressed elsewhere"))
    }
}

/// How a file is compressed in a package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// As a whole, with gzip.
    Gzip,
    /// In another way, as written.
    Other(String),
}

impl Compression {
    fn from_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Self::None,
            "gzip" => Self::Gzip,
            _ => Self::Other(name.to_owned()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::None => "identity",
            Self::Gzip => "gzip",
            Self::Other(name) => name,
        }
    }
}

/// A disk of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VirtualDisk {
    /// What the hardware calls it.
    pub id: String,
    /// How large it is.
    pub capacity: Capacity,
    /// Id of the file that holds it; a disk without one is empty.
    pub file_ref: Option<String>,
    /// The format, as a URI; [`STREAM_OPTIMIZED`] is VMware's.
    pub format: Option<String>,
    /// Bytes in use, as an estimate.
    pub populated_size: Option<u64>,
    /// Id of the disk that this one holds the changes of.
    pub parent_ref: Option<String>,
}

/// The capacity of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capacity {
    /// In bytes.
    Bytes(u64),
    /// Asked of whoever deploys the package: the name of the property, and the bytes of its unit.
    Property {
        /// The property's key.
        name: String,
        /// What its value is to be multiplied with.
        unit: u64,
    },
}

/// A machine of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VirtualSystem {
    /// Its `ovf:id`.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// The operating system by CIM's number.
    pub os_id: Option<u16>,
    /// The operating system in VMware's words (`ubuntu64Guest`).
    pub vmware_os: Option<String>,
    /// The hardware's family: `vmx-19`, …
    pub hardware: Option<String>,
    /// The hardware.
    pub items: Vec<HardwareItem>,
}

/// `ovf:format` of `streamOptimized` disks.
pub const STREAM_OPTIMIZED: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// Largest descriptor that is read.
pub(super) const MAX_DESCRIPTOR_BYTES: u64 = xml::MAX_XML_BYTES as u64;
