//! The text descriptor: parsed, edited and written back without losing a byte that is not ours.
//!
//! A [`Descriptor`] is a list of lines kept as they were found: comments, blanks, unknown keys, order, white
//! space and line ends. The typed views read from those lines and the setters replace one value in place, so
//! that a restore tool changes only what it owns. Keys and enumerated values are compared without case.
//! Names and values are in the encoding that the descriptor states, UTF-8 by default; what is not valid in it is
//! kept, shown with replacement characters, and never taken for a file name.

mod build;
mod charset;
mod cid;
mod ddb;
mod extent_line;
mod geometry;
mod header;
mod line;
mod strip;
mod uuid;
mod vocabulary;

use std::{borrow::Cow, fmt};

pub use self::{
    build::NewDescriptor,
    cid::Cid,
    extent_line::ExtentLine,
    geometry::{AdapterType, Geometry},
    uuid::DiskUuid,
    vocabulary::{CreateType, Device, ExtentAccess, ExtentType},
};
use self::{
    charset::Charset,
    ddb::is_ddb,
    line::{Line, LineEnd},
};
use crate::error::{Error, Result};

/// Largest descriptor that is read, in bytes. Real ones have one or two KiB; the largest legal ones are
/// those of 62 TB disks split into 2 GiB extents.
pub const MAX_DESCRIPTOR_BYTES: usize = 4 << 20;

/// A disk descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    lines: Vec<Line>,
}

