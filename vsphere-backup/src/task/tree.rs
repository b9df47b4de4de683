//! The tree itself: pure bookkeeping, with time as a parameter.

use std::{collections::BTreeMap, time::Duration};

use super::{Figures, Outcome, TaskChange, TaskEvent, TaskId, TaskKind, Total};

/// The tasks that run. Ended ones are folded into their parents and forgotten.
#[derive(Debug, Default)]
pub(super) struct Tree {
    next: u64,
    running: BTreeMap<TaskId, Node>,
}

#[derive(Debug)]
struct Node {
    parent: Option<TaskId>,
    /// What was told of itself.
    own: Figures,
    /// What tasks below it that ended had read and written.
    ended: Figures,
    rate: Rate,
}

/// A rate over the last seconds: a mean in which what is older weighs less.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    per_second: f64,
    /// The bytes that were counted, and when.
    at: Option<(Duration, u64)>,
}

impl Rate {
    fn note(&mut self, now: Duration, bytes: u64) -> u64 {
        let Some((then, before)) = self.at else {
            self.at = Some((now, bytes));
            return 0;
        };
        let passed = now.saturating_sub(then).as_secs_f64();
        if passed >= SAMPLE.as_secs_f64() {
            let new = bytes.saturating_sub(before) as f64 / passed;
            let weight = if self.per_second == 0.0 { 1.0 } else { 1.0 - (-passed / MEMORY.as_secs_f64()).exp() };
            self.per_second += (new - self.per_second) * weight;
            self.at = Some((now, bytes));
        }
        self.per_second as u64
    }
}

impl Tree {
    /// Begins a task. One whose parent has ended has none.
    pub(super) fn begin(&mut self, parent: Option<TaskId>, kind: TaskKind, told: &mut Vec<TaskEvent>) -> TaskId {
        let parent = parent.filter(|parent| self.running.contains_key(parent));
        self.next += 1;
        let task = TaskId(self.next);
        // Nothing of its own is to be read until that is told.
        let none = Figures { total: Total::Known(0), ..Default::default() };
        let node = Node { parent, own: none, ended: none, rate: Rate::default() };
        self.running.insert(task, node);
        told.push(TaskEvent { task, parent, change: TaskChange::Begun(kind) });
        task
    }

    /// Tells a state of a task that runs.
    pub(super) fn state(&self, task: TaskId, change: TaskChange, told: &mut Vec<TaskEvent>) {
        if let Some(node) = self.running.get(&task) {
            told.push(TaskEvent { task, parent: node.parent, change });
        }
    }

    /// Takes a task's own figures, and tells those of it and of all that it is part of.
    pub(super) fn progress(&mut self, task: TaskId, figures: Figures, now: Duration, told: &mut Vec<TaskEvent>) {
        let Some(node) = self.running.get_mut(&task) else { return };
        // What is told never goes back.
        node.own.read = node.own.read.max(figures.read);
        node.own.written = node.own.written.max(figures.written);
        node.own.total = figures.total;
        self.tell_up(Some(task), now, told);
    }

    fn tell_up(&mut self, from: Option<TaskId>, now: Duration, told: &mut Vec<TaskEvent>) {
        let mut next = from;
        while let Some(task) = next {
            let mut figures = self.sum(task);
            let Some(node) = self.running.get_mut(&task) else { return };
            figures.rate = node.rate.note(now, figures.read);
            told.push(TaskEvent { task, parent: node.parent, change: TaskChange::Progress(figures) });
            next = node.parent;
        }
    }

    /// Returns the figures of a task with all below it.
    fn sum(&self, task: TaskId) -> Figures {
        let Some(node) = self.running.get(&task) else { return Figures::default() };
        let below = self.running.iter().filter(|(_, below)| below.parent == Some(task));
        below.map(|(&child, _)| self.sum(child)).fold(plus(node.own, node.ended), plus)
    }

    /// Ends a task, and before it all that are part of it.
    pub(super) fn end(&mut self, task: TaskId, outcome: Outcome, now: Duration, told: &mut Vec<TaskEvent>) {
        if !self.running.contains_key(&task) {
            return;
        }
        let below: Vec<TaskId> =
            self.running.iter().filter(|(_, node)| node.parent == Some(task)).map(|(&child, _)| child).collect();
        for child in below {
            self.end(child, Outcome::Cancelled, now, told);
        }
        let Some(node) = self.running.remove(&task) else { return };
        told.push(TaskEvent { task, parent: node.parent, change: TaskChange::Ended(outcome) });
        if let Some(parent) = node.parent.and_then(|parent| self.running.get_mut(&parent)) {
            // What has ended reads no more: its total is what it read.
            let mut ended = plus(node.own, node.ended);
            ended.total = Total::Known(ended.read);
            parent.ended = plus(parent.ended, ended);
            if ended.read > 0 {
                self.tell_up(node.parent, now, told);
            }
        }
    }
}

