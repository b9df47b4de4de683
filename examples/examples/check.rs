//! Lists what a repository holds and checks all of it: manifests, index, and every chunk's bytes.
//!
//! ```sh
//! check --repository DIR
//! check --simulate
//! ```

use std::error::Error;

use examples::args::Args;
use examples::show::bytes;
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::CancelToken;
use vsphere_backup::repository::{Repository, VerifyLevel};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["repository="]].concat())?;
    let scratch = tempfile::tempdir()?;
    let repository = if args.has("simulate") {
        let world = World::open(&args).await?;
        let repository = world.back_up_once(scratch.path()).await?;
        world.close().await?;
        repository
    } else {
        Repository::open_local(args.need("repository")?).await?
    };

    for vm in repository.vms().await? {
        for id in repository.points(&vm).await? {
            let point = repository.point(&id).await?;
            println!("{id}");
            for disk in point.disks() {
                println!("  disk {} {:?}, {}", disk.key, disk.label, bytes(disk.capacity));
            }
        }
    }
    let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await?;
    println!("{} packs, {} chunks read and hashed", report.packs, report.chunks);
    let of_points = report.points.iter().flat_map(|point| &point.damage);
    for damage in report.damage.iter().chain(of_points) {
        eprintln!("{damage}");
    }
    if report.is_sound() { Ok(()) } else { Err("the repository is damaged".into()) }
}
