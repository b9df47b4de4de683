//! The file that `InitEx` names: lines of `name=value`.

use std::{fs, path::PathBuf, str::FromStr, time::Duration};

use tracing::level_filters::LevelFilter;
use vixdisklib_sys::VixCode;
use vsphere_nfc::{Buffers, NfcOptions, Timeouts};

use crate::{
    call::{Failure, Outcome},
    log::Levels,
};

/// What the file says, with defaults for the rest.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) nfc: NfcOptions,
    pub(crate) levels: Levels,
    /// Where it is written down what has to be cleaned up after a crash.
    pub(crate) tmp_directory: Option<PathBuf>,
    /// What was found that is not known or not used, for the log.
    pub(crate) remarks: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        // 3 of VMware's levels, which is their default, is about what we call a warning and more.
        let levels = Levels { transport: LevelFilter::INFO, nfc: LevelFilter::WARN };
        Self { nfc: NfcOptions::default(), levels, tmp_directory: None, remarks: Vec::new() }
    }
}

impl Config {
    pub(crate) fn load(path: &str) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let code = if missing { VixCode::FILE_NOT_FOUND } else { VixCode::FILE_ACCESS_ERROR };
            Failure::new(code, format!("the configuration file {path} cannot be read: {error}"))
        })?;
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let mut config = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=').ok_or_else(|| {
                Failure::new(VixCode::INVALID_VALUE, format!("the configuration has {line:?}, not name=value"))
            })?;
            config.set(name.trim(), value.trim().trim_matches('"'))?;
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome<()> {
        match name {
            "vixDiskLib.transport.LogLevel" => self.levels.transport = level(number(name, value, 6)?),
            "vixDiskLib.nfc.LogLevel" => self.levels.nfc = level(number(name, value, 6)?),
            "vixDiskLib.nfcAio.Session.BufSizeIn64KB" => {
                let size: u32 = number(name, value, 1024)?;
                self.set_buffers(Buffers { size: size.max(1) * 64 * 1024, ..self.nfc.buffers });
            }
            "vixDiskLib.nfcAio.Session.BufCount" => {
                let count: u32 = number(name, value, 64)?;
                self.set_buffers(Buffers { count: count.max(1), ..self.nfc.buffers });
            }
            "vixDiskLib.nfc.AcceptTimeoutMs" => self.nfc.timeouts.connect = duration(name, value)?,
            "vixDiskLib.nfc.RequestTimeoutMs" => {
                let limit = duration(name, value)?;
                let Timeouts { authd, session, query, .. } = &mut self.nfc.timeouts;
                (*authd, *session, *query) = (limit, limit, limit);
            }
            "vixDiskLib.nfc.ReadTimeoutMs" => self.nfc.timeouts.read = duration(name, value)?,
            "vixDiskLib.nfc.WriteTimeoutMs" => self.nfc.timeouts.write = duration(name, value)?,
            "tmpDirectory" => self.tmp_directory = Some(value.into()),
            // Known, and without an effect here.
            "vixDiskLib.nfcFssrvr.TimeoutMs" | "vixDiskLib.nfcFssrvrWrite.TimeoutMs" => {
                self.remark(name, "the time-outs of vixDiskLib.nfc.* hold for all requests");
            }
            "vixDiskLib.linuxSSL.verifyCertificates" => self.remark(name, "certificates are always verified"),
            name if name.starts_with("vixDiskLib.transport.san.") => self.remark(name, "there is no transport san"),
            name => self.remark(name, "it is not known"),
        }
        Ok(())
    }

    fn set_buffers(&mut self, buffers: Buffers) {
        self.nfc.buffers = buffers;
    }

    fn remark(&mut self, name: &str, why: &str) {
        self.remarks.push(format!("{name} in the configuration has no effect: {why}"));
    }
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(name: &str, value: &str, most: T) -> Outcome<T> {
    let number = value.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| {
        let text = format!("{name} in the configuration is {value:?}, not a number from 0 to {most}");
        Failure::new(VixCode::INVALID_VALUE, text)
    })
}

/// 0 means without limit.
fn duration(name: &str, value: &str) -> Outcome<Duration> {
    let milliseconds: u64 = number(name, value, 1 << 31)?;
    Ok(if milliseconds == 0 { WITHOUT_LIMIT } else { Duration::from_millis(milliseconds) })
}

/// VMware's levels: 0 panics, 1 errors, 2 warnings, 3 what an audit needs, 4 information, 5 and 6 details.
fn level(number: u8) -> LevelFilter {
    match number {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 | 4 => LevelFilter::INFO,
        5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

/// A year.
const WITHOUT_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_and_limits_are_those_of_the_file() {
        let text = "# advice of the vendor\n\nvixDiskLib.nfcAio.Session.BufSizeIn64KB=16\n\
                    vixDiskLib.nfcAio.Session.BufCount = \"2\"\nvixDiskLib.nfc.ReadTimeoutMs=60000\n\
                    vixDiskLib.nfc.AcceptTimeoutMs=0\nvixDiskLib.nfc.LogLevel=5\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.nfc.buffers, Buffers { size: 1 << 20, count: 2 });
        assert_eq!(config.nfc.timeouts.read, Duration::from_secs(60));
        assert_eq!(config.nfc.timeouts.connect, WITHOUT_LIMIT);
        assert_eq!(config.levels.nfc, LevelFilter::DEBUG);
        assert!(config.remarks.is_empty());
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let config = Config::parse("tmpDirectory=/tmp/x\nvixDiskLib.transport.san.denyList=all\nfoo=bar").unwrap();
        assert_eq!(config.remarks.len(), 2);
        assert!(config.remarks[1].contains("foo"));
        assert_eq!(config.tmp_directory.as_deref(), Some("/tmp/x".as_ref()));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in ["no equals sign", "vixDiskLib.nfcAio.Session.BufCount=many", "vixDiskLib.transport.LogLevel=7"] {
            let failure = Config::parse(text).unwrap_err();
            assert_eq!(failure.code, VixCode::INVALID_VALUE, "{text}: {}", failure.text);
        }
        assert_eq!(Config::load("/nowhere/vddk.conf").unwrap_err().code, VixCode::FILE_NOT_FOUND);
    }
}
