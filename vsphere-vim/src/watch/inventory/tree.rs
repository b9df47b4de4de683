//! The tree of the inventory, rebuilt from what every object says of its parent.
//!
//! Objects come in any order: a child may be known before its parent. The tree does no I/O and believes nothing: names
//! and parents come from a server, and a circle of parents must not catch whoever walks it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vsphere_vim_types::{ManagedObjectReference, MoRef, mo};

/// An object of the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// The object.
    pub object: ManagedObjectReference,
    /// Its name as the API has it: `/`, `\` and `%` within it are written `%2f`, `%5c` and `%25`.
    pub name: String,
    /// What contains it: a folder or datacenter, a compute or resource pool, a vApp for the machines in one.
    pub parent: Option<ManagedObjectReference>,
    /// The folder of a vApp besides its resource pool, or of a machine besides its vApp, where there is one.
    pub folder: Option<ManagedObjectReference>,
    /// A virtual machine's id for years.
    pub instance_uuid: Option<String>,
}

impl Node {
    /// The name as people write it, without escapes.
    pub fn display_name(&self) -> String {
        unescape(&self.name)
    }

    /// Where its path goes on upwards: machines and vApps are looked for in folders.
    fn above(&self) -> Option<&ManagedObjectReference> {
        self.folder.as_ref().or(self.parent.as_ref())
    }

    fn parents(&self) -> impl Iterator<Item = &ManagedObjectReference> {
        self.parent.iter().chain(&self.folder)
    }
}

/// The inventory in memory.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<ManagedObjectReference, Node>,
    /// Also below parents that are not known, or not yet.
    children: BTreeMap<ManagedObjectReference, BTreeSet<ManagedObjectReference>>,
    by_uuid: HashMap<String, BTreeSet<ManagedObjectReference>>,
}

impl Tree {
    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All objects, in the order of their references.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// An object by its reference.
    pub fn node(&self, object: &ManagedObjectReference) -> Option<&Node> {
        self.nodes.get(object)
    }

    /// The root: the only folder without a parent. `None` when there is none or the account sees several branches.
    pub fn root(&self) -> Option<&Node> {
        let mut roots = self.nodes.values().filter(|node| node.parent.is_none() && node.object.is_a::<mo::Folder>());
        roots.next().filter(|_| roots.next().is_none())
    }

    /// What is directly in an object, in the order of the references.
    pub fn children(&self, object: &ManagedObjectReference) -> impl Iterator<Item = &Node> {
        self.children.get(object).into_iter().flatten().filter_map(|child| self.nodes.get(child))
    }

    /// Everything below an object, each once.
    pub fn below(&self, object: &ManagedObjectReference) -> Vec<&Node> {
        let mut seen = BTreeSet::from([object]);
        let mut found = Vec::new();
        let mut open: Vec<&Node> = self.children(object).collect();
        while let Some(node) = open.pop() {
            if seen.insert(&node.object) {
                found.push(node);
                open.extend(self.children(&node.object));
            }
        }
        found.sort_by(|one, other| one.object.cmp(&other.object));
        found
    }

    /// The virtual machines below an object, those in vApps included.
    pub fn vms_below(&self, object: &ManagedObjectReference) -> Vec<MoRef<mo::VirtualMachine>> {
        let machines = self.below(object).into_iter().filter(|node| node.object.is_a::<mo::VirtualMachine>());
        machines.map(|node| node.object.cast()).collect()
    }

    /// The path of an object, such as `dc1/vm/folder/name`; the root's own name is not in it. `None` when the object
    /// is not known, and for the root.
    pub fn path(&self, object: &ManagedObjectReference) -> Option<String> {
        let mut names = Vec::new();
        let mut at = self.nodes.get(object)?;
        // A circle of parents has no top.
        for _ in 0..MAX_DEPTH {
            let above = at.above().and_then(|above| self.nodes.get(above));
            match above {
                None if at.parent.is_none() && at.object.is_a::<mo::Folder>() => break,
                None => {
                    names.push(at.name.as_str());
                    break;
                }
                Some(above) => {
                    names.push(at.name.as_str());
                    at = above;
                }
            }
        }
        names.reverse();
        (!names.is_empty()).then(|| names.join("/"))
    }