impl Descriptor {
    /// Splits `bytes` into lines. Everything is accepted; what the lines mean is checked by the views.
    ///
    /// # Errors
    /// [`Error::Malformed`] above [`MAX_DESCRIPTOR_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_DESCRIPTOR_BYTES {
            let problem = format!("{} bytes, more than {MAX_DESCRIPTOR_BYTES}", bytes.len());
            return Err(Error::malformed("descriptor", problem));
        }
        Ok(Self { lines: line::split(bytes) })
    }

    /// Whether `bytes`, the beginning of a file, look like a descriptor: after comments and blank lines
    /// comes a `key=value` line with one of the header's keys.
    pub fn probe(bytes: &[u8]) -> bool {
        const HEADER: [&str; 5] = ["version", "encoding", "cid", "parentcid", "createtype"];
        let lines = line::split(&bytes[..bytes.len().min(64 * 1024)]);
        lines
            .iter()
            .find(|line| !line.is_blank() && !line.is_comment())
            .and_then(Line::entry)
            .is_some_and(|entry| HEADER.iter().any(|key| entry.key.eq_ignore_ascii_case(key.as_bytes())))
    }

    /// Returns the bytes: those parsed, except where a setter changed them.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| line.text.iter().chain(line.end.bytes())).copied().collect()
    }

    /// Returns the value of `key` without its quotes; the first one where a key occurs twice.
    pub fn value(&self, key: &str) -> Option<Cow<'_, str>> {
        let entry = self.lines.iter().filter_map(Line::entry).find(|entry| entry.is(key))?;
        Some(self.charset().decode_lossy(entry.value))
    }

    /// Sets the value of `key`, in place where the key exists. No byte of another line changes; a last line
    /// without a line end gets one when a line is added after it.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a key or value that cannot be written in a descriptor or not in its
    /// encoding, and for another encoding where names or values are not ASCII.
    pub fn set_value(&mut self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        if ["encoding", "ddb.encoding"].iter().any(|known| key.eq_ignore_ascii_case(known)) {
            self.check_new_encoding(value)?;
        }
        let charset = self.charset();
        let encode = |text: &str| charset.encode(text).map(Cow::into_owned);
        let unencodable =
            || Error::invalid("descriptor value", format!("{value:?} cannot be said in {}", self.encoding()));
        let bytes = encode(value).ok_or_else(unencodable)?;
        if let Some(line) = self.lines.iter_mut().find(|line| line.entry().is_some_and(|entry| entry.is(key))) {
            line.replace_value(&bytes);
            return Ok(());
        }
        let (at, empty) = if is_ddb(key) {
            (self.ddb_insertion_point(), format!("{key} = \"\""))
        } else if ["version", "CID", "parentCID"].iter().any(|bare| key.eq_ignore_ascii_case(bare)) {
            (self.header_insertion_point(), format!("{key}="))
        } else {
            (self.header_insertion_point(), format!("{key}=\"\""))
        };
        self.insert(at, empty.into_bytes());
        self.lines[at].replace_value(&bytes);
        Ok(())
    }

    /// Removes every line with `key`; returns whether there was one.
    pub fn remove_value(&mut self, key: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !line.entry().is_some_and(|entry| entry.is(key)));
        self.lines.len() != before
    }

    /// After the last entry that is not of the data base, or after the leading comments.
    fn header_insertion_point(&self) -> usize {
        let is_header = |line: &Line| line.entry().is_some_and(|entry| !entry.is_ddb());
        match self.lines.iter().rposition(is_header) {
            Some(last) => last + 1,
            None => self.lines.iter().take_while(|line| line.is_comment()).count(),
        }
    }

    /// After the last entry of the data base, or at the end.
    fn ddb_insertion_point(&self) -> usize {
        let is_ddb = |line: &Line| line.entry().is_some_and(|entry| entry.is_ddb());
        self.lines.iter().rposition(is_ddb).map_or(self.lines.len(), |last| last + 1)
    }

    /// Another encoding would give other names to the bytes that are there.
    fn check_new_encoding(&self, name: &str) -> Result<()> {
        let same = Charset::of_name(name.as_bytes()) == self.charset();
        if same || self.lines.iter().all(|line| line.is_comment() || line.text.is_ascii()) {
            return Ok(());
        }
        let problem = format!("{name:?}: the descriptor holds names or values in {}", self.encoding());
        Err(Error::invalid("descriptor encoding", problem))
    }

    fn insert(&mut self, at: usize, text: Vec<u8>) {
        let end = match self.lines.first().map(|line| line.end) {
            Some(LineEnd::CrLf) => LineEnd::CrLf,
            _ => LineEnd::Lf,
        };
        if let Some(previous) = at.checked_sub(1).and_then(|index| self.lines.get_mut(index))
            && previous.end == LineEnd::None
        {
            previous.end = end;
        }
        self.lines.insert(at, Line { text, end });
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.charset().decode_lossy(&self.to_bytes()))
    }
}

fn check_key(key: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b'"' | b'#');
    if key.is_empty() || !key.bytes().all(plain) {
        return Err(Error::invalid("descriptor key", format!("{key:?}")));
    }
    Ok(())
}

