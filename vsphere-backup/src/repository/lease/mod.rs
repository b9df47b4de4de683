//! Leases: who works on the repository now, told by objects that are renewed.
//!
//! A lease is the objects `leases/<id>/<generation>`. Generation 0, the *anchor*, is created at the begin and is
//! deleted first of all at the end: while it is there the lease holds, so a listing that begins meanwhile shows it,
//! however slow the listing is and however often the lease is renewed. Each renewal creates the next generation,
//! exclusively, and deletes the one before. The newest generation says all: what for, and which disks and objects the
//! holder needs ([`Roots`]), which a collector of garbage then counts as reachable.
//!
//! Nobody compares clocks of two computers to find that a holder is dead. An observer notes (in
//! `leases/<id>/<generation>-seen`) when it first saw a generation; when the same generation is still the newest one
//! more than the lease's time to live later, the holder is dead ([`watch`]). An observer with a wrong clock can
//! therefore end a lease too early, which costs the holder its work; it cannot make the repository wrong, because
//! what is decided is then written where the holder must meet it: the next generation says "fenced", and for a writer
//! the point's name is taken ([`fence`](super::fence)) before the anchor goes.

pub(crate) mod record;
pub(crate) mod watch;

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

use self::record::{Ending, LeaseBody, Purpose, Roots};
use super::{
    envelope::Kind,
    id::{LeaseId, random},
    object::{Objects, is_absent, is_taken},
    storage::{StorageError, StorageErrorKind},
};

/// A lease that this process holds. Dropping it gives it back in the background; [`release`](Self::release) waits.
#[derive(Debug)]
pub(crate) struct Lease {
    held: Arc<Held>,
    renewal: JoinHandle<()>,
}

#[derive(Debug)]
struct Held {
    objects: Objects,
    id: LeaseId,
    ttl: Duration,
    state: tokio::sync::Mutex<State>,
    /// When the newest generation was sent off.
    renewed: std::sync::Mutex<SystemTime>,
    /// Somebody declared the holder dead.
    fenced: AtomicBool,
    /// Given back, or not to be given back by whoever drops it.
    settled: AtomicBool,
}

#[derive(Debug)]
struct State {
    generation: u32,
    body: LeaseBody,
}

impl Lease {
    /// Takes a new lease and renews it from then on, at a third of its time to live.
    ///
    /// # Errors
    /// [`Error::Storage`]. A lease whose creation has an unknown outcome is nobody's, and ends by itself.
    pub(crate) async fn begin(objects: &Objects, purpose: Purpose, roots: Roots, ttl: Duration) -> Result<Self> {
        Self::begin_for(None, objects, purpose, roots, ttl).await
    }

    /// The same for a job, which counts as alive with its lease.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) async fn begin_for(
        job: Option<&str>,
        objects: &Objects,
        purpose: Purpose,
        roots: Roots,
        ttl: Duration,
    ) -> Result<Self> {
        let (id, now) = (LeaseId(random()?), super::now());
        let body = LeaseBody { job: job.map(str::to_owned), ..LeaseBody::new(id, purpose, roots, ttl, now) };
        let sent = SystemTime::now();
        if let Err(error) = objects.create(Kind::Lease, &id.key(0), body.encode()).await {
            let ours = objects.read(Kind::Lease, &id.key(0)).await.is_ok_and(|found| found == body.encode());
            if !ours {
                return Err(error);
            }
        }
        let held = Arc::new(Held {
            objects: objects.clone(),
            id,
            ttl,
            state: tokio::sync::Mutex::new(State { generation: 0, body }),
            renewed: std::sync::Mutex::new(sent),
            fenced: AtomicBool::new(false),
            settled: AtomicBool::new(false),
        });
        let renewal = tokio::spawn(held.clone().keep_renewing());
        Ok(Self { held, renewal })
    }

    /// Returns the lease's name.
    pub(crate) fn id(&self) -> LeaseId {
        self.held.id
    }

    /// Adds to what the lease says the holder needs; durable when this returns.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Storage`].
    pub(crate) async fn pin(&self, roots: Roots) -> Result<()> {
        self.held.renew(|body| body.roots.extend(&roots)).await
    }

    /// Tells whether the lease may still be relied on: nobody took it, and it was renewed in time.
    ///
    /// # Errors
    /// [`Error::Fenced`].
    pub(crate) fn check(&self) -> Result<()> {
        let renewed = *self.held.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = renewed.elapsed().map_or(true, |since| since < self.held.ttl);
        if self.is_fenced() || !in_time { Err(self.held.fenced()) } else { Ok(()) }
    }

    /// Tells whether somebody declared the holder dead, as far as is known.
    pub(crate) fn is_fenced(&self) -> bool {
        self.held.fenced.load(Ordering::Acquire)
    }

    /// Gives the lease back. What cannot be removed now ends by its time to live.
    pub(crate) async fn release(&self) {
        self.renewal.abort();
        self.held.settled.store(true, Ordering::Release);
        self.held.end().await;
    }

    /// Leaves the lease to its time to live: for a holder that does not know what it has done.
    pub(crate) fn abandon(&self) {
        self.renewal.abort();
        self.held.settled.store(true, Ordering::Release);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.held.settled.swap(true, Ordering::AcqRel) {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let held = self.held.clone();
                drop(runtime.spawn(async move { held.end().await }));
            }
            Err(_) => tracing::debug!(lease = %self.held.id, "left to its time to live: there is no runtime"),
        }
    }
}

