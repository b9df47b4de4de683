//! Whole disks to streams and back.

use std::io::{Read, Write};

use super::{GRAIN, StreamEnd, StreamReader, StreamSpec, StreamWriter};
use crate::{
    error::{Error, Result},
    image::{Image, MapKind},
};

/// Writes all of `image` to `sink` as a stream; what its map calls empty is not read.
///
/// # Errors
/// Those of the image and of the sink, and [`Error::InvalidInput`] when `spec` has another capacity than the image.
pub fn export<W: Write>(image: &dyn Image, sink: W, spec: &StreamSpec) -> Result<W> {
    let mut writer = StreamWriter::new(sink, spec)?;
    if writer.capacity() != image.capacity() {
        return Err(Error::invalid("capacity", "the stream's is not that of the image"));
    }
    let mut buffer = vec![0; GRAIN as usize * 16];
    for entry in image.map(0..image.capacity()) {
        let entry = entry?;
        if entry.kind != MapKind::Data {
            continue;
        }
        let mut at = entry.range.start;
        while at < entry.range.end {
            let len = (entry.range.end - at).min(buffer.len() as u64) as usize;
            image.read_at(at, &mut buffer[..len])?;
            writer.write_at(at, &buffer[..len])?;
            at += len as u64;
        }
    }
    writer.finish()
}

/// Writes a stream's grains to `image`. What the stream leaves out is made zero.
///
/// # Errors
/// Those of stream and image, and [`Error::InvalidInput`] when the image is smaller than the stream's disk.
pub fn import<R: Read>(reader: &mut StreamReader<R>, image: &dyn Image) -> Result<StreamEnd> {
    let capacity = reader.capacity();
    if image.capacity() < capacity {
        let problem = format!("{} bytes, less than the {capacity} of the stream", image.capacity());
        return Err(Error::invalid("capacity", problem));
    }
    let mut done = 0;
    while let Some(grain) = reader.next_grain()? {
        if done < grain.offset {
            image.zero_at(done..grain.offset)?;
        }
        image.write_at(grain.offset, grain.data)?;
        done = grain.offset + grain.data.len() as u64;
    }
    if done < capacity {
        image.zero_at(done..capacity)?;
    }
    // `next_grain` has ended, so there is an end.
    Ok(reader.end().unwrap_or(StreamEnd::Unmarked))
}
