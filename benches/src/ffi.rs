//! What does the C interface cost? The same reads through `libvixDiskLib.so`, by a C program, and through the crate.
//!
//! A flat disk in the page cache is the hardest case: nothing else takes time there. Over `nbdssl` the simulator runs in
//! a third process; one call is under way at a time, as `VixDiskLib_Read` is.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use vixdisklib::{Access, Connection, blocking};
use vsphere_vim::MoRef;
// For its library file: this program links nothing of it.
use vixDiskLib as _;

use crate::world::World;
use crate::{megabytes_per_second, process, verdict};

/// Of the disk.
const BYTES: u64 = 2 << 30;
const ROUNDS: u32 = 3;

/// Asks for all combinations.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(2);
    if arguments.next().as_deref() == Some("--native") {
        let (path, kib) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default().parse()?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let local = blocking::Connection::new(Connection::local(Access::ReadOnly), runtime.handle());
        println!("seconds: {:.6}", read(&local, &path, kib)?.as_secs_f64());
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let program = compile(folder.path())?;
    let image = folder.path().join("disk-flat.vmdk");
    crate::backup::image::make(&image, BYTES, 0)?;
    let vmdk = folder.path().join("disk.vmdk");
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
         RW {} FLAT \"disk-flat.vmdk\" 0\nddb.adapterType = \"lsilogic\"\n",
        BYTES / 512
    );
    std::fs::write(&vmdk, descriptor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let world = World::start(&image)?;
    for kib in [64, 1024] {
        // Each in a fresh process: how memory lies there makes more of a difference than the interface.
        let local = || {
            measured(Command::new(std::env::current_exe()?).args(["ffi", "--native", text(&vmdk)?, &kib.to_string()]))
        };
        compare("file", kib, local, || measured(Command::new(&program).arg(&vmdk).args([&kib.to_string(), "1"])))?;
    }
    let vim = runtime.block_on(world.connect())?;
    let vm = MoRef::new(&world.vm);
    let path = runtime.block_on(vim.disks(&vm))?.remove(0).backing.file_name.ok_or("the disk has no file")?;
    let (host, port) = world.url.trim_start_matches("https://").split_once(':').ok_or("the address has no port")?;
    let port = port.split('/').next().unwrap_or(port);
    let connect = Connection::connect(&vim, &vm, Access::ReadOnly, "nbdssl");
    let connection = blocking::Connection::new(runtime.block_on(connect)?, runtime.handle());
    compare(
        "nbdssl",
        1024,
        || read(&connection, &path, 1024),
        || {
            let vm = format!("moref={}", world.vm);
            let server = [host, port, &world.sha1, &world.user, &world.password, &vm, "nbdssl"];
            measured(Command::new(&program).args([&path, "1024", "1"]).args(server))
        },
    )?;
    runtime.block_on(vim.logout())?;
    Ok(())
}

/// Takes turns and prints the ratio.
fn compare(
    name: &str,
    kib: usize,
    mut native: impl FnMut() -> Result<Duration, Box<dyn Error>>,
    mut foreign: impl FnMut() -> Result<Duration, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (mut ours, mut c) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        ours = ours.min(native()?);
        c = c.min(foreign()?);
    }
    let ratio = ours.as_secs_f64() / c.as_secs_f64();
    println!(
        "figure: ffi {name} reads of {kib} KiB: {:.0} MB/s from C, {:.0} MB/s natively: {ratio:.2} (bar 0.95: {})",
        megabytes_per_second(BYTES, c),
        megabytes_per_second(BYTES, ours),
        verdict(ratio >= 0.95)
    );
    Ok(())
}

fn read(connection: &blocking::Connection, path: &str, kib: usize) -> Result<Duration, Box<dyn Error>> {
    let disk = connection.open(path)?;
    let mut buffer = vec![0; kib << 10];
    let begun = Instant::now();
    for at in (0..BYTES).step_by(kib << 10) {
        disk.read_into(at, &mut buffer)?;
    }
    let took = begun.elapsed();
    disk.close()?;
    Ok(took)
}

/// The time that a process measured.
fn measured(command: &mut Command) -> Result<Duration, Box<dyn Error>> {
    let (printed, _) = process::run(command)?;
    let seconds = printed.lines().find_map(|line| line.strip_prefix("seconds: "));
    Ok(Duration::from_secs_f64(seconds.ok_or("no time was printed")?.parse()?))
}

/// Compiles the C program against the header and the library that was built with this program.
fn compile(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = folder.join("read");
    let built = std::env::current_exe()?;
    let beside = built.parent().ok_or("this program has no folder")?.join("deps");
    // Found by the name that it is loaded by.
    std::os::unix::fs::symlink(beside.join("libvixDiskLib.so"), folder.join("libvixDiskLib.so.8"))?;
    process::run(
        Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(sources.join("src/ffi/read.c"))
            .arg("-I")
            .arg(sources.join("../vixdisklib/capi/include"))
            .arg(folder.join("libvixDiskLib.so.8"))
            .arg(format!("-Wl,-rpath,{}", folder.display())),
    )?;
    Ok(program)
}

fn text(path: &Path) -> Result<&str, Box<dyn Error>> {
    path.to_str().ok_or_else(|| "the folder's name is not text".into())
}
