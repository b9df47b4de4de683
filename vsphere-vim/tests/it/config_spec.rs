//! From a kept configuration to the description of a new machine.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, option, prelude::*};
use vsphere_vim::{
    DeviceKey,
    config_spec::{
        BootOrder, ConfigConversion, ConvertedConfig, DEFAULT_DEVICES, DiskNames, DiskTarget, FIELDS, FieldFate,
        HostDevices, MacAddresses, NetworkSource, NetworkTarget, Provisioning, RawMappings, SERVER_KEYS, Tpm,
        VideoCard,
    },
    types::{
        Any, ArrayUpdateOperation, CryptoKeyId, DataObject, Description, Element, HostCpuIdInfo, MoRef, OptionValue,
        Poly, Shape, TypeInfo, VAppPropertyInfo, Value, VirtualCdrom, VirtualController, VirtualDevice,
        VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation, VirtualDeviceConfigSpecOperation, VirtualDisk,
        VirtualDiskFlatVer2BackingInfo, VirtualDiskRawDiskMappingVer1BackingInfo, VirtualEthernetCard,
        VirtualEthernetCardDistributedVirtualPortBackingInfo, VirtualEthernetCardNetworkBackingInfo,
        VirtualMachineBootOptions, VirtualMachineBootOptionsBootableDiskDevice, VirtualMachineConfigInfo,
        VirtualMachineConfigSpec, VirtualMachineVideoCard, VmConfigInfo, new_object, type_info, xml,
    },
};

/// A device of the named type, on a controller.
fn device(name: &str, key: i32, controller: Option<i32>, unit: Option<i32>) -> Poly<VirtualDevice> {
    let mut device = new_object(name).and_then(Poly::<VirtualDevice>::from_boxed).unwrap_or_else(|| {
        let mut unknown = VirtualDevice::default();
        unknown.unknown.set_type_name(name);
        Poly::new(unknown)
    });
    device.key = key;
    device.controller_key = controller;
    device.unit_number = unit;
    device.device_info = Some(Poly::new(Description { label: name.into(), ..Default::default() }));
    device
}

fn flat(file: &str) -> VirtualDiskFlatVer2BackingInfo {
    let mut flat = VirtualDiskFlatVer2BackingInfo {
        disk_mode: "persistent".into(),
        thin_provisioned: Some(true),
        uuid: Some("6000C29-old".into()),
        content_id: Some("aabb".into()),
        change_id: Some("52 de/7".into()),
        key_id: Some(CryptoKeyId::default()),
        ..Default::default()
    };
    flat.file_name = file.into();
    flat.datastore = Some(MoRef::new("datastore-10"));
    flat
}

fn disk(key: i32, unit: i32, backing: VirtualDiskFlatVer2BackingInfo) -> Poly<VirtualDevice> {
    let mut disk = device("VirtualDisk", key, Some(1000), Some(unit));
    disk.backing = Some(Poly::new(backing));
    disk.downcast_mut::<VirtualDisk>().unwrap().capacity_in_kb = 1 << 20;
    disk
}

