//! What a backup would do, found out without changing anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vsphere_vim::{
    MoRef, PropertyPath, VirtualDiskInfo, mo,
    types::{AboutInfo, VirtualMachineFileLayoutEx, methods},
};

use crate::{
    error::{Result, in_one_line},
    journal::{Journal, marker},
    repository::{BackupMode, LeftOut, PointId, Repository, VmId},
    server,
};

use super::{
    Backup,
    condition::{Condition, Finding, Severity, Subject},
    machine::Machine,
    surroundings::defects,
};

/// What a backup would do as things are now, what it would not, and why.
///
/// The findings' codes and the fields' names do not change between releases.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Preflight {
    /// The machine; `None` when it has no identity.
    pub vm: Option<VmId>,
    /// Its name.
    pub name: String,
    /// The server's product and version.
    pub server: String,
    /// The version of the machine's host, where that can be read.
    pub host_version: Option<String>,
    /// The virtual hardware's version.
    pub hardware_version: Option<u32>,
    /// The ways to quiesce the guest that would be tried, in order.
    pub quiesce: Vec<&'static str>,
    /// The point that incremental disks would begin with.
    pub base: Option<PointId>,
    /// The disks that would be backed up.
    pub disks: Vec<PreflightDisk>,
    /// The disks that would not, and why.
    pub left_out: Vec<LeftOut>,
    /// All that was found, in the order of the table of conditions.
    pub findings: Vec<Finding>,
}

/// How a disk would be backed up.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PreflightDisk {
    /// The device key.
    pub key: i32,
    /// The label.
    pub label: String,
    /// In bytes.
    pub capacity: u64,
    /// All of it or the changes.
    pub mode: BackupMode,
    /// Why.
    pub reason: String,
    /// How much would be read, as far as that can be told.
    pub estimate: Option<Estimate>,
}

/// How much would be read of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// In bytes.
    pub bytes: u64,
    /// By what that is said.
    pub basis: EstimateBasis,
}

/// By what an estimate is made. Changes themselves can be asked for only when there is a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum EstimateBasis {
    /// The size of the disk's files: what is allocated, and at most what is read.
    Files,
    /// What had changed at the backup before, which was incremental too.
    LastIncremental,
    /// The disk's size: nothing better is known.
    Capacity,
}

impl Preflight {
    /// Returns the worst of the findings.
    pub fn severity(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
    }

    /// Tells whether there would be a backup.
    pub fn is_possible(&self) -> bool {
        self.severity() < Severity::Refused
    }

    /// Returns the findings of a condition.
    pub fn findings_of(&self, condition: Condition) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.condition == condition)
    }

    /// Returns how much would be read, of the disks where that can be told.
    pub fn estimated_bytes(&self) -> u64 {
        self.disks.iter().filter_map(|disk| disk.estimate).map(|estimate| estimate.bytes).sum()
    }
}

impl Backup {
    pub(super) async fn run_preflight(&self, repository: &Repository) -> Result<Preflight> {
        let machine = self.read_machine().await?;
        let details = &machine.details;
        let mut findings = machine.findings(&self.policies, &self.quiesce, repository.is_encrypted());
        for &key in &self.excluded {
            if details.disks.iter().any(|disk| disk.key.0 == key) {
                findings.push(Finding::new(Condition::Excluded, Subject::Disk(key), ""));
            }
        }
        let vm = details.identity.instance_uuid.as_deref().and_then(|uuid| VmId::parse(uuid).ok());
        let base = match &vm {
            Some(vm) => self.base(repository, vm).await?,
            None => None,
        };
        let newest = match &vm {
            Some(vm) => repository.latest(vm).await?,
            None => None,
        };
        let (base, marked) = self.marked(repository, base, newest.as_ref()).await?;
        let left_out = self.left_out_of(&machine);
        let stays: Vec<&VirtualDiskInfo> =
            details.disks.iter().filter(|disk| left_out.iter().all(|left| left.key != disk.key.0)).collect();
        if stays.is_empty() {
            findings.push(Finding::machine(Condition::NoDisks, ""));
        }
        let sizes = self.file_sizes().await;
        let disks = stays.iter().map(|disk| {
            let record = base.as_ref().and_then(|base| base.record(disk.key.0).ok());
            let points = (base.as_ref(), newest.as_ref());
            let decision = self.decision(&machine, disk, points, &marked);
            let (mode, reason) = decision.told();
            let last =
                record.filter(|record| record.mode == BackupMode::Incremental).map(|record| record.bytes.changed);
            let estimate = estimate(disk, mode, last, sizes.get(&disk.key.0).copied());
            let (key, label, capacity) = (disk.key.0, disk.label.clone(), disk.capacity);
            PreflightDisk { key, label, capacity, mode, reason, estimate: Some(estimate) }
        });
        let disks = disks.collect();
        let host_version = self.host_version(&machine).await;
        findings.extend(defects(host_version.as_deref().unwrap_or(&self.vim.content().about.version)));
        findings.extend(self.leftovers(&machine, vm.as_ref()));
        findings.extend(self.datastores(&stays).await);
        findings.extend(self.privileges(&machine).await);
        findings.sort_by_key(|finding| finding.condition);
        Ok(Preflight {
            vm,
            name: details.identity.name.clone(),
            server: self.vim.content().about.full_name.clone(),
            host_version,
            hardware_version: details.hardware_version,
            quiesce: match details.is_template {
                true => Vec::new(),
                false => self.quiesce.chain(details).steps.iter().map(|step| step.name()).collect(),
            },
            base: base.map(|base| base.id().clone()),
            disks,
            left_out,
            findings,
        })
    }

