use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::poll;

use super::*;
use crate::{
    Clock, ClockHand,
    repository::{
        Consistency, GcOptions, GcReport, PointWriter, RecoveryPoint, Repository, VmRecord,
        storage::{Fault, Faulty, MemoryStorage, Storage, Timer},
    },
};

struct World {
    storage: Arc<MemoryStorage>,
    repository: Repository,
    clock: Clock,
    hand: ClockHand,
}

impl World {
    async fn new() -> Self {
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
        let repository = Repository::create(storage.clone(), Default::default()).await.unwrap();
        Self { storage, repository, clock, hand }
    }

    async fn writer(&self) -> PointWriter {
        let vm = VmId::parse("vm-1").unwrap();
        let record = VmRecord { instance_uuid: vm, mo_ref: String::new(), name: String::new() };
        self.repository.begin(record, Consistency::Crash, Default::default()).await.unwrap()
    }

    async fn point(&self) -> RecoveryPoint {
        self.writer().await.commit().await.unwrap().0
    }

    async fn restore(&self, point: &PointId, disk: i32) {
        self.repository.note_restore(point, [disk].into()).await.unwrap();
    }

    async fn restored_since(&self, point: &RecoveryPoint) -> Vec<i32> {
        self.repository.marked_since(point.id()).await.unwrap().restored.into_iter().collect()
    }

    fn options(&self) -> GcOptions {
        GcOptions::default().clock(self.clock.clone())
    }

    fn marks(&self) -> usize {
        self.storage.keys().iter().filter(|key| key.is_below("restored")).count()
    }

    /// Collects garbage a day later; returns how many marks went and how many stay.
    async fn collect(&self) -> (u64, usize) {
        self.hand.advance(DAY);
        let dry = self.repository.collect_garbage(&self.options().dry_run(true)).await.unwrap();
        let report = self.repository.collect_garbage(&self.options()).await.unwrap();
        assert_eq!(dry.marks, report.marks);
        (report.marks, self.marks())
    }

    async fn collect_through(&self, storage: Arc<dyn Storage>) -> Result<GcReport> {
        Repository::open(storage).await?.collect_garbage(&self.options()).await
    }
}

#[tokio::test]
async fn a_mark_goes_with_the_last_point_before_it() {
    let world = World::new().await;
    let first = world.point().await;
    world.restore(first.id(), 2000).await;
    let second = world.point().await;
    world.repository.note_distrust(second.id(), 2001, "a change was missed").await.unwrap();
    assert_eq!(world.collect().await, (0, 2));
    first.delete().await.unwrap();
    assert_eq!(world.collect().await, (1, 1));
    assert!(world.repository.marked_since(second.id()).await.unwrap().distrusted.contains_key(&2001));
    second.delete().await.unwrap();
    let third = world.point().await;
    world.restore(third.id(), 2002).await;
    assert_eq!(world.collect().await, (1, 1));
    assert_eq!(world.restored_since(&third).await, [2002]);
}

#[tokio::test]
async fn a_young_mark_stays_whatever_else() {
    let world = World::new().await;
    let point = world.point().await;
    world.restore(point.id(), 2000).await;
    point.delete().await.unwrap();
    let report = world.repository.collect_garbage(&world.options()).await.unwrap();
    assert_eq!((report.marks, world.marks()), (0, 1));
    assert_eq!(world.collect().await, (1, 0));
}

#[tokio::test]
async fn a_backup_that_took_its_name_before_the_mark_keeps_it_while_it_runs_and_with_its_point() {
    let world = World::new().await;
    let base = world.point().await;
    let writer = world.writer().await;
    world.restore(base.id(), 2001).await;
    base.delete().await.unwrap();
    assert_eq!(world.collect().await, (0, 1));
    let point = writer.commit().await.unwrap().0;
    assert_eq!(world.restored_since(&point).await, [2001]);
    assert_eq!(world.collect().await, (0, 1));
    assert_eq!(world.restored_since(&point).await, [2001]);
}

