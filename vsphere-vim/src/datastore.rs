//! Files in datastores: list, read, write, copy, move, delete; through the server or through a host.
//!
//! ```no_run
//! # async fn example(vim: vsphere_vim::Vim) -> vsphere_vim::Result<()> {
//! use vsphere_vim::{datastore::Search, transport::stream::Upload};
//!
//! let store = vim.find_datastore("ds1", None).await?;
//! for file in store.search(&store.path("web")?, &Search::new().matching("*.vmx")).await? {
//!     println!("{} {:?} bytes", file.path, file.size);
//! }
//! let mut vmx = store.read(&store.path("web/web.vmx")?).open().await?;
//! while let Some(piece) = vmx.try_next().await? {
//!     // …
//! #   drop(piece);
//! }
//! store.write(&store.path("backup/marker")?, Upload::from_bytes("done")).await?;
//! # Ok(())
//! # }
//! ```
//! Bytes travel over `/folder`, an HTTPS service of vCenter Server and of every ESXi host. Reads go on from where they
//! were when a connection breaks or the session ends. A name is used as it is written: a file that is not there is an
//! error, never an occasion to try another name.

mod browse;
mod manage;
mod path;
mod read;
mod route;
mod vss;
mod write;

use vsphere_vim_types::{ManagedObjectReference, MoRef, PropertyPath, mo};

pub use self::{
    browse::{DatastoreFile, FileDetails, Search},
    manage::Existing,
    path::DatastorePath,
    read::{FileReader, FileStat, ReadFile},
    route::{FileRoute, HostRoute},
    vss::VssManifest,
};
use crate::{
    client::Vim,
    error::{Call, Error, Result},
    property::single::{property_error, required},
};

/// One datastore, as one datacenter sees it.
///
/// Cheap to clone. Holds what it learned when it was opened; open it again after an administrator renamed things.
#[derive(Clone, Debug)]
pub struct Datastore {
    vim: Vim,
    moref: MoRef<mo::Datastore>,
    name: String,
    datacenter: MoRef<mo::Datacenter>,
    datacenter_path: String,
    route: FileRoute,
}

impl Vim {
    /// Opens a datastore by its reference.
    ///
    /// # Errors
    /// [`Error::Fault`] with `ManagedObjectNotFound` when it is gone, [`Error::Property`] without the right to see it.
    ///
    /// # Privileges
    /// `System.Read` on the datastore and the folders above it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open_datastore(&self, datastore: &MoRef<mo::Datastore>) -> Result<Datastore> {
        let name: String = self.get(datastore, PropertyPath::new("name")).await?;
        let (datacenter, datacenter_path) = datacenter_of(self, datastore).await?;
        let (vim, moref) = (self.clone(), datastore.clone());
        Ok(Datastore { vim, moref, name, datacenter, datacenter_path, route: FileRoute::default() })
    }

    /// Opens a datastore by its name, such as the first part of a [`DatastorePath`].
    ///
    /// Names are unique within a datacenter only: state it where several have a datastore of that name.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidInput`] when several datastores have that name, and those of
    /// [`Vim::open_datastore`].
    ///
    /// # Privileges
    /// As [`Vim::open_datastore`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn find_datastore(&self, name: &str, datacenter: Option<&MoRef<mo::Datacenter>>) -> Result<Datastore> {
        let root = datacenter.map_or_else(|| self.root().erase(), MoRef::erase);
        let names = (PropertyPath::<mo::Datastore, String>::new("name"),);
        let rows = self.properties::<mo::Datastore>().under(root).by_view().select(names).collect().await?;
        let mut found = rows.into_iter().filter(|row| row.values.0.as_present().is_some_and(|own| own == name));
        match (found.next(), found.next()) {
            (None, _) => Err(Error::not_found(format!("datastore {name}"))),
            (Some(row), None) => self.open_datastore(&row.object).await,
            (Some(_), Some(_)) => {
                let why = format!("several datastores are named {name}; state the datacenter");
                Err(Error::invalid_input("datastore", why))
            }
        }
    }
}

impl Datastore {
    /// Its reference.
    pub fn moref(&self) -> &MoRef<mo::Datastore> {
        &self.moref
    }

    /// Its name, as it stands in paths.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The datacenter that it is in.
    pub fn datacenter(&self) -> &MoRef<mo::Datacenter> {
        &self.datacenter
    }

    /// The way to the datacenter from the root: `dc1`, `folder/dc1`; `ha-datacenter` on a host.
    #[doc(alias = "dcPath")]
    pub fn datacenter_path(&self) -> &str {
        &self.datacenter_path
    }

    /// Which way bytes take. [`FileRoute::Server`] unless stated.
    #[must_use]
    pub fn route(self, route: FileRoute) -> Self {
        Self { route, ..self }
    }

    /// A path in this datastore.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a path that leaves the datastore.
    pub fn path(&self, path: &str) -> Result<DatastorePath> {
        DatastorePath::new(&self.name, path)
    }

    /// Refuses a path of another datastore before it is looked up in this one.
    fn own(&self, path: &DatastorePath) -> Result<()> {
        if path.datastore() == self.name {
            return Ok(());
        }
        Err(Error::invalid_input("path", format!("{path} does not lie in datastore {}", self.name)))
    }
}

/// The datacenter above an object, and the names on the way to it from the root.
async fn datacenter_of(vim: &Vim, datastore: &MoRef<mo::Datastore>) -> Result<(MoRef<mo::Datacenter>, String)> {
    let mut above = vim.get_optional(datastore, mo::Datastore::PARENT).await?.map(|parent| parent.erase());
    let mut datacenter = None;
    let mut names = Vec::new();
    for _ in 0..MAX_DEPTH {
        let Some(object) = above.take() else { break };
        let (name, parent) = name_and_parent(vim, &object).await?;
        if object.type_name() == "Datacenter" {
            datacenter = Some(object.cast());
        }
        // The root folder's own name is not part of any path.
        if datacenter.is_some() && parent.is_some() {
            names.push(name);
        }
        above = parent;
    }
    if above.is_some() {
        let why = format!("more than {MAX_DEPTH} objects above it");
        return Err(Error::protocol(Call::on("RetrievePropertiesEx", datastore.as_untyped()), why));
    }
    let datacenter = datacenter.ok_or_else(|| Error::not_found(format!("the datacenter of {datastore}")))?;
    names.reverse();
    Ok((datacenter, names.join("/")))
}

/// Name and parent of a folder-like object, asked by its own type, as the property collector wants it.
async fn name_and_parent(
    vim: &Vim,
    object: &ManagedObjectReference,
) -> Result<(String, Option<ManagedObjectReference>)> {
    macro_rules! read {
        ($kind:ty) => {{
            let object: MoRef<$kind> = object.cast();
            let paths = (
                PropertyPath::<$kind, String>::new("name"),
                PropertyPath::<$kind, ManagedObjectReference>::new("parent"),
            );
            let (name, parent) = vim.read(&object, paths).await?;
            // A parent that may not be read would make the path shorter, and another one.
            let parent = parent.optional().map_err(|fault| property_error(&object, "parent", *fault))?;
            (required(&object, "name", name)?, parent)
        }};
    }
    Ok(match object.type_name() {
        "Folder" => read!(mo::Folder),
        "Datacenter" => read!(mo::Datacenter),
        "StoragePod" => read!(mo::StoragePod),
        _ => read!(mo::ManagedEntity),
    })
}

/// No inventory is deeper; a server that says otherwise has a loop.
const MAX_DEPTH: usize = 64;
