//! Answers that are made to claim memory stay within the bound, measured by the kernel.
//!
//! A binary of its own that runs itself once for each case: the high-water mark of a process is never lowered.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::process::Command;

use vsphere_vim_types::soap::{self, Limits};
use vsphere_vim_types::{methods, type_names};

const BOUND: usize = 4 << 20;

/// What the process and its allocator need beside the values: page tables, free lists, the table of names.
const SLACK: usize = 4 << 20;

const CASE: &str = "VSPHERE_TYPES_MEMORY_CASE";

#[test]
fn no_answer_takes_more_memory_than_its_text_and_the_bound() {
    if let Ok(case) = std::env::var(CASE) {
        return measure(&case);
    }
    if high_water().is_none() {
        eprintln!("NOT MEASURED: this system has no /proc/self/status. This test proves nothing");
        return;
    }
    let named = ["objects", "unknown", "nested", "attributes", "text", "references", "prefixes", "depth"];
    // Every thirty-first type of the model as an empty item; together with what it holds from the beginning.
    let types = type_names().step_by(31).map(|name| format!("ArrayOf{name}"));
    for case in named.map(str::to_owned).into_iter().chain(types) {
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program)
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("no_answer_takes_more_memory_than_its_text_and_the_bound")
            .env(CASE, &case)
            .output()
            .unwrap();
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// In the child: decodes one text and looks how far the mark has moved.
fn measure(case: &str) {
    let text = hostile(case);
    let before = high_water().unwrap();
    let limits = Limits { memory: BOUND, ..Limits::default() };
    let outcome = soap::decode_response::<methods::RetrievePropertiesEx>(text.as_bytes(), limits);
    let grown = high_water().unwrap() - before;
    let refused = outcome.is_err();
    println!("{case}: {} bytes of text, {grown} bytes of memory, refused: {refused}", text.len());
    assert!(grown <= BOUND + text.len() + SLACK, "{grown} bytes for {} of text", text.len());
    if matches!(case, "objects" | "unknown" | "attributes" | "depth") {
        assert!(refused, "the bound was reached");
    }
}

fn hostile(case: &str) -> String {
    let fill = |piece: &str| piece.repeat((1 << 20) / piece.len());
    let inner = match case {
        "objects" => fill("<objects/>"),
        "unknown" => fill("<x/>"),
        "nested" => fill("<x><y/></x>"),
        "attributes" => fill(&format!("<x{}/>", " a=\"\"".repeat(200))),
        "text" => format!("<token>{}</token>", fill("0123456789")),
        "references" => format!("<token>{}</token>", fill("&#x10FFFF;")),
        "prefixes" => fill(&format!("<x{}/>", " xmlns:a=\"\"".repeat(400))),
        "depth" => "<x>".repeat(1 << 20),
        array => {
            let item = array.strip_prefix("ArrayOf").unwrap();
            let items = fill(&format!("<{item}/>"));
            format!("<objects><obj/><propSet><name/><val xsi:type=\"{array}\">{items}</val></propSet></objects>")
        }
    };
    format!("<Envelope><Body><R><returnval>{inner}</returnval></R></Body></Envelope>")
}

/// The most memory that the process ever had, in bytes.
fn high_water() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
}
