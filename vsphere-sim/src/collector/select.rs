//! Which objects a filter specification selects, and what is read of each.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use vsphere_vim_types::{
    Any, DynamicProperty, ManagedObjectReference, MissingProperty, ObjectSpec, Poly, PropertyFilterSpec, SelectionSpec,
    TraversalSpec,
};

use crate::Fault;
use crate::inventory::{self, Object};
use crate::world::{State, World};

/// Steps of one selection before it is given up: no real inventory of a simulator needs as many.
const MAX_STEPS: usize = 5_000_000;

/// The state as one caller sees it.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) world: &'a World,
    pub(crate) state: &'a State,
    pub(crate) session: Option<&'a str>,
}

/// What an object shows.
pub(crate) struct Shown {
    pub(crate) present: Vec<DynamicProperty>,
    pub(crate) missing: Vec<MissingProperty>,
}

/// Refuses paths and types that do not exist: on vSphere that fails the whole call.
pub(crate) fn check(spec: &PropertyFilterSpec) -> Result<(), Fault> {
    for wanted in &spec.prop_set {
        for path in &wanted.path_set {
            inventory::check_path(&wanted.type_, path)?;
        }
    }
    Ok(())
}

/// The objects selected, in the order in which they are reached, each once.
pub(crate) fn select(sight: Sight<'_>, spec: &PropertyFilterSpec) -> Result<Vec<ManagedObjectReference>, Fault> {
    let mut walk = Walk { sight, found: Vec::new(), reported: HashSet::new(), steps: 0 };
    for start in &spec.object_set {
        if inventory::find(sight.world, sight.state, sight.session, &start.obj).is_none() {
            if spec.report_missing_objects_in_results == Some(true) {
                continue;
            }
            return Err(Fault::not_found(&start.obj));
        }
        walk.from(start)?;
    }
    let wanted = |object: &ManagedObjectReference| {
        spec.prop_set.iter().any(|set| inventory::is_a(object.type_name(), &set.type_))
    };
    Ok(walk.found.into_iter().filter(wanted).collect())
}

/// Reads what the specification wants of an object; `None` when the object is gone.
pub(crate) fn read(sight: Sight<'_>, spec: &PropertyFilterSpec, object: &ManagedObjectReference) -> Option<Shown> {
    let found = inventory::find(sight.world, sight.state, sight.session, object)?;
    let denied = inventory::denied(sight.world, sight.state, object);
    let mut shown = Shown { present: Vec::new(), missing: Vec::new() };
    // Several paths often enter the same property: it is made once.
    let mut roots: BTreeMap<String, Any> = BTreeMap::new();
    for path in paths(spec, object) {
        if denied {
            let fault = Fault::no_permission(object, "System.Read").localized();
            shown.missing.push(MissingProperty { path, fault, ..Default::default() });
            continue;
        }
        let val = value(sight, object, &found, &path, &mut roots);
        if val != Any::Null {
            shown.present.push(DynamicProperty { name: path, val, ..Default::default() });
        }
    }
    Some(shown)
}

/// The value at a path of one object; `Null` when it is unset or leads nowhere.
pub(crate) fn value(
    sight: Sight<'_>,
    object: &ManagedObjectReference,
    found: &Object<'_>,
    path: &str,
    roots: &mut BTreeMap<String, Any>,
) -> Any {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let root = &path[..end];
    let made = roots
        .entry(root.to_owned())
        .or_insert_with(|| inventory::property(sight.world, sight.state, sight.session, object, found, root));
    match path.as_bytes().get(end) {
        None => made.clone(),
        Some(b'.') => made.path(&path[end + 1..]).unwrap_or_default(),
        // A keyed element of a property that is a list itself: no property of the simulator needs it.
        Some(_) => Any::Null,
    }
}

fn paths(spec: &PropertyFilterSpec, object: &ManagedObjectReference) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for set in spec.prop_set.iter().filter(|set| inventory::is_a(object.type_name(), &set.type_)) {
        if set.all == Some(true) {
            paths.extend(inventory::property_names(object.type_name()).into_iter().map(str::to_owned));
        } else {
            paths.extend(set.path_set.iter().cloned());
        }
    }
    paths
}

struct Walk<'a> {
    sight: Sight<'a>,
    found: Vec<ManagedObjectReference>,
    reported: HashSet<ManagedObjectReference>,
    steps: usize,
}

impl Walk<'_> {
    fn from(&mut self, start: &ObjectSpec) -> Result<(), Fault> {
        let mut named = BTreeMap::new();
        name_all(&start.select_set, &mut named)?;
        if start.skip != Some(true) {
            self.report(&start.obj);
        }
        // Depth first, in the order of the selections; what was entered by the same selection is not entered
        // again, so that recursion by name ends.
        let mut entered: HashSet<(ManagedObjectReference, *const TraversalSpec)> = HashSet::new();
        let mut open = vec![(start.obj.clone(), &start.select_set)];
        while let Some((object, selections)) = open.pop() {
            let mut next = Vec::new();
            for selection in selections {
                let Some(step) = resolve(selection, &named)? else { continue };
                if !inventory::is_a(object.type_name(), &step.type_)
                    || !entered.insert((object.clone(), std::ptr::from_ref(step)))
                {
                    continue;
                }
                for target in self.follow(&object, &step.path)? {
                    if step.skip != Some(true) {
                        self.report(&target);
                    }
                    next.push((target, &step.select_set));
                }
            }
            open.extend(next.into_iter().rev());
        }
        Ok(())
    }

    fn follow(&mut self, object: &ManagedObjectReference, path: &str) -> Result<Vec<ManagedObjectReference>, Fault> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Fault::invalid_request("the selection is too large"));
        }
        let Sight { world, state, session } = self.sight;
        let Some(found) = inventory::find(world, state, session, object) else { return Ok(Vec::new()) };
        inventory::check_path(object.type_name(), path)?;
        Ok(match value(self.sight, object, &found, path, &mut BTreeMap::new()) {
            Any::MoRef(target) => vec![target],
            Any::Array { items, .. } => items
                .into_iter()
                .filter_map(|item| if let Any::MoRef(target) = item { Some(target) } else { None })
                .collect(),
            _ => Vec::new(),
        })
    }

    fn report(&mut self, object: &ManagedObjectReference) {
        if self.reported.insert(object.clone()) {
            self.found.push(object.clone());
        }
    }
}

/// Collects the traversals that have a name, at any depth.
fn name_all<'a>(
    selections: &'a [Poly<SelectionSpec>],
    named: &mut BTreeMap<&'a str, &'a TraversalSpec>,
) -> Result<(), Fault> {
    for selection in selections {
        if let Some(step) = selection.downcast_ref::<TraversalSpec>() {
            if let Some(name) = &selection.name {
                named.insert(name, step);
            }
            name_all(&step.select_set, named)?;
        }
    }
    Ok(())
}

/// The traversal that a selection is or names.
fn resolve<'a>(
    selection: &'a Poly<SelectionSpec>,
    named: &BTreeMap<&'a str, &'a TraversalSpec>,
) -> Result<Option<&'a TraversalSpec>, Fault> {
    if let Some(step) = selection.downcast_ref::<TraversalSpec>() {
        return Ok(Some(step));
    }
    let name = selection.name.as_deref().unwrap_or_default();
    named.get(name).copied().map(Some).ok_or_else(|| Fault::invalid_argument("specSet.objectSet.selectSet.name"))
}
