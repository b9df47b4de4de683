//! Partial updates: what changed inside a value, said with the shortest paths.
//!
//! Fields are told one by one, items of lists by their keys. Lists whose items have no keys are told whole.

use std::collections::BTreeMap;

use vsphere_vim_types::{Any, DataObject, PropertyChange, PropertyChangeOp};

/// The changes that lead from one value at `path` to another; `Null` is an unset value.
pub(super) fn changes(path: &str, before: &Any, now: &Any) -> Vec<PropertyChange> {
    let mut changes = Vec::new();
    compare(path, before, now, &mut changes);
    changes
}

fn compare(path: &str, before: &Any, now: &Any, changes: &mut Vec<PropertyChange>) {
    if before == now {
        return;
    }
    match (before, now) {
        (_, Any::Null) => changes.push(change(path, PropertyChangeOp::Remove, None)),
        (Any::Object(before), Any::Object(now)) if before.type_name() == now.type_name() => {
            let (before, now) = (fields(&**before), fields(&**now));
            for ((name, before), (_, now)) in before.iter().zip(&now) {
                compare(&format!("{path}.{name}"), before, now, changes);
            }
        }
        (Any::Array { items: old, .. }, Any::Array { items: new, .. }) => match (by_key(old), by_key(new)) {
            (Some(old), Some(new)) => items(path, &old, &new, changes),
            _ => changes.push(change(path, PropertyChangeOp::Assign, Some(now.clone()))),
        },
        _ => changes.push(change(path, PropertyChangeOp::Assign, Some(now.clone()))),
    }
}

fn items(path: &str, before: &BTreeMap<String, &Any>, now: &BTreeMap<String, &Any>, changes: &mut Vec<PropertyChange>) {
    for key in before.keys().filter(|key| !now.contains_key(*key)) {
        changes.push(change(&format!("{path}[{key}]"), PropertyChangeOp::Remove, None));
    }
    for (key, now) in now {
        let path = format!("{path}[{key}]");
        match before.get(key) {
            Some(before) => compare(&path, before, now, changes),
            None => changes.push(change(&path, PropertyChangeOp::Add, Some((*now).clone()))),
        }
    }
}

/// Every field, the unset ones included.
fn fields(object: &dyn DataObject) -> Vec<(&'static str, Any)> {
    let mut fields = Vec::new();
    object.visit(&mut |info, value| fields.push((info.name, value.to_any())));
    fields
}

/// The items under their keys as a path writes them; `None` when one has none or two have the same.
fn by_key(items: &[Any]) -> Option<BTreeMap<String, &Any>> {
    let mut keyed = BTreeMap::new();
    for item in items {
        let key = match item.path("key")? {
            Any::Int(key) => key.to_string(),
            Any::String(key) => format!("\"{key}\""),
            _ => return None,
        };
        if keyed.insert(key, item).is_some() {
            return None;
        }
    }
    Some(keyed)
}

fn change(name: &str, op: PropertyChangeOp, val: Option<Any>) -> PropertyChange {
    PropertyChange { name: name.into(), op, val, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{Edit, Poly, VirtualDevice, VirtualDisk, VirtualHardware, VirtualMachineConfigInfo};

    use super::*;

    fn config(name: &str, disks: &[(i32, i64)]) -> Any {
        let disk = |(key, kb): &(i32, i64)| {
            let base = VirtualDevice { key: *key, ..Default::default() };
            Poly::new(VirtualDisk { capacity_in_kb: *kb, base, ..Default::default() })
        };
        let hardware = VirtualHardware { device: disks.iter().map(disk).collect(), ..Default::default() };
        Any::of(&VirtualMachineConfigInfo { name: name.into(), hardware, ..Default::default() })
    }

    #[test]
    fn changes_are_told_where_they_are_and_lead_to_the_new_value() {
        let before = config("a", &[(2000, 1), (2001, 1)]);
        let now = config("b", &[(2001, 2), (2002, 3)]);
        let told = changes("config", &before, &now);
        let names: Vec<_> = told.iter().map(|change| (change.name.as_str(), change.op.as_str())).collect();
        let device = "config.hardware.device";
        assert_eq!(
            names,
            [
                ("config.name", "assign"),
                (&*format!("{device}[2000]"), "remove"),
                (&*format!("{device}[2001].capacityInKB"), "assign"),
                (&*format!("{device}[2002]"), "add"),
            ]
        );
        let mut kept = before;
        for change in told {
            let edit = match (change.op, change.val) {
                (PropertyChangeOp::Remove, _) => Edit::Remove,
                (PropertyChangeOp::Add, val) => Edit::Add(val.unwrap()),
                (_, val) => Edit::Set(val.unwrap()),
            };
            kept.edit(change.name.strip_prefix("config.").unwrap(), edit).unwrap();
        }
        assert_eq!(kept, now);
    }

    #[test]
    fn what_has_no_keys_is_told_whole() {
        let list = |items: &[&str]| Any::of(&items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>());
        let told = changes("tag", &list(&["a"]), &list(&["a", "b"]));
        assert_eq!((told.len(), told[0].val.as_ref()), (1, Some(&list(&["a", "b"]))));
        assert!(changes("tag", &list(&["a"]), &list(&["a"])).is_empty());
    }
}
