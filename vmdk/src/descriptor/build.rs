//! Descriptors of new disks.

use super::{AdapterType, Cid, CreateType, Descriptor, DiskUuid, ExtentLine, Geometry};
use crate::error::Result;

/// What goes into the descriptor of a new disk.
#[derive(Debug, Clone)]
#[must_use]
pub struct NewDescriptor {
    create_type: CreateType,
    extents: Vec<ExtentLine>,
    cid: Cid,
    parent: Option<(Cid, String)>,
    adapter: Option<AdapterType>,
    hardware_version: Option<u32>,
    thin: bool,
    uuid: Option<DiskUuid>,
    model: Option<Descriptor>,
}

impl NewDescriptor {
    /// A base disk with a random content id, for an LSI Logic adapter.
    pub fn new(create_type: CreateType, extents: Vec<ExtentLine>) -> Self {
        Self {
            create_type,
            extents,
            cid: Cid::random(),
            parent: None,
            adapter: None,
            hardware_version: None,
            thin: false,
            uuid: None,
            model: None,
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
        self.adapter = Some(adapter);
        self
    }

    /// Sets the virtual hardware version.
    pub fn hardware_version(mut self, version: u32) -> Self {
        self.hardware_version = Some(version);
        self
    }

    /// Says that a `vmfs` disk takes space only where it was written.
    pub fn thin(mut self, thin: bool) -> Self {
        self.thin = thin;
        self
    }

    /// Sets the uuid that guests see.
    pub fn uuid(mut self, uuid: DiskUuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Takes everything from `model` that does not say which files the disk has, which parent, or how its changes
    /// are tracked: adapter, geometry, uuid, tools, comments and unknown lines. What is set here goes before it.
    pub fn like(mut self, model: Descriptor) -> Self {
        self.model = Some(model);
        self
    }

    /// Writes the descriptor.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) for names that cannot be written in a descriptor.
    pub fn build(&self) -> Result<Descriptor> {
        let mut descriptor = match &self.model {
            Some(model) => detached(model)?,
            None => Self::template()?,
        };
        descriptor.set_cid(self.cid)?;
        descriptor.set_value("createType", self.create_type.name())?;
        if let Some((cid, hint)) = &self.parent {
            descriptor.set_value("parentCID", &cid.to_string())?;
            descriptor.set_value("parentFileNameHint", hint)?;
        }
        if self.create_type == CreateType::Vmfs {
            descriptor.set_value("isNativeSnapshot", "no")?;
        }
        descriptor.set_extents(&self.extents)?;
        self.describe_hardware(&mut descriptor)?;
        Ok(descriptor)
    }

    /// A descriptor that says nothing yet.
    pub(crate) fn template() -> Result<Descriptor> {
        Descriptor::parse(TEMPLATE.as_bytes())
    }

    fn describe_hardware(&self, descriptor: &mut Descriptor) -> Result<()> {
        let known = descriptor.ddb_get("adapterType").map(|name| AdapterType::from_name(&name));
        let adapter = self.adapter.clone().or_else(|| known.clone()).unwrap_or(AdapterType::LsiLogic);
        let is_same = known.as_ref() == Some(&adapter);
        if !is_same {
            descriptor.ddb_set("adapterType", adapter.name())?;
        }
        // A guest that booted with a geometry expects it again.
        if self.parent.is_none() && !(is_same && Geometry::of(descriptor).is_some()) {
            Geometry::for_disk(descriptor.capacity()?, &adapter).store(descriptor)?;
        }
        if self.thin {
            descriptor.ddb_set("thinProvisioned", "1")?;
        } else {
            descriptor.ddb_remove("thinProvisioned");
        }
        if let Some(uuid) = self.uuid {
            descriptor.ddb_set("uuid", &uuid.to_string())?;
        }
        // A child takes it from its parent, as long as it has none of its own.
        let is_missing = self.parent.is_none() && descriptor.ddb_get("virtualHWVersion").is_none();
        if self.hardware_version.is_some() || is_missing {
            let version = self.hardware_version.unwrap_or(Self::DEFAULT_HARDWARE_VERSION);
            descriptor.ddb_set("virtualHWVersion", &version.to_string())?;
        }
        Ok(())
    }
}

/// `model` as a base disk without change tracking, and without what names objects of the host it came from.
fn detached(model: &Descriptor) -> Result<Descriptor> {
    let mut descriptor = model.clone();
    descriptor.strip_change_tracking();
    descriptor.strip_io_filters();
    for key in HOST_KEYS {
        descriptor.remove_value(key);
        descriptor.ddb_remove(key);
    }
    if descriptor.value("version").is_none() {
        descriptor.set_value("version", "1")?;
    }
    if descriptor.value("isNativeSnapshot").is_some() {
        descriptor.set_value("isNativeSnapshot", "no")?;
    }
    descriptor.set_value("parentCID", &Cid::NONE.to_string())?;
    Ok(descriptor)
}

/// What ties a descriptor to its chain, or to objects of one host: a parent's name, native snapshots, digests.
const HOST_KEYS: [&str; 7] = [
    "parentFileNameHint",
    "nativeParentCID",
    "nativeParentHint",
    "nativeDeltaBytes",
    "objectParentUri",
    "digestFilename",
    "digestType",
];

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
    fn a_disk_like_another_keeps_its_identity_and_loses_chain_and_tracking() {
        let model = "# Disk DescriptorFile\nversion=3\nencoding=\"UTF-8\"\nCID=11111111\nparentCID=22222222\n\
            isNativeSnapshot=\"no\"\ncreateType=\"vmfsSparse\"\nparentFileNameHint=\"b.vmdk\"\n\n\
            # Extent description\nRW 2048 VMFSSPARSE \"web-000001-delta.vmdk\"\n\n\
            # Change Tracking File\nchangeTrackPath=\"web-000001-ctk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
            ddb.adapterType = \"ide\"\nddb.geometry.cylinders = \"7\"\nddb.geometry.heads = \"16\"\n\
            ddb.geometry.sectors = \"63\"\n\
            ddb.thinProvisioned = \"1\"\nddb.vendor = \"kept\"\nddb.virtualHWVersion = \"21\"\n";
        let model = Descriptor::parse(model.as_bytes()).unwrap();
        let extent = ExtentLine::new(ExtentType::Vmfs, 4096, "web-flat.vmdk");
        let built = NewDescriptor::new(CreateType::Vmfs, vec![extent]).cid(Cid(5)).like(model).build().unwrap();
        let expected = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=00000005\nparentCID=ffffffff\n\
            isNativeSnapshot=\"no\"\ncreateType=\"vmfs\"\n\n\
            # Extent description\nRW 4096 VMFS \"web-flat.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
            ddb.adapterType = \"ide\"\nddb.geometry.cylinders = \"7\"\nddb.geometry.heads = \"16\"\n\
            ddb.geometry.sectors = \"63\"\nddb.vendor = \"kept\"\nddb.virtualHWVersion = \"21\"\n";
        assert_eq!(built.to_string(), expected);
    }

    #[test]
    fn a_child_names_its_parent() {
        let extent = ExtentLine::new(ExtentType::Sparse, 2048, "c.vmdk");
        let built =
            NewDescriptor::new(CreateType::MonolithicSparse, vec![extent]).parent(Cid(5), "p.vmdk").build().unwrap();
        assert_eq!(built.parent_cid().unwrap(), Cid(5));
        assert_eq!(built.parent_file_name_hint().unwrap().as_deref(), Some("p.vmdk"));
        assert!(Geometry::of(&built).is_none());
    }
}
