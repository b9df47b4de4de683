//! Chains put together from open disks, and work on a whole open disk.

use crate::{Progress, create::DiskKind, disk::Disk, error::Result};

impl Disk {
    /// Whether [`attach`](Self::attach) would work; the error says why not.
    ///
    /// # Errors
    /// [`Error::NotOffered`](crate::Error::NotOffered) for a child that is not a file of this machine;
    /// [`Error::File`](crate::Error::File) when parent and child do not belong together.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_IsAttachPossible")]
    pub async fn is_attach_possible(parent: &Self, child: &Self) -> Result<()> {
        child.handle().is_attach_possible(parent.handle(), parent.path()).await
    }

    /// Puts `parent` under `child`, a file of this machine that was opened as a
    /// [single link](crate::OpenOptions::single_link): what the child does not hold is then read from the parent. That
    /// is how a disk on a datastore is read together with changes kept here.
    ///
    /// No file is changed; for that there is `vmdk::repair::Relink`. The parent stays open as long as the child is, also
    /// when it is closed before; it must not be written meanwhile.
    ///
    /// # Errors
    /// As [`is_attach_possible`](Self::is_attach_possible).
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_Attach")]
    pub async fn attach(parent: &Self, child: &Self) -> Result<()> {
        child.handle().attach(parent.shared_handle(), parent.path()).await
    }

    /// Makes a child of this disk at `path`: a file of this machine that holds only what differs. The child is not
    /// opened. As soon as this disk is written, the child does not fit any more, and says so when it is opened.
    ///
    /// # Errors
    /// [`Error::NotOffered`](crate::Error::NotOffered) on remote transports and for kinds that are not sparse; else those of the transport.
    ///
    /// # Cancel safety
    /// A dropped future may have made the child.
    #[doc(alias = "VixDiskLib_CreateChild")]
    pub async fn create_child(&self, path: &str, kind: DiskKind, progress: Option<Progress>) -> Result<()> {
        self.handle().create_child(path, kind, progress).await
    }

    /// Gives back the space of blocks that hold zeros. Over `file`, reads and writes that begin meanwhile wait for it.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::NotOffered`](crate::Error::NotOffered); else those of the transport.
    ///
    /// # Cancel safety
    /// A dropped future leaves the disk as it reads; part of the work may be done.
    #[doc(alias = "VixDiskLib_Shrink")]
    pub async fn shrink(&self, progress: Option<Progress>) -> Result<()> {
        self.check_writable("shrink")?;
        self.handle().shrink(progress).await
    }

    /// Brings the blocks of a sparse disk into the order of the disk.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::NotOffered`](crate::Error::NotOffered); else those of the transport.
    ///
    /// # Cancel safety
    /// A dropped future leaves the disk as it reads; part of the work may be done.
    #[doc(alias = "VixDiskLib_Defragment")]
    pub async fn defragment(&self, progress: Option<Progress>) -> Result<()> {
        self.check_writable("defragment")?;
        self.handle().defragment(progress).await
    }
}
