//! The classic layer: whole files and whole disks, one after the other on a connection of its own,
//! and disks open for synchronous random access.

mod disk;
mod file;
mod files;
mod link;
mod options;
mod random;

pub use disk::{DiskReader, DiskSpec, DiskWriter, Provisioning};
pub use file::{FileReader, FileWriter};
pub use files::{Ancestors, NfcFiles};
pub use options::{ClassicQuirks, FilesOptions};
pub use random::SynchronousDisk;
