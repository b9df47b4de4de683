//! Fetching chunks out of packs: neighbours in one go, each checked, each looked for once more where it was missed.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::error::{Error, in_one_line};

use super::{
    Repository, frame,
    id::{ChunkId, PackId},
    index::Place,
    pack,
    page::ReadFault,
    storage::{StorageError, StorageErrorKind},
};

/// How often the index was read again because a chunk was missed, and whether that is worth while.
#[derive(Debug, Default)]
pub(super) struct Again {
    times: AtomicU64,
    /// Held while it is read: `true` when it did not help.
    in_vain: tokio::sync::Mutex<bool>,
}

impl Again {
    /// Does not read it again.
    pub(super) fn never() -> Self {
        Self { times: AtomicU64::new(0), in_vain: tokio::sync::Mutex::new(true) }
    }
}

/// One chunk to be read.
struct Want {
    /// Its place among the results.
    at: usize,
    id: ChunkId,
    plain_len: u32,
    place: Place,
}

impl Repository {
    /// Reads and checks chunks, given by identity and length.
    ///
    /// What is not found is looked for once more with a fresh index: another process may have written it since, or
    /// rewritten its pack. `again` remembers when this did not help.
    pub(super) async fn fetch_chunks(&self, chunks: &[(ChunkId, u32)], again: &Again) -> Vec<Result<Bytes, ReadFault>> {
        let mut results = self.fetch_again(chunks, again).await;
        // A frame that is damaged is not believed again; the chunk may lie in another pack too.
        for (result, &(id, plain_len)) in results.iter_mut().zip(chunks) {
            while let Err(ReadFault::Damaged(_)) = result {
                let Some((pack, _)) = self.read_index().find(&id) else { break };
                self.distrust(pack, &[id]);
                if !self.knows_chunk(&id) {
                    break;
                }
                *result = self.fetch_known(&[(id, plain_len)]).await.remove(0);
            }
        }
        results
    }

    async fn fetch_again(&self, chunks: &[(ChunkId, u32)], again: &Again) -> Vec<Result<Bytes, ReadFault>> {
        let before = again.times.load(Ordering::Acquire);
        let mut results = self.fetch_known(chunks).await;
        let is_damaged = |result: &Result<Bytes, ReadFault>| matches!(result, Err(ReadFault::Damaged(_)));
        let wrong: Vec<usize> = (0..results.len()).filter(|&at| is_damaged(&results[at])).collect();
        if wrong.is_empty() {
            return results;
        }
        {
            let mut in_vain = again.in_vain.lock().await;
            // Where somebody else read it meanwhile, what is there now is new to this one too.
            if again.times.load(Ordering::Acquire) == before {
                if *in_vain {
                    return results;
                }
                if let Err(error) = self.refresh_index().await {
                    tracing::warn!(%error, "the chunk index could not be read again");
                    return results;
                }
                *in_vain = true;
                again.times.fetch_add(1, Ordering::AcqRel);
            }
        }
        let missed: Vec<_> = wrong.iter().map(|&at| chunks[at]).collect();
        for (at, result) in wrong.into_iter().zip(self.fetch_known(&missed).await) {
            results[at] = result;
        }
        if !results.iter().any(is_damaged) {
            // It helped: it may do so again.
            *again.in_vain.lock().await = false;
        }
        results
    }

    async fn fetch_known(&self, chunks: &[(ChunkId, u32)]) -> Vec<Result<Bytes, ReadFault>> {
        let mut results: Vec<Option<Result<Bytes, ReadFault>>> = Vec::new();
        results.resize_with(chunks.len(), || None);
        let mut found: Vec<(PackId, Want)> = Vec::with_capacity(chunks.len());
        {
            let index = self.read_index();
            for (at, &(id, plain_len)) in chunks.iter().enumerate() {
                match index.find(&id) {
                    Some((pack, place)) => found.push((pack, Want { at, id, plain_len, place })),
                    None => {
                        let absent = "no pack of the repository holds it".into();
                        results[at] = Some(Err(ReadFault::Damaged(absent)));
                    }
                }
            }
        }
        found.sort_unstable_by_key(|(pack, want)| (*pack, want.place.offset));
        while !found.is_empty() {
            let (len, span) = leading_group(&found);
            let pack = found[0].0;
            let group: Vec<Want> = found.drain(..len).map(|(_, want)| want).collect();
            self.fetch_group(pack, span, group, &mut results).await;
        }
        results.into_iter().map(|result| result.expect("each chunk was found in a group or not found")).collect()
    }

