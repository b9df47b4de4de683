//! Copying, moving, deleting files and making folders: work of the server, no bytes pass here.

use vsphere_vim_types::{
    MoRef,
    methods::{CopyDatastoreFile_Task, DeleteDatastoreFile_Task, MakeDirectory, MoveDatastoreFile_Task},
    mo,
};

use super::{Datastore, DatastorePath};
use crate::error::Result;

/// What happens to a file that is in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The operation fails with `FileAlreadyExists`.
    #[default]
    Keep,
    /// It is replaced.
    Replace,
}

impl Datastore {
    /// Copies a file, also to another datastore of the same or another datacenter.
    ///
    /// Files only: for a virtual disk the server copies the descriptor and leaves its extents behind.
    ///
    /// # Errors
    /// [`Error::TaskFailed`](crate::Error::TaskFailed) with `FileNotFound`, `FileAlreadyExists`, `FileLocked`,
    /// `InvalidDatastore`.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on both datastores.
    ///
    /// # Cancel safety
    /// A dropped future leaves the copying to the server.
    #[doc(alias = "CopyDatastoreFile_Task")]
    pub async fn copy(&self, from: &DatastorePath, to: (&Self, &DatastorePath), existing: Existing) -> Result<()> {
        self.own(from)?;
        to.0.own(to.1)?;
        let args = CopyDatastoreFile_Task {
            source_name: from.to_string(),
            source_datacenter: Some(self.datacenter.clone()),
            destination_name: to.1.to_string(),
            destination_datacenter: Some(to.0.datacenter.clone()),
            force: Some(existing == Existing::Replace),
            ..Default::default()
        };
        let task = self.vim.invoke(&self.file_manager()?, args).await?;
        self.vim.wait(&task).await.map(drop)
    }

    /// Moves or renames a file or folder.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on both datastores.
    ///
    /// # Cancel safety
    /// A dropped future leaves the moving to the server.
    #[doc(alias = "MoveDatastoreFile_Task")]
    pub async fn rename(&self, from: &DatastorePath, to: (&Self, &DatastorePath), existing: Existing) -> Result<()> {
        self.own(from)?;
        to.0.own(to.1)?;
        let args = MoveDatastoreFile_Task {
            source_name: from.to_string(),
            source_datacenter: Some(self.datacenter.clone()),
            destination_name: to.1.to_string(),
            destination_datacenter: Some(to.0.datacenter.clone()),
            force: Some(existing == Existing::Replace),
            ..Default::default()
        };
        let task = self.vim.invoke(&self.file_manager()?, args).await?;
        self.vim.wait(&task).await.map(drop)
    }

    /// Deletes a file, or a folder with all that is in it.
    ///
    /// # Errors
    /// [`Error::TaskFailed`](crate::Error::TaskFailed) with `FileNotFound` or `FileLocked`;
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) for the datastore itself.
    ///
    /// # Privileges
    /// `Datastore.FileManagement`.
    ///
    /// # Cancel safety
    /// A dropped future leaves the deleting to the server.
    #[doc(alias = "DeleteDatastoreFile_Task")]
    pub async fn delete(&self, path: &DatastorePath) -> Result<()> {
        self.own(path)?;
        if path.path().is_empty() {
            let why = "this is the datastore itself; name what is to be deleted in it";
            return Err(crate::Error::invalid_input("path", why));
        }
        let args = DeleteDatastoreFile_Task {
            name: path.to_string(),
            datacenter: Some(self.datacenter.clone()),
            ..Default::default()
        };
        let task = self.vim.invoke(&self.file_manager()?, args).await?;
        self.vim.wait(&task).await.map(drop)
    }

    /// Makes a folder, and those above it with `parents`.
    ///
    /// # Errors
    /// [`Error::Fault`](crate::Error::Fault) with `FileAlreadyExists`, `FileNotFound` (no parent), `InvalidDatastore`.
    /// vSAN and vVols have no folders at their top level but those of virtual machines: `CannotCreateFile` there.
    ///
    /// # Privileges
    /// `Datastore.FileManagement`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have made the folder.
    #[doc(alias = "MakeDirectory")]
    pub async fn make_folder(&self, path: &DatastorePath, parents: bool) -> Result<()> {
        self.own(path)?;
        let args = MakeDirectory {
            name: path.to_string(),
            datacenter: Some(self.datacenter.clone()),
            create_parent_directories: Some(parents),
            ..Default::default()
        };
        self.vim.invoke(&self.file_manager()?, args).await
    }

    fn file_manager(&self) -> Result<MoRef<mo::FileManager>> {
        self.vim.manager("FileManager", self.vim.content().file_manager.as_ref())
    }
}
