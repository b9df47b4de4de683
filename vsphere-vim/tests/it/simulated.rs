//! What the tests against our simulator begin with.

use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{Credentials, MoRef, Vim, VmLookup, mo::VirtualMachine};

/// Logged in with the simulator's own account, its certificate pinned.
pub(crate) async fn connect(sim: &Simulator) -> Vim {
    let credentials = Credentials::password(sim.username(), sim.password());
    let pin = sim.thumbprint_sha256().parse().unwrap();
    Vim::builder(sim.url()).credentials(credentials).thumbprint(pin).connect().await.unwrap()
}

/// A vCenter with the machines `web` and `db`, both off.
pub(crate) async fn two_vms() -> (Simulator, Vim, MoRef<VirtualMachine>, MoRef<VirtualMachine>) {
    let vm = |name| VmSpec::new(name).disk(DiskSpec::empty(1 << 20)).power(Power::Off);
    let sim = Simulator::builder().vm(vm("web")).vm(vm("db")).start().await.unwrap();
    let vim = connect(&sim).await;
    let find = async |name: &str| vim.find_vm(&VmLookup::InventoryPath(format!("dc1/vm/{name}"))).await.unwrap().moref;
    let (web, db) = (find("web").await, find("db").await);
    (sim, vim, web, db)
}
