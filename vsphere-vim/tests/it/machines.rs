//! The life of machines against the simulator: made, changed, copied, moved, marked, stopped, found, gone.

use std::time::Duration;

use vsphere_sim::{DiskSpec, GuestBehaviour, Personality, Power, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, Credentials, DeviceKey, Error, MoRef, PowerState, PropertyPath, Vim, VmLookup,
    config_spec::{ConfigConversion, DiskNames, DiskTarget, NetworkSource, NetworkTarget},
    device::{ControllerKind, DeviceEdit, DiskFiles, NewAdapter, NewDisk},
    methods::{CreateVApp, ShutdownGuest},
    mo,
    types::{
        DuplicateName, Poly, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecOperation, VirtualIDEController,
        VirtualMachineConfigSpec,
    },
    version::WireVersion,
    vm::{CloneOptions, Forced, GuestQuiesce, RegisterVm, Relocation, ShutdownOutcome, ShutdownPolicy, VssOptions},
};

use crate::simulated::connect;

const MIB: u64 = 1 << 20;

fn spec(name: &str) -> VmSpec {
    VmSpec::new(name).disk(DiskSpec::empty(2 * MIB)).power(Power::Off)
}

struct Server {
    sim: Simulator,
    vim: Vim,
    folder: MoRef<mo::Folder>,
    pool: MoRef<mo::ResourcePool>,
}

impl Server {
    async fn start(builder: SimulatorBuilder) -> Self {
        let sim = builder.start().await.unwrap();
        let vim = connect(&sim).await;
        let found = |path: &'static str| {
            let vim = vim.clone();
            async move { vim.find_by_inventory_path(path).await.unwrap().unwrap() }
        };
        let folder = found("dc1/vm").await.cast();
        let pool = found("dc1/host/esx1.sim.invalid/Resources").await.cast();
        Self { sim, vim, folder, pool }
    }

    async fn with(specs: impl IntoIterator<Item = VmSpec>) -> Self {
        Self::start(specs.into_iter().fold(Simulator::builder(), SimulatorBuilder::vm)).await
    }

    async fn vm(&self, name: &str) -> MoRef<mo::VirtualMachine> {
        self.vim.find_vm(&VmLookup::Pattern(format!("dc1/vm/**/{name}"))).await.unwrap().moref
    }

    async fn stop(self) {
        self.vim.logout().await.unwrap();
        let left = self.sim.leftovers();
        assert!(left.is_clean(), "{left:?}");
        self.sim.shutdown().await;
    }
}

fn read(sim: &Simulator, vm: &str, key: i32) -> [u8; 5] {
    let mut bytes = [0; 5];
    sim.guest(vm).unwrap().disk(key).unwrap().read_at(4096, &mut bytes).unwrap();
    bytes
}

fn write(sim: &Simulator, vm: &str, key: i32, bytes: &[u8]) {
    sim.guest(vm).unwrap().disk(key).unwrap().write_at(4096, bytes).unwrap();
}