/// A machine as vCenter shows it: the default devices, two disks above a snapshot, a CD-ROM, an adapter.
fn machine() -> VirtualMachineConfigInfo {
    let mut info = VirtualMachineConfigInfo {
        name: "web".into(),
        version: "vmx-19".into(),
        uuid: "4205-bios".into(),
        instance_uuid: Some("5005-instance".into()),
        change_version: "2026-01-01T00:00:00Z".into(),
        location_id: Some("564d".into()),
        guest_id: "ubuntu64Guest".into(),
        annotation: Some("the shop".into()),
        change_tracking_enabled: Some(true),
        firmware: Some("bios".into()),
        cpu_feature_mask: vec![HostCpuIdInfo { level: 1, ecx: Some("----".into()), ..Default::default() }],
        ..Default::default()
    };
    info.files.vm_path_name = Some("[ds1] web/web.vmx".into());
    info.files.snapshot_directory = Some("[ds1] web/".into());
    info.files.suspend_directory = Some("[fast] swap/".into());
    info.hardware.num_cpu = 2;
    info.hardware.memory_mb = 4096;
    let delta = VirtualDiskFlatVer2BackingInfo {
        parent: Some(Box::new(VirtualDiskFlatVer2BackingInfo {
            thin_provisioned: Some(false),
            ..flat("[ds1] web/web.vmdk")
        })),
        delta_disk_format: Some("seSparseFormat".into()),
        ..flat("[ds1] web/web-000003.vmdk")
    };
    let mut card = device("VirtualVmxnet3", 4000, Some(100), Some(7));
    let mut network =
        VirtualEthernetCardNetworkBackingInfo { network: Some(MoRef::new("network-11")), ..Default::default() };
    network.device_name = "VM Network".into();
    card.backing = Some(Poly::new(network));
    let ethernet = card.downcast_mut::<VirtualEthernetCard>().unwrap();
    ethernet.address_type = Some("assigned".into());
    ethernet.mac_address = Some("00:50:56:00:00:01".into());
    let mut scsi = device("ParaVirtualSCSIController", 1000, Some(100), Some(3));
    scsi.downcast_mut::<VirtualController>().unwrap().device = vec![2000, 2001];
    let mut second_ide = device("VirtualIDEController", 201, None, None);
    second_ide.downcast_mut::<VirtualController>().unwrap().bus_number = 1;
    info.hardware.device = vec![
        device("VirtualIDEController", 200, None, None),
        second_ide,
        device("VirtualPS2Controller", 300, None, None),
        device("VirtualPCIController", 100, None, None),
        device("VirtualSIOController", 400, None, None),
        device("VirtualKeyboard", 600, Some(300), Some(0)),
        device("VirtualPointingDevice", 700, Some(300), Some(1)),
        device("VirtualMachineVideoCard", 500, Some(100), Some(0)),
        device("VirtualMachineVMCIDevice", 12000, Some(100), Some(17)),
        disk(2000, 0, delta),
        disk(2001, 1, flat("[ds2] web/web.vmdk")),
        device("VirtualCdrom", 3002, Some(201), Some(0)),
        device("VirtualFloppy", 8000, Some(400), Some(0)),
        scsi,
        card,
    ];
    info
}

fn changes(converted: &ConvertedConfig) -> Vec<&VirtualDeviceConfigSpec> {
    converted.spec.device_change.iter().map(|change| &**change).collect()
}

fn find<T: DataObject>(converted: &ConvertedConfig, old: i32) -> &T {
    let key = converted.keys[&DeviceKey(old)];
    let change = changes(converted).into_iter().find(|change| change.device.key == key.0).unwrap();
    change.device.downcast_ref().unwrap()
}

fn backing_of(converted: &ConvertedConfig, old: i32) -> &VirtualDiskFlatVer2BackingInfo {
    find::<VirtualDisk>(converted, old).backing.as_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn every_field_of_a_configuration_has_a_fate_and_stands_in_the_manual() {
    let fields: Vec<_> = VirtualMachineConfigInfo::INFO.fields.iter().map(|field| field.name).collect();
    assert_eq!(FIELDS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), fields);
    let manual = include_str!("../../src/config_spec.rs");
    for (name, fate) in FIELDS {
        let words = match fate {
            FieldFate::Carried => "carried".to_owned(),
            FieldFate::Converted(how) => format!("converted: {how}"),
            FieldFate::Dropped(why) => format!("dropped: {why}"),
        };
        assert!(manual.contains(&format!("//! | `{name}` | {words} |")), "{name}");
    }
}

/// XML of a value of the declared type, filled as far as the model goes.
fn sample(name: &str, declared: &str, depth: u32, out: &mut String) {
    let scalar = match declared {
        "string" | "anyURI" => "x",
        "boolean" => "true",
        "byte" | "short" | "int" | "long" | "float" | "double" => "7",
        "dateTime" => "2026-01-02T03:04:05Z",
        "base64Binary" => "AAEC",
        _ => "",
    };
    out.push_str(&format!("<{name}>"));
    match type_info(declared) {
        Some(info) if depth < 3 => {
            fields_of(info).iter().for_each(|(name, declared)| sample(name, declared, depth + 1, out))
        }
        _ => out.push_str(scalar),
    }
    out.push_str(&format!("</{name}>"));
}

