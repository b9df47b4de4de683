//! What a copy of a disk must not keep: names of files that stay behind.

use std::mem;

use super::{Descriptor, line::Line};

impl Descriptor {
    /// Forgets changed block tracking: drops `changeTrackPath` with its comment and takes `version` back to
    /// 1, as VMware asks of software that copies a disk without its tracking file. Returns whether anything
    /// changed.
    pub fn strip_change_tracking(&mut self) -> bool {
        let stripped = self.strip_section("Change Tracking File", |key| key.eq_ignore_ascii_case(b"changeTrackPath"));
        let tracked_version = self.version().is_ok_and(|version| version == 3 || (stripped && version > 1));
        if tracked_version
            && let Some(line) = self.lines.iter_mut().find(|line| line.entry().is_some_and(|e| e.is("version")))
        {
            line.replace_value(b"1");
        }
        stripped || tracked_version
    }

    /// Forgets I/O filters: drops `ddb.iofilters` and `ddb.sidecars` (and entries under them), which name
    /// filters of the host and their files beside the disk. A host refuses a copy that still names them
    /// (Broadcom KB 334555). Returns whether anything changed.
    ///
    /// The data of a disk encrypted or replicated by a filter stay what they are: only the names go.
    pub fn strip_io_filters(&mut self) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| {
            !line.entry().is_some_and(|entry| {
                [&b"ddb.iofilters"[..], b"ddb.sidecars"].iter().any(|key| is_or_is_under(entry.key, key))
            })
        });
        self.lines.len() != before
    }

    /// Drops the entries with such keys, the comment that titles them, and one of the blank lines around them.
    fn strip_section(&mut self, title: &str, is_of_section: impl Fn(&[u8]) -> bool) -> bool {
        let before = self.lines.len();
        let is_entry = |line: &Line| line.entry().is_some_and(|entry| is_of_section(entry.key));
        let is_title = |line: &Line| line.comment().is_some_and(|text| text.eq_ignore_ascii_case(title));
        let mut kept: Vec<Line> = Vec::with_capacity(before);
        let mut lines = mem::take(&mut self.lines).into_iter().peekable();
        while let Some(line) = lines.next() {
            if !is_entry(&line) {
                kept.push(line);
                continue;
            }
            kept.pop_if(|line| is_title(line));
            if kept.last().is_some_and(Line::is_blank) {
                lines.next_if(Line::is_blank);
            }
        }
        self.lines = kept;
        self.lines.len() != before
    }
}

/// Whether `key` is `parent` or `parent.something`.
fn is_or_is_under(key: &[u8], parent: &[u8]) -> bool {
    key.split_at_checked(parent.len())
        .is_some_and(|(start, rest)| start.eq_ignore_ascii_case(parent) && (rest.is_empty() || rest[0] == b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sections_are_dropped_in_one_pass() {
        let mut text = "version=3\n".to_owned();
        text.extend((0..60_000).map(|_| "\n# Change Tracking File\nchangeTrackPath=\"a\"\n"));
        text += "\nend=1\n";
        let mut descriptor = Descriptor::parse(text.as_bytes()).unwrap();
        assert!(descriptor.strip_change_tracking());
        assert_eq!(descriptor.to_string(), "version=1\n\nend=1\n");
    }
}
