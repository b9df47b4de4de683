//! Serves disks to qemu, nbdcopy and the kernel: a snapshot of a machine, or an image of this one with its parents.
//!
//! ```sh
//! nbd_server --url https://vc.example/sdk --user svc-backup --password-file secret --thumbprint 0A:1B:.. --vm dc1/vm/web
//! nbd_server --image web.vmdk --writable --listen /run/web.sock
//! nbd_server --simulate
//! ```
//! Prints the URIs and serves until Ctrl-C; then the snapshot is removed.

use std::error::Error;
use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;

use examples::args::Args;
use examples::world::{WORLD_ARGS, World};
use tokio::process::Command;
use vixdisklib::nbd::{Export, NbdAddress, NbdServer, RunningNbdServer};
use vixdisklib::{Access, Connection, ConnectionOptions};
use vsphere_vim::{CreateSnapshotOptions, MoRef, RemoveSnapshotOptions, mo};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["listen=", "transports=", "image=", "writable"]].concat())?;
    let listen = NbdServer::bind(args.get("listen").unwrap_or("127.0.0.1:0"));
    if let Some(image) = args.get("image") {
        let access = if args.has("writable") { Access::ReadWrite } else { Access::ReadOnly };
        let disk = Connection::local(access).open(image).await?;
        return serve(listen.export("", Arc::new(disk)), false).await;
    }

    let world = World::open(&args).await?;
    let snapshot = world.vim.create_snapshot(&world.vm.moref, CreateSnapshotOptions::new("nbd")).await?;
    let transports = args.get("transports").unwrap_or("nbdssl");
    let served = serve_snapshot(listen, &world, &snapshot, transports, args.has("simulate")).await;
    // Whatever came of it: the snapshot goes.
    world.vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await?;
    served?;
    world.close().await
}

async fn serve_snapshot(
    mut server: NbdServer,
    world: &World,
    snapshot: &MoRef<mo::VirtualMachineSnapshot>,
    transports: &str,
    check: bool,
) -> Result<(), Box<dyn Error>> {
    let options = ConnectionOptions::new().snapshot(snapshot.clone());
    let vm = &world.vm.moref;
    let connection = Connection::connect_with(&world.vim, vm, Access::ReadOnly, transports, options).await?;
    for found in connection.disks().await? {
        let disk = connection.open(&found.path).await?;
        let name = found.key.0.to_string();
        server =
            server.export_as(Export::new(name, Arc::new(disk)).description(format!("{} {}", found.label, found.path)));
    }
    serve(server, check).await
}

/// Serves until Ctrl-C, or until the check of a simulated run is done.
async fn serve(server: NbdServer, check: bool) -> Result<(), Box<dyn Error>> {
    let server = server.serve().await?;
    for uri in server.uris() {
        println!("{uri}");
    }
    let checked = if check { check_as_client(&server).await } else { Ok(tokio::signal::ctrl_c().await?) };
    // Finishes what is under way, flushes, and closes the disks.
    server.stop().await?;
    checked
}

/// Lets nbdinfo and nbdcopy look at the first export where they are installed, and reads the greeting where not.
async fn check_as_client(server: &RunningNbdServer) -> Result<(), Box<dyn Error>> {
    let uri = server.uris().swap_remove(0);
    for (program, arguments) in [("nbdinfo", ["--map", &uri]), ("nbdcopy", [&uri, "null:"])] {
        match Command::new(program).args(arguments).status().await {
            Ok(status) if status.success() => println!("{program} is content"),
            Ok(status) => return Err(format!("{program}: {status}").into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => println!("{program} is not installed"),
            Err(error) => return Err(error.into()),
        }
    }
    let NbdAddress::Tcp(address) = server.address() else { return Ok(()) };
    let mut greeting = [0; 16];
    TcpStream::connect(address)?.read_exact(&mut greeting)?;
    if &greeting != b"NBDMAGICIHAVEOPT" {
        return Err("this is not how an NBD server greets".into());
    }
    Ok(())
}
