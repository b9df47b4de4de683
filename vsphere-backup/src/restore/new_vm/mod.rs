//! A new machine from a recovery point: described by the stored configuration, created by the server with empty disks,
//! filled over a transport, and destroyed again unless all of it succeeds.

mod disks;
mod firmware;
mod maker;
mod options;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use vsphere_vim::{
    MoRef, Vim, VmLookup,
    config_spec::{ConfigConversion, ConvertedConfig, DiskTarget},
    device::DeviceKey,
    mo,
    types::VirtualMachineConfigInfo,
};

use self::maker::Maker;
pub use self::options::{NetworkChoice, NewVm, UnmappedNetworks, VmIdentity};
use super::{Restore, RestoredDiskReport};
use crate::{
    backup::CONFIG_OBJECT,
    error::{Error, Result, in_one_line},
    event::Event,
    journal::{Abandoned, Job, Leftover},
    repository::DiskRecord,
    server::failed,
    step::{Step, Steps},
};

/// What a restore to a new machine did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewVmReport {
    /// The new machine.
    pub vm: MoRef<mo::VirtualMachine>,
    /// Its name.
    pub name: String,
    /// One report for each disk.
    pub disks: Vec<RestoredDiskReport>,
    /// What differs from the machine that was backed up, and what could not be known or set.
    pub notes: Vec<String>,
    /// Whether the stored NVRAM was put beside it: boot entries and Secure Boot variables.
    pub nvram: bool,
    /// Whether it was powered on.
    pub powered_on: bool,
    /// From begin to end.
    pub elapsed: Duration,
}

impl Restore {
    /// Restores to a new machine, on this server or another one.
    ///
    /// The machine is described by the configuration that the point holds, and created with the disks that are
    /// restored: all of the point, or those that [`disk`](Self::disk) names. Disks that the point does not hold are
    /// left out, with a note. It is filled while it is off. After an error, a cancellation or a drop it is destroyed
    /// again; after a crash [`clean_up`](Self::clean_up) does that.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a [`journal`](Self::journal); [`Error::Refused`] when the point holds no
    /// configuration or the choices do not fit it; [`Error::Server`] with the server's reason when it does not create
    /// the machine; else as [`to_vm`](Self::to_vm). A machine that cannot be powered on is whole and stays; that is a
    /// note.
    ///
    /// # Privileges
    /// `VirtualMachine.Inventory.Create` and `.Delete` on the folder, `Resource.AssignVMToPool`,
    /// `Datastore.AllocateSpace`, `Network.Assign`, those of the devices, and
    /// `VirtualMachine.Provisioning.DiskRandomAccess`.
    ///
    /// # Cancel safety
    /// When dropped, the job is cancelled and goes on in the background, on the runtime, until the machine is destroyed.
    #[doc(alias = "CreateVM_Task")]
    pub async fn to_new_vm(self, vim: &Vim, place: NewVm) -> Result<NewVmReport> {
        let (vim, caller) = (vim.clone(), self.cancel.clone());
        let work =
            |cancel, journal: Arc<Abandoned>| async move { Self { cancel, ..self }.make(&vim, &place, &journal).await };
        caller.outlive_journaled(work).await
    }

    /// Undoes what restores left behind on this server that did not end, as after a crash: machines that are not whole.
    /// Those that run now, here or elsewhere, are left alone. Returns what was found.
    ///
    /// # Errors
    /// [`Error::Journal`]; [`Error::Server`] when a machine cannot be destroyed: it stays in the journal.
    ///
    /// # Cancel safety
    /// When dropped, call it again.
    pub async fn clean_up(vim: &Vim, journal: impl AsRef<Path>) -> Result<Vec<Leftover>> {
        maker::undo_all(vim, journal.as_ref()).await
    }

    async fn make(&self, vim: &Vim, place: &NewVm, abandoned: &Abandoned) -> Result<NewVmReport> {
        let begun = Instant::now();
        let steps = self.steps(self.point.manifest().vm.instance_uuid.as_str());
        let job = self.new_job(vim, "")?;
        let mut report = self.holding(&steps, &job, self.make_held(&steps, vim, place, &job, abandoned)).await?;
        report.elapsed = begun.elapsed();
        Ok(report)
    }

    async fn make_held(
        &self,
        steps: &Steps,
        vim: &Vim,
        place: &NewVm,
        job: &Job,
        abandoned: &Abandoned,
    ) -> Result<NewVmReport> {
        let folder = self.journal.as_deref();
        let folder = folder.ok_or_else(|| Error::invalid("a new machine needs a journal: Restore::journal"))?;
        let config = steps.once(Step::LoadConfig, self.stored_config()).await?;
        let plan = steps.take(Step::DescribeMachine, || self.plan(vim, place, &config)).await?;
        let maker = Maker::open(vim, folder, &job.id, steps, &self.events).await?;
        abandoned.note(maker.journal());
        let done = self.create_and_fill(&maker, place, &plan, &config, job).await;
        // The first error is the one to be told of; the journal keeps what stays.
        if let Err(left) = maker.undo().await {
            self.events.send(Event::LeftBehind { what: in_one_line(&left) });
        }
        done
    }

