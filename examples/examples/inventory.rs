//! Lists every virtual machine with its disks and whether changes are tracked: typed paths in, typed rows out.
//!
//! ```sh
//! inventory --url .. --user .. --password-file .. --thumbprint .. --vm any
//! inventory --simulate
//! ```

use std::error::Error;

use examples::args::Args;
use examples::show::{bytes, table};
use examples::world::{WORLD_ARGS, World};
use vsphere_vim::PropertyPath;
use vsphere_vim::mo::VirtualMachine;

const TRACKED: PropertyPath<VirtualMachine, bool> = PropertyPath::new("config.changeTrackingEnabled");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World::open(&Args::read(&WORLD_ARGS)?).await?;
    let vim = &world.vim;
    let mut lines = Vec::new();
    // The rows come page by page, however many machines there are; a missing property is a value of its row.
    let mut rows =
        vim.properties::<VirtualMachine>().under(vim.root()).select((VirtualMachine::NAME, TRACKED)).stream();
    while let Some(row) = rows.try_next().await? {
        let (name, tracked) = row.values;
        let name = name.present().unwrap_or_else(|| row.object.to_string());
        let tracked = if tracked.present() == Some(true) { "yes" } else { "no" };
        for disk in vim.disks(&row.object).await? {
            let file = disk.backing.file_name.unwrap_or_default();
            lines.push(vec![name.clone(), tracked.to_owned(), disk.label, file, bytes(disk.capacity)]);
        }
    }
    table(&["machine", "tracked", "disk", "file", "size"], &lines);
    world.close().await
}
