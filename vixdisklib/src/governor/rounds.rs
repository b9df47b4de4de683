//! Deficit round robin: lanes take turns, and what a turn is worth is counted in bytes.
//!
//! Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin", SIGCOMM 1995: each lane that has work
//! earns a quantum in every round and spends it on its first requests; what it cannot spend it keeps for the next
//! round. However many and large the requests of a lane are, no lane gets more than its share by more than a quantum and
//! a request.

use std::collections::{HashMap, VecDeque};

/// Lanes with requests of type `T` in them.
#[derive(Debug)]
pub(super) struct Rounds<T> {
    quantum: u64,
    lanes: HashMap<u64, Queue<T>>,
    /// The lanes that have requests, the one whose turn it is first.
    order: VecDeque<u64>,
}

#[derive(Debug)]
struct Queue<T> {
    credit: u64,
    requests: VecDeque<(u64, T)>,
}

impl<T> Rounds<T> {
    pub(super) fn new(quantum: u64) -> Self {
        Self { quantum: quantum.max(1), lanes: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.requests.len()).sum()
    }

    pub(super) fn push(&mut self, lane: u64, bytes: u64, request: T) {
        let queue = self.lanes.entry(lane).or_insert_with(|| {
            self.order.push_back(lane);
            Queue { credit: 0, requests: VecDeque::new() }
        });
        queue.requests.push_back((bytes, request));
    }

    /// Finds whose turn it is among the lanes whose first request is `eligible`; the bytes and the request. The answer
    /// stays the same until [`pop`](Self::pop) or until who is eligible changes.
    pub(super) fn next(&mut self, mut eligible: impl FnMut(&T) -> bool) -> Option<(u64, &T)> {
        let mut passed_over = 0;
        while passed_over < self.order.len() {
            let lane = *self.order.front()?;
            let queue = self.lanes.get_mut(&lane)?;
            let (bytes, request) = queue.requests.front()?;
            if !eligible(request) {
                passed_over += 1;
            } else if queue.credit >= *bytes {
                break;
            } else {
                passed_over = 0;
                queue.credit = queue.credit.saturating_add(self.quantum);
                if queue.credit >= *bytes {
                    break;
                }
            }
            self.order.rotate_left(1);
        }
        if passed_over == self.order.len() {
            return None;
        }
        let (bytes, request) = self.lanes.get(self.order.front()?)?.requests.front()?;
        Some((*bytes, request))
    }

    /// Takes the request that [`next`](Self::next) found.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let lane = *self.order.front()?;
        let queue = self.lanes.get_mut(&lane)?;
        let (bytes, request) = queue.requests.pop_front()?;
        queue.credit = queue.credit.saturating_sub(bytes);
        match queue.requests.front() {
            // Its credit does not do for more: the next lane's turn.
            Some((bytes, _)) if queue.credit < *bytes => self.order.rotate_left(1),
            Some(_) => {}
            None => self.forget(lane),
        }
        Some((bytes, request))
    }

    /// Takes the first request that `is` says yes to out of a lane.
    pub(super) fn remove(&mut self, lane: u64, is: impl Fn(&T) -> bool) -> Option<T> {
        let queue = self.lanes.get_mut(&lane)?;
        let at = queue.requests.iter().position(|(_, request)| is(request))?;
        let (_, request) = queue.requests.remove(at)?;
        if queue.requests.is_empty() {
            self.forget(lane);
        }
        Some(request)
    }

    /// Who has nothing to send saves nothing up.
    fn forget(&mut self, lane: u64) {
        self.lanes.remove(&lane);
        self.order.retain(|other| *other != lane);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn served(rounds: &mut Rounds<u64>) -> Option<(u64, u64)> {
        rounds.next(|_| true)?;
        let (bytes, lane) = rounds.pop()?;
        Some((lane, bytes))
    }

    #[test]
    fn one_request_is_not_starved_by_sixty_four() {
        let mut rounds = Rounds::new(100);
        (0..64).for_each(|_| rounds.push(1, 100, 1));
        served(&mut rounds);
        rounds.push(2, 100, 2);
        let order: Vec<u64> = std::iter::from_fn(|| served(&mut rounds)).map(|(lane, _)| lane).take(2).collect();
        assert!(order.contains(&2), "{order:?}");
    }

    #[test]
    fn small_and_large_requests_share_by_bytes() {
        let mut rounds = Rounds::new(1000);
        (0..100).for_each(|_| rounds.push(1, 4000, 1));
        (0..1000).for_each(|_| rounds.push(2, 100, 2));
        let mut bytes = [0, 0];
        for _ in 0..300 {
            let (lane, cost) = served(&mut rounds).unwrap();
            bytes[lane as usize - 1] += cost;
        }
        assert!(bytes[0].abs_diff(bytes[1]) <= 5000, "{bytes:?}");
    }

    #[test]
    fn lanes_that_may_not_are_passed_over_and_keep_their_requests() {
        let mut rounds = Rounds::new(10);
        rounds.push(1, 50, 1);
        rounds.push(2, 50, 2);
        assert_eq!(rounds.next(|lane| *lane == 2), Some((50, &2)));
        assert_eq!(rounds.pop(), Some((50, 2)));
        assert_eq!(rounds.next(|lane| *lane == 2), None);
        assert_eq!(rounds.len(), 1);
        assert_eq!(rounds.remove(1, |_| true), Some(1));
        assert_eq!(rounds.next(|_| true), None);
    }

    proptest! {
        /// While two lanes both have requests, what they got never differs by more than a quantum and a request each.
        #[test]
        fn shares_differ_by_less_than_a_quantum_and_a_request(
            requests in prop::collection::vec((0..4_u64, 1..5000_u64), 1..200),
            quantum in 1..3000_u64,
        ) {
            let mut rounds = Rounds::new(quantum);
            let mut waiting = [0_usize; 4];
            for (lane, bytes) in &requests {
                rounds.push(*lane, *bytes, *lane);
                waiting[*lane as usize] += 1;
            }
            let mut got = [0_u64; 4];
            let mut all = 0;
            while let Some((lane, bytes)) = served(&mut rounds) {
                let busy: Vec<usize> = (0..4).filter(|at| waiting[*at] > 0).collect();
                got[lane as usize] += bytes;
                waiting[lane as usize] -= 1;
                all += 1;
                if requests.iter().map(|(lane, _)| *lane).collect::<std::collections::HashSet<_>>().len() == busy.len() {
                    for a in &busy {
                        for b in &busy {
                            prop_assert!(got[*a].abs_diff(got[*b]) <= 2 * (quantum + 5000), "{:?}", got);
                        }
                    }
                }
            }
            prop_assert_eq!(all, requests.len(), "everyone is served");
            prop_assert_eq!(rounds.len(), 0);
        }
    }
}