    async fn fetch_group(
        &self,
        pack: PackId,
        span: Range<u64>,
        group: Vec<Want>,
        results: &mut [Option<Result<Bytes, ReadFault>>],
    ) {
        let bytes = match self.storage().get_range(&pack::key(pack), span.clone()).await {
            Ok(bytes) => bytes,
            Err(error) if group.len() > 1 && error.kind == StorageErrorKind::OutOfRange => {
                // A cut pack may still hold the first of several: ask for each alone.
                for want in group {
                    let start = u64::from(want.place.offset);
                    let own = start..start + want.place.frame_len();
                    Box::pin(self.fetch_group(pack, own, vec![want], results)).await;
                }
                return;
            }
            Err(error) => {
                // A storage that does not answer is not asked once more for each of them.
                fail_all(unreadable(pack, error), &group, results);
                return;
            }
        };
        let seal = self.read_index().seal(pack);
        let cipher = match seal {
            Some(seal) => self.objects().pack_cipher(&pack::key(pack), seal).await,
            None => Err(Error::damaged(pack::key(pack), "it is absent")),
        };
        let cipher = match cipher {
            Ok(cipher) => cipher,
            Err(error) => {
                fail_all(ReadFault::from(error), &group, results);
                return;
            }
        };
        let repository = self.clone();
        let indices: Vec<_> = group.iter().map(|want| want.at).collect();
        let decoded = tokio::task::spawn_blocking(move || {
            let config = repository.config();
            let decode = |want: &Want| {
                let start = (u64::from(want.place.offset) - span.start) as usize;
                let frame = bytes.slice(start..start + want.place.frame_len() as usize);
                frame::decode(&frame, want.id, want.plain_len, cipher.as_ref(), &config.keys, repository.codec())
                    .map_err(|reason| ReadFault::Damaged(format!("{reason} (pack {pack})")))
            };
            group.iter().map(|want| (want.at, decode(want))).collect::<Vec<_>>()
        });
        match decoded.await {
            Ok(decoded) => {
                for (at, result) in decoded {
                    results[at] = Some(result);
                }
            }
            Err(_) => {
                for at in indices {
                    let stopped = Error::WriterStopped { reason: "a worker panicked".into() };
                    results[at] = Some(Err(ReadFault::Failed(stopped)));
                }
            }
        }
    }
}

/// Returns how many of the sorted chunks are read in one go, and which bytes of the pack.
fn leading_group(found: &[(PackId, Want)]) -> (usize, Range<u64>) {
    let (pack, first) = (&found[0].0, &found[0].1.place);
    let start = u64::from(first.offset);
    let mut end = start + first.frame_len();
    let mut len = 1;
    for (other, want) in &found[1..] {
        let at = u64::from(want.place.offset);
        let next = end.max(at + want.place.frame_len());
        if other != pack || at > end + MAX_GAP || next - start > MAX_GROUP {
            break;
        }
        end = next;
        len += 1;
    }
    (len, start..end)
}

/// Tells of each chunk of a group why none of them could be read.
fn fail_all(fault: ReadFault, group: &[Want], results: &mut [Option<Result<Bytes, ReadFault>>]) {
    let (first, rest) = group.split_first().expect("no group is empty");
    for want in rest {
        results[want.at] = Some(Err(alike(&fault)));
    }
    results[first.at] = Some(Err(fault));
}

/// Returns a fault that says the same: errors hold causes that cannot be copied.
fn alike(fault: &ReadFault) -> ReadFault {
    match fault {
        ReadFault::Damaged(reason) => ReadFault::Damaged(reason.clone()),
        ReadFault::Failed(Error::Storage(error)) => {
            let same = StorageError::new(error.kind, error.operation, &error.key);
            let same = match &error.source {
                Some(source) => same.because(source.to_string()),
                None => same,
            };
            ReadFault::Failed(same.into())
        }
        ReadFault::Failed(error) => ReadFault::Failed(Error::WriterStopped { reason: in_one_line(error) }),
    }
}

fn unreadable(pack: PackId, error: StorageError) -> ReadFault {
    match error.kind {
        StorageErrorKind::NotFound => ReadFault::Damaged(format!("its pack {pack} is absent")),
        StorageErrorKind::OutOfRange => ReadFault::Damaged(format!("its pack {pack} is cut short")),
        _ => ReadFault::Failed(error.into()),
    }
}

/// The most that one read of a pack asks for, in bytes.
const MAX_GROUP: u64 = 8 << 20;
/// Bytes between two frames that are read rather than asked for in two reads.
const MAX_GAP: u64 = 64 << 10;
