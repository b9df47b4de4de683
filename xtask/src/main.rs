//! Chores of this repository.
//!
//! - `cargo xtask codegen` writes the generated model of `vsphere-vim-types` from `xtask/model/vim.json`;
//! - `cargo xtask codegen --check` fails when the committed files are not what it would write;
//! - `cargo xtask abi-check --vddk DIR` compares `vixdisklib-sys` and `vixmntapi-sys` with the headers in
//!   `DIR/include`, through `bindgen`.

mod abi;
mod codegen;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let result = match args.as_slice() {
        ["codegen"] => codegen::run(root, codegen::Mode::Write),
        ["codegen", "--check"] => codegen::run(root, codegen::Mode::Check),
        ["abi-check", "--vddk", directory] => abi::check(Path::new(directory)),
        _ => Err("usage: cargo xtask codegen [--check] | abi-check --vddk DIR".to_owned()),
    };
    match result {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
