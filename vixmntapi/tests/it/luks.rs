//! LUKS: volumes that cryptsetup encrypted, opened with its keys.
#![cfg(feature = "luks")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use proptest::prelude::*;
use tempfile::TempDir;
use vixmntapi::{
    Error,
    set::{DiskSet, Volume, VolumeKind},
};

use crate::{
    disks::{Memory, Partitions, touch},
    ext::made_of,
    guest::{Guest, SIZE},
    lvm,
    peers::{peer, run},
    tree::{Tree, noise},
};

const MIB: usize = 1 << 20;
const SECRET: &str = "correct horse battery staple";

/// A file that cryptsetup has encrypted where it was, without the kernel's part of it.
struct Encrypted {
    folder: TempDir,
    image: PathBuf,
    key: PathBuf,
}

impl Encrypted {
    /// `None` where there is no cryptsetup, which is said.
    fn new(bytes: &[u8], options: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let [image, key] = ["image", "key"].map(|name| folder.path().join(name));
        std::fs::write(&image, bytes).unwrap();
        // What the header takes is moved back, into this.
        std::fs::File::options().write(true).open(&image).unwrap().set_len((bytes.len() + 16 * MIB) as u64).unwrap();
        std::fs::write(&key, SECRET).unwrap();
        let new = Self { folder, image, key };
        let cheap: &[&str] = match options.contains(&"pbkdf2") {
            true => &["--pbkdf-force-iterations", "1000"],
            false => &["--pbkdf-force-iterations", "4", "--pbkdf-memory", "4096", "--pbkdf-parallel", "4"],
        };
        new.cryptsetup("reencrypt", &[&["--encrypt", "--reduce-device-size", "16M"], options, cheap].concat())?;
        Some(new)
    }

    fn cryptsetup(&self, what: &str, options: &[&str]) -> Option<String> {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&what, &"-q", &"--key-file", &self.key];
        all.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
        all.push(&self.image);
        Some(run(peer("cryptsetup")?, &all))
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.image).unwrap()
    }

    fn opened(&self, key: &str) -> Volume {
        volume_of(&self.image, key)
    }
}

fn volume_of(image: &Path, key: &str) -> Volume {
    let set = DiskSet::builder().raw(image).unwrap().passphrase(key).open().unwrap();
    set.volume("disk0").unwrap()
}

