//! pyVmomi, VMware's own client, as an oracle: what it reads of our texts, and what we read of its texts.
//!
//! One Python process serves the whole run. See `tests/pyvmomi/oracle.py` for the protocol.

mod canonical;
mod maker;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value as Json, json};
use vsphere_vim_types::xml::{Limits, Reader, Writer};
use vsphere_vim_types::{Any, Shape, Value as _, enum_names, type_info, type_names};

use maker::{Fill, Maker, Schema};

const SEED: u64 = 20_261_122;

#[test]
fn pyvmomi_and_the_model_read_each_other() {
    let Some(mut oracle) = Oracle::start() else { return };

    let mut peers = Peers::default();
    for line in &oracle.documents {
        peers.read(line["type"].as_str().unwrap(), line["xml"].as_str().unwrap(), &line["dump"]);
    }
    let theirs = peers.types.len();

    let mut ours = BTreeSet::new();
    let mut maker = Maker::new(&oracle.schema, SEED);
    for (name, _) in oracle.schema.data.iter().filter(|(name, _)| *name != "LocalizedMethodFault") {
        for fill in [Fill::Required, Fill::All, Fill::Random, Fill::Random] {
            let (xml, dump) = maker.document(name, fill);
            peers.read(name, &xml, &dump);
            ours.insert(name.clone());
        }
    }
    for (name, values) in &oracle.schema.enums {
        for value in values {
            let xml = maker::document(&format!(" xsi:type=\"{name}\""), value);
            peers.read(name, &xml, &json!(["enum", name, value]));
            ours.insert(name.clone());
        }
    }

    let answers = oracle.read(peers.written.iter().map(|written| written.xml.as_str()));
    for (written, answer) in peers.written.iter().zip(&answers) {
        if answer["dump"] != written.dump {
            peers.wrong.push(format!(
                "{}: pyVmomi reads our text as {answer}\n  instead of {}\n  text {}",
                written.type_name, written.dump, written.xml
            ));
        }
    }
    let shown: String = peers.wrong.iter().take(5).map(|one| format!("{one}\n")).collect();
    assert!(peers.wrong.is_empty(), "{} differences, the first:\n{shown}", peers.wrong.len());
    println!(
        "oracle: {theirs} types written by pyVmomi and read by us, {} types written by us and read by pyVmomi, {} texts",
        ours.len(),
        answers.len()
    );
    assert!(theirs >= 700 && ours.len() >= 700 && answers.len() >= 5000, "{theirs} {} {}", ours.len(), answers.len());
}

#[test]
fn fields_and_their_order_are_those_of_pyvmomi() {
    let Some(oracle) = Oracle::start() else { return };
    for (name, data) in &oracle.schema.data {
        let own: Vec<_> = type_info(name).unwrap().all_fields.iter().map(|info| (info.name, info.declared)).collect();
        // On the wire a field that is declared as a fault holds its localized wrapper.
        let declared = |declared: &str| {
            let fault = oracle.schema.data.get(declared).is_some_and(|data| data.fault);
            let managed = type_info(declared).is_none() && declared.starts_with(|c: char| c.is_ascii_uppercase());
            let known_enum = oracle.schema.enums.contains_key(declared);
            match declared {
                _ if fault && name != "LocalizedMethodFault" => "LocalizedMethodFault".to_owned(),
                _ if managed && !known_enum => "ManagedObjectReference".to_owned(),
                other => other.to_owned(),
            }
        };
        let theirs: Vec<_> = data.fields.iter().map(|field| (field.0.as_str(), declared(&field.1))).collect();
        let theirs: Vec<_> = theirs.iter().map(|(name, declared)| (*name, declared.as_str())).collect();
        if name != "LocalizedMethodFault" {
            assert_eq!(own, theirs, "{name}");
        }
    }
}

/// Texts that were read by us, and what became of them.
#[derive(Default)]
struct Peers {
    types: BTreeSet<String>,
    written: Vec<Written>,
    wrong: Vec<String>,
}

