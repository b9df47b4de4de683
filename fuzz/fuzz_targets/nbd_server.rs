//! The NBD server's side of the protocol: whatever a client sends is answered, refused or hung up on, and what is
//! allowed lies inside the export.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use vixdisklib::nbd::wire::{
    negotiation::{Encryption, ExportFacts, Negotiation, Next},
    option::OptionHeader,
    reply::{Outcome, encode},
    request::{Command, RequestHeader},
};

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let exports = ["", "web"].map(|name| ExportFacts {
        name: name.to_owned(),
        description: "a disk".to_owned(),
        size: 1 << 30,
        flags: u16::from(*first),
        min_block: 512,
        preferred_block: 4096,
        max_block: 1 << 20,
    });
    let encryption = if first & 1 == 0 { Encryption::Off } else { Encryption::Required };
    let Some((flags, mut rest)) = data.split_first_chunk() else { return };
    let Ok(mut negotiation) = Negotiation::begin(*flags, encryption) else { return };
    let (export, modes) = loop {
        let Some((header, after)) = rest.split_first_chunk() else { return };
        let Ok(header) = OptionHeader::decode(header) else { return };
        let Some((data, after)) = after.split_at_checked(header.len as usize) else { return };
        rest = after;
        let mut out = BytesMut::new();
        match negotiation.answer(header.number, data, &exports, &mut out) {
            Next::Option | Next::StartTls => assert!(out.len() >= 20, "every option has an answer"),
            Next::Close => return,
            Next::Transmit { export, modes } => break (&exports[export], modes),
        }
    };
    while let Some((header, after)) = rest.split_first_chunk() {
        rest = after;
        let Ok(request) = RequestHeader::decode(header) else { return };
        match request.check(export, modes) {
            Ok(
                Command::Read { range, .. }
                | Command::Write { range, .. }
                | Command::Trim { range, .. }
                | Command::Cache { range }
                | Command::WriteZeroes { range, .. }
                | Command::BlockStatus { range, .. },
            ) => assert!(range.start <= range.end && range.end <= export.size),
            Ok(Command::Flush) => {}
            Err(refusal) => assert!(!encode(Outcome::Failed(refusal), request.cookie, modes.structured).is_empty()),
        }
    }
});