    /// The object at a path; slashes at its ends do not matter. A machine in a vApp is found below the vApp's folder
    /// and below its resource pool.
    pub fn find(&self, path: &str) -> Option<&Node> {
        let mut names = path.trim_matches('/').split('/').filter(|name| !name.is_empty());
        let first = names.next()?;
        let tops = self.nodes.values().filter(|node| !node.parents().any(|parent| self.nodes.contains_key(parent)));
        let is_root = |node: &&Node| node.parent.is_none() && node.object.is_a::<mo::Folder>();
        let (roots, branches): (Vec<_>, Vec<_>) = tops.partition(is_root);
        let mut found: Vec<&Node> =
            roots.into_iter().flat_map(|root| self.children(&root.object)).chain(branches).collect();
        found.retain(|node| node.name == first);
        for name in names {
            found = found.into_iter().flat_map(|node| self.children(&node.object)).collect();
            found.retain(|node| node.name == name);
        }
        found.into_iter().next()
    }

    /// The virtual machine with that id, in any case of letters; `None` also when several have it.
    pub fn find_by_instance_uuid(&self, uuid: &str) -> Option<&Node> {
        let mut found = self.by_uuid.get(&uuid.trim().to_ascii_lowercase())?.iter();
        found.next().filter(|_| found.next().is_none()).and_then(|object| self.nodes.get(object))
    }

    /// Puts an object in, or in its new place.
    pub(super) fn put(&mut self, node: Node) {
        self.remove(&node.object);
        for parent in node.parents() {
            self.children.entry(parent.clone()).or_default().insert(node.object.clone());
        }
        if let Some(uuid) = &node.instance_uuid {
            self.by_uuid.entry(uuid.to_ascii_lowercase()).or_default().insert(node.object.clone());
        }
        self.nodes.insert(node.object.clone(), node);
    }

    /// Takes an object out. What is in it stays, without a way up.
    pub(super) fn remove(&mut self, object: &ManagedObjectReference) -> Option<Node> {
        let node = self.nodes.remove(object)?;
        for parent in node.parents() {
            if let Some(children) = self.children.get_mut(parent) {
                children.remove(object);
                if children.is_empty() {
                    self.children.remove(parent);
                }
            }
        }
        if let Some(uuid) = node.instance_uuid.as_ref().map(|uuid| uuid.to_ascii_lowercase())
            && let Some(objects) = self.by_uuid.get_mut(&uuid)
        {
            objects.remove(object);
            if objects.is_empty() {
                self.by_uuid.remove(&uuid);
            }
        }
        Some(node)
    }
}

/// A name without the API's escapes. What is no escape of the API stays as it is.
fn unescape(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let escape = rest.get(at + 1..at + 3).unwrap_or_default();
        let meant = match escape.to_ascii_lowercase().as_str() {
            "2f" => Some('/'),
            "5c" => Some('\\'),
            "25" => Some('%'),
            _ => None,
        };
        plain.push(meant.unwrap_or('%'));
        rest = &rest[at + if meant.is_some() { 3 } else { 1 }..];
    }
    plain.push_str(rest);
    plain
}

