//! From the configuration that a backup kept to the description of a machine to create.
//!
//! A [`VirtualMachineConfigInfo`](crate::types::VirtualMachineConfigInfo) is what a server says about a machine; a
//! [`VirtualMachineConfigSpec`](crate::types::VirtualMachineConfigSpec) is what it takes to make one. Much is copied
//! as it is. Some things make the creation fail when they are copied, some would tie the new machine to the old one,
//! and some the server alone can say. [`ConfigConversion`] knows which, and tells what it did:
//!
//! ```
//! use vsphere_vim::config_spec::{ConfigConversion, NetworkSource, NetworkTarget};
//! use vsphere_vim::types::VirtualMachineConfigInfo;
//!
//! # let kept = VirtualMachineConfigInfo::default();
//! let converted = ConfigConversion::of(&kept)
//!     .as_copy("web, restored")
//!     .datastore("ds2")
//!     .network(NetworkSource::Any, NetworkTarget::standard("Quarantine"))
//!     .convert();
//! for note in converted.warnings() {
//!     eprintln!("{note}");
//! }
//! // vim.create_vm(&folder, &pool, None, converted.spec).await?
//! ```
//!
//! # Devices
//! - The [devices that every machine has](DEFAULT_DEVICES) are left out. What hangs on them names them by the keys that
//!   they have on every machine (200 and 201 for IDE, 400 for SIO), except on the PCI bus, whose slots the server gives.
//! - Every other device is added under a negative key, unique in the description; what hangs on a controller names the
//!   controller's negative key. Lists of a controller's devices are dropped: the server makes them again.
//! - Labels, connection states, and everything that tells of a disk's past (parents, change id, content id, uuid,
//!   object ids) is dropped. So are references of the old server: datastores and networks are named.
//! - A disk keeps its kind where hosts can make it; delta formats and formats of hosted products become flat disks.
//! - Devices and backings that this version does not know are described as they were.
//!
//! # Fields
//! | field | |
//! |---|---|
//! | `changeVersion` | dropped: names a state of the old machine |
//! | `modified` | dropped: when the old machine was changed |
//! | `name` | converted: or the new name |
//! | `guestFullName` | dropped: follows from guestId |
//! | `version` | carried |
//! | `uuid` | converted: when the identity is kept |
//! | `createDate` | converted: when the identity is kept |
//! | `instanceUuid` | converted: when the identity is kept |
//! | `npivNodeWorldWideName` | converted: when the identity is kept |
//! | `npivPortWorldWideName` | converted: when the identity is kept |
//! | `npivWorldWideNameType` | converted: when the identity is kept and there are names |
//! | `npivDesiredNodeWwns` | carried |
//! | `npivDesiredPortWwns` | carried |
//! | `npivTemporaryDisabled` | carried |
//! | `npivOnNonRdmDisks` | carried |
//! | `locationId` | dropped: a hash of the old machine's path |
//! | `template` | dropped: a machine becomes a template by its own call |
//! | `guestId` | carried |
//! | `alternateGuestName` | converted: when it is not empty |
//! | `annotation` | carried |
//! | `files` | converted: the new datastore or path; directories outside the machine's own stay |
//! | `tools` | converted: the policies; not the installed version, nor pending customizations |
//! | `flags` | converted: all but record/replay and the fault tolerance type |
//! | `consolePreferences` | carried |
//! | `defaultPowerOps` | converted: powerOpInfo, without the host's defaults |
//! | `rebootPowerOff` | carried |
//! | `hardware` | converted: the numbers one by one, the devices as additions |
//! | `vcpuConfig` | carried |
//! | `cpuAllocation` | carried |
//! | `memoryAllocation` | carried |
//! | `latencySensitivity` | carried |
//! | `memoryHotAddEnabled` | carried |
//! | `cpuHotAddEnabled` | carried |
//! | `cpuHotRemoveEnabled` | carried |
//! | `hotPlugMemoryLimit` | dropped: computed by the server |
//! | `hotPlugMemoryIncrementSize` | dropped: computed by the server |
//! | `cpuAffinity` | carried |
//! | `memoryAffinity` | carried |
//! | `networkShaper` | carried |
//! | `extraConfig` | converted: all but the keys that the server writes for itself |
//! | `cpuFeatureMask` | converted: each entry as an addition |
//! | `datastoreUrl` | dropped: the paths of the old host |
//! | `swapPlacement` | carried |
//! | `bootOptions` | converted: the boot order as chosen |
//! | `ftInfo` | dropped: ties the old machine to its double |
//! | `repConfig` | dropped: names the replication of the old machine |
//! | `vAppConfig` | converted: each entry as an addition |
//! | `vAssertsEnabled` | carried |
//! | `changeTrackingEnabled` | carried |
//! | `firmware` | carried |
//! | `maxMksConnections` | carried |
//! | `guestAutoLockEnabled` | carried |
//! | `managedBy` | carried |
//! | `memoryReservationLockedToMax` | carried |
//! | `initialOverhead` | dropped: computed by the server |
//! | `nestedHVEnabled` | carried |
//! | `vPMCEnabled` | carried |
//! | `scheduledHardwareUpgradeInfo` | converted: the policy, not how the last try ended |
//! | `forkConfigInfo` | dropped: tells of the old machine's instant clones |
//! | `vFlashCacheReservation` | dropped: follows from the disks |
//! | `vmxConfigChecksum` | dropped: of the old configuration file |
//! | `messageBusTunnelEnabled` | carried |
//! | `vmStorageObjectId` | dropped: the old object on vSAN |
//! | `swapStorageObjectId` | dropped: the old object on vSAN |
//! | `keyId` | dropped: the key that the old machine was encrypted with |
//! | `guestIntegrityInfo` | dropped: measured in the running guest |
//! | `migrateEncryption` | carried |
//! | `sgxInfo` | carried |
//! | `contentLibItemInfo` | dropped: where the old machine was deployed from |
//! | `ftEncryptionMode` | carried |
//! | `guestMonitoringModeInfo` | carried |
//! | `sevEnabled` | carried |
//! | `numaInfo` | converted: virtualNuma, where it is not automatic |
//! | `pmemFailoverEnabled` | carried |
//! | `vmxStatsCollectionEnabled` | carried |
//! | `vmOpNotificationToAppEnabled` | carried |
//! | `vmOpNotificationTimeout` | carried |
//! | `deviceSwap` | dropped: tells of a swap that the old machine went through |
//! | `pmem` | carried |
//! | `deviceGroups` | carried |
//! | `fixedPassthruHotPlugEnabled` | carried |
//! | `metroFtEnabled` | dropped: ties the old machine to its double |
//! | `vmxRuntimeConfig` | dropped: of the running machine |
//! | `metroFtHostGroup` | dropped: ties the old machine to its double |
//! | `tdxEnabled` | carried |
//! | `sevSnpEnabled` | carried |
//! | `guestArchitecture` | dropped: follows from guestId |
//!
//! What is dropped from `extraConfig` is in [`SERVER_KEYS`].

mod conversion;
mod devices;
mod disks;
mod extra;
mod fields;
mod network;
mod note;
mod options;
mod place;
mod vapp;

pub use self::{
    conversion::{ConfigConversion, ConvertedConfig},
    devices::DEFAULT_DEVICES,
    extra::SERVER_KEYS,
    fields::{FIELDS, FieldFate},
    network::{NetworkSource, NetworkTarget},
    note::{ConversionNote, Severity},
    options::{
        BootOrder, DiskNames, DiskTarget, HostDevices, Identity, MacAddresses, Provisioning, RawMappings, Tpm,
        VideoCard,
    },
    place::DatastoreTarget,
};
