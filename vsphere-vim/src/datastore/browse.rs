//! Which files there are.

use vsphere_vim_types::{
    DateTime, FileInfo, FileQuery, FileQueryFlags, FolderFileInfo, FolderFileQuery, HostDatastoreBrowserSearchResults,
    HostDatastoreBrowserSearchSpec, MoRef, Poly, PropertyPath, VmDiskFileInfo, VmDiskFileQuery, VmDiskFileQueryFlags,
    methods::{SearchDatastore_Task, SearchDatastoreSubFolders_Task},
    mo,
};

use super::{Datastore, DatastorePath};
use crate::error::{Call, Error, Result};

/// What to look for, and how much to learn about it. By default: all files and folders, size and modification.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Search {
    patterns: Vec<String>,
    ignore_case: bool,
    recursive: bool,
    disks: bool,
    folders_only: bool,
    owner: bool,
}

impl Search {
    /// Everything in the folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only names that match `pattern`, with `*` and `?`; several patterns are alternatives.
    #[doc(alias = "matchPattern")]
    pub fn matching(mut self, pattern: impl Into<String>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Patterns match whatever the case.
    #[doc(alias = "searchCaseInsensitive")]
    pub fn ignore_case(self) -> Self {
        Self { ignore_case: true, ..self }
    }

    /// Also in the folders below.
    #[doc(alias = "SearchDatastoreSubFolders_Task")]
    pub fn recursive(self) -> Self {
        Self { recursive: true, ..self }
    }

    /// Only virtual disks, one entry a disk (not its extents), with [`FileDetails::Disk`].
    #[doc(alias = "VmDiskFileQuery")]
    pub fn disks(self) -> Self {
        Self { disks: true, ..self }
    }

    /// Only folders.
    #[doc(alias = "FolderFileQuery")]
    pub fn folders(self) -> Self {
        Self { folders_only: true, ..self }
    }

    /// With the files' owners.
    pub fn owner(self) -> Self {
        Self { owner: true, ..self }
    }

    fn to_wire(&self) -> HostDatastoreBrowserSearchSpec {
        let mut query: Vec<Poly<FileQuery>> = Vec::new();
        if self.disks {
            let details = VmDiskFileQueryFlags {
                disk_type: true,
                capacity_kb: true,
                hardware_version: true,
                controller_type: Some(true),
                disk_extents: Some(true),
                thin: Some(true),
                ..Default::default()
            };
            query.push(Poly::new(VmDiskFileQuery { details: Some(details), ..Default::default() }));
        }
        if self.folders_only {
            query.push(Poly::new(FolderFileQuery::default()));
        }
        HostDatastoreBrowserSearchSpec {
            query,
            details: Some(FileQueryFlags {
                file_type: true,
                file_size: true,
                modification: true,
                file_owner: self.owner,
                ..Default::default()
            }),
            search_case_insensitive: Some(self.ignore_case),
            // The same as none, and what servers that insist on one want (vcsim).
            match_pattern: if self.patterns.is_empty() { vec!["*".to_owned()] } else { self.patterns.clone() },
            sort_folders_first: Some(true),
            ..Default::default()
        }
    }
}

/// A file or folder that a search found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[doc(alias = "FileInfo")]
pub struct DatastoreFile {
    /// Where it is.
    pub path: DatastorePath,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// When it was changed, by the server's clock.
    pub modified: Option<DateTime>,
    /// Its owner, if asked for.
    pub owner: Option<String>,
    /// What it is.
    pub details: FileDetails,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FileDetails {
    /// A folder.
    Folder,
    /// A virtual disk.
    #[doc(alias = "VmDiskFileInfo")]
    Disk {
        /// Size of the disk in bytes, where it was told.
        capacity: Option<u64>,
        /// The type of its backing, such as `VirtualDiskFlatVer2BackingInfo`.
        backing: Option<String>,
        /// Whether it takes space only where it was written.
        thin: Option<bool>,
        /// The files that hold its bytes.
        extents: Vec<String>,
    },
    /// Any other file, by the server's name for its kind: `FileInfo`, `VmConfigFileInfo`, `VmLogFileInfo`, …
    Other(String),
}

impl Datastore {
    /// Lists a folder.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    ///
    /// # Privileges
    /// `Datastore.Browse`.
    ///
    /// # Cancel safety
    /// Cancel safe: a search goes on on the server for its moment.
    pub async fn list(&self, folder: &DatastorePath) -> Result<Vec<DatastoreFile>> {
        self.search(folder, &Search::new()).await
    }

