//! restic and borg, as Debian has them.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use crate::process::{self, Cost};

/// A program that backs up files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Restic,
    Borg,
}

impl Peer {
    pub(super) const ALL: [Self; 2] = [Self::Restic, Self::Borg];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Restic => "restic",
            Self::Borg => "borg",
        }
    }

    /// The version, or that it is missing, loudly.
    pub(super) fn version(self) -> Option<String> {
        let argument = if self == Self::Restic { "version" } else { "--version" };
        match Command::new(self.name()).arg(argument).output() {
            Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            _ => {
                let package = if self == Self::Restic { "restic" } else { "borgbackup" };
                println!(
                    "MISSING: {} is not installed (apt-get install {package}): its lines are left out",
                    self.name()
                );
                None
            }
        }
    }

    /// Makes an encrypted repository.
    pub(super) fn create(self, repository: &Path) -> Result<(), Box<dyn Error>> {
        let mut command = self.command(repository);
        match self {
            Self::Restic => command.arg("init"),
            Self::Borg => command.args(["init", "--encryption", "repokey-blake2"]).arg(repository),
        };
        process::run(&mut command).map(drop)
    }

    /// Backs up the image under a name.
    pub(super) fn back_up(self, repository: &Path, image: &Path, name: &str) -> Result<Cost, Box<dyn Error>> {
        let mut command = self.command(repository);
        match self {
            Self::Restic => command.arg("backup").arg(image),
            // As `borg create` does by default, but with zstd: its default lz4 stores more.
            Self::Borg => command
                .args(["create", "--compression", "zstd,1"])
                .arg(format!("{}::{name}", repository.display()))
                .arg(image),
        };
        Ok(process::run(&mut command)?.1)
    }

    fn command(self, repository: &Path) -> Command {
        let mut command = Command::new(self.name());
        let own = repository.with_extension("home");
        command.env("RESTIC_PASSWORD", "bench").env("BORG_PASSPHRASE", "bench");
        command.env("BORG_BASE_DIR", &own).env("XDG_CACHE_HOME", &own).env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
        if self == Self::Restic {
            command.arg("--repo").arg(repository);
        }
        command
    }
}
