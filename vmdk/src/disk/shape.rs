//! What the header of a sparse file says about its grains. A new format is a new arm of [`sparse`].

use std::ops::Range;

use super::{Access, open::Files};
use crate::{
    SECTOR,
    cache::FileId,
    error::{Error, Result},
    grains::{Directory, Entries, Grains},
    layout::{
        COWD_ENTRIES_PER_TABLE, COWD_HEADER_BYTES, CowdHeader, HEADER_BYTES, Magic, SESPARSE_ENTRIES_PER_TABLE,
        SESPARSE_GRAIN_SECTORS, SESPARSE_HEADER_BYTES, SeSparseHeader, SeSparseVolatileHeader, SparseFlags,
        SparseHeader,
    },
};

/// Reads the header of a sparse file, whatever its kind.
pub(super) fn sparse<F: Files>(
    files: &mut F,
    file: FileId,
    access: Access,
    ignore_journal: bool,
) -> Result<Grains, F::Stop> {
    let magic = magic(files, file)?;
    let name = files.name(file);
    if access == Access::ReadWrite && magic != Some(Magic::Kdmv) {
        let reason = "ESXi alone writes COWD and seSparse extents; open the disk read-only";
        return Err(Error::not_supported(&*name, "writing to this kind of extent", reason).into());
    }
    match magic {
        Some(Magic::Kdmv) => hosted(files, file, access),
        Some(Magic::Cowd) => cowd(files, file),
        Some(Magic::SeSparse) => sesparse(files, file, ignore_journal),
        None => Err(Error::malformed(&*name, "it is no sparse extent of a known kind").into()),
    }
}

/// Where a sparse file has its own descriptor; only hosted ones do.
pub(super) fn embedded_descriptor<F: Files>(files: &mut F, file: FileId) -> Result<Option<Range<u64>>, F::Stop> {
    if magic(files, file)? != Some(Magic::Kdmv) {
        return Ok(None);
    }
    let (header, len) = (hosted_header(files, file, 0)?, files.len(file)?);
    Ok(header.descriptor_range(len, &files.name(file))?)
}

fn magic<F: Files>(files: &mut F, file: FileId) -> Result<Option<Magic>, F::Stop> {
    let len = files.len(file)?;
    Ok(Magic::of(&files.read(file, 0..len.min(8))?))
}

fn hosted<F: Files>(files: &mut F, file: FileId, access: Access) -> Result<Grains, F::Stop> {
    let (mut header, len, name) = (hosted_header(files, file, 0)?, files.len(file)?, files.name(file));
    let mut entries = Entries::Hosted;
    if header.is_stream_optimized() {
        let not_supported = |what, why| Err(Error::not_supported(&*name, what, why).into());
        if !header.flags.has(SparseFlags::COMPRESSED | SparseFlags::MARKERS) || header.compression != 1 {
            return not_supported("this sparse extent", "compression and markers are known only together");
        }
        if access == Access::ReadWrite {
            return not_supported(
                "writing to a compressed extent",
                "open it read-only, or copy it to a disk of another kind",
            );
        }
        entries = Entries::Packed { file_len: len };
        if header.directory_sector == SparseHeader::DIRECTORY_AT_END {
            header = footer(files, file, &header)?;
        }
    }
    let offset = header.directory_offset(header.directory_sector, len, &name)?;
    let directory = Directory { offset, len: header.directory_entries() };
    Ok(header.extent_grains(name, directory, entries))
}

/// The header at the end of a stream, which knows where the directory is.
fn footer<F: Files>(files: &mut F, file: FileId, header: &SparseHeader) -> Result<SparseHeader, F::Stop> {
    let (len, name) = (files.len(file)?, files.name(file));
    let bad = |problem: &str| Error::malformed(&*name, format!("{problem}; its beginning can be read as a stream"));
    // The end marker comes after it.
    let at = len.checked_sub(2 * SECTOR).filter(|&at| at >= SECTOR).ok_or_else(|| bad("it is cut"))?;
    let bytes = array::<HEADER_BYTES, F>(files, file, at)?;
    let footer = SparseHeader::parse(&bytes, &name).map_err(|_| bad("it has no footer, it is cut"))?;
    let sizes = |header: &SparseHeader| (header.capacity_sectors, header.grain_sectors);
    if sizes(&footer) != sizes(header) || footer.directory_sector == SparseHeader::DIRECTORY_AT_END {
        return Err(bad("its footer contradicts its header").into());
    }
    Ok(footer)
}

fn hosted_header<F: Files>(files: &mut F, file: FileId, at: u64) -> Result<SparseHeader, F::Stop> {
    Ok(SparseHeader::parse(&array::<HEADER_BYTES, F>(files, file, at)?, &files.name(file))?)
}

fn cowd<F: Files>(files: &mut F, file: FileId) -> Result<Grains, F::Stop> {
    let (bytes, len, name) = (array::<COWD_HEADER_BYTES, F>(files, file, 0)?, files.len(file)?, files.name(file));
    let header = CowdHeader::parse(&bytes, &name)?;
    let offset = header.directory_range(len, &name)?.start;
    Ok(Grains {
        name,
        capacity: header.capacity(),
        grain_bytes: u64::from(header.grain_sectors) * SECTOR,
        entries_per_table: u64::from(COWD_ENTRIES_PER_TABLE),
        directory: Directory { offset, len: header.directory_entries() },
        entries: Entries::Cowd,
    })
}

fn sesparse<F: Files>(files: &mut F, file: FileId, ignore_journal: bool) -> Result<Grains, F::Stop> {
    let (bytes, len, name) = (array::<SESPARSE_HEADER_BYTES, F>(files, file, 0)?, files.len(file)?, files.name(file));
    let header = SeSparseHeader::parse(&bytes, &name)?;
    let bytes = array::<SESPARSE_HEADER_BYTES, F>(files, file, header.volatile_header.sector * SECTOR)?;
    if SeSparseVolatileHeader::parse(&bytes, &name)?.replay_journal && !ignore_journal {
        let reason = "a host is writing it, or died doing so: read a snapshot's frozen parent instead, or let a host \
                      open and close the disk; for salvage, see OpenOptions::ignore_journal";
        return Err(Error::not_supported(&*name, "a seSparse extent with a journal to replay", reason).into());
    }
    let offset = header.directory_range(len, &name)?.start;
    Ok(Grains {
        name,
        capacity: header.capacity(),
        grain_bytes: SESPARSE_GRAIN_SECTORS * SECTOR,
        entries_per_table: u64::from(SESPARSE_ENTRIES_PER_TABLE),
        directory: Directory { offset, len: header.directory_entries() },
        entries: Entries::SeSparse(Box::new(header)),
    })
}

fn array<const N: usize, F: Files>(files: &mut F, file: FileId, at: u64) -> Result<[u8; N], F::Stop> {
    let bytes = files.read(file, at..at.saturating_add(N as u64))?;
    bytes.try_into().map_err(|_| Error::malformed(&*files.name(file), format!("no header at offset {at}")).into())
}
