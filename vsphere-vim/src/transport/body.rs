//! Collects an answer's body: bounded, and decompressed while it arrives.

use std::{io, time::Duration};

use bytes::Bytes;
use flate2::write::GzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{TransportError, TransportErrorKind};

/// How the body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Bytes of content.
    pub(super) size: usize,
    /// The longest silence.
    pub(super) idle: Duration,
    /// All of it together.
    pub(super) total: Duration,
}

/// Reads `body` to its end, within `limits`.
pub(super) async fn collect(
    mut body: Incoming,
    encoding: Encoding,
    limits: BodyLimits,
) -> Result<Bytes, TransportError> {
    let mut collector = Collector::new(encoding, limits.size);
    let started = Instant::now();
    // A limit beyond the clock's range is none.
    let end = started.checked_add(limits.total);
    loop {
        let silence = Instant::now().checked_add(limits.idle);
        let (until, limit, what) = match (silence, end) {
            (Some(silence), Some(end)) if end < silence => (end, limits.total, "the answer did not end"),
            (Some(silence), _) => (silence, limits.idle, "no further data"),
            (None, Some(end)) => (end, limits.total, "the answer did not end"),
            (None, None) => (started + FAR, FAR, "the answer did not end"),
        };
        let frame = timeout_at(until, body.frame()).await.map_err(|_| {
            let text = format!("{what} within {} s", limit.as_secs_f32());
            TransportError::new(TransportErrorKind::Timeout, text)
        })?;
        match frame {
            None => return collector.finish().map_err(refusal),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    collector.push(data).map_err(refusal)?;
                }
            }
            Some(Err(error)) => return Err(TransportError::new(TransportErrorKind::Disconnected, error)),
        }
    }
}

/// Stands for "never".
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Maps the collector's errors: over the limit, or broken gzip.
fn refusal(error: io::Error) -> TransportError {
    let kind = if error.kind() == io::ErrorKind::FileTooLarge {
        TransportErrorKind::BodyTooLarge
    } else {
        TransportErrorKind::Malformed
    };
    TransportError::new(kind, error)
}

enum Collector {
    Identity(Bounded),
    Gzip(Box<GzDecoder<Bounded>>),
}

impl Collector {
    fn new(encoding: Encoding, limit: usize) -> Self {
        let bounded = Bounded { data: Vec::new(), limit };
        match encoding {
            Encoding::Identity => Self::Identity(bounded),
            Encoding::Gzip => Self::Gzip(Box::new(GzDecoder::new(bounded))),
        }
    }

    fn push(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(bounded) => io::Write::write_all(bounded, data),
            Self::Gzip(decoder) => io::Write::write_all(&mut **decoder, data),
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        let bounded = match self {
            Self::Identity(bounded) => bounded,
            Self::Gzip(decoder) => decoder.finish()?,
        };
        Ok(bounded.data.into())
    }
}

/// A vector that refuses to grow beyond its limit.
struct Bounded {
    data: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.limit.saturating_sub(self.data.len()) {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the answer is larger than the limit of {} bytes", self.limit),
            ));
        }
        self.data.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_split_anywhere_is_decoded() {
        let packed = gzip(b"an answer, an answer, an answer");
        for cut in 0..packed.len() {
            let mut collector = Collector::new(Encoding::Gzip, 1000);
            collector.push(&packed[..cut]).unwrap();
            collector.push(&packed[cut..]).unwrap();
            assert_eq!(&collector.finish().unwrap()[..], b"an answer, an answer, an answer");
        }
    }

    #[test]
    fn a_gzip_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 50 << 20]);
        let mut collector = Collector::new(Encoding::Gzip, 1 << 20);
        let error = collector.push(&bomb).and_then(|()| collector.finish().map(drop)).unwrap_err();
        assert_eq!(refusal(error).kind(), TransportErrorKind::BodyTooLarge);
    }

    #[test]
    fn truncated_gzip_is_an_error() {
        let packed = gzip(b"an answer");
        let mut collector = Collector::new(Encoding::Gzip, 1000);
        let outcome = collector.push(&packed[..packed.len() - 5]).and_then(|()| collector.finish());
        assert!(outcome.is_err());
    }

    #[test]
    fn the_limit_is_exact() {
        let mut collector = Collector::new(Encoding::Identity, 4);
        collector.push(b"1234").unwrap();
        assert!(collector.push(b"5").is_err());
    }
}
