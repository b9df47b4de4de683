//! `[ds1] folder/file` as the server understands it.

use crate::Fault;
use crate::world::World;

/// A path in the datastore that cannot leave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath {
    datastore: String,
    within: String,
}

impl FilePath {
    /// A path of the simulator's datastore; `None` for one that would leave it.
    pub(crate) fn new(world: &World, within: &str) -> Option<Self> {
        let parts: Vec<&str> = within.split('/').filter(|part| !part.is_empty()).collect();
        let sane = |part: &&str| !matches!(*part, "." | "..") && !part.chars().any(char::is_control);
        parts.iter().all(sane).then(|| Self { datastore: world.datastore.name().into(), within: parts.join("/") })
    }

    /// Reads `[ds1] folder/file`.
    pub(crate) fn parse(world: &World, text: &str) -> Result<Self, Fault> {
        let malformed = || {
            Fault::new("InvalidDatastorePath", &format!("Invalid datastore path '{text}'."))
                .field("datastorePath", text)
        };
        let (name, within) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(malformed)?;
        if name != world.datastore.name() {
            return Err(Fault::new("InvalidDatastore", &format!("Invalid datastore '{name}'.")).field("name", name));
        }
        Self::new(world, within.trim_start()).ok_or_else(malformed)
    }

    /// The path without the datastore, without slashes at its ends.
    pub(crate) fn within(&self) -> &str {
        &self.within
    }

    /// The folder that it lies in; the datastore is in itself.
    pub(crate) fn parent(&self) -> Self {
        let within = self.within.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self { datastore: self.datastore.clone(), within: within.into() }
    }

    /// A path right below.
    pub(crate) fn child(&self, name: &str) -> Self {
        let within = if self.within.is_empty() { name.into() } else { format!("{}/{name}", self.within) };
        Self { datastore: self.datastore.clone(), within }
    }
}

impl std::fmt::Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.datastore, self.within)
    }
}
