//! Which machines a vApp consists of.

use std::collections::{BTreeMap, BTreeSet};

use vsphere_vim::{MoRef, Vim, inventory::VApp, mo};

use crate::{
    error::{Error, Result},
    server::failed,
};

/// Returns the name of a vApp and all machines in it, those in nested vApps included, in the order in which they start.
///
/// # Errors
/// [`Error::Server`]; [`Error::Invalid`] when there is no such vApp or nothing in it.
pub(crate) async fn machines_of_vapp(
    vim: &Vim,
    vapp: &MoRef<mo::VirtualApp>,
) -> Result<(String, Vec<MoRef<mo::VirtualMachine>>)> {
    let vapps = vim.vapps().await.map_err(failed("reading the vApps", vapp.value()))?;
    let vapps: BTreeMap<&str, &VApp> = vapps.iter().map(|vapp| (vapp.moref.value(), vapp)).collect();
    let Some(root) = vapps.get(vapp.value()) else {
        return Err(Error::invalid(format!("{vapp} is no vApp that this account sees")));
    };
    let mut machines = Vec::new();
    collect(&vapps, root, &mut BTreeSet::new(), &mut machines);
    if machines.is_empty() {
        return Err(Error::invalid(format!("there is no machine in the vApp {:?}", root.name)));
    }
    Ok((root.name.clone(), machines))
}

/// Gathers the machines of a vApp, in order.
fn collect<'a>(
    vapps: &BTreeMap<&str, &'a VApp>,
    vapp: &'a VApp,
    seen: &mut BTreeSet<&'a str>,
    machines: &mut Vec<MoRef<mo::VirtualMachine>>,
) {
    // A tree, by the word of a server.
    if !seen.insert(vapp.moref.value()) {
        return;
    }
    for member in &vapp.members {
        match vapps.get(member.object.value()) {
            Some(nested) if member.object.type_name() == "VirtualApp" => collect(vapps, nested, seen, machines),
            _ if member.object.type_name() == "VirtualMachine" => machines.push(member.object.clone().cast()),
            _ => {}
        }
    }
}