fn fields_of(info: &'static TypeInfo) -> Vec<(&'static str, &'static str)> {
    let mut fields = info.base.map(fields_of).unwrap_or_default();
    fields.extend(info.fields.iter().map(|field| (field.name, field.declared)));
    fields
}

#[test]
fn what_is_said_to_be_carried_is_written_as_it_was_and_the_rest_is_not() {
    let mut text = String::new();
    sample("config", "VirtualMachineConfigInfo", 0, &mut text);
    let mut info = VirtualMachineConfigInfo::default();
    let mut reader = xml::Reader::new(&text, xml::Limits::default());
    reader.next_child().unwrap().unwrap();
    info.read(&mut reader).unwrap();
    let spec = ConfigConversion::of(&info).convert().spec;
    let (old, new) = (written(&info), written(&spec));
    for (name, fate) in FIELDS {
        let old = old.get(name);
        assert!(old.is_some(), "the sample lacks {name}");
        match fate {
            FieldFate::Carried => assert_eq!(new.get(name), old, "{name}"),
            FieldFate::Converted(_) => {}
            FieldFate::Dropped(_) => assert_eq!(new.get(name), None, "{name}"),
        }
    }
}

/// Every field that is written, as XML.
fn written(object: &dyn DataObject) -> BTreeMap<&'static str, String> {
    let mut fields = BTreeMap::new();
    object.visit(&mut |field, value| {
        let shape = value.shape();
        if !shape.is_absent() && !matches!(shape, Shape::Absent) {
            let mut writer = xml::Writer::new();
            writer.value(field.name, field.declared, value.shape());
            fields.insert(field.name, writer.finish());
        }
    });
    fields
}

#[test]
fn default_devices_are_left_out_and_the_others_keep_their_relations() {
    let info = machine();
    let converted = ConfigConversion::of(&info).convert();
    let kinds: Vec<_> = changes(&converted).iter().map(|change| change.device.type_name().to_owned()).collect();
    assert_eq!(
        kinds,
        ["ParaVirtualSCSIController", "VirtualDisk", "VirtualDisk", "VirtualCdrom", "VirtualFloppy", "VirtualVmxnet3"],
        "controllers first, and a usual video card is not described"
    );
    assert!(changes(&converted).iter().all(|change| change.operation == Some(VirtualDeviceConfigSpecOperation::Add)));
    let scsi = find::<VirtualController>(&converted, 1000);
    assert!(scsi.device.is_empty() && scsi.controller_key.is_none(), "{scsi:?}");
    let first = find::<VirtualDisk>(&converted, 2000);
    assert_eq!((first.controller_key, first.unit_number), (Some(scsi.key), Some(0)));
    assert_eq!(find::<VirtualDisk>(&converted, 2001).unit_number, Some(1));
    let cdrom = find::<VirtualCdrom>(&converted, 3002);
    assert_eq!((cdrom.controller_key, cdrom.unit_number), (Some(201), Some(0)), "as in VMware's example");
    assert_eq!(find::<VirtualDevice>(&converted, 8000).controller_key, Some(400));
    let card = find::<VirtualEthernetCard>(&converted, 4000);
    assert_eq!((card.controller_key, card.unit_number), (None, None), "PCI slots are the server's");
    assert!(changes(&converted).iter().all(|change| change.device.device_info.is_none()));
}

