//! The configuration file, from typed settings.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::NamedTempFile;

use super::error::{Error, Result};

/// Settings of the library, as its configuration file has them. What is not set is left to the library.
///
/// ```
/// use std::time::Duration;
/// use vixdisklib_sys::load::Config;
///
/// let config = Config::default().nfc_buffers(1 << 20, 8).read_timeout(Duration::from_secs(60));
/// assert!(config.text()?.contains("vixDiskLib.nfcAio.Session.BufSizeIn64KB=16\n"));
/// # Ok::<(), vixdisklib_sys::load::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Config {
    lines: Vec<(String, String)>,
}

impl Config {
    /// The settings of VMware's advice for networks: 3 minutes to accept and to request, 1 to read, 10 to write.
    pub fn advised_timeouts(self) -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        self.accept_timeout(minutes(3)).request_timeout(minutes(3)).read_timeout(minutes(1)).write_timeout(minutes(10))
    }

    /// Where the library keeps its files; clean-up after a crash needs the same directory again.
    pub fn tmp_directory(self, directory: impl AsRef<Path>) -> Self {
        self.other("tmpDirectory", directory.as_ref().to_string_lossy())
    }

    /// Size and number of the buffers of each disk over NFC. Together they must not exceed 16 MiB, or opening fails;
    /// the size is a multiple of 64 KiB.
    pub fn nfc_buffers(self, bytes: u64, count: u32) -> Self {
        let size = bytes.div_ceil(BUFFER_UNIT);
        self.other(BUFFER_SIZE, size.to_string()).other(BUFFER_COUNT, count.to_string())
    }

    /// How long a connection may take to be accepted.
    pub fn accept_timeout(self, time: Duration) -> Self {
        self.other("vixDiskLib.nfc.AcceptTimeoutMs", time.as_millis().to_string())
    }

    /// How long a request may take.
    pub fn request_timeout(self, time: Duration) -> Self {
        self.other("vixDiskLib.nfc.RequestTimeoutMs", time.as_millis().to_string())
    }

    /// How long a read may take.
    pub fn read_timeout(self, time: Duration) -> Self {
        self.other("vixDiskLib.nfc.ReadTimeoutMs", time.as_millis().to_string())
    }

    /// How long a write may take.
    pub fn write_timeout(self, time: Duration) -> Self {
        self.other("vixDiskLib.nfc.WriteTimeoutMs", time.as_millis().to_string())
    }

    /// Time-out of file access over NFC, and of writes in it; zero is none.
    pub fn file_server_timeouts(self, time: Duration, write: Duration) -> Self {
        self.other("vixDiskLib.nfcFssrvr.TimeoutMs", time.as_millis().to_string())
            .other("vixDiskLib.nfcFssrvrWrite.TimeoutMs", write.as_millis().to_string())
    }

    /// How much the transports log: 0 to 6, the library's default is 3.
    pub fn transport_log_level(self, level: u8) -> Self {
        self.other("vixDiskLib.transport.LogLevel", level.to_string())
    }

    /// How much NFC logs.
    pub fn nfc_log_level(self, level: u8) -> Self {
        self.other("vixDiskLib.nfc.LogLevel", level.to_string())
    }

    /// Devices that the SAN transport may use. Before 8.0.1 without wildcards; older libraries know
    /// `vixDiskLib.transport.san.whitelist`.
    pub fn san_allow<'a>(self, devices: impl IntoIterator<Item = &'a str>) -> Self {
        self.other("vixDiskLib.transport.san.allowList", joined(devices))
    }

    /// Devices that the SAN transport must not use. Before 8.0.1 without wildcards; older libraries know
    /// `vixDiskLib.transport.san.blacklist`.
    pub fn san_deny<'a>(self, devices: impl IntoIterator<Item = &'a str>) -> Self {
        self.other("vixDiskLib.transport.san.denyList", joined(devices))
    }

    /// Whether certificates are verified, in libraries that have the setting.
    pub fn verify_certificates(self, verify: bool) -> Self {
        self.other("vixDiskLib.linuxSSL.verifyCertificates", if verify { "1" } else { "0" })
    }

    /// Any setting by VMware's name. The last value of a name counts.
    pub fn other(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.lines.retain(|(present, _)| *present != name);
        self.lines.push((name, value.into()));
        self
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`Error::Config`] for line breaks, names that are none, and buffers of which the library is known to refuse the
    /// sum.
    pub fn text(&self) -> Result<String> {
        let bad = |name: &str, reason| Err(Error::Config { name: name.to_owned(), reason });
        let mut text = String::new();
        for (name, value) in &self.lines {
            if name.is_empty() || name.contains(|c: char| c == '=' || c == '#' || c.is_whitespace()) {
                return bad(name, "this is not a name");
            }
            if value.contains(char::is_control) {
                return bad(name, "a value is one line");
            }
            let _ = writeln!(text, "{name}={value}");
        }
        let number = |name| self.lines.iter().find(|(present, _)| present == name)?.1.parse::<u64>().ok();
        let size = number(BUFFER_SIZE).unwrap_or(1).saturating_mul(BUFFER_UNIT);
        let count = number(BUFFER_COUNT).unwrap_or(4);
        if size == 0 || count == 0 {
            return bad(BUFFER_SIZE, "there has to be a buffer");
        }
        if size.saturating_mul(count) > BUFFERS_AT_MOST {
            return bad(BUFFER_SIZE, "the buffers of a disk exceed 16 MiB together");
        }
        Ok(text)
    }

    /// Writes the file where only this user can read it. It goes when the value is dropped.
    pub(super) fn write(&self) -> Result<NamedTempFile> {
        let failed = |source| Error::Io { doing: "writing the library's configuration file", source };
        let text = self.text()?;
        let mut file = tempfile::Builder::new().prefix("vddk-").suffix(".conf").tempfile().map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.flush().map_err(failed)?;
        Ok(file)
    }
}

