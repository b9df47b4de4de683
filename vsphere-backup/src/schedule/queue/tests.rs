use proptest::prelude::*;

use super::*;

fn datastore(name: u8) -> Resource {
    Resource::Datastore(name.to_string().into())
}

fn limits(machines: u32, per_datastore: u32) -> ScheduleLimits {
    ScheduleLimits::default().machines(machines).per_datastore(per_datastore)
}

fn started(queue: &mut Queue) -> Vec<Ticket> {
    std::iter::from_fn(|| queue.start()).collect()
}

#[test]
fn each_limit_is_kept_and_what_is_free_is_used() {
    let host = |name: &str| Resource::Host(name.into());
    let vcenter = |name: &str| Resource::VCenter(name.into());
    // Limits, what each of six needs, how many begin.
    let many = ScheduleLimits::default().machines(99).per_host(99).per_datastore(99).per_vcenter(99);
    let table: [(ScheduleLimits, [Vec<Resource>; 6], usize); 4] = [
        (many.machines(5), std::array::from_fn(|_| vec![]), 5),
        (many.per_host(2), std::array::from_fn(|at| vec![host(["a", "b"][at % 2])]), 4),
        (many.per_vcenter(1), std::array::from_fn(|at| vec![vcenter(["a", "b", "c"][at % 3])]), 3),
        (many.per_datastore(1), std::array::from_fn(|at| vec![datastore(at as u8), datastore(at as u8 + 1)]), 3),
    ];
    for (limits, needs, begin) in table {
        let mut queue = Queue::new(limits);
        for needs in needs {
            queue.push(1, needs);
        }
        assert_eq!(started(&mut queue).len(), begin, "{limits:?}");
    }
}

#[test]
fn jobs_take_turns_however_many_machines_they_have() {
    let mut queue = Queue::new(limits(1, 9));
    let first: Vec<_> = (0..10).map(|_| queue.push(1, [])).collect();
    let second: Vec<_> = (0..3).map(|_| queue.push(2, [])).collect();
    let mut order = Vec::new();
    while let Some(ticket) = queue.start() {
        order.push(ticket);
        queue.end(ticket);
    }
    let expected = [first[0], second[0], first[1], second[1], first[2], second[2], first[3]];
    assert_eq!(order[..7], expected);
    assert_eq!(order.len(), 13);
}

#[test]
fn one_that_needs_much_is_not_starved_by_many_that_need_little() {
    let mut queue = Queue::new(limits(9, 1));
    let mut running = [queue.push(1, [datastore(1)]), queue.push(1, [datastore(2)])];
    assert_eq!(started(&mut queue), running);
    let large = queue.push(1, [datastore(1), datastore(2)]);
    // There is always a small one waiting for either, and the two never end at once.
    for round in 0.. {
        assert!(round < 2 * PATIENCE, "starved");
        let at = (round % 2) as usize;
        queue.push(2, [datastore(at as u8 + 1)]);
        queue.end(running[at]);
        match started(&mut queue)[..] {
            [ticket] if ticket == large => break,
            [ticket] => running[at] = ticket,
            [] => {}
            _ => panic!("more than one"),
        }
    }
}

#[test]
fn a_held_datastore_keeps_nobody_from_the_others() {
    let mut queue = Queue::new(limits(9, 1));
    queue.hold(datastore(1), true);
    let held = queue.push(1, [datastore(1), datastore(2)]);
    for _ in 0..3 * PATIENCE {
        let other = queue.push(1, [datastore(2)]);
        assert_eq!(started(&mut queue), [other]);
        queue.end(other);
    }
    queue.hold(datastore(1), false);
    assert_eq!(started(&mut queue), [held]);
    queue.set_closed(true);
    queue.push(1, []);
    assert_eq!(started(&mut queue), []);
}

#[test]
fn one_that_waits_for_a_datastore_keeps_nobody_from_the_others() {
    let mut queue = Queue::new(limits(3, 1));
    let long = queue.push(1, [datastore(1)]);
    assert_eq!(started(&mut queue), [long]);
    let large = queue.push(1, [datastore(1), datastore(2)]);
    // However long it takes: datastores 3 and up are in use all the time, and 2 is kept when patience ends.
    let mut on_2 = 0;
    for round in 0..4 * PATIENCE {
        let other = queue.push(1, [datastore(3)]);
        let same = queue.push(1, [datastore(2)]);
        let now = started(&mut queue);
        assert!(now.contains(&other) && !now.contains(&large), "round {round}");
        on_2 += u32::from(now.contains(&same));
        queue.end(other);
        queue.end(same);
    }
    assert_eq!(on_2, PATIENCE);
    queue.end(long);
    assert_eq!(started(&mut queue), [large]);
}

