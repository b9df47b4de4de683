//! Comparing the declarations of `vixdisklib-sys` with a user's own headers of the VDDK.
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
    let text = translate(include)?;
    let bindings = Bindings::parse(&text);
    compare::all(&bindings)
}

fn translate(include: &Path) -> Result<String, String> {
    let mut bindgen = Command::new("bindgen");
    bindgen.arg(include.join(HEADER)).args(["--allowlist-item", "(VixDiskLib|VIXDISKLIB|VIX_|VixError).*"]);
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
