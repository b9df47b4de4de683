//! Random histories of a machine on a server, its backups and its restores, beside a model that knows every byte.
//!
//! Each history has a seed of its own, which a failure prints; `MODEL_SEED` runs that one again.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod history;
#[path = "../it/login.rs"]
mod login;
mod machine;
mod op;
mod proof;
#[allow(dead_code)] // Shared with the other tests, which need all of it.
mod watch;
#[allow(dead_code)]
#[path = "../it/world.rs"]
mod world;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    history::{History, Seen},
    op::any_op,
};

/// As many histories as five seconds have, others each time.
#[test]
fn any_history_of_a_machine_is_restored_byte_for_byte() {
    let begun = Instant::now();
    let seen = histories(u64::from(std::process::id()) << 20, |_| begun.elapsed() < Duration::from_secs(5));
    assert!(seen.points > 0 && seen.proved > 0, "{seen:?}");
}

#[test]
#[ignore = "many minutes"]
fn a_thousand_histories_of_a_machine_are_restored_byte_for_byte() {
    let begun = Instant::now();
    let seen = histories(u64::from(std::process::id()) << 20, |done| {
        if done % 50 == 0 {
            println!("{done} histories after {:?}", begun.elapsed());
        }
        done < 1000
    });
    assert!(seen.is_everything(), "a history without some of it tells little: {seen:?}");
}

/// Runs histories of seeds that follow each other, for as long as told.
fn histories(first: u64, mut goes_on: impl FnMut(u64) -> bool) -> Seen {
    let wanted: Option<u64> = std::env::var("MODEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = wanted.unwrap_or(first);
    println!("MODEL_SEED={first} is the first");
    let (seen, mut done) = (Mutex::new(Seen::default()), 0);
    while if wanted.is_some() { done < 1 } else { goes_on(done) } {
        history(&runtime, first + done, &seen);
        done += 1;
    }
    let seen = seen.into_inner().unwrap();
    println!("model: {done} histories, {seen:?}");
    seen
}

fn history(runtime: &tokio::runtime::Runtime, seed: u64, seen: &Mutex<Seen>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 150, ..Config::default() };
    let done = TestRunner::new_with_rng(config, rng).run(&vec(any_op(), 5..60), |ops| {
        runtime.block_on(async {
            let mut history = History::new().await;
            for op in &ops {
                history.take(op).await;
            }
            let done = history.end().await;
            seen.lock().unwrap().add(done);
        });
        Ok(())
    });
    if let Err(failure) = done {
        panic!("MODEL_SEED={seed}: {failure}");
    }
}
