//! From XML to the typed descriptor.

use std::collections::{HashMap, HashSet};

use super::{
    Capacity, Compression, FileReference, HardwareItem, OvfDescriptor, VirtualDisk, VirtualSystem, units::bytes_of,
};
use crate::{
    error::{Error, Result},
    ova::{
        name,
        xml::{self, Element, Space},
    },
};

pub(super) fn descriptor(xml: &[u8], object: &str) -> Result<OvfDescriptor> {
    let root = xml::parse(xml, object)?;
    if !root.is("Envelope") {
        return Err(Error::not_supported(object, root.name, "only OVF 1 and 2 are: the root is not their Envelope"));
    }
    let reader = Reader { object };
    let mut descriptor = OvfDescriptor {
        files: reader.files(&root)?,
        disks: reader.disks(&root)?,
        networks: Vec::new(),
        systems: Vec::new(),
        xml: xml.to_vec(),
    };
    let networks = root.children("NetworkSection").flat_map(|section| section.children("Network"));
    descriptor.networks = networks.filter_map(|network| network.attribute("name")).map(str::to_owned).collect();
    reader.systems(&root, &mut descriptor.systems)?;
    reader.check_references(&descriptor)?;
    Ok(descriptor)
}

struct Reader<'a> {
    object: &'a str,
}

