//! The rules, one function each.

use std::ops::Range;

use futures_util::{FutureExt, TryStreamExt, future};

use super::{
    super::{DiskMeta, DiskRef},
    Place, Rule,
    told::{
        STEPS,
        Told::{self, Data, Unallocated, Unchanged, Zero},
        ensure, pattern, told,
    },
};
use crate::repository::{ExtentKind, storage::BoxFuture};

pub(super) type Seen<T = ()> = Result<T, String>;
pub(super) type Check = for<'a> fn(&'a Place<'a>) -> BoxFuture<'a, Seen>;

pub(super) const ALL: &[(Rule, Check)] = &[
    (Rule::Whole, |place| whole(place).boxed()),
    (Rule::Kinds, |place| kinds(place).boxed()),
    (Rule::Unchanged, |place| unchanged(place).boxed()),
    (Rule::Independent, |place| independent(place).boxed()),
    (Rule::Grown, |place| grown(place).boxed()),
    (Rule::OnePass, |place| one_pass(place).boxed()),
    (Rule::Checkpoint, |place| checkpoint(place).boxed()),
    (Rule::Hidden, |place| hidden(place).boxed()),
    (Rule::Finished, |place| finished(place).boxed()),
    (Rule::Discarded, |place| discarded(place).boxed()),
    (Rule::Resumed, |place| resumed(place).boxed()),
    (Rule::Exclusive, |place| exclusive(place).boxed()),
    (Rule::Listed, |place| listed(place).boxed()),
    (Rule::Durable, |place| durable(place).boxed()),
];

/// All kinds, gaps between them, and the disk's end.
fn mixed() -> Vec<Told> {
    vec![Data(0..2, 1), Zero(2..4), Data(5..6, 2), Data(6..7, 3), Unallocated(7..9), Data(11..12, 4), Data(15..17, 5)]
}

async fn whole(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let disk = place.store(0, capacity, None, &mixed()).await?;
    place.holds(place.sink, &disk, &place.model(capacity, &[], &mixed())).await?;
    let nothing = place.store(1, capacity, None, &[]).await?;
    place.holds(place.sink, &nothing, &place.model(capacity, &[], &[])).await?;
    let all = [Data(0..STEPS + 1, 9)];
    let full = place.store(2, capacity, None, &all).await?;
    place.holds(place.sink, &full, &place.model(capacity, &[], &all)).await
}

async fn kinds(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let disk = place.store(0, capacity, None, &mixed()).await?;
    let source = place.sink.open(&disk).await.map_err(told("open"))?;
    let extents: Vec<_> = source.extents(0..capacity).try_collect().await.map_err(told("extents"))?;
    let mut at = 0;
    let mut found = Vec::new();
    for (range, kind) in extents {
        ensure(range.start == at && range.end > at, || format!("an extent {range:?} follows byte {at}"))?;
        at = range.end;
        found.extend((range.start.div_ceil(place.step)..range.end.div_ceil(place.step)).map(|_| kind));
    }
    ensure(at == capacity, || format!("extents end at byte {at} of {capacity}"))?;
    let mut expected = vec![ExtentKind::Unallocated; STEPS as usize + 1];
    for part in mixed() {
        let (steps, kind) = match part {
            Data(steps, _) => (steps, ExtentKind::Data),
            Zero(steps) => (steps, ExtentKind::Zero),
            Unallocated(steps) | Unchanged(steps) => (steps, ExtentKind::Unallocated),
        };
        expected[steps.start as usize..steps.end as usize].fill(kind);
    }
    // Data is always true, if not the whole truth.
    let holds = |(found, expected): (&ExtentKind, &ExtentKind)| found == expected || *found == ExtentKind::Data;
    let same = found.len() == expected.len() && found.iter().zip(&expected).all(holds);
    ensure(same, || format!("extents are {found:?}, not {expected:?}"))
}

/// What a child is told of: some of everything, beside what is left out.
fn changes() -> Vec<Told> {
    vec![
        Unchanged(0..1),
        Data(1..2, 21),
        Zero(5..6),
        Unallocated(6..7),
        Data(7..8, 22),
        Unchanged(15..16),
        Data(16..17, 23),
    ]
}