fn check_value(value: &str) -> Result<()> {
    if value.contains(['"', '\n', '\r', '\0']) {
        return Err(Error::invalid("descriptor value", format!("{value:?} holds a quote, a line end or a NUL")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACKED: &str = "# Disk DescriptorFile\r\nversion=3\r\nencoding=\"UTF-8\"\r\nCID=0a1b2c3d\r\nparentCID=ffffffff\r\n\
        CreateType = \"vmfs\"\r\n\r\n# Extent description\r\nRW 8388608 VMFS \"a b-flat.vmdk\"\r\n\r\n\
        # Change Tracking File\r\nchangeTrackPath=\"a b-ctk.vmdk\"\r\n\r\n# The Disk Data Base \r\n#DDB\r\n\r\n\
        ddb.adapterType = \"lsilogic\"\r\nddb.vendor.unknown = \"  kept = so \"\r\n";

    fn tracked() -> Descriptor {
        Descriptor::parse(TRACKED.as_bytes()).unwrap()
    }

    #[test]
    fn views_read_without_case() {
        let descriptor = tracked();
        assert_eq!(descriptor.version().unwrap(), 3);
        assert_eq!(descriptor.cid().unwrap(), Cid(0x0a1b_2c3d));
        assert_eq!(descriptor.parent_cid().unwrap(), Cid::NONE);
        assert_eq!(descriptor.create_type(), Some(CreateType::Vmfs));
        assert_eq!(descriptor.capacity().unwrap(), 4 << 30);
        assert_eq!(descriptor.ddb_get("ADAPTERTYPE").unwrap(), "lsilogic");
        assert_eq!(descriptor.ddb_get("ddb.vendor.unknown").unwrap(), "  kept = so ");
        assert_eq!(descriptor.ddb().count(), 2);
        assert_eq!(descriptor.extents().unwrap()[0].file_name.as_deref(), Some("a b-flat.vmdk"));
    }

    #[test]
    fn a_changed_value_changes_no_other_byte() {
        let mut descriptor = tracked();
        descriptor.set_value("createtype", "monolithicFlat").unwrap();
        let expected = TRACKED.replace("CreateType = \"vmfs\"", "CreateType = \"monolithicFlat\"");
        assert_eq!(descriptor.to_string(), expected);
    }

    #[test]
    fn new_values_go_to_their_section_with_the_files_line_ends() {
        let mut descriptor = tracked();
        descriptor.ddb_set("thinProvisioned", "1").unwrap();
        descriptor.set_value("isNativeSnapshot", "no").unwrap();
        let text = descriptor.to_string();
        assert!(text.ends_with("kept = so \"\r\nddb.thinProvisioned = \"1\"\r\n"), "{text}");
        assert!(text.contains("ctk.vmdk\"\r\nisNativeSnapshot=\"no\"\r\n"), "{text}");
        assert!(descriptor.ddb_remove("thinprovisioned") && descriptor.remove_value("isNativeSnapshot"));
        assert_eq!(descriptor.to_string(), TRACKED);
    }

    #[test]
    fn stripping_change_tracking_leaves_the_rest() {
        let mut descriptor = tracked();
        assert!(descriptor.strip_change_tracking());
        let expected = TRACKED
            .replace("# Change Tracking File\r\nchangeTrackPath=\"a b-ctk.vmdk\"\r\n\r\n", "")
            .replace("version=3", "version=1");
        assert_eq!(descriptor.to_string(), expected);
        assert!(!descriptor.strip_change_tracking());
    }

    #[test]
    fn a_value_inside_a_comment_does_not_count() {
        let descriptor = Descriptor::parse(b"# CID=11111111\n#createType=\"x\"\nCID=22222222").unwrap();
        assert_eq!(descriptor.cid().unwrap(), Cid(0x2222_2222));
        assert_eq!(descriptor.create_type(), None);
    }

    #[test]
    fn the_long_content_id_follows_the_short_one() {
        let mut descriptor =
            Descriptor::parse(b"CID=fffffffe\nddb.longContentID = \"0123456789abcdef01234567fffffffe\"\n").unwrap();
        descriptor.set_cid(Cid(7)).unwrap();
        assert_eq!(descriptor.cid().unwrap(), Cid(7));
        let long = descriptor.ddb_get("longContentID").unwrap();
        assert!(long.len() == 32 && long.ends_with("00000007"), "{long}");
    }

    #[test]
    fn values_that_would_break_the_file_are_refused() {
        let mut descriptor = tracked();
        for value in ["a\"b", "a\nb", "a\0b"] {
            assert!(descriptor.ddb_set("comment", value).is_err());
        }
        assert!(descriptor.set_value("a b", "c").is_err());
        assert_eq!(descriptor, tracked());
    }

    #[test]
    fn probe_needs_a_header_key_after_comments() {
        assert!(Descriptor::probe(TRACKED.as_bytes()));
        assert!(Descriptor::probe(b"\n# x\n  Version = 2\n"));
        assert!(!Descriptor::probe(b"# only a comment\n"));
        assert!(!Descriptor::probe(&[0; 512]));
    }
}
