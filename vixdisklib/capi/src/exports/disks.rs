//! Open disks: opening, closing, facts, chains.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
    sync::Arc,
};

use vixdisklib::{Access, CompressionWish, Disk, DiskInfo, OpenOptions, TransportMode, blocking};
use vixdisklib_sys::{
    AdapterType, Bool, ConnectionHandle, DiskHandle, DiskType, Geometry, Info, InfoBase, OpenFlags, ProgressFunc,
    SECTOR, VixCode, VixError,
};

use crate::{
    call::{self, Failure, Outcome},
    connection::{invalid, linked},
    disk::{DISKS, Opened, disk},
    exports::files::kind_of,
    given::{self, Kind, Texts},
    progress, text,
};

/// Opens a disk. It stays usable when its connection is ended before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Open(
    connection: ConnectionHandle,
    path: *const c_char,
    flags: u32,
    handle: *mut DiskHandle,
) -> VixError {
    call::entry("VixDiskLib_Open", |library| {
        if handle.is_null() {
            return Err(Failure::null("diskHandle"));
        }
        // SAFETY: not null; valid, as the program promises.
        unsafe { handle.write(ptr::null_mut()) };
        // SAFETY: as the program promises.
        let path = unsafe { text::required("path", path) }?;
        let linked = linked(connection)?;
        let opened = library.block_on(linked.connection().open_with(path, options_of(flags)?))?;
        let opened = Arc::new(Opened::new(blocking::Disk::new(opened, library.runtime()), linked));
        let admitted = library.admit(|| DISKS.insert(Arc::clone(&opened))).inspect_err(|_| {
            // Nothing was written, so that nothing can be lost.
            let _ = opened.close(library);
        })?;
        // SAFETY: as above.
        unsafe { handle.write(admitted as DiskHandle) };
        Ok(())
    })
}

fn options_of(flags: u32) -> Outcome<OpenOptions> {
    let flags = OpenFlags(flags);
    let known = OpenFlags::UNBUFFERED.0 | OpenFlags::SINGLE_LINK.0 | OpenFlags::READ_ONLY.0;
    if flags.0 & !(known | OpenFlags::COMPRESSION_MASK.0) != 0 {
        return Err(Failure::new(VixCode::INVALID_ARG, format!("flags {:#x} have unknown bits", flags.0)));
    }
    let mut options = OpenOptions::new()
        .unbuffered(flags.contains(OpenFlags::UNBUFFERED))
        .single_link(flags.contains(OpenFlags::SINGLE_LINK));
    if flags.contains(OpenFlags::READ_ONLY) {
        options = options.access(Access::ReadOnly);
    }
    if let Some((_, wish)) = COMPRESSIONS.iter().find(|(flag, _)| flags.contains(*flag)) {
        options = options.compression(*wish);
    }
    Ok(options)
}

/// A wish: bits of the mask that are not here are the same as a compression that a host refuses. Of several, the first.
const COMPRESSIONS: [(OpenFlags, CompressionWish); 3] = [
    (OpenFlags::COMPRESSION_ZLIB, CompressionWish::Zlib),
    (OpenFlags::COMPRESSION_FASTLZ, CompressionWish::FastLz),
    (OpenFlags::COMPRESSION_SKIPZ, CompressionWish::SkipZ),
];

/// Closes a disk after what is under way on it. The handle is invalid afterwards, whatever the answer.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_Close(handle: DiskHandle) -> VixError {
    call::entry("VixDiskLib_Close", |library| {
        let opened = disk(handle)?;
        opened.check_may_close()?;
        DISKS.remove(handle as usize).ok_or_else(|| invalid("disk"))?;
        opened.close(library)
    })
}

/// Describes a disk, always in the structure of 7.0: older programs do not look at its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetInfo(handle: DiskHandle, info: *mut *mut Info) -> VixError {
    call::entry("VixDiskLib_GetInfo", |_| {
        if info.is_null() {
            return Err(Failure::null("info"));
        }
        // SAFETY: not null; valid, as the program promises.
        unsafe { info.write(ptr::null_mut()) };
        let found = disk(handle)?.enter()?.info()?;
        // SAFETY: as above.
        unsafe { info.write(info_of(&found)) };
        Ok(())
    })
}

fn info_of(found: &DiskInfo) -> *mut Info {
    let mut texts = Texts::default();
    let geometry = |geometry: &vixdisklib::Geometry| Geometry {
        cylinders: u32::try_from(geometry.cylinders).unwrap_or(u32::MAX),
        heads: geometry.heads,
        sectors: geometry.sectors,
    };
    let adapter_type = match found.adapter_type.as_deref() {
        Some("ide") => AdapterType::IDE,
        Some("buslogic") => AdapterType::SCSI_BUSLOGIC,
        Some("lsilogic") => AdapterType::SCSI_LSILOGIC,
        _ => AdapterType::UNKNOWN,
    };
    let base = InfoBase {
        bios_geometry: found.bios_geometry.as_ref().map(geometry).unwrap_or_default(),
        physical_geometry: geometry(&found.geometry),
        capacity: found.capacity / SECTOR,
        adapter_type,
        // A disk whose files cannot be counted is at least one.
        num_links: found.links.map_or(1, |links| c_int::try_from(links).unwrap_or(c_int::MAX)),
        parent_file_name_hint: texts.pointer(found.parent_hint.as_deref()),
        uuid: texts.pointer(found.uuid.as_deref()),
    };
    let (logical_sector_size, physical_sector_size) = (found.logical_sector_size, found.physical_sector_size);
    given::info(Info { base, logical_sector_size, physical_sector_size }, texts)
}

