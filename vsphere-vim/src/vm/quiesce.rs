//! How a guest is brought into a consistent state before a snapshot.

use std::time::Duration;

use vsphere_vim_types::{Poly, VirtualMachineGuestQuiesceSpec, VirtualMachineWindowsQuiesceSpec};

use crate::error::{Error, Result};

/// How the guest is quiesced; for [`CreateSnapshotOptions::quiesce_as`](super::CreateSnapshotOptions::quiesce_as).
#[doc(alias = "VirtualMachineGuestQuiesceSpec")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct GuestQuiesce {
    timeout: Option<Duration>,
    windows: Option<VssOptions>,
    pub(super) plain_on_old_servers: bool,
}

impl GuestQuiesce {
    /// The first version that knows it.
    pub(super) const SINCE: &str = "6.5";

    /// In the way that the guest's operating system has.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the guest may take, in whole minutes: 5 to 240. 15 minutes unless stated.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// What a Windows guest's shadow copy service is told.
    pub fn windows(self, vss: VssOptions) -> Self {
        Self { windows: Some(vss), ..self }
    }

    /// On servers before 6.5, whether the guest is quiesced without any of this instead of refusing the snapshot.
    /// Not by default.
    pub fn plain_on_old_servers(self, plain: bool) -> Self {
        Self { plain_on_old_servers: plain, ..self }
    }

    pub(super) fn to_wire(&self) -> Result<Poly<VirtualMachineGuestQuiesceSpec>> {
        let minutes = |limit: Duration| {
            let minutes = i32::try_from(limit.as_secs().div_ceil(60)).ok();
            let why = || Error::invalid_input("quiesce timeout", "5 to 240 minutes are possible");
            minutes.filter(|minutes| MINUTES.contains(minutes)).ok_or_else(why)
        };
        let base =
            VirtualMachineGuestQuiesceSpec { timeout: self.timeout.map(minutes).transpose()?, ..Default::default() };
        let Some(vss) = &self.windows else { return Ok(Poly::new(base)) };
        Ok(Poly::new(VirtualMachineWindowsQuiesceSpec {
            vss_backup_type: Some(vss.backup_type.number()),
            vss_bootable_system_state: Some(vss.bootable_system_state),
            vss_partial_file_support: Some(vss.partial_file_support),
            vss_backup_context: Some(vss.context.as_str().to_owned()),
            base,
        }))
    }
}

/// What the shadow copy service of a Windows guest is told.
#[doc(alias = "VirtualMachineWindowsQuiesceSpec")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct VssOptions {
    /// The kind of backup, which tells writers whether to truncate logs.
    #[doc(alias = "vssBackupType")]
    pub backup_type: VssBackupType,
    /// Whether the system state is kept so that it boots.
    #[doc(alias = "vssBootableSystemState")]
    pub bootable_system_state: bool,
    /// Whether writers may keep parts of files.
    #[doc(alias = "vssPartialFileSupport")]
    pub partial_file_support: bool,
    /// Which writers take part.
    #[doc(alias = "vssBackupContext")]
    pub context: VssContext,
}

/// The kind of backup as Windows knows it (`VSS_BACKUP_TYPE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VssBackupType {
    /// Everything; writers may truncate their logs.
    Full,
    /// What changed since the last backup.
    Incremental,
    /// What changed since the last full backup.
    Differential,
    /// Logs alone.
    Log,
    /// Everything, and no writer remembers it: a backup beside the regular ones.
    #[default]
    Copy,
    /// Another kind.
    Other,
}

impl VssBackupType {
    fn number(self) -> i32 {
        match self {
            Self::Full => 1,
            Self::Incremental => 2,
            Self::Differential => 3,
            Self::Log => 4,
            Self::Copy => 5,
            Self::Other => 6,
        }
    }
}

/// Which writers take part in a shadow copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VssContext {
    /// As the guest's settings say.
    #[default]
    Auto,
    /// Writers take part: application consistent.
    Backup,
    /// Writers do not take part: file systems alone.
    FileShareBackup,
}

impl VssContext {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "ctx_auto",
            Self::Backup => "ctx_backup",
            Self::FileShareBackup => "ctx_file_share_backup",
        }
    }
}

const MINUTES: std::ops::RangeInclusive<i32> = 5..=240;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_windows_are_written_as_numbers_and_names() {
        let vss = VssOptions { backup_type: VssBackupType::Full, context: VssContext::Backup, ..Default::default() };
        let wire = GuestQuiesce::new().timeout(Duration::from_secs(301)).windows(vss).to_wire().unwrap();
        let windows = wire.downcast_ref::<VirtualMachineWindowsQuiesceSpec>().unwrap();
        assert_eq!((windows.timeout, windows.vss_backup_type), (Some(6), Some(1)));
        assert_eq!(windows.vss_backup_context.as_deref(), Some("ctx_backup"));
        assert_eq!(GuestQuiesce::new().to_wire().unwrap().type_name(), "VirtualMachineGuestQuiesceSpec");
    }

    #[test]
    fn a_timeout_out_of_range_is_refused() {
        for seconds in [0, 240, 240 * 60 + 1, u64::MAX] {
            assert!(GuestQuiesce::new().timeout(Duration::from_secs(seconds)).to_wire().is_err(), "{seconds}");
        }
    }
}