async fn unchanged(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let parent = place.store(0, capacity, None, &mixed()).await?;
    let child = place.store(1, capacity, Some(&parent), &changes()).await?;
    let model = place.model(capacity, &place.model(capacity, &[], &mixed()), &changes());
    place.holds(place.sink, &child, &model).await?;
    let grandchild = place.store(2, capacity, Some(&child), &[]).await?;
    place.holds(place.sink, &grandchild, &model).await?;
    let mut alone = place.begin(capacity, None).await?;
    ensure(alone.unchanged(0..place.step).await.is_err(), || "unchanged without a parent was taken".into())?;
    alone.abort().await.map_err(told("abort"))
}

async fn independent(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let parent = place.store(0, capacity, None, &mixed()).await?;
    place.store(1, capacity, Some(&parent), &[Data(0..STEPS + 1, 7)]).await?;
    let mut given_up = place.begin(capacity, Some(&parent)).await?;
    place.tell(&mut *given_up, capacity, &[Data(0..3, 8)]).await?;
    given_up.abort().await.map_err(told("abort"))?;
    place.holds(place.sink, &parent, &place.model(capacity, &[], &mixed())).await
}

async fn grown(place: &Place<'_>) -> Seen {
    let (small, large) = (8 * place.step, 12 * place.step);
    let told_first = [Data(0..8, 1)];
    let parent = place.store(0, small, None, &told_first).await?;
    let more = [Data(3..4, 2), Data(10..11, 3)];
    let child = place.store(1, large, Some(&parent), &more).await?;
    let model = place.model(large, &place.model(small, &[], &told_first), &more);
    place.holds(place.sink, &child, &model).await?;
    let shrunk = place.begin(small, Some(&child)).await;
    ensure(shrunk.is_err(), || "a disk smaller than its parent was begun".into())
}

async fn one_pass(place: &Place<'_>) -> Seen {
    let (capacity, step) = (place.capacity(), place.step);
    let odd = |range: &Range<u64>| pattern(1, range);
    for (range, what) in [
        (0..step, "a range before the last one"),
        (step..3 * step, "a range that overlaps the last one"),
        (3 * step + 1..4 * step, "a start that is not aligned"),
        (3 * step..4 * step - 1, "an end that is not aligned"),
        (STEPS * step..capacity + 1, "a range behind the end"),
    ] {
        let mut writer = place.begin(capacity, None).await?;
        place.tell(&mut *writer, capacity, &[Data(1..2, 1)]).await?;
        let taken = writer.write(range.start, odd(&range)).await.is_ok() && writer.finish().await.is_ok();
        ensure(!taken, || format!("{what} was taken"))?;
    }
    Ok(())
}

async fn checkpoint(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let all = mixed();
    let mut writer = place.begin(capacity, None).await?;
    for part in all.chunks(2) {
        place.tell(&mut *writer, capacity, part).await?;
        let token = writer.checkpoint().await.map_err(told("checkpoint"))?;
        ensure(token.position <= capacity, || format!("a token says {} of {capacity}", token.position))?;
    }
    let disk = writer.finish().await.map_err(told("finish"))?;
    place.sink.commit(place.point(0, &[(disk.clone(), capacity)])).await.map_err(told("commit"))?;
    place.holds(place.sink, &disk, &place.model(capacity, &[], &all)).await
}

/// Tells whether the store says that it goes on with disks.
pub(super) async fn gives_tokens(place: &Place<'_>) -> Seen<bool> {
    let capacity = place.capacity();
    let mut writer = place.begin(capacity, None).await?;
    place.tell(&mut *writer, capacity, &[Data(0..2, 1)]).await?;
    let token = writer.checkpoint().await.map_err(told("checkpoint"))?;
    writer.abort().await.map_err(told("abort"))?;
    place.discard(&place.job(0)).await?;
    Ok(token.position > 0)
}

