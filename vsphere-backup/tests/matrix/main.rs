//! The fault matrix: a failure at every step and at every operation of the storage, in all states of machine and
//! tracking; and the same flows in processes that the kernel ends there. `CONTRIBUTING.md` names the command that runs
//! all of it.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod case;
#[path = "../it/login.rs"]
mod login;
mod panics;
mod process;
mod run;
mod scene;
mod trip;
#[allow(dead_code)] // Shared with the other tests, which need all of it.
#[path = "../it/world.rs"]
mod world;

use std::time::Duration;

use crate::{
    case::{Chance, Runner, groups, groups_of_processes},
    run::{Share, Tally},
};

/// A share of the matrix that is small enough for every run, another one each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_the_fault_matrix() {
    let seed = std::env::var("FAULT_MATRIX_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut chance = Chance::new(seed.unwrap_or_else(|| std::process::id().into()));
    println!("FAULT_MATRIX_SEED={}", chance.seed());
    let (mut groups, mut of_processes) = (groups(), groups_of_processes());
    chance.shuffle(&mut groups);
    chance.shuffle(&mut of_processes);
    let limit = Duration::from_secs(8);
    let two = groups.chunks(groups.len() / 2).take(2);
    let mut share = |runner, groups: &[_], each| Share {
        runner,
        groups: groups.to_vec(),
        limit: Some((limit, each, chance.next())),
    };
    let mut shares: Vec<_> = two.map(|half| share(Runner::Runtime, half, 8)).collect();
    shares.push(share(Runner::Process, &of_processes, 2));
    Tally::of(shares).await.report(8, 1);
}

/// All of it, in as many tasks as the machine has processors; `FAULT_MATRIX_ONLY` names groups by a part of their name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes"]
async fn full_fault_matrix() {
    let only = std::env::var("FAULT_MATRIX_ONLY").unwrap_or_default();
    let tasks = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get) * 2;
    let mut shares = Vec::new();
    for (runner, groups) in [(Runner::Runtime, groups()), (Runner::Process, groups_of_processes())] {
        let groups: Vec<_> =
            groups.into_iter().filter(|group| format!("{runner:?}, {group:?}").contains(&only)).collect();
        for task in 0..tasks {
            let groups = groups.iter().copied().skip(task).step_by(tasks).collect();
            shares.push(Share { runner, groups, limit: None });
        }
    }
    Tally::of(shares).await.report(1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the others run it in processes of their own"]
async fn process_to_be_killed() {
    process::work().await;
}
