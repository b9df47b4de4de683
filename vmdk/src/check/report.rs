//! The outcome of a check: exact counts, and the first findings of each kind.

use std::{collections::BTreeMap, fmt};

use super::problem::{Problem, Severity};
use crate::error::Error;

/// What a check found.
///
/// Counts are exact; of each kind only the first findings are kept, so that a report stays small whatever the
/// image holds.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<Finding>,
    counts: BTreeMap<Problem, u64>,
    usage: Usage,
    per_kind: u64,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind it is.
    pub problem: Problem,
    /// The file that it is in.
    pub file: String,
    /// Where in the file.
    pub place: Place,
    /// What exactly was found, with the values.
    pub detail: String,
}

/// Where in a file a finding is; what does not apply is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Sector of the file, counted from its beginning.
    pub sector: Option<u64>,
    /// Number of the grain in its extent.
    pub grain: Option<u64>,
    /// Number of the grain table in its extent.
    pub table: Option<u64>,
}

/// What the files of the disk hold, as far as the check could see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Links that were checked.
    pub links: u64,
    /// Grains that are stored.
    pub grains: u64,
    /// Bytes of files that are used by nothing.
    pub leaked: u64,
}

impl Report {
    pub(super) fn new(per_kind: u64) -> Self {
        Self { per_kind, ..Self::default() }
    }

    /// The findings that were kept, in the order in which they were met.
    pub fn findings(&self) -> impl ExactSizeIterator<Item = &Finding> {
        self.findings.iter()
    }

    /// How often each kind was found.
    pub fn counts(&self) -> impl ExactSizeIterator<Item = (Problem, u64)> {
        self.counts.iter().map(|(problem, count)| (*problem, *count))
    }

    /// How often `problem` was found.
    pub fn count(&self, problem: Problem) -> u64 {
        self.counts.get(&problem).copied().unwrap_or(0)
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// The worst severity found.
    pub fn worst(&self) -> Option<Severity> {
        self.counts.keys().map(|problem| problem.severity()).max()
    }

    /// What the files hold.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) fn usage_mut(&mut self) -> &mut Usage {
        &mut self.usage
    }

    pub(super) fn add(&mut self, problem: Problem, file: &str, place: Place, detail: impl Into<String>) {
        self.add_many(1, problem, file, place, || detail.into());
    }

    /// A header that was refused: of a kind that is not known, or damaged.
    pub(super) fn add_refused_header(&mut self, file: &str, error: &Error) {
        let unknown = matches!(error, Error::NotSupported { .. });
        let problem = if unknown { Problem::NotSupported } else { Problem::HeaderDamaged };
        self.add(problem, file, Place::sector(0), error.to_string());
    }

    /// Counts `count` findings of one kind and keeps one of them.
    pub(super) fn add_many(
        &mut self,
        count: u64,
        problem: Problem,
        file: &str,
        place: Place,
        detail: impl FnOnce() -> String,
    ) {
        let before = self.count(problem);
        *self.counts.entry(problem).or_default() += count;
        if before < self.per_kind {
            let (file, detail) = (cut(file.to_owned()), cut(detail()));
            self.findings.push(Finding { problem, file, place, detail });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("no problem found");
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for (problem, count) in &self.counts {
            writeln!(f, "{count} x {problem:?} ({}): {}", problem.severity(), problem.advice())?;
        }
        Ok(())
    }
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.problem.severity()
    }

    /// What to do.
    pub fn advice(&self) -> &'static str {
        self.problem.advice()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {:?} ({}): {}", self.file, self.place, self.problem, self.severity(), self.detail)
    }
}

impl Place {
    pub(crate) fn sector(sector: u64) -> Self {
        Self { sector: Some(sector), ..Self::default() }
    }

    pub(crate) fn table(table: u64) -> Self {
        Self { table: Some(table), ..Self::default() }
    }

    pub(crate) fn grain(grain: u64) -> Self {
        Self { grain: Some(grain), ..Self::default() }
    }

    pub(crate) fn at(self, sector: u64) -> Self {
        Self { sector: Some(sector), ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("table", self.table), ("grain", self.grain), ("sector", self.sector)];
        parts
            .iter()
            .filter_map(|(name, value)| Some((name, (*value)?)))
            .try_for_each(|(name, value)| write!(f, ", {name} {value}"))
    }
}

/// Names and values come from the image and may have megabytes.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Characters of a finding's text.
const MAX_TEXT: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_all_and_keeps_the_first() {
        let mut report = Report::new(2);
        for grain in 0..1000 {
            report.add(Problem::GrainOutside, "a.vmdk", Place::grain(grain).at(7), "x".repeat(10_000));
        }
        report.add(Problem::Leaked, "a.vmdk", Place::default(), "y");
        assert_eq!((report.count(Problem::GrainOutside), report.findings().len()), (1000, 3));
        assert_eq!(report.worst(), Some(Severity::Damaged));
        let text = report.to_string();
        assert!(
            text.len() < 2000 && text.contains("a.vmdk, grain 1, sector 7: GrainOutside (damaged data): xx"),
            "{text}"
        );
    }
}
