//! Handles on simulated VMs and disks, for tests and for "the guest".

use std::sync::Arc;

use vsphere_vim_types::ManagedObjectReference;

use crate::alarm::{self, AlarmHandle};
use crate::personality::Fixed;
use crate::storage::{DiskCounters, DiskStore};
use crate::vm::operate::{self, PowerOperation};
use crate::vm::{Power, Vm};
use crate::world::World;
use crate::{Error, Result};

/// A simulated VM, seen from outside the API.
#[derive(Clone)]
pub struct VmHandle {
    world: Arc<World>,
    id: String,
}

impl VmHandle {
    pub(crate) fn new(world: Arc<World>, id: String) -> Self {
        Self { world, id }
    }

    /// The managed object id: `vm-1001`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The `instanceUuid`, the same after every start of a simulator with a VM of this name.
    pub fn instance_uuid(&self) -> String {
        self.read(|vm| vm.instance_uuid.clone())
    }

    /// Where `FindByInventoryPath` finds it: `dc1/vm/web`.
    pub fn inventory_path(&self) -> String {
        let datacenter = self.world.personality().name(Fixed::Datacenter);
        self.read(|vm| format!("{datacenter}/vm/{}", vm.name()))
    }

    /// Whether it runs.
    pub fn power(&self) -> Power {
        self.read(|vm| vm.power)
    }

    /// Runs it or stops it, as somebody at the console would.
    ///
    /// # Errors
    /// [`Error::NoSuch`] when that is not possible now: the fault's name is in the message.
    pub fn set_power(&self, power: Power) -> Result<()> {
        let operation = match power {
            Power::On => PowerOperation::On,
            Power::Off => PowerOperation::Off,
            Power::Suspended => PowerOperation::Suspend,
        };
        if self.power() == power {
            return Ok(());
        }
        let done = operate::power(&self.world, &self.id, operation);
        self.world.touch();
        done.map_err(|fault| Error::NoSuch { what: "way to change the power state:", name: fault.name().into() })
    }

    /// Names of its snapshots, in no order.
    pub fn snapshots(&self) -> Vec<String> {
        self.read(|vm| vm.snapshots.values().map(|snapshot| snapshot.name.clone()).collect())
    }

    /// Methods disabled on it, by whatever source.
    pub fn disabled_methods(&self) -> Vec<String> {
        self.read(|vm| vm.disabled.keys().map(|(_, method)| method.clone()).collect())
    }

    /// Whether the configuration says that changes are tracked.
    pub fn change_tracking(&self) -> bool {
        self.read(|vm| vm.settings.tracking)
    }

    /// Keys of its disks.
    pub fn disks(&self) -> Vec<i32> {
        self.read(|vm| vm.settings.disks.keys().copied().collect())
    }

    /// A disk by its key.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub fn disk(&self, key: i32) -> Result<DiskHandle> {
        let store = self.read(|vm| vm.settings.disks.get(&key).map(|disk| disk.store.clone()));
        store.map(|store| DiskHandle { store }).ok_or_else(|| Error::NoSuch { what: "disk", name: key.to_string() })
    }

    /// The inside of the VM.
    pub fn guest(&self) -> Guest {
        Guest { vm: self.clone() }
    }

    /// Denies (or allows again) reading its properties: they come back as missing with `NoPermission`.
    pub fn deny_reading(&self, deny: bool) {
        let object = ManagedObjectReference::of("VirtualMachine", &self.id);
        let mut state = self.world.lock();
        state.denied.retain(|denied| *denied != object);
        if deny {
            state.denied.push(object);
        }
        drop(state);
        self.world.touch();
    }

    /// Sets up an alarm on it.
    ///
    /// # Errors
    /// [`Error::NoSuch`] on a host, which has no alarms.
    pub fn declare_alarm(&self, name: &str) -> Result<AlarmHandle> {
        alarm::declare(&self.world, ManagedObjectReference::of("VirtualMachine", &self.id), name)
    }

    /// Takes it out of the inventory at once, as an unregistering does: references to it go stale.
    pub fn unregister(&self) {
        let taken = self.world.lock().vms.remove(&self.id);
        if let Some(vm) = taken {
            crate::vm::create::shelve(&self.world, vm);
        }
        self.world.touch();
    }

    fn read<T: Default>(&self, read: impl FnOnce(&Vm) -> T) -> T {
        // A VM that was unregistered has nothing to show.
        self.world.lock().vms.get(&self.id).map(read).unwrap_or_default()
    }
}

/// What runs inside a VM.
#[derive(Clone)]
pub struct Guest {
    vm: VmHandle,
}

impl Guest {
    /// A disk as the guest sees it, by the key that the API gives it.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub fn disk(&self, key: i32) -> Result<DiskHandle> {
        self.vm.disk(key)
    }
}

/// A simulated disk: its present bytes, its tracking, its counters. Calls block on file I/O.
#[derive(Clone)]
pub struct DiskHandle {
    store: Arc<DiskStore>,
}

impl DiskHandle {
    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.store.capacity()
    }

    /// Datastore path of the file that the VM runs on now.
    pub fn path(&self) -> String {
        self.store.paths(self.store.current()).into_iter().next().unwrap_or_default()
    }

    /// Reads the present bytes.
    ///
    /// # Errors
    /// [`Error::Storage`] outside the disk and on host errors.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        Ok(self.store.guest_read(offset, buffer)?)
    }

    /// Writes as the guest does; change tracking sees it. On a VM that is off it is an edit from outside.
    ///
    /// # Errors
    /// [`Error::Storage`] outside the disk and on host errors.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.store.guest_write(offset, bytes)?)
    }

    /// The change id of the running disk; absent when it is not tracked.
    pub fn change_id(&self) -> Option<String> {
        self.store.change_id()
    }

    /// Starts tracking anew, as a crash of the host may: all change ids become stale.
    pub fn reset_tracking(&self) {
        self.store.reset_tracking();
    }

    /// Bytes so far.
    pub fn counters(&self) -> DiskCounters {
        self.store.counters()
    }

    /// Sets the counters to zero.
    pub fn reset_counters(&self) {
        self.store.reset_counters();
    }

    /// The storage engine's own view of the disk.
    pub fn store(&self) -> &Arc<DiskStore> {
        &self.store
    }
}
