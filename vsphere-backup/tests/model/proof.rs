//! What has to hold: every point gives the model's bytes, and the server is as it was.

use std::{fmt::Debug, time::Duration};

use vsphere_backup::{
    CancelToken,
    journal::Journal,
    repository::{GcOptions, VerifyLevel},
};

use vsphere_sim::Leftovers;

use crate::{
    history::{History, Seen},
    op::{Base, Belief, Plan, Way},
};

impl History {
    /// Every point is there and gives its bytes, whoever reads.
    pub(crate) async fn prove(&mut self, op: &impl Debug) {
        let repository = self.repository().await;
        let there = repository.points(&self.id()).await.unwrap();
        for id in &there {
            let expected = self.points.get(id).unwrap_or_else(|| panic!("{id} came from nothing by {op:?}"));
            let point = repository.point(id).await.unwrap();
            let keys = point.manifest().disks.iter().map(|disk| disk.key);
            assert!(keys.eq(expected.keys().copied()), "{id} has other disks after {op:?}");
            for (key, image) in expected {
                let disk = point.disk(*key).await.unwrap();
                assert_eq!(disk.capacity(), image.bytes.len() as u64);
                let bytes = disk.read_at(0, image.bytes.len()).await.unwrap();
                assert!(bytes == *image.bytes, "disk {key} of {id} has other bytes after {op:?}");
                self.seen.proved += 1;
            }
        }
        for id in self.points.keys() {
            assert!(there.contains(id) || self.doomed.contains(id), "{id} is gone after {op:?}");
        }
        self.points.retain(|id, _| there.contains(id));
        for (key, image) in self.machine.disks() {
            assert!(self.machine.content("web", key) == *image.bytes, "disk {key} was changed by {op:?}");
        }
    }

    /// A last backup and a last restore succeed, the repository is sound, and no lease stays.
    pub(crate) async fn end(mut self) -> Seen {
        let plan = Plan {
            base: Base::Latest,
            belief: Belief::All,
            resumes: true,
            enables_tracking: false,
            excluded: None,
            stop: None,
            meanwhile: Vec::new(),
        };
        self.back_up(&plan).await;
        let newest = self.points.keys().next_back().unwrap().clone();
        self.restore(newest, Way::OnlyDifferences, None).await;
        let report = self.repository().await.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        let options = GcOptions::default().clock(self.clock.clone());
        for _ in 0..4 {
            self.hand.advance(Duration::from_secs(25 * 3600));
            // A collector that was cut short is seen once, and dead a day later.
            let _ = self.repository().await.collect_garbage(&options).await;
        }
        let leases: Vec<_> = self.storage.keys().into_iter().filter(|key| key.is_below("leases")).collect();
        assert!(leases.is_empty(), "{leases:?}");
        self.prove(&"the end").await;
        self.seen
    }

    /// Nothing of this crate's is left on the server, and no journal. Layers may wait to be merged where they did before
    /// and nobody was to merge them.
    pub(crate) async fn assert_clean(&self, may_wait: bool) {
        assert_eq!(Journal::leftovers(&self.journals()).unwrap(), []);
        let ours = |mut left: Leftovers| {
            left.snapshots.retain(|name| !name.starts_with("web/mine-"));
            if may_wait {
                left.unconsolidated.clear();
            }
            // Sessions and tickets of those that were killed end by their time, with what was in them.
            (left.sessions, left.session_objects, left.tickets) = (0, 0, 0);
            left
        };
        let left = self.machine.sim.settled_in(Duration::from_secs(3), ours).await;
        assert!(left.is_clean(), "left on the server: {left}");
    }

    /// Waits until the server has seen that a client is gone.
    pub(crate) async fn settle(&self) {
        let at_work = |left: Leftovers| {
            let mut at_work = Leftovers::default();
            (at_work.nfc_connections, at_work.open_layers) = (left.nfc_connections, left.open_layers);
            at_work.tasks = left.tasks;
            at_work
        };
        let left = self.machine.sim.settled_in(Duration::from_secs(3), at_work).await;
        assert!(left.is_clean(), "left on the server: {left}");
    }
}
