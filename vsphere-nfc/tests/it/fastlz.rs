//! FastLZ blocks of ours read by the public reference, and its blocks read by us.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use vsphere_nfc::wire::compress::Compression;

/// Reads blocks as `u32 length of the data, u32 length of the block, block`; answers each with its
/// data, and with blocks of the same data of level 1, of level 2, and of the level the reference
/// chooses, each in front of it the length. pyfastlz has the length of the data in every block.
const SCRIPT: &str = "
import fastlz, struct, sys
source, out = sys.stdin.buffer.read(), sys.stdout.buffer
at = 0
while at < len(source):
    size, packed = struct.unpack_from('<II', source, at)
    data = fastlz.decompress(struct.pack('<I', size) + source[at + 8:at + 8 + packed])
    at += 8 + packed
    for part in (data, fastlz.compress(data, 1)[4:], fastlz.compress(data, 2)[4:], fastlz.compress(data)[4:]):
        out.write(struct.pack('<I', len(part)) + part)
";

/// A Python that has pyfastlz: the one named, the one that `scripts/install-peers` makes, the system's.
fn python() -> Option<PathBuf> {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/venv/bin/python");
    let named = std::env::var_os("PYVMOMI_PYTHON").map(PathBuf::from);
    let mut all = named.into_iter().chain([installed.into(), "python3".into()]);
    all.find(|python| {
        let tried = Command::new(python).args(["-c", "import fastlz"]).output();
        tried.is_ok_and(|output| output.status.success())
    })
}

/// Data of many kinds: with long and short matches, near and far, and of lengths around 64 KiB.
fn samples() -> Vec<Vec<u8>> {
    let mut state = 7u32;
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let mut samples = vec![vec![0; 65535], vec![0; 65536], vec![9; 1 << 20], b"abc".repeat(40_000)];
    for len in [40, 512, 4096, 65535, 65536, 65537, 131_072, 300_000] {
        for letters in [2, 5, 30, 256] {
            let mut data: Vec<u8> = Vec::with_capacity(len);
            while data.len() < len {
                let run = (1 + random(400)) as usize;
                // Something new, something from before, or zeros.
                match random(3) {
                    0 => data.extend((0..run).map(|_| random(letters) as u8)),
                    1 if !data.is_empty() => {
                        let from = data.len() - 1 - random(data.len().min(80_000) as u32) as usize;
                        (0..run).for_each(|at| data.push(data[from + at]));
                    }
                    _ => data.resize(data.len() + run, 0),
                }
            }
            data.truncate(len);
            samples.push(data);
        }
    }
    samples
}

#[test]
fn the_public_reference_and_we_read_each_others_blocks() {
    let Some(python) = python() else {
        eprintln!("PEER MISSING: python3 with pyfastlz. This test proves nothing; run scripts/install-peers");
        assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "pyfastlz is required");
        return;
    };
    let mut samples = samples();
    samples.retain(|data| Compression::FastLz.compress(data).is_some());
    assert!(samples.len() > 30);
    let mut input = Vec::new();
    for data in &samples {
        let block = Compression::FastLz.compress(data).unwrap();
        input.extend((data.len() as u32).to_le_bytes());
        input.extend((block.len() as u32).to_le_bytes());
        input.extend(block);
    }
    let mut peer =
        Command::new(python).args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    peer.stdin.take().unwrap().write_all(&input).unwrap();
    let output = peer.wait_with_output().unwrap();
    assert!(output.status.success());
    let mut rest = output.stdout.as_slice();
    let mut next = || {
        let (len, tail) = rest.split_first_chunk().unwrap();
        let (part, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
        rest = tail;
        part
    };
    let (mut ours, mut theirs) = (0, 0);
    for data in &samples {
        assert!(next() == data, "the reference reads {} bytes of ours otherwise", data.len());
        for level in ["1", "2", "of its choice"] {
            let block = next();
            assert!(Compression::FastLz.decompress(block, data.len()).unwrap() == *data, "level {level}");
            if level == "of its choice" {
                theirs += block.len();
                assert_eq!(block[0] >> 5, u8::from(data.len() >= 65536));
            }
        }
        ours += Compression::FastLz.compress(data).unwrap().len();
    }
    println!("{} blocks: {ours} bytes packed by us, {theirs} by the reference", samples.len());
    assert!(ours < theirs * 11 / 10, "our blocks have {ours} bytes, those of the reference {theirs}");
}
