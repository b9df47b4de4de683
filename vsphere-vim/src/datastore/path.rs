//! `[datastore] folder/file`: the way vSphere names files.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// The path of a file or folder in a datastore: `[ds1] web/web.vmdk`.
///
/// ```
/// use vsphere_vim::datastore::DatastorePath;
///
/// let path: DatastorePath = "[ds1] web/web.vmdk".parse()?;
/// assert_eq!((path.datastore(), path.path(), path.file_name()), ("ds1", "web/web.vmdk", "web.vmdk"));
/// assert_eq!(path.parent().unwrap().join("web-flat.vmdk")?.to_string(), "[ds1] web/web-flat.vmdk");
/// # Ok::<(), vsphere_vim::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatastorePath {
    datastore: String,
    /// Without a slash at either end; empty for the datastore itself.
    path: String,
}

impl DatastorePath {
    /// Makes a path of its parts. Slashes at the ends and doubled ones are dropped.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the datastore's name is empty or has a line break or NUL, and when the path
    /// holds `.`, `..` or such characters.
    pub fn new(datastore: &str, path: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid_input("datastore path", why);
        if datastore.is_empty() || datastore.chars().any(char::is_control) {
            return Err(invalid("the datastore's name is empty or has control characters"));
        }
        let mut clean = String::with_capacity(path.len());
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if matches!(part, "." | "..") {
                return Err(invalid("a part of the path is `.` or `..`"));
            }
            if part.chars().any(char::is_control) {
                return Err(invalid("the path has control characters"));
            }
            if !clean.is_empty() {
                clean.push('/');
            }
            clean.push_str(part);
        }
        Ok(Self { datastore: datastore.to_owned(), path: clean })
    }

    /// The datastore's name.
    pub fn datastore(&self) -> &str {
        &self.datastore
    }

    /// The path within the datastore; empty for the datastore itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The last part; empty for the datastore itself.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that it lies in; `None` for the datastore itself.
    pub fn parent(&self) -> Option<Self> {
        if self.path.is_empty() {
            return None;
        }
        let path = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Some(Self { datastore: self.datastore.clone(), path: path.to_owned() })
    }

    /// A path below this one.
    ///
    /// # Errors
    /// As [`DatastorePath::new`].
    pub fn join(&self, below: &str) -> Result<Self> {
        Self::new(&self.datastore, &format!("{}/{below}", self.path))
    }
}

impl FromStr for DatastorePath {
    type Err = Error;

    /// Reads `[datastore] path`; the blank is not required, and a name may hold brackets of its own.
    fn from_str(text: &str) -> Result<Self> {
        let rest = text.trim_start().strip_prefix('[');
        let rest = rest.ok_or_else(|| Error::invalid_input("datastore path", "it does not begin with `[`"))?;
        let end = rest.find("] ").or_else(|| rest.ends_with(']').then(|| rest.len() - 1)).or_else(|| rest.find(']'));
        let end = end.ok_or_else(|| Error::invalid_input("datastore path", "there is no `]`"))?;
        // One blank belongs to the notation, any other to the name.
        let path = &rest[end + 1..];
        Self::new(&rest[..end], path.strip_prefix(' ').unwrap_or(path))
    }
}

impl fmt::Display for DatastorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "[{}]", self.datastore)
        } else {
            write!(f, "[{}] {}", self.datastore, self.path)
        }
    }
}

impl fmt::Debug for DatastorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatastorePath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatastorePath> {
        text.parse()
    }

    #[test]
    fn parses_what_servers_write() {
        for (text, datastore, path) in [
            ("[ds1] web/web.vmdk", "ds1", "web/web.vmdk"),
            ("[ds1]", "ds1", ""),
            ("[ds1] ", "ds1", ""),
            ("[ds1] /web/", "ds1", "web"),
            ("[ds1]  led by a blank", "ds1", " led by a blank"),
            ("[ds1]web/a b.vmdk", "ds1", "web/a b.vmdk"),
            ("[SAN [fast]] web/x[1].vmdk", "SAN [fast]", "web/x[1].vmdk"),
            ("[ds%2f1] Ä/ö.vmx", "ds%2f1", "Ä/ö.vmx"),
        ] {
            let parsed = parse(text).unwrap();
            assert_eq!((parsed.datastore(), parsed.path()), (datastore, path), "{text}");
            assert_eq!(parse(&parsed.to_string()).unwrap(), parsed, "{text}");
        }
    }

    #[test]
    fn refuses_what_leaves_the_datastore_or_is_none() {
        for text in ["web/web.vmdk", "[] a", "[ds1", "[ds1] ../x", "[ds1] a/./b", "[ds1] a\nb", ""] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse("[ds1] web").unwrap().join("../../etc/passwd").is_err());
    }

    #[test]
    fn parents_end_at_the_datastore() {
        let file = parse("[ds1] a/b/c").unwrap();
        let folder = file.parent().unwrap();
        assert_eq!(folder.to_string(), "[ds1] a/b");
        assert_eq!(folder.join("c").unwrap(), file);
        let root = folder.parent().and_then(|folder| folder.parent()).unwrap();
        assert_eq!((root.to_string().as_str(), root.file_name(), root.parent()), ("[ds1]", "", None));
    }
}
