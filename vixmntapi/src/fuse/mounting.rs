//! The system's side of a mount: making it, finding it, ending it.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File},
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
    net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType},
};

/// How a folder is mounted.
pub(super) struct Flags {
    pub(super) allow_other: bool,
    pub(super) default_permissions: bool,
    pub(super) exec: bool,
    /// What `mount` shows as its source.
    pub(super) name: String,
}

/// A mount of ours, as the system lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Numbers of its device.
    device: String,
    /// The type, `fuse.vixmntapi` for those of ours.
    kind: String,
}

/// Finds the folder to mount on.
pub(super) fn folder(path: &Path) -> io::Result<PathBuf> {
    let dead = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::NOTCONN | Errno::CONNABORTED) => dead_mount(path),
        _ => error,
    };
    let folder = path.canonicalize().map_err(dead)?;
    if !fs::metadata(&folder).map_err(dead)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if at(&folder).last().is_some_and(|mount| mount.kind == KIND) {
        let why = "a volume is mounted there already; unmount it first";
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
    }
    Ok(folder)
}

/// What a process that was killed leaves behind: a mount that nobody answers for.
fn dead_mount(path: &Path) -> io::Error {
    let shown = path.display();
    let why = format!(
        "the process behind the mount that is there has died: run `fusermount3 -u -z {shown}`, or as root `umount -l {shown}`"
    );
    io::Error::new(io::ErrorKind::NotConnected, why)
}

/// Mounts a folder, by ourselves or, without the right to, by `fusermount3`. The descriptor is where the kernel asks.
pub(super) fn mount(folder: &Path, flags: &Flags) -> io::Result<OwnedFd> {
    match mount_ourselves(folder, flags) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => mount_by_helper(folder, flags),
        done => done,
    }
}

fn mount_ourselves(folder: &Path, flags: &Flags) -> io::Result<OwnedFd> {
    let device = OwnedFd::from(File::options().read(true).write(true).open("/dev/fuse").map_err(no_fuse)?);
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut options = format!("fd={},rootmode=40000,user_id={user},group_id={group}", device.as_raw_fd());
    if flags.allow_other {
        options.push_str(",allow_other");
    }
    if flags.default_permissions {
        options.push_str(",default_permissions");
    }
    let mut how = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    if !flags.exec {
        how |= MountFlags::NOEXEC;
    }
    rustix::mount::mount(&*flags.name, folder, KIND, how, &*CString::new(options)?)?;
    Ok(device)
}

/// Has `fusermount3` mount, which is setuid and sends us the descriptor through its standard input.
fn mount_by_helper(folder: &Path, flags: &Flags) -> io::Result<OwnedFd> {
    let mut options = format!("ro,nosuid,nodev,noatime,subtype={SUBTYPE},fsname={}", flags.name);
    for (option, is_on) in [
        ("noexec", !flags.exec),
        ("allow_other", flags.allow_other),
        ("default_permissions", flags.default_permissions),
    ] {
        if is_on {
            options = format!("{options},{option}");
        }
    }
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let output = helper(&[OsStr::new("-o"), OsStr::new(&options), OsStr::new("--"), folder.as_os_str()], Some(theirs))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received =
        rustix::net::recvmsg(&ours, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match (received, device) {
        (Ok(_), Some(device)) => Ok(device),
        (Err(error), _) => Err(error.into()),
        (Ok(_), None) => Err(io::Error::other(output)),
    }
}

/// Runs `fusermount3`, or its elder; what it complained of.
fn helper(arguments: &[&OsStr], socket: Option<OwnedFd>) -> io::Result<String> {
    let mut socket = socket;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for program in ["fusermount3", "fusermount"] {
        let mut command = Command::new(program);
        command.args(arguments).env("_FUSE_COMMFD", "0");
        command.stdin(match &socket {
            Some(socket) => Stdio::from(socket.try_clone()?),
            None => Stdio::null(),
        });
        match command.output() {
            Ok(output) if output.status.success() => return Ok(String::new()),
            Ok(output) => {
                drop(socket.take());
                let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            Err(error) => last = error,
        }
    }
    Err(io::Error::new(last.kind(), "only root mounts without fusermount3, which is not installed"))
}

fn no_fuse(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), "there is no /dev/fuse: load the module fuse"),
        _ => error,
    }
}

/// The mount that is seen in a folder, and those below it, the oldest first.
pub(super) fn at(folder: &Path) -> Vec<Listed> {
    // Without /proc nothing is known, and mounts are ended by their folders alone.
    let Ok(list) = fs::read("/proc/self/mountinfo") else { return Vec::new() };
    list.split(|byte| *byte == b'\n').filter_map(parse).filter(|(place, _)| place == folder).map(|(_, it)| it).collect()
}

/// A line of `mountinfo`: id, parent, device, root, folder, options, further fields, a dash, the type.
fn parse(line: &[u8]) -> Option<(PathBuf, Listed)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let folder = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    Some((folder.into(), Listed { device, kind }))
}

/// Blanks, tabs, line feeds and backslashes are there as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut name = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                name.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => name.push(*first),
        }
    }
    OsString::from_vec(name)
}

/// Whether the kernel still asks: not once the last mount of it has ended.
pub(super) fn is_connected(device: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(device, PollFlags::empty())];
    let done = rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    done.is_err() || asked.iter().all(|device| !device.revents().contains(PollFlags::ERR))
}

/// How a mount ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Only when nothing of it is in use.
    Unused,
    /// From the folder at once, for those who use it when they have done.
    Lazy,
}

/// Ends the mount of a folder.
pub(super) fn unmount(folder: &Path, ending: Ending) -> io::Result<()> {
    let lazy = if ending == Ending::Lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(folder, lazy | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => {
            let mut arguments = vec![OsStr::new("-u")];
            if ending == Ending::Lazy {
                arguments.push(OsStr::new("-z"));
            }
            arguments.extend([OsStr::new("--"), folder.as_os_str()]);
            helper(&arguments, None).map(drop)
        }
        done => Ok(done?),
    }
}

/// The same, tried again for a moment: whoever looked at it may be leaving.
pub(super) fn unmount_unused(folder: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match unmount(folder, Ending::Unused) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    unmount(folder, Ending::Unused)
}

/// A source's name of which no option of `mount` can be made.
pub(super) fn plain_name(name: &str) -> String {
    let plain = name.chars().map(|char| if char.is_control() || matches!(char, ',' | '\\' | ' ') { '_' } else { char });
    plain.take(MAX_NAME).collect()
}

/// The type of our mounts.
const KIND: &str = "fuse.vixmntapi";
const SUBTYPE: &str = "vixmntapi";
const MAX_NAME: usize = 100;
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_line_of_the_list_of_mounts_is_read() {
        let line =
            br"36 35 98:0 / /mnt/with\040blank\134 rw,noatime shared:1 master:2 - fuse.vixmntapi disk0p1 ro,user_id=0";
        let (folder, listed) = parse(line).unwrap();
        assert_eq!(folder, Path::new("/mnt/with blank\\"));
        assert_eq!(listed, Listed { device: "98:0".into(), kind: "fuse.vixmntapi".into() });
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"a\0b\777\04").as_bytes(), br"a\0b\777\04");
    }

    #[test]
    fn no_option_comes_out_of_a_name() {
        assert_eq!(plain_name("lvm/vg0/root,allow_other\n\\"), "lvm/vg0/root_allow_other__");
    }
}
