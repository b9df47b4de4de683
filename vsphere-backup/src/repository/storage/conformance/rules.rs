//! One function a rule. What was seen instead is told in words.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};

use super::{Conformance, Rule};
use crate::repository::storage::{BoxFuture, Key, Storage, StorageError, StorageErrorKind};

/// Where a rule is checked.
pub(super) struct Place<'a> {
    pub(super) storage: &'a Arc<dyn Storage>,
    pub(super) suite: &'a Conformance,
    pub(super) folder: String,
}

type Seen = Result<(), String>;
type Check = for<'a> fn(&'a Place<'a>) -> BoxFuture<'a, Seen>;

pub(super) const ALL: &[(Rule, Check)] = &[
    (Rule::Absent, |place| absent(place).boxed()),
    (Rule::Whole, |place| whole(place).boxed()),
    (Rule::Ranges, |place| ranges(place).boxed()),
    (Rule::Replaced, |place| replaced(place).boxed()),
    (Rule::Deleted, |place| deleted(place).boxed()),
    (Rule::Refused, |place| refused(place).boxed()),
    (Rule::Exclusive, |place| exclusive(place).boxed()),
    (Rule::Atomic, |place| atomic(place).boxed()),
    (Rule::Listed, |place| listed(place).boxed()),
    (Rule::Named, |place| named(place).boxed()),
    (Rule::Large, |place| large(place).boxed()),
    (Rule::Concurrent, |place| concurrent(place).boxed()),
    (Rule::Durable, |place| durable(place).boxed()),
];

impl Place<'_> {
    fn key(&self, name: &str) -> Key {
        Key::parse(&format!("{}/{name}", self.folder)).expect("the suite's names are valid")
    }

    async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Seen {
        let bytes = bytes.into();
        self.storage.put(&self.key(name), vec![bytes]).await.map_err(told(format!("put {name}")))
    }

    async fn create(&self, name: &str, bytes: impl Into<Bytes>) -> Seen {
        self.storage.put_new(&self.key(name), vec![bytes.into()]).await.map_err(told(format!("put_new {name}")))
    }

    /// Expects an object to be just so.
    async fn holds(&self, name: &str, bytes: &[u8]) -> Seen {
        let found = self.storage.get(&self.key(name), bytes.len() as u64).await.map_err(told(format!("get {name}")))?;
        same(&found, bytes, || name.into())
    }

    async fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, String> {
        let mut found = BTreeMap::new();
        let mut listing = self.storage.list(prefix);
        while let Some(object) = listing.try_next().await.map_err(told(format!("list {prefix:?}")))? {
            let name = object.key.to_string();
            ensure(object.key.is_below(prefix), || format!("list {prefix:?} gave {name}"))?;
            let twice = found.insert(name.clone(), object.size).is_some();
            ensure(!twice, || format!("list {prefix:?} gave {name} twice"))?;
        }
        Ok(found)
    }

    /// Removes all that the rule wrote. What was given up may still come in for a moment.
    pub(super) async fn clear(&self) -> Seen {
        let mut left = self.list(&self.folder).await?;
        for round in 0..ROUNDS_OF_CLEARING {
            let names: Vec<_> = left.into_keys().collect();
            let delete = |name: String| async move {
                let key = Key::parse(&name).map_err(|error| error.to_string())?;
                self.storage.delete(&key).await.map_err(told(format!("delete {name}")))
            };
            stream::iter(names.into_iter().map(delete)).buffer_unordered(16).try_collect::<()>().await?;
            left = self.list(&self.folder).await?;
            if left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10 * round)).await;
        }
        Err(format!("{left:?} is still listed after it was deleted"))
    }
}

async fn absent(place: &Place<'_>) -> Seen {
    let key = place.key("nothing");
    expect(place.storage.get(&key, 10).await, StorageErrorKind::NotFound, "get of nothing")?;
    expect(place.storage.get_range(&key, 0..1).await, StorageErrorKind::NotFound, "get_range of nothing")?;
    let found = place.list(&place.folder).await?;
    ensure(found.is_empty(), || format!("the suite's place is not empty: {found:?}"))?;
    if place.suite.append_only {
        return Ok(());
    }
    place.storage.delete(&key).await.map_err(told("delete of nothing"))
}