#[tokio::test]
async fn a_machine_is_made_anew_from_its_kept_configuration() {
    let server = Server::with([spec("web").disk(DiskSpec::empty(3 * MIB)).annotation("the shop")]).await;
    let (vim, old) = (&server.vim, server.vm("web").await);
    let mut edit = DeviceEdit::of(vim.devices(&old).await.unwrap());
    edit.add_disk(NewDisk::new(4 * MIB).on_kind(ControllerKind::Sata)).unwrap();
    vim.reconfigure(&old, edit.into_spec()).await.unwrap();
    let kept = vim.config(&old).await.unwrap();

    // Beside the old one.
    let converted = ConfigConversion::of(&kept).as_copy("web 2").disk_names(DiskNames::Keep).convert();
    let new = vim.create_vm(&server.folder, &server.pool, None, converted.spec.clone()).await.unwrap();
    let config = vim.config(&new).await.unwrap();
    assert_eq!((config.name.as_str(), config.annotation.as_deref()), ("web 2", Some("the shop")));
    assert_eq!(config.files.vm_path_name.as_deref(), Some("[ds1] web 2/web 2.vmx"));
    let disks = vim.disks(&new).await.unwrap();
    let shown: Vec<_> = disks.iter().map(|disk| (disk.key.0, disk.capacity / MIB)).collect();
    assert_eq!(shown, [(2000, 2), (2001, 3), (16000, 4)]);
    assert_eq!(disks[2].controller.as_ref().unwrap().kind, "VirtualAHCIController");
    assert_eq!(disks[0].backing.file_name.as_deref(), Some("[ds1] web 2/web.vmdk"));
    let macs = |list: &vsphere_vim::device::DeviceList| {
        list.network_adapters().map(|card| card.mac_address.clone().unwrap()).collect::<Vec<_>>()
    };
    let (before, after) = (vim.devices(&old).await.unwrap(), vim.devices(&new).await.unwrap());
    assert_eq!((macs(&before).len(), macs(&after).len()), (1, 1));
    assert_ne!(macs(&before), macs(&after));
    assert_ne!(config.instance_uuid, kept.instance_uuid);
    let again = vim.create_vm(&server.folder, &server.pool, None, converted.spec).await.unwrap_err();
    assert_eq!(again.fault::<DuplicateName>().unwrap().name, "web 2");

    // In its place.
    vim.destroy(&old).await.unwrap();
    let converted = ConfigConversion::of(&kept).convert();
    assert_eq!(converted.warnings().count(), 0, "{:?}", converted.notes);
    let back = vim.create_vm(&server.folder, &server.pool, None, converted.spec).await.unwrap();
    let restored = vim.config(&back).await.unwrap();
    assert_eq!((restored.instance_uuid, restored.uuid), (kept.instance_uuid, kept.uuid));
    assert_eq!(macs(&vim.devices(&back).await.unwrap()), macs(&before));
    server.stop().await;
}

#[tokio::test]
async fn specifications_that_a_server_refuses_are_refused_by_name() {
    let server = Server::with([spec("web")]).await;
    let vim = &server.vim;
    let create = async |spec| {
        vim.create_vm(&server.folder, &server.pool, None, spec).await.unwrap_err().fault_name().unwrap().to_owned()
    };
    let named = |name: &str| VirtualMachineConfigSpec { name: Some(name.into()), ..Default::default() };
    assert_eq!(create(named("web")).await, "DuplicateName");
    assert_eq!(create(named(&"x".repeat(81))).await, "InvalidName");
    let mut default = named("a");
    default.device_change.push(Poly::new(VirtualDeviceConfigSpec {
        operation: Some(VirtualDeviceConfigSpecOperation::Add),
        device: Poly::new(VirtualIDEController::default()),
        ..Default::default()
    }));
    assert_eq!(create(default).await, "InvalidDeviceSpec", "a default device");
    let with = |disk: NewDisk| {
        let mut edit = DeviceEdit::default();
        edit.add_disk(disk).unwrap();
        VirtualMachineConfigSpec { name: Some("a".into()), ..edit.into_spec() }
    };
    assert_eq!(create(with(NewDisk::new(MIB).in_file("[ds9] a/a.vmdk"))).await, "InvalidDatastorePath");
    assert_eq!(create(with(NewDisk::existing("[ds1] no/no.vmdk"))).await, "FileNotFound");
    assert_eq!(create(with(NewDisk::new(MIB).in_file("[ds1] web/web.vmdk"))).await, "FileAlreadyExists");
    let mut orphan = with(NewDisk::new(MIB));
    orphan.device_change.retain(|change| change.device.type_name() == "VirtualDisk");
    assert_eq!(create(orphan).await, "InvalidDeviceSpec", "its controller is not in the specification");
    let mut edit = DeviceEdit::default();
    edit.add_adapter(NewAdapter::new(NetworkTarget::standard("no such network")));
    assert_eq!(
        create(VirtualMachineConfigSpec { name: Some("a".into()), ..edit.into_spec() }).await,
        "InvalidDeviceBacking"
    );
    assert!(vim.find_inventory("dc1/vm/a").await.unwrap().is_empty(), "what was refused left nothing behind");
    server.stop().await;
}

