//! Container views: "every VM below this folder" as an object that a property filter can start from.

use vsphere_vim_types::ManagedObjectReference;

use crate::inventory;
use crate::world::{State, World};

/// A `ContainerView`.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) container: ManagedObjectReference,
    pub(crate) types: Vec<String>,
    pub(crate) recursive: bool,
}

impl View {
    /// The objects in the view now.
    pub(crate) fn members(&self, world: &World, state: &State) -> Vec<ManagedObjectReference> {
        let mut found = Vec::new();
        let mut open = inventory::children(world, state, &self.container);
        open.reverse();
        // Inventory trees are finite and shallow; a stack keeps the order of a walk down the tree.
        while let Some(object) = open.pop() {
            if self.types.is_empty() || self.types.iter().any(|wanted| inventory::is_a(object.type_name(), wanted)) {
                found.push(object.clone());
            }
            if self.recursive {
                let mut below = inventory::children(world, state, &object);
                below.reverse();
                open.extend(below);
            }
        }
        found
    }
}
