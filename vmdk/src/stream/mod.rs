//! `streamOptimized` disks as streams: written to a sink that cannot seek, read from a source that cannot either.
//!
//! This is the form in which vSphere exports and imports disks (HttpNfcLease, OVA). Grains of 64 KiB are deflated
//! one by one, each behind a marker that says where it belongs; grains of zeros are left out. The tables come after
//! the data, so that a writer needs no seek; a reader that only goes forward needs none of them.
//!
//! ```
//! use vmdk::stream::{StreamReader, StreamSpec, StreamWriter};
//!
//! # fn main() -> vmdk::Result<()> {
//! let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(1 << 20))?;
//! writer.write_at(65536, b"some data")?;
//! let stream = writer.finish()?;
//!
//! let mut reader = StreamReader::open(stream.as_slice(), "disk.vmdk")?;
//! assert_eq!(reader.capacity(), 1 << 20);
//! while let Some(grain) = reader.next_grain()? {
//!     assert_eq!((grain.offset, &grain.data[..9]), (65536, &b"some data"[..]));
//! }
//! # Ok(())
//! # }
//! ```
//! Whole disks go through [`export`] and [`import`] (or [`Export`] and [`Import`], which say how), on all processors.
//!
//! What is left of a damaged or truncated stream is found by a [`SalvageReader`], which says what is not.
//!
//! Sans I/O, for those who move the bytes themselves: [`StreamDecoder`] takes pieces of a stream as they come;
//! [`Packer`] and [`StreamEncoder`] make them; a [`Salvager`] scans them.
//! With the feature `async`, `AsyncStreamWriter` and `AsyncStreamReader` are over any sink and source that has a future.

mod assemble;
#[cfg(feature = "async")]
mod asynchronous;
mod buffer;
mod codec;
mod crew;
mod decode;
mod density;
mod encode;
mod export;
mod import;
mod ledger;
mod order;
mod packed;
mod read;
mod salvage;
mod spec;
mod write;

#[cfg(feature = "async")]
pub use self::asynchronous::{AsyncSink, AsyncSource, AsyncStreamReader, AsyncStreamWriter};
pub(crate) use self::codec::GrainInflater;
pub use self::{
    decode::{Grain, StreamDecoder, StreamEnd},
    encode::StreamEncoder,
    export::{Export, Progress, export},
    import::{Import, import},
    order::GrainOrder,
    packed::{PackedGrains, Packer},
    read::StreamReader,
    salvage::{Misplaced, SalvageReader, SalvageReport, Salvager},
    spec::StreamSpec,
    write::StreamWriter,
};
