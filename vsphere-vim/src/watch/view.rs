//! One object as one filter shows it, and how changes are merged into that.

use std::collections::BTreeMap;

use vsphere_vim_types::{Any, Edit, MissingProperty, ObjectContent, PropertyChange, PropertyChangeOp};

use crate::property::PropertyFault;

/// The selected values of an object, under the paths of the selection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) values: BTreeMap<String, Any>,
    pub(super) missing: BTreeMap<String, PropertyFault>,
}

/// A change could not be merged: what is kept is no longer the truth.
#[derive(Debug, PartialEq)]
pub(super) struct Unclear;

impl View {
    /// The view that an entering object brings along.
    pub(super) fn entered(
        paths: &[&str],
        changes: Vec<PropertyChange>,
        missing: Vec<MissingProperty>,
    ) -> Result<Self, Unclear> {
        let mut view = Self::default();
        view.merge(paths, changes, missing)?;
        Ok(view)
    }

    /// The view that a retrieve gives.
    pub(super) fn read(paths: &[&str], content: ObjectContent) -> Self {
        let mut view = Self::default();
        for property in content.prop_set {
            if property.val != Any::Null && paths.contains(&property.name.as_str()) {
                view.values.insert(property.name, property.val);
            }
        }
        view.miss(paths, content.missing_set);
        view
    }

    /// Merges changes in, in their order. Says which of the selected paths they touched.
    pub(super) fn merge(
        &mut self,
        paths: &[&str],
        changes: Vec<PropertyChange>,
        missing: Vec<MissingProperty>,
    ) -> Result<Vec<String>, Unclear> {
        let mut touched = Vec::new();
        for change in changes {
            for path in paths {
                if self.change(path, &change)? {
                    touched.push((*path).to_owned());
                }
            }
        }
        touched.extend(self.miss(paths, missing));
        touched.sort_unstable();
        touched.dedup();
        Ok(touched)
    }

    /// The paths whose values differ between two views.
    pub(super) fn difference(&self, other: &Self, paths: &[&str]) -> Vec<String> {
        let differs = |path: &&&str| {
            self.values.get(**path) != other.values.get(**path) || self.missing.get(**path) != other.missing.get(**path)
        };
        paths.iter().filter(differs).map(|path| (*path).to_owned()).collect()
    }

    /// Applies a change to the value of one selected path; false when it is about something else.
    fn change(&mut self, path: &str, change: &PropertyChange) -> Result<bool, Unclear> {
        let val = change.val.clone().filter(|val| *val != Any::Null);
        if let Some(rest) = below(path, &change.name) {
            let edit = match (&change.op, val) {
                (PropertyChangeOp::Assign, Some(val)) => Edit::Set(val),
                (PropertyChangeOp::Add, Some(val)) => Edit::Add(val),
                // The removed item is named by the path, or else by its value.
                (PropertyChangeOp::Remove, Some(val)) if !rest.ends_with(']') => {
                    return self.remove_item(path, rest, &val).map(|()| true);
                }
                (PropertyChangeOp::Assign | PropertyChangeOp::Remove | PropertyChangeOp::IndirectRemove, _) => {
                    Edit::Remove
                }
                // To add nothing, or an operation of a newer server.
                _ => return Err(Unclear),
            };
            self.edit(path, rest, edit)?;
            return Ok(true);
        }
        // A change of what contains the selected value.
        let Some(rest) = below(&change.name, path) else { return Ok(false) };
        match (&change.op, val) {
            (PropertyChangeOp::Assign, Some(val)) => {
                let part = val.path(rest).filter(|part| *part != Any::Null);
                self.set(path, part);
            }
            (PropertyChangeOp::Assign | PropertyChangeOp::Remove | PropertyChangeOp::IndirectRemove, None) => {
                self.set(path, None);
            }
            _ => return Err(Unclear),
        }
        Ok(true)
    }

    fn edit(&mut self, path: &str, rest: &str, edit: Edit) -> Result<(), Unclear> {
        match (self.values.get_mut(path), edit) {
            (_, Edit::Set(val)) if rest.is_empty() => self.set(path, Some(val)),
            (_, Edit::Remove) if rest.is_empty() => self.set(path, None),
            (None, Edit::Add(val @ Any::Array { .. })) if rest.is_empty() => self.set(path, Some(val)),
            (None, Edit::Remove) => {}
            (None, _) => return Err(Unclear),
            (Some(value), edit) => value.edit(rest, edit).map_err(|error| {
                tracing::debug!(path, rest, %error, "a partial update does not fit; reading anew");
                Unclear
            })?,
        }
        self.missing.remove(path);
        Ok(())
    }

