//! Where a VDDK keeps its libraries: this one, and others that are loaded beside it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A file that was not loaded, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The file.
    pub file: PathBuf,
    /// Why not.
    pub reason: String,
}

impl Attempt {
    /// Takes a file with the linker's words.
    pub fn new(file: PathBuf, reason: String) -> Self {
        Self { file, reason }
    }

    /// True when the file is there, but something that it needs is not.
    pub fn is_about_another_file(&self) -> bool {
        self.reason.contains(OTHER_FILE) && self.file.exists()
    }

    /// Several as one text, for an error that names them.
    pub fn listed(tried: &[Self]) -> String {
        tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

/// The files to try for a path that the user gave, in order: the path itself if it is no directory; else, below it, each
/// of the library's names in `lib64` and then in the directory itself.
pub fn candidates(path: &Path, names: impl IntoIterator<Item = impl AsRef<Path>>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let folders = [path.join("lib64"), path.to_owned()];
    let in_folders = |name| folders.each_ref().map(|folder| folder.join(&name));
    names.into_iter().flat_map(in_folders).collect()
}

/// The names of this library, the newest generation first.
pub(super) fn generations() -> impl Iterator<Item = String> {
    GENERATIONS.iter().map(|generation| format!("{NAME}.{generation}"))
}

/// The directory that the library's own files are looked for in: above `lib64`, or where the file is.
pub fn root_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    match folder.file_name() {
        Some(name) if name == "lib64" => Some(folder.parent()?.to_owned()),
        _ => Some(folder.to_owned()),
    }
}

/// The number in `libvixDiskLib.so.8.0.2`, of what the file is in the end or else of the name it was found by.
pub(super) fn generation_of(file: &Path) -> Option<u32> {
    let numbered = |path: &Path| {
        let rest = path.file_name()?.to_str()?.split_once(".so.")?.1;
        rest.split('.').next()?.parse().ok()
    };
    std::fs::canonicalize(file).ok().and_then(|real| numbered(&real)).or_else(|| numbered(file))
}

/// The dynamic linker's words for a missing dependency (glibc and musl).
pub const OTHER_FILE: &str = "cannot open shared object file";

const NAME: &str = "libvixDiskLib.so";

/// The generations that are looked for. 6 and 7 are those of VDDK 6.x and 7.x, and so on.
const GENERATIONS: [u32; 4] = [9, 8, 7, 6];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_looked_for_first_and_lib64_before_the_directory_itself() {
        let folder = tempfile::tempdir().unwrap();
        let found = candidates(folder.path(), generations());
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(
            names[..3],
            ["lib64/libvixDiskLib.so.9", "libvixDiskLib.so.9", "lib64/libvixDiskLib.so.8"].map(Path::new)
        );
        assert_eq!(names.len(), 8);
        assert_eq!(candidates(Path::new("/no/such/file.so"), generations()), [Path::new("/no/such/file.so")]);
    }

    #[test]
    fn the_generation_is_that_of_the_file_behind_the_links() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("libvixDiskLib.so.8.0.2");
        std::fs::write(&real, "").unwrap();
        let link = folder.path().join("libvixDiskLib.so.6");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(generation_of(&link), Some(8));
        assert_eq!(generation_of(Path::new("/gone/libvixDiskLib.so.7")), Some(7));
        assert_eq!(generation_of(Path::new("/gone/libvixDiskLib.so")), None);
    }

    #[test]
    fn the_root_is_above_lib64() {
        assert_eq!(root_of(Path::new("/opt/vddk/lib64/libvixDiskLib.so.8")).unwrap(), Path::new("/opt/vddk"));
        assert_eq!(root_of(Path::new("/opt/own/libvixDiskLib.so.8")).unwrap(), Path::new("/opt/own"));
    }
}
