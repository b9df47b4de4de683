//! From a spec to the XML of a descriptor.

use std::io;

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

use super::{
    descriptor::{Bus, STREAM_OPTIMIZED, resource},
    spec::{DiskController, OvfSpec},
    xml::{CIM_PREFIX, OVF, VMWARE},
};
use crate::error::{Error, Result};

/// What is known of a file when the descriptor is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileFacts {
    pub(super) size: u64,
    /// Bytes of the disk in use.
    pub(super) populated: Option<u64>,
}

/// Writes the descriptor; `facts` are those of the spec's files, in order.
///
/// # Errors
/// [`Error::InvalidInput`] for hardware that cannot be, and for text that XML cannot hold.
pub(super) fn compose(spec: &OvfSpec, facts: &[FileFacts]) -> Result<Vec<u8>> {
    spec.check()?;
    let networks = spec.networks.iter().flat_map(|network| [&network.network, &network.adapter]);
    let settings = spec.settings.iter().flat_map(|(key, value)| [key, value]);
    let names = [&spec.name, &spec.os.1, &spec.hardware].into_iter().chain(networks).chain(settings);
    // Lines in notes are welcome; in attributes, they would come back as blanks.
    let texts = names.map(|name| (name, false)).chain(spec.annotation.iter().map(|text| (text, true)));
    for (text, has_lines) in texts {
        let is_impossible = |found: char| {
            (found.is_control() && !(has_lines && matches!(found, '\n' | '\t')))
                || matches!(found, '\u{fffe}' | '\u{ffff}')
        };
        if text.contains(is_impossible) {
            return Err(Error::invalid("text of the descriptor", format!("{text:?} holds control characters")));
        }
    }
    let mut document = Document { writer: Writer::new_with_indent(Vec::new(), b' ', 2) };
    let written = document.envelope(spec, facts);
    written.map_err(|error| Error::io("write", "the descriptor", None, error))?;
    let mut bytes = document.writer.into_inner();
    bytes.push(b'\n');
    Ok(bytes)
}

struct Document {
    writer: Writer<Vec<u8>>,
}

type Attributes<'a> = &'a [(&'a str, &'a str)];

impl Document {
    fn envelope(&mut self, spec: &OvfSpec, facts: &[FileFacts]) -> io::Result<()> {
        self.writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let (rasd, vssd) = (cim("CIM_ResourceAllocationSettingData"), cim("CIM_VirtualSystemSettingData"));
        let attributes =
            [("xmlns", OVF), ("xmlns:ovf", OVF), ("xmlns:rasd", &rasd), ("xmlns:vmw", VMWARE), ("xmlns:vssd", &vssd)];
        self.inside("Envelope", &attributes, |document| {
            document.references(spec, facts)?;
            document.disks(spec, facts)?;
            document.networks(spec)?;
            document.system(spec)
        })
    }

    fn references(&mut self, spec: &OvfSpec, facts: &[FileFacts]) -> io::Result<()> {
        self.inside("References", &[], |document| {
            for (index, (href, facts)) in spec.hrefs().zip(facts).enumerate() {
                let (id, size) = (file_id(index), facts.size.to_string());
                document.empty("File", &[("ovf:href", href), ("ovf:id", &id), ("ovf:size", &size)])?;
            }
            Ok(())
        })
    }

    fn disks(&mut self, spec: &OvfSpec, facts: &[FileFacts]) -> io::Result<()> {
        self.section("DiskSection", "Virtual disk information", |document| {
            for (index, (disk, facts)) in spec.disks.iter().zip(facts).enumerate() {
                let (capacity, populated) = (disk.capacity.to_string(), facts.populated.map(|size| size.to_string()));
                let (disk_id, file_id) = (disk_id(index), file_id(index));
                let mut attributes = vec![
                    ("ovf:capacity", capacity.as_str()),
                    ("ovf:capacityAllocationUnits", "byte"),
                    ("ovf:diskId", &disk_id),
                    ("ovf:fileRef", &file_id),
                    ("ovf:format", STREAM_OPTIMIZED),
                ];
                attributes.extend(populated.as_deref().map(|size| ("ovf:populatedSize", size)));
                document.empty("Disk", &attributes)?;
            }
            Ok(())
        })
    }

