//! Linux: os-release(5) and what came before it, fstab(5), the header of a program.

use super::{Architecture, GuestMount, Look, OsFamily, OsInfo, fstab, major_minor};
use crate::{
    bytes::{be_u16, le_u16},
    fs::FileName,
};

/// Looks for a root directory of Linux.
pub(super) fn find(look: &mut Look<'_>) -> Option<OsInfo> {
    let release = Release::read(look);
    let has_programs = ["/bin", "/usr/bin", "/sbin"].iter().any(|path| look.exists(path));
    if release.is_none() && !(has_programs && look.exists("/etc/fstab")) {
        return None;
    }
    let release = release.unwrap_or_default();
    let version = release.version.clone();
    let id = if release.id.is_empty() { "linux".to_owned() } else { release.id };
    Some(OsInfo {
        root: look.mounted.volume().id().clone(),
        family: OsFamily::Linux,
        name: if release.name.is_empty() { "Linux".into() } else { release.name },
        vendor: id,
        major_minor: version.as_deref().map_or((0, 0), major_minor),
        version,
        edition: release.variant,
        architecture: architecture(look),
        host_name: host_name(look),
        kernels: kernels(look),
        package_manager: package_manager(look),
        directory: FileName::from("/"),
        subvolume: None,
        mounts: mounts(look),
        may_be_stale: false,
    })
}

/// What a distribution says of itself.
#[derive(Debug, Default)]
struct Release {
    id: String,
    name: String,
    version: Option<String>,
    variant: Option<String>,
}

impl Release {
    fn read(look: &mut Look<'_>) -> Option<Self> {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let Some(text) = look.read_text(path) {
                return Some(Self::of_os_release(&text));
            }
        }
        if let Some(text) = look.read_text("/etc/lsb-release") {
            let field = |key| assigned(&text, key);
            let id = field("DISTRIB_ID").unwrap_or_default().to_lowercase();
            let name = field("DISTRIB_DESCRIPTION").unwrap_or_else(|| id.clone());
            return Some(Self { id, name, version: field("DISTRIB_RELEASE"), variant: None });
        }
        for (path, id, name) in [
            ("/etc/redhat-release", "rhel", ""),
            ("/etc/SuSE-release", "suse", ""),
            ("/etc/debian_version", "debian", "Debian GNU/Linux "),
            ("/etc/alpine-release", "alpine", "Alpine Linux "),
            ("/etc/arch-release", "arch", "Arch Linux"),
            ("/etc/slackware-version", "slackware", ""),
        ] {
            if let Some(text) = look.read_text(path) {
                let line = text.lines().next().unwrap_or_default().trim();
                let digits = |char: char| char.is_ascii_digit();
                let version = line.split_whitespace().find(|word| word.starts_with(digits));
                let id = if line.starts_with("CentOS") { "centos" } else { id };
                return Some(Self {
                    id: id.into(),
                    name: format!("{name}{line}").trim().to_owned(),
                    version: version.map(str::to_owned),
                    variant: None,
                });
            }
        }
        None
    }

    fn of_os_release(text: &str) -> Self {
        let field = |key| assigned(text, key);
        // os-release(5): what is not said is Linux.
        let id = field("ID").unwrap_or_else(|| "linux".into());
        let name = field("PRETTY_NAME").or_else(|| field("NAME")).unwrap_or_else(|| "Linux".into());
        Self { id, name, version: field("VERSION_ID"), variant: field("VARIANT_ID").or_else(|| field("VARIANT")) }
    }
}

/// The value of a variable of a shell, the last one that is assigned.
fn assigned(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().rev().map(str::trim);
    let value = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).next()?.trim();
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let inner = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value);
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        // Within single quotes a shell escapes nothing.
        let escaped = char == '\\' && quote != Some('\'');
        plain.extend(if escaped { chars.next() } else { Some(char) });
    }
    (!plain.is_empty()).then_some(plain)
}

fn host_name(look: &mut Look<'_>) -> Option<String> {
    for path in ["/etc/hostname", "/etc/HOSTNAME"] {
        let text = look.read_text(path).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        if let Some(name) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) {
            return Some(name.to_owned());
        }
    }
    assigned(&look.read_text("/etc/sysconfig/network")?, "HOSTNAME")
}

/// The versions of kernels for which there are modules or an image, the newest last.
fn kernels(look: &mut Look<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for path in ["/lib/modules", "/usr/lib/modules"] {
        found.extend(look.list(path));
    }
    let images = look.list("/boot").into_iter();
    found.extend(images.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned())));
    found.retain(|name| name.starts_with(|char: char| char.is_ascii_digit()));
    found.sort_by_cached_key(|name| version_key(name));
    found.dedup();
    found
}

