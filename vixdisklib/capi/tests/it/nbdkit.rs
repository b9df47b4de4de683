//! nbdkit's plugin `vddk`, the best-known program that loads VMware's library, loads this one.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use vmdk::{CreateKind, CreateSpec, create};

use crate::{
    site::{PATH, Site},
    support::{installed, peer, succeed},
};

/// The folder with nbdkit and its plugin; distributions leave the plugin out, so it is built with the peers.
fn nbdkit() -> Option<PathBuf> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/nbdkit");
    let folder = env::var_os("NBDKIT_VDDK").map_or_else(built, PathBuf::from);
    peer("nbdkit with its plugin vddk", folder.join("nbdkit").is_file()).then_some(folder)
}

/// Serves what the arguments name, and runs a shell command while it does.
fn serve(nbdkit: &Path, arguments: &[&str], command: &str) -> String {
    let lib = installed();
    let mut server = Command::new(nbdkit.join("nbdkit"));
    server.arg("-f").arg(nbdkit.join("nbdkit-vddk-plugin.so"));
    server.arg(format!("libdir={}", lib.path().display())).args(arguments).args(["--run", command]);
    // The plugin sets it itself, and refuses to work where it is set.
    server.env_remove("LD_LIBRARY_PATH");
    String::from_utf8(succeed(&mut server).stdout).unwrap()
}

#[test]
fn a_local_disk_is_served_with_its_holes_and_written() {
    let Some(nbdkit) = nbdkit() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let disk = create(&path, &CreateSpec::new(64 << 20, CreateKind::MonolithicSparse)).unwrap();
    disk.write_at(1 << 20, &vec![7; 200_000]).unwrap();
    disk.close().unwrap();
    let file = format!("file={}", path.display());

    let map = serve(&nbdkit, &[&file, "-r"], "nbdinfo --map \"$uri\"");
    let rows: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    let rows: Vec<_> = rows.iter().map(|row| (row[0], row[1], row[3])).collect();
    assert_eq!(
        rows,
        [("0", "1048576", "hole,zero"), ("1048576", "262144", "data"), ("1310720", "65798144", "hole,zero")]
    );

    let (raw, new) = (folder.path().join("out.raw"), folder.path().join("in.raw"));
    serve(&nbdkit, &[&file, "-r"], &format!("nbdcopy \"$uri\" {}", raw.display()));
    let copy = std::fs::read(&raw).unwrap();
    assert_eq!((copy.len(), copy.iter().position(|byte| *byte != 0)), (64 << 20, Some(1 << 20)));
    assert!(copy[1 << 20..][..200_000].iter().all(|byte| *byte == 7));

    let mut changed = copy;
    changed[40 << 20..][..100_000].fill(9);
    std::fs::write(&new, &changed).unwrap();
    serve(&nbdkit, &[&file], &format!("nbdcopy --flush {} \"$uri\"", new.display()));
    let written = vmdk::Disk::open(&path, &vmdk::OpenOptions::new()).unwrap();
    let mut read = vec![0; changed.len()];
    written.read_at(0, &mut read).unwrap();
    assert!(read == changed, "what nbdcopy wrote is what the disk has");
}

#[test]
fn a_disk_of_a_server_is_copied_over_nbdssl() {
    let Some(nbdkit) = nbdkit() else { return };
    let (site, folder) = (Site::new(), tempfile::tempdir().unwrap());
    let address = site.address();
    let (host, port) = address.rsplit_once(':').unwrap();
    let arguments = [
        format!("file={PATH}"),
        format!("server={host}"),
        format!("port={port}"),
        format!("thumbprint={}", site.thumbprint_sha1()),
        format!("user={}", site.user()),
        format!("password={}", site.password()),
        format!("vm=moref={}", site.moref()),
        "transports=nbdssl:nbd".to_owned(),
        "compression=zlib".to_owned(),
        "-r".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let raw = folder.path().join("out.raw");
    let command = format!("nbdinfo --size \"$uri\" && nbdcopy \"$uri\" {}", raw.display());
    assert_eq!(serve(&nbdkit, &arguments, &command).trim(), (32 << 20).to_string());
    let copy = std::fs::read(&raw).unwrap();
    assert_eq!((copy.len(), copy.iter().position(|byte| *byte != 0)), (32 << 20, Some(1 << 20)));
    assert!(copy[1 << 20..][..200_000].iter().all(|byte| *byte == 5));
    assert!(copy[(1 << 20) + 200_000..].iter().all(|byte| *byte == 0));
    site.end();
}