#[test]
fn what_cryptsetup_encrypted_is_read_with_its_passphrase() {
    let Some(guest) = Guest::get() else { return };
    let cases: [&[&str]; 5] = [
        &["--pbkdf", "argon2id"],
        &["--pbkdf", "argon2i", "--key-size", "256", "--hash", "sha512"],
        &["--pbkdf", "pbkdf2", "--hash", "sha512", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"],
        &["--pbkdf", "pbkdf2", "--hash", "sha1", "--cipher", "aes-xts-plain", "--key-size", "512"],
        &["--pbkdf", "pbkdf2", "--cipher", "aes-cbc-plain64", "--key-size", "192", "--hash", "sha384"],
    ];
    for options in cases {
        let Some(encrypted) = Encrypted::new(&guest.bytes, options) else { return };
        let volume = encrypted.opened(SECRET);
        eprintln!("{options:?}: {volume:?}");
        assert_eq!((volume.size(), volume.degraded()), ((SIZE + 8 * MIB) as u64, None));
        let dump = encrypted.cryptsetup("luksDump", &[]).unwrap();
        let encryption = volume.info().unwrap().encryption.unwrap();
        assert!(encryption.scheme == "LUKS2" && dump.contains(&encryption.uuid), "{encryption:?}: {dump}");
        guest.assert_is(&volume);
    }
}

#[test]
fn the_first_version_is_read_too() {
    let Some(guest) = Guest::get() else { return };
    for options in [&["--hash", "sha256"][..], &["--hash", "sha1", "--cipher", "aes-cbc-plain64", "--key-size", "256"]]
    {
        let options = [options, &["--pbkdf", "pbkdf2"]].concat();
        let Some(encrypted) = Encrypted::new(&guest.bytes, &options) else { return };
        encrypted.cryptsetup("convert", &["--type", "luks1"]);
        let volume = encrypted.opened(SECRET);
        assert_eq!(volume.encryption().map(|encryption| encryption.scheme), Some("LUKS1"), "{volume:?}");
        guest.assert_is(&volume);
    }
}

#[test]
fn sectors_of_4096_bytes_are_read_wherever_a_read_begins_and_ends() {
    let bytes = noise(3 * MIB);
    let options = ["--pbkdf", "pbkdf2", "--sector-size", "4096"];
    let Some(encrypted) = Encrypted::new(&bytes, &options) else { return };
    let device = encrypted.opened(SECRET).device().unwrap();
    assert_eq!(device.sector_size(), 4096);
    for (at, len) in [(0, 3 * MIB), (1, 1), (4095, 2), (4096, 4096), (511, 8200), (8191, 100_000), (3 * MIB - 1, 1)] {
        let mut read = vec![0; len];
        device.read_at(at as u64, &mut read).unwrap();
        assert!(read == bytes[at..at + len], "{len} bytes at {at}");
    }
    assert!(matches!(device.read_at(device.size() - 1, &mut [0; 2]), Err(Error::Read { .. })));
}

#[test]
fn every_slot_and_the_key_of_the_volume_open_and_nothing_else() {
    let Some(guest) = Guest::get() else { return };
    let Some(encrypted) = Encrypted::new(&guest.bytes, &["--pbkdf", "pbkdf2"]) else { return };
    let [second, volume_key] = ["second", "volume"].map(|name| encrypted.folder.path().join(name));
    std::fs::write(&second, b"\0bytes\n\xff").unwrap();
    let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let (image, key) = (&encrypted.image, &encrypted.key);
    let Some(cryptsetup) = peer("cryptsetup") else { return };
    let options: Vec<&dyn AsRef<std::ffi::OsStr>> = cheap.iter().map(|option| option as _).collect();
    run(
        &cryptsetup,
        &[&[&"luksAddKey" as &dyn AsRef<std::ffi::OsStr>, &"-q", &"--key-file", key], &*options, &[image, &second]]
            .concat(),
    );
    let dump = ["--dump-volume-key", "--volume-key-file", volume_key.to_str().unwrap()];
    encrypted.cryptsetup("luksDump", &dump);

    let builder = || DiskSet::builder().raw(image).unwrap();
    let volume = |set: DiskSet| set.volume("disk0").unwrap();
    guest.assert_bytes(&volume(builder().passphrase("wrong").passphrase(SECRET).open().unwrap()));
    guest.assert_bytes(&volume(builder().passphrase(b"\0bytes\n\xff").open().unwrap()));
    guest.assert_bytes(&volume(builder().volume_key(std::fs::read(&volume_key).unwrap()).open().unwrap()));
    for (set, words) in [
        (builder().passphrase("wrong"), "the key that was given does not fit"),
        (builder().passphrase("wrong").volume_key([7; 64]), "no key that was given fits"),
    ] {
        let volume = volume(set.open().unwrap());
        assert!(volume.degraded().is_some_and(|what| what.contains(words)), "{:?}", volume.degraded());
        assert!(matches!(volume.mount(), Err(Error::Encrypted { scheme: "LUKS2", .. })));
    }
    let limited = volume(builder().passphrase(SECRET).limit_key_work(999).open().unwrap());
    assert!(limited.degraded().is_some_and(|what| what.contains("work")), "{:?}", limited.degraded());
    let closed = volume(builder().open().unwrap());
    assert!(closed.degraded().is_none() && matches!(closed.contents(), Err(Error::Encrypted { .. })));
    // A slot that is gone opens nothing any more.
    run(&cryptsetup, &[&"luksKillSlot", &"-q", &"--key-file", key, image, &"1"]);
    assert!(volume(builder().passphrase(b"\0bytes\n\xff").open().unwrap()).degraded().is_some());
}

#[test]
fn the_second_header_is_taken_when_the_first_is_damaged() {
    let Some(guest) = Guest::get() else { return };
    let Some(encrypted) = Encrypted::new(&guest.bytes, &["--pbkdf", "pbkdf2"]) else { return };
    let mut bytes = encrypted.bytes();
    bytes[4200] ^= 1;
    let set = |bytes: Vec<u8>| DiskSet::builder().device(Arc::new(Memory(bytes))).passphrase(SECRET).open().unwrap();
    guest.assert_bytes(&set(bytes.clone()).volume("disk0").unwrap());
    bytes[(16 << 10) + 4200] ^= 1;
    let volume = set(bytes).volume("disk0").unwrap();
    assert!(volume.degraded().is_some_and(|what| what.contains("checksum")), "{:?}", volume.degraded());
}

#[test]
fn a_group_within_an_encrypted_partition_has_its_volumes() {
    let Some(guest) = Guest::get() else { return };
    let mut volume = lvm::linear_group(&[SIZE / MIB]).remove(0);
    volume.extend(&guest.bytes);
    let Some(encrypted) = Encrypted::new(&volume, &["--pbkdf", "pbkdf2"]) else { return };
    let Some(disk) = Partitions::gpt(&[&vec![0; MIB], &encrypted.bytes()]) else { return };
    let set = DiskSet::builder().device(Arc::new(Memory(disk))).passphrase(SECRET).open().unwrap();
    let ids: Vec<_> = set.volumes().unwrap().iter().map(|volume| volume.id().to_string()).collect();
    assert_eq!(ids, ["disk0p1", "lvm/vg0/linear"]);
    guest.assert_is(&set.volume("lvm/vg0/linear").unwrap());

    // And the other way around: what is encrypted lies in a group.
    let Some(inner) = Encrypted::new(&guest.bytes, &["--pbkdf", "pbkdf2"]) else { return };
    let inner = inner.bytes();
    let mut disk = lvm::linear_group(&[inner.len() / MIB]).remove(0);
    disk.extend(&inner);
    let set = DiskSet::builder().device(Arc::new(Memory(disk))).passphrase(SECRET).open().unwrap();
    let volume = set.volume("lvm/vg0/linear").unwrap();
    assert!(volume.encryption().is_some() && matches!(volume.kind(), VolumeKind::Lvm { .. }));
    guest.assert_is(&volume);
}

#[test]
fn a_system_with_encrypted_volumes_is_found_with_its_mounts() {
    let Some(guest) = Guest::get() else { return };
    let tree = Tree::new();
    std::fs::create_dir_all(tree.path().join("etc")).unwrap();
    let Some(home) = Encrypted::new(&guest.bytes, &["--pbkdf", "pbkdf2"]) else { return };
    let uuid = home.opened(SECRET).encryption().unwrap().uuid.clone();
    for (name, text) in [
        ("os-release", "ID=debian\nVERSION_ID=\"12\"\n".into()),
        (
            "fstab",
            format!(
                "/dev/mapper/root_crypt / ext4\n/dev/mapper/home_crypt /home ext4\n/dev/mapper/luks-{uuid} /x ext4\n"
            ),
        ),
        ("crypttab", format!("root_crypt /dev/sda1 none luks\nhome_crypt UUID={uuid} none luks\n")),
    ] {
        std::fs::write(tree.path().join("etc").join(name), text).unwrap();
    }
    let Some(root) = made_of(&tree, &["-t", "ext4"], SIZE as u64) else { return };
    let Some(root) = Encrypted::new(&std::fs::read(&root.path).unwrap(), &["--pbkdf", "pbkdf2"]) else { return };
    let Some(disk) = Partitions::gpt(&[&root.bytes(), &home.bytes()]) else { return };
    let set = DiskSet::builder().device(Arc::new(Memory(disk))).passphrase(SECRET).open().unwrap();
    let [system] = &set.os_info().systems[..] else { panic!("one system is expected") };
    let mounts = system.mounts.iter().map(|mount| {
        (mount.point.to_string_lossy().into_owned(), mount.volume.as_ref().map_or(String::new(), ToString::to_string))
    });
    let expected = [("/", "disk0p1"), ("/home", "disk0p2"), ("/x", "disk0p2")];
    assert_eq!(mounts.collect::<Vec<_>>(), expected.map(|(point, volume)| (point.to_owned(), volume.to_owned())));
}

#[test]
fn a_header_that_asks_for_endless_work_is_refused_at_once() {
    for (from, to) in [
        ("\"time\":4,", "\"time\":4294967295,"),
        ("\"memory\":4096,", "\"memory\":4294967295,"),
        ("\"iterations\":1000,", "\"iterations\":4294967295,"),
    ] {
        let Some(image) = small() else { return };
        let mut bytes = image.clone();
        edit(&mut bytes, &|json| json.replace(from, to));
        let started = std::time::Instant::now();
        let set =
            DiskSet::builder().device(Arc::new(Memory(bytes))).passphrase(SECRET).passphrase("two").open().unwrap();
        let volume = set.volume("disk0").unwrap();
        let problem = volume.degraded().unwrap_or_default();
        assert!(problem.contains("work") || problem.contains("memory"), "{to}: {problem}");
        assert!(started.elapsed().as_secs() < 30, "{to}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_headers_are_errors_and_end(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..12)) {
        let Some(image) = small() else { return Ok(()) };
        let mut bytes = image.clone();
        let len = bytes[4096..16 << 10].iter().position(|byte| *byte == 0).unwrap();
        edit(&mut bytes, &|json| {
            let mut json = json.into_bytes();
            for (at, bit) in &flips {
                json[at.index(len)] ^= 1 << bit;
            }
            String::from_utf8_lossy(&json).into_owned()
        });
        touch(&DiskSet::builder().device(Arc::new(Memory(bytes))).passphrase(SECRET).open().unwrap());
    }
}

/// A small encrypted image with a cheap slot of Argon2 and a digest of 1000 iterations.
fn small() -> Option<&'static Vec<u8>> {
    static IMAGE: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    IMAGE.get_or_init(|| Some(Encrypted::new(&[1; MIB], &["--pbkdf", "argon2id"])?.bytes())).as_ref()
}

/// Changes the JSON of the first header, seals it anew, and takes the second away.
fn edit(bytes: &mut [u8], change: &dyn Fn(String) -> String) {
    use sha2::Digest as _;
    const LEN: usize = 16 << 10;
    let end = 4096 + bytes[4096..LEN].iter().position(|byte| *byte == 0).unwrap();
    let json = change(String::from_utf8(bytes[4096..end].to_vec()).unwrap());
    bytes[4096..LEN].fill(0);
    let json = &json.as_bytes()[..json.len().min(LEN - 4096)];
    bytes[4096..4096 + json.len()].copy_from_slice(json);
    bytes[448..512].fill(0);
    let sum = sha2::Sha256::digest(&bytes[..LEN]);
    bytes[448..480].copy_from_slice(&sum);
    bytes[LEN..LEN + 8].fill(0);
}
