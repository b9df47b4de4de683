//! Changing a value in place by a property path: what a partial update says.
//!
//! The counterpart of [`Shape::path`](super::Shape::path): the same paths, the same keys, and the change reaches typed
//! objects, open slots and what the model does not know alike.

use std::fmt;

use super::path::{key_of, key_of_element, position, step};
use super::{Any, Element, List, Place, Value};
use crate::xml::{Limits, Reader, Writer};

/// A change at the end of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The value is this now.
    Set(Any),
    /// The value is added: an item to the list, or the item with the path's key.
    Add(Any),
    /// Nothing is there any more.
    Remove,
}

/// A change could not be carried out; whoever keeps the value has to read it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotApplied(Box<str>);

impl NotApplied {
    fn at(step: &str, why: impl fmt::Display) -> Self {
        Self(if step.is_empty() { why.to_string() } else { format!("at {step:?}: {why}") }.into())
    }
}

impl fmt::Display for NotApplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the change could not be applied {}", self.0)
    }
}

impl std::error::Error for NotApplied {}

impl Any {
    /// Changes the value behind a nested and keyed path.
    ///
    /// Removing what is not there succeeds, and so does adding what is there already: a change that was seen twice
    /// does no harm.
    ///
    /// # Errors
    /// [`NotApplied`] when a step leads nowhere or the new value does not fit. The value may be taken for what it was:
    /// nothing has changed.
    ///
    /// ```
    /// use vsphere_vim_types::{Any, Edit, VirtualMachineRuntimeInfo};
    ///
    /// let mut runtime = Any::of(&VirtualMachineRuntimeInfo::default());
    /// runtime.edit("connectionState", Edit::Set("disconnected".into())).unwrap();
    /// assert_eq!(runtime.path("connectionState"), Some(Any::Enum {
    ///     type_name: "VirtualMachineConnectionState", value: "disconnected".into()
    /// }));
    /// ```
    pub fn edit(&mut self, path: &str, edit: Edit) -> Result<(), NotApplied> {
        if path.bytes().filter(|byte| matches!(byte, b'.' | b'[')).count() > MAX_STEPS {
            return Err(NotApplied::at("", format!("the path has more than {MAX_STEPS} steps")));
        }
        at(self, path, edit)
    }
}

fn at(value: &mut dyn Value, path: &str, edit: Edit) -> Result<(), NotApplied> {
    if path.is_empty() {
        return here(value, edit);
    }
    let (name, key, rest) = step(path);
    let next: &mut dyn Value = if name.is_empty() {
        if key.is_none() {
            return Err(NotApplied::at(path, "a step without a name"));
        }
        value
    } else {
        match value.place() {
            Place::Object(object) => {
                // Asked for twice: a slot that is returned from here would hold on to the object.
                if object.slot(name).is_none() {
                    return in_elements(object.unknown_mut().elements_mut(), name, key, rest, edit);
                }
                object.slot(name).ok_or_else(|| NotApplied::at(name, "no such field"))?
            }
            Place::Element(element) => return in_elements(element.children_mut(), name, key, rest, edit),
            Place::Unset if edit == Edit::Remove => return Ok(()),
            Place::Unset => return Err(NotApplied::at(name, "what contains it is not set")),
            Place::List(_) | Place::Whole => return Err(NotApplied::at(name, "a value without fields")),
        }
    };
    match key {
        None => at(next, rest, edit),
        Some(key) => match next.place() {
            Place::List(list) => in_list(list, key, rest, edit),
            Place::Unset if edit == Edit::Remove => Ok(()),
            _ => Err(NotApplied::at(name, "not a list")),
        },
    }
}

/// The end of a path without a key.
fn here(value: &mut dyn Value, edit: Edit) -> Result<(), NotApplied> {
    let assign = |value: &mut dyn Value, new| value.assign(new).map_err(|mismatch| NotApplied::at("", mismatch));
    match edit {
        Edit::Set(new) => assign(value, new),
        Edit::Remove => assign(value, Any::Null),
        Edit::Add(new) => match (value.place(), &new) {
            // An item without a key in the path brings its own.
            (Place::List(list), item) if !matches!(item, Any::Array { .. }) => {
                match key_of(item.inner_shape()).and_then(|key| position(list, &key)) {
                    Some(at) => assign(list.item_mut(at), new),
                    None => list.push_any(new).map_err(|mismatch| NotApplied::at("", mismatch)),
                }
            }
            (Place::Unset, item) if !matches!(item, Any::Array { .. }) => {
                Err(NotApplied::at("", "it is not known whether a list is meant"))
            }
            _ => assign(value, new),
        },
    }
}

