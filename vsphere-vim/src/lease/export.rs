//! Exporting: a machine's or a snapshot's disks as streams.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use ring::digest;
use vsphere_vim_types::{
    HttpNfcLeaseManifestEntry, ManagedObjectReference, MoRef,
    methods::{ExportSnapshot, ExportVm, HttpNfcLeaseGetManifest},
    mo,
};

use super::{Lease, LeaseDevice, LeaseOptions, keeper::Shared};
use crate::{
    client::Vim,
    error::{Call, Error, Result, TransportError, TransportErrorKind},
    transport::{
        SESSION_COOKIE,
        stream::{ByteStream, StreamRequest, StreamVerb, steps},
    },
};

impl Vim {
    /// Leases the disks of a machine that is off.
    ///
    /// # Errors
    /// [`Error::Fault`] with `InvalidPowerState`, `TaskInProgress`, `NoPermission`; [`Error::TimedOut`] when the server
    /// does not become ready.
    ///
    /// # Privileges
    /// `VApp.Export`.
    ///
    /// # Cancel safety
    /// A dropped future aborts the lease in the background, if the server had answered; else the server lets it time
    /// out.
    #[doc(alias = "ExportVm")]
    pub async fn export_vm(&self, vm: &MoRef<mo::VirtualMachine>, options: LeaseOptions) -> Result<ExportLease> {
        let lease = self.invoke(vm, ExportVm::default()).await?;
        ExportLease::take(self, lease, options).await
    }

    /// Leases the disks of a snapshot, while the machine may run.
    ///
    /// # Errors
    /// As [`export_vm`](Self::export_vm), but for the power state.
    ///
    /// # Privileges
    /// `VApp.Export`.
    ///
    /// # Cancel safety
    /// As [`export_vm`](Self::export_vm).
    ///
    /// # Since
    /// vSphere 5.5.
    #[doc(alias = "ExportSnapshot")]
    pub async fn export_snapshot(
        &self,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        options: LeaseOptions,
    ) -> Result<ExportLease> {
        let lease = self.invoke(snapshot, ExportSnapshot::default()).await?;
        ExportLease::take(self, lease, options).await
    }
}

/// A lease on disks to be read. Dropping it aborts it.
#[derive(Debug)]
pub struct ExportLease {
    lease: Lease,
    verify: bool,
    received: Arc<Mutex<BTreeMap<String, ExportedFile>>>,
}

/// What an export brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// The files that were read to their end.
    pub files: Vec<ExportedFile>,
}

impl ExportReport {
    /// How many files the server's manifest confirmed.
    pub fn checked(&self) -> usize {
        self.files.iter().filter(|file| file.checked).count()
    }
}

/// A file that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportedFile {
    /// The device's [`LeaseDevice::key`].
    pub key: String,
    /// Bytes received.
    pub bytes: u64,
    /// Their SHA-1, hexadecimal: what OVF manifests and older servers use.
    pub sha1: String,
    /// Their SHA-256, hexadecimal.
    pub sha256: String,
    /// True when the server's manifest says the same.
    pub checked: bool,
}

impl ExportLease {
    async fn take(vim: &Vim, lease: MoRef<mo::HttpNfcLease>, options: LeaseOptions) -> Result<Self> {
        let verify = options.verify;
        Ok(Self { lease: Lease::take(vim, lease, &options).await?, verify, received: Arc::default() })
    }

    /// The files that can be read.
    pub fn devices(&self) -> &[LeaseDevice] {
        &self.lease.devices
    }

    /// The machine or snapshot that is exported.
    pub fn entity(&self) -> &ManagedObjectReference {
        &self.lease.entity
    }