/// One machine, or up to three that belong together, with the datastores of each.
fn set(stores: std::ops::Range<usize>) -> impl Strategy<Value = Vec<BTreeSet<u8>>> {
    proptest::collection::vec(proptest::collection::btree_set(0u8..4, stores), 1..4)
}

fn of(machines: Vec<BTreeSet<u8>>) -> Vec<Vec<Resource>> {
    machines.into_iter().map(|stores| stores.into_iter().map(datastore).collect()).collect()
}

#[test]
fn machines_of_a_set_begin_at_once_and_a_set_beyond_a_limit_alone() {
    let mut queue = Queue::new(limits(9, 2));
    let set = |count: usize| vec![[datastore(1)]; count];
    let single = queue.push(1, [datastore(1)]);
    let pair = queue.push_all(1, set(2));
    let many = queue.push_all(1, set(5));
    let last = queue.push(1, [datastore(2)]);
    assert_eq!(started(&mut queue), [single, last], "one place is not enough for two");
    queue.end(single);
    assert_eq!(started(&mut queue), [pair]);
    assert_eq!(queue.counts(), (3, 5));
    queue.end(pair);
    assert_eq!(started(&mut queue), [many]);
    let next = queue.push(1, [datastore(1)]);
    assert_eq!((started(&mut queue), queue.exceeded(many)), (vec![], None), "of snapshots there are five at once");
    queue.end(many);
    assert_eq!(started(&mut queue), [next]);
    queue.end(last);
    queue.end(next);
    let large = queue.push_all(1, vec![[]; 12]);
    assert_eq!((started(&mut queue), queue.exceeded(large)), (vec![large], Some(9)));
}

proptest! {
    #[test]
    fn whoever_waits_begins_although_others_never_stop_coming(
        machines in 1u32..5, per_datastore in 1u32..3, jobs in 1u64..4,
        victim in set(0..4),
        others in proptest::collection::vec((0u64..4, set(0..3)), 1..20)
    ) {
        let mut queue = Queue::new(limits(machines, per_datastore));
        let mut others = others.into_iter().cycle();
        let mut other = |queue: &mut Queue| {
            let (job, stores) = others.next().expect("a cycle has no end");
            queue.push_all(job % jobs, of(stores));
        };
        (0..20).for_each(|_| other(&mut queue));
        let mut running: std::collections::VecDeque<_> = started(&mut queue).into();
        let victim = queue.push_all(0, of(victim));
        let mut rounds = 0;
        while !running.contains(&victim) {
            prop_assert!(rounds < 1000, "starved");
            rounds += 1;
            // Whoever runs ends some time; two come for one that goes.
            queue.end(running.pop_front().expect("somebody runs"));
            other(&mut queue);
            other(&mut queue);
            running.extend(started(&mut queue));
        }
    }

    #[test]
    fn limits_hold_nothing_free_is_idle_and_all_begin(
        machines in 1u32..5, per_datastore in 1u32..3,
        steps in proptest::collection::vec((0u8..3, 0u64..3, set(0..3)), 1..120)
    ) {
        let mut queue = Queue::new(limits(machines, per_datastore).per_host(99));
        let (mut pushed, mut begun) = (0, HashSet::new());
        let mut running: Vec<Ticket> = Vec::new();
        let mut check = |queue: &mut Queue, running: &mut Vec<Ticket>| -> Result<(), TestCaseError> {
            for ticket in started(queue) {
                prop_assert!(begun.insert(ticket), "begun twice");
                running.push(ticket);
            }
            let mut used: HashMap<&Resource, Vec<u32>> = HashMap::new();
            for (resource, &count) in queue.running.values().flatten() {
                used.entry(resource).or_default().push(count);
            }
            let keeps = |resource, counts: &[u32]| counts.iter().sum::<u32>() <= queue.limit(resource);
            prop_assert!(used.iter().all(|(resource, counts)| counts.len() == 1 || keeps(resource, counts)));
            // Who waits misses something, or somebody who was passed over too often waits for the same.
            let kept: BTreeSet<_> = queue.waiting.values().flat_map(|one| queue.kept_for(one)).collect();
            for one in queue.waiting.values() {
                let misses = |(resource, &count)| !queue.is_free(resource, count) || kept.contains(resource);
                prop_assert!(one.needs.iter().any(misses));
            }
            prop_assert_eq!(queue.running.len(), running.len());
            Ok(())
        };
        for (step, job, stores) in steps {
            if step == 0 && !running.is_empty() {
                queue.end(running.remove(job as usize % running.len()));
            } else {
                queue.push_all(job, of(stores));
                pushed += 1;
            }
            check(&mut queue, &mut running)?;
        }
        while let Some(ticket) = running.pop() {
            queue.end(ticket);
            check(&mut queue, &mut running)?;
        }
        prop_assert_eq!(begun.len(), pushed);
        prop_assert!(queue.used.is_empty() && queue.waiting.is_empty());
    }
}
