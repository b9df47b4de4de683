//! Images that ntfs-3g makes and fills.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::XattrFlags;
use tempfile::TempDir;

use crate::peers::{peer, run};

/// An image with an empty volume.
pub(crate) struct Image {
    path: PathBuf,
    _folder: TempDir,
}

impl Image {
    /// Formats one; `None` when `mkntfs` is missing.
    pub(crate) fn new(format: &[&str], mib: u64) -> Option<Self> {
        let mkntfs = peer("mkntfs")?;
        let folder = tempfile::tempdir().unwrap();
        let image = Self { path: folder.path().join("ntfs.img"), _folder: folder };
        File::create(&image.path).unwrap().set_len(mib << 20).unwrap();
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-F", &"-Q", &"-q"];
        arguments.extend(format.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
        arguments.push(&image.path);
        run(mkntfs, &arguments);
        Some(image)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it; `None` where this system cannot: no rights, no FUSE. That is said, and is a failure only with
    /// `REQUIRE_MOUNTS` set.
    pub(crate) fn mount(&self) -> Option<Mounted> {
        self.mount_with("xattr")
    }

    /// The same with streams as `file:stream`, which may be of any size.
    pub(crate) fn mount_with_streams(&self) -> Option<Mounted> {
        self.mount_with("windows")
    }

    fn mount_with(&self, streams: &str) -> Option<Mounted> {
        let program = peer("ntfs-3g")?;
        let point = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        let options = "compression,norecover,no_def_opts,silent,allow_other";
        command.arg("-o").arg(format!("streams_interface={streams},{options}"));
        let output = command.arg(&self.path).arg(point.path()).stdin(Stdio::null()).output().unwrap();
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            eprintln!("CANNOT MOUNT {} by ntfs-3g: {}. This test proves nothing", self.path.display(), text.trim());
            assert!(std::env::var_os("REQUIRE_MOUNTS").is_none(), "mounts are required");
            return None;
        }
        Some(Mounted { point, image: self.path.clone() })
    }
}

/// A mounted image; it is written back when this is dropped.
pub(crate) struct Mounted {
    point: TempDir,
    image: PathBuf,
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[&self.point.path()]);
        wait(&self.image);
    }
}

/// Waits for the driver, which writes its last bytes after the mount is gone, and holds a lock until it has.
pub(crate) fn wait(image: &Path) {
    let file = File::open(image).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
}

/// Sets an extended attribute, by which ntfs-3g also hands out streams and what else is of Windows.
pub(crate) fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|error| panic!("{name}: {error}"));
}

pub(crate) fn get(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 64 << 10];
    let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
    value.truncate(len);
    value
}

/// Makes a file a reparse point.
pub(crate) fn reparse(path: &Path, tag: u32, data: &[u8]) {
    let mut value = tag.to_le_bytes().to_vec();
    value.extend((data.len() as u32).to_le_bytes());
    value.extend(data);
    set(path, "system.ntfs_reparse_data", &value);
}

/// What a link holds: names for the system and for people.
pub(crate) fn link(tag: u32, target: &str) -> Vec<u8> {
    let name: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let len = name.len() as u16;
    // Names in a junction end with NUL.
    let second = len + if tag == 0xa000_0003 { 2 } else { 0 };
    let mut data: Vec<u8> = [0, len, second, len].into_iter().flat_map(u16::to_le_bytes).collect();
    if tag == 0xa000_000c {
        data.extend(u32::from(!target.starts_with(r"\??\")).to_le_bytes());
    }
    for _ in 0..2 {
        data.extend(&name);
        data.resize(data.len() + usize::from(second - len), 0);
    }
    data
}

/// Extended attributes as Linux under Windows writes them: names and numbers.
pub(crate) fn ea(attributes: &[(&str, &[u32])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, numbers) in attributes {
        let len = 9 + name.len() + numbers.len() * 4;
        let end = all.len() + len.next_multiple_of(4);
        all.extend((len.next_multiple_of(4) as u32).to_le_bytes());
        all.extend([0, name.len() as u8, numbers.len() as u8 * 4, 0]);
        all.extend(name.as_bytes());
        all.push(0);
        all.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        all.resize(end, 0);
    }
    all
}
