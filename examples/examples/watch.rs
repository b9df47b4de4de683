//! Follows the virtual machines of a server: who is there, what changes, who leaves.
//!
//! ```sh
//! watch --url .. --user .. --password-file .. --thumbprint .. --vm any
//! watch --simulate
//! ```

use std::error::Error;

use examples::args::Args;
use examples::world::{WORLD_ARGS, World};
use vsphere_vim::mo::VirtualMachine;
use vsphere_vim::watch::WatchEvent;
use vsphere_vim::{PropertyPath, types::VirtualMachinePowerState};

const POWER: PropertyPath<VirtualMachine, VirtualMachinePowerState> = PropertyPath::new("runtime.powerState");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World::open(&Args::read(&WORLD_ARGS)?).await?;
    let vim = &world.vim;
    // Sessions that end and servers that restart are gone through; only real differences are reported.
    let mut events = vim.properties::<VirtualMachine>().under(vim.root()).select((VirtualMachine::NAME, POWER)).watch();
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Entered(row) => {
                let (name, power) = row.values;
                println!("{}: {:?} is here, {:?}", row.object, name.present(), power.present());
            }
            WatchEvent::Complete => {
                println!("-- that was all; now what changes");
                if world.simulator.is_some() {
                    vim.power_off(&world.vm.moref).await?;
                }
            }
            WatchEvent::Changed(row, paths) => {
                println!("{}: {paths:?} changed, now {:?}", row.object, row.values.1.present());
                if world.simulator.is_some() {
                    break;
                }
            }
            WatchEvent::Left(vm) => println!("{vm}: gone"),
            _ => {}
        }
    }
    events.close().await;
    world.close().await
}
