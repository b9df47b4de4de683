//! Servers that are slow, fall silent in the middle of something, or do not listen while they talk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::server::{End, Habits, assert_no_tasks_left, content, open};
use crate::error::{Error, Phase};
use crate::{Mode, NfcOptions, Timeouts};

const PIPE: usize = 1 << 20;
/// Bytes that the server sends before it answers the first read.
const UNTIL_OPEN: usize = 3 * 264 + 32 + 28 + 20 + 76;
const FRAGMENT_HEAD: usize = 16 + 44;

fn stalls_after(bytes: usize) -> Habits {
    Habits { stall_after_sent: Some(bytes), ..Habits::default() }
}

#[tokio::test(start_paused = true)]
async fn server_of_a_byte_per_second_is_waited_for_as_long_as_the_limits_say() {
    let habits = Habits { per_byte: Duration::from_secs(1), ..Habits::default() };
    let (disk, ..) = open(habits, End::Fin, PIPE, Mode::ReadOnly, &NfcOptions::default()).await;
    assert!(matches!(disk, Err(Error::Timeout { phase: Phase::SessionStart, .. })), "{disk:?}");
    assert_no_tasks_left().await;

    let patient = NfcOptions::default().timeouts(Timeouts::all(Duration::from_secs(24 * 3600)));
    let (disk, ..) = open(habits, End::Fin, PIPE, Mode::ReadOnly, &patient).await;
    let disk = disk.unwrap();
    let start = Instant::now();
    assert_eq!(disk.read_at(512, 1024).await.unwrap(), content(512, 1024));
    assert_eq!(start.elapsed().as_secs(), 1024 + 2 * FRAGMENT_HEAD as u64);
    disk.close().await.unwrap();
    assert_no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn stall_in_the_middle_of_a_fragment_is_a_time_out_of_the_read() {
    for into_the_fragment in [0, 1, 15, 16, 59, 60, 61, 500] {
        let habits = stalls_after(UNTIL_OPEN + into_the_fragment);
        let (disk, tickets, _) = open(habits, End::Fin, PIPE, Mode::ReadOnly, &NfcOptions::default()).await;
        let disk = disk.unwrap();
        let start = Instant::now();
        let error = disk.read_at(0, 4096).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { phase: Phase::Read, .. }), "{into_the_fragment}: {error}");
        assert_eq!(start.elapsed().as_secs(), 60);
        assert_eq!(tickets.asked(), 0);
        assert_no_tasks_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn request_of_a_caller_that_is_gone_is_timed_for_those_who_wait_for_its_budget() {
    // Silent between two messages, and in the middle of one.
    for into_the_fragment in [0, 61] {
        let options = NfcOptions::default().buffers(64 * 1024, 1);
        let (disk, ..) =
            open(stalls_after(UNTIL_OPEN + into_the_fragment), End::Fin, PIPE, Mode::ReadOnly, &options).await;
        let disk = disk.unwrap();
        let start = Instant::now();
        let gone = tokio::time::timeout(Duration::from_secs(1), disk.read_at(0, 64 * 1024)).await;
        assert!(gone.is_err());
        let error = disk.read_at(0, 64 * 1024).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { phase: Phase::Read, .. }), "{error}");
        assert_eq!(start.elapsed().as_secs(), 60);
        assert_no_tasks_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn write_does_not_wait_for_ever_for_a_read_that_the_server_forgot() {
    let habits = Habits { forgets: Some(4096), ..Habits::default() };
    let (disk, ..) = open(habits, End::Fin, PIPE, Mode::ReadWrite, &NfcOptions::default()).await;
    let disk = Arc::new(disk.unwrap());
    let gone = tokio::time::timeout(Duration::from_secs(1), disk.read_at(4096, 512)).await;
    assert!(gone.is_err());
    // Others are served all the while, so the connection is not silent.
    let others = Arc::clone(&disk);
    let busy = tokio::spawn(async move {
        while others.read_at(0, 512).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
    let start = Instant::now();
    let error = disk.write_at(4096, Bytes::from(vec![1; 512])).await.unwrap_err();
    // Nothing of the write was sent: nothing is in doubt.
    assert!(matches!(error, Error::Timeout { phase: Phase::Read, .. }), "{error}");
    assert!(start.elapsed().as_secs() <= 60);
    busy.await.unwrap();
    assert_no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn slow_write_does_not_cost_the_reads_behind_it_their_connection() {
    // The reply to the write takes 60 bytes of 5 s: far longer than a read may take, but not too
    // long for a write.
    let habits = Habits { per_byte: Duration::from_millis(4500), ..Habits::default() };
    let mut options = NfcOptions::default().buffers(64 * 1024, 1).timeouts(Timeouts::all(Duration::from_secs(7200)));
    options.timeouts.read = Duration::from_secs(60);
    options.timeouts.write = Duration::from_secs(600);
    let (disk, ..) = open(habits, End::Fin, PIPE, Mode::ReadWrite, &options).await;
    let disk = disk.unwrap();
    let write = disk.write_at(0, Bytes::from(vec![1; 64 * 1024]));
    let read = async {
        // The whole budget is the write's.
        tokio::time::sleep(Duration::from_millis(1)).await;
        disk.read_at(1 << 20, 64 * 1024).await
    };
    let (written, read) = tokio::join!(write, read);
    written.unwrap();
    // At this pace no read of its own can succeed, but it was sent, and only then timed.
    assert!(matches!(read, Err(Error::Timeout { phase: Phase::Read, .. })), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn no_deadlock_when_both_sides_send_and_the_line_holds_next_to_nothing() {
    let options = NfcOptions::default().buffers(64 * 1024, 4);
    let (disk, ..) = open(Habits::default(), End::Fin, 64, Mode::ReadWrite, &options).await;
    let disk = Arc::new(disk.unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for at in 0..16u64 {
        let disk = Arc::clone(&disk);
        callers.spawn(async move {
            let offset = at * 256 * 1024;
            if at % 2 == 0 {
                disk.write_at(offset, Bytes::from(vec![1; 128 * 1024])).await.unwrap();
            } else {
                assert!(disk.read_at(offset, 128 * 1024).await.unwrap() == content(offset, 128 * 1024));
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(disk).unwrap().close().await.unwrap();
    assert_no_tasks_left().await;
}