    /// Returns what the files of each disk take.
    async fn file_sizes(&self) -> BTreeMap<i32, u64> {
        match self.vim.get_optional(&self.vm, mo::VirtualMachine::LAYOUT_EX).await {
            Ok(layout) => layout.map(|layout| sizes(&layout)).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, "the machine's files cannot be listed");
                BTreeMap::new()
            }
        }
    }

    async fn host_version(&self, machine: &Machine) -> Option<String> {
        const PRODUCT: PropertyPath<mo::HostSystem, AboutInfo> = PropertyPath::new("summary.config.product");
        let host = machine.details.host.as_ref()?;
        match self.vim.get_optional(host, PRODUCT).await {
            Ok(product) => product.map(|product| product.version),
            Err(error) => {
                tracing::debug!(%error, "the host's version cannot be read");
                None
            }
        }
    }

    fn leftovers(&self, machine: &Machine, vm: Option<&VmId>) -> Vec<Finding> {
        let details = &machine.details;
        let marked = details.snapshots.iter().filter(|found| marker::job_in(&found.description).is_some());
        let mut found: Vec<_> = marked
            .map(|found| {
                Finding::machine(Condition::Leftover, format!("snapshot {:?}, {}", found.name, found.description))
            })
            .collect();
        if let (Some(folder), Some(vm)) = (&self.journal, vm) {
            match Journal::leftovers(folder) {
                Ok(leftovers) => {
                    let own = leftovers.into_iter().filter(|left| left.job.vm == vm.to_string() && !left.is_clean());
                    found.extend(own.map(|left| {
                        Finding::machine(Condition::Leftover, format!("the journal of job {}", left.job.id))
                    }));
                }
                Err(error) => tracing::debug!(%error, "the journals cannot be read"),
            }
        }
        let locked: Vec<_> =
            details.disabled_methods.iter().filter(|method| NEEDED.contains(&method.as_str())).collect();
        if !locked.is_empty() {
            let names = locked.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            found.push(Finding::machine(Condition::MethodsLocked, names));
        }
        found
    }

    /// Asks which privileges the session has.
    async fn privileges(&self, machine: &Machine) -> Vec<Finding> {
        let asked = async {
            let content = self.vim.content();
            let (Some(sessions), Some(authority)) = (&content.session_manager, &content.authorization_manager) else {
                return Ok(None);
            };
            let session = self.vim.get(sessions, mo::SessionManager::CURRENT_SESSION).await?.key;
            let wanted = self.wanted(machine);
            let mut found = Vec::new();
            let entities: BTreeSet<_> = wanted.iter().map(|wanted| &wanted.entity).collect();
            for entity in entities {
                let here: Vec<_> = wanted.iter().filter(|wanted| wanted.entity == *entity).collect();
                let args = methods::HasPrivilegeOnEntity {
                    entity: entity.clone(),
                    session_id: session.clone(),
                    priv_id: here.iter().map(|wanted| wanted.privilege.to_owned()).collect(),
                    ..Default::default()
                };
                let has = self.vim.invoke(authority, args).await?;
                if has.len() != here.len() {
                    return Ok(None);
                }
                let missing = here.iter().zip(has).filter(|(_, has)| !has).map(|(wanted, _)| {
                    let detail = format!("{} on {entity}, for {}", wanted.privilege, wanted.purpose);
                    let condition =
                        if wanted.required { Condition::PrivilegeMissing } else { Condition::PrivilegeOptional };
                    Finding::machine(condition, detail)
                });
                found.extend(missing);
            }
            Ok::<_, vsphere_vim::Error>(Some(found))
        };
        match asked.await {
            Ok(Some(found)) => found,
            Ok(None) => vec![Finding::machine(Condition::PrivilegesUnknown, "")],
            Err(error) => {
                let error = server::failed("asking for privileges", self.vm.value())(error);
                vec![Finding::machine(Condition::PrivilegesUnknown, in_one_line(&error))]
            }
        }
    }

    /// Returns the privileges that the backup would use, and on what.
    fn wanted(&self, machine: &Machine) -> Vec<Wanted> {
        let vm: MoRef<mo::ManagedEntity> = self.vm.as_untyped().clone().cast();
        let on_vm = |privilege, purpose, required| Wanted { entity: vm.clone(), privilege, purpose, required };
        let mut wanted = vec![on_vm("VirtualMachine.Provisioning.DiskRandomRead", "reading the disks", true)];
        if !machine.details.is_template {
            wanted.push(on_vm("VirtualMachine.State.CreateSnapshot", "the snapshot", true));
            wanted.push(on_vm("VirtualMachine.State.RemoveSnapshot", "the snapshot", true));
        }
        if machine.enables_tracking(self.policies.tracking) {
            wanted.push(on_vm("VirtualMachine.Config.ChangeTracking", "enabling change tracking", false));
        }
        if machine.key.is_some() || machine.details.disks.iter().any(|disk| disk.backing.encrypted) {
            wanted.push(on_vm("Cryptographer.Access", "reading encrypted disks", true));
        }
        if self.vim.is_vcenter() {
            wanted.push(on_vm("Global.DisableMethods", "the migration lock", false));
            wanted.push(on_vm("Global.EnableMethods", "the migration lock", false));
        }
        let stores: BTreeSet<_> =
            machine.details.disks.iter().filter_map(|disk| disk.backing.datastore.clone()).collect();
        for store in stores {
            let entity: MoRef<mo::ManagedEntity> = store.as_untyped().clone().cast();
            let purpose = "storing the configuration file and NVRAM";
            let on = |privilege| Wanted { entity: entity.clone(), privilege, purpose, required: false };
            wanted.extend([on("Datastore.Browse"), on("Datastore.FileManagement")]);
        }
        wanted
    }
}

