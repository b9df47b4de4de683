//! What is known about the files of a package while it is read: which are checked, which wait for the manifest.

use std::collections::HashSet;

use super::{
    digest::{Digest, DigestAlgorithm, Hasher},
    manifest::Manifest,
};
use crate::error::{Error, Result};

/// Which files of a package were compared with its manifest.
///
/// A package without a manifest has none. A certificate (`.cert`) signs the manifest; this crate says whether there
/// is one and does not verify it: that takes trust anchors, which are the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Files whose digest is that of the manifest.
    pub verified: Vec<String>,
    /// Files of which the manifest says nothing.
    pub unverified: Vec<String>,
    /// Whether there is a manifest.
    pub has_manifest: bool,
    /// Whether there is a certificate, of whatever worth.
    pub has_certificate: bool,
}

#[derive(Debug)]
pub(super) struct Audit {
    object: String,
    manifest: Option<Manifest>,
    /// Digests made before the manifest came.
    waiting: Vec<(String, Vec<Digest>)>,
    result: Verification,
}

impl Audit {
    pub(super) fn new(object: impl Into<String>, manifest: Option<Manifest>) -> Self {
        let result = Verification { has_manifest: manifest.is_some(), ..Verification::default() };
        Self { object: object.into(), manifest, waiting: Vec::new(), result }
    }

    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    pub(super) fn certificate(&mut self) {
        self.result.has_certificate = true;
    }

    /// What to digest a file with: as the manifest has it; in all ways while there is none.
    pub(super) fn hashers(&self, name: &str) -> Vec<Hasher> {
        match &self.manifest {
            Some(manifest) => manifest.get(name).map(|digest| Hasher::new(digest.algorithm())).into_iter().collect(),
            None => DigestAlgorithm::ALL.map(Hasher::new).into(),
        }
    }

    /// A file was read to its end.
    pub(super) fn file(&mut self, name: &str, hashers: Vec<Hasher>) -> Result<()> {
        let digests: Vec<Digest> = hashers.into_iter().map(Hasher::finish).collect();
        if self.manifest.is_some() {
            return self.compare(name.to_owned(), &digests);
        }
        self.waiting.push((name.to_owned(), digests));
        Ok(())
    }

    /// The manifest came, before or after the files.
    pub(super) fn set_manifest(&mut self, manifest: Manifest) -> Result<()> {
        if self.manifest.is_some() {
            return Err(Error::malformed(&self.object, "the package has two manifests"));
        }
        self.manifest = Some(manifest);
        self.result.has_manifest = true;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().try_for_each(|(name, digests)| self.compare(name, &digests))
    }

    /// The package ends; whatever the manifest lists must have been there.
    pub(super) fn finish(mut self) -> Result<Verification> {
        let seen: HashSet<&str> = self.result.verified.iter().map(String::as_str).collect();
        if let Some(manifest) = &self.manifest
            && let Some((missing, _)) = manifest.iter().find(|(name, _)| !seen.contains(name))
        {
            let problem = format!("the manifest lists {missing}, which the package does not have");
            return Err(Error::malformed(&self.object, problem));
        }
        self.result.unverified.extend(self.waiting.into_iter().map(|(name, _)| name));
        Ok(self.result)
    }

    fn compare(&mut self, name: String, found: &[Digest]) -> Result<()> {
        match self.manifest.as_ref().and_then(|manifest| manifest.get(&name)) {
            None => self.result.unverified.push(name),
            Some(wanted) if found.contains(wanted) => self.result.verified.push(name),
            Some(wanted) => {
                let of_kind = found.iter().find(|digest| digest.algorithm() == wanted.algorithm());
                let found = of_kind.map(Digest::to_string).unwrap_or_default();
                let problem = format!("its {} is {found}, and the manifest says {wanted}", wanted.algorithm());
                return Err(Error::malformed(format!("{}: {name}", self.object), problem));
            }
        }
        Ok(())
    }
}
