//! Clients of others: libnbd's and QEMU's.

use vixdisklib::{
    Access, Connection,
    nbd::{Export, NbdServer},
};
use vmdk::{CreateKind, CreateSpec, create};

use super::{Chain, MIB, noise, raw};
use crate::support::{outcome, peer, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdinfo_shows_size_flags_and_the_map_as_extents() {
    let Some(nbdinfo) = peer("nbdinfo") else { return };
    let chain = Chain::new();
    let server = chain.serve(Access::ReadOnly).await;
    let text = run(&nbdinfo, &[&server.uri("top")]);
    for part in [
        "newstyle-fixed without TLS, using structured packets",
        "export-size: 16777216 (16M)",
        "is_read_only: true",
        "can_multi_conn: true",
        "can_cache: true",
        "base:allocation",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let map = run(&nbdinfo, &["--map", &server.uri("top")]);
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    // The grain of 64 KiB that the top zeroes stands between the two parts of the base.
    let expected = [
        ["0", "1048576", "3", "hole,zero"],
        ["1048576", "65536", "0", "data"],
        ["1114112", "65536", "3", "hole,zero"],
        ["1179648", "589824", "0", "data"],
        ["1769472", "2424832", "3", "hole,zero"],
        ["4194304", "327680", "0", "data"],
        ["4521984", "11206656", "3", "hole,zero"],
        ["15728640", "1048576", "0", "data"],
    ];
    assert_eq!(lines, expected, "{map}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdinfo_lists_exports_with_their_descriptions() {
    let Some(nbdinfo) = peer("nbdinfo") else { return };
    let chain = Chain::new();
    let socket = chain.path("nbd.sock");
    let first = Export::new("top", chain.open(Access::ReadOnly).await).description("the last snapshot");
    let second = Export::new("a name/with odd letters ü", chain.open(Access::ReadOnly).await);
    let server = NbdServer::bind(socket.as_str()).export_as(first).export_as(second).serve().await.unwrap();
    let list = run(&nbdinfo, &["--list", &server.uri("")]);
    for part in ["export=\"top\":", "description: the last snapshot", "export=\"a name/with odd letters ü\":"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert_eq!(run(&nbdinfo, &["--size", &server.uris()[1]]).trim(), "16777216");
    assert_eq!(run(&nbdinfo, &["--size", &server.uri("")]).trim(), "16777216", "the first is the default");
    assert!(!outcome(&nbdinfo, &[&server.uri("other")]).0);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdcopy_and_qemu_read_a_chain_as_it_is() {
    let (Some(nbdcopy), Some(qemu_img)) = (peer("nbdcopy"), peer("qemu-img")) else { return };
    let chain = Chain::new();
    let expected = raw(chain.folder.path(), "expected.img", &chain.content);
    let server = chain.serve(Access::ReadOnly).await;
    let (copied, converted) = (chain.path("copied.img"), chain.path("converted.img"));
    run(&nbdcopy, &[&server.uri("top"), &copied]);
    assert!(std::fs::read(&copied).unwrap() == chain.content, "nbdcopy read other bytes");
    run(&qemu_img, &["convert", "-f", "raw", "-O", "raw", &server.uri("top"), &converted]);
    assert!(std::fs::read(&converted).unwrap() == chain.content, "qemu-img read other bytes");
    let text = run(&qemu_img, &["compare", "-f", "raw", "-F", "raw", &server.uri("top"), &expected]);
    assert!(text.contains("identical"), "{text}");
    let map = run(&qemu_img, &["map", "--output=json", "-f", "raw", &server.uri("top")]);
    assert!(map.contains(r#""start": 1048576, "length": 65536"#), "{map}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdcopy_writes_an_image_into_a_disk_and_it_stays_sparse() {
    let (Some(nbdcopy), Some(qemu_img)) = (peer("nbdcopy"), peer("qemu-img")) else { return };
    let chain = Chain::new();
    let source = raw(chain.folder.path(), "source.img", &chain.content);
    let path = chain.path("new.vmdk");
    create(&path, &CreateSpec::new(16 * MIB, CreateKind::MonolithicSparse)).unwrap().close().unwrap();
    let disk = Connection::local(Access::ReadWrite).open(&path).await.unwrap();
    let server = NbdServer::bind("127.0.0.1:0").export("new", disk.into()).serve().await.unwrap();
    run(&nbdcopy, &["--flush", "--destination-is-zero", &source, &server.uri("new")]);
    // Flushed: somebody else reads it while the server has it open.
    let text = run(&qemu_img, &["compare", "-U", "-f", "raw", "-F", "vmdk", &source, &path]);
    assert!(text.contains("identical"), "{text}");
    server.stop().await.unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 4 * MIB, "zeros have taken space");
    run(&qemu_img, &["check", "-f", "vmdk", &path]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_qemu_io_writes_and_flushes_is_on_the_disk() {
    let (Some(qemu_io), Some(qemu_img)) = (peer("qemu-io"), peer("qemu-img")) else { return };
    let mut chain = Chain::new();
    let server = chain.serve(Access::ReadWrite).await;
    let commands = ["write -P 0xa5 5M 1M", "write -P 0x5a 5243393 100", "write -z 15M 512k", "discard 1M 64k", "flush"];
    let mut arguments = vec!["-f", "raw", "-t", "writeback"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.extend(["-c", "read -P 0x5a 5243393 100", "-c", "read -P 0 15M 512k"]);
    let uri = server.uri("top");
    arguments.push(&uri);
    let text = run(&qemu_io, &arguments);
    assert!(!text.contains("failed"), "{text}");

    chain.content[5 << 20..6 << 20].fill(0xa5);
    chain.content[5_243_393..5_243_493].fill(0x5a);
    chain.content[15 << 20..(15 << 20) + (512 << 10)].fill(0);
    chain.content[1 << 20..(1 << 20) + 65536].fill(0);
    let expected = raw(chain.folder.path(), "expected.img", &chain.content);
    let path = chain.path("top.vmdk");
    let text = run(&qemu_img, &["compare", "-U", "-f", "raw", "-F", "vmdk", &expected, &path]);
    assert!(text.contains("identical"), "{text}");
    server.stop().await.unwrap();
    run(&qemu_img, &["check", "-f", "vmdk", &path]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_export_refuses_qemus_writes() {
    let Some(qemu_io) = peer("qemu-io") else { return };
    let chain = Chain::new();
    let export = Export::new("top", chain.open(Access::ReadWrite).await).read_only();
    let server = NbdServer::bind("127.0.0.1:0").export_as(export).serve().await.unwrap();
    let (success, text) = outcome(&qemu_io, &["-f", "raw", "-c", "write 0 4k", &server.uri("top")]);
    assert!(!success && text.contains("Permission denied"), "{text}");
    run(&qemu_io, &["-f", "raw", "-r", "-c", "read -P 0 0 4k", &server.uri("top")]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_of_nbdcopy_write_one_disk() {
    let Some(nbdcopy) = peer("nbdcopy") else { return };
    let folder = tempfile::tempdir().unwrap();
    let content = noise(24 << 20, 9);
    let source = raw(folder.path(), "source.img", &content);
    let path = raw(folder.path(), "target.img", &[]);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(24 * MIB).unwrap();
    let disk = Connection::local(Access::ReadWrite).open(&path).await.unwrap();
    let server = NbdServer::bind("127.0.0.1:0").export("t", disk.into()).serve().await.unwrap();
    let shape = ["--connections=4", "--requests=64", "--request-size=65536", "--flush"];
    run(&nbdcopy, &[&shape[..], &[&source, &server.uri("t")]].concat());
    assert!(std::fs::read(&path).unwrap() == content);
    server.stop().await.unwrap();
}