#[tokio::test]
async fn a_writer_that_is_killed_keeps_marks_until_it_is_fenced() {
    let world = World::new().await;
    let base = world.point().await;
    let id = base.id().clone();
    let writer = world.writer().await;
    world.restore(&id, 2000).await;
    base.delete().await.unwrap();
    // Killed: it neither renews its lease nor gives it back.
    std::mem::forget(writer);
    world.hand.advance(DAY);
    let seen = world.repository.collect_garbage(&world.options()).await.unwrap();
    assert_eq!((seen.fenced.len(), seen.marks), (0, 0));
    world.hand.advance(DAY);
    let fenced = world.repository.collect_garbage(&world.options()).await.unwrap();
    assert_eq!((fenced.fenced.len(), fenced.marks), (1, 1));
}

#[tokio::test]
async fn a_collection_that_is_cut_anywhere_takes_no_mark_that_counts_and_the_next_one_ends_it() {
    for fault in [Fault::Error, Fault::LostAnswer, Fault::Cut, Fault::CutAfter] {
        for at in 0.. {
            let world = World::new().await;
            let gone = world.point().await;
            for disk in 2000..2003 {
                world.restore(gone.id(), disk).await;
            }
            gone.delete().await.unwrap();
            let stays = world.point().await;
            world.restore(stays.id(), 2003).await;
            world.hand.advance(DAY);
            let faulty = Arc::new(Faulty::new(world.storage.clone(), at, fault));
            let done = world.collect_through(faulty.clone()).await;
            let what = format!("{fault:?} at {at}");
            assert_eq!(world.restored_since(&stays).await, [2003], "{what}");
            // Seen once, then dead: the lease of the one that was cut.
            for _ in 0..2 {
                world.hand.advance(DAY);
                let _ = world.repository.collect_garbage(&world.options()).await;
            }
            assert_eq!((world.collect().await, world.restored_since(&stays).await), ((0, 1), vec![2003]), "{what}");
            if faulty.operations() <= at {
                assert!(at > 20 && done.is_ok(), "{at}: {done:?}");
                break;
            }
        }
    }
}

/// At every operation of a collection a backup ends that was begun before a restore, or one begins, or the machine is
/// restored again: whatever was restored after a point is known as long as the point is there.
#[tokio::test]
async fn a_collection_takes_no_mark_from_who_works_beside_it() {
    for at in 0.. {
        let world = World::new().await;
        let base = world.point().await;
        let slow = world.writer().await;
        world.restore(base.id(), 2000).await;
        let id = base.id().clone();
        base.delete().await.unwrap();
        world.hand.advance(DAY);
        let fault = Fault::Slow(Duration::from_secs(1));
        let faulty = Arc::new(Faulty::new(world.storage.clone(), at, fault).timer(&Timer::by_hand()));
        let mut collector = pin!(world.collect_through(faulty.clone()));
        let mut done = None;
        // It stands before its operation, which waits, when that was counted.
        while done.is_none() && faulty.operations() <= at {
            if let Poll::Ready(ended) = poll!(&mut collector) {
                done = Some(ended);
            }
            tokio::task::yield_now().await;
        }
        let before = slow.commit().await.unwrap().0;
        let after = world.point().await;
        world.restore(&id, 2001).await;
        let last = world.point().await;
        let reached = done.is_none();
        match done {
            Some(ended) => ended,
            None => collector.await,
        }
        .unwrap();
        for (point, expected) in [(&before, &[2000, 2001][..]), (&after, &[2001]), (&last, &[])] {
            assert_eq!(world.restored_since(point).await, expected, "at {at}");
        }
        before.delete().await.unwrap();
        assert_eq!(world.collect().await, (1, 1), "at {at}");
        assert_eq!(world.restored_since(&after).await, [2001], "at {at}");
        if !reached {
            assert!(at > 20, "{at}");
            break;
        }
    }
}

const DAY: Duration = Duration::from_secs(25 * 3600);