/// A value that we read and wrote again, for pyVmomi to read.
struct Written {
    type_name: String,
    xml: String,
    dump: Json,
}

impl Peers {
    /// Reads a text of which `dump` is the meaning, and writes its value again.
    fn read(&mut self, type_name: &str, xml: &str, dump: &Json) {
        self.types.insert(type_name.to_owned());
        let mut value = Any::Null;
        let mut reader = Reader::new(xml, Limits::default());
        let outcome = reader.next_child().and_then(|_| value.read(&mut reader));
        let read = canonical::of_any(&value);
        if outcome.is_err() || read != *dump {
            self.wrong.push(format!("{type_name}: {outcome:?}, read as {read}\n  instead of {dump}\n  text {xml}"));
            return;
        }
        let mut writer = Writer::new();
        writer.value("val", "anyType", Shape::Any(&value));
        let xml = writer.finish().replacen("<val", maker::document("", "").trim_end_matches("></val>"), 1);
        self.written.push(Written { type_name: type_name.to_owned(), xml, dump: dump.clone() });
    }
}

struct Oracle {
    child: Child,
    input: Option<BufWriter<ChildStdin>>,
    output: BufReader<ChildStdout>,
    schema: Schema,
    /// Objects that pyVmomi made and wrote.
    documents: Vec<Json>,
}

impl Oracle {
    /// Starts it; `None`, loudly, where there is no pyVmomi.
    fn start() -> Option<Self> {
        let Some(python) = python() else {
            eprintln!("PEER MISSING: python3 with pyVmomi. This test proves nothing; run scripts/install-peers");
            assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "pyVmomi is required");
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyvmomi/oracle.py");
        let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = BufWriter::new(child.stdin.take().unwrap());
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let types: Vec<_> = type_names().collect();
        let enums: Vec<_> = enum_names().collect();
        writeln!(input, "{}", json!({"types": types, "enums": enums, "seed": SEED})).unwrap();
        input.flush().unwrap();
        let schema = Schema::of(&next(&mut output)["schema"]);
        let mut documents = Vec::new();
        loop {
            let line = next(&mut output);
            match line["done"].as_u64() {
                None => documents.push(line),
                Some(count) => {
                    assert_eq!(count, documents.len() as u64);
                    break;
                }
            }
        }
        Some(Self { child, input: Some(input), output, schema, documents })
    }

    /// What pyVmomi reads of each text.
    fn read<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> Vec<Json> {
        let texts: Vec<String> =
            texts.enumerate().map(|(at, xml)| format!("{}\n", json!({"i": at, "xml": xml}))).collect();
        let count = texts.len();
        let mut input = self.input.take().unwrap();
        // Both pipes are finite: writing and reading go on at the same time.
        let writing = std::thread::spawn(move || texts.iter().try_for_each(|line| input.write_all(line.as_bytes())));
        let answers: Vec<Json> = (0..count).map(|_| next(&mut self.output)).collect();
        writing.join().unwrap().unwrap();
        assert!(answers.iter().enumerate().all(|(at, answer)| answer["i"] == at));
        answers
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // With its input at an end it ends by itself.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn next(output: &mut BufReader<ChildStdout>) -> Json {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "pyVmomi ended early; its message is above");
    serde_json::from_str(&line).unwrap()
}

/// A Python that has pyVmomi: the one named, the one that `scripts/install-peers` makes, the system's.
fn python() -> Option<PathBuf> {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers/venv/bin/python");
    let named = std::env::var_os("PYVMOMI_PYTHON").map(PathBuf::from);
    let mut all = named.into_iter().chain([installed.into(), "python3".into()]);
    all.find(|python| {
        let tried = Command::new(python).args(["-c", "import pyVmomi"]).output();
        tried.is_ok_and(|output| output.status.success())
    })
}