    /// Everything that is undone when it fails.
    async fn create_and_fill(
        &self,
        maker: &Maker<'_>,
        place: &NewVm,
        plan: &Plan,
        config: &VirtualMachineConfigInfo,
        job: &Job,
    ) -> Result<NewVmReport> {
        let name = plan.converted.spec.name.clone().unwrap_or_default();
        maker.begin(job.clone()).await?;
        let vm = maker.create(job, place, plan.converted.spec.clone(), &self.cancel).await?;

        let mut notes: Vec<String> = plan.converted.warnings().map(ToString::to_string).collect();
        notes.extend(plan.notes.iter().cloned());
        let disks = self.fill(maker, &vm, place, &plan.disks, config, &mut notes).await?;
        let nvram = self.put_nvram(maker, &vm, &mut notes).await?;
        self.cancel.check()?;
        notes.extend(maker.settle(&vm).await?);
        let mut powered_on = false;
        if place.power_on {
            match self.power_up(&maker.steps().undoing(), maker.vim(), &vm).await {
                Ok(()) => powered_on = true,
                Err(error) => notes.push(format!("it could not be powered on: {}", in_one_line(&error))),
            }
        }
        for note in &notes {
            self.events.warn(format!("{name}: {note}"));
        }
        Ok(NewVmReport { vm, name, disks, notes, nvram, powered_on, elapsed: Duration::ZERO })
    }

    /// Reads the configuration that the point holds.
    pub(super) async fn stored_config(&self) -> Result<VirtualMachineConfigInfo> {
        let body = self.point.object(CONFIG_OBJECT).await?.ok_or_else(|| {
            self.refused("its point holds no configuration", Some("restore its disks to a machine that you create"))
        })?;
        let config: VirtualMachineConfigInfo = serde_json::from_slice(&body)
            .map_err(|error| Error::damaged(format!("{CONFIG_OBJECT} of {}", self.point.id()), error.to_string()))?;
        Ok(config)
    }

    /// Decides what is created and which disks are filled.
    async fn plan(&self, vim: &Vim, place: &NewVm, config: &VirtualMachineConfigInfo) -> Result<Plan> {
        let wanted = self.wanted()?;
        let mut conversion = ConfigConversion::of(config);
        let mut notes = Vec::new();
        let stored = vsphere_vim::VirtualDiskInfo::all_of(&config.hardware.device);
        for disk in &stored {
            if wanted.iter().all(|record| record.key != disk.key.0) {
                conversion = conversion.disk(disk.key, DiskTarget::LeaveOut);
                let why = self.point.manifest().left_out.iter().find(|left| left.key == disk.key.0);
                let why = why.map_or("it was not asked for", |left| left.reason.as_str());
                notes.push(format!("disk {} ({}) is left out: {why}", disk.key.0, disk.label));
            }
        }
        for record in &wanted {
            if stored.iter().all(|disk| disk.key.0 != record.key) {
                return Err(self.refused(format!("its configuration has no disk {}", record.key), None));
            }
        }
        let conversion = place.apply(vim, conversion).await?;
        let unmapped = conversion.unmapped_adapters();
        if place.unmapped == UnmappedNetworks::Refuse && !unmapped.is_empty() {
            let keys: Vec<String> = unmapped.iter().map(|key| key.0.to_string()).collect();
            let reason = format!("no network is named for its adapters {}", keys.join(", "));
            return Err(self.refused(reason, Some("NewVm::network names one")));
        }
        if place.identity == VmIdentity::Original {
            self.check_absent(vim).await?;
        }
        let converted = conversion.convert();
        // The caller may have left out more, or put existing disks in their place.
        let creates = |record: &DiskRecord| disks::is_created(&converted, DeviceKey(record.key));
        let disks = wanted.into_iter().filter(creates).collect();
        Ok(Plan { converted, disks, notes })
    }

    /// Refuses a second machine of one identity.
    async fn check_absent(&self, vim: &Vim) -> Result<()> {
        let uuid = self.point.manifest().vm.instance_uuid.as_str().to_owned();
        let found = vim.find_vms(&VmLookup::InstanceUuid(uuid.clone())).await;
        match found {
            Ok(found) if found.is_empty() => Ok(()),
            Ok(found) => {
                let reason = format!("{} has its instanceUuid {uuid}", found[0]);
                Err(self.refused(reason, Some("remove that one, restore in place, or give the new one a new identity")))
            }
            Err(vsphere_vim::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("looking for the machine", &uuid)(error)),
        }
    }
}

/// What is created and filled.
struct Plan {
    converted: ConvertedConfig,
    /// The disks that are filled.
    disks: Vec<DiskRecord>,
    notes: Vec<String>,
}