#[test]
fn a_disk_forgets_its_past() {
    let info = machine();
    let converted = ConfigConversion::of(&info).convert();
    let flat = backing_of(&converted, 2000);
    assert_eq!((&flat.uuid, &flat.content_id, &flat.change_id, &flat.parent), (&None, &None, &None, &None));
    assert_eq!((&flat.key_id, &flat.delta_disk_format, &flat.datastore), (&None, &None, &None));
    assert_eq!(flat.thin_provisioned, Some(false), "the disk itself is thick; its delta was thin");
    assert_eq!((flat.file_name.as_str(), flat.disk_mode.as_str()), ("[ds1]", "persistent"));
    assert_eq!(backing_of(&converted, 2001).file_name, "[ds2]");
    let create = Some(VirtualDeviceConfigSpecFileOperation::Create);
    let disks = changes(&converted).into_iter().filter(|change| change.device.type_name() == "VirtualDisk");
    assert!(disks.into_iter().all(|change| change.file_operation == create));
    assert_eq!(find::<VirtualDisk>(&converted, 2000).capacity_in_kb, 1 << 20);
    assert!(converted.warnings().any(|note| &*note.what == "backing.keyId"));
}

#[test]
fn the_machine_comes_back_as_it_was_or_as_a_copy() {
    let info = machine();
    let same = ConfigConversion::of(&info).convert().spec;
    assert_eq!((same.name.as_deref(), same.uuid.as_deref()), (Some("web"), Some("4205-bios")));
    assert_eq!((same.num_cpus, same.memory_mb, same.version.as_deref()), (Some(2), Some(4096), Some("vmx-19")));
    assert_eq!((same.change_version, same.location_id), (None, None));
    let files = same.files.unwrap();
    assert_eq!(files.vm_path_name.as_deref(), Some("[ds1]"));
    assert_eq!((files.snapshot_directory, files.suspend_directory.as_deref()), (None, Some("[fast] swap/")));
    let mask = &same.cpu_feature_mask[0];
    assert_eq!((&mask.operation, mask.info.as_ref()), (&ArrayUpdateOperation::Add, info.cpu_feature_mask.first()));

    let copy = ConfigConversion::of(&info).as_copy("web2").datastore("ds9").convert();
    assert_eq!((copy.spec.uuid.clone(), copy.spec.instance_uuid.clone()), (None, None));
    assert_eq!(copy.spec.files.as_ref().unwrap().vm_path_name.as_deref(), Some("[ds9]"));
    let card = find::<VirtualEthernetCard>(&copy, 4000);
    assert_eq!((card.address_type.as_deref(), &card.mac_address), (Some("generated"), &None));
    assert_eq!(backing_of(&copy, 2001).file_name, "[ds9]");
    assert!(copy.warnings().any(|note| &*note.what == "files.suspendDirectory"));
}

#[test]
fn disks_go_where_they_are_sent_and_keep_their_names_when_asked() {
    let info = machine();
    let converted = ConfigConversion::of(&info)
        .name("shop")
        .datastore(("ds9", MoRef::new("datastore-9")))
        .disk_names(DiskNames::Keep)
        .provisioning(Provisioning::EagerZeroed)
        .convert();
    assert_eq!(converted.spec.files.as_ref().unwrap().vm_path_name.as_deref(), Some("[ds9] shop/shop.vmx"));
    let first = backing_of(&converted, 2000);
    assert_eq!((first.file_name.as_str(), &first.datastore), ("[ds9] shop/web.vmdk", &Some(MoRef::new("datastore-9"))));
    assert_eq!((first.thin_provisioned, first.eagerly_scrub), (Some(false), Some(true)));
    assert_eq!(backing_of(&converted, 2001).file_name, "[ds9] shop/web_1.vmdk", "two disks of one name met");

    let converted = ConfigConversion::of(&info)
        .disk(DeviceKey(2000), DiskTarget::Existing("[ds3] kept/a.vmdk".into()))
        .disk(DeviceKey(2001), DiskTarget::LeaveOut)
        .convert();
    assert_eq!(backing_of(&converted, 2000).file_name, "[ds3] kept/a.vmdk");
    let disks: Vec<_> =
        changes(&converted).into_iter().filter(|change| change.device.type_name() == "VirtualDisk").collect();
    assert_eq!((disks.len(), &disks[0].file_operation), (1, &None), "an existing file is not created");
}