struct Wanted {
    entity: MoRef<mo::ManagedEntity>,
    privilege: &'static str,
    purpose: &'static str,
    required: bool,
}

fn estimate(disk: &VirtualDiskInfo, mode: BackupMode, last: Option<u64>, files: Option<u64>) -> Estimate {
    let at_most = |bytes: u64, basis| Estimate { bytes: bytes.min(disk.capacity), basis };
    match (mode, last, files) {
        (BackupMode::Incremental, Some(changed), _) => at_most(changed, EstimateBasis::LastIncremental),
        (_, _, Some(bytes)) => at_most(bytes, EstimateBasis::Files),
        _ => at_most(disk.capacity, EstimateBasis::Capacity),
    }
}

/// Adds up the extents of each disk's chain. Object stores have no sizes there.
fn sizes(layout: &VirtualMachineFileLayoutEx) -> BTreeMap<i32, u64> {
    let extents: BTreeMap<i32, u64> = layout
        .file
        .iter()
        .filter(|file| file.type_ == "diskExtent")
        .filter_map(|file| Some((file.key, u64::try_from(file.size).ok()?)))
        .collect();
    let of_disk = |disk: &vsphere_vim::types::VirtualMachineFileLayoutExDiskLayout| -> Option<u64> {
        let keys = disk.chain.iter().flat_map(|unit| &unit.file_key);
        let found: Vec<u64> = keys.filter_map(|key| extents.get(key).copied()).collect();
        (!found.is_empty()).then(|| found.iter().fold(0u64, |sum, size| sum.saturating_add(*size)))
    };
    layout.disk.iter().filter_map(|disk| Some((disk.key, of_disk(disk)?))).collect()
}

/// Methods that a backup calls, or locks itself.
const NEEDED: &[&str] =
    &["CreateSnapshot_Task", "CreateSnapshotEx_Task", "RemoveSnapshot_Task", "RelocateVM_Task", "ReconfigVM_Task"];