    /// Takes an item out of a list whose items are their own keys.
    fn remove_item(&mut self, path: &str, rest: &str, item: &Any) -> Result<(), Unclear> {
        let key = match item {
            Any::MoRef(reference) => reference.value().to_owned(),
            Any::String(text) => text.clone(),
            Any::Object(_) => match item.path("key") {
                Some(Any::Int(key)) => key.to_string(),
                Some(Any::String(key)) => key,
                _ => return Err(Unclear),
            },
            _ => return Err(Unclear),
        };
        self.edit(path, &format!("{rest}[\"{key}\"]"), Edit::Remove)
    }

    fn set(&mut self, path: &str, value: Option<Any>) {
        self.missing.remove(path);
        match value {
            Some(value) => drop(self.values.insert(path.to_owned(), value)),
            None => drop(self.values.remove(path)),
        }
    }

    /// Notes what cannot be read; a fault holds for everything below its path.
    fn miss(&mut self, paths: &[&str], missing: Vec<MissingProperty>) -> Vec<String> {
        let mut touched = Vec::new();
        for MissingProperty { path: name, fault, .. } in missing {
            let fault = PropertyFault::from(fault);
            for path in paths.iter().filter(|path| below(&name, path).is_some()) {
                let gone = self.values.remove(*path).is_some();
                let before = self.missing.insert((*path).to_owned(), fault.clone());
                if gone || before.as_ref() != Some(&fault) {
                    touched.push((*path).to_owned());
                }
            }
        }
        touched
    }
}