    fn networks(&mut self, spec: &OvfSpec) -> io::Result<()> {
        let mut names: Vec<&str> = spec.networks.iter().map(|network| network.network.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        self.section("NetworkSection", "The list of logical networks", |document| {
            for name in names {
                document.inside("Network", &[("ovf:name", name)], |document| document.text("Description", name))?;
            }
            Ok(())
        })
    }

    fn system(&mut self, spec: &OvfSpec) -> io::Result<()> {
        self.inside("VirtualSystem", &[("ovf:id", &spec.name)], |document| {
            document.text("Info", "A virtual machine")?;
            document.text("Name", &spec.name)?;
            let (os_id, os) = (spec.os.0.to_string(), spec.os.1.as_str());
            let attributes = [("ovf:id", os_id.as_str()), ("vmw:osType", os)];
            document.inside("OperatingSystemSection", &attributes, |document| {
                document.text("Info", "The guest operating system")
            })?;
            if let Some(annotation) = &spec.annotation {
                document.section("AnnotationSection", "Notes", |document| document.text("Annotation", annotation))?;
            }
            document.section("VirtualHardwareSection", "Virtual hardware", |document| document.hardware(spec))
        })
    }

    fn hardware(&mut self, spec: &OvfSpec) -> io::Result<()> {
        self.inside("System", &[], |document| {
            document.text("vssd:ElementName", "Virtual Hardware Family")?;
            document.text("vssd:InstanceID", "0")?;
            document.text("vssd:VirtualSystemIdentifier", &spec.name)?;
            document.text("vssd:VirtualSystemType", &spec.hardware)
        })?;
        let mut ids = 1..;
        let mut next_id = || ids.next().unwrap_or_default().to_string();
        self.quantity(
            &next_id(),
            resource::PROCESSOR,
            "hertz * 10^6",
            &format!("{} virtual CPU(s)", spec.processors),
            u64::from(spec.processors),
        )?;
        self.quantity(
            &next_id(),
            resource::MEMORY,
            "byte * 2^20",
            &format!("{}MB of memory", spec.memory_mib),
            spec.memory_mib,
        )?;

        let mut controllers: Vec<(DiskController, u32, String)> = Vec::new();
        for disk in &spec.disks {
            if !controllers.iter().any(|(kind, number, _)| (*kind, *number) == (disk.controller, disk.bus_number)) {
                let id = next_id();
                self.controller(disk.controller, disk.bus_number, &id)?;
                controllers.push((disk.controller, disk.bus_number, id));
            }
        }
        for (index, disk) in spec.disks.iter().enumerate() {
            let of = |found: &&(DiskController, u32, String)| (found.0, found.1) == (disk.controller, disk.bus_number);
            let parent = controllers.iter().find(of).map_or("", |(_, _, id)| id);
            self.item(&[
                ("AddressOnParent", &disk.unit.to_string()),
                ("ElementName", &format!("Hard disk {}", index + 1)),
                ("HostResource", &format!("ovf:/disk/{}", disk_id(index))),
                ("InstanceID", &next_id()),
                ("Parent", parent),
                ("ResourceType", &resource::DISK.to_string()),
            ])?;
        }
        for (index, network) in spec.networks.iter().enumerate() {
            self.item(&[
                ("AddressOnParent", &(FIRST_ETHERNET + index).to_string()),
                ("AutomaticAllocation", "true"),
                ("Connection", &network.network),
                ("Description", &format!("{} ethernet adapter on \"{}\"", network.adapter, network.network)),
                ("ElementName", &format!("Network adapter {}", index + 1)),
                ("InstanceID", &next_id()),
                ("ResourceSubType", &network.adapter),
                ("ResourceType", &resource::ETHERNET.to_string()),
            ])?;
        }
        for (key, value) in &spec.settings {
            self.empty("vmw:Config", &[("ovf:required", "false"), ("vmw:key", key), ("vmw:value", value)])?;
        }
        Ok(())
    }

    fn quantity(&mut self, id: &str, kind: u16, unit: &str, name: &str, count: u64) -> io::Result<()> {
        self.item(&[
            ("AllocationUnits", unit),
            ("Description", name),
            ("ElementName", name),
            ("InstanceID", id),
            ("ResourceType", &kind.to_string()),
            ("VirtualQuantity", &count.to_string()),
        ])
    }

    fn controller(&mut self, controller: DiskController, number: u32, id: &str) -> io::Result<()> {
        let (name, kind) = match controller.bus() {
            Bus::Ide => ("IDE", resource::IDE_CONTROLLER),
            Bus::Sata => ("SATA", resource::STORAGE_CONTROLLER),
            Bus::Nvme => ("NVME", resource::STORAGE_CONTROLLER),
            _ => ("SCSI", resource::SCSI_CONTROLLER),
        };
        let (number, kind) = (number.to_string(), kind.to_string());
        let (description, element) = (format!("{name} Controller"), format!("{name} controller {number}"));
        let mut fields = vec![
            ("Address", number.as_str()),
            ("Description", &description),
            ("ElementName", &element),
            ("InstanceID", id),
        ];
        fields.extend(controller.subtype().map(|subtype| ("ResourceSubType", subtype)));
        fields.push(("ResourceType", &kind));
        self.item(&fields)
    }

    /// Fields in the order of the alphabet, as CIM's schema wants them.
    fn item(&mut self, fields: Attributes<'_>) -> io::Result<()> {
        debug_assert!(fields.is_sorted_by_key(|(name, _)| *name));
        self.inside("Item", &[], |document| {
            fields.iter().try_for_each(|(name, text)| document.text(&format!("rasd:{name}"), text))
        })
    }

    fn section(&mut self, name: &str, info: &str, inner: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.inside(name, &[], |document| {
            document.text("Info", info)?;
            inner(document)
        })
    }

    fn inside(
        &mut self,
        name: &str,
        attributes: Attributes<'_>,
        inner: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = quick_xml::events::BytesStart::new(name).with_attributes(attributes.iter().copied());
        let end = start.to_end().into_owned();
        self.writer.write_event(Event::Start(start.borrow()))?;
        inner(self)?;
        self.writer.write_event(Event::End(end))
    }

    fn empty(&mut self, name: &str, attributes: Attributes<'_>) -> io::Result<()> {
        self.writer.create_element(name).with_attributes(attributes.iter().copied()).write_empty().map(drop)
    }

    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.writer.create_element(name).write_text_content(BytesText::new(text)).map(drop)
    }
}

fn cim(class: &str) -> String {
    format!("{CIM_PREFIX}{class}")
}

fn file_id(index: usize) -> String {
    format!("file{}", index + 1)
}

fn disk_id(index: usize) -> String {
    format!("vmdisk{}", index + 1)
}

/// Where ovftool places the first adapter.
const FIRST_ETHERNET: usize = 7;
