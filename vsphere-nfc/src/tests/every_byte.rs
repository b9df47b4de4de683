//! A whole session that is cut after every single byte, in both directions, by FIN and by RST.

use bytes::Bytes;

use super::server::{End, Habits, Marks, assert_no_tasks_left, content, lost_in, open};
use crate::error::{Error, Phase, Result};
use crate::{Mode, NfcDisk, NfcOptions};

/// Small, so that there are few bytes to cut at, but every kind of message.
const LEN: usize = 1024;

async fn use_disk(disk: NfcDisk) -> Result<()> {
    disk.query_allocated(0..1 << 20, 64 * 1024).await?;
    disk.metadata("adapterType").await?;
    let (one, two) = tokio::join!(disk.read_at(0, LEN), disk.read_at(4096, LEN));
    assert_eq!(one?, content(0, LEN));
    assert_eq!(two?, content(4096, LEN));
    if disk.mode() == Mode::ReadWrite {
        let data = |byte| Bytes::from(vec![byte; LEN]);
        let (one, two) = tokio::join!(disk.write_at(0, data(1)), disk.write_at(4096, data(2)));
        // A lost connection costs both, and neither is reported as done without its reply.
        one.and(two)?;
    }
    disk.close().await
}

fn options() -> NfcOptions {
    let mut options = NfcOptions::default();
    options.quirks.max_request = Some(64 * 1024);
    options
}

async fn session(habits: Habits, end: End, mode: Mode) -> (Result<()>, u32, Option<Marks>) {
    let (disk, tickets, marks) = open(habits, end, 1 << 20, mode, &options()).await;
    let result = match disk {
        Ok(disk) => use_disk(disk).await,
        Err(error) => Err(error),
    };
    assert_no_tasks_left().await;
    let marks = marks.lock().unwrap().take();
    (result, tickets.asked(), marks)
}

/// The phase of the message that byte number `at` belongs to.
fn phase_of(marks: &[(usize, Phase)], at: usize) -> Phase {
    marks.iter().find(|(end, _)| *end > at).map_or(Phase::Close, |(_, phase)| *phase)
}

/// Whether a message ends with byte number `at`.
fn is_end(marks: &[(usize, Phase)], at: usize) -> bool {
    marks.iter().any(|(end, _)| *end == at)
}

fn run(test: impl Future<Output = ()>) {
    // The clock stands still while anything can be done, so a hang is a time-out at once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

#[test]
fn connection_cut_after_any_byte_is_a_disconnect_that_names_the_phase_and_leaves_nothing() {
    run(async {
        for mode in [Mode::ReadOnly, Mode::ReadWrite] {
            let (whole, _, marks) = session(Habits::default(), End::Fin, mode).await;
            whole.unwrap();
            let Marks { received, sent } = marks.unwrap();
            let (all_received, all_sent) = (received.last().unwrap().0, sent.last().unwrap().0);
            // The last message only says goodbye: the disk is closed before it.
            let farewell = received[received.len() - 2].0;
            for end in [End::Fin, End::Rst] {
                for at in 0..all_sent {
                    let habits = Habits { stop_after_sent: Some(at), ..Habits::default() };
                    check(
                        &format!("{mode:?} {end:?} sent {at}"),
                        session(habits, end, mode).await,
                        phase_of(&sent, at),
                        is_end(&sent, at),
                    );
                }
                for at in 1..=all_received {
                    let habits = Habits { stop_after_received: Some(at), ..Habits::default() };
                    let what = format!("{mode:?} {end:?} received {at}");
                    let cut = session(habits, end, mode).await;
                    match at > farewell {
                        true => assert!(cut.0.is_ok(), "{what}: {:?}", cut.0),
                        false => check(&what, cut, phase_of(&received, at - 1), false),
                    }
                }
            }
        }
    });
}

/// The session must have been lost in `phase`, and only what changes nothing may have been tried
/// again: for that a second ticket was asked for, and not given.
fn check(what: &str, (result, tickets, _): (Result<()>, u32, Option<Marks>), phase: Phase, between: bool) {
    let error = match result {
        // Noticed before the close, which has nothing to do then.
        Ok(()) if phase == Phase::Close && what.contains("ReadOnly") => return,
        other => other.expect_err(what),
    };
    let again = matches!(phase, Phase::Read | Phase::QueryAllocated | Phase::Metadata) && what.contains("ReadOnly");
    if again {
        assert!(matches!(error, Error::Ticket(_)), "{what}: {error:?}");
        assert!((1..=2).contains(&tickets), "{what}: {tickets} tickets");
    } else {
        assert_eq!(lost_in(&error), Some(phase), "{what}: {error:?}");
        assert_eq!(tickets, 0, "{what}: tried again");
        assert!(error.is_retryable(), "{what}: {error:?}");
    }
    // Between two messages it may be noticed before anything of a write is sent.
    if phase == Phase::Write && !between {
        assert!(
            matches!(&error, Error::WriteInDoubt { range, .. } if range.end - range.start == LEN as u64),
            "{what}: {error:?}"
        );
    }
}