fn plus(one: Figures, other: Figures) -> Figures {
    Figures {
        read: one.read.saturating_add(other.read),
        written: one.written.saturating_add(other.written),
        total: one.total.plus(other.total),
        rate: 0,
    }
}

/// Samples closer than this are too short for a rate.
const SAMPLE: Duration = Duration::from_millis(200);
/// After this long, a sample has lost two thirds of its weight.
const MEMORY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn kind() -> TaskKind {
        TaskKind::CleanUp
    }

    fn figures(read: u64, total: Total) -> Figures {
        Figures { read, total, ..Default::default() }
    }

    fn newest(told: &[TaskEvent], task: TaskId) -> Figures {
        let of = |event: &TaskEvent| match event.change {
            TaskChange::Progress(figures) if event.task == task => Some(figures),
            _ => None,
        };
        told.iter().rev().find_map(of).unwrap()
    }

    #[test]
    fn figures_add_up_and_say_how_sure_they_are() {
        let (mut tree, mut told) = (Tree::default(), Vec::new());
        let job = tree.begin(None, kind(), &mut told);
        let (one, other) = (tree.begin(Some(job), kind(), &mut told), tree.begin(Some(job), kind(), &mut told));
        let at = Duration::from_secs;
        tree.progress(one, figures(10, Total::Known(100)), at(1), &mut told);
        assert_eq!(newest(&told, job).total, Total::Known(100), "the other has said nothing yet");
        tree.progress(other, figures(5, Total::Estimated(50)), at(2), &mut told);
        assert_eq!(newest(&told, job), Figures { rate: 5, ..figures(15, Total::Estimated(150)) });
        tree.end(other, Outcome::Done, at(3), &mut told);
        assert_eq!(newest(&told, job).total, Total::Known(105), "what ended is known");
        tree.progress(one, figures(7, Total::Unknown), at(4), &mut told);
        assert_eq!((newest(&told, job).read, newest(&told, job).total), (15, Total::Unknown));
    }

    #[test]
    fn a_rate_follows_what_was_read_of_late() {
        let mut rate = Rate::default();
        assert_eq!(rate.note(Duration::ZERO, 0), 0);
        assert_eq!(rate.note(Duration::from_secs(1), 1000), 1000);
        assert_eq!(rate.note(Duration::from_millis(1001), 9000), 1000, "too short to count");
        for second in 2..60 {
            rate.note(Duration::from_secs(second), 1000 + 9000 * (second - 1));
        }
        assert!((8900..=9100).contains(&rate.note(Duration::from_secs(60), 1000 + 9000 * 59)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn tasks_begin_and_end_once_within_their_parents_and_never_go_back(
            steps in proptest::collection::vec((0u8..4, 0u64..12, 0u64..1000), 0..120)
        ) {
            let (mut tree, mut told) = (Tree::default(), Vec::new());
            for (at, (step, task, bytes)) in steps.into_iter().enumerate() {
                let (task, now) = (TaskId(task), Duration::from_millis(at as u64 * 90));
                match step {
                    0 | 1 => drop(tree.begin(Some(task), kind(), &mut told)),
                    2 => tree.progress(task, figures(bytes, Total::Unknown), now, &mut told),
                    _ => tree.end(task, Outcome::Done, now, &mut told),
                }
            }
            let mut running: BTreeMap<TaskId, Option<TaskId>> = BTreeMap::new();
            let (mut ever, mut read) = (BTreeSet::new(), BTreeMap::new());
            for event in told {
                match event.change {
                    TaskChange::Begun(_) => {
                        prop_assert!(ever.insert(event.task));
                        prop_assert!(event.parent.is_none_or(|parent| running.contains_key(&parent)));
                        running.insert(event.task, event.parent);
                    }
                    TaskChange::Ended(_) => {
                        prop_assert!(running.remove(&event.task).is_some());
                        prop_assert!(running.values().all(|parent| *parent != Some(event.task)));
                    }
                    TaskChange::Progress(figures) => {
                        prop_assert!(running.contains_key(&event.task));
                        let before = read.insert(event.task, figures.read).unwrap_or(0);
                        prop_assert!(figures.read >= before);
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(running.len(), tree.running.len());
        }
    }
}
