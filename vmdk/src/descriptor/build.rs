//! Descriptors of new disks.

use super::{AdapterType, Cid, CreateType, Descriptor, ExtentLine, Geometry};
use crate::error::Result;

/// What goes into the descriptor of a new disk.
#[derive(Debug, Clone)]
#[must_use]
pub struct NewDescriptor {
    create_type: CreateType,
    extents: Vec<ExtentLine>,
    cid: Cid,
    parent: Option<(Cid, String)>,
    adapter: AdapterType,
    hardware_version: u32,
    thin: bool,
}

impl NewDescriptor {
    /// A base disk with a random content id, for an LSI Logic adapter.
    pub fn new(create_type: CreateType, extents: Vec<ExtentLine>) -> Self {
        Self {
            create_type,
            extents,
            cid: Cid::random(),
            parent: None,
            adapter: AdapterType::LsiLogic,
            hardware_version: Self::DEFAULT_HARDWARE_VERSION,
            thin: false,
        }
    }

    /// Virtual hardware of ESXi 6.7: every supported vSphere reads it.
    pub const DEFAULT_HARDWARE_VERSION: u32 = 14;

    /// Sets the content id.
    pub fn cid(mut self, cid: Cid) -> Self {
        self.cid = cid;
        self
    }

    /// Makes it a child of the disk with content id `cid`, found at `hint`.
    pub fn parent(mut self, cid: Cid, hint: impl Into<String>) -> Self {
        self.parent = Some((cid, hint.into()));
        self
    }

    /// Sets the adapter that the geometry is made for.
    pub fn adapter(mut self, adapter: AdapterType) -> Self {
        self.adapter = adapter;
        self
    }

    /// Sets the virtual hardware version.
    pub fn hardware_version(mut self, version: u32) -> Self {
        self.hardware_version = version;
        self
    }

    /// Says that a `vmfs` disk takes space only where it was written.
    pub fn thin(mut self, thin: bool) -> Self {
        self.thin = thin;
        self
    }

    /// Writes the descriptor.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) for names that cannot be written in a descriptor.
    pub fn build(&self) -> Result<Descriptor> {
        let mut descriptor = Descriptor::parse(TEMPLATE.as_bytes())?;
        descriptor.set_value("CID", &self.cid.to_string())?;
        descriptor.set_value("createType", self.create_type.name())?;
        if let Some((cid, hint)) = &self.parent {
            descriptor.set_value("parentCID", &cid.to_string())?;
            descriptor.set_value("parentFileNameHint", hint)?;
        }
        if self.create_type == CreateType::Vmfs {
            descriptor.set_value("isNativeSnapshot", "no")?;
        }
        descriptor.set_extents(&self.extents)?;
        descriptor.ddb_set("adapterType", self.adapter.name())?;
        if self.parent.is_none() {
            Geometry::for_disk(descriptor.capacity()?, &self.adapter).store(&mut descriptor)?;
        }
        if self.thin {
            descriptor.ddb_set("thinProvisioned", "1")?;
        }
        descriptor.ddb_set("virtualHWVersion", &self.hardware_version.to_string())?;
        Ok(descriptor)
    }
}

/// As VMware lays it out; the `RW 0 ZERO` line only marks where the extents go.
const TEMPLATE: &str = "\
# Disk DescriptorFile
version=1
encoding=\"UTF-8\"
CID=00000000
parentCID=ffffffff
createType=\"\"

# Extent description
RW 0 ZERO

# The Disk Data Base
#DDB

";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::ExtentType;

    #[test]
    fn a_new_flat_disk_is_written_as_vmware_does() {
        let extent = ExtentLine::new(ExtentType::Flat, 2048, "x-flat.vmdk");
        let built = NewDescriptor::new(CreateType::MonolithicFlat, vec![extent]).cid(Cid(0x1234_abcd)).build().unwrap();
        let expected = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=1234abcd\nparentCID=ffffffff\n\
            createType=\"monolithicFlat\"\n\n# Extent description\nRW 2048 FLAT \"x-flat.vmdk\" 0\n\n\
            # The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"1\"\n\
            ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"14\"\n";
        assert_eq!(built.to_string(), expected);
    }

    #[test]
    fn a_child_names_its_parent() {
        let extent = ExtentLine::new(ExtentType::Sparse, 2048, "c.vmdk");
        let built =
            NewDescriptor::new(CreateType::MonolithicSparse, vec![extent]).parent(Cid(5), "p.vmdk").build().unwrap();
        assert_eq!(built.parent_cid().unwrap(), Cid(5));
        assert_eq!(built.parent_file_name_hint().unwrap(), "p.vmdk");
        assert!(Geometry::of(&built).is_none());
    }
}