/// Orders versions by their numbers.
fn version_key(version: &str) -> (Vec<u64>, String) {
    let numbers = version.split(|char: char| !char.is_ascii_digit()).filter_map(|number| number.parse().ok());
    (numbers.collect(), version.to_owned())
}

fn package_manager(look: &mut Look<'_>) -> Option<&'static str> {
    let known = [
        ("/var/lib/dpkg/status", "dpkg"),
        ("/var/lib/rpm", "rpm"),
        ("/usr/lib/sysimage/rpm", "rpm"),
        ("/lib/apk/db/installed", "apk"),
        ("/var/lib/pacman/local", "pacman"),
    ];
    known.iter().find(|(path, _)| look.exists(path)).map(|(_, manager)| *manager)
}

/// What the system's first programs are for.
fn architecture(look: &mut Look<'_>) -> Option<Architecture> {
    let programs =
        ["/bin/sh", "/usr/bin/sh", "/sbin/init", "/usr/lib/systemd/systemd", "/bin/bash", "/bin/busybox", "/bin/ls"];
    programs.iter().find_map(|path| {
        let opened = look.mounted.open(path).and_then(|content| {
            let mut header = [0; 20];
            Ok(if content.read_at(0, &mut header)? == header.len() { Some(header) } else { None })
        });
        of_elf(&look.note(path, opened)??)
    })
}

/// System V ABI, "ELF Header".
fn of_elf(header: &[u8; 20]) -> Option<Architecture> {
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let machine = if header[5] == 2 { be_u16(header, 18) } else { le_u16(header, 18) };
    Some(match machine? {
        3 => Architecture::X86,
        21 => Architecture::Ppc64,
        22 => Architecture::S390x,
        40 => Architecture::Arm,
        62 => Architecture::X86_64,
        183 => Architecture::Aarch64,
        243 if header[4] == 2 => Architecture::Riscv64,
        _ => return None,
    })
}

/// The lines of `/etc/fstab`; without one for the root there is one more, because that is where it was found.
fn mounts(look: &mut Look<'_>) -> Vec<GuestMount> {
    let lines = fstab::parse(&look.read("/etc/fstab").unwrap_or_default());
    let opened = fstab::parse_crypttab(&look.read("/etc/crypttab").unwrap_or_default());
    let here = look.mounted.volume().id().clone();
    let mut mounts: Vec<_> = lines
        .into_iter()
        .map(|line| GuestMount {
            // What the guest calls its root is this volume, whether or not the name can be followed.
            volume: if line.point == *"/" { Some(here.clone()) } else { look.names.of_linux(&line.source, &opened) },
            point: line.point,
            source: line.source,
            kind: Some(line.kind),
            options: line.options,
        })
        .collect();
    if !mounts.iter().any(|mount| mount.point == *"/") {
        let kind = Some(look.mounted.file_system().info().kind.to_owned());
        let (point, source, options) = (FileName::from("/"), here.to_string(), String::new());
        mounts.insert(0, GuestMount { point, volume: Some(here), source, kind, options });
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_without_their_quotes() {
        let text = "# x\nID=debian\nNAME=\"Debian GNU/Linux\"\nPRETTY_NAME='A \\ B'\nVARIANT=\"a\\\"b\"\nVERSION_ID=\nID=late\n";
        assert_eq!(assigned(text, "ID").as_deref(), Some("late"));
        assert_eq!(assigned(text, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(assigned(text, "PRETTY_NAME").as_deref(), Some("A \\ B"));
        assert_eq!(assigned(text, "VARIANT").as_deref(), Some("a\"b"));
        assert_eq!((assigned(text, "VERSION_ID"), assigned(text, "VERSION")), (None, None));
        assert_eq!(major_minor("22.04.1"), (22, 4));
        assert_eq!(major_minor("rolling"), (0, 0));
    }

    #[test]
    fn kernels_are_in_the_order_of_their_numbers() {
        let mut versions = ["6.1.0-9-amd64", "5.10.0-28-amd64", "6.1.0-18-amd64", "6.1.0-18-cloud-amd64"];
        versions.sort_by_cached_key(|version| version_key(version));
        assert_eq!(versions, ["5.10.0-28-amd64", "6.1.0-9-amd64", "6.1.0-18-amd64", "6.1.0-18-cloud-amd64"]);
    }
}