/// Where the library finds its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConfigSource {
    Ours(Config),
    File(PathBuf),
}

fn joined<'a>(devices: impl IntoIterator<Item = &'a str>) -> String {
    devices.into_iter().collect::<Vec<_>>().join(",")
}

const BUFFER_SIZE: &str = "vixDiskLib.nfcAio.Session.BufSizeIn64KB";
const BUFFER_COUNT: &str = "vixDiskLib.nfcAio.Session.BufCount";
const BUFFER_UNIT: u64 = 64 << 10;

/// Above that, VMware's library fails to open disks.
const BUFFERS_AT_MOST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn settings_become_lines_and_the_last_value_counts() {
        let config = Config::default().transport_log_level(6).transport_log_level(2).advised_timeouts();
        let text = config.text().unwrap();
        assert!(text.starts_with("vixDiskLib.transport.LogLevel=2\nvixDiskLib.nfc.AcceptTimeoutMs=180000\n"), "{text}");
        assert_eq!(text.lines().count(), 5);
        let lists = Config::default().san_deny(["a", "b"]).text().unwrap();
        assert_eq!(lists, "vixDiskLib.transport.san.denyList=a,b\n");
    }

    #[test]
    fn what_would_break_the_file_or_every_open_is_refused() {
        for (bad, name) in [
            (Config::default().tmp_directory("/a\nb=c"), "tmpDirectory"),
            (Config::default().other("a b", "c"), "a b"),
            (Config::default().nfc_buffers(4 << 20, 5), BUFFER_SIZE),
            (Config::default().nfc_buffers(0, 5), BUFFER_SIZE),
        ] {
            let error = bad.text().unwrap_err();
            assert!(matches!(&error, Error::Config { name: found, .. } if found == name), "{error}");
        }
        assert!(Config::default().nfc_buffers(4 << 20, 4).text().is_ok());
    }

    #[test]
    fn the_file_is_private_and_goes_with_its_owner() {
        let file = Config::default().nfc_log_level(1).write().unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "vixDiskLib.nfc.LogLevel=1\n");
        drop(file);
        assert!(!path.exists());
    }
}