/// Folders, pools and vApps are not nested deeper by anyone.
const MAX_DEPTH: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(id: &str) -> ManagedObjectReference {
        let kind = match id.split('-').next() {
            Some("vm") => "VirtualMachine",
            Some("dc") => "Datacenter",
            Some("pool") => "ResourcePool",
            Some("app") => "VirtualApp",
            _ => "Folder",
        };
        ManagedObjectReference::of(kind, id)
    }

    fn node(id: &str, name: &str, parent: &str) -> Node {
        Node {
            object: reference(id),
            name: name.into(),
            parent: (!parent.is_empty()).then(|| reference(parent)),
            folder: None,
            instance_uuid: id.starts_with("vm").then(|| format!("UUID-{id}")),
        }
    }

    fn nodes() -> Vec<Node> {
        vec![
            node("vm-1", "web", "group-a"),
            node("group-a", "a%2fb", "group-v"),
            node("group-v", "vm", "dc-1"),
            node("dc-1", "dc1", "group-root"),
            node("group-root", "Datacenters", ""),
            node("group-h", "host", "dc-1"),
            node("pool-1", "Resources", "group-h"),
            Node { folder: Some(reference("group-a")), ..node("app-1", "shop", "pool-1") },
            node("vm-2", "till", "app-1"),
        ]
    }

    fn tree(nodes: impl IntoIterator<Item = Node>) -> Tree {
        let mut tree = Tree::default();
        nodes.into_iter().for_each(|node| tree.put(node));
        tree
    }

    #[test]
    fn paths_lead_up_by_folders_and_down_by_every_way() {
        let tree = tree(nodes());
        assert_eq!(tree.root().unwrap().name, "Datacenters");
        for (id, path) in [
            ("vm-1", Some("dc1/vm/a%2fb/web")),
            ("vm-2", Some("dc1/vm/a%2fb/shop/till")),
            ("dc-1", Some("dc1")),
            ("group-root", None),
            ("vm-9", None),
        ] {
            assert_eq!(tree.path(&reference(id)).as_deref(), path, "{id}");
            if let Some(path) = path {
                assert_eq!(tree.find(&format!("/{path}/")).unwrap().object, reference(id), "{path}");
            }
        }
        assert_eq!(tree.find("dc1/host/Resources/shop/till").unwrap().object, reference("vm-2"));
        for nowhere in ["", "/", "Datacenters", "dc1/vm/a/b/web", "dc1/vm/web"] {
            assert!(tree.find(nowhere).is_none(), "{nowhere}");
        }
        assert_eq!(tree.node(&reference("group-a")).unwrap().display_name(), "a/b");
    }

    #[test]
    fn machines_below_a_folder_are_also_those_in_its_vapps() {
        let tree = tree(nodes());
        let below =
            |id: &str| tree.vms_below(&reference(id)).iter().map(|vm| vm.value().to_owned()).collect::<Vec<_>>();
        assert_eq!(below("group-root"), ["vm-1", "vm-2"]);
        assert_eq!(below("group-a"), ["vm-1", "vm-2"]);
        assert_eq!(below("pool-1"), ["vm-2"]);
        assert!(below("vm-1").is_empty() && below("vm-9").is_empty());
    }

    #[test]
    fn a_moved_machine_is_in_its_new_place_only_and_keeps_its_id() {
        let mut tree = tree(nodes());
        tree.put(node("vm-1", "web", "group-v"));
        assert_eq!(tree.path(&reference("vm-1")).as_deref(), Some("dc1/vm/web"));
        assert!(tree.find("dc1/vm/a%2fb/web").is_none());
        assert_eq!(tree.find_by_instance_uuid("uuid-VM-1").unwrap().name, "web");
        tree.remove(&reference("vm-1"));
        assert!(tree.find_by_instance_uuid("uuid-vm-1").is_none() && tree.find("dc1/vm/web").is_none());
        tree.put(node("vm-3", "copy", "group-v"));
        tree.put(Node { instance_uuid: Some("UUID-vm-3".into()), ..node("vm-4", "copy of it", "group-v") });
        assert!(tree.find_by_instance_uuid("uuid-vm-3").is_none(), "two have it");
    }

    #[test]
    fn a_branch_whose_top_may_not_be_seen_begins_there() {
        let tree = tree(nodes().into_iter().filter(|node| !["group-root", "dc-1"].contains(&node.object.value())));
        assert!(tree.root().is_none());
        assert_eq!(tree.path(&reference("vm-1")).as_deref(), Some("vm/a%2fb/web"));
        assert_eq!(tree.find("vm/a%2fb/web").unwrap().object, reference("vm-1"));
    }

    #[test]
    fn a_circle_of_parents_catches_nobody() {
        let tree =
            tree([node("group-a", "a", "group-b"), node("group-b", "b", "group-a"), node("vm-1", "v", "group-a")]);
        assert!(tree.path(&reference("vm-1")).is_some() && tree.find("a/b").is_none());
        assert_eq!(tree.vms_below(&reference("group-b")).len(), 1);
    }

    #[test]
    fn names_are_unescaped_once() {
        for (name, plain) in
            [("a%2Fb%5c%25", "a/b\\%"), ("100%", "100%"), ("%252f", "%2f"), ("%zz%2", "%zz%2"), ("é%2f", "é/")]
        {
            assert_eq!(unescape(name), plain);
        }
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(order in Just(nodes()).prop_shuffle()) {
            let (expected, tree) = (tree(nodes()), tree(order));
            for node in nodes() {
                prop_assert_eq!(tree.path(&node.object), expected.path(&node.object));
            }
            prop_assert_eq!(tree.vms_below(&reference("group-root")), expected.vms_below(&reference("group-root")));
        }

        #[test]
        fn no_name_panics(name: String) {
            unescape(&name);
        }
    }
}
