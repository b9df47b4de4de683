//! As much of tar as an OVA needs.
//!
//! Own code instead of the crate `tar`: an OVA is a flat list of plain files, so links, devices and sparse members
//! are to be refused, not honoured; the same headers must be read forward from a pipe and at random from a
//! positioned source, which that crate's reader cannot do; and names, sizes and extension records must be bounded
//! before they are read. What is left is one header of 512 bytes.
//!
//! Understood are V7, ustar and GNU headers, sizes in octal and in base 256, GNU long names, and `path` and `size` of
//! pax records.

mod header;
mod members;
mod pax;

pub(super) use self::{
    header::{NewMember, encode},
    members::{Member, Walker},
};

/// Everything in a tar is a multiple of this.
pub(super) const BLOCK: u64 = 512;

/// Archives are filled up to a multiple of this, as tar programs do since there were tapes.
pub(super) const RECORD: u64 = 20 * BLOCK;

/// How the size of a file of 8 GiB and more is written: ustar, which the standard names, has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LargeFiles {
    /// As GNU tar does, in base 256, in the headers of such files only. The default: VMware's own `ova-compose`
    /// does so, says that vSphere's importers take it, and that they do not take pax (vmware/open-vmdk#65).
    #[default]
    Gnu,
    /// As a pax record, which POSIX wants.
    Pax,
    /// Not at all: a file of 8 GiB is an error, and every archive is plain ustar.
    Refuse,
}
