//! Writing a file.

use super::{Datastore, DatastorePath, route::refusal};
use crate::{
    error::Result,
    transport::stream::{StreamVerb, Upload},
};

impl Datastore {
    /// Writes a file; one of that name is replaced, missing folders may be made.
    ///
    /// The source can be read only once, so nothing is repeated: the session is looked after before, and a transfer
    /// that breaks leaves a part of the file. With a route of two ways only the first is taken.
    ///
    /// # Errors
    /// [`Error::Transport`](crate::Error::Transport) when the connection breaks, the server refuses or the source
    /// fails; [`Error::InvalidInput`](crate::Error::InvalidInput) for a path of another datastore.
    ///
    /// # Privileges
    /// `Datastore.FileManagement`.
    ///
    /// # Cancel safety
    /// A dropped future leaves a part of the file; [`delete`](Self::delete) it.
    pub async fn write(&self, path: &DatastorePath, upload: Upload) -> Result<()> {
        self.own(path)?;
        self.vim.touch().await?;
        let response = self.send(path, upload).await?;
        match response.status {
            200..=299 => Ok(()),
            _ => Err(refusal(StreamVerb::Put, path, response).await),
        }
    }
}
