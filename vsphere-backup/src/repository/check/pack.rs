//! Checking one pack, a window of it at a time.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    thread,
};

use super::super::{
    Repository,
    frame::{self, PackEntry},
    id::{ChunkId, PackId},
    pack,
    storage::{Storage, StorageError, StorageErrorKind},
    verify::VerifyLevel,
};

/// What a pack is like.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) damage: Option<Error>,
    /// Chunks whose frames are damaged.
    pub(super) bad: Vec<ChunkId>,
    /// Bytes read.
    pub(super) bytes: u64,
}

/// Checks a pack at a level.
///
/// # Errors
/// [`Error::Storage`], also when it is gone; [`Error::UnsupportedVersion`], [`Error::UnknownDataKey`].
pub(super) async fn check(repository: &Repository, id: PackId, size: u64, level: VerifyLevel) -> Result<Checked> {
    let key = pack::key(id);
    let footer = match pack::read_footer(repository.storage(), id, size).await {
        Ok(footer) => Ok(footer),
        Err(error) if error.is_damage() => Err(error),
        Err(Error::Storage(StorageError { kind: StorageErrorKind::OutOfRange, .. })) => {
            Err(Error::damaged(&key, "it is shorter than it was listed"))
        }
        Err(error @ (Error::UnsupportedVersion { .. } | Error::UnsupportedFeature { .. })) => {
            // Or a flipped bit: what packs say of their version is under the hash of the whole only.
            let (hash, _) = read_through(repository.storage(), id, size, Vec::new(), Arc::new(|_, _| true)).await?;
            if hash == id {
                return Err(error);
            }
            Err(Error::damaged(&key, "its content does not match its name"))
        }
        Err(error) => return Err(error),
    };
    let seal = repository.read_index().seal(id);
    let footer = footer.and_then(|footer| match seal {
        Some(seal) if seal != footer.seal => Err(Error::damaged(&key, "the chunk index names another salt of it")),
        _ => Ok(footer),
    });
    if level == VerifyLevel::Structure || size > pack::MAX_SIZE {
        return Ok(Checked { damage: footer.err(), ..Default::default() });
    }
    // A damaged pack may still hold sound chunks, where the index says.
    let (frames, seal) = match &footer {
        Ok(footer) => (footer.entries.iter().map(Frame::from).collect(), Some(footer.seal)),
        Err(_) => {
            let known = repository.read_index().frames_in(id);
            (known.into_iter().map(|(id, range)| Frame { id, range, plain: None }).collect(), seal)
        }
    };
    let cipher = match seal {
        Some(seal) if level == VerifyLevel::Full => repository.objects().pack_cipher(&key, seal).await?,
        _ => None,
    };
    let decoder = repository.clone();
    let look: Look = Arc::new(move |bytes: &Bytes, frame: &Frame| {
        if level < VerifyLevel::Full {
            return frame::is_intact(bytes, frame.id);
        }
        let (config, plain) = (decoder.config(), frame.plain.unwrap_or_else(|| frame::plain_len(bytes)));
        frame::decode(bytes, frame.id, plain, cipher.as_ref(), &config.keys, decoder.codec()).is_ok()
    });
    let (hash, bad) = match read_through(repository.storage(), id, size, frames, look).await {
        Err(Error::Storage(StorageError { kind: StorageErrorKind::OutOfRange, .. })) => {
            let damage = Some(Error::damaged(&key, "it is shorter than it was listed"));
            return Ok(Checked { damage, ..Default::default() });
        }
        other => other?,
    };
    let damage = match footer {
        _ if hash != id => Some(Error::damaged(&key, "its content does not match its name")),
        Err(error) => Some(error),
        Ok(_) if !bad.is_empty() => {
            Some(Error::damaged(&key, format!("{} of its chunks do not match their identities", bad.len())))
        }
        Ok(_) => None,
    };
    Ok(Checked { damage, bad, bytes: size })
}

/// Checks what whoever has no key can check of a pack; returns how many chunks it holds.
///
/// # Errors
/// [`Error::Damaged`], [`Error::UnsupportedVersion`], [`Error::Storage`].
pub(super) async fn check_hash(storage: &dyn Storage, id: PackId, size: u64) -> Result<u64> {
    let footer = match pack::read_footer(storage, id, size).await {
        Err(error @ (Error::UnsupportedVersion { .. } | Error::UnsupportedFeature { .. })) => Err(error),
        other => Ok(other?),
    };
    let entries = footer.as_ref().map(|footer| footer.entries.clone()).unwrap_or_default();
    let frames: Vec<_> = entries.iter().map(Frame::from).collect();
    let intact: Look = Arc::new(|bytes: &Bytes, frame: &Frame| frame::is_intact(bytes, frame.id));
    let (hash, bad) = read_through(storage, id, size, frames, intact).await?;
    if hash != id {
        return Err(Error::damaged(pack::key(id), "its content does not match its name"));
    }
    let footer = footer?;
    match bad.len() {
        0 => Ok(footer.entries.len() as u64),
        count => Err(Error::damaged(pack::key(id), format!("{count} of its frames are not valid"))),
    }
}

/// A chunk's frame within a pack.
#[derive(Clone, Debug)]
struct Frame {
    id: ChunkId,
    range: Range<u64>,
    /// Bytes of the chunk, where they are known.
    plain: Option<u32>,
}

impl From<&PackEntry> for Frame {
    fn from(entry: &PackEntry) -> Self {
        Self { id: entry.id, range: entry.frame(), plain: Some(entry.plain) }
    }
}

/// Tells whether a frame is sound.
type Look = Arc<dyn Fn(&Bytes, &Frame) -> bool + Send + Sync>;

/// Reads a pack from its begin to its end, a window at a time; returns what its name has to be, and the chunks whose
/// frames are not sound.
async fn read_through(
    storage: &dyn Storage,
    id: PackId,
    size: u64,
    mut frames: Vec<Frame>,
    look: Look,
) -> Result<(PackId, Vec<ChunkId>)> {
    let key = pack::key(id);
    frames.sort_unstable_by_key(|frame| frame.range.start);
    let hasher = Arc::new(Mutex::new(blake3::Hasher::new()));
    let mut bad = Vec::new();
    let mut left = &frames[..];
    let mut start = 0;
    while start < size {
        let cut = (start + WINDOW).min(size);
        let (here, behind) = left.split_at(left.partition_point(|frame| frame.range.start < cut));
        left = behind;
        // The last frame of a window may reach a little over its end.
        let end = here.iter().map(|frame| frame.range.end).max().unwrap_or(cut).clamp(cut, size);
        let bytes = storage.get_range(&key, start..end).await?;
        let (here, look, hasher) = (here.to_vec(), look.clone(), hasher.clone());
        let work = thread::run("checking a pack", move || {
            let mut hasher = hasher.lock().unwrap_or_else(PoisonError::into_inner);
            hasher.update(&bytes[..(cut - start) as usize]);
            let is_bad = |frame: &Frame| {
                frame.range.end > end || {
                    let place = (frame.range.start - start) as usize..(frame.range.end - start) as usize;
                    !look(&bytes.slice(place), frame)
                }
            };
            here.iter().filter(|frame| is_bad(frame)).map(|frame| frame.id).collect::<Vec<_>>()
        });
        bad.extend(work.await?);
        start = cut;
    }
    let hash = hasher.lock().unwrap_or_else(PoisonError::into_inner).finalize();
    Ok((PackId(*hash.as_bytes()), bad))
}

/// Bytes of a pack in memory at a time.
const WINDOW: u64 = 8 << 20;