    /// Searches a folder.
    ///
    /// # Errors
    /// [`Error::TaskFailed`] or [`Error::Fault`] with `FileNotFound` when there is no such folder, `InvalidDatastore`;
    /// [`Error::InvalidInput`] for a path of another datastore.
    ///
    /// # Privileges
    /// `Datastore.Browse`.
    ///
    /// # Cancel safety
    /// Cancel safe: a search goes on on the server for its moment.
    #[doc(alias = "SearchDatastore_Task")]
    pub async fn search(&self, folder: &DatastorePath, search: &Search) -> Result<Vec<DatastoreFile>> {
        self.own(folder)?;
        let browser: MoRef<mo::HostDatastoreBrowser> = self.vim.get(&self.moref, PropertyPath::new("browser")).await?;
        let (datastore_path, search_spec) = (folder.to_string(), Some(search.to_wire()));
        let results: Vec<HostDatastoreBrowserSearchResults> = if search.recursive {
            let args = SearchDatastoreSubFolders_Task { datastore_path, search_spec, ..Default::default() };
            let Some(task) = self.vim.invoke(&browser, args).await? else {
                let call = Call::on("SearchDatastoreSubFolders_Task", browser.as_untyped());
                return Err(Error::protocol(call, "no task in the answer"));
            };
            let done = self.vim.wait(&task).await?;
            if done.raw_result().is_none() { Vec::new() } else { done.result()? }
        } else {
            let args = SearchDatastore_Task { datastore_path, search_spec, ..Default::default() };
            let task = self.vim.invoke(&browser, args).await?;
            vec![self.vim.wait(&task).await?.result()?]
        };
        let mut files = Vec::new();
        for result in results {
            // Newer servers put the id of an object store's folder here; the asked one is as good then.
            let within = result.folder_path.as_deref().and_then(|path| path.parse().ok());
            let within: DatastorePath = within.unwrap_or_else(|| folder.clone());
            for file in result.file {
                // A name that leaves its folder is not a name; it is left out rather than followed.
                match within.join(&file.path) {
                    Ok(path) => files.push(DatastoreFile::from_wire(path, &file)),
                    Err(error) => tracing::warn!(%error, folder = %within, "a file with an impossible name"),
                }
            }
        }
        Ok(files)
    }
}

impl DatastoreFile {
    fn from_wire(path: DatastorePath, file: &Poly<FileInfo>) -> Self {
        let details = if file.downcast_ref::<FolderFileInfo>().is_some() {
            FileDetails::Folder
        } else if let Some(disk) = file.downcast_ref::<VmDiskFileInfo>() {
            FileDetails::Disk {
                capacity: disk.capacity_kb.and_then(|kib| u64::try_from(kib).ok()?.checked_mul(1024)),
                backing: disk.disk_type.clone(),
                thin: disk.thin,
                extents: disk.disk_extents.clone(),
            }
        } else {
            FileDetails::Other(file.type_name().to_owned())
        };
        Self {
            path,
            size: file.file_size.and_then(|size| u64::try_from(size).ok()),
            modified: file.modification,
            owner: file.owner.clone(),
            details,
        }
    }

    /// True for a folder.
    pub fn is_folder(&self) -> bool {
        self.details == FileDetails::Folder
    }
}
