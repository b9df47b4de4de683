//! How fast is a page of machines decoded, against a scan of the same bytes that makes no values?

use std::fmt::Write as _;

use vsphere_vim_types::soap::{self, Limits};
use vsphere_vim_types::{Poly, VirtualDevice, methods};

use crate::{best, megabytes_per_second};

const MACHINES: usize = 2000;

pub(crate) fn run() {
    let text = page();
    let bytes = text.len() as u64;
    let decode = best(5, || {
        let answer = soap::decode_response::<methods::RetrievePropertiesEx>(text.as_bytes(), Limits::default());
        let objects = answer.ok().flatten().map(|page| page.objects).unwrap_or_default();
        assert_eq!(objects.len(), MACHINES);
        let devices =
            objects.into_iter().flat_map(|object| object.prop_set).filter(|prop| prop.name.ends_with("device"));
        devices
            .filter_map(|prop| prop.val.into_typed::<Vec<Poly<VirtualDevice>>>().ok())
            .map(|list| list.len())
            .sum::<usize>()
    });
    let scan = best(5, || {
        let mut reader = quick_xml::Reader::from_str(&text);
        let mut events = 0usize;
        while !matches!(reader.read_event(), Ok(quick_xml::events::Event::Eof) | Err(_)) {
            events += 1;
        }
        events
    });
    let (ours, limit) = (megabytes_per_second(bytes, decode), megabytes_per_second(bytes, scan));
    println!("figure: vim-decode {ours:.0} MB/s of XML into typed values ({MACHINES} machines, {bytes} bytes)");
    println!("figure: vim-decode bare scan with quick-xml {limit:.0} MB/s");
    println!("figure: vim-decode ratio {:.2} of the bare scan", ours / limit);
}

/// An answer as a server gives it for names, ids and device lists.
fn page() -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body>\
         <RetrievePropertiesExResponse xmlns=\"urn:vim25\"><returnval>",
    );
    for vm in 0..MACHINES {
        let _ = write!(
            text,
            "<objects><obj type=\"VirtualMachine\">vm-{vm}</obj><propSet><name>config.hardware.device</name>\
             <val xsi:type=\"ArrayOfVirtualDevice\"><VirtualDevice xsi:type=\"ParaVirtualSCSIController\"><key>1000</key>\
             <deviceInfo><label>SCSI controller 0</label><summary>VMware paravirtual SCSI</summary></deviceInfo>\
             <controllerKey>100</controllerKey><unitNumber>3</unitNumber><busNumber>0</busNumber><device>2000</device>\
             <device>2001</device><hotAddRemove>true</hotAddRemove><sharedBus>noSharing</sharedBus>\
             <scsiCtlrUnitNumber>7</scsiCtlrUnitNumber></VirtualDevice>"
        );
        for disk in 0..2 {
            let _ = write!(
                text,
                "<VirtualDevice xsi:type=\"VirtualDisk\"><key>{}</key><deviceInfo><label>Hard disk {}</label>\
                 <summary>41,943,040 KB</summary></deviceInfo><backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\">\
                 <fileName>[ds-07] machine-{vm}/machine-{vm}_{disk}.vmdk</fileName><datastore type=\"Datastore\">datastore-11</datastore>\
                 <backingObjectId></backingObjectId><diskMode>persistent</diskMode><split>false</split><writeThrough>false</writeThrough>\
                 <thinProvisioned>true</thinProvisioned><uuid>6000C29a-1b2c-3d4e-5f60-{vm:012}</uuid>\
                 <contentId>e3b0c44298fc1c149afbf4c8996fb924</contentId><sharing>sharingNone</sharing></backing>\
                 <controllerKey>1000</controllerKey><unitNumber>{disk}</unitNumber><capacityInKB>41943040</capacityInKB>\
                 <capacityInBytes>42949672960</capacityInBytes></VirtualDevice>",
                2000 + disk,
                disk + 1
            );
        }
        let _ = write!(
            text,
            "</val></propSet><propSet><name>config.uuid</name><val xsi:type=\"xsd:string\">42001234-5678-9abc-def0-{vm:012}</val></propSet>\
             <propSet><name>name</name><val xsi:type=\"xsd:string\">machine-{vm} &amp; friends</val></propSet></objects>"
        );
    }
    text.push_str("</returnval></RetrievePropertiesExResponse></soapenv:Body></soapenv:Envelope>");
    text
}