async fn resumed(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let parent = place.store(0, capacity, None, &mixed()).await?;
    let first = [Data(0..1, 31), Zero(3..4)];
    let never = [Data(5..8, 32), Unallocated(11..12)];
    let then = [Data(6..7, 33), Zero(9..10), Data(16..17, 34)];
    // Dropped behind a checkpoint; behind two, the older of which is gone on with; and finished.
    for (number, end) in (1..).zip(["drop", "drop after another", "finish"]) {
        for parent in [None, Some(&parent)] {
            let mut writer = place.begin(capacity, parent).await?;
            place.tell(&mut *writer, capacity, &first).await?;
            let token = writer.checkpoint().await.map_err(told("checkpoint"))?;
            place.tell(&mut *writer, capacity, &never).await?;
            match end {
                "drop" => drop(writer),
                "finish" => drop(writer.finish().await.map_err(told("finish"))?),
                _ => drop(writer.checkpoint().await.map_err(told("checkpoint"))?),
            }
            let again = place.again().await?;
            let sink = again.as_deref().unwrap_or(place.sink);
            let what = format!("resume at byte {} after {end}", token.position);
            let mut writer = sink.resume(place.disk(capacity), &token).await.map_err(told(&what))?;
            // A token may say less than what was told.
            let is_behind = |part: &&Told| place.bytes(part.steps(), capacity).start >= token.position;
            let rest: Vec<_> = first.iter().filter(is_behind).chain(&then).cloned().collect();
            place.tell(&mut *writer, capacity, &rest).await?;
            let disk = writer.finish().await.map_err(told("finish"))?;
            let number = 2 * number + u32::from(parent.is_some());
            sink.commit(place.point(number, &[(disk.clone(), capacity)])).await.map_err(told("commit"))?;
            let old = match parent {
                Some(_) => place.model(capacity, &[], &mixed()),
                None => Vec::new(),
            };
            let all: Vec<_> = first.iter().chain(&then).cloned().collect();
            place
                .holds(sink, &disk, &place.model(capacity, &old, &all))
                .await
                .map_err(|how| format!("{what}: {how}"))?;
            sink.discard(&place.suite.vm, &place.job(0)).await.map_err(told("discard"))?;
        }
    }
    place.holds(place.sink, &parent, &place.model(capacity, &[], &mixed())).await
}

async fn discarded(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    place.discard(&place.job(9)).await.map_err(|how| format!("of a job that is not known, {how}"))?;
    let committed = place.store(0, capacity, None, &mixed()).await?;
    let mut finished = place.begin(capacity, Some(&committed)).await?;
    place.tell(&mut *finished, capacity, &changes()).await?;
    let finished = finished.finish().await.map_err(told("finish"))?;
    let mut begun = place.begin(capacity, None).await?;
    place.tell(&mut *begun, capacity, &[Data(0..2, 1)]).await?;
    begun.checkpoint().await.map_err(told("checkpoint"))?;
    drop(begun);
    let of_another = DiskMeta { job: place.job(1), ..place.disk(capacity) };
    let mut other = place.sink.begin(of_another, None).await.map_err(told("begin"))?;
    place.tell(&mut *other, capacity, &mixed()).await?;
    let other = other.finish().await.map_err(told("finish"))?;

    let before = place.names(place.sink).await?;
    for _ in 0..2 {
        place.discard(&place.job(0)).await?;
    }
    let committed_late = place.sink.commit(place.point(1, &[(finished, capacity)])).await;
    ensure(committed_late.is_err(), || "a disk that was discarded was committed".into())?;
    let now = place.names(place.sink).await?;
    ensure(now == before, || format!("{now:?} are listed after a job was discarded, not {before:?}"))?;
    let model = place.model(capacity, &[], &mixed());
    place.holds(place.sink, &committed, &model).await.map_err(|how| format!("of a point of the job, {how}"))?;
    let kept = place.sink.commit(place.point(2, &[(other.clone(), capacity)])).await;
    kept.map_err(told("the commit of another job's disk"))?;
    place.holds(place.sink, &other, &model).await
}