impl Held {
    async fn keep_renewing(self: Arc<Self>) {
        let mut pause = self.ttl / 3;
        loop {
            tokio::time::sleep(pause).await;
            match self.renew(|_| {}).await {
                Ok(()) => pause = self.ttl / 3,
                Err(Error::Fenced { .. }) => {
                    tracing::warn!(lease = %self.id, "the lease was taken away: it was not renewed in time");
                    return;
                }
                Err(error) => {
                    tracing::warn!(lease = %self.id, %error, "the lease could not be renewed, which is tried again");
                    pause = self.ttl / 12;
                }
            }
        }
    }

    async fn renew(&self, change: impl Fn(&mut LeaseBody)) -> Result<()> {
        let mut state = self.state.lock().await;
        // The first answer of `create` may have been lost, and more than once.
        for _ in 0..TRIES {
            if self.fenced.load(Ordering::Acquire) {
                return Err(self.fenced());
            }
            let mut body = state.body.clone();
            change(&mut body);
            body.renewed = super::now();
            let next = state.generation + 1;
            let sent = SystemTime::now();
            let created = self.objects.create(Kind::Lease, &self.id.key(next), body.encode()).await;
            if let Err(error) = created {
                if !is_taken(&error) {
                    return Err(error);
                }
                let found = self.objects.read(Kind::Lease, &self.id.key(next)).await?;
                let found = LeaseBody::decode(&found, &self.id.key(next))?;
                if found.ending.is_some() {
                    self.fenced.store(true, Ordering::Release);
                    return Err(self.fenced());
                }
                // Only the holder writes generations that are not an ending: the answer to it was lost.
                let older = state.generation;
                (state.generation, state.body) = (next, found);
                self.forget(older).await;
                continue;
            }
            // Without an anchor the lease was ended, and its generations were swept away with it.
            let anchor = self.objects.read(Kind::Lease, &self.id.key(0)).await;
            if anchor.as_ref().is_err_and(is_absent) {
                self.fenced.store(true, Ordering::Release);
                self.forget(next).await;
                return Err(self.fenced());
            }
            let older = state.generation;
            (state.generation, state.body) = (next, body);
            self.forget(older).await;
            anchor?;
            *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = sent;
            return Ok(());
        }
        Err(Error::Busy { what: format!("the lease {} cannot be renewed", self.id) })
    }

    /// Deletes a generation that a newer one replaced, and the note of when it was seen.
    async fn forget(&self, generation: u32) {
        if generation == 0 {
            return;
        }
        for key in [self.id.key(generation), self.id.seen_key(generation)] {
            if let Err(error) = self.objects.storage().delete(&key).await {
                tracing::debug!(%key, %error, "an old generation of a lease stays");
            }
        }
    }

    async fn end(&self) {
        let storage = &**self.objects.storage();
        let state = self.state.lock().await;
        if let Err(error) = storage.delete(&self.id.key(0)).await {
            tracing::debug!(lease = %self.id, %error, "the lease could not be removed");
            if error.kind == StorageErrorKind::PermissionDenied {
                // A store that keeps everything is told so instead.
                let body = LeaseBody { ending: Some(Ending::Released), ..state.body.clone() };
                let next = self.id.key(state.generation + 1);
                if let Err(error) = self.objects.create(Kind::Lease, &next, body.encode()).await {
                    tracing::warn!(lease = %self.id, %error, "the lease is left to its time to live");
                }
            }
            return;
        }
        let rest: Result<Vec<_>, StorageError> = storage.list(&self.id.prefix()).try_collect().await;
        for object in rest.unwrap_or_default() {
            if let Err(error) = storage.delete(&object.key).await {
                tracing::debug!(object = %object.key, %error, "a part of an ended lease stays");
            }
        }
    }

