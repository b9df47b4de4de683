//! What was found, for the screen and, scrubbed, for a file.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::nfc::told;
use crate::subject::Subject;

/// How a question came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As this project assumes.
    Holds,
    /// Otherwise: this is what the project wants to know.
    Differs,
    /// A fact that no assumption stands against.
    Seen,
    /// It could not be asked.
    NotAsked,
    /// Something went wrong on the way, and what comes after it in its topic was not asked.
    BrokeOff,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::Differs => "DIFFERS",
            Self::Seen => "seen",
            Self::NotAsked => "not asked",
            Self::BrokeOff => "BROKE OFF",
        })
    }
}

struct Finding {
    topic: &'static str,
    question: String,
    verdict: Verdict,
    detail: String,
}

/// Findings in the order of asking.
#[derive(Default)]
pub(crate) struct Report(Vec<Finding>);

impl Report {
    /// A question and its answer.
    pub(crate) fn add(
        &mut self,
        topic: &'static str,
        question: impl Into<String>,
        verdict: Verdict,
        detail: impl Into<String>,
    ) {
        let finding = Finding { topic, question: question.into(), verdict, detail: detail.into() };
        eprintln!("  {}: {}", finding.topic, finding.question);
        self.0.push(finding);
    }

    /// A fact.
    pub(crate) fn seen(&mut self, topic: &'static str, question: impl Into<String>, detail: impl Into<String>) {
        self.add(topic, question, Verdict::Seen, detail);
    }

    /// An assumption that is true or not.
    pub(crate) fn holds(
        &mut self,
        topic: &'static str,
        question: impl Into<String>,
        holds: bool,
        detail: impl Into<String>,
    ) {
        self.add(topic, question, if holds { Verdict::Holds } else { Verdict::Differs }, detail);
    }

    /// A topic has ended: well, or with what went wrong.
    pub(crate) fn ended(&mut self, topic: &'static str, how: Result<(), Box<dyn Error>>) {
        if let Err(error) = how {
            self.add(topic, "the rest of it", Verdict::BrokeOff, told(&*error));
        }
    }

    /// Whether something went wrong on the way.
    pub(crate) fn broke_off(&self) -> bool {
        self.0.iter().any(|finding| finding.verdict == Verdict::BrokeOff)
    }

    /// Prints everything.
    pub(crate) fn print(&self) {
        println!("{self}");
        let count = |verdict| self.0.iter().filter(|finding| finding.verdict == verdict).count();
        println!(
            "{} hold, {} differ, {} seen, {} not asked, {} broke off",
            count(Verdict::Holds),
            count(Verdict::Differs),
            count(Verdict::Seen),
            count(Verdict::NotAsked),
            count(Verdict::BrokeOff)
        );
    }

    /// Writes report and traces into `folder`, which is made.
    pub(crate) fn write(&self, folder: &Path, subject: &Subject, soap: &Memory) -> Result<(), Box<dyn Error>> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("report.txt"), subject.scrub(&self.to_string()))?;
        std::fs::write(folder.join("soap.txt"), subject.scrub(&soap.text()))?;
        for (number, trace) in subject.recorder.traces().iter().enumerate() {
            std::fs::write(folder.join(format!("nfc-{number:03}.trace")), trace.to_string())?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut topic = "";
        for finding in &self.0 {
            if topic != finding.topic {
                topic = finding.topic;
                writeln!(f, "\n{topic}")?;
            }
            writeln!(f, "  [{:9}] {}: {}", finding.verdict, finding.question, finding.detail)?;
        }
        Ok(())
    }
}

/// Where the recorder of SOAP calls writes.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