/// The item with that key, or the path below it.
fn in_list(list: &mut dyn List, key: &str, rest: &str, edit: Edit) -> Result<(), NotApplied> {
    let found = position(list, key);
    let by_place = found.is_some_and(|at| key_of(list.item(at).shape()).is_none());
    match (found, edit) {
        // What is behind it would move up, and whether the next key counts before or after that is not known.
        (Some(_), Edit::Remove) if by_place && rest.is_empty() => Err(NotApplied::at(key, "items without keys")),
        (Some(at), Edit::Remove) if rest.is_empty() => {
            list.remove(at);
            Ok(())
        }
        (Some(item), Edit::Set(new) | Edit::Add(new)) if rest.is_empty() => {
            if !by_place && key_of(new.inner_shape()).is_none_or(|own| own != key) {
                return Err(NotApplied::at(key, "the new item has another key"));
            }
            here(list.item_mut(item), Edit::Set(new))
        }
        (Some(item), edit) => at(list.item_mut(item), rest, edit),
        (None, Edit::Remove) => Ok(()),
        (None, Edit::Set(new) | Edit::Add(new)) if rest.is_empty() => {
            let own = key_of(new.inner_shape()).map(String::from);
            // Without a key of its own it can only be the next one.
            if own.map_or_else(|| key.parse() == Ok(list.len()), |own| own == key) {
                return list.push_any(new).map_err(|mismatch| NotApplied::at(key, mismatch));
            }
            Err(NotApplied::at(key, "the new item has another key"))
        }
        (None, _) => Err(NotApplied::at(key, "no such item")),
    }
}

/// A step among elements of which the model knows nothing.
fn in_elements(
    elements: &mut Vec<Element>,
    name: &str,
    key: Option<&str>,
    rest: &str,
    edit: Edit,
) -> Result<(), NotApplied> {
    let wanted = |child: &Element| child.name() == name && key.is_none_or(|key| key_of_element(child) == Some(key));
    let first = elements.iter().position(wanted);
    if !rest.is_empty() {
        return match (first, edit) {
            (Some(first), edit) => {
                let (name, key, rest) = step(rest);
                in_elements(elements[first].children_mut(), name, key, rest, edit)
            }
            (None, Edit::Remove) => Ok(()),
            (None, _) => Err(NotApplied::at(name, "no such element")),
        };
    }
    let (new, at) = match edit {
        // An added item goes to its like; with a key it takes the place of the one that has it.
        Edit::Add(new) if key.is_none() => (new, elements.iter().rposition(wanted).map(|last| last + 1)),
        Edit::Set(new) | Edit::Add(new) => {
            elements.retain(|child| !wanted(child));
            (new, first)
        }
        Edit::Remove => {
            elements.retain(|child| !wanted(child));
            return Ok(());
        }
    };
    let new = match new {
        Any::Null => return Ok(()),
        Any::Array { items, .. } => items,
        one => vec![one],
    };
    let new: Vec<_> = new.iter().map(|item| element(name, item)).collect::<Result<_, _>>()?;
    let at = at.unwrap_or(elements.len());
    elements.splice(at..at, new);
    Ok(())
}

/// A value as an element of that name.
fn element(name: &str, value: &Any) -> Result<Element, NotApplied> {
    if let Any::Dynamic(element) = value {
        return Ok(element.renamed(name));
    }
    let mut writer = Writer::new().keep_control_characters();
    writer.value(name, "anyType", value.shape());
    let text = writer.finish();
    let mut reader = Reader::new(&text, Limits::default());
    let read = reader.next_child().and_then(|child| match child {
        Some(child) => Element::read(child, &mut reader).map(Some),
        None => Ok(None),
    });
    match read {
        Ok(Some(element)) => Ok(element),
        Ok(None) => Err(NotApplied::at(name, "an empty value")),
        Err(malformed) => Err(NotApplied::at(name, malformed)),
    }
}

