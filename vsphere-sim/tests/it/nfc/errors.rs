//! Rows 26 and 27: errors that the server reports.

use vsphere_nfc::wire::classic::Message;
use vsphere_nfc::wire::fault::Layout;
use vsphere_nfc::{Error, Mode, Phase};
use vsphere_sim::nfc::{FaultAction, Step};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_of_one_read_fails_the_others_and_the_next_read_connects_again() {
    let host = Host::reading(MemoryDisk::filled(4 * MIB, 4 * MIB)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    host.server.inject(Step::Read, FaultAction::Error { code: 42, text: "medium error".into() });
    let error = disk.read_at(0, 512).await.unwrap_err();
    let Error::Server { phase: Phase::Read, fault, .. } = &error else { panic!("{error}") };
    assert_eq!((fault.code, fault.text.as_str()), (Some(42), "medium error"));
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    assert_eq!(host.server.counters().connections_total(), 2);

    host.server.disconnect_all();
    host.assert_no_connections().await;
    assert!(disk.read_at(MIB, MIB as usize).await.unwrap() == pattern(MIB, MIB));
    assert_eq!(host.server.counters().connections_total(), 3);

    let mut options = patient();
    options.reconnect = false;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    host.server.disconnect_all();
    let mut errors = 0;
    for _ in 0..2 {
        errors += u32::from(matches!(disk.read_at(0, 512).await, Err(Error::Disconnected { .. })));
    }
    assert_eq!(errors, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_of_every_layout_is_told_with_its_code_and_costs_the_connection() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    for layout in [Layout::TextCounted, Layout::NoText, Layout::TextUncounted, Layout::CodeOnly] {
        host.server.configure(|config| config.error_layout = layout);
        let before = host.server.counters().connections_total();
        let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
        host.server.inject(Step::Read, FaultAction::Error { code: 42, text: "medium error".into() });
        let error = disk.read_at(0, 512).await.unwrap_err();
        let Error::Server { phase: Phase::Read, fault, .. } = &error else { panic!("{layout:?}: {error}") };
        assert_eq!(fault.code, Some(42), "{layout:?}");
        let has_text = matches!(layout, Layout::TextCounted | Layout::TextUncounted);
        assert_eq!(fault.text == "medium error", has_text, "{layout:?}: {fault}");
        assert_eq!(fault.kind.is_some(), layout != Layout::CodeOnly, "{layout:?}");
        // What follows an error is not certain: the next read has a connection of its own.
        assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
        assert_eq!(host.server.counters().connections_total(), before + 2, "{layout:?}");
        disk.close().await.unwrap();
    }
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_of_a_classic_error_is_bounded_and_shown_as_far_as_it_came() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let error_of = |told: u32, text: &[u8]| {
        let head = Message::Error { kind: 1, code: 99, text_len: told }.encode().unwrap();
        FaultAction::Bytes([&head, text].concat())
    };
    let long = vec![b'x'; 1 << 20];
    for (told, text, shown) in [
        (0, &b""[..], ""),
        (1, b"\0", ""),
        (5, b"full!", "full!"),
        (6, b"fu\xFFl!\0", "fu\u{FFFD}l!"),
        // More is promised than comes.
        (64, b"short\0", "short"),
        (1 << 20, &long, &*"x".repeat(4096)),
        (u32::MAX, b"huge", "huge"),
    ] {
        // As often as it is tried.
        for step in [Step::SessionStart; 8] {
            host.server.inject(step, error_of(told, text));
        }
        let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
        let fault = error.fault().unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!((fault.code, fault.text.as_str()), (Some(99), shown), "{told}");
        host.assert_no_connections().await;
        host.server.forget_injected();
    }
}
