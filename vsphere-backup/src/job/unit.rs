//! Sets of machines, as a selection names and finds them.

use std::collections::BTreeMap;

use vsphere_vim::{
    MoRef, Vim,
    mo::{self, VirtualMachine},
};

use super::select::{Candidate, Resolved, read};
use crate::{
    backup::machines_of_vapp,
    error::{Error, Result},
};

/// Machines that are to be backed up as one set.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SelectedSet {
    /// Its name.
    pub name: String,
    /// The machines: a vApp's in the order in which they start, others in the caller's.
    pub machines: Vec<Candidate>,
    /// Machines that were named and cannot be read: most likely they are gone.
    pub missing: Vec<(MoRef<VirtualMachine>, Error)>,
    /// Why there is no such set.
    pub error: Option<Error>,
}

/// Where the machines of a set are found.
#[derive(Clone, Debug)]
pub(super) enum SetSource {
    VApp(MoRef<mo::VirtualApp>),
    List { name: String, vms: Vec<MoRef<VirtualMachine>> },
}

impl SetSource {
    pub(super) fn names_its_machines(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    /// Looks the machines up.
    ///
    /// # Errors
    /// [`Error::Server`]. That there is no such vApp is told by the set.
    pub(super) async fn look_up(&self, vim: &Vim) -> Result<SelectedSet> {
        let (name, vms) = match self {
            Self::List { name, vms } => (name.clone(), vms.clone()),
            Self::VApp(vapp) => match machines_of_vapp(vim, vapp).await {
                Ok(found) => found,
                Err(error @ Error::Invalid { .. }) => {
                    let name = vapp.value().to_owned();
                    return Ok(SelectedSet { name, error: Some(error), ..SelectedSet::default() });
                }
                Err(error) => return Err(error),
            },
        };
        let mut set = SelectedSet { name, ..SelectedSet::default() };
        let found = read(vim, vms.clone(), &mut set.missing).await?;
        let mut found: BTreeMap<String, Candidate> =
            found.into_iter().map(|machine| (machine.vm.value().to_owned(), machine)).collect();
        set.machines = vms.iter().filter_map(|vm| found.remove(vm.value())).collect();
        Ok(set)
    }
}

impl SelectedSet {
    pub(super) fn has(&self, vm: &MoRef<VirtualMachine>) -> bool {
        self.machines.iter().any(|machine| machine.vm == *vm) || self.missing.iter().any(|(missing, _)| missing == vm)
    }

    fn meets(&self, other: &Self) -> bool {
        other.machines.iter().any(|machine| self.has(&machine.vm)) || other.missing.iter().any(|(vm, _)| self.has(vm))
    }

    /// Takes what another has besides.
    fn absorb(&mut self, other: Self) {
        self.add_machines(other.machines);
        for (vm, error) in other.missing {
            if !self.has(&vm) {
                self.missing.push((vm, error));
            }
        }
        self.error = self.error.take().or(other.error);
    }

    fn add_machines(&mut self, machines: Vec<Candidate>) {
        for machine in machines {
            if !self.has(&machine.vm) {
                self.machines.push(machine);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.machines.is_empty() && self.missing.is_empty() && self.error.is_none()
    }
}

impl Resolved {
    /// Adds a set; those that have a machine in common with it become one with it.
    pub(super) fn add_set(&mut self, mut set: SelectedSet) {
        while let Some(at) = self.sets.iter().position(|earlier| earlier.meets(&set)) {
            let mut earlier = self.sets.remove(at);
            earlier.absorb(set);
            set = earlier;
        }
        if !set.is_empty() {
            self.sets.push(set);
        }
    }

    /// Makes one set of everything.
    pub(super) fn into_one_set(self, name: &str) -> Self {
        let mut whole = SelectedSet { name: name.to_owned(), ..SelectedSet::default() };
        self.sets.into_iter().for_each(|set| whole.absorb(set));
        whole.add_machines(self.machines);
        whole.missing.extend(self.unreadable);
        let sets = if whole.is_empty() { Vec::new() } else { vec![whole] };
        Self { sets, ..Self::default() }
    }
}
