//! What callers are told when a request fails in company, and what a server says at the wrong time.

use std::time::Duration;

use bytes::Bytes;

use super::server::{CAPACITY, CHUNK, End, Habits, assert_no_tasks_left, content, open};
use crate::error::{Error, Phase};
use crate::{Mode, NfcOptions};

const PIPE: usize = 1 << 20;

fn small_buffers() -> NfcOptions {
    NfcOptions::default().buffers(64 * 1024, 4)
}

#[tokio::test(start_paused = true)]
async fn long_read_reports_the_error_of_whichever_of_its_parts_failed() {
    // The first part, one in the middle, and one that waits for budget while others are in flight.
    for bad_sector in [0, 128 * 1024, 960 * 1024] {
        let habits = Habits { bad_sector: Some(bad_sector), ..Habits::default() };
        let (disk, tickets, _) = open(habits, End::Fin, PIPE, Mode::ReadOnly, &small_buffers()).await;
        let error = disk.unwrap().read_at(0, 1 << 20).await.unwrap_err();
        assert!(matches!(&error, Error::Server { fault, .. } if fault.code == Some(42)), "{bad_sector}: {error:?}");
        // Reading again would not help.
        assert_eq!(tickets.asked(), 0);
        assert_no_tasks_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn reply_to_a_write_whose_data_is_not_sent_is_no_success() {
    let habits = Habits { confirms_early: true, ..Habits::default() };
    // The line holds less than the data: the server cannot have it all.
    let (disk, ..) = open(habits, End::Fin, 4096, Mode::ReadWrite, &small_buffers()).await;
    let error = disk.unwrap().write_at(512, Bytes::from(vec![1; 64 * 1024])).await.unwrap_err();
    let Error::WriteInDoubt { range, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*range, 512..512 + 64 * 1024);
    assert!(matches!(**source, Error::Protocol { phase: Phase::Write, .. }), "{source:?}");
    assert_no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn server_that_hangs_up_without_reading_is_quoted_and_not_the_broken_pipe() {
    let habits = Habits { bad_sector: Some(0), ..Habits::default() };
    let (disk, ..) = open(habits, End::Fin, 4096, Mode::ReadWrite, &small_buffers()).await;
    let disk = disk.unwrap();
    // The read's error is on its way while the write is being sent.
    let (read, write) = tokio::join!(disk.read_at(0, 512), disk.write_at(1 << 20, Bytes::from(vec![1; 256 * 1024])));
    assert!(matches!(read, Err(Error::Server { .. })), "{read:?}");
    let error = write.unwrap_err();
    let Error::WriteInDoubt { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("medium error"), "{source}");
}

#[tokio::test(start_paused = true)]
async fn cancelled_writes_keep_their_range_and_their_budget_until_the_reply() {
    let (disk, ..) = open(Habits::default(), End::Fin, 64, Mode::ReadWrite, &small_buffers()).await;
    let disk = disk.unwrap();
    for round in 0..20u64 {
        let write = disk.write_at(0, Bytes::from(vec![1; 256 * 1024]));
        tokio::select! {
            biased;
            done = write => done.unwrap(),
            () = async { for _ in 0..round * 50 { tokio::task::yield_now().await } } => {}
        }
        let at = 1 << 20;
        assert!(disk.read_at(at, 256 * 1024).await.unwrap() == content(at, 256 * 1024), "{round}");
        disk.write_at(0, Bytes::from(vec![2; 512])).await.unwrap();
    }
    disk.close().await.unwrap();
    assert_no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn disk_that_is_dropped_while_it_is_kept_alive_leaves_nothing() {
    // The sign of life is on its way, and its answer never comes.
    let habits = Habits { forgets: Some(0), ..Habits::default() };
    let options = NfcOptions::default().keep_alive(Duration::from_secs(1));
    let (disk, ..) = open(habits, End::Fin, PIPE, Mode::ReadOnly, &options).await;
    let disk = disk.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(disk);
    assert_no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn allocation_is_not_told_when_the_disk_was_written_to_in_the_meantime() {
    let mut options = small_buffers();
    options.allocation_page = 1;
    let (disk, ..) = open(Habits::default(), End::Fin, PIPE, Mode::ReadWrite, &options).await;
    let disk = disk.unwrap();
    // A thousand pages: the write is over long before the last of them.
    let (map, write) =
        tokio::join!(disk.query_allocated(0..CAPACITY, CHUNK), disk.write_at(CHUNK, Bytes::from(vec![1; 512])));
    write.unwrap();
    assert!(matches!(map, Err(Error::InvalidRequest { .. })), "{map:?}");
}

#[tokio::test(start_paused = true)]
async fn disk_is_closed_only_when_what_was_asked_for_has_been_answered() {
    for mode in [Mode::ReadOnly, Mode::ReadWrite] {
        let habits = Habits { defers: Some(4096), ..Habits::default() };
        let (disk, ..) = open(habits, End::Fin, PIPE, mode, &small_buffers()).await;
        let disk = disk.unwrap();
        let gone = tokio::time::timeout(Duration::from_millis(10), disk.read_at(4096, 512)).await;
        assert!(gone.is_err());
        disk.close().await.unwrap();
        assert_no_tasks_left().await;
    }
}
