//! Images with 20 000 files in a directory and one of 500 MB, by the tools of Debian.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The directory and how many files it holds.
pub(super) const MANY: &str = "many";
pub(super) const FILES: u64 = 20_000;
/// The large file.
pub(super) const BIG: &str = "big";
pub(super) const BIG_SIZE: u64 = 500_000_000;

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Ntfs,
    Fat32,
    ExFat,
    Iso,
}

/// Makes what the images hold.
pub(super) fn source(folder: &Path) -> Result<(), Box<dyn Error>> {
    let many = folder.join(MANY);
    fs::create_dir_all(&many)?;
    for number in 0..FILES {
        fs::write(many.join(format!("f{number:05}.txt")), number.to_string())?;
    }
    let mut big = File::create(folder.join(BIG))?;
    let mut state = 88_172_645_463_325_252_u64;
    let mut block = vec![0; 1_000_000];
    for _ in 0..BIG_SIZE / block.len() as u64 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        big.write_all(&block)?;
    }
    Ok(())
}

impl Kind {
    pub(super) const ALL: [Self; 7] =
        [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Ntfs, Self::Fat32, Self::ExFat, Self::Iso];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Ntfs => "ntfs",
            Self::Fat32 => "fat32",
            Self::ExFat => "exfat",
            Self::Iso => "iso9660",
        }
    }

    pub(super) fn make(self, source: &Path, image: &Path) -> Result<(), Box<dyn Error>> {
        if self != Self::Iso {
            File::create(image)?.set_len(1 << 30)?;
        }
        match self {
            Self::Ext4 => tool(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).args([source, image])),
            Self::Xfs => {
                tool(Command::new("mkfs.xfs").arg("-q").arg(image))?;
                Mount::kernel(image)?.fill(source)
            }
            Self::Btrfs => {
                tool(Command::new("mkfs.btrfs").arg("-q").arg(image))?;
                Mount::kernel(image)?.fill(source)
            }
            Self::Ntfs => {
                tool(Command::new("mkntfs").args(["-q", "-F", "-Q"]).arg(image))?;
                Mount::by("ntfs-3g", image)?.fill(source)
            }
            Self::Fat32 => {
                tool(Command::new("mkfs.fat").args(["-F", "32"]).arg(image))?;
                let names = [source.join(MANY), source.join(BIG)];
                let mut copy = Command::new("mcopy");
                tool(copy.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image).args(["-s", "-Q"]).args(names).arg("::"))
            }
            Self::ExFat => {
                tool(Command::new("mkfs.exfat").args(["-c", "4096"]).arg(image))?;
                Mount::by("mount.exfat-fuse", image)?.fill(source)
            }
            Self::Iso => tool(Command::new("genisoimage").args(["-quiet", "-R", "-o"]).args([image, source])),
        }
    }
}

/// A file system that others have mounted, until this is dropped.
pub(super) struct Mount {
    folder: tempfile::TempDir,
    device: String,
}

impl Mount {
    pub(super) fn kernel(image: &Path) -> Result<Self, Box<dyn Error>> {
        Self::by("mount", image)
    }

    /// By a program that takes a device and a folder.
    pub(super) fn by(program: &str, image: &Path) -> Result<Self, Box<dyn Error>> {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(image).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        let mount = Self { folder: tempfile::tempdir()?, device };
        tool(Command::new(program).arg(&mount.device).arg(mount.folder.path()))?;
        Ok(mount)
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn fill(self, source: &Path) -> Result<(), Box<dyn Error>> {
        tool(Command::new("cp").arg("-r").arg(source.join(".")).arg(self.path()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = tool(Command::new("umount").arg(self.folder.path()));
        let _ = tool(Command::new("losetup").arg("-d").arg(&self.device));
    }
}

/// Runs a tool to its end.
fn tool(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.stdout(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed: {}", said.lines().next().unwrap_or_default()).into())
}