#[test]
fn adapters_are_plugged_into_other_networks() {
    let mut info = machine();
    let mut other = device("VirtualE1000", 4001, Some(100), None);
    let mut port = VirtualEthernetCardDistributedVirtualPortBackingInfo::default();
    port.port.switch_uuid = "50 21".into();
    port.port.portgroup_key = Some("dvportgroup-7".into());
    port.port.port_key = Some("12".into());
    port.port.connection_cookie = Some(5);
    other.backing = Some(Poly::new(port));
    info.hardware.device.push(other);

    let kept = ConfigConversion::of(&info).mac_addresses(MacAddresses::KeepAsManual).convert();
    let backing =
        |converted: &ConvertedConfig, key| find::<VirtualEthernetCard>(converted, key).backing.clone().unwrap();
    let standard = backing(&kept, 4000);
    let standard = standard.downcast_ref::<VirtualEthernetCardNetworkBackingInfo>().unwrap();
    assert_eq!((standard.device_name.as_str(), &standard.network), ("VM Network", &None), "names, not references");
    assert_eq!(find::<VirtualEthernetCard>(&kept, 4000).address_type.as_deref(), Some("manual"));
    let port = backing(&kept, 4001);
    let port = &port.downcast_ref::<VirtualEthernetCardDistributedVirtualPortBackingInfo>().unwrap().port;
    assert_eq!(
        (port.portgroup_key.as_deref(), &port.port_key, port.connection_cookie),
        (Some("dvportgroup-7"), &None, None)
    );

    let moved = ConfigConversion::of(&info)
        .network(NetworkSource::Network("dvportgroup-7".into()), NetworkTarget::standard("Quarantine"))
        .network(NetworkSource::Adapter(DeviceKey(4000)), NetworkTarget::portgroup("50 99", "dvportgroup-1"))
        .network(NetworkSource::Any, NetworkTarget::standard("never reached"))
        .convert();
    assert_eq!(
        backing(&moved, 4001).downcast_ref::<VirtualEthernetCardNetworkBackingInfo>().unwrap().device_name,
        "Quarantine"
    );
    assert_eq!(backing(&moved, 4000).type_name(), "VirtualEthernetCardDistributedVirtualPortBackingInfo");

    // Neither adapter says whether it is plugged in; unplugged they are all the same.
    let trial = ConfigConversion::of(&info).start_disconnected(true).convert();
    for key in [4000, 4001] {
        let connectable = find::<VirtualEthernetCard>(&trial, key).connectable.clone();
        assert!(connectable.is_some_and(|state| !state.start_connected && !state.connected), "{key}");
    }
}

#[test]
fn what_users_wrote_into_extra_config_stays_and_what_servers_wrote_goes() {
    let mut info = machine();
    let option = |key: &str| {
        Poly::new(OptionValue { key: key.into(), value: Some(Any::String("1".into())), ..Default::default() })
    };
    info.extra_config = ["disk.EnableUUID", "nvram", "scsi0:0.redo", "guestinfo.metadata"].map(option).into();
    let converted = ConfigConversion::of(&info).convert();
    let keys: Vec<_> = converted.spec.extra_config.iter().map(|option| option.key.as_str()).collect();
    assert_eq!(keys, ["disk.EnableUUID", "guestinfo.metadata"]);
    assert_eq!(converted.notes.iter().filter(|note| &*note.what == "extraConfig").count(), 2);
    assert!(SERVER_KEYS.len() > 30);
}

#[test]
fn vapp_options_become_additions() {
    let mut info = machine();
    let property =
        VAppPropertyInfo { key: 3, id: Some("dns".into()), value: Some("10.0.0.1".into()), ..Default::default() };
    info.vapp_config = Some(Poly::new(VmConfigInfo {
        property: vec![property.clone()],
        eula: vec!["be nice".into()],
        install_boot_required: true,
        ..Default::default()
    }));
    let spec = ConfigConversion::of(&info).convert().spec.vapp_config.unwrap();
    assert_eq!(
        (spec.property[0].info.as_ref(), &spec.property[0].operation),
        (Some(&property), &ArrayUpdateOperation::Add)
    );
    assert_eq!((spec.eula.len(), spec.install_boot_required), (1, Some(true)));
    assert_eq!(ConfigConversion::of(&info).without_vapp_options().convert().spec.vapp_config, None);
}