async fn hidden(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let before = place.names(place.sink).await?;
    let same = |now: Vec<String>, when: &str| ensure(now == before, || format!("{now:?} are listed {when}"));
    for end in ["abort", "drop"] {
        let mut writer = place.begin(capacity, None).await?;
        place.tell(&mut *writer, capacity, &mixed()).await?;
        same(place.names(place.sink).await?, "while a disk is written")?;
        match end {
            "abort" => writer.abort().await.map_err(told("abort"))?,
            _ => drop(writer),
        }
        same(place.names(place.sink).await?, &format!("after {end}"))?;
    }
    let mut writer = place.begin(capacity, None).await?;
    place.tell(&mut *writer, capacity, &mixed()).await?;
    let disk = writer.finish().await.map_err(told("finish"))?;
    same(place.names(place.sink).await?, "after finish, before commit")?;
    place.sink.commit(place.point(0, &[(disk, capacity)])).await.map_err(told("commit"))?;
    let now = place.names(place.sink).await?;
    ensure(now.len() == before.len() + 1, || format!("{now:?} are listed after a commit"))
}

async fn finished(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let mut writer = place.begin(capacity, None).await?;
    place.tell(&mut *writer, capacity, &mixed()).await?;
    let disk = writer.finish().await.map_err(told("finish"))?;
    let never = DiskRef::new(format!("{}-never", disk.as_str()));
    let before = place.names(place.sink).await?;
    let committed = place.sink.commit(place.point(0, &[(disk, capacity), (never.clone(), capacity)])).await;
    ensure(committed.is_err(), || "a disk that was never finished was committed".into())?;
    let now = place.names(place.sink).await?;
    ensure(now == before, || format!("{now:?} are listed after a commit that failed"))?;
    ensure(place.sink.open(&never).await.is_err(), || "a disk that was never written was opened".into())
}

async fn exclusive(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let first = place.store(0, capacity, None, &mixed()).await?;
    ensure(place.store(0, capacity, None, &[Data(0..1, 99)]).await.is_err(), || "a name was given twice".into())?;
    place.holds(place.sink, &first, &place.model(capacity, &[], &mixed())).await?;
    for round in 1..4 {
        let mut disks = Vec::new();
        for fill in [1, 2] {
            let mut writer = place.begin(capacity, None).await?;
            place.tell(&mut *writer, capacity, &[Data(0..1, fill)]).await?;
            disks.push(writer.finish().await.map_err(told("finish"))?);
        }
        let commits = disks.iter().map(|disk| place.sink.commit(place.point(round, &[(disk.clone(), capacity)])));
        let won: Vec<_> = future::join_all(commits).await.into_iter().map(|done| done.is_ok()).collect();
        let winners = won.iter().filter(|won| **won).count();
        ensure(winners == 1, || format!("{winners} of two commits of one name at once succeeded"))?;
    }
    let names = place.names(place.sink).await?;
    let ours = names.iter().filter(|name| **name == place.name(0)).count();
    ensure(ours == 1, || format!("a name is listed {ours} times"))
}

async fn listed(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let mut expected = Vec::new();
    for number in 0..3 {
        let disk = place.store(number, capacity, None, &[Data(0..1, number as u8 + 1)]).await?;
        expected.push(place.point(number, &[(disk, capacity)]));
    }
    let points = place.sink.points(&place.suite.vm).await.map_err(told("points"))?;
    let last = &points[points.len().saturating_sub(3)..];
    ensure(last == expected, || format!("{last:?} are listed last, not {expected:?}"))?;
    let other =
        place.sink.points("ffffffff-0000-0000-0000-00000000ffff").await.map_err(told("points of no machine"))?;
    ensure(other.is_empty(), || format!("a machine without points has {other:?}"))
}

async fn durable(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let disk = place.store(0, capacity, None, &mixed()).await?;
    let open = place.suite.reopen.as_ref().expect("the rule applies with a way to reopen only");
    let other = open().await.map_err(told("opening the store anew"))?;
    let (ours, theirs) = (place.names(place.sink).await?, place.names(&*other).await?);
    ensure(ours == theirs, || format!("a new handle lists {theirs:?}, not {ours:?}"))?;
    place.holds(&*other, &disk, &place.model(capacity, &[], &mixed())).await
}