impl Reader<'_> {
    fn files(&self, root: &Element) -> Result<Vec<FileReference>> {
        let mut files = Vec::new();
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for element in root.children("References").flat_map(|section| section.children("File")) {
            let file = FileReference {
                id: self.required(element, "id")?.to_owned(),
                href: self.required(element, "href")?.to_owned(),
                size: self.number(element, "size")?,
                compression: Compression::from_name(element.attribute("compression").unwrap_or_default()),
                // Some programs write 0 for whole files.
                chunk_size: self.number(element, "chunkSize")?.filter(|size| *size > 0),
            };
            let refused =
                |reason| Error::PathRefused { object: self.object.to_owned(), name: file.href.clone(), reason };
            let spellings = name::of_href(&file.href).map_err(refused)?;
            if !ids.insert(file.id.clone()) {
                return Err(self.malformed(format!("two files have the id {:?}", file.id)));
            }
            if !spellings.into_iter().all(|name| names.insert(name)) {
                return Err(self.malformed(format!("two files are {:?}", file.href)));
            }
            if file.chunk_size.zip(file.size).is_some_and(|(chunk, size)| size.div_ceil(chunk) > MAX_CHUNKS) {
                return Err(self.malformed(format!("{:?} is cut into too many pieces", file.href)));
            }
            files.push(file);
        }
        Ok(files)
    }

    fn disks(&self, root: &Element) -> Result<Vec<VirtualDisk>> {
        let mut disks = Vec::new();
        for element in root.children("DiskSection").flat_map(|section| section.children("Disk")) {
            let owned = |name| element.attribute(name).filter(|value| !value.is_empty()).map(str::to_owned);
            disks.push(VirtualDisk {
                id: self.required(element, "diskId")?.to_owned(),
                capacity: self.capacity(element)?,
                file_ref: owned("fileRef"),
                format: owned("format"),
                populated_size: self.number(element, "populatedSize")?,
                parent_ref: owned("parentRef"),
            });
        }
        Ok(disks)
    }

    fn capacity(&self, disk: &Element) -> Result<Capacity> {
        let unit = disk.attribute("capacityAllocationUnits").unwrap_or("byte");
        let unit = bytes_of(unit).ok_or_else(|| self.malformed(format!("a capacity in units of {unit:?}")))?;
        let capacity = self.required(disk, "capacity")?;
        if let Some(name) = capacity.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            return Ok(Capacity::Property { name: name.to_owned(), unit });
        }
        let bytes = capacity.trim().parse().ok().and_then(|count: u64| count.checked_mul(unit));
        bytes.map(Capacity::Bytes).ok_or_else(|| self.malformed(format!("a disk has a capacity of {capacity:?}")))
    }

    /// Collections nest; the depth of the document bounds the recursion.
    fn systems(&self, parent: &Element, systems: &mut Vec<VirtualSystem>) -> Result<()> {
        for element in &parent.children {
            if element.is("VirtualSystemCollection") {
                self.systems(element, systems)?;
            } else if element.is("VirtualSystem") {
                systems.push(self.system(element)?);
            }
        }
        Ok(())
    }

    fn system(&self, element: &Element) -> Result<VirtualSystem> {
        let os = element.children("OperatingSystemSection").next();
        let sections = || element.children("VirtualHardwareSection");
        let mut items = Vec::new();
        for item in sections().flat_map(|section| &section.children) {
            // The latter two are those of OVF 2.
            if ["Item", "StorageItem", "EthernetPortItem"].iter().any(|name| item.is(name)) {
                items.push(self.item(item)?);
            }
        }
        Ok(VirtualSystem {
            id: element.attribute("id").unwrap_or_default().to_owned(),
            name: element.text_of(Space::Ovf, "Name").map(str::to_owned),
            os_id: os.and_then(|os| os.attribute("id")?.parse().ok()),
            vmware_os: os.and_then(|os| os.attribute_in(Space::Vmware, "osType")).map(str::to_owned),
            hardware: sections()
                .flat_map(|section| section.children("System"))
                .find_map(|system| system.text_of(Space::System, "VirtualSystemType"))
                .map(str::to_owned),
            items,
        })
    }

    fn item(&self, element: &Element) -> Result<HardwareItem> {
        let text = |name| element.text_of(Space::Cim, name);
        let owned = |name| text(name).map(str::to_owned);
        let all = |name| element.texts_of(Space::Cim, name).map(str::to_owned).collect();
        let kind = text("ResourceType").unwrap_or("0");
        Ok(HardwareItem {
            instance_id: owned("InstanceID").unwrap_or_default(),
            resource_type: kind.parse().map_err(|_| self.malformed(format!("a resource of type {kind:?}")))?,
            subtype: owned("ResourceSubType"),
            // OVF 0.9 and VirtualBox call it Caption.
            element_name: owned("ElementName").or_else(|| owned("Caption")),
            parent: owned("Parent"),
            address: owned("Address"),
            address_on_parent: owned("AddressOnParent"),
            host_resource: all("HostResource"),
            connection: all("Connection"),
            quantity: text("VirtualQuantity").and_then(|quantity| quantity.parse().ok()),
            allocation_units: owned("AllocationUnits"),
            configuration: element.attribute("configuration").map(str::to_owned),
        })
    }

    /// Whatever one part calls by its id is there, and no disk is its own ancestor.
    fn check_references(&self, descriptor: &OvfDescriptor) -> Result<()> {
        let files: HashSet<&str> = descriptor.files.iter().map(|file| file.id.as_str()).collect();
        let mut parents: HashMap<&str, Option<&str>> = HashMap::new();
        for disk in &descriptor.disks {
            if parents.insert(&disk.id, disk.parent_ref.as_deref()).is_some() {
                return Err(self.malformed(format!("two disks have the id {:?}", disk.id)));
            }
            if let Some(missing) = disk.file_ref.as_deref().filter(|file| !files.contains(file)) {
                return Err(self.malformed(format!("disk {:?} is in file {missing:?}, which is not listed", disk.id)));
            }
        }
        for disk in &descriptor.disks {
            let mut ancestor = disk.parent_ref.as_deref();
            let mut links = 0;
            while let Some(id) = ancestor {
                links += 1;
                let next = parents.get(id).filter(|_| links < MAX_LINKS);
                let Some(next) = next else {
                    let problem = format!("disk {:?} has {id:?} among its ancestors: missing, or too many", disk.id);
                    return Err(self.malformed(problem));
                };
                ancestor = *next;
            }
        }
        Ok(())
    }

    fn required<'e>(&self, element: &'e Element, name: &str) -> Result<&'e str> {
        let value = element.attribute(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| self.malformed(format!("a {} has no {name}", element.name)))
    }

    fn number(&self, element: &Element, name: &str) -> Result<Option<u64>> {
        let Some(text) = element.attribute(name).map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
        number.map(Some).ok_or_else(|| self.malformed(format!("a {} has {name} {text:?}", element.name)))
    }

    fn malformed(&self, problem: String) -> Error {
        Error::malformed(self.object, problem)
    }
}

/// As many members as an archive may have.
const MAX_CHUNKS: u64 = 65_536;
/// As for the links of a VMDK chain.
const MAX_LINKS: usize = 64;