#[test]
fn raw_mappings_tpm_video_and_host_devices_are_choices() {
    let mut info = machine();
    let mut mapping = VirtualDiskRawDiskMappingVer1BackingInfo {
        lun_uuid: Some("0200".into()),
        compatibility_mode: Some("physicalMode".into()),
        disk_mode: Some("independent_persistent".into()),
        uuid: Some("60".into()),
        ..Default::default()
    };
    mapping.file_name = "[ds1] web/raw.vmdk".into();
    let mut raw = device("VirtualDisk", 2002, Some(1000), Some(2));
    raw.backing = Some(Poly::new(mapping));
    let mut video = VirtualMachineVideoCard { num_displays: Some(3), ..Default::default() };
    video.key = 500;
    info.hardware.device.retain(|device| device.key != 500);
    info.hardware.device.extend([
        raw,
        Poly::new(video),
        device("VirtualTPM", 11000, None, None),
        device("VirtualPCIPassthrough", 13000, Some(100), None),
    ]);
    let usual = ConfigConversion::of(&info).convert();
    assert_eq!(backing_of(&usual, 2002).disk_mode, "independent_persistent");
    assert!(usual.keys.contains_key(&DeviceKey(500)), "three displays are more than usual");
    assert!(usual.keys.contains_key(&DeviceKey(13000)) && !usual.keys.contains_key(&DeviceKey(11000)));
    let warned: BTreeSet<_> = usual.warnings().filter_map(|note| note.device).collect();
    assert!(warned.is_superset(&[2002, 11000, 13000].map(DeviceKey).into()), "{warned:?}");

    let other = ConfigConversion::of(&info)
        .raw_mappings(RawMappings::Keep)
        .tpm(Tpm::AddNew)
        .video_card(VideoCard::Never)
        .host_devices(HostDevices::LeaveOut)
        .convert();
    let mapping = find::<VirtualDisk>(&other, 2002).backing.clone().unwrap();
    let mapping = mapping.downcast_ref::<VirtualDiskRawDiskMappingVer1BackingInfo>().unwrap();
    assert_eq!((mapping.lun_uuid.as_deref(), &mapping.uuid), (Some("0200"), &None));
    assert!(other.keys.contains_key(&DeviceKey(11000)));
    assert!(!other.keys.contains_key(&DeviceKey(500)) && !other.keys.contains_key(&DeviceKey(13000)));
    let none = ConfigConversion::of(&info).raw_mappings(RawMappings::LeaveOut).convert();
    assert!(!none.keys.contains_key(&DeviceKey(2002)));
}

#[test]
fn a_boot_order_names_devices_that_are_there() {
    let mut info = machine();
    let boot = |key| Poly::new(VirtualMachineBootOptionsBootableDiskDevice { device_key: key, ..Default::default() });
    let order = [2000, 2999].map(boot);
    info.boot_options = Some(VirtualMachineBootOptions { boot_order: order.into(), ..Default::default() });
    let keys = |order| {
        let spec = ConfigConversion::of(&info).boot_order(order).convert().spec;
        let of = |device: &Poly<_>| {
            Poly::downcast_ref::<VirtualMachineBootOptionsBootableDiskDevice>(device).unwrap().device_key
        };
        spec.boot_options.unwrap().boot_order.iter().map(of).collect::<Vec<i32>>()
    };
    assert_eq!(keys(BootOrder::Keep), [2000]);
    assert_eq!(keys(BootOrder::NewKeys), [-2000]);
    assert_eq!(keys(BootOrder::LeaveOut), [0; 0]);
}