/// Steps of a path, about. Every step is a level on the stack, and a server names the path; what it adds at the end of
/// a long one would be deeper still, and values are walked by recursion. Real paths have ten.
const MAX_STEPS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ManagedObjectReference, OptionValue, Poly, VirtualDevice, VirtualDeviceFileBackingInfo, VirtualDisk,
        VirtualDiskFlatVer2BackingInfo, VirtualHardware, VirtualMachineConfigInfo,
    };

    fn disk(key: i32, file: &str) -> VirtualDisk {
        let file = VirtualDeviceFileBackingInfo { file_name: file.into(), ..Default::default() };
        let backing = VirtualDiskFlatVer2BackingInfo { base: file, ..Default::default() };
        let device = VirtualDevice { key, backing: Some(Poly::new(backing)), ..Default::default() };
        VirtualDisk { base: device, ..Default::default() }
    }

    fn any(object: impl super::super::DataObject) -> Any {
        Any::Object(Box::new(object))
    }

    fn config() -> Any {
        let option = |key: &str, value: &str| {
            Poly::new(OptionValue { key: key.into(), value: Some(value.into()), ..Default::default() })
        };
        any(VirtualMachineConfigInfo {
            hardware: VirtualHardware {
                device: vec![Poly::new(disk(2000, "a")), Poly::new(disk(2001, "b"))],
                ..Default::default()
            },
            extra_config: vec![option("a.b", "1"), option("c", "2")],
            ..Default::default()
        })
    }

    fn text(value: &Any, path: &str) -> Option<Any> {
        value.path(path)
    }

    #[test]
    fn a_change_reaches_fields_of_subtypes_below_a_key() {
        let mut config = config();
        config.edit("hardware.device[2001].backing.fileName", Edit::Set("c".into())).unwrap();
        config.edit("extraConfig[\"a.b\"].value", Edit::Set("9".into())).unwrap();
        config.edit("name", Edit::Set("web".into())).unwrap();
        assert_eq!(text(&config, "hardware.device[2001].backing.fileName"), Some("c".into()));
        assert_eq!(text(&config, "hardware.device[2000].backing.fileName"), Some("a".into()));
        assert_eq!(text(&config, "extraConfig[\"a.b\"].value"), Some("9".into()));
        assert_eq!(config.downcast_ref::<VirtualMachineConfigInfo>().unwrap().name, "web");
    }

    #[test]
    fn items_come_and_go_by_key_and_twice_is_once() {
        let mut config = config();
        let keys = |config: &Any| -> Vec<i32> {
            let config = config.downcast_ref::<VirtualMachineConfigInfo>().unwrap();
            config.hardware.device.iter().map(|device| device.key).collect()
        };
        for _ in 0..2 {
            config.edit("hardware.device[2002]", Edit::Add(any(disk(2002, "c")))).unwrap();
            config.edit("hardware.device[2000]", Edit::Remove).unwrap();
            assert_eq!(keys(&config), [2001, 2002]);
        }
        config.edit("hardware.device", Edit::Add(any(disk(2003, "d")))).unwrap();
        config.edit("hardware.device[2001]", Edit::Set(any(disk(2001, "new")))).unwrap();
        assert_eq!(keys(&config), [2001, 2002, 2003]);
        assert_eq!(text(&config, "hardware.device[2001].backing.fileName"), Some("new".into()));
        config.edit("hardware.device", Edit::Remove).unwrap();
        assert!(keys(&config).is_empty());
    }

    #[test]
    fn the_path_may_begin_with_the_key_where_the_list_is_the_whole_value() {
        let mut devices = any_list();
        devices.edit("[2000].backing.fileName", Edit::Set("z".into())).unwrap();
        devices.edit("[2001]", Edit::Remove).unwrap();
        assert_eq!(devices.path("[2000].backing.fileName"), Some("z".into()));
        let devices: Vec<Poly<VirtualDevice>> = devices.into_typed().unwrap();
        assert_eq!(devices.len(), 1);
    }

    fn any_list() -> Any {
        Any::Array { item: "VirtualDevice".into(), items: vec![any(disk(2000, "a")), any(disk(2001, "b"))] }
    }

    #[test]
    fn references_and_strings_are_their_own_keys() {
        let vm = |id: &str| Any::MoRef(ManagedObjectReference::of("VirtualMachine", id));
        let mut vms = Any::Array { item: "ManagedObjectReference".into(), items: vec![vm("vm-1"), vm("vm-2")] };
        vms.edit("", Edit::Add(vm("vm-3"))).unwrap();
        vms.edit("", Edit::Add(vm("vm-3"))).unwrap();
        vms.edit("[\"vm-1\"]", Edit::Remove).unwrap();
        assert_eq!(vms, Any::Array { item: "ManagedObjectReference".into(), items: vec![vm("vm-2"), vm("vm-3")] });
        let mut tags = Any::of(&vec!["x".to_owned(), "y".to_owned()]);
        tags.edit("[\"x\"]", Edit::Remove).unwrap();
        assert_eq!(tags, Any::of(&vec!["y".to_owned()]));
    }

    #[test]
    fn items_without_keys_are_found_by_place_and_only_changed_or_appended_there() {
        let numbers = |items: &[i32]| Any::of(&items.to_vec());
        let mut list = numbers(&[1, 2]);
        list.edit("[1]", Edit::Set(Any::Int(5))).unwrap();
        list.edit("[2]", Edit::Add(Any::Int(6))).unwrap();
        assert_eq!(list, numbers(&[1, 5, 6]));
        assert!(list.edit("[0]", Edit::Remove).is_err());
        assert!(list.edit("[9]", Edit::Set(Any::Int(7))).is_err());
    }

    #[test]
    fn what_the_model_does_not_know_is_changed_all_the_same() {
        let item = |key: &str, value: &str| {
            Element::new("thing", "").with_child(Element::new("key", key)).with_child(Element::new("v", value))
        };
        let mut tomorrow = Any::Dynamic(Element::new("val", "").with_child(item("1", "a")).with_child(item("2", "b")));
        tomorrow.edit("thing[2].v", Edit::Set("c".into())).unwrap();
        tomorrow.edit("thing[1]", Edit::Remove).unwrap();
        tomorrow.edit("thing[3]", Edit::Add(Any::Dynamic(item("3", "d")))).unwrap();
        let value = |path: &str| match tomorrow.path(path) {
            Some(Any::Dynamic(element)) => element.text().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!((value("thing[2].v").as_str(), value("thing[3].v").as_str()), ("c", "d"));
        assert_eq!(tomorrow.path("thing[1]"), None);

        let mut config = config();
        config.edit("fieldOfTomorrow", Edit::Set(Any::Int(7))).unwrap();
        assert!(matches!(config.path("fieldOfTomorrow"), Some(Any::Dynamic(element)) if element.text() == "7"));
    }

    #[test]
    fn paths_of_hostile_servers_are_refused_and_not_walked() {
        let mut config = config();
        for path in [".".repeat(1 << 20), "[".repeat(1 << 20), "a.".repeat(1 << 20), ".name".into(), "a..b".into()] {
            assert!(config.edit(&path, Edit::Set("x".into())).is_err());
        }
        assert_eq!(config.path(&".".repeat(1 << 20)), None);
        // What is unknown may grow by each change, but not without a bound.
        let mut open = Any::Dynamic(Element::new("val", ""));
        let mut path = "a".to_owned();
        let refused = (0..10_000).find(|_| {
            let refused = open.edit(&path, Edit::Set(Any::Dynamic(Element::new("a", "")))).is_err();
            path.push_str(".a");
            refused
        });
        assert!(refused.is_some_and(|level| level <= MAX_STEPS + 1), "{refused:?}");
    }

    #[test]
    fn what_cannot_be_applied_says_so_and_changes_nothing() {
        let before = config();
        for (path, edit) in [
            ("hardware.device[7].backing.fileName", Edit::Set("x".into())),
            ("hardware.device[7]", Edit::Add(any(disk(8, "x")))),
            ("hardware.device[2000]", Edit::Set(any(OptionValue::default()))),
            ("hardware.device", Edit::Set("x".into())),
            ("name.x", Edit::Set("x".into())),
            ("name", Edit::Remove),
            ("cpuAllocation.limit", Edit::Set(Any::Long(1))),
        ] {
            let mut config = before.clone();
            assert!(config.edit(path, edit).is_err(), "{path}");
            assert_eq!(config, before, "{path}");
        }
        assert_eq!(before.clone().edit("cpuAllocation.limit", Edit::Remove), Ok(()), "it is not set anyway");
    }
}
