//! Retrieving once, page by page.

use std::collections::VecDeque;
use std::sync::Arc;

use vsphere_vim_types::{ManagedObjectReference, MissingProperty, ObjectContent, PropertyFilterSpec};

use crate::Fault;

use super::select::{self, Sight};

/// Unfinished retrievals kept per session; a client that forgets them loses the oldest.
pub(crate) const MAX_PAGES: usize = 64;

/// The rest of a retrieval: objects still to be read, with the specification that selected each.
pub(crate) struct Page {
    rest: VecDeque<(ManagedObjectReference, Arc<PropertyFilterSpec>)>,
    size: usize,
}

impl Page {
    /// Whether nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Selects the objects of all specifications.
pub(crate) fn begin(sight: Sight<'_>, specs: Vec<PropertyFilterSpec>, size: usize) -> Result<Page, Fault> {
    let mut rest = VecDeque::new();
    for spec in specs {
        select::check(&spec)?;
        let spec = Arc::new(spec);
        rest.extend(select::select(sight, &spec)?.into_iter().map(|object| (object, spec.clone())));
    }
    Ok(Page { rest, size: size.max(1) })
}

/// Reads the next objects. One that is gone by now is reported with its paths missing, not left out.
pub(crate) fn next_page(sight: Sight<'_>, page: &mut Page) -> Vec<ObjectContent> {
    let take = page.size.min(page.rest.len());
    page.rest.drain(..take).map(|(obj, spec)| content(sight, &spec, obj)).collect()
}

fn content(sight: Sight<'_>, spec: &PropertyFilterSpec, obj: ManagedObjectReference) -> ObjectContent {
    match select::read(sight, spec, &obj) {
        Some(shown) => ObjectContent { obj, prop_set: shown.present, missing_set: shown.missing, ..Default::default() },
        None => {
            let fault = Fault::not_found(&obj).localized();
            let paths = spec.prop_set.iter().flat_map(|set| set.path_set.iter());
            let missing = paths
                .map(|path| MissingProperty { path: path.clone(), fault: fault.clone(), ..Default::default() })
                .collect();
            ObjectContent { obj, missing_set: missing, ..Default::default() }
        }
    }
}
