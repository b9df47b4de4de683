//! The vApp options of a machine: from what is to what shall be.

use vsphere_vim_types::{
    ArrayUpdateOperation, ArrayUpdateSpec, VAppOvfSectionSpec, VAppProductSpec, VAppPropertySpec, VmConfigInfo,
    VmConfigSpec,
};

/// Every entry of the old machine as an entry to add.
pub(super) fn spec(info: &VmConfigInfo) -> VmConfigSpec {
    let product = |info: &_| VAppProductSpec { info: Some(Clone::clone(info)), base: add() };
    let property = |info: &_| VAppPropertySpec { info: Some(Clone::clone(info)), base: add() };
    let section = |info: &_| VAppOvfSectionSpec { info: Some(Clone::clone(info)), base: add() };
    VmConfigSpec {
        product: info.product.iter().map(product).collect(),
        property: info.property.iter().map(property).collect(),
        ip_assignment: Some(info.ip_assignment.clone()),
        eula: info.eula.clone(),
        ovf_section: info.ovf_section.iter().map(section).collect(),
        ovf_environment_transport: info.ovf_environment_transport.clone(),
        install_boot_required: Some(info.install_boot_required),
        install_boot_stop_delay: Some(info.install_boot_stop_delay),
        ..Default::default()
    }
}

/// The operation of a list's entry that is new.
pub(super) fn add() -> ArrayUpdateSpec {
    ArrayUpdateSpec { operation: ArrayUpdateOperation::Add, ..Default::default() }
}
