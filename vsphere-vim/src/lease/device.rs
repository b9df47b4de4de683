//! A device of a lease: what is behind one URL.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use vsphere_vim_types::HttpNfcLeaseDeviceUrl;

use crate::{
    endpoint::Endpoint,
    error::Result,
    transport::stream::StreamTarget,
    trust::{DigestKind, Thumbprint},
};

/// One file of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(alias = "HttpNfcLeaseDeviceUrl")]
pub struct LeaseDevice {
    /// The server's name for it, such as `/vm-42/VirtualLsiLogicController0:0`.
    pub key: String,
    /// For imports, the same with the name of the import specification instead of the id.
    pub import_key: String,
    /// True for a disk, whose bytes are a `streamOptimized` VMDK; false for other files (NVRAM, ISO images).
    pub is_disk: bool,
    /// The file's name in an OVF package, such as `disk-0.vmdk`.
    pub target_id: Option<String>,
    /// Bytes of the file, where the server knows them before; a disk's depend on how well it compresses.
    pub file_size: Option<u64>,
    /// Where its bytes go.
    pub(super) target: StreamTarget,
}

impl LeaseDevice {
    pub(super) fn from_wire(url: &HttpNfcLeaseDeviceUrl, server: &Endpoint) -> Result<Self> {
        let said = Some(url.ssl_thumbprint.trim()).filter(|text| !text.is_empty()).map(str::parse).transpose()?;
        let thumbprint: Option<Thumbprint> = said.or_else(|| {
            let certificate = CertificateDer::from_pem_slice(url.ssl_certificate.as_deref()?.as_bytes()).ok()?;
            Some(Thumbprint::of(DigestKind::Sha256, &certificate))
        });
        let target = StreamTarget::parse(&url.url, server, thumbprint)?;
        let looks_like_disk = || target.path().split('?').next().is_some_and(|path| path.ends_with(".vmdk"));
        Ok(Self {
            key: url.key.clone(),
            import_key: url.import_key.clone(),
            // Servers before 4.1 do not say it.
            is_disk: url.disk.unwrap_or_else(looks_like_disk),
            target_id: url.target_id.clone(),
            file_size: url.file_size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
            target,
        })
    }

    /// The host that serves it; `None` for the connected server.
    pub fn host(&self) -> Option<&str> {
        self.target.host()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(url: &str, thumbprint: &str) -> Result<LeaseDevice> {
        let wire = HttpNfcLeaseDeviceUrl {
            key: "/vm-1/disk:0".into(),
            url: url.into(),
            ssl_thumbprint: thumbprint.into(),
            file_size: Some(-1),
            ..Default::default()
        };
        LeaseDevice::from_wire(&wire, &Endpoint::parse("https://vc.example").unwrap())
    }

    #[test]
    fn disks_are_known_by_their_name_where_the_server_says_nothing() {
        let disk = device("https://*/nfc/52/disk-0.vmdk", "").unwrap();
        assert_eq!((disk.is_disk, disk.file_size, disk.host()), (true, None, None));
        assert!(!device("https://esx1/nfc/52/web.nvram", "").unwrap().is_disk);
        assert_eq!(device("https://esx1/nfc/52/web.nvram", &["0A"; 20].join(":")).unwrap().host(), Some("esx1"));
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        assert!(device("https://esx1/nfc/52/x", "0A:1B").is_err());
        assert!(device("http://esx1/nfc/52/x", "").is_err());
    }
}
