//! Which dialect of the API is spoken: the version in `SOAPAction`.
//!
//! The server lists what it speaks in `/sdk/vimServiceVersions.xml`; we speak every version that our model knows.
//! The newest common one is taken. `about.apiVersion` is another number and is not used here.

use std::fmt;

use vsphere_vim_types::{
    ApiVersion,
    xml::{Limits, Malformed, Reader},
};

use crate::error::{Error, Result};

/// A version of the `urn:vim25` namespace, such as `8.0.3.0` or `5.5`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WireVersion(Box<str>);

impl WireVersion {
    /// Takes a version id as the server writes it.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the text cannot be a version id.
    pub fn new(id: &str) -> Result<Self> {
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > 32 || !id.bytes().all(plausible) {
            return Err(Error::invalid_input("api_version", "not a version id such as 8.0.3.0"));
        }
        Ok(Self(id.into()))
    }

    /// The version used when the server publishes no list: the first one with changed block tracking.
    pub(crate) fn fallback() -> Self {
        Self("4.0".into())
    }

    /// The id as the server writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version as the model counts: what is newer than this, the server does not know.
    pub(crate) fn api_version(&self) -> ApiVersion {
        let [major, minor, update, patch] = numbers(&self.0).map(|number| u8::try_from(number).unwrap_or(u8::MAX));
        ApiVersion::new(major, minor, update, patch)
    }

    /// The value of the `SOAPAction` header.
    pub(crate) fn soap_action(&self) -> String {
        format!("{VIM_NAMESPACE}/{}", self.0)
    }

    /// True when this version is `other` or newer; compares the numbers in the ids.
    ///
    /// ```
    /// use vsphere_vim::version::WireVersion;
    /// let version = WireVersion::new("6.7.1")?;
    /// assert!(version.is_at_least("6.7") && version.is_at_least("6.7.1") && !version.is_at_least("7.0.0.0"));
    /// # Ok::<(), vsphere_vim::Error>(())
    /// ```
    pub fn is_at_least(&self, other: &str) -> bool {
        numbers(&self.0) >= numbers(other)
    }
}

impl fmt::Display for WireVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WireVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireVersion({})", self.0)
    }
}

/// The numbers of an id, padded: `2.5u2` is 2, 5, 2.
fn numbers(id: &str) -> [u32; 4] {
    let mut numbers = [0; 4];
    let parts = id.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    for (slot, part) in numbers.iter_mut().zip(parts) {
        *slot = part.parse().unwrap_or(u32::MAX);
    }
    numbers
}

/// What a server speaks, per namespace, in the order in which it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceVersions(Vec<(String, Vec<String>)>);

impl ServiceVersions {
    /// Reads `vimServiceVersions.xml`. Unknown elements are skipped; the amount kept is bounded.
    pub(crate) fn parse(xml: &[u8]) -> std::result::Result<Self, String> {
        let xml = std::str::from_utf8(xml).map_err(|_| "the list of versions is not UTF-8".to_owned())?;
        Self::read(xml).map_err(|error| error.to_string())
    }

    fn read(xml: &str) -> std::result::Result<Self, Malformed> {
        let mut reader = Reader::new(xml, LIMITS);
        let mut namespaces = Vec::new();
        if reader.next_child()? == Some("namespaces") {
            while let Some(child) = reader.next_child()? {
                if child == "namespace" {
                    reader.charge(size_of::<(String, Vec<String>)>())?;
                    namespaces.push(read_namespace(&mut reader)?);
                } else {
                    reader.skip()?;
                }
            }
        }
        reader.finish()?;
        Ok(Self(namespaces))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The versions of a namespace, newest first as the server lists them.
    pub(crate) fn of(&self, namespace: &str) -> &[String] {
        self.0.iter().find(|(name, _)| name == namespace).map_or(&[], |(_, versions)| versions)
    }

    /// The newest version of `urn:vim25` that both sides know.
    pub(crate) fn negotiate(&self) -> Result<WireVersion> {
        let offered = self.of(VIM_NAMESPACE);
        KNOWN
            .iter()
            .find(|known| offered.iter().any(|version| version == **known))
            .map(|known| WireVersion((*known).into()))
            .ok_or_else(|| {
                let namespaces: Vec<_> = self.0.iter().map(|(name, _)| name.as_str()).collect();
                let why = if offered.is_empty() {
                    format!("the server offers {namespaces:?}; changed block tracking needs {VIM_NAMESPACE} (vSphere 4.0 and later)")
                } else {
                    format!("the server offers the versions {offered:?} only")
                };
                Error::unsupported("the server's API", why)
            })
    }
}

/// A namespace's name and its versions: the present one, then those before it.
fn read_namespace(reader: &mut Reader<'_>) -> std::result::Result<(String, Vec<String>), Malformed> {
    let (mut name, mut versions) = (String::new(), Vec::new());
    while let Some(child) = reader.next_child()? {
        match child {
            "name" => name = kept(reader)?,
            "version" => versions.push(kept(reader)?),
            "priorVersions" => {
                while let Some(child) = reader.next_child()? {
                    if child == "version" { versions.push(kept(reader)?) } else { reader.skip()? }
                }
            }
            _ => reader.skip()?,
        }
    }
    Ok((name, versions))
}

/// A text that counts against the limit.
fn kept(reader: &mut Reader<'_>) -> std::result::Result<String, Malformed> {
    let text = reader.text()?;
    reader.charge(size_of::<String>() + text.len())?;
    Ok(text.trim().to_owned())
}

/// The namespace of the vSphere Web Services API since VI 2.5.
pub(crate) const VIM_NAMESPACE: &str = "urn:vim25";

/// Every version that the model covers, newest first (from pyVmomi 9.1.1.0).
const KNOWN: &[&str] = &[
    "9.1.1.0",
    "9.1.0.0",
    "9.0.0.0",
    "8.0.3.1",
    "8.0.3.0",
    "8.0.2.0",
    "8.0.1.0",
    "8.0.0.2",
    "8.0.0.1",
    "8.0.0.0",
    "7.0.3.2",
    "7.0.3.1",
    "7.0.3.0",
    "7.0.2.1",
    "7.0.2.0",
    "7.0.1.1",
    "7.0.1.0",
    "7.0.0.2",
    "7.0.0.0",
    "6.9.1",
    "6.8.7",
    "6.7.3",
    "6.7.2",
    "6.7.1",
    "6.7",
    "6.5",
    "6.0",
    "5.5",
    "5.1",
    "5.0",
    "4.1",
    "4.0",
    "2.5u2server",
    "2.5u2",
    "2.5",
];

/// Real lists are four elements deep and take some kilobytes.
const LIMITS: Limits = Limits { depth: 16, memory: 1 << 20 };

#[cfg(test)]
mod tests {
    use super::*;

