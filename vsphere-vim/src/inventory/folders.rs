//! Folders, and the names and places of what is in them.

use vsphere_vim_types::{Managed, ManagedObjectReference, MoRef, methods, mo};

use crate::{client::Vim, error::Result};

impl Vim {
    /// Creates a folder in a folder.
    ///
    /// # Errors
    /// `DuplicateName`, `InvalidName`.
    ///
    /// # Privileges
    /// `Folder.Create`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have created it.
    #[doc(alias = "CreateFolder")]
    pub async fn create_folder(&self, parent: &MoRef<mo::Folder>, name: &str) -> Result<MoRef<mo::Folder>> {
        self.invoke(parent, methods::CreateFolder { name: name.to_owned(), ..Default::default() }).await
    }

    /// Moves objects into a folder and waits until that is done.
    ///
    /// # Errors
    /// `DuplicateName`, `InvalidFolder` for a folder within itself or of another kind, `InvalidState`.
    ///
    /// # Privileges
    /// Depends on the objects; `VirtualMachine.Inventory.Move` for machines, `Folder.Move` for folders.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the objects are moved all the same.
    #[doc(alias = "MoveIntoFolder_Task")]
    pub async fn move_into_folder(
        &self,
        folder: &MoRef<mo::Folder>,
        objects: impl IntoIterator<Item = ManagedObjectReference>,
    ) -> Result<()> {
        let list = objects.into_iter().map(|object| object.cast()).collect();
        let task = self.invoke(folder, methods::MoveIntoFolder_Task { list, ..Default::default() }).await?;
        self.wait(&task).await.map(drop)
    }

    /// Gives an object of the inventory another name and waits until that is done. The files of a machine keep theirs.
    ///
    /// # Errors
    /// `DuplicateName`, `InvalidName`.
    ///
    /// # Privileges
    /// Depends on the object; `VirtualMachine.Config.Rename` for machines.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the object is renamed all the same.
    #[doc(alias = "Rename_Task")]
    pub async fn rename<T: Managed>(&self, object: &MoRef<T>, name: &str) -> Result<()> {
        let args = methods::Rename_Task { new_name: name.to_owned(), ..Default::default() };
        let task = self.invoke(&object.cast::<mo::ManagedEntity>(), args).await?;
        self.wait(&task).await.map(drop)
    }
}
