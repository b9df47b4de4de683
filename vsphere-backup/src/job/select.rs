//! Which machines a job is about.

use std::{collections::BTreeMap, fmt, sync::Arc};

use vsphere_vim::{
    ManagedObjectReference, MoRef, PowerState, PropertyPath, Vim,
    mo::{self, VirtualMachine},
    property::Property,
    property_struct,
};

use crate::{
    error::{Error, Result},
    schedule::Demand,
    server,
};

use super::unit::{SelectedSet, SetSource};

/// A selection of machines: what is named, found and then filtered.
///
/// ```
/// use vsphere_backup::job::Selection;
/// use vsphere_vim::PowerState;
///
/// // All machines below the folder but those for tests, if they run.
/// let selection = Selection::path("dc1/vm/production/**")
///     .except_path("dc1/vm/production/**/test-*")
///     .matching(|machine| machine.power_state == PowerState::On);
/// ```
///
/// It is looked up when the job runs: a fixed number of questions, however many machines there are.
///
/// Each machine is backed up by itself, unless it was selected by [`vapp`](Self::vapp) or [`set`](Self::set).
#[derive(Clone, Default)]
#[must_use]
pub struct Selection {
    named: Vec<MoRef<VirtualMachine>>,
    paths: Vec<String>,
    below: Vec<ManagedObjectReference>,
    except: Vec<String>,
    filters: Vec<Filter>,
    templates: bool,
    sets: Vec<SetSource>,
}

type Filter = Arc<dyn Fn(&Candidate) -> bool + Send + Sync>;

/// A machine as a selection finds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The reference.
    pub vm: MoRef<VirtualMachine>,
    /// The name.
    pub name: String,
    /// The id by which it is known again.
    pub instance_uuid: Option<String>,
    /// The path by which it was found, such as `dc1/vm/web`, where it was found by one.
    pub path: Option<String>,
    /// Its power state.
    pub power_state: PowerState,
    /// Whether it is a template.
    pub is_template: bool,
    /// The guest's type as configured.
    pub guest_id: Option<String>,
    /// The notes of the machine.
    pub annotation: Option<String>,
    /// The host that it runs on or is registered at.
    pub host: Option<MoRef<mo::HostSystem>>,
    /// Its datastores.
    pub datastores: Vec<MoRef<mo::Datastore>>,
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection")
            .field("named", &self.named)
            .field("paths", &self.paths)
            .field("below", &self.below)
            .field("except", &self.except)
            .field("filters", &self.filters.len())
            .field("sets", &self.sets)
            .finish_non_exhaustive()
    }
}

impl Selection {
    /// Selects one machine.
    pub fn vm(vm: MoRef<VirtualMachine>) -> Self {
        Self::default().and_vm(vm)
    }

    /// Selects machines of a list.
    pub fn vms(vms: impl IntoIterator<Item = MoRef<VirtualMachine>>) -> Self {
        vms.into_iter().fold(Self::default(), Self::and_vm)
    }

    /// Selects machines whose inventory path fits a pattern, as [`Vim::find_inventory`] takes it.
    pub fn path(pattern: impl Into<String>) -> Self {
        Self::default().and_path(pattern)
    }

    /// Selects all machines below a folder, datacenter, cluster, host, resource pool or vApp.
    pub fn below(container: impl Into<ManagedObjectReference>) -> Self {
        Self::default().and_below(container)
    }

    /// Selects all machines of the server.
    pub fn all(vim: &Vim) -> Self {
        Self::below(vim.root())
    }

    /// Selects all machines of a vApp, those in nested vApps included, as one consistent [set](crate::BackupSet) under the
    /// vApp's name.
    #[doc(alias = "VirtualApp")]
    pub fn vapp(vapp: MoRef<mo::VirtualApp>) -> Self {
        Self::default().and_vapp(vapp)
    }

    /// Selects machines of a list as one consistent [set](crate::BackupSet).
    pub fn set(name: impl Into<String>, vms: impl IntoIterator<Item = MoRef<VirtualMachine>>) -> Self {
        Self::default().and_set(name, vms)
    }

