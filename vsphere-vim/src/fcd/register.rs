//! Making a First Class Disk of a virtual disk that exists.

use crate::endpoint::Endpoint;

/// An existing virtual disk that is to become a First Class Disk.
#[doc(alias = "RegisterDisk")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RegisterFcd {
    datacenter: String,
    datastore: String,
    path: String,
    name: Option<String>,
}

impl RegisterFcd {
    /// The disk `path` (`web/web_1.vmdk`) on the datastore of that name in the datacenter of that inventory path
    /// (`dc1`, `folder/dc1`; `ha-datacenter` on an ESXi host).
    pub fn new(datacenter: impl Into<String>, datastore: impl Into<String>, path: impl Into<String>) -> Self {
        Self { datacenter: datacenter.into(), datastore: datastore.into(), path: path.into(), name: None }
    }

    /// The name that the disk gets; the server chooses one unless stated.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// The URL by which the server wants the disk named, and the name.
    pub(super) fn into_parts(self, endpoint: &Endpoint) -> (String, Option<String>) {
        let path: Vec<String> = self.path.split('/').filter(|step| !step.is_empty()).map(escape).collect();
        let url = format!(
            "https://{}/folder/{}?dcPath={}&dsName={}",
            endpoint.authority(),
            path.join("/"),
            escape(&self.datacenter),
            escape(&self.datastore)
        );
        (url, self.name)
    }
}

/// Percent-encoding of everything that has a meaning in URLs.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_url() {
        let endpoint = Endpoint::parse("https://vc.example/sdk").unwrap();
        let disk = RegisterFcd::new("f/dc 1", "ds&1", "a?b/c d.vmdk").name("data");
        let (url, name) = disk.into_parts(&endpoint);
        assert_eq!(url, "https://vc.example/folder/a%3Fb/c%20d.vmdk?dcPath=f%2Fdc%201&dsName=ds%261");
        assert_eq!(name.as_deref(), Some("data"));
    }
}