/// What follows `path` in `name`, if `name` is that path or one below it.
fn below<'a>(path: &str, name: &'a str) -> Option<&'a str> {
    let rest = name.strip_prefix(path)?;
    match rest.as_bytes().first() {
        None | Some(b'[') => Some(rest),
        Some(b'.') => Some(&rest[1..]),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{
        ManagedObjectReference, Poly, VirtualDevice, VirtualDisk, VirtualHardware, VirtualMachineConfigInfo,
    };

    use super::*;

    const DEVICES: &str = "config.hardware.device";

    fn device(key: i32) -> Poly<VirtualDevice> {
        let mut disk = VirtualDisk { capacity_in_kb: 1, ..Default::default() };
        disk.key = key;
        Poly::new(disk)
    }

    fn devices(keys: &[i32]) -> Any {
        Any::of(&keys.iter().map(|key| device(*key)).collect::<Vec<_>>())
    }

    fn vms(ids: &[&str]) -> Any {
        Any::of(&ids.iter().map(|id| ManagedObjectReference::of("VirtualMachine", id)).collect::<Vec<_>>())
    }

    fn view() -> View {
        let values = [("name", Any::from("web")), (DEVICES, devices(&[2000, 2001])), ("vm", vms(&["vm-1", "vm-2"]))];
        View { values: values.map(|(path, value)| (path.to_owned(), value)).into(), ..View::default() }
    }

    /// One row: the change, and what is at `path` after it; `None` when the object has to be read anew.
    struct Case(PropertyChangeOp, &'static str, Option<Any>, &'static str, Option<Option<Any>>);

    #[test]
    fn every_operation_on_every_kind_of_path() {
        use PropertyChangeOp::{Add, Assign, IndirectRemove, Remove};
        let capacity = |key: i32| format!("{DEVICES}[{key}].capacityInKB");
        let (inside, nowhere) = (capacity(2001), capacity(7));
        let whole = VirtualMachineConfigInfo {
            hardware: VirtualHardware { device: vec![device(5)], ..Default::default() },
            ..Default::default()
        };
        let changed = {
            let mut list = devices(&[2000, 2001]);
            list.edit("[2001].capacityInKB", Edit::Set(Any::Long(9))).unwrap();
            list
        };
        let leaked = |text: String| -> &'static str { text.leak() };
        let item = |key: i32| Any::of(&device(key));
        let vm = |id: &str| Any::MoRef(ManagedObjectReference::of("VirtualMachine", id));
        for Case(op, name, val, path, expected) in [
            Case(Assign, "name", Some("db".into()), "name", Some(Some("db".into()))),
            Case(Assign, "name", None, "name", Some(None)),
            Case(Remove, "name", None, "name", Some(None)),
            Case(IndirectRemove, "name", None, "name", Some(None)),
            Case(Assign, "other", Some("x".into()), "name", Some(Some("web".into()))),
            Case(Assign, "nameless", Some("x".into()), "name", Some(Some("web".into()))),
            Case(Assign, DEVICES, Some(devices(&[1])), DEVICES, Some(Some(devices(&[1])))),
            Case(Assign, leaked(inside), Some(Any::Long(9)), DEVICES, Some(Some(changed))),
            Case(Assign, leaked(nowhere), Some(Any::Long(9)), DEVICES, None),
            Case(Assign, "config.hardware.device[2000]", Some("no device".into()), DEVICES, None),
            Case(
                Add,
                "config.hardware.device[2002]",
                Some(item(2002)),
                DEVICES,
                Some(Some(devices(&[2000, 2001, 2002]))),
            ),
            Case(Add, DEVICES, Some(item(2002)), DEVICES, Some(Some(devices(&[2000, 2001, 2002])))),
            Case(Add, "config.hardware.device[2002]", None, DEVICES, None),
            Case(Remove, "config.hardware.device[2000]", None, DEVICES, Some(Some(devices(&[2001])))),
            Case(Remove, "config.hardware.device[2000]", Some(item(2000)), DEVICES, Some(Some(devices(&[2001])))),
            Case(Remove, DEVICES, Some(item(2000)), DEVICES, Some(Some(devices(&[2001])))),
            Case(Remove, "config.hardware.device[7]", None, DEVICES, Some(Some(devices(&[2000, 2001])))),
            Case(IndirectRemove, DEVICES, None, DEVICES, Some(None)),
            Case(IndirectRemove, "config", None, DEVICES, Some(None)),
            Case(Assign, "config", Some(Any::of(&whole)), DEVICES, Some(Some(devices(&[5])))),
            Case(Assign, "config", None, DEVICES, Some(None)),
            Case(Add, "config", Some(Any::of(&whole)), DEVICES, None),
            Case(Add, "vm", Some(vm("vm-3")), "vm", Some(Some(vms(&["vm-1", "vm-2", "vm-3"])))),
            Case(Remove, "vm", Some(vm("vm-1")), "vm", Some(Some(vms(&["vm-2"])))),
            Case(Remove, "vm[\"vm-1\"]", None, "vm", Some(Some(vms(&["vm-2"])))),
            Case(Add, "absent", Some(vm("vm-1")), "absent", None),
            Case(Add, "absent", Some(vms(&["vm-1"])), "absent", Some(Some(vms(&["vm-1"])))),
            Case(Assign, "absent.part", Some("x".into()), "absent", None),
            Case(IndirectRemove, "absent.part", None, "absent", Some(None)),
            Case(PropertyChangeOp::from("replace"), "name", Some("x".into()), "name", None),
        ] {
            let mut view = view();
            let change = PropertyChange { name: name.into(), op: op.clone(), val, ..Default::default() };
            let merged = view.merge(&["name", DEVICES, "vm", "absent"], vec![change], Vec::new());
            match expected {
                None => assert_eq!(merged, Err(Unclear), "{op} {name}"),
                Some(expected) => {
                    assert!(merged.is_ok(), "{op} {name}");
                    assert_eq!(view.values.get(path), expected.as_ref(), "{op} {name}");
                }
            }
        }
    }

    #[test]
    fn a_fault_takes_the_place_of_the_values_below_it_and_goes_with_the_next_value() {
        let mut view = view();
        let missing = |path: &str| vec![MissingProperty { path: path.into(), ..Default::default() }];
        let paths = ["name", DEVICES, "vm"];
        assert_eq!(view.merge(&paths, Vec::new(), missing("config")).unwrap(), [DEVICES]);
        assert!(!view.values.contains_key(DEVICES) && view.missing.contains_key(DEVICES));
        assert!(view.merge(&paths, Vec::new(), missing("config")).unwrap().is_empty(), "nothing new");
        let op = PropertyChangeOp::Assign;
        let back = PropertyChange { op, name: DEVICES.into(), val: Some(devices(&[1])), ..Default::default() };
        assert_eq!(view.merge(&paths, vec![back], Vec::new()).unwrap(), [DEVICES]);
        assert!(view.missing.is_empty());
    }
}
