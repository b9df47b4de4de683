//! What a new First Class Disk is to be.

use vsphere_vim_types::{
    MoRef, Poly, VslmCreateSpec, VslmCreateSpecBackingSpec, VslmCreateSpecDiskFileBackingSpec, mo,
};

use super::{Provisioning, disk::MEGABYTE};
use crate::error::{Error, Result};

/// What a new First Class Disk is to be.
#[doc(alias = "VslmCreateSpec")]
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct CreateFcd {
    name: String,
    datastore: MoRef<mo::Datastore>,
    capacity: u64,
    folder: Option<String>,
    provisioning: Option<Provisioning>,
    keep_after_delete_vm: Option<bool>,
}

impl CreateFcd {
    /// A disk of `capacity` bytes on a datastore. The capacity has to be a multiple of 1 MiB.
    pub fn new(name: impl Into<String>, datastore: &MoRef<mo::Datastore>, capacity: u64) -> Self {
        Self {
            name: name.into(),
            datastore: datastore.clone(),
            capacity,
            folder: None,
            provisioning: None,
            keep_after_delete_vm: None,
        }
    }

    /// The folder on the datastore; `fcd` unless stated.
    pub fn folder(self, folder: impl Into<String>) -> Self {
        Self { folder: Some(folder.into()), ..self }
    }

    /// How its space is allocated; as the datastore sees fit unless stated.
    pub fn provisioning(self, provisioning: Provisioning) -> Self {
        Self { provisioning: Some(provisioning), ..self }
    }

    /// Whether it outlives a virtual machine that is deleted with it attached.
    pub fn keep_after_delete_vm(self, keep: bool) -> Self {
        Self { keep_after_delete_vm: Some(keep), ..self }
    }

    pub(super) fn into_wire(self) -> Result<VslmCreateSpec> {
        let whole = self.capacity > 0 && self.capacity.is_multiple_of(MEGABYTE);
        if !whole {
            return Err(Error::invalid_input("capacity", "a first class disk is a whole number of MiB, at least one"));
        }
        let capacity_in_mb = i64::try_from(self.capacity / MEGABYTE)
            .map_err(|_| Error::invalid_input("capacity", "beyond what the API can express"))?;
        let base = VslmCreateSpecBackingSpec { datastore: self.datastore, path: self.folder, ..Default::default() };
        let provisioning_type = self.provisioning.map(|kind| kind.as_str().to_owned());
        Ok(VslmCreateSpec {
            name: self.name,
            keep_after_delete_vm: self.keep_after_delete_vm,
            backing_spec: Poly::new(VslmCreateSpecDiskFileBackingSpec { provisioning_type, base }),
            capacity_in_mb,
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_mebibytes_can_be_asked_for() {
        let spec = |bytes| CreateFcd::new("data", &MoRef::new("datastore-1"), bytes).into_wire();
        for bytes in [0, 1, MEGABYTE - 1, MEGABYTE + 512] {
            assert!(matches!(spec(bytes), Err(Error::InvalidInput { .. })), "{bytes}");
        }
        assert_eq!(spec(64 * MEGABYTE).unwrap().capacity_in_mb, 64);
    }
}
