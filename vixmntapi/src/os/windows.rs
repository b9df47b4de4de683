//! Windows since NT: its directory, and its registry's hives `SOFTWARE` and `SYSTEM`.

use super::{
    Architecture, GuestMount, Look, OsFamily, OsInfo,
    hive::{Hive, Key, Value},
    major_minor,
};
use crate::{
    error::{Error, Result},
    fs::FileName,
};

/// Looks for a directory of Windows.
pub(super) fn find(look: &mut Look<'_>) -> Vec<OsInfo> {
    // Only file systems of Windows have them, and those find names without regard to case.
    if !matches!(look.mounted.file_system().info().kind, "ntfs" | "vfat") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        if look.exists(&format!("{directory}/System32/config/SOFTWARE")) {
            found.push(installation(look, directory));
        }
    }
    found
}

fn installation(look: &mut Look<'_>, directory: &str) -> OsInfo {
    let software = Registry::open(look, directory, "SOFTWARE");
    let system = Registry::open(look, directory, "SYSTEM");
    let current = software.key(look, r"Microsoft\Windows NT\CurrentVersion");
    let text = |look: &mut Look<'_>, name| software.value(look, &current, name).and_then(|value| value.text());
    let number = |look: &mut Look<'_>, name| software.value(look, &current, name).and_then(|value| value.number());
    let build = text(look, "CurrentBuildNumber").or_else(|| text(look, "CurrentBuild"));
    let (major, minor) = (number(look, "CurrentMajorVersionNumber"), number(look, "CurrentMinorVersionNumber"));
    let numbers = match major.zip(minor) {
        Some(numbers) => Some(numbers),
        None => text(look, "CurrentVersion").map(|version| major_minor(&version)),
    };
    let revision = number(look, "UBR");
    let version = numbers.map(|(major, minor)| {
        let more = [build.clone(), revision.filter(|_| build.is_some()).map(|revision| revision.to_string())];
        more.into_iter().flatten().fold(format!("{major}.{minor}"), |version, more| format!("{version}.{more}"))
    });
    let mut name = text(look, "ProductName").unwrap_or_else(|| "Windows".into());
    // Windows 11 goes on to call itself 10 here.
    if build.as_deref().and_then(|build| build.parse().ok()).is_some_and(|build: u32| build >= FIRST_BUILD_OF_11) {
        name = name.replacen("Windows 10", "Windows 11", 1);
    }
    let control = system.current_control(look);
    let machine = control.as_ref().and_then(|control| {
        let key = system.key(look, &format!(r"{control}\Control\Session Manager\Environment"));
        system.value(look, &key, "PROCESSOR_ARCHITECTURE")?.text()
    });
    let host_name = control.as_ref().and_then(|control| {
        let key = system.key(look, &format!(r"{control}\Control\ComputerName\ComputerName"));
        system.value(look, &key, "ComputerName")?.text()
    });
    OsInfo {
        root: look.mounted.volume().id().clone(),
        family: OsFamily::Windows,
        name,
        vendor: "Microsoft".into(),
        version,
        major_minor: numbers.unwrap_or_default(),
        edition: text(look, "EditionID"),
        architecture: machine.as_deref().and_then(architecture),
        host_name,
        kernels: Vec::new(),
        package_manager: None,
        directory: FileName::from(directory),
        subvolume: None,
        mounts: mounts(look, &system),
        may_be_stale: software.is_dirty() || system.is_dirty(),
    }
}

fn architecture(machine: &str) -> Option<Architecture> {
    Some(match machine.to_ascii_uppercase().as_str() {
        "AMD64" => Architecture::X86_64,
        "X86" => Architecture::X86,
        "ARM64" => Architecture::Aarch64,
        "ARM" => Architecture::Arm,
        _ => return None,
    })
}

/// The drive letters.
fn mounts(look: &mut Look<'_>, system: &Registry) -> Vec<GuestMount> {
    let key = system.key(look, "MountedDevices");
    let mut mounts: Vec<_> = system
        .values(look, &key)
        .into_iter()
        .filter_map(|value| {
            let letter = value.name.strip_prefix(r"\DosDevices\").filter(|letter| letter.len() == 2)?;
            Some(GuestMount {
                point: FileName::from(letter),
                volume: look.names.of_windows(&value.data),
                source: value.name.clone(),
                kind: None,
                options: String::new(),
            })
        })
        .collect();
    mounts.sort_by(|one, other| one.point.cmp(&other.point));
    mounts
}

/// A hive that is there and whole, or nothing that has any key.
struct Registry {
    hive: Option<Hive>,
    name: &'static str,
}

impl Registry {
    fn open(look: &mut Look<'_>, directory: &str, name: &'static str) -> Self {
        let path = format!("{directory}/System32/config/{name}");
        let logs = || {
            let logs = [".LOG1", ".LOG2", ".LOG"].map(|end| look.mounted.open(format!("{path}{end}")));
            // Without them the hive is what it is, and said to be stale.
            logs.into_iter().filter(|log| matches!(log, Ok(_) | Err(Error::Read { .. }))).collect()
        };
        let opened = look.mounted.open(&path).and_then(|content| Hive::open(content, logs));
        Self { hive: look.note(name, opened), name }
    }

    fn is_dirty(&self) -> bool {
        self.hive.as_ref().is_some_and(Hive::is_dirty)
    }

    fn ask<T: Default>(&self, look: &mut Look<'_>, ask: impl FnOnce(&Hive) -> Result<T>) -> T {
        let answer = self.hive.as_ref().map(ask);
        answer.and_then(|answer| look.note(self.name, answer)).unwrap_or_default()
    }

    fn key(&self, look: &mut Look<'_>, path: &str) -> Option<Key> {
        self.ask(look, |hive| hive.key(path))
    }

    fn value(&self, look: &mut Look<'_>, key: &Option<Key>, name: &str) -> Option<Value> {
        let key = key.as_ref()?;
        self.ask(look, |hive| hive.value(key, name))
    }

    fn values(&self, look: &mut Look<'_>, key: &Option<Key>) -> Vec<Value> {
        key.as_ref().map(|key| self.ask(look, |hive| hive.values(key))).unwrap_or_default()
    }

    /// The set of controls that was in use.
    fn current_control(&self, look: &mut Look<'_>) -> Option<String> {
        let select = self.key(look, "Select");
        let current = self.value(look, &select, "Current")?.number()?;
        Some(format!("ControlSet{current:03}"))
    }
}

/// Where Windows is installed, unless somebody wanted otherwise.
const DIRECTORIES: &[&str] = &["/Windows", "/WINNT", "/WIN32", "/WTSRV"];
/// The first build of Windows 11.
const FIRST_BUILD_OF_11: u32 = 22_000;