#[test]
fn what_this_version_does_not_know_is_carried_with_devices_and_named_elsewhere() {
    let mut info = machine();
    let mut tomorrow = device("VirtualQuantumController", 16000, Some(100), None);
    tomorrow.unknown.push(Element::new("qubits", "3"));
    info.hardware.device.push(tomorrow);
    info.hardware.device.push(device("VirtualQubit", 16001, Some(16000), Some(0)));
    info.unknown.push(Element::new("quantumEnabled", "true"));
    let converted = ConfigConversion::of(&info).convert();
    let controller = find::<VirtualDevice>(&converted, 16000);
    assert_eq!(
        (controller.unknown.type_name(), controller.unknown.elements().len()),
        (Some("VirtualQuantumController"), 1)
    );
    assert_eq!(find::<VirtualDevice>(&converted, 16001).controller_key, Some(controller.key));
    assert!(converted.spec.unknown.is_empty());
    assert!(converted.warnings().any(|note| &*note.what == "quantumEnabled"));
    let all = ConfigConversion::of(&info).unknown_fields(true).convert();
    assert_eq!(all.spec.unknown.elements().len(), 1);
}

/// Types of devices: all that the model knows, and one that it does not.
const KINDS: &[&str] = &[
    "VirtualDisk",
    "VirtualDisk",
    "VirtualDisk",
    "VirtualCdrom",
    "VirtualFloppy",
    "VirtualVmxnet3",
    "VirtualE1000",
    "ParaVirtualSCSIController",
    "VirtualLsiLogicController",
    "VirtualAHCIController",
    "VirtualNVMEController",
    "VirtualNVDIMMController",
    "VirtualNVDIMM",
    "VirtualIDEController",
    "VirtualPS2Controller",
    "VirtualPCIController",
    "VirtualSIOController",
    "VirtualKeyboard",
    "VirtualPointingDevice",
    "VirtualMachineVMCIDevice",
    "VirtualMachineVideoCard",
    "VirtualTPM",
    "VirtualUSBController",
    "VirtualUSB",
    "VirtualPCIPassthrough",
    "VirtualSerialPort",
    "VirtualSriovEthernetCard",
    "VirtualDevice",
    "VirtualController",
    "VirtualThingOfTomorrow",
];

const BACKINGS: &[&str] = &[
    "VirtualDiskFlatVer1BackingInfo",
    "VirtualDiskFlatVer2BackingInfo",
    "VirtualDiskSparseVer1BackingInfo",
    "VirtualDiskSparseVer2BackingInfo",
    "VirtualDiskSeSparseBackingInfo",
    "VirtualDiskRawDiskMappingVer1BackingInfo",
    "VirtualDiskRawDiskVer2BackingInfo",
    "VirtualDiskPartitionedRawDiskVer2BackingInfo",
    "VirtualDiskLocalPMemBackingInfo",
    "VirtualCdromIsoBackingInfo",
    "VirtualEthernetCardNetworkBackingInfo",
    "VirtualEthernetCardDistributedVirtualPortBackingInfo",
    "VirtualNVDIMMBackingInfo",
    "VirtualDeviceBackingInfo",
];

fn any_device() -> impl Strategy<Value = Poly<VirtualDevice>> {
    let key =
        prop_oneof![4 => 100..120, 2 => prop::sample::select(vec![100, 200, 201, 300, 400, 1000]), 1 => any::<i32>()];
    let controller = option::of(
        prop_oneof![4 => 100..120, 2 => prop::sample::select(vec![100, 200, 201, 300, 400, 1000]), 1 => any::<i32>()],
    );
    let path = prop_oneof!["\\[ds[12]\\] [a-c]/[a-c](-00000[1-9])?\\.vmdk", ".{0,12}"];
    let kind = prop::sample::select(KINDS);
    let backing = option::of((prop::sample::select(BACKINGS), path));
    (kind, key, controller, option::of(any::<i32>()), backing, any::<i64>()).prop_map(
        |(kind, key, controller, unit, backing, size)| {
            let mut device = device(kind, key, controller, unit);
            if let Some((name, path)) = backing {
                let mut backing: Poly<vsphere_vim::types::VirtualDeviceBackingInfo> =
                    new_object(name).and_then(Poly::from_boxed).unwrap();
                if let Some(file) = backing.downcast_mut::<vsphere_vim::types::VirtualDeviceFileBackingInfo>() {
                    file.file_name = path;
                }
                device.backing = Some(backing);
            }
            if let Some(disk) = device.downcast_mut::<VirtualDisk>() {
                disk.capacity_in_kb = size.wrapping_neg() >> 20;
                disk.capacity_in_bytes = Some(size);
            }
            if let Some(controller) = device.downcast_mut::<VirtualController>() {
                controller.bus_number = size as i32;
                controller.device = vec![1, 2, 3];
            }
            device
        },
    )
}