    /// Begins to read a file: from its beginning, at once with others if wanted.
    ///
    /// # Errors
    /// [`Error::Transport`] when the host does not serve it; the lease's own failure when it is lost.
    ///
    /// # Cancel safety
    /// Cancel safe: a file may be asked for again.
    pub async fn download(&self, device: &LeaseDevice) -> Result<DeviceStream> {
        let shared = Arc::clone(&self.lease.shared);
        if let Some(failure) = shared.failure() {
            return Err(failure);
        }
        let mut request = StreamRequest::new(StreamVerb::Get, device.target.clone());
        if device.target.is_on_server() {
            request.cookie = self.lease.vim.session().cookie_for_use().map(|cookie| (SESSION_COOKIE, cookie));
        }
        let response = self.lease.vim.stream(OPERATION, request).await?;
        if !(200..300).contains(&response.status) {
            let kind = TransportErrorKind::HttpStatus(response.status);
            let text = format!("{}: {}", device.key, response.explanation().await);
            return Err(Error::transport(OPERATION, TransportError::new(kind, text)));
        }
        let expected = response.content_length();
        let receiving = Receiving {
            key: device.key.clone(),
            body: Some(response.body),
            shared,
            bytes: 0,
            expected,
            sha1: digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            sha256: digest::Context::new(&digest::SHA256),
            received: Arc::clone(&self.received),
        };
        let stream = steps(receiving, |mut receiving| {
            Box::pin(async move {
                let piece = receiving.next().await;
                (receiving, piece)
            })
        });
        Ok(DeviceStream { len: expected, stream: Box::pin(stream) })
    }

    /// Ends the lease: compares what was received with the server's manifest, where it has one, and completes.
    ///
    /// # Errors
    /// [`Error::Protocol`] when a file is not what the server says that it sent, the lease's own failure when it is
    /// lost, and those of [`Vim::invoke`]. After an error the lease is aborted.
    ///
    /// # Cancel safety
    /// A dropped future aborts the lease in the background, if it was not completed.
    #[doc(alias = "HttpNfcLeaseComplete")]
    pub async fn complete(mut self) -> Result<ExportReport> {
        let mut files: Vec<_> = std::mem::take(&mut *lock(&self.received)).into_values().collect();
        if self.verify && !files.is_empty() {
            let manifest = self.manifest().await.unwrap_or_default();
            for file in &mut files {
                if let Err(what) = check(file, &manifest) {
                    let call = Call::on("HttpNfcLeaseGetManifest", self.lease.moref.as_untyped());
                    self.lease.abort().await;
                    return Err(Error::protocol(call, what));
                }
            }
        }
        self.lease.complete().await?;
        Ok(ExportReport { files })
    }

    /// Gives the lease up and waits until the server knows.
    ///
    /// # Cancel safety
    /// A dropped future may leave the lease to time out.
    #[doc(alias = "HttpNfcLeaseAbort")]
    pub async fn abort(mut self) {
        self.lease.abort().await;
    }

    /// The server's manifest; not every server has one, and an export does not fail for want of it.
    async fn manifest(&self) -> Option<Vec<HttpNfcLeaseManifestEntry>> {
        match self.lease.vim.invoke(&self.lease.moref, HttpNfcLeaseGetManifest::default()).await {
            Ok(manifest) => Some(manifest),
            Err(error) => {
                tracing::info!(%error, lease = %self.lease.moref, "no manifest; nothing to compare with");
                None
            }
        }
    }
}

/// Compares a file with its entry, as far as the entry says anything.
fn check(file: &mut ExportedFile, manifest: &[HttpNfcLeaseManifestEntry]) -> Result<(), String> {
    let Some(entry) = manifest.iter().find(|entry| entry.key == file.key) else { return Ok(()) };
    let differs = |what: &str, own: &str, said: &str| {
        Err(format!("{}: {what} {own} was received, but the manifest says {said}", file.key))
    };
    if entry.size > 0 && u64::try_from(entry.size).ok() != Some(file.bytes) {
        return differs("a length of", &file.bytes.to_string(), &entry.size.to_string());
    }
    let kind = entry.checksum_type.as_deref().unwrap_or_default().to_ascii_lowercase().replace('-', "");
    let newer = entry.checksum.as_deref().filter(|_| kind == "sha256").map(|said| (said, &file.sha256));
    let older = entry.checksum.as_deref().filter(|_| kind == "sha1").map(|said| (said, &file.sha1));
    let oldest = Some((entry.sha1.as_str(), &file.sha1));
    for (said, own) in [newer, older, oldest].into_iter().flatten() {
        let said = said.trim();
        if said.is_empty() {
            continue;
        }
        if !said.eq_ignore_ascii_case(own) {
            return differs("the digest", own, said);
        }
        file.checked = true;
    }
    Ok(())
}

