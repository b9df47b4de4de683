//! The text descriptor: parsed, edited and written back without losing a byte that is not ours.
//!
//! A [`Descriptor`] is a list of lines kept as they were found: comments, blanks, unknown keys, order, white
//! space and line ends. The typed views read from those lines and the setters replace one value in place, so
//! that a restore tool changes only what it owns. Keys and enumerated values are compared without case.
//! Values decode as UTF-8, which is what ESXi writes; other bytes are kept, and shown with replacement
//! characters.

mod build;
mod extent_line;
mod geometry;
mod line;
mod uuid;
mod vocabulary;

use std::{borrow::Cow, fmt};

use self::line::{Line, LineEnd};
pub use self::{
    build::NewDescriptor,
    extent_line::ExtentLine,
    geometry::{AdapterType, Geometry},
    uuid::DiskUuid,
    vocabulary::{CreateType, ExtentAccess, ExtentType},
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

    // ---- Header ----

    /// Returns the value of `key` without its quotes; the first one where a key occurs twice.
    pub fn value(&self, key: &str) -> Option<Cow<'_, str>> {
        let entry = self.lines.iter().filter_map(Line::entry).find(|entry| entry.is(key))?;
        Some(String::from_utf8_lossy(entry.value))
    }

    /// Sets the value of `key`, in place where the key exists.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a key or value that cannot be written in a descriptor.
    pub fn set_value(&mut self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        if let Some(line) = self.lines.iter_mut().find(|line| line.entry().is_some_and(|entry| entry.is(key))) {
            line.replace_value(value);
            return Ok(());
        }
        let (at, text) = if is_ddb(key) {
            (self.ddb_insertion_point(), format!("{key} = \"{value}\""))
        } else if matches!(key.to_ascii_lowercase().as_str(), "version" | "cid" | "parentcid") {
            (self.header_insertion_point(), format!("{key}={value}"))
        } else {
            (self.header_insertion_point(), format!("{key}=\"{value}\""))
        };
        self.insert(at, text.into_bytes());
        Ok(())
    }

    /// Removes every line with `key`; returns whether there was one.
    pub fn remove_value(&mut self, key: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !line.entry().is_some_and(|entry| entry.is(key)));
        self.lines.len() != before
    }

    /// Descriptor version; 1 unless changed block tracking (3) or newer features are used.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is missing or no number.
    pub fn version(&self) -> Result<u32> {
        let value = self.required("version")?;
        value.parse().map_err(|_| Error::malformed("descriptor", format!("version {value:?} is no number")))
    }

    /// Content id: changes at the first write after each open.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is missing or not hexadecimal.
    pub fn cid(&self) -> Result<Cid> {
        Cid::parse(&self.required("CID")?)
    }

    /// Content id that the parent must have, [`Cid::NONE`] for a base disk. A missing line means no parent.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is not hexadecimal.
    pub fn parent_cid(&self) -> Result<Cid> {
        self.value("parentCID").map_or(Ok(Cid::NONE), |value| Cid::parse(&value))
    }

    /// Sets the content id, and with it the low 32 bits of `ddb.longContentID` where that is kept.
    ///
    /// # Errors
    /// Never for a descriptor that could be parsed.
    pub fn set_cid(&mut self, cid: Cid) -> Result<()> {
        if self.ddb_get("longContentID").is_some_and(|id| id.len() == 32) {
            let long = format!("{}{}{}{cid}", Cid::random(), Cid::random(), Cid::random());
            self.ddb_set("longContentID", &long)?;
        }
        self.set_value("CID", &cid.to_string())
    }

    /// How the disk was made; a hint only, the extents decide how it is read.
    pub fn create_type(&self) -> Option<CreateType> {
        self.value("createType").map(|value| CreateType::from_name(&value))
    }

    /// Where the parent is, as written by the program that made this link.
    pub fn parent_file_name_hint(&self) -> Option<Cow<'_, str>> {
        self.value("parentFileNameHint")
    }

    /// Name of the changed block tracking file.
    pub fn change_track_path(&self) -> Option<Cow<'_, str>> {
        self.value("changeTrackPath")
    }

    /// Forgets changed block tracking: drops `changeTrackPath` with its comment and takes `version` back to
    /// 1, as VMware asks of software that copies a disk without its tracking file. Returns whether anything
    /// changed.
    pub fn strip_change_tracking(&mut self) -> bool {
        let before = self.lines.len();
        let is_track = |line: &Line| line.entry().is_some_and(|entry| entry.is("changeTrackPath"));
        let is_title =
            |line: &Line| line.comment().is_some_and(|text| text.eq_ignore_ascii_case("Change Tracking File"));
        while let Some(at) = self.lines.iter().position(is_track) {
            self.lines.remove(at);
            let mut start = at;
            if at > 0 && is_title(&self.lines[at - 1]) {
                self.lines.remove(at - 1);
                start = at - 1;
            }
            // The section had blank lines on both sides: leave one.
            let blank = |index: usize| self.lines.get(index).is_some_and(Line::is_blank);
            if start > 0 && blank(start - 1) && blank(start) {
                self.lines.remove(start);
            }
        }
        let stripped = self.lines.len() != before;
        let tracked_version = self.version().is_ok_and(|version| version == 3 || (stripped && version > 1));
        if tracked_version
            && let Some(line) = self.lines.iter_mut().find(|line| line.entry().is_some_and(|e| e.is("version")))
        {
            line.replace_value("1");
        }
        stripped || tracked_version
    }

    // ---- Extents ----

    /// The extents in disk order.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an extent line that cannot be understood: leaving one out would shift all
    /// data after it.
    pub fn extents(&self) -> Result<Vec<ExtentLine>> {
        self.lines.iter().filter(|line| line.is_extent()).map(|line| ExtentLine::parse(&line.text)).collect()
    }

    /// Replaces all extent lines; other lines stay where they are.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a file name that cannot be written in a descriptor.
    pub fn set_extents(&mut self, extents: &[ExtentLine]) -> Result<()> {
        for extent in extents {
            extent.file_name.as_deref().map_or(Ok(()), check_value)?;
        }
        let first = self.lines.iter().position(Line::is_extent);
        self.lines.retain(|line| !line.is_extent());
        let at = first.unwrap_or_else(|| self.header_insertion_point());
        for (index, extent) in extents.iter().enumerate() {
            self.insert(at + index, extent.to_string().into_bytes());
        }
        Ok(())
    }

    /// Size of the disk in bytes: the sum of the extents, `ZERO` extents included.
    ///
    /// # Errors
    /// [`Error::Malformed`] when an extent line is damaged or the sum is absurd.
    pub fn capacity(&self) -> Result<u64> {
        self.extents()?.iter().try_fold(0_u64, |sum, extent| {
            sum.checked_add(extent.len())
                .ok_or_else(|| Error::malformed("descriptor", "the sizes of the extents overflow"))
        })
    }

    // ---- Disk data base ----

    /// Returns a value of the disk data base; `key` with or without `ddb.` in front.
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub fn ddb_get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.value(&ddb_key(key))
    }

    /// Sets a value of the disk data base; `key` with or without `ddb.` in front.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a key or value that cannot be written in a descriptor.
    #[doc(alias = "VixDiskLib_WriteMetadata")]
    pub fn ddb_set(&mut self, key: &str, value: &str) -> Result<()> {
        self.set_value(&ddb_key(key), value)
    }

    /// Removes a value of the disk data base; returns whether there was one.
    pub fn ddb_remove(&mut self, key: &str) -> bool {
        self.remove_value(&ddb_key(key))
    }

    /// All entries of the disk data base in order, keys without `ddb.`.
    #[doc(alias = "VixDiskLib_GetMetadataKeys")]
    pub fn ddb(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.lines.iter().filter_map(Line::entry).filter_map(|entry| {
            let key = entry.key.split_at_checked(4).filter(|(section, _)| section.eq_ignore_ascii_case(b"ddb."))?.1;
            Some((String::from_utf8_lossy(key), String::from_utf8_lossy(entry.value)))
        })
    }

    fn required(&self, key: &'static str) -> Result<Cow<'_, str>> {
        self.value(key).ok_or_else(|| Error::malformed("descriptor", format!("there is no {key}")))
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
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

/// Content id: 32 bits that change when the content does, written as eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cid(pub u32);

impl Cid {
    /// `parentCID` of a disk without a parent.
    pub const NONE: Self = Self(0xffff_ffff);
    /// Says that `ddb.longContentID` holds the content id.
    pub const LONG: Self = Self(0xffff_fffe);

    /// A fresh id that is neither [`Cid::NONE`] nor [`Cid::LONG`].
    pub fn random() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // RandomState is seeded by the operating system; an id needs to be different, not secret.
        Self((RandomState::new().build_hasher().finish() as u32) % Self::LONG.0)
    }

    /// Reads up to eight hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.trim();
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u32::from_str_radix(digits, 16) {
            Ok(id) if hexadecimal => Ok(Self(id)),
            _ => Err(Error::malformed("descriptor", format!("content id {text:?} is not hexadecimal"))),
        }
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

fn is_ddb(key: &str) -> bool {
    key.get(..4).is_some_and(|section| section.eq_ignore_ascii_case("ddb."))
}

fn ddb_key(key: &str) -> Cow<'_, str> {
    if is_ddb(key) { Cow::Borrowed(key) } else { Cow::Owned(format!("ddb.{key}")) }
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

    #[test]
    fn content_ids_are_eight_hexadecimal_digits() {
        assert_eq!(Cid::parse("FFFFFFFE").unwrap(), Cid::LONG);
        for bad in ["", "+1", "123456789", "xyz", "-1"] {
            assert!(Cid::parse(bad).is_err(), "{bad}");
        }
    }
}
