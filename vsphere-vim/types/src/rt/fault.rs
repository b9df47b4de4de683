//! The tree of faults: all names, also of those without a struct of their own.

/// The parent of a fault by its wire name; `None` for `MethodFault` and for names that the model does not know.
#[must_use]
pub fn fault_parent(name: &str) -> Option<&'static str> {
    let table = crate::generated::FAULT_PARENTS;
    let at = table.binary_search_by(|(fault, _)| (*fault).cmp(name)).ok()?;
    Some(table[at].1).filter(|parent| !parent.is_empty())
}

/// Whether the fault `name` is `ancestor` or extends it.
#[must_use]
pub fn fault_is_a(name: &str, ancestor: &str) -> bool {
    if name == ancestor {
        return true;
    }
    let mut at = name;
    while let Some(parent) = fault_parent(at) {
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
    fn every_fault_leads_to_method_fault_and_no_chain_loops() {
        for (name, _) in crate::generated::FAULT_PARENTS {
            let mut at = *name;
            let mut steps = 0;
            while let Some(parent) = fault_parent(at) {
                at = parent;
                steps += 1;
                assert!(steps < 20, "{name} has no end");
            }
            assert_eq!(at, "MethodFault", "{name}");
        }
    }

    #[test]
    fn faults_without_a_struct_know_their_ancestors() {
        assert!(fault_is_a("FileLocked", "FileFault"));
        assert!(fault_is_a("NoDiskSpace", "VimFault"));
        assert!(!fault_is_a("FileLocked", "InvalidState"));
        assert!(!fault_is_a("FaultOfTomorrow", "MethodFault"));
    }
}