async fn whole(place: &Place<'_>) -> Seen {
    let parts = ["a", "", "bc", "def"].map(Bytes::from);
    place.storage.put(&place.key("parts"), parts.to_vec()).await.map_err(told("put in parts"))?;
    place.holds("parts", b"abcdef").await?;
    place.storage.put_new(&place.key("new"), parts.to_vec()).await.map_err(told("put_new in parts"))?;
    place.holds("new", b"abcdef").await?;
    for (name, parts) in [("empty", vec![]), ("void", vec![Bytes::new(), Bytes::new()])] {
        place.storage.put(&place.key(name), parts).await.map_err(told("put of nothing"))?;
        place.holds(name, b"").await?;
    }
    place.create("empty-new", "").await?;
    place.holds("empty-new", b"").await?;
    expect(place.storage.get(&place.key("parts"), 5).await, StorageErrorKind::TooLarge, "get with a limit of 5 of 6")?;
    expect(place.storage.get(&place.key("parts"), 0).await, StorageErrorKind::TooLarge, "get with a limit of 0 of 6")?;
    let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    place.put("bytes", all.clone()).await?;
    place.holds("bytes", &all).await
}

async fn ranges(place: &Place<'_>) -> Seen {
    let (key, all) = (place.key("object"), noise(100_000));
    place.put("object", all.clone()).await?;
    for range in [0..1, 0..100_000, 99_999..100_000, 1..2, 4_095..8_193, 65_535..65_537, 50..50] {
        let what = format!("get_range {range:?} of 100000");
        let found = place.storage.get_range(&key, range.clone()).await.map_err(told(&what))?;
        same(&found, &all[range.start as usize..range.end as usize], || what)?;
    }
    let behind: [Range<u64>; 4] = [0..100_001, 99_999..100_001, 100_000..100_001, 1 << 40..(1 << 40) + 1];
    for range in behind {
        let what = format!("get_range {range:?} of 100000");
        expect(place.storage.get_range(&key, range).await, StorageErrorKind::OutOfRange, &what)?;
    }
    Ok(())
}

async fn replaced(place: &Place<'_>) -> Seen {
    for bytes in [noise(5000), noise(300), noise(9000), Bytes::new()] {
        place.put("object", bytes.clone()).await?;
        place.holds("object", &bytes).await?;
        let listed = place.list(&place.folder).await?;
        let size = listed.into_values().collect::<Vec<_>>();
        ensure(size == [bytes.len() as u64], || format!("sizes {size:?} are listed, not {}", bytes.len()))?;
    }
    Ok(())
}

async fn deleted(place: &Place<'_>) -> Seen {
    let key = place.key("object");
    for round in 0..3 {
        place.create("object", format!("round {round}")).await?;
        place.put("stays", "here").await?;
        for _ in 0..2 {
            place.storage.delete(&key).await.map_err(told("delete"))?;
        }
        expect(place.storage.get(&key, 100).await, StorageErrorKind::NotFound, "get of what was deleted")?;
        let left = place.list(&place.folder).await?;
        ensure(left.len() == 1, || format!("{left:?} is listed after one of two was deleted"))?;
    }
    place.holds("stays", b"here").await?;
    place.put("object", "again").await?;
    let several = future::join_all((0..8).map(|_| place.storage.delete(&key))).await;
    several.into_iter().collect::<Result<(), _>>().map_err(told("one of eight deletes at once"))
}

async fn refused(place: &Place<'_>) -> Seen {
    place.create("object", "first").await?;
    let (key, denied) = (place.key("object"), StorageErrorKind::PermissionDenied);
    expect(place.storage.delete(&key).await, denied, "delete")?;
    for other in ["other", "longer than it was"] {
        expect(place.storage.put(&key, vec![other.into()]).await, denied, "put with other bytes")?;
    }
    // Content-addressed objects are put again with the same bytes; that replaces nothing.
    place.put("object", "first").await?;
    place.holds("object", b"first").await
}