    /// Adds a vApp as one set.
    ///
    /// A machine of a set is selected by nothing else. Sets that have a machine in common are one, under the first's name.
    pub fn and_vapp(mut self, vapp: MoRef<mo::VirtualApp>) -> Self {
        self.sets.push(SetSource::VApp(vapp));
        self
    }

    /// Adds machines of a list as one set.
    pub fn and_set(mut self, name: impl Into<String>, vms: impl IntoIterator<Item = MoRef<VirtualMachine>>) -> Self {
        self.sets.push(SetSource::List { name: name.into(), vms: vms.into_iter().collect() });
        self
    }

    /// Adds a machine.
    pub fn and_vm(mut self, vm: MoRef<VirtualMachine>) -> Self {
        self.named.push(vm);
        self
    }

    /// Adds the machines of a path pattern.
    pub fn and_path(mut self, pattern: impl Into<String>) -> Self {
        self.paths.push(pattern.into());
        self
    }

    /// Adds all machines below a folder, datacenter, cluster, host, resource pool or vApp.
    pub fn and_below(mut self, container: impl Into<ManagedObjectReference>) -> Self {
        self.below.push(container.into());
        self
    }

    /// Takes the machines of a path pattern out again.
    pub fn except_path(mut self, pattern: impl Into<String>) -> Self {
        self.except.push(pattern.into());
        self
    }

    /// Keeps those for which a predicate holds; several all have to hold.
    pub fn matching(mut self, predicate: impl Fn(&Candidate) -> bool + Send + Sync + 'static) -> Self {
        self.filters.push(Arc::new(predicate));
        self
    }

    /// States whether templates that were found, rather than named, are selected too: no by default.
    pub fn templates(mut self, yes: bool) -> Self {
        self.templates = yes;
        self
    }

    /// Looks the machines up: those that were found in the order of their names, without doubles, and those that were
    /// named and cannot be read.
    ///
    /// # Errors
    /// [`Error::Server`].
    ///
    /// # Privileges
    /// `System.View` on the inventory, `System.Read` on the machines.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn resolve(&self, vim: &Vim) -> Result<Resolved> {
        let mut paths = BTreeMap::new();
        for pattern in &self.paths {
            paths.extend(machines_at(vim, pattern).await?);
        }
        let mut except = BTreeMap::new();
        for pattern in &self.except {
            except.extend(machines_at(vim, pattern).await?);
        }
        let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
        let mut resolved = Resolved::default();
        let wanted: Vec<MoRef<VirtualMachine>> =
            self.named.iter().cloned().chain(paths.keys().map(|id| MoRef::new(id.as_str()))).collect();
        for row in read(vim, wanted, &mut resolved.unreadable).await? {
            found.insert(row.vm.value().to_owned(), row);
        }
        for container in &self.below {
            let mut rows = vim.properties().under(container.clone()).select_as::<Facts>().stream();
            while let Some(row) = rows.try_next().await.map_err(asking())? {
                let row = candidate(row.object, row.values.map_err(asking())?);
                found.insert(row.vm.value().to_owned(), row);
            }
        }
        let stays = |candidate: &Candidate, is_named: bool| {
            (is_named || self.templates || !candidate.is_template)
                && !except.contains_key(candidate.vm.value())
                && self.filters.iter().all(|filter| filter(candidate))
        };
        for source in &self.sets {
            let mut set = source.look_up(vim).await?;
            set.machines.retain(|candidate| stays(candidate, source.names_its_machines()));
            resolved.add_set(set);
        }
        for (id, candidate) in found {
            let is_named = self.named.iter().any(|vm| vm.value() == id);
            let candidate = Candidate { path: paths.get(&id).cloned(), ..candidate };
            let is_taken = resolved.sets.iter().any(|set| set.has(&candidate.vm));
            if !is_taken && stays(&candidate, is_named) {
                resolved.machines.push(candidate);
            }
        }
        resolved.machines.sort_by(|one, other| (&one.name, one.vm.value()).cmp(&(&other.name, other.vm.value())));
        Ok(resolved)
    }
}

