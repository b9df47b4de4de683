//! Compression contexts, which are costly to make and so are kept.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use zstd::bulk::{Compressor, Decompressor};

/// Compression contexts, which are costly to make and so are kept.
#[derive(Default)]
pub(crate) struct Codec {
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl Codec {
    /// Takes a compressor, which comes back when it is dropped.
    ///
    /// # Errors
    /// When there is no memory for a new one.
    pub(crate) fn encoder(&self) -> std::io::Result<Encoder<'_>> {
        let kept = lock(&self.compressors).pop();
        let compressor = match kept {
            Some(compressor) => compressor,
            None => Compressor::new(LEVEL)?,
        };
        Ok(Encoder { codec: self, compressor: Some(compressor) })
    }

    pub(super) fn decompress(&self, stored: &[u8], capacity: usize) -> std::io::Result<Vec<u8>> {
        let kept = lock(&self.decompressors).pop();
        let mut context = match kept {
            Some(context) => context,
            None => Decompressor::new()?,
        };
        let plain = context.decompress(stored, capacity);
        let mut pool = lock(&self.decompressors);
        if pool.len() < POOL {
            pool.push(context);
        }
        plain
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}

/// A compressor out of a [`Codec`].
pub(crate) struct Encoder<'a> {
    codec: &'a Codec,
    /// Taken only when dropped.
    compressor: Option<Compressor<'static>>,
}

impl Encoder<'_> {
    /// Compresses into `out`, which has the room that a chunk may need at worst; returns how much of it.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
        self.compressor.as_mut().expect("taken only when dropped").compress_to_buffer(plain, out)
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        let mut pool = lock(&self.codec.compressors);
        if pool.len() < POOL {
            pool.extend(self.compressor.take());
        }
    }
}

// What these locks guard is a list of spare parts: whole after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Level 1 is the fastest of zstd's own levels; higher ones cost more CPU than they save.
const LEVEL: i32 = 1;
const POOL: usize = 16;
