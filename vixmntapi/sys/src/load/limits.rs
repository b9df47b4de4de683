//! What each platform cannot do, found before the library is asked.

use super::error::{Error, Result};

/// The system on which the library runs: its libraries for Windows and for Linux differ in what they can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// Volumes are mounted through VMware's driver `vstor2-mntapi`.
    Windows,
    /// Disks are served through FUSE, and their partitions mounted by the kernel through loop devices.
    Linux,
}

impl Proxy {
    /// The system of this program.
    pub fn current() -> Self {
        if cfg!(windows) { Self::Windows } else { Self::Linux }
    }

    /// How many disks are opened by path.
    pub(super) fn check_disks(self, count: usize) -> Result<()> {
        match (self, count) {
            (_, 0) => Err(Error::Limit { what: "a set without disks", why: "there is nothing to open" }),
            (Self::Linux, 2..) => Err(Error::Limit {
                what: "a set of several disks",
                why: "on Linux VixMntapi opens exactly one; open one set for each, or use the reader of this project",
            }),
            _ => Ok(()),
        }
    }

    /// Whether the guest's system can be asked about.
    pub(super) fn check_os_info(self) -> Result<()> {
        match self {
            Self::Windows => Ok(()),
            Self::Linux => Err(Error::Limit {
                what: "telling what is installed",
                why: "VixMntapi does it for guests with Windows on a proxy with Windows only",
            }),
        }
    }

    /// Whether the library tells where the guest mounts a volume. The documentation of its structure calls the count
    /// "unimplemented" on Linux, which says nothing of what is in it.
    pub(super) fn tells_guest_mount_points(self) -> bool {
        self == Self::Windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_platform_refuses_what_it_cannot_do_with_the_reason() {
        assert!(Proxy::Linux.check_disks(1).is_ok() && Proxy::Windows.check_disks(3).is_ok());
        for (proxy, count) in [(Proxy::Linux, 0), (Proxy::Linux, 2), (Proxy::Windows, 0)] {
            assert!(matches!(proxy.check_disks(count), Err(Error::Limit { .. })), "{proxy:?} {count}");
        }
        assert!(Proxy::Windows.check_os_info().is_ok());
        let refused = Proxy::Linux.check_os_info().unwrap_err().to_string();
        assert!(refused.contains("proxy with Windows only"), "{refused}");
    }
}