/// Frees what `GetInfo` gave; anything else is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_FreeInfo(info: *mut Info) {
    call::guarded("VixDiskLib_FreeInfo", || given::take_back(info, Kind::Info));
}

/// The transport of a disk; null for what is no disk. The text is valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_GetTransportMode(handle: DiskHandle) -> *const c_char {
    let mut name: *const c_char = ptr::null();
    // The error has been logged; null is all that this function can answer.
    let _ = call::entry("VixDiskLib_GetTransportMode", |_| {
        name = name_of(disk(handle)?.enter()?.asynchronous().transport()).as_ptr();
        Ok(())
    });
    name
}

fn name_of(mode: TransportMode) -> &'static CStr {
    match mode {
        TransportMode::File => c"file",
        TransportMode::Nbd => c"nbd",
        TransportMode::NbdSsl => c"nbdssl",
        TransportMode::Https => c"https",
        TransportMode::San => c"san",
        TransportMode::HotAdd => c"hotadd",
        _ => c"other",
    }
}

/// Makes a child of a disk of this machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_CreateChild(
    parent: DiskHandle,
    child_path: *const c_char,
    disk_type: DiskType,
    function: Option<ProgressFunc>,
    data: *mut c_void,
) -> VixError {
    call::entry("VixDiskLib_CreateChild", |library| {
        // SAFETY: as the program promises.
        let path = unsafe { text::required("childPath", child_path) }?;
        let opened = disk(parent)?;
        let parent = opened.enter()?;
        let (parent, kind) = (parent.asynchronous(), kind_of(disk_type)?);
        Ok(progress::run(library, function, data, |progress| parent.create_child(&path, kind, progress))?)
    })
}

/// Tells whether `child`, opened as a single link, can be put on `parent`.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_IsAttachPossible(parent: DiskHandle, child: DiskHandle) -> VixError {
    call::entry("VixDiskLib_IsAttachPossible", |library| {
        let (parent, child) = (disk(parent)?, disk(child)?);
        let (parent, child) = (parent.enter()?, child.enter()?);
        Ok(library.block_on(Disk::is_attach_possible(parent.asynchronous(), child.asynchronous()))?)
    })
}

/// Puts `child`, opened as a single link, on `parent`: it then reads as the chain.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_Attach(parent: DiskHandle, child: DiskHandle) -> VixError {
    call::entry("VixDiskLib_Attach", |library| {
        let (parent, child) = (disk(parent)?, disk(child)?);
        let (parent, child) = (parent.enter()?, child.enter()?);
        Ok(library.block_on(Disk::attach(parent.asynchronous(), child.asynchronous()))?)
    })
}

/// Gives the space of zeros back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Shrink(
    handle: DiskHandle,
    function: Option<ProgressFunc>,
    data: *mut c_void,
) -> VixError {
    call::entry("VixDiskLib_Shrink", |library| {
        let opened = disk(handle)?;
        let disk = opened.enter()?;
        Ok(progress::run(library, function, data, |progress| disk.asynchronous().shrink(progress))?)
    })
}

/// Puts the blocks of a sparse disk in order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Defragment(
    handle: DiskHandle,
    function: Option<ProgressFunc>,
    data: *mut c_void,
) -> VixError {
    call::entry("VixDiskLib_Defragment", |library| {
        let opened = disk(handle)?;
        let disk = opened.enter()?;
        Ok(progress::run(library, function, data, |progress| disk.asynchronous().defragment(progress))?)
    })
}

/// Estimates the bytes of a copy as another kind of disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_SpaceNeededForClone(
    handle: DiskHandle,
    disk_type: DiskType,
    bytes: *mut u64,
) -> VixError {
    call::entry("VixDiskLib_SpaceNeededForClone", |library| {
        if bytes.is_null() {
            return Err(Failure::null("spaceNeeded"));
        }
        let opened = disk(handle)?;
        let disk = opened.enter()?;
        let needed = library.block_on(disk.asynchronous().space_needed_for_clone(kind_of(disk_type)?))?;
        // SAFETY: not null; valid, as the program promises.
        unsafe { bytes.write(needed) };
        Ok(())
    })
}

/// C's truth.
pub(super) fn is_true(value: Bool) -> bool {
    value != 0
}
