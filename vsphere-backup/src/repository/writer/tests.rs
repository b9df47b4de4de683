//! The writer where calls are dropped and storages have bugs.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;
use crate::repository::{
    CreateOptions,
    storage::{
        BoxFuture, Fault, Faulty, MemoryStorage, Storage, StorageError,
        around::{Answer, Around, Operation, decorate},
    },
};

fn noise(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

async fn writer(storage: Arc<dyn Storage>) -> Writer {
    let options = CreateOptions::default().chunk_size(64 << 10);
    let repository = Repository::create(storage, options).await.unwrap();
    Writer::new(repository, WriterOptions::default().pack_size(1 << 20), None)
}

#[test]
fn finish_waits_for_a_run_whose_caller_went_away() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let writer = writer(Arc::new(MemoryStorage::new())).await;
        // The one thread is busy: the run is begun and waits behind it.
        let busy = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(200)));
        let mut run = Box::pin(writer.put_run(noise(64 << 10), ()));
        assert!(futures_util::FutureExt::now_or_never(&mut run).is_none());
        drop(run);
        assert_eq!(writer.finish().await.unwrap().packs, 1);
        busy.await.unwrap();
    });
}

#[tokio::test]
async fn a_finish_that_is_dropped_anywhere_keeps_nothing_from_the_next() {
    for patience in 0.. {
        let memory = Arc::new(MemoryStorage::new());
        let slow = Faulty::new(memory.clone(), 0, Fault::Slow(Duration::from_millis(5)));
        let writer = writer(Arc::new(slow)).await;
        let run = writer.put_run(noise(64 << 10), ()).await.unwrap();
        let dropped = tokio::time::timeout(Duration::from_millis(patience), writer.finish()).await.is_err();
        writer.finish().await.unwrap();
        let fresh = Repository::open(memory).await.unwrap();
        fresh.load_index().await.unwrap();
        let Slot::Ref(chunk) = run.slots[0] else { panic!("{run:?}") };
        assert!(fresh.knows_chunk(&ChunkId(chunk)), "dropped after {patience} ms");
        if !dropped {
            break;
        }
    }
}

/// Panics at its first pack.
#[derive(Debug, Default)]
struct Panicking(MemoryStorage, AtomicUsize);

impl Around for Panicking {
    fn inner(&self) -> &dyn Storage {
        &self.0
    }

    async fn around<'a, T: Answer>(
        &'a self,
        operation: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        let is_pack = operation.name == "put" && operation.key.starts_with("packs/");
        let first = is_pack && self.1.fetch_add(1, Ordering::Relaxed) == 0;
        assert!(!first, "a storage with a bug");
        attempt().await
    }
}

decorate!(Panicking);

#[tokio::test]
async fn a_pack_lost_to_a_panic_of_the_storage_stops_the_writer() {
    let writer = writer(Arc::new(Panicking::default())).await;
    let data = noise(4 << 20);
    for run in 0..4 {
        // Each run fills a pack. The first is lost; which call tells so depends on when its task runs.
        let told = writer.put_run(data.slice(run << 20..(run + 1) << 20), ()).await.is_err();
        tokio::task::yield_now().await;
        if told {
            break;
        }
    }
    assert!(matches!(writer.finish().await, Err(Error::WriterStopped { .. })));
}