/// The bytes of one file: a [`Stream`], with [`DeviceStream::try_next`] for those without stream combinators.
///
/// Bounded memory: what is not taken is not read; the lease stays alive meanwhile.
pub struct DeviceStream {
    len: Option<u64>,
    stream: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
}

impl DeviceStream {
    /// Bytes to come in all; hosts make disks while they send them and do not know it.
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// True when it is known that nothing comes.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection broke (the file has to be read again from its beginning), the lease's
    /// own failure when it is lost. After an error the stream ends.
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub async fn try_next(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.stream.as_mut().poll_next(cx)).await.transpose()
    }
}

impl Stream for DeviceStream {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().stream.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for DeviceStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceStream").field("len", &self.len).finish_non_exhaustive()
    }
}

struct Receiving {
    key: String,
    /// `None` after the end or an error.
    body: Option<ByteStream>,
    shared: Arc<Shared>,
    bytes: u64,
    expected: Option<u64>,
    sha1: digest::Context,
    sha256: digest::Context,
    received: Arc<Mutex<BTreeMap<String, ExportedFile>>>,
}

impl Receiving {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let body = self.body.as_mut()?;
        let piece = tokio::select! {
            biased;
            () = self.shared.lost() => None,
            piece = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)) => Some(piece),
        };
        let failure = match piece {
            Some(Some(Ok(bytes))) => {
                self.bytes += bytes.len() as u64;
                self.shared.add(bytes.len() as u64);
                self.sha1.update(&bytes);
                self.sha256.update(&bytes);
                return Some(Ok(bytes));
            }
            Some(None) if self.expected.is_none_or(|expected| expected == self.bytes) => {
                self.body = None;
                self.note();
                return None;
            }
            Some(None) => Error::transport(
                OPERATION,
                TransportError::new(TransportErrorKind::Disconnected, "the body ended too early"),
            ),
            Some(Some(Err(source))) => Error::transport(OPERATION, source),
            None => self.shared.failure()?,
        };
        self.body = None;
        Some(Err(failure))
    }

    fn note(&self) {
        let file = ExportedFile {
            key: self.key.clone(),
            bytes: self.bytes,
            sha1: hex(self.sha1.clone().finish().as_ref()),
            sha256: hex(self.sha256.clone().finish().as_ref()),
            checked: false,
        };
        lock(&self.received).insert(self.key.clone(), file);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const OPERATION: &str = "GET of a leased device";

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ExportedFile {
        ExportedFile { key: "/vm-1/disk:0".into(), bytes: 5, sha1: "aa".into(), sha256: "bb".into(), checked: false }
    }

    fn entry(size: i64, sha1: &str, checksum: Option<(&str, &str)>) -> Vec<HttpNfcLeaseManifestEntry> {
        vec![HttpNfcLeaseManifestEntry {
            key: "/vm-1/disk:0".into(),
            size,
            sha1: sha1.into(),
            checksum: checksum.map(|(_, value)| value.into()),
            checksum_type: checksum.map(|(kind, _)| kind.into()),
            ..Default::default()
        }]
    }

    #[test]
    fn a_manifest_confirms_refutes_or_says_nothing() {
        for (manifest, outcome) in [
            (entry(5, "AA", None), Ok(true)),
            (entry(5, "", Some(("SHA-256", "BB"))), Ok(true)),
            (entry(5, "", Some(("sha512", "zz"))), Ok(false)),
            (entry(0, "", None), Ok(false)),
            (Vec::new(), Ok(false)),
            (entry(6, "aa", None), Err(())),
            (entry(5, "ab", None), Err(())),
            (entry(5, "aa", Some(("sha256", "bc"))), Err(())),
        ] {
            let mut file = file();
            let checked = check(&mut file, &manifest).map(|()| file.checked).map_err(drop);
            assert_eq!(checked, outcome, "{manifest:?}");
        }
    }
}
