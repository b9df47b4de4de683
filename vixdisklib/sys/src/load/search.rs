//! Where a VDDK keeps its library.

use std::path::{Path, PathBuf};

/// The files to try for a path that the user gave, in order: the path itself if it is no directory; else, below it, the
/// newest generation first, each in `lib64` and then in the directory itself.
pub(super) fn candidates(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let folders = [path.join("lib64"), path.to_owned()];
    let in_folders = |name: String| folders.iter().map(move |folder| folder.join(&name)).collect::<Vec<_>>();
    GENERATIONS.iter().flat_map(|generation| in_folders(format!("{NAME}.{generation}"))).collect()
}

/// The directory that the library's own files are looked for in: above `lib64`, or where the file is.
pub(super) fn root_of(file: &Path) -> Option<PathBuf> {
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

const NAME: &str = "libvixDiskLib.so";

/// The generations that are looked for. 6 and 7 are those of VDDK 6.x and 7.x, and so on.
const GENERATIONS: [u32; 4] = [9, 8, 7, 6];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_looked_for_first_and_lib64_before_the_directory_itself() {
        let folder = tempfile::tempdir().unwrap();
        let found = candidates(folder.path());
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(
            names[..3],
            ["lib64/libvixDiskLib.so.9", "libvixDiskLib.so.9", "lib64/libvixDiskLib.so.8"].map(Path::new)
        );
        assert_eq!(names.len(), 8);
        assert_eq!(candidates(Path::new("/no/such/file.so")), [Path::new("/no/such/file.so")]);
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