async fn exclusive(place: &Place<'_>) -> Seen {
    let taken = StorageErrorKind::AlreadyExists;
    place.put("put", "first").await?;
    place.create("new", "first").await?;
    for name in ["put", "new"] {
        for second in ["second", ""] {
            let again = place.storage.put_new(&place.key(name), vec![second.into()]).await;
            expect(again, taken, "put_new of a name that is taken")?;
            place.holds(name, b"first").await?;
        }
        // The very same bytes too: whoever comes second must learn it.
        let again = place.storage.put_new(&place.key(name), vec!["first".into()]).await;
        expect(again, taken, "put_new with the bytes that are there")?;
    }
    for round in 0..place.suite.rounds {
        // Sizes that go in one write, and such that take a while.
        let size = [10, 3_000, 200_000][round % 3];
        race(place, &format!("race-{round}"), size).await?;
    }
    Ok(())
}

/// Lets several create one object at once.
async fn race(place: &Place<'_>, name: &str, size: usize) -> Seen {
    let racers = place.suite.racers;
    let bodies: Vec<Bytes> =
        (0..racers).map(|racer| [noise(size), Bytes::from(vec![racer as u8])].concat().into()).collect();
    // Tasks, so that they run on several threads where there are some.
    let tasks = bodies.iter().cloned().map(|body| {
        let (storage, key) = (place.storage.clone(), place.key(name));
        tokio::spawn(async move { storage.put_new(&key, vec![body]).await })
    });
    let mut winners = Vec::new();
    for (racer, done) in future::join_all(tasks).await.into_iter().enumerate() {
        match done.map_err(|error| format!("put_new panicked: {error}"))? {
            Ok(()) => winners.push(racer),
            Err(error) if error.kind == StorageErrorKind::AlreadyExists => {}
            Err(error) => return Err(told(format!("put_new by one of {racers}"))(error)),
        }
    }
    match winners[..] {
        [winner] => place.holds(name, &bodies[winner]).await.map_err(|what| format!("not the winner's: {what}")),
        _ => Err(format!("{} of {racers} concurrent put_new of one name succeeded", winners.len())),
    }
}