#[test]
fn a_hundred_thousand_devices_of_one_key_take_no_time_to_speak_of() {
    let mut info = VirtualMachineConfigInfo::default();
    info.hardware.device = vec![device("VirtualSoundCard", 0, None, None); 100_000];
    let begun = std::time::Instant::now();
    let converted = ConfigConversion::of(&info).convert();
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    check(&converted).unwrap();
}

proptest! {
    #[test]
    fn every_configuration_converts_with_unique_negative_keys_and_controllers_that_are_there(
        devices in vec(any_device(), 0..24),
        name in ".{0,20}",
        path in option::of(".{0,30}"),
        keep_names in any::<bool>(),
        keep_raw in any::<bool>(),
        copy in any::<bool>(),
    ) {
        let mut info = VirtualMachineConfigInfo { name, ..Default::default() };
        info.files.vm_path_name = path;
        info.hardware.device = devices;
        let mut conversion = ConfigConversion::of(&info);
        if keep_names {
            conversion = conversion.disk_names(DiskNames::Keep);
        }
        if keep_raw {
            conversion = conversion.raw_mappings(RawMappings::Keep).tpm(Tpm::AddNew).video_card(VideoCard::Always);
        }
        if copy {
            conversion = conversion.as_copy("copy").datastore("ds3").network(NetworkSource::Any, NetworkTarget::standard("n"));
        }
        check(&conversion.convert())?;
    }
}

fn check(converted: &ConvertedConfig) -> Result<(), TestCaseError> {
    let changes = changes(converted);
    let keys: BTreeSet<i32> = changes.iter().map(|change| change.device.key).collect();
    prop_assert_eq!(keys.len(), changes.len(), "keys are unique");
    prop_assert!(keys.iter().all(|key| *key < 0));
    let mut files = BTreeSet::new();
    for change in &changes {
        let device = &change.device;
        prop_assert!(!DEFAULT_DEVICES.iter().any(|name| device.is_a(name)), "{}", device.type_name());
        if let Some(controller) = device.controller_key {
            prop_assert!([200, 201, 300, 400].contains(&controller) || keys.contains(&controller), "{}", controller);
        }
        if let Some(controller) = device.downcast_ref::<VirtualController>() {
            prop_assert!(controller.device.is_empty());
        }
        let is_disk = device.downcast_ref::<VirtualDisk>().is_some();
        if is_disk
            && let Some(flat) =
                device.backing.as_ref().and_then(|backing| backing.downcast_ref::<VirtualDiskFlatVer2BackingInfo>())
        {
            prop_assert!(flat.uuid.is_none() && flat.parent.is_none() && flat.change_id.is_none());
            // A name that was chosen here is not chosen twice.
            prop_assert!(
                flat.file_name.ends_with(']') || flat.file_name.is_empty() || files.insert(flat.file_name.clone())
            );
        }
    }
    // What comes out can be written and read again.
    let mut writer = xml::Writer::new();
    writer.value("spec", "VirtualMachineConfigSpec", converted.spec.shape());
    let text = writer.finish();
    let mut reader = xml::Reader::new(&text, xml::Limits::default());
    prop_assert!(reader.next_child().is_ok_and(|name| name.is_some()));
    let mut again = VirtualMachineConfigSpec::default();
    prop_assert!(again.read(&mut reader).is_ok());
    prop_assert_eq!(again.device_change.len(), changes.len());
    Ok(())
}
