//! Random histories of a disk and its repository, beside a model.
//!
//! A guest writes, trims and grows; its tracking is reset; it is backed up, restored, pruned; garbage is collected; and
//! any of what works on the repository may meet a storage that fails at some operation, after which a backup goes on
//! where it was, or begins anew. After every step each point that is there gives the bytes that the disk had when its
//! snapshot was made, and no point is gone that was not pruned.

mod guest;
mod job;
mod op;
mod world;

use std::{sync::Mutex, time::Instant};

use proptest::{
    collection::vec,
    test_runner::{Config, TestRunner},
};

use self::{op::any_op, world::World};

#[test]
fn any_history_keeps_every_point() {
    histories(80);
}

#[test]
#[ignore = "minutes"]
fn any_of_ten_thousand_histories_keeps_every_point() {
    histories(10_000);
}

/// Runs so many histories, in as many threads as there are processors.
fn histories(cases: u32) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) as u32;
    let seen = Mutex::new(Seen::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| share(cases.div_ceil(threads), &seen));
        }
    });
    let seen = seen.into_inner().unwrap();
    eprintln!("{seen:?}");
    let common = [seen.full, seen.incremental, seen.broken, seen.restored, seen.pruned];
    let rare = [seen.resumed, seen.deleted];
    let all_seen = common.iter().all(|&count| count > 0) && (cases < 1000 || rare.iter().all(|&count| count > 0));
    assert!(all_seen, "a history without some of it tells little: {seen:?}");
}

fn share(cases: u32, seen: &Mutex<Seen>) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    TestRunner::new(config)
        .run(&vec(any_op(), 1..50), |history| {
            runtime.block_on(async {
                let mut world = World::new().await;
                for op in &history {
                    world.take(op).await;
                    if op.is_of_the_repository() {
                        world.prove(op).await;
                    }
                }
                world.end().await;
                let mut seen = seen.lock().unwrap();
                seen.add(&world.seen);
                if seen.histories.is_multiple_of(500) {
                    eprintln!("after {:?}: {seen:?}", begun.elapsed());
                }
            });
            Ok(())
        })
        .unwrap();
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    histories: u64,
    full: u64,
    incremental: u64,
    resumed: u64,
    broken: u64,
    restored: u64,
    pruned: u64,
    /// Packs.
    deleted: u64,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.histories += 1;
        self.full += other.full;
        self.incremental += other.incremental;
        self.resumed += other.resumed;
        self.broken += other.broken;
        self.restored += other.restored;
        self.pruned += other.pruned;
        self.deleted += other.deleted;
    }
}