async fn atomic(place: &Place<'_>) -> Seen {
    let (one, two) = (Bytes::from(vec![1; 300_000]), Bytes::from(vec![2; 200_000]));
    let new = |_: &Bytes| place.key("new");
    // A reader beside a creation, and beside replacements.
    let body = one.clone();
    let (storage, key) = (place.storage.clone(), new(&one));
    let creating = tokio::spawn(async move { storage.put_new(&key, vec![body]).await });
    read_beside(place, "new", creating, &[&one], true).await?;
    place.holds("new", &one).await?;
    if !place.suite.append_only {
        place.put("object", one.clone()).await?;
        let (storage, key, bodies) = (place.storage.clone(), place.key("object"), [two.clone(), one.clone()]);
        let writing = tokio::spawn(async move {
            for body in bodies.iter().cycle().take(12) {
                storage.put(&key, vec![body.clone()]).await?;
            }
            Ok(())
        });
        read_beside(place, "object", writing, &[&one, &two], false).await?;
    }
    // Given up at some moment: whole or absent.
    for steps in [0, 1, 2, 3, 5, 8, 13, 21] {
        for new in [false, true] {
            let name = format!("given-up-{steps}-{new}");
            let key = place.key(&name);
            let parts = vec![one.slice(..100_000), one.slice(100_000..)];
            let mut write = if new { place.storage.put_new(&key, parts) } else { place.storage.put(&key, parts) };
            for _ in 0..steps {
                if future::poll_immediate(&mut write).await.is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(write);
            whole_or_absent(place, &name, &[&one], true).await?;
        }
    }
    Ok(())
}

async fn read_beside(
    place: &Place<'_>,
    name: &str,
    mut writing: tokio::task::JoinHandle<Result<(), StorageError>>,
    bodies: &[&Bytes],
    may_be_absent: bool,
) -> Seen {
    loop {
        let done = future::poll_immediate(&mut writing).await;
        whole_or_absent(place, name, bodies, may_be_absent && done.is_none()).await?;
        if let Some(done) = done {
            return done
                .map_err(|error| format!("writing panicked: {error}"))?
                .map_err(told("writing beside a reader"));
        }
        tokio::task::yield_now().await;
    }
}

async fn whole_or_absent(place: &Place<'_>, name: &str, bodies: &[&Bytes], may_be_absent: bool) -> Seen {
    match place.storage.get(&place.key(name), 1 << 20).await {
        Ok(found) if bodies.contains(&&found) => Ok(()),
        Ok(found) => Err(format!("a reader met {} bytes of {name} that nobody put so", found.len())),
        Err(error) if may_be_absent && error.kind == StorageErrorKind::NotFound => Ok(()),
        Err(error) => Err(told(format!("get {name} beside a writer"))(error)),
    }
}

async fn listed(place: &Place<'_>) -> Seen {
    let names = ["a/1", "a/2", "ab/1", "a-b/1", "a.b/1", "b/c/d/e", "b/c/f", "z"];
    for (size, name) in names.into_iter().enumerate() {
        place.put(name, noise(size)).await?;
    }
    let below = |prefix: &str| -> BTreeMap<String, u64> {
        let full = |name: &str| place.key(name).to_string();
        let sized = names.iter().zip(0..).map(|(name, size)| (full(name), size));
        let prefix = format!("{}/{prefix}", place.folder);
        sized
            .filter(|(name, _)| {
                name.starts_with(prefix.trim_end_matches('/')) && {
                    let prefix = prefix.trim_end_matches('/');
                    name[prefix.len()..].starts_with('/')
                }
            })
            .collect()
    };
    for prefix in ["", "a", "ab", "b", "b/c", "b/c/d", "z", "nothing", "a/1", "A"] {
        let full = format!("{}/{prefix}", place.folder);
        let found = place.list(full.trim_end_matches('/')).await?;
        let expected = below(prefix);
        ensure(found == expected, || format!("list {prefix:?} gave {found:?}, not {expected:?}"))?;
    }
    let all = place.list("").await?;
    let ours = below("");
    ensure(ours.iter().all(|(name, size)| all.get(name) == Some(size)), || "list of all lacks objects".into())?;

    let many: Vec<_> = (0..place.suite.many).map(|number| format!("many/{number:06}")).collect();
    let put = |name: &String| {
        let name = name.clone();
        async move { place.put(&name, "x").await }
    };
    stream::iter(many.iter().map(put)).buffer_unordered(16).try_collect::<()>().await?;
    let found = place.list(&format!("{}/many", place.folder)).await?;
    ensure(found.len() == many.len(), || format!("{} of {} objects are listed", found.len(), many.len()))
}

async fn named(place: &Place<'_>) -> Seen {
    let long = "n".repeat(200);
    let deep = ["0123456789"; 30].join("/");
    let names = [
        "a", "A", "aa", "aA", "a.", "..a", "a..b", "...", "-", "--", "_", "-a", "a.tmp", "a.json", "0", "00", "con",
        "x/Y", "X/y", "x/y", &long, &deep,
    ];
    for name in names {
        place.create(name, name.to_owned()).await?;
    }
    for name in names {
        place.holds(name, name.as_bytes()).await?;
    }
    let found = place.list(&place.folder).await?;
    let mut expected: Vec<_> = names.iter().map(|name| place.key(name).to_string()).collect();
    expected.sort_unstable();
    let found: Vec<_> = found.into_keys().collect();
    ensure(found == expected, || format!("{found:?} are listed, not {expected:?}"))
}

async fn large(place: &Place<'_>) -> Seen {
    let size = place.suite.large;
    let bytes = noise(size);
    let third = size / 3;
    let parts = vec![bytes.slice(..third), bytes.slice(third..)];
    place.storage.put(&place.key("put"), parts.clone()).await.map_err(told("put of a large object"))?;
    place.storage.put_new(&place.key("new"), parts.clone()).await.map_err(told("put_new of a large object"))?;
    let again = place.storage.put_new(&place.key("new"), parts).await;
    expect(again, StorageErrorKind::AlreadyExists, "put_new of a large object that is there")?;
    for name in ["put", "new"] {
        place.holds(name, &bytes).await?;
        let range = (size - size.min(70_000)) as u64..size as u64;
        let what = format!("get_range {range:?} of a large object");
        let found = place.storage.get_range(&place.key(name), range.clone()).await.map_err(told(&what))?;
        same(&found, &bytes[range.start as usize..], || what)?;
        let limited = place.storage.get(&place.key(name), size as u64 - 1).await;
        expect(limited, StorageErrorKind::TooLarge, "get of a large object with a limit below its size")?;
    }
    let listed: Vec<_> = place.list(&place.folder).await?.into_values().collect();
    ensure(listed == [size as u64; 2], || format!("sizes {listed:?} are listed, not {size} twice"))
}

async fn concurrent(place: &Place<'_>) -> Seen {
    let bodies: Vec<Bytes> =
        (0..48).map(|number: u32| [&number.to_le_bytes()[..], &noise(2000)].concat().into()).collect();
    let name = |number: usize| format!("{}/{number}", number % 5);
    let write = |(number, body): (usize, &Bytes)| {
        let body = body.clone();
        async move {
            place.put(&name(number), body.clone()).await?;
            place.holds(&name(number), &body).await
        }
    };
    stream::iter(bodies.iter().enumerate().map(write)).buffer_unordered(48).try_collect::<()>().await?;
    for (number, body) in bodies.iter().enumerate() {
        place.holds(&name(number), body).await?;
    }
    let found = place.list(&place.folder).await?.len();
    ensure(found == bodies.len(), || format!("{found} of {} objects put at once are listed", bodies.len()))
}

async fn durable(place: &Place<'_>) -> Seen {
    let bytes = noise(100_000);
    place.put("put", bytes.clone()).await?;
    place.create("new", bytes.clone()).await?;
    let open = place.suite.reopen.as_ref().expect("the rule applies with a way to reopen only");
    let other = open().await.map_err(told("opening the storage anew"))?;
    let anew = Place { storage: &other, suite: place.suite, folder: place.folder.clone() };
    anew.holds("put", &bytes).await?;
    anew.holds("new", &bytes).await?;
    let found = anew.list(&place.folder).await?.len();
    ensure(found == 2, || format!("{found} of 2 objects are listed by a new handle"))?;
    let again = other.put_new(&place.key("new"), vec!["second".into()]).await;
    expect(again, StorageErrorKind::AlreadyExists, "put_new by a new handle")
}

fn noise(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Seen {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn same(found: &[u8], expected: &[u8], what: impl FnOnce() -> String) -> Seen {
    ensure(found == expected, || {
        let differs = found.iter().zip(expected).position(|(a, b)| a != b);
        let place = differs.map_or("at the end".into(), |at| format!("at byte {at}"));
        format!("{}: {} bytes came for {}, different {place}", what(), found.len(), expected.len())
    })
}

fn expect<T>(result: Result<T, StorageError>, kind: StorageErrorKind, what: &str) -> Seen {
    match result {
        Ok(_) => Err(format!("{what} succeeded, it should say {kind:?}")),
        Err(error) => ensure(error.kind == kind, || format!("{what} should say {kind:?}: {}", in_words(&error))),
    }
}

fn told(what: impl std::fmt::Display) -> impl FnOnce(StorageError) -> String {
    move |error| format!("{what} failed: {}", in_words(&error))
}

fn in_words(error: &StorageError) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

const ROUNDS_OF_CLEARING: u64 = 10;
