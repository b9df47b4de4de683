//! The data of open disks.

use std::{ffi::c_void, ops::Range, ptr, slice};

use bytes::Bytes;
use vixdisklib::blocking;
use vixdisklib_sys::{
    Block, BlockList, CompletionFunc, DiskHandle, MAX_CHUNKS, MIN_CHUNK_SECTORS, SECTOR, Sectors, VixCode, VixError,
};

use crate::{
    call::{self, Failure, Outcome},
    completion::Completion,
    disk::disk,
    given::{self, Kind},
    log::{self, Channel},
};

/// Reads sectors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Read(
    handle: DiskHandle,
    start: Sectors,
    count: Sectors,
    buffer: *mut u8,
) -> VixError {
    call::result("VixDiskLib_Read", || {
        let opened = disk(handle)?;
        let disk = opened.enter()?;
        let place = Place::new(&disk, start, count, buffer.cast_const())?;
        // SAFETY: the program's memory of so many bytes, for the time of the call, as it promises.
        let buffer = unsafe { place.memory_mut(buffer) };
        Ok(disk.read_into(place.offset, buffer)?)
    })
}

/// Writes sectors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Write(
    handle: DiskHandle,
    start: Sectors,
    count: Sectors,
    buffer: *const u8,
) -> VixError {
    call::result("VixDiskLib_Write", || {
        let opened = disk(handle)?;
        let disk = opened.enter()?;
        let place = Place::new(&disk, start, count, buffer)?;
        // SAFETY: the program's memory of so many bytes, for the time of the call, as it promises.
        let data = unsafe { place.memory(buffer) };
        Ok(disk.write_from(place.offset, data)?)
    })
}

/// Begins to read sectors: success is `VIX_ASYNC`, and the completion function is called once. With disks of this
/// machine that happens before this function returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ReadAsync(
    handle: DiskHandle,
    start: Sectors,
    count: Sectors,
    buffer: *mut u8,
    function: Option<CompletionFunc>,
    data: *mut c_void,
) -> VixError {
    call::result("VixDiskLib_ReadAsync", || {
        let pass = disk(handle)?.pass()?;
        let function = function.ok_or_else(|| Failure::null("callback"))?;
        let place = Place::new(&pass, start, count, buffer.cast_const())?;
        // SAFETY: the program's memory of so many bytes, until the completion function is called, as it promises.
        let buffer: &'static mut [u8] = unsafe { place.memory_mut(buffer) };
        let completion = Completion::new(function, data, pass);
        if completion.disk().is_direct() {
            let read = reported("VixDiskLib_ReadAsync", || completion.disk().read_into(place.offset, buffer));
            completion.call(read);
        } else {
            completion.disk().runtime().clone().spawn(async move {
                let read = completion.disk().asynchronous().read_into(place.offset, buffer).await;
                completion.call(reported("VixDiskLib_ReadAsync", || read));
            });
        }
        Err(begun())
    })
}

/// Begins to write sectors, as `ReadAsync` begins to read. Writes under way at once are done in no order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_WriteAsync(
    handle: DiskHandle,
    start: Sectors,
    count: Sectors,
    buffer: *const u8,
    function: Option<CompletionFunc>,
    data: *mut c_void,
) -> VixError {
    call::result("VixDiskLib_WriteAsync", || {
        let pass = disk(handle)?.pass()?;
        let function = function.ok_or_else(|| Failure::null("callback"))?;
        let place = Place::new(&pass, start, count, buffer)?;
        // SAFETY: the program's memory of so many bytes, at least for the time of the call, as it promises.
        let bytes = unsafe { place.memory(buffer) };
        let completion = Completion::new(function, data, pass);
        if completion.disk().is_direct() {
            let written = reported("VixDiskLib_WriteAsync", || completion.disk().write_from(place.offset, bytes));
            completion.call(written);
        } else {
            let bytes = Bytes::copy_from_slice(bytes);
            completion.disk().runtime().clone().spawn(async move {
                let written = completion.disk().asynchronous().write_at(place.offset, bytes).await;
                completion.call(reported("VixDiskLib_WriteAsync", || written));
            });
        }
        Err(begun())
    })
}

/// Waits for all asynchronous operations of a disk, their completion functions included.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_Wait(handle: DiskHandle) -> VixError {
    call::result("VixDiskLib_Wait", || disk(handle)?.wait())
}

/// Makes completed writes as durable as the transport can.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_Flush(handle: DiskHandle) -> VixError {
    call::result("VixDiskLib_Flush", || Ok(disk(handle)?.enter()?.flush()?))
}

/// Lists the allocated blocks of a range of whole chunks, each of at least 128 sectors.
///
/// Where nothing is known, all of the range is listed, with a line in the log that says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_QueryAllocatedBlocks(
    handle: DiskHandle,
    start: Sectors,
    count: Sectors,
    chunk: Sectors,
    list: *mut *mut BlockList,
) -> VixError {
    call::entry("VixDiskLib_QueryAllocatedBlocks", |library| {
        if list.is_null() {
            return Err(Failure::null("blockList"));
        }
        // SAFETY: not null; valid, as the program promises.
        unsafe { list.write(ptr::null_mut()) };
        let opened = disk(handle)?;
        let disk = opened.enter()?;
        check_chunks(start, count, chunk)?;
        let range = bytes_of(&disk, start, count)?;
        // The largest grid that a host may be asked for and that every chunk of the program is made of.
        let grid = (1 << chunk.trailing_zeros().max(MIN_CHUNK_SECTORS.trailing_zeros())).min(MAX_GRID_SECTORS) * SECTOR;
        let found = library.block_on(disk.asynchronous().allocated_in_chunks(range, grid))?;
        if let vixdisklib::AllocationBasis::Assumed(reason) = &found.basis {
            log::line(Channel::Log, &format!("{} counts as allocated: {reason}", disk.asynchronous().path()));
        }
        let blocks = on_chunks(found.areas.iter(), start, start + count, chunk);
        // SAFETY: as above.
        unsafe { list.write(given::blocks(&blocks)) };
        Ok(())
    })
}

