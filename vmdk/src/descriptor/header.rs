//! Typed views of the header and of the extents.

use std::borrow::Cow;

use super::{Cid, CreateType, Descriptor, ExtentLine, charset::Charset, line::Line};
use crate::error::{Error, Result};

impl Descriptor {
    /// Descriptor version; 1 unless changed block tracking (3) or newer features are used.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is missing or no number.
    pub fn version(&self) -> Result<u32> {
        let value = self.required("version")?;
        value.parse().map_err(|_| Error::malformed("descriptor", format!("version {value:?} is no number")))
    }

    /// Name of the encoding of names and values, as written; UTF-8 where nothing is said.
    ///
    /// An encoding that is not known (or a build without the feature `encodings`) is no error in itself: all
    /// bytes are kept, and only a name beyond ASCII cannot be read.
    pub fn encoding(&self) -> Cow<'_, str> {
        self.encoding_name().map_or(Cow::Borrowed("UTF-8"), String::from_utf8_lossy)
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

    /// `ddb.longContentID`: the content id in 128 bits, the low 32 of which are [`cid`](Self::cid).
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is there and does not have 32 hexadecimal digits.
    pub fn long_content_id(&self) -> Result<Option<u128>> {
        let Some(text) = self.ddb_get(LONG_CONTENT_ID) else { return Ok(None) };
        parse_long(&text).map(Some).ok_or_else(|| {
            Error::malformed("descriptor", format!("ddb.longContentID {text:?} does not have 32 hexadecimal digits"))
        })
    }

    /// Sets the content id, and with it a new `ddb.longContentID` that ends in it where one is kept.
    ///
    /// # Errors
    /// Never for a descriptor that could be parsed.
    pub fn set_cid(&mut self, cid: Cid) -> Result<()> {
        if self.ddb_get(LONG_CONTENT_ID).is_some() {
            let long = format!("{}{}{}{cid}", Cid::random(), Cid::random(), Cid::random());
            self.ddb_set(LONG_CONTENT_ID, &long)?;
        }
        self.set_value("CID", &cid.to_string())
    }

    /// How the disk was made; a hint only, the extents decide how it is read.
    pub fn create_type(&self) -> Option<CreateType> {
        self.value("createType").map(|value| CreateType::from_name(&value))
    }

    /// Where the parent is, as written by the program that made this link.
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::NotSupported`] for a name that cannot be read in the encoding.
    pub fn parent_file_name_hint(&self) -> Result<Option<Cow<'_, str>>> {
        self.file_name("parentFileNameHint")
    }

    /// Name of the changed block tracking file.
    ///
    /// # Errors
    /// As [`parent_file_name_hint`](Self::parent_file_name_hint).
    pub fn change_track_path(&self) -> Result<Option<Cow<'_, str>>> {
        self.file_name("changeTrackPath")
    }

    /// The extents in disk order.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an extent line that cannot be understood: leaving one out would shift all
    /// data after it. [`Error::NotSupported`] for a name that needs an unknown encoding.
    pub fn extents(&self) -> Result<Vec<ExtentLine>> {
        let charset = self.charset();
        let extents = self.lines.iter().filter(|line| line.is_extent());
        extents.map(|line| ExtentLine::parse(&self.decode(charset, &line.text)?)).collect()
    }

    /// Replaces all extent lines; other lines stay where they are.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for an extent that would not be read back as it is: a name with a quote, or with
    /// characters that the descriptor's encoding does not have.
    pub fn set_extents(&mut self, extents: &[ExtentLine]) -> Result<()> {
        let charset = self.charset();
        let mut lines = Vec::with_capacity(extents.len());
        for extent in extents {
            let text = extent.to_string();
            let same = !text.contains(['\n', '\r', '\0']) && ExtentLine::parse(&text).is_ok_and(|read| read == *extent);
            match charset.encode(&text).filter(|_| same) {
                Some(bytes) => lines.push(bytes.into_owned()),
                None => return Err(Error::invalid("extent", format!("{text:?} cannot be written in a descriptor"))),
            }
        }
        let first = self.lines.iter().position(Line::is_extent);
        self.lines.retain(|line| !line.is_extent());
        let at = first.unwrap_or_else(|| self.header_insertion_point());
        for (index, line) in lines.into_iter().enumerate() {
            self.insert(at + index, line);
        }
        Ok(())
    }

    /// Size of the disk in bytes: the sum of the extents, `ZERO` extents included.
    ///
    /// # Errors
    /// As [`extents`](Self::extents), and [`Error::Malformed`] when the sum is absurd.
    pub fn capacity(&self) -> Result<u64> {
        self.extents()?.iter().try_fold(0_u64, |sum, extent| {
            sum.checked_add(extent.len())
                .ok_or_else(|| Error::malformed("descriptor", "the sizes of the extents overflow"))
        })
    }

    pub(super) fn charset(&self) -> Charset {
        self.encoding_name().map_or(Charset::Utf8, Charset::of_name)
    }

    fn file_name(&self, key: &str) -> Result<Option<Cow<'_, str>>> {
        let entry = self.lines.iter().filter_map(Line::entry).find(|entry| entry.is(key));
        entry.map(|entry| self.decode(self.charset(), entry.value)).transpose()
    }

    /// Text of `bytes` that must not be misread: a name.
    fn decode<'a>(&self, charset: Charset, bytes: &'a [u8]) -> Result<Cow<'a, str>> {
        charset.decode(bytes).ok_or_else(|| {
            let (encoding, text) = (self.encoding(), String::from_utf8_lossy(bytes));
            match charset {
                Charset::Unknown => Error::not_supported(
                    "descriptor",
                    format!("the encoding {encoding:?} of {text:?}"),
                    "names in it cannot be read beyond ASCII",
                ),
                _ => Error::malformed("descriptor", format!("{text:?} is not valid in its encoding, {encoding}")),
            }
        })
    }

    fn encoding_name(&self) -> Option<&[u8]> {
        let value = |key| self.lines.iter().filter_map(Line::entry).find(|entry| entry.is(key));
        value("encoding").or_else(|| value("ddb.encoding")).map(|entry| entry.value)
    }

    fn required(&self, key: &'static str) -> Result<Cow<'_, str>> {
        self.value(key).ok_or_else(|| Error::malformed("descriptor", format!("there is no {key}")))
    }
}

const LONG_CONTENT_ID: &str = "longContentID";

fn parse_long(text: &str) -> Option<u128> {
    let digits = text.trim();
    let plain = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(digits, 16).ok().filter(|_| plain)
}
