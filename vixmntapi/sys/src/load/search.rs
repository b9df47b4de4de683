//! Where a VDDK keeps its library.

use std::path::{Path, PathBuf};

pub(super) use vixdisklib_sys::load::search::root_of;

/// The files to try for a path that the user gave, in order.
pub(super) fn candidates(path: &Path) -> Vec<PathBuf> {
    vixdisklib_sys::load::search::candidates(path, NAMES)
}

/// The number is that of the interface, and the same in VDDK 5 to 8; the other name is a link to it.
const NAMES: [&str; 2] = ["libvixMntapi.so.1", "libvixMntapi.so"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lib64_is_looked_into_before_the_directory_itself() {
        let folder = tempfile::tempdir().unwrap();
        let found = candidates(folder.path());
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(names[..2], ["lib64/libvixMntapi.so.1", "libvixMntapi.so.1"].map(Path::new));
        assert_eq!(names.len(), 4);
        assert_eq!(candidates(Path::new("/no/such/file.so")), [Path::new("/no/such/file.so")]);
    }

    #[test]
    fn the_root_is_above_lib64() {
        assert_eq!(root_of(Path::new("/opt/vddk/lib64/libvixMntapi.so.1")).unwrap(), Path::new("/opt/vddk"));
        assert_eq!(root_of(Path::new("/opt/own/libvixMntapi.so.1")).unwrap(), Path::new("/opt/own"));
    }
}
