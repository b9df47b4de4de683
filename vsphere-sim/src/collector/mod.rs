//! The PropertyCollector: selecting objects, reading properties, paging, waiting for changes.

mod filter;
mod partial;
mod retrieve;
mod select;

use vsphere_vim_types::{Any, ManagedObjectReference};

use crate::inventory::Object;

pub(crate) use filter::{Collector, Filter, WaitFor, wait};
pub(crate) use retrieve::{MAX_PAGES, Page, begin, next_page};
pub(crate) use select::Sight;

/// The value at a path of one object; `Null` when it is unset.
pub(crate) fn value(sight: Sight<'_>, object: &ManagedObjectReference, found: &Object<'_>, path: &str) -> Any {
    select::value(sight, object, found, path, &mut std::collections::BTreeMap::new())
}