/// What a selection found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Resolved {
    /// The machines, but those of sets.
    pub machines: Vec<Candidate>,
    /// The sets.
    pub sets: Vec<SelectedSet>,
    /// Machines that were selected by their references and cannot be read: most likely they are gone.
    pub unreadable: Vec<(MoRef<VirtualMachine>, Error)>,
}

impl Candidate {
    /// Tells what the machine waits for.
    pub fn demand(&self, vim: &Vim) -> Demand {
        Demand::at(vim, self.host.clone(), self.datastores.clone())
    }
}

property_struct! {
    struct Facts of VirtualMachine {
        name: Property<String> = VirtualMachine::NAME,
        instance_uuid: Property<String> = PropertyPath::<_, String>::new("config.instanceUuid"),
        template: Property<bool> = PropertyPath::<_, bool>::new("config.template"),
        guest_id: Property<String> = PropertyPath::<_, String>::new("config.guestId"),
        annotation: Property<String> = PropertyPath::<_, String>::new("config.annotation"),
        runtime: Property<vsphere_vim::types::VirtualMachineRuntimeInfo> = VirtualMachine::RUNTIME,
        datastores: Property<Vec<MoRef<mo::Datastore>>> = VirtualMachine::DATASTORE,
    }
}

fn candidate(vm: MoRef<VirtualMachine>, facts: Facts) -> Candidate {
    let runtime = facts.runtime.present();
    Candidate {
        name: facts.name.present().unwrap_or_else(|| vm.value().to_owned()),
        vm,
        instance_uuid: facts.instance_uuid.present(),
        path: None,
        power_state: runtime.as_ref().map_or(PowerState::Off, |runtime| PowerState::from(&runtime.power_state)),
        is_template: facts.template.present().unwrap_or(false),
        guest_id: facts.guest_id.present(),
        annotation: facts.annotation.present(),
        host: runtime.and_then(|runtime| runtime.host),
        datastores: facts.datastores.present().unwrap_or_default(),
    }
}

/// Reads machines by reference. One that is gone fails the question for all: then each is asked by itself.
pub(super) async fn read(
    vim: &Vim,
    wanted: Vec<MoRef<VirtualMachine>>,
    unreadable: &mut Vec<(MoRef<VirtualMachine>, Error)>,
) -> Result<Vec<Candidate>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let ask = |wanted: &[MoRef<VirtualMachine>]| vim.properties().of(wanted).select_as::<Facts>().collect();
    let rows = match ask(&wanted).await {
        Ok(rows) => rows,
        Err(error) if error.is_fault("ManagedObjectNotFound") => {
            let mut rows = Vec::new();
            for vm in wanted {
                match ask(std::slice::from_ref(&vm)).await {
                    Ok(found) => rows.extend(found),
                    Err(error) if error.is_fault("ManagedObjectNotFound") => {
                        let error = server::failed("reading the machine", vm.value())(error);
                        unreadable.push((vm, error));
                    }
                    Err(error) => return Err(asking()(error)),
                }
            }
            rows
        }
        Err(error) => return Err(asking()(error)),
    };
    rows.into_iter().map(|row| Ok(candidate(row.object, row.values.map_err(asking())?))).collect()
}

/// Returns the machines whose paths fit, by reference.
async fn machines_at(vim: &Vim, pattern: &str) -> Result<Vec<(String, String)>> {
    let entries = vim.find_inventory(pattern).await.map_err(asking())?;
    let machines = entries.into_iter().filter(|entry| entry.object.is_a::<VirtualMachine>());
    Ok(machines.map(|entry| (entry.object.value().to_owned(), entry.path)).collect())
}

fn asking() -> impl FnOnce(vsphere_vim::Error) -> Error {
    server::failed("reading the machines", "the inventory")
}
