//! Paths and symbolic links, confined to the root of a file system.

use crate::{
    error::{Error, Result},
    fs::{FileKind, FileName, FileSystem, NodeId},
};

/// What to do with a link that is the last of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    Follow,
    Keep,
}

/// Walks paths.
pub(crate) struct Resolver<'a> {
    files: &'a dyn FileSystem,
    /// Where the guest mounts the volume: the drive letters among them stand for its root.
    mount_points: &'a [FileName],
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(files: &'a dyn FileSystem, mount_points: &'a [FileName]) -> Self {
        Self { files, mount_points }
    }

    /// Finds what a path names. `..` leads back the way that was come, and stays in the root.
    pub(crate) fn resolve(&self, path: &[u8], last: Last) -> Result<NodeId> {
        let shown = || path.escape_ascii().to_string();
        let mut way = vec![self.files.root()];
        // The names to walk, the next one last.
        let mut names: Vec<Vec<u8>> = split(path);
        let mut links = 0;
        while let Some(name) = names.pop() {
            let here = *way.last().unwrap_or(&self.files.root());
            match &*name {
                b"." => {
                    self.enter(here, &shown)?;
                    continue;
                }
                b".." => {
                    self.enter(here, &shown)?;
                    if way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let name = FileName::new(name);
            self.enter(here, &shown)?;
            let found = self.files.lookup(here, &name)?.ok_or_else(|| Error::NotFound(shown()))?;
            let follow = last == Last::Follow || !names.is_empty();
            if !follow || self.files.metadata(found)?.kind != FileKind::Symlink {
                way.push(found);
                continue;
            }
            links += 1;
            if links > MAX_LINKS || way.len() + names.len() > MAX_NAMES {
                return Err(Error::TooManyLinks(shown()));
            }
            let target = self.files.read_link(found)?;
            let (absolute, rest) = self
                .target(target.as_bytes())
                .ok_or_else(|| Error::NotFound(format!("{} on this volume: it is a link to {target}", shown())))?;
            if absolute {
                way.truncate(1);
            }
            names.extend(split(rest));
        }
        Ok(*way.last().unwrap_or(&self.files.root()))
    }

    /// Where a link leads: whether from the root on, and by which names. `None` for another drive.
    fn target<'t>(&self, target: &'t [u8]) -> Option<(bool, &'t [u8])> {
        match target {
            [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() && matches!(rest, [] | [b'/', ..]) => {
                let is_this = |point: &FileName| {
                    let point = point.as_bytes();
                    point.first().is_some_and(|first| first.eq_ignore_ascii_case(letter))
                        && matches!(point.get(1..), Some(b":" | b":/" | b":\\"))
                };
                // Of a file system of Linux it is a name like any other.
                let is_windows = matches!(self.files.info().kind, "ntfs" | "vfat" | "exfat");
                match (is_windows, self.mount_points.iter().any(is_this)) {
                    (false, _) => Some((false, target)),
                    (true, true) => Some((true, rest)),
                    (true, false) => None,
                }
            }
            [b'/', ..] => Some((true, target)),
            _ => Some((false, target)),
        }
    }

    fn enter(&self, node: NodeId, shown: &dyn Fn() -> String) -> Result<()> {
        match self.files.metadata(node)?.kind {
            FileKind::Directory => Ok(()),
            _ => Err(Error::NotADirectory(shown())),
        }
    }
}

/// The names of a path, the first one last. After a slash at the end comes `.`, which only directories have.
fn split(path: &[u8]) -> Vec<Vec<u8>> {
    let ends = path.ends_with(b"/").then(|| b".".to_vec());
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec);
    let mut names: Vec<_> = names.chain(ends).collect();
    names.reverse();
    names
}

/// Links on one path, as Linux has it (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Names that are kept in mind at once: more than any system allows in a path.
const MAX_NAMES: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::{Content, Entries, FileSystemInfo, Metadata};

    /// Directories 1 (the root) and 2 (`Users`), a file 3 in it, and links to it in the root.
    #[derive(Debug)]
    struct Windows(&'static str);

    const LINKS: [(&str, &str); 5] = [
        ("by-letter", "C:/Users/file"),
        ("by-other", "d:/Users/file"),
        ("to-root", "c:"),
        ("by-path", "/Users/../../Users/file"),
        ("no-letter", "C:file"),
    ];

    impl FileSystem for Windows {
        fn info(&self) -> FileSystemInfo {
            FileSystemInfo::new(self.0, 4096, 0)
        }

        fn root(&self) -> NodeId {
            node(1)
        }

        fn metadata(&self, node: NodeId) -> Result<Metadata> {
            let kind = match node.number {
                1 | 2 => FileKind::Directory,
                3 => FileKind::File,
                _ => FileKind::Symlink,
            };
            Ok(Metadata::new(kind, 0))
        }

        fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
            let link = LINKS.iter().position(|(link, _)| name == *link);
            Ok(match (directory.number, &*name.to_string_lossy()) {
                (1, "Users") => Some(node(2)),
                (2, "file") => Some(node(3)),
                (1, _) => link.map(|link| node(10 + link as u64)),
                _ => None,
            })
        }

        fn read_dir(self: Arc<Self>, _: NodeId) -> Result<Entries> {
            Ok(Box::new(std::iter::empty()))
        }

        fn read_link(&self, node: NodeId) -> Result<FileName> {
            Ok(LINKS[node.number as usize - 10].1.into())
        }

        fn open(self: Arc<Self>, _: NodeId, _: Option<&FileName>) -> Result<Arc<dyn Content>> {
            Err(Error::Invalid("nothing is in it".into()))
        }
    }

    fn node(number: u64) -> NodeId {
        NodeId { tree: 0, number }
    }

    #[test]
    fn drive_letters_of_the_volume_are_its_root_and_those_of_others_lead_nowhere() {
        for (points, letter) in
            [(vec!["C:"], Some(3)), (vec!["/", "c:\\"], Some(3)), (vec!["D:"], None), (vec![], None)]
        {
            let points: Vec<FileName> = points.into_iter().map(FileName::from).collect();
            let resolve = |path: &str| Resolver::new(&Windows("ntfs"), &points).resolve(path.as_bytes(), Last::Follow);
            assert_eq!(resolve("by-letter").ok(), letter.map(node), "{points:?}");
            assert_eq!(resolve("to-root/Users/file").ok(), letter.map(node), "{points:?}");
            assert_eq!(resolve("by-other").is_ok(), points.contains(&"D:".into()), "{points:?}");
            assert_eq!(resolve("by-path").unwrap(), node(3));
            assert!(matches!(resolve("no-letter"), Err(Error::NotFound(_))));
        }
        let error = Resolver::new(&Windows("ntfs"), &[]).resolve(b"by-letter", Last::Follow).unwrap_err();
        assert!(error.to_string().contains("link to C:/Users/file"), "{error}");
        // On a file system of Linux `C:` is a name like any other, and is not there.
        let error = Resolver::new(&Windows("ext4"), &["C:".into()]).resolve(b"by-letter", Last::Follow).unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
    }
}
