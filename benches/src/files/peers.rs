//! Others who read the same images.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::image::{BIG, Kind, Mount};

/// How long the native reader takes for the large file, and who that is; `None` where there is none.
pub(super) fn native(kind: Kind, image: &Path) -> Result<Option<(&'static str, Duration)>, Box<dyn Error>> {
    let mut command = match kind {
        Kind::Ext4 => with("debugfs", &["-R", "cat /big"], image, &[]),
        Kind::Ntfs => with("ntfscat", &[], image, &[BIG]),
        Kind::Fat32 => with("mcopy", &["-i"], image, &["::big", "-"]),
        Kind::Iso => with("isoinfo", &["-R", "-x", "/big", "-i"], image, &[]),
        Kind::Xfs | Kind::Btrfs => return mounted("the kernel", Mount::kernel(image)),
        Kind::ExFat => return mounted("exfat-fuse", Mount::by("mount.exfat-fuse", image)),
    };
    let name = match kind {
        Kind::Ext4 => "debugfs",
        Kind::Ntfs => "ntfscat",
        Kind::Fat32 => "mcopy",
        _ => "isoinfo",
    };
    let mut best = None;
    for _ in 0..2 {
        let Some(time) = timed(command.env("MTOOLS_SKIP_CHECK", "1"))? else { return Ok(None) };
        best = Some(best.map_or(time, |best: Duration| best.min(time)));
    }
    Ok(best.map(|time| (name, time)))
}

/// How long dissect takes to list the directory with what there is to know of each file, without the start of Python.
pub(super) fn dissect(kind: Kind, image: &Path) -> Result<Option<Duration>, Box<dyn Error>> {
    let listing = match kind {
        Kind::Ext4 => "from dissect.extfs import ExtFS\nf=lambda h:[e.size for e in ExtFS(h).get('many').iterdir()]",
        Kind::Xfs => "from dissect.xfs import XFS\nf=lambda h:[e.size for e in XFS(h).get('many').iterdir()]",
        Kind::Btrfs => {
            "from dissect.btrfs import Btrfs\nf=lambda h:[getattr(e[1],'size',0) for e in Btrfs(h).get('many').iterdir()]"
        }
        Kind::Ntfs => "from dissect.ntfs import NTFS\nf=lambda h:list(NTFS(h).mft.get('many').iterdir())",
        Kind::Fat32 => "from dissect.fat import FATFS\nf=lambda h:[e.size for e in FATFS(h).get('many').iterdir()]",
        Kind::ExFat => "from dissect.fat.exfat import ExFAT\nf=lambda h:list(ExFAT(h).files['/'][1]['many'][1])",
        Kind::Iso => return Ok(None),
    };
    let program = format!(
        "import sys,time\n{listing}\nh=open(sys.argv[1],'rb')\nt=time.time()\nn=len(f(h))\nprint(n,time.time()-t)"
    );
    let python = PathBuf::from("target/peers/dissect/bin/python");
    if !python.exists() {
        return Ok(None);
    }
    let output = Command::new(python).arg("-c").arg(program).arg(image).stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        println!("dissect failed: {}", said.lines().last().unwrap_or_default());
        return Ok(None);
    }
    let printed = String::from_utf8(output.stdout)?;
    let (count, seconds) = printed.trim().split_once(' ').ok_or("dissect said nothing")?;
    if count.parse::<u64>()? < super::FILES {
        return Err(format!("dissect lists {count} files").into());
    }
    Ok(Some(Duration::from_secs_f64(seconds.parse()?)))
}

fn with(program: &str, before: &[&str], image: &Path, after: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(before).arg(image).args(after);
    command
}

fn mounted(
    peer: &'static str,
    mount: Result<Mount, Box<dyn Error>>,
) -> Result<Option<(&'static str, Duration)>, Box<dyn Error>> {
    let Ok(mount) = mount else { return Ok(None) };
    Ok(timed(Command::new("cat").arg(mount.path().join(BIG)))?.map(|time| (peer, time)))
}

/// How long a program takes to write the large file to nowhere; `None` when it cannot be run.
fn timed(command: &mut Command) -> Result<Option<Duration>, Box<dyn Error>> {
    let begun = Instant::now();
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(Some(begun.elapsed())),
        Ok(status) => Err(format!("{command:?} ended with {status}").into()),
        Err(_) => Ok(None),
    }
}