    fn fenced(&self) -> Error {
        Error::Fenced { lease: self.id.to_string() }
    }
}

const TRIES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        repository::storage::{Fault, Faulty, MemoryStorage, Storage},
    };

    async fn lease(storage: Arc<dyn Storage>) -> Lease {
        let hour = Duration::from_secs(3600);
        Lease::begin(&Objects::plain(storage), Purpose::Read { points: vec![] }, Roots::default(), hour).await.unwrap()
    }

    #[tokio::test]
    async fn a_lease_keeps_its_anchor_and_its_newest_generation_and_leaves_nothing() {
        let storage = Arc::new(MemoryStorage::new());
        let lease = lease(storage.clone()).await;
        for _ in 0..3 {
            lease.pin(Roots::default()).await.unwrap();
        }
        let names: Vec<_> = storage.keys().iter().map(|key| key.file_name().to_owned()).collect();
        assert_eq!(names, ["00000000", "00000003"]);
        lease.check().unwrap();
        lease.release().await;
        assert_eq!(storage.keys(), []);
        assert!(matches!(lease.pin(Roots::default()).await, Err(Error::Fenced { .. })));
        assert_eq!(storage.keys(), [], "a renewal after the end leaves nothing");
    }

    #[tokio::test]
    async fn dropping_a_lease_gives_it_back() {
        let storage = Arc::new(MemoryStorage::new());
        drop(lease(storage.clone()).await);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(storage.keys(), []);
    }

    #[tokio::test]
    async fn a_lost_answer_to_a_renewal_is_found_out() {
        for at in 1..10 {
            let storage = Arc::new(MemoryStorage::new());
            let lease = lease(Arc::new(Faulty::new(storage.clone(), at, Fault::LostAnswer))).await;
            for _ in 0..3 {
                // An error is allowed, losing the lease is not.
                if let Err(error) = lease.pin(Roots::default()).await {
                    assert!(!matches!(error, Error::Fenced { .. }), "{at}: {error}");
                }
            }
            lease.pin(Roots::default()).await.unwrap();
            lease.check().unwrap();
            lease.release().await;
        }
    }

    #[tokio::test]
    async fn a_holder_that_does_not_renew_is_fenced_and_learns_it() {
        let storage = Arc::new(MemoryStorage::new());
        let objects = Objects::plain(storage.clone());
        let lease = lease(storage.clone()).await;
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        assert!(watch::survey(&objects, &clock, true).await.unwrap()[0].is_alive());
        hand.advance(Duration::from_secs(3000));
        lease.pin(Roots::default()).await.unwrap();
        hand.advance(Duration::from_secs(3000));
        // Another generation: its time begins now.
        assert!(watch::survey(&objects, &clock, true).await.unwrap()[0].is_alive());
        hand.advance(Duration::from_secs(3602));
        let dead = watch::survey(&objects, &clock, true).await.unwrap();
        assert!(!dead[0].is_alive());
        assert!(watch::fence(&objects, &dead[0]).await.unwrap());
        assert_eq!(storage.keys(), []);
        assert!(matches!(lease.pin(Roots::default()).await, Err(Error::Fenced { .. })));
        assert!(lease.check().is_err());
    }

    #[tokio::test]
    async fn a_holder_that_wakes_up_in_time_is_not_fenced() {
        let storage = Arc::new(MemoryStorage::new());
        let objects = Objects::plain(storage.clone());
        let lease = lease(storage.clone()).await;
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        watch::survey(&objects, &clock, true).await.unwrap();
        hand.advance(Duration::from_secs(3700));
        let dead = watch::survey(&objects, &clock, true).await.unwrap();
        assert!(!dead[0].is_alive());
        lease.pin(Roots::default()).await.unwrap();
        assert!(!watch::fence(&objects, &dead[0]).await.unwrap(), "the generation that looked dead is not the newest");
        lease.pin(Roots::default()).await.unwrap();
        lease.release().await;
    }
}
