//! Creates a machine from the configuration of another one, as a restore to a new machine does: other name, other
//! identity, network cards disconnected. The new machine has empty disks and is deleted at the end.
//!
//! ```sh
//! new_vm --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web
//! new_vm --simulate
//! ```

use std::error::Error;

use examples::args::Args;
use examples::show::bytes;
use examples::world::{WORLD_ARGS, World};
use vsphere_vim::config_spec::ConfigConversion;
use vsphere_vim::{PropertyPath, mo};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World::open(&Args::read(&WORLD_ARGS)?).await?;
    let (vim, vm) = (&world.vim, &world.vm.moref);
    // What a backup keeps, and what the new machine needs besides: where it belongs.
    let kept = vim.config(vm).await?;
    let folder = vim.get(vm, PropertyPath::new("parent")).await?;
    let pool = vim.get(vm, PropertyPath::new("resourcePool")).await?;

    let converted = ConfigConversion::of(&kept).as_copy("a copy, by an example").start_disconnected(true).convert();
    for note in converted.warnings() {
        println!("note: {note}");
    }
    let folder: vsphere_vim::MoRef<mo::Folder> = folder;
    let copy = vim.create_vm(&folder, &pool, None, converted.spec).await?;
    println!("created {copy}");
    for disk in vim.disks(&copy).await? {
        println!("  {} {} {}", disk.label, bytes(disk.capacity), disk.backing.file_name.unwrap_or_default());
    }
    vim.destroy(&copy).await?;
    world.close().await
}
