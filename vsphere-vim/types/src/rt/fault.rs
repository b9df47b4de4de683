//! The trees of faults and events: all names, also of those without a struct of their own.

/// The parent of a fault or event by its wire name; `None` for `MethodFault`, for `Event` and for names that the model
/// does not know.
#[must_use]
pub fn open_parent(name: &str) -> Option<&'static str> {
    let table = crate::generated::OPEN_PARENTS;
    let at = table.binary_search_by(|(fault, _)| (*fault).cmp(name)).ok()?;
    Some(table[at].1).filter(|parent| !parent.is_empty())
}

/// Whether the fault or event `name` is `ancestor` or extends it.
#[must_use]
pub fn open_is_a(name: &str, ancestor: &str) -> bool {
    if name == ancestor {
        return true;
    }
    let mut at = name;
    while let Some(parent) = open_parent(at) {
        if parent == ancestor {
            return true;
        }
        at = parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_root_and_no_chain_loops() {
        for (name, _) in crate::generated::OPEN_PARENTS {
            let mut at = *name;
            let mut steps = 0;
            while let Some(parent) = open_parent(at) {
                at = parent;
                steps += 1;
                assert!(steps < 20, "{name} has no end");
            }
            assert!(matches!(at, "MethodFault" | "Event"), "{name} leads to {at}");
        }
    }

    #[test]
    fn names_without_a_struct_know_their_ancestors() {
        assert!(open_is_a("FileLocked", "FileFault"));
        assert!(open_is_a("NoDiskSpace", "VimFault"));
        assert!(!open_is_a("FileLocked", "InvalidState"));
        assert!(!open_is_a("FaultOfTomorrow", "MethodFault"));
        assert!(open_is_a("VmPoweredOnEvent", "VmEvent") && open_is_a("VmPoweredOnEvent", "Event"));
        assert!(open_is_a("VslmSyncFault", "VslmFault"));
    }
}