#[tokio::test]
async fn disks_change_machines_with_their_content() {
    let server = Server::with([spec("one"), spec("two")]).await;
    let (vim, one, two) = (&server.vim, server.vm("one").await, server.vm("two").await);
    write(&server.sim, "one", 2000, b"hello");
    let path = vim.disks(&one).await.unwrap()[0].backing.file_name.clone().unwrap();
    let mut edit = DeviceEdit::of(vim.devices(&one).await.unwrap());
    edit.remove(DeviceKey(2000), DiskFiles::Keep).unwrap();
    vim.reconfigure(&one, edit.into_spec()).await.unwrap();
    assert!(vim.disks(&one).await.unwrap().is_empty());
    let mut edit = DeviceEdit::of(vim.devices(&two).await.unwrap());
    edit.add_disk(NewDisk::existing(&path)).unwrap();
    vim.reconfigure(&two, edit.into_spec()).await.unwrap();
    assert_eq!(read(&server.sim, "two", 2001), *b"hello");
    let config = vim.config(&two).await.unwrap();
    let attached = ConfigConversion::of(&config).as_copy("three").disk(DeviceKey(2001), DiskTarget::LeaveOut).convert();
    let three = vim.create_vm(&server.folder, &server.pool, None, attached.spec).await.unwrap();
    assert_eq!(vim.disks(&three).await.unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn machines_leave_the_inventory_and_come_back_with_their_disks() {
    let server = Server::with([spec("web")]).await;
    let (vim, old) = (&server.vim, server.vm("web").await);
    write(&server.sim, "web", 2000, b"hello");
    let path = vim.config(&old).await.unwrap().files.vm_path_name.unwrap();
    let register = async |what| vim.register_vm(&server.folder, what).await;
    let refused = register(RegisterVm::new(&path, &server.pool)).await.unwrap_err();
    assert_eq!(refused.fault_name(), Some("AlreadyExists"));
    vim.power_on(&old).await.unwrap();
    assert!(vim.unregister_vm(&old).await.unwrap_err().is_fault("InvalidPowerState"));
    vim.power_off(&old).await.unwrap();
    vim.unregister_vm(&old).await.unwrap();
    assert!(matches!(vim.find_vm(&VmLookup::MoRef(old.value().into())).await, Err(Error::NotFound { .. })));
    for (path, fault) in [("[ds1] no/no.vmx", "NotFound"), ("web/web.vmx", "InvalidDatastorePath")] {
        let refused = register(RegisterVm::new(path, &server.pool)).await.unwrap_err();
        assert_eq!(refused.fault_name(), Some(fault));
    }
    let back = register(RegisterVm::new(&path, &server.pool).name("back")).await.unwrap();
    assert_ne!(back, old);
    assert_eq!(read(&server.sim, "back", 2000), *b"hello");
    let found = vim.find_vm(&VmLookup::DatastorePath(path)).await.unwrap();
    assert_eq!((found.moref, found.name.as_str()), (back, "back"));
    server.stop().await;
}

#[tokio::test]
async fn a_copy_has_the_bytes_and_an_identity_of_its_own() {
    let server = Server::with([spec("web")]).await;
    let (vim, web) = (&server.vim, server.vm("web").await);
    write(&server.sim, "web", 2000, b"first");
    let snapshot = vim.create_snapshot(&web, CreateSnapshotOptions::new("s")).await.unwrap();
    write(&server.sim, "web", 2000, b"later");
    let now = vim.clone_vm(&web, &server.folder, "now", CloneOptions::new().power_on(true)).await.unwrap();
    vim.clone_vm(&web, &server.folder, "then", CloneOptions::new().snapshot(&snapshot)).await.unwrap();
    assert_eq!((&read(&server.sim, "now", 2000), &read(&server.sim, "then", 2000)), (b"later", b"first"));
    write(&server.sim, "now", 2000, b"other");
    assert_eq!(read(&server.sim, "web", 2000), *b"later", "the copy's writes are its own");
    assert_eq!(vim.power_state(&now).await.unwrap(), PowerState::On);
    let (old, new) = (vim.vm_identity(&web).await.unwrap(), vim.vm_identity(&now).await.unwrap());
    assert!(!old.is_same_machine(&new));
    let taken = vim.clone_vm(&web, &server.folder, "now", CloneOptions::new()).await.unwrap_err();
    assert!(taken.is_fault("DuplicateName"));
    vim.remove_all_snapshots(&web, true).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn templates_have_no_power_and_become_machines_again() {
    let server = Server::with([spec("web").power(Power::On)]).await;
    let (vim, web) = (&server.vim, server.vm("web").await);
    assert!(vim.mark_as_template(&web).await.unwrap_err().is_fault("InvalidPowerState"));
    assert!(vim.upgrade_hardware(&web, None).await.unwrap_err().is_fault("InvalidPowerState"));
    vim.power_off(&web).await.unwrap();
    vim.upgrade_hardware(&web, Some(20)).await.unwrap();
    assert_eq!(vim.vm_details(&web).await.unwrap().hardware_version, Some(20));
    assert!(vim.upgrade_hardware(&web, Some(19)).await.unwrap_err().is_fault("AlreadyUpgraded"));
    assert!(vim.templates().await.unwrap().is_empty());
    vim.mark_as_template(&web).await.unwrap();
    assert_eq!(vim.templates().await.unwrap()[0].moref, web);
    assert!(vim.power_on(&web).await.unwrap_err().is_fault("NotSupported"));
    assert!(vim.mark_as_template(&web).await.unwrap_err().is_fault("NotSupported"));
    let kept = vim.config(&web).await.unwrap();
    assert!(ConfigConversion::of(&kept).convert().warnings().any(|note| &*note.what == "template"));
    vim.mark_as_vm(&web, &server.pool, None).await.unwrap();
    vim.power_on(&web).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_guest_is_asked_before_the_power_is_cut() {
    let quick = Duration::from_millis(150);
    let guests = [
        ("obeys", GuestBehaviour::ShutsDownAfter(quick)),
        ("ignores", GuestBehaviour::Ignores),
        ("dumb", GuestBehaviour::NoTools),
    ];
    let specs = guests.map(|(name, guest)| VmSpec::new(name).guest(guest).power(Power::On));
    let server = Server::with(specs.into_iter().chain([VmSpec::new("asleep").power(Power::Suspended)])).await;
    let vim = &server.vim;
    let force = ShutdownPolicy::force().guest_timeout(quick * 4);
    let gently = ShutdownPolicy::guest_only().guest_timeout(quick);

    let ignores = server.vm("ignores").await;
    let error = vim.shut_down(&ignores, gently.clone()).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { after, .. } if after == quick), "{error}");
    assert_eq!(vim.power_state(&ignores).await.unwrap(), PowerState::On);
    let dumb = server.vm("dumb").await;
    assert!(vim.shut_down(&dumb, gently.clone()).await.unwrap_err().is_fault("ToolsUnavailable"));
    let asleep = server.vm("asleep").await;
    assert!(vim.shut_down(&asleep, gently).await.unwrap_err().is_fault("InvalidPowerState"));

    for (name, outcome) in [
        ("obeys", ShutdownOutcome::GuestObeyed),
        ("ignores", ShutdownOutcome::PowerCut(Forced::TimedOut)),
        ("dumb", ShutdownOutcome::PowerCut(Forced::NoTools)),
        ("asleep", ShutdownOutcome::PowerCut(Forced::Suspended)),
    ] {
        let vm = server.vm(name).await;
        assert_eq!(vim.shut_down(&vm, force.clone()).await.unwrap(), outcome, "{name}");
        assert_eq!(vim.power_state(&vm).await.unwrap(), PowerState::Off);
        assert_eq!(vim.shut_down(&vm, force.clone()).await.unwrap(), ShutdownOutcome::WasOff);
        assert!(vim.invoke(&vm, ShutdownGuest::default()).await.unwrap_err().is_fault("InvalidPowerState"));
    }
    server.stop().await;
}

#[tokio::test]
async fn folders_hold_machines_and_keep_names_apart() {
    let server = Server::with([spec("web")]).await;
    let (vim, web) = (&server.vim, server.vm("web").await);
    let shop = vim.create_folder(&server.folder, "shop").await.unwrap();
    let inner = vim.create_folder(&shop, "inner").await.unwrap();
    let twice = vim.create_folder(&server.folder, "shop").await.unwrap_err();
    assert_eq!(twice.fault::<DuplicateName>().unwrap().name, "shop");
    assert!(vim.create_folder(&server.folder, "").await.unwrap_err().is_fault("InvalidName"));
    let circle = vim.move_into_folder(&inner, [shop.erase()]).await.unwrap_err();
    assert!(circle.is_fault("InvalidFolder"), "{circle}");
    vim.move_into_folder(&inner, [web.erase()]).await.unwrap();
    let paths = async |pattern: &str| {
        vim.find_inventory(pattern).await.unwrap().into_iter().map(|entry| entry.path).collect::<Vec<_>>()
    };
    assert_eq!(paths("dc1/vm/**/web").await, ["dc1/vm/shop/inner/web"]);
    assert_eq!(paths("dc*/v?/s*").await, ["dc1/vm/shop"]);
    let other = VirtualMachineConfigSpec { name: Some("web".into()), ..Default::default() };
    vim.create_vm(&server.folder, &server.pool, None, other).await.unwrap();
    assert_eq!(paths("**/vm/**/w[ae]b").await, ["dc1/vm/shop/inner/web", "dc1/vm/web"]);
    vim.rename(&shop, "store").await.unwrap();
    vim.rename(&web, "front").await.unwrap();
    assert_eq!(paths("dc1/vm/store/**").await, ["dc1/vm/store", "dc1/vm/store/inner", "dc1/vm/store/inner/front"]);
    vim.destroy(&shop).await.unwrap();
    assert!(vim.vm_identity(&web).await.unwrap_err().is_fault("ManagedObjectNotFound"));
    server.stop().await;
}

#[tokio::test]
async fn vapps_show_their_machines_in_the_order_in_which_they_start() {
    let server = Server::with([spec("db")]).await;
    let (vim, db) = (&server.vim, server.vm("db").await);
    let args = CreateVApp { name: "shop".into(), vm_folder: Some(server.folder.clone()), ..Default::default() };
    let vapp = vim.invoke(&server.pool, args).await.unwrap();
    let spec = VirtualMachineConfigSpec { name: Some("front".into()), ..Default::default() };
    let front = vim.create_vm_in_vapp(&vapp, None, spec).await.unwrap();
    vim.relocate(&db, Relocation::new().pool(&vapp.cast())).await.unwrap();
    let nested = CreateVApp { name: "inner".into(), ..Default::default() };
    let nested = vim.invoke(&vapp.cast::<mo::ResourcePool>(), nested).await.unwrap();

    let vapps = vim.vapps().await.unwrap();
    let names: Vec<_> = vapps.iter().map(|vapp| (vapp.name.as_str(), vapp.members.len())).collect();
    assert_eq!(names, [("shop", 3), ("inner", 0)]);
    let members: Vec<_> = vapps[0].members.iter().map(|member| member.object.clone()).collect();
    assert_eq!(members, [db.erase(), front.erase(), nested.erase()]);
    assert_eq!(vapps[1].parent, Some(vapp.erase()));
    assert_eq!(vim.find_vms(&VmLookup::Pattern("**/shop/*".into())).await.unwrap().len(), 2);
    let parent: Option<MoRef<mo::Folder>> = vim.get_optional(&db, PropertyPath::new("parent")).await.unwrap();
    assert_eq!(parent, None, "a machine in a vApp is in no folder");
    let mut every = vim.virtual_machines();
    let mut found = Vec::new();
    while let Some(vm) = every.try_next().await.unwrap() {
        found.push(vm.name);
    }
    found.sort();
    assert_eq!(found, ["db", "front"]);
    server.stop().await;
}

#[tokio::test]
async fn guests_are_found_by_name_and_address_while_their_tools_answer() {
    let server =
        Server::with([VmSpec::new("web").power(Power::On), VmSpec::new("mute").guest(GuestBehaviour::NoTools)]).await;
    let vim = &server.vim;
    let web = server.vm("web").await;
    let guest = PropertyPath::<mo::VirtualMachine, String>::new;
    let name = vim.get(&web, guest("guest.hostName")).await.unwrap();
    let address = vim.get(&web, guest("guest.ipAddress")).await.unwrap();
    for lookup in [VmLookup::DnsName(name.to_uppercase()), VmLookup::Ip(address)] {
        assert_eq!(vim.find_vm(&lookup).await.unwrap().moref, web, "{lookup}");
    }
    assert!(vim.find_vms(&VmLookup::DnsName("mute.sim.invalid".into())).await.unwrap().is_empty());
    vim.power_off(&web).await.unwrap();
    assert!(vim.find_vms(&VmLookup::DnsName(name)).await.unwrap().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn machines_with_one_bios_id_are_told_apart() {
    let server = Server::with([spec("web")]).await;
    let (vim, web) = (&server.vim, server.vm("web").await);
    let uuid = vim.vm_identity(&web).await.unwrap().bios_uuid.unwrap();
    let spec = VirtualMachineConfigSpec { name: Some("twin".into()), uuid: Some(uuid.clone()), ..Default::default() };
    vim.create_vm(&server.folder, &server.pool, None, spec).await.unwrap();
    match vim.find_vm(&VmLookup::BiosUuid(uuid.clone())).await.unwrap_err() {
        Error::Ambiguous { candidates, .. } => assert_eq!(candidates.len(), 2, "{candidates:?}"),
        other => panic!("{other}"),
    }
    assert_eq!(vim.find_vms(&VmLookup::BiosUuid(uuid)).await.unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn snapshots_are_quiesced_as_asked_renamed_and_removed_together() {
    let server = Server::with([spec("web").power(Power::On)]).await;
    let (vim, web) = (&server.vim, server.vm("web").await);
    let vss = GuestQuiesce::new().timeout(Duration::from_secs(600)).windows(VssOptions::default());
    let first = vim.create_snapshot(&web, CreateSnapshotOptions::new("one").quiesce_as(vss.clone())).await.unwrap();
    vim.create_snapshot(&web, CreateSnapshotOptions::new("two")).await.unwrap();
    vim.rename_snapshot(&first, Some("uno"), Some("by hand")).await.unwrap();
    let tree = vim.snapshots(&web).await.unwrap();
    let found = tree.described("by hand").next().unwrap();
    assert_eq!((found.name.as_str(), found.quiesced), ("uno", true));
    assert_eq!(tree.current().unwrap().name, "two");
    vim.remove_all_snapshots(&web, true).await.unwrap();
    assert!(vim.snapshots(&web).await.unwrap().is_empty());
    assert!(!vim.consolidation_needed(&web).await.unwrap());
    assert!(vim.revert_to_current_snapshot(&web).await.unwrap_err().is_fault("NotFound"));
    server.stop().await;
}

#[tokio::test]
async fn an_old_server_is_told_what_it_understands_or_nothing() {
    let sim = Simulator::builder().vm(spec("web")).start().await.unwrap();
    let credentials = Credentials::password(sim.username(), sim.password());
    let pin: vsphere_vim::Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    let vim = Vim::builder(sim.url()).credentials(credentials).thumbprint(pin);
    let vim = vim.api_version(WireVersion::new("6.0").unwrap()).connect().await.unwrap();
    let web = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await.unwrap().moref;
    let options = |how| CreateSnapshotOptions::new("s").quiesce_as(how);
    let refused = vim.create_snapshot(&web, options(GuestQuiesce::new())).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    vim.create_snapshot(&web, options(GuestQuiesce::new().plain_on_old_servers(true))).await.unwrap();
    assert_eq!(vim.snapshots(&web).await.unwrap().iter().count(), 1);
    vim.logout().await.unwrap();
    sim.shutdown().await;
}

#[tokio::test]
async fn a_host_without_vcenter_refuses_what_it_cannot_do() {
    let sim = Simulator::builder().personality(Personality::Esxi).vm(spec("web")).start().await.unwrap();
    let vim = connect(&sim).await;
    let web = vim.find_vm(&VmLookup::Pattern("*/vm/web".into())).await.unwrap().moref;
    let folder: MoRef<mo::Folder> = vim.get(&web, PropertyPath::new("parent")).await.unwrap();
    let clone = vim.clone_vm(&web, &folder, "copy", CloneOptions::new()).await.unwrap_err();
    let made = vim.create_folder(&folder, "f").await.unwrap_err();
    for error in [clone, made, vim.mark_as_template(&web).await.unwrap_err()] {
        assert!(error.is_fault("NotSupported"), "{error}");
    }
    let kept = vim.config(&web).await.unwrap();
    let spec =
        ConfigConversion::of(&kept).as_copy("again").network(NetworkSource::Any, NetworkTarget::standard("VM Network"));
    let pool: MoRef<mo::ResourcePool> = vim.get(&web, PropertyPath::new("resourcePool")).await.unwrap();
    let again = vim.create_vm(&folder, &pool, None, spec.convert().spec).await.unwrap();
    assert_eq!(vim.disks(&again).await.unwrap().len(), 1);
    vim.logout().await.unwrap();
    sim.shutdown().await;
}