/// Frees what `QueryAllocatedBlocks` gave; null is fine, anything else an error.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_FreeBlockList(list: *mut BlockList) -> VixError {
    call::result("VixDiskLib_FreeBlockList", || {
        if list.is_null() || given::take_back(list, Kind::Blocks) {
            return Ok(());
        }
        Err(Failure::new(VixCode::INVALID_ARG, "the list is none of this library, or was freed before"))
    })
}

fn check_chunks(start: Sectors, count: Sectors, chunk: Sectors) -> Outcome<()> {
    let wrong = |what: &str| {
        let text = format!("{count} sectors from {start} in chunks of {chunk}: {what}");
        Err(Failure::new(VixCode::INVALID_ARG, text))
    };
    if chunk < MIN_CHUNK_SECTORS {
        return wrong("a chunk has at least 128 sectors");
    }
    if !start.is_multiple_of(chunk) || !count.is_multiple_of(chunk) {
        return wrong("start and count must be multiples of the chunk");
    }
    if count / chunk > MAX_CHUNKS {
        return wrong("at most 524288 chunks can be asked for at once");
    }
    Ok(())
}

/// Rounds byte ranges outward to chunks, counted in sectors, and joins what then touches.
fn on_chunks<'a>(areas: impl Iterator<Item = &'a Range<u64>>, start: u64, end: u64, chunk: u64) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for area in areas {
        let from = (area.start / SECTOR / chunk * chunk).max(start);
        let to = area.end.div_ceil(SECTOR).next_multiple_of(chunk).min(end);
        match blocks.last_mut() {
            Some(last) if from <= last.offset + last.length => last.length = last.length.max(to - last.offset),
            _ => blocks.push(Block { offset: from, length: to - from }),
        }
    }
    blocks
}

/// Sectors of a disk as bytes of memory.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    len: usize,
}

impl Place {
    fn new(disk: &blocking::Disk, start: Sectors, count: Sectors, buffer: *const u8) -> Outcome<Self> {
        if buffer.is_null() {
            return Err(Failure::null("buffer"));
        }
        let range = bytes_of(disk, start, count)?;
        let len = usize::try_from(range.end - range.start).ok().filter(|len| *len <= isize::MAX as usize);
        let len = len.ok_or_else(|| Failure::new(VixCode::ARGUMENT_TOO_BIG, "more than memory can have"))?;
        Ok(Self { offset: range.start, len })
    }

    /// # Safety
    /// `buffer` points to so many bytes, which nothing else uses as long as the answer is used.
    unsafe fn memory_mut<'a>(self, buffer: *mut u8) -> &'a mut [u8] {
        // SAFETY: as the caller promises. The bytes may never have been written to: they are not read either, and
        // every value of a byte is one.
        unsafe { slice::from_raw_parts_mut(buffer, self.len) }
    }

    /// # Safety
    /// `buffer` points to so many bytes, to which nothing writes as long as the answer is used.
    unsafe fn memory<'a>(self, buffer: *const u8) -> &'a [u8] {
        // SAFETY: as the caller promises.
        unsafe { slice::from_raw_parts(buffer, self.len) }
    }
}

/// The byte range of sectors, which must be inside the disk: before the program's memory is looked at.
fn bytes_of(disk: &blocking::Disk, start: Sectors, count: Sectors) -> Outcome<Range<u64>> {
    let capacity = disk.asynchronous().capacity();
    let end = start.checked_add(count).and_then(|end| end.checked_mul(SECTOR)).filter(|end| *end <= capacity);
    let end = end.ok_or_else(|| {
        let text = format!("{count} sectors from {start} are not inside a disk of {} sectors", capacity / SECTOR);
        Failure::new(VixCode::DISK_OUTOFRANGE, text)
    })?;
    Ok(start * SECTOR..end)
}

/// The number of what the work gave, with a line in the log when it is a failure. A panic is one too: it must not make
/// a second answer out of the completion function's.
fn reported(function: &'static str, work: impl FnOnce() -> vixdisklib::Result<()>) -> VixError {
    call::result(function, || Ok(work()?))
}

fn begun() -> Failure {
    Failure::new(VixCode::ASYNC, "")
}

/// 512 GiB: no chunk that is larger makes the question cheaper, and sectors would not fit into bytes.
const MAX_GRID_SECTORS: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_chunks_inside_what_was_asked_for() {
        let areas = [70_000..70_001, 140_000..300_000, 500_000..524_288];
        let blocks = on_chunks(areas.iter(), 128, 1024, 128);
        assert_eq!(blocks, [Block { offset: 128, length: 512 }, Block { offset: 896, length: 128 }]);
        let area = 65_536..131_072;
        let odd = on_chunks([&area].into_iter(), 0, 600, 300);
        assert_eq!(odd, [Block { offset: 0, length: 300 }]);
    }

    #[test]
    fn chunks_have_to_fit() {
        assert!(check_chunks(0, 1280, 128).is_ok());
        assert!(check_chunks(0, 0, 128).is_ok());
        for (start, count, chunk) in [(0, 128, 64), (0, 128, 0), (1, 128, 128), (0, 100, 128), (0, 524_289 * 128, 128)]
        {
            assert_eq!(check_chunks(start, count, chunk).unwrap_err().code, VixCode::INVALID_ARG);
        }
    }
}
