//! A file system to be put into partitions, logical volumes and arrays, made once for all tests.

use std::sync::OnceLock;

use vixmntapi::set::{Contents, Volume};

use crate::{
    compare::{Compare, assert_same},
    disks::raw,
    ext::{made_of, of_tools},
    tree::{Manifest, Names, Tree, noise},
};

/// An ext4 of 12 MiB.
pub(crate) struct Guest {
    pub(crate) bytes: Vec<u8>,
    manifest: Manifest,
}

/// The size of the file system.
pub(crate) const SIZE: usize = 12 << 20;

impl Guest {
    /// `None` where there is no mke2fs, which is said.
    pub(crate) fn get() -> Option<&'static Self> {
        static GUEST: OnceLock<Option<Guest>> = OnceLock::new();
        GUEST.get_or_init(Self::make).as_ref()
    }

    fn make() -> Option<Self> {
        let tree = Tree::new().many(60).deep(6).names(Names::Bytes).links().xattrs();
        // So large that it lies on all parts of whatever the file system lies on.
        std::fs::write(tree.path().join("large"), noise(7_654_321)).unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        std::fs::write(tree.path().join("etc/hostname"), "guest\n").unwrap();
        for (link, target) in LINKS {
            std::os::unix::fs::symlink(target, tree.path().join(link)).unwrap();
        }
        let image = made_of(&tree, &["-t", "ext4", "-L", "guest", "-U", UUID], SIZE as u64)?;
        let device = raw(&image.path);
        let files = vixmntapi::fs::open(&device).unwrap().unwrap();
        Some(Self { manifest: of_tools(&tree, &files), bytes: std::fs::read(&image.path).unwrap() })
    }

    /// Fails the test when a volume is not this file system in every path, byte and attribute.
    pub(crate) fn assert_is(&self, volume: &Volume) {
        let Contents::FileSystem(info) = volume.contents().unwrap() else { panic!("{volume:?} has no file system") };
        assert_eq!((info.kind, info.label.as_deref(), info.uuid.as_deref()), ("ext4", Some("guest"), Some(UUID)));
        let mounted = volume.mount().unwrap();
        let device = volume.device().unwrap();
        assert_same(mounted.file_system(), &device, &self.manifest, Compare::ALL);
    }

    /// Fails the test when a volume does not begin with the bytes of this file system: for many cases of one kind.
    pub(crate) fn assert_bytes(&self, volume: &Volume) {
        let mut bytes = vec![0; SIZE];
        volume.device().unwrap().read_at(0, &mut bytes).unwrap();
        assert!(bytes == self.bytes, "{volume:?} has other bytes");
    }
}

/// Its id.
pub(crate) const UUID: &str = "11223344-5566-4778-899a-abbccddeeff0";

/// Symbolic links, and where they lead.
const LINKS: [(&str, &str); 6] = [
    ("etc/absolute", "/etc/hostname"),
    ("etc/out", "../../../../../etc/hostname"),
    ("etc/up", "deeper/../hostname"),
    ("configuration", "etc/"),
    ("etc/around", "../etc/about"),
    ("etc/about", "/etc/around"),
];