    fn document(newest: &str, prior: &[&str]) -> String {
        let prior: String = prior.iter().map(|id| format!("<version>{id}</version>")).collect();
        format!(
            "<?xml version=\"1.0\"?><namespaces version=\"1.0\"><namespace><name>urn:vim25</name>\
             <version>{newest}</version><priorVersions>{prior}</priorVersions></namespace>\
             <namespace><name>urn:vim2</name><version>2.0</version></namespace></namespaces>"
        )
    }

    fn negotiate(xml: &str) -> Result<String> {
        ServiceVersions::parse(xml.as_bytes()).unwrap().negotiate().map(|version| version.to_string())
    }

    #[test]
    fn takes_the_newest_common_version() {
        assert_eq!(negotiate(&document("8.0.3.0", &["8.0.2.0", "6.7", "2.5"])).unwrap(), "8.0.3.0");
        assert_eq!(negotiate(&document("12.0.0.0", &["11.0", "8.0.2.0", "6.7"])).unwrap(), "8.0.2.0");
        assert_eq!(negotiate(&document("4.1", &["4.0", "2.5u2", "2.5"])).unwrap(), "4.1");
    }

    #[test]
    fn says_what_the_server_offers_when_nothing_is_common() {
        let old = "<namespaces><namespace><name>urn:vim2</name><version>2.0</version></namespace></namespaces>";
        assert!(negotiate(old).unwrap_err().to_string().contains("urn:vim2"));
        assert!(negotiate(&document("77", &[])).unwrap_err().to_string().contains("77"));
    }

    #[test]
    fn a_document_type_and_broken_lists_are_refused() {
        let good = document("8.0.3.0", &[]);
        let typed = good.replace("<namespaces ", "<!DOCTYPE a [<!ENTITY b \"8.0.3.0\">]><namespaces ");
        let deep = format!("<namespaces>{}", "<a>".repeat(100));
        let long = format!("<namespaces><namespace><name>{}</name></namespace></namespaces>", "x".repeat(2 << 20));
        for bad in [typed.as_str(), &good[..good.len() - 5], &deep, &long] {
            assert!(ServiceVersions::parse(bad.as_bytes()).is_err(), "{}", &bad[..60]);
        }
        assert!(ServiceVersions::parse(b"\xff").is_err());
        assert_eq!(ServiceVersions::parse(b"<html><body/></html>").unwrap(), ServiceVersions::default());
    }

    #[test]
    fn the_models_count_of_versions_is_found() {
        for (id, numbers) in [("8.0.3.0", [8, 0, 3, 0]), ("6.7", [6, 7, 0, 0]), ("2.5u2server", [2, 5, 2, 0])] {
            assert_eq!(WireVersion::new(id).unwrap().api_version().numbers(), numbers);
        }
    }

    #[test]
    fn known_versions_descend() {
        for pair in KNOWN.windows(2) {
            assert!(numbers(pair[0]) >= numbers(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn implausible_ids_are_refused() {
        for id in ["", "8.0\r\nX-Evil: 1", "8.0 ", &"1".repeat(40)] {
            assert!(WireVersion::new(id).is_err(), "{id:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_document_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = ServiceVersions::parse(&bytes);
        }

        #[test]
        fn no_cut_or_changed_document_panics(cut in 0..400_usize, at in 0..400_usize, byte: u8) {
            let mut xml = document("8.0.3.0", &["8.0.2.0", "6.7"]).into_bytes();
            let at = at % xml.len();
            xml[at] = byte;
            xml.truncate(cut);
            if let Ok(versions) = ServiceVersions::parse(&xml) {
                let _ = versions.negotiate();
            }
        }
    }
}
