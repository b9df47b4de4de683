//! Lists a machine's files in its datastore, reads one, writes one, deletes it again.
//!
//! ```sh
//! datastore --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web
//! datastore --simulate
//! ```

use std::error::Error;

use examples::args::Args;
use examples::show::{bytes, table};
use examples::world::{WORLD_ARGS, World};
use vsphere_vim::datastore::{DatastoreFile, DatastorePath, FileDetails, Search};
use vsphere_vim::transport::stream::Upload;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World::open(&Args::read(&WORLD_ARGS)?).await?;
    let vim = &world.vim;
    let vmx: DatastorePath = vim.config(&world.vm.moref).await?.files.vm_path_name.unwrap_or_default().parse()?;
    let folder = vmx.parent().ok_or("the machine has no folder")?;
    let store = vim.find_datastore(vmx.datastore(), None).await?;

    let files = store.search(&folder, &Search::new()).await?;
    let line = |file: &DatastoreFile| {
        let kind = match &file.details {
            FileDetails::Folder => "folder".to_owned(),
            FileDetails::Disk { capacity, .. } => format!("disk of {}", capacity.map(bytes).unwrap_or_default()),
            FileDetails::Other(kind) => kind.clone(),
            _ => "?".to_owned(),
        };
        vec![file.path.to_string(), file.size.map(bytes).unwrap_or_default(), kind]
    };
    table(&["file", "size", "kind"], &files.iter().map(line).collect::<Vec<_>>());

    // A read goes on where it was when the connection breaks or the session ends.
    let text = store.read(&vmx).open().await?.collect(1 << 20).await?;
    println!("{vmx} has {} lines", text.split(|byte| *byte == b'\n').count());

    let marker = folder.join("example.txt")?;
    store.write(&marker, Upload::from_bytes("written by an example\n")).await?;
    println!("{marker}: {:?} bytes", store.stat(&marker).await?.and_then(|stat| stat.size));
    store.delete(&marker).await?;
    world.close().await
}
