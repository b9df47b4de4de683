//! The manifest (`.mf`): a digest for each file of a package.

use std::{collections::HashMap, fmt};

use super::{
    digest::{Digest, DigestAlgorithm},
    name,
};
use crate::error::{Error, Result};

/// Digests of a package's files, in the order of the manifest's lines.
///
/// Read are `SHA1`, `SHA256` and `SHA512` lines, with blanks wherever some program writes them; written is
/// `SHA256(name)= hex`, the one form that every importer takes: ESXi refuses a blank before the parenthesis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<(String, Digest)>,
    by_name: HashMap<String, usize>,
}

impl Manifest {
    /// A manifest without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a manifest; `object` names it in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] for lines of another form and for a file listed twice, [`Error::NotSupported`] for other
    /// digests.
    pub fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::malformed(object, "the manifest is no UTF-8"))?;
        let mut manifest = Self::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |problem: &str| Error::malformed(object, format!("line {} {problem}", index + 1));
            let parts = line.rsplit_once('=').and_then(|(left, digits)| {
                let (word, name) = left.trim_end().strip_suffix(')')?.split_once('(')?;
                Some((word.trim(), name, digits.trim()))
            });
            let Some((word, name, digits)) = parts else { return Err(wrong("is not `digest(file)= hex`")) };
            let Some(algorithm) = DigestAlgorithm::from_name(word) else {
                return Err(Error::not_supported(
                    object,
                    format!("{word:?} digests"),
                    "only SHA1, SHA256 and SHA512 are",
                ));
            };
            let Some(digest) = Digest::from_hex(algorithm, digits) else {
                return Err(wrong(&format!("has no {algorithm} digest")));
            };
            let name = name::normal(name).map_err(|reason| wrong(&format!("names a file, but {reason}")))?;
            if !manifest.insert(name, digest) {
                return Err(wrong("lists a file for the second time"));
            }
        }
        Ok(manifest)
    }

    /// Adds a line; false when the file has one.
    pub fn insert(&mut self, name: impl Into<String>, digest: Digest) -> bool {
        let name = name.into();
        if self.by_name.contains_key(&name) {
            return false;
        }
        self.by_name.insert(name.clone(), self.entries.len());
        self.entries.push((name, digest));
        true
    }

    /// The digest of a file.
    pub fn get(&self, name: &str) -> Option<&Digest> {
        self.by_name.get(name).map(|index| &self.entries[*index].1)
    }

    /// All lines.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Digest)> {
        self.entries.iter().map(|(name, digest)| (name.as_str(), digest))
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(name, digest)| writeln!(f, "{}({name})= {digest}", digest.algorithm()))
    }
}

/// Largest manifest that is read: that of 65 536 pieces of a file with long names.
pub(super) const MAX_MANIFEST_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1: &str = "a9993e364706816aba3e25717850c26c9cd0d89d";

    #[test]
    fn reads_what_ovftool_esxi_and_openssl_write() {
        for text in [
            format!("SHA1(web.ovf)= {SHA1}\r\n"),
            format!("SHA1 (web.ovf) = {SHA1}"),
            format!("\u{feff}sha1(./web.ovf)={}\n\n", SHA1.to_uppercase()),
        ] {
            let manifest = Manifest::parse(text.as_bytes(), "mf").unwrap();
            assert_eq!(manifest.get("web.ovf").unwrap().to_string(), SHA1);
            assert_eq!(manifest.to_string(), format!("SHA1(web.ovf)= {SHA1}\n"));
        }
        let odd = Manifest::parse(format!("SHA1(a)=(b.vmdk)= {SHA1}").as_bytes(), "mf").unwrap();
        assert!(odd.get("a)=(b.vmdk").is_some());
    }

    #[test]
    fn refuses_what_it_cannot_check() {
        let twice = format!("SHA1(a)= {SHA1}\nSHA1(./a)= {SHA1}\n");
        for text in ["garbage", "SHA1(a)= 00", "SHA256(a)= a9993e", "SHA1(../a)= ", twice.as_str(), "SHA1 a= 12"] {
            assert!(matches!(Manifest::parse(text.as_bytes(), "mf"), Err(Error::Malformed { .. })), "{text}");
        }
        assert!(matches!(Manifest::parse(b"MD5(a)= 00", "mf"), Err(Error::NotSupported { .. })));
        assert!(Manifest::parse(b"SHA1(\xff)= 00", "mf").is_err());
    }
}
