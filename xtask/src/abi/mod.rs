//! Comparing the declarations of `vixdisklib-sys` and `vixmntapi-sys` with a user's own headers of the VDDK.
//!
//! VMware's headers are not ours to have: whoever has them lets `bindgen` translate them, and this compares what came
//! out with what we declared by hand: functions and their parameters, sizes and offsets of structures, error codes.

mod bindings;
mod compare;

use std::{
    path::Path,
    process::{Command, ExitStatus},
};

use bindings::Bindings;

/// Translates the headers of `vddk` and compares. The text is a table; an error says what differs.
pub(crate) fn check(vddk: &Path) -> Result<String, String> {
    let include = ["include", ""].map(|folder| vddk.join(folder));
    let include = include.iter().find(|folder| folder.join(HEADER).is_file());
    let include = include.ok_or_else(|| format!("there is no include/{HEADER} in {}", vddk.display()))?;
    let mut text = translate(include, HEADER, "(VixDiskLib|VIXDISKLIB|VIX_|VixError).*")?;
    // It comes with the VDDK; whoever has the other alone is not kept from comparing that.
    if include.join(MOUNTING).is_file() {
        text.push_str(&translate(include, MOUNTING, "(VixMntapi|VixOsInfo|VixVolumeInfo|VixDiskSetInfo).*")?);
    }
    let bindings = Bindings::parse(&text);
    compare::all(&bindings)
}

fn translate(include: &Path, header: &str, items: &str) -> Result<String, String> {
    let mut bindgen = Command::new(BINDGEN);
    bindgen.arg(include.join(header)).args(["--allowlist-item", items]);
    bindgen.args(["--", "-I"]).arg(include);
    let output = bindgen.output().map_err(|error| {
        format!("bindgen could not be started ({error}); get it with `cargo install bindgen-cli`, it needs libclang")
    })?;
    match output.status {
        status if ExitStatus::success(&status) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        status => Err(format!("bindgen failed ({status}):\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

const HEADER: &str = "vixDiskLib.h";
const MOUNTING: &str = "vixMntapi.h";

/// 0.70 or newer: older ones write sizes and offsets in another style.
const BINDGEN: &str = "bindgen";

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    /// The directory whose `include` has our own header; `None`, said loudly, where `bindgen` is missing.
    fn own_header() -> Option<&'static Path> {
        if Command::new(BINDGEN).arg("--version").output().is_err() {
            // Past the capture of tests: whoever runs them is to see it.
            let _ = writeln!(std::io::stderr(), "PEER MISSING: {BINDGEN}; our header was not compared by it");
            return None;
        }
        Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vixdisklib/capi")))
    }

    #[test]
    fn our_header_as_bindgen_reads_it_is_what_we_declare() {
        let Some(own) = own_header() else { return };
        let table = check(own).unwrap_or_else(|table| panic!("{table}"));
        let same = |line: &&str| line.starts_with("same") && line.contains(" VixDiskLib");
        assert_eq!(table.lines().filter(same).count(), 43 + 6, "{table}");
    }

    #[test]
    fn a_header_that_was_changed_differs_in_what_was_changed() {
        let Some(own) = own_header() else { return };
        let header = fs::read_to_string(own.join("include").join(HEADER)).unwrap();
        let mut changed = header.clone();
        for (from, to) in CHANGES {
            assert!(changed.contains(from), "{from}");
            changed = changed.replacen(from, to, 1);
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(HEADER), changed).unwrap();
        let table = check(folder.path()).unwrap_err();
        let differing = table.lines().filter_map(|line| line.strip_prefix("DIFFERS ")?.split(' ').next());
        assert_eq!(differing.collect::<Vec<_>>(), DIFFERING, "{table}");
    }

    const CHANGES: [(&str, &str); 3] = [
        ("const char *path, Bool repair)", "const char *path, int repair)"),
        ("uint32 physicalSectorSize;\n} VixDiskLibInfo", "uint64 physicalSectorSize;\n} VixDiskLibInfo"),
        ("VIX_E_DISK_FULL = 8,", "VIX_E_DISK_FULL = 9,"),
    ];

    /// In the order of the table.
    const DIFFERING: [&str; 3] = ["VixDiskLib_CheckRepair", "VixDiskLibInfo", "VIX_E_DISK_FULL"];
}
