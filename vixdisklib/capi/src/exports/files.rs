//! Disks that nobody has open: making, copying, growing, renaming, removing, checking.

use std::ffi::{c_char, c_void};

use vixdisklib::{CloneOptions, CreateSpec, DiskKind, clone_disk};
use vixdisklib_sys::{
    AdapterType, Bool, ConnectionHandle, CreateParams, CreateParamsBase, DiskType, ProgressFunc, SECTOR, Sectors,
    VixCode, VixError,
};

use super::disks::is_true;
use crate::{
    call::{self, Failure, Outcome},
    connection::linked,
    library::Library,
    progress, text,
};

/// Creates a disk of this machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Create(
    connection: ConnectionHandle,
    path: *const c_char,
    params: *const CreateParams,
    function: Option<ProgressFunc>,
    data: *mut c_void,
) -> VixError {
    call::entry("VixDiskLib_Create", |library| {
        // SAFETY: as the program promises.
        let (path, wanted) = unsafe { (text::required("path", path)?, Wanted::read(library, params)?) };
        let linked = linked(connection)?;
        let capacity = bytes_of(wanted.capacity)?;
        let mut spec = CreateSpec::new(wanted.kind, capacity).hardware_version(wanted.hardware_version);
        if let Some(adapter) = wanted.adapter {
            spec = spec.adapter(adapter);
        }
        Ok(progress::run(library, function, data, |progress| async move {
            let created = linked.connection().create(&path, &spec).await;
            // Making a disk is too quick to have steps in between.
            if let (Ok(()), Some(progress)) = (&created, progress) {
                progress(100);
            }
            created
        })?)
    })
}

/// Copies a disk, from and to this machine or a server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Clone(
    to: ConnectionHandle,
    to_path: *const c_char,
    from: ConnectionHandle,
    from_path: *const c_char,
    params: *const CreateParams,
    function: Option<ProgressFunc>,
    data: *mut c_void,
    overwrite: Bool,
) -> VixError {
    call::entry("VixDiskLib_Clone", |library| {
        // SAFETY: as the program promises.
        let (to_path, from_path) =
            unsafe { (text::required("dstPath", to_path)?, text::required("srcPath", from_path)?) };
        let mut options = CloneOptions::new().overwrite(is_true(overwrite));
        if !params.is_null() {
            // SAFETY: as the program promises. The capacity is that of the source, whatever is written here.
            let wanted = unsafe { Wanted::read(library, params) }?;
            options = options.kind(wanted.kind).hardware_version(wanted.hardware_version);
            if let Some(adapter) = wanted.adapter {
                options = options.adapter(adapter);
            }
        }
        let (to, from) = (linked(to)?, linked(from)?);
        Ok(progress::run(library, function, data, |progress| async {
            let options = match progress {
                Some(progress) => options.progress(progress),
                None => options,
            };
            clone_disk(to.connection(), &to_path, from.connection(), &from_path, &options).await
        })?)
    })
}

/// Makes a disk larger.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Grow(
    connection: ConnectionHandle,
    path: *const c_char,
    capacity: Sectors,
    update_geometry: Bool,
    function: Option<ProgressFunc>,
    data: *mut c_void,
) -> VixError {
    call::entry("VixDiskLib_Grow", |library| {
        // SAFETY: as the program promises.
        let path = unsafe { text::required("path", path) }?;
        let (linked, capacity) = (linked(connection)?, bytes_of(capacity)?);
        Ok(progress::run(library, function, data, |progress| {
            linked.connection().grow(&path, capacity, is_true(update_geometry), progress)
        })?)
    })
}

/// Removes a disk with all its files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Unlink(connection: ConnectionHandle, path: *const c_char) -> VixError {
    call::entry("VixDiskLib_Unlink", |library| {
        // SAFETY: as the program promises.
        let path = unsafe { text::required("path", path) }?;
        Ok(library.block_on(linked(connection)?.connection().unlink(&path))?)
    })
}

/// Renames a disk of this machine with its files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Rename(from: *const c_char, to: *const c_char) -> VixError {
    call::entry("VixDiskLib_Rename", |library| {
        // SAFETY: as the program promises.
        let (from, to) = unsafe { (text::required("srcFileName", from)?, text::required("dstFileName", to)?) };
        Ok(library.block_on(vixdisklib::rename(&from, &to))?)
    })
}

/// Checks a sparse disk, and repairs it if asked to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_CheckRepair(
    connection: ConnectionHandle,
    file: *const c_char,
    repair: Bool,
) -> VixError {
    call::entry("VixDiskLib_CheckRepair", |library| {
        // SAFETY: as the program promises.
        let file = unsafe { text::required("filename", file) }?;
        let outcome = library.block_on(linked(connection)?.connection().check_repair(&file, is_true(repair)))?;
        if outcome.is_clean() {
            return Ok(());
        }
        let code = if is_true(repair) { VixCode::DISK_CANTREPAIR } else { VixCode::DISK_NEEDSREPAIR };
        let report = outcome.left.as_ref().unwrap_or(&outcome.found);
        Err(Failure::new(code, format!("{file} is damaged: {report:?}")))
    })
}

/// What a program wants a new disk to be.
struct Wanted {
    kind: DiskKind,
    adapter: Option<vmdk::AdapterType>,
    hardware_version: u32,
    capacity: Sectors,
}

impl Wanted {
    /// # Safety
    /// `params` is null or points to the structure of the version that the program gave to `InitEx`.
    unsafe fn read(library: &Library, params: *const CreateParams) -> Outcome<Self> {
        if params.is_null() {
            return Err(Failure::null("createParams"));
        }
        // SAFETY: not null; every version has the base.
        let base: CreateParamsBase = unsafe { params.cast::<CreateParamsBase>().read_unaligned() };
        if library.has_sector_sizes() {
            // SAFETY: not null; since 7.0 the structure has the whole size.
            let whole = unsafe { params.read_unaligned() };
            let sizes = [whole.logical_sector_size, whole.physical_sector_size].map(u64::from);
            if sizes.iter().any(|size| *size != 0 && *size != SECTOR) {
                let text = format!("sectors of {sizes:?} bytes are not offered, only of 512");
                return Err(Failure::new(VixCode::NOT_SUPPORTED, text));
            }
        }
        Ok(Self {
            kind: kind_of(base.disk_type)?,
            adapter: adapter_of(base.adapter_type)?,
            hardware_version: base.hw_version.0.into(),
            capacity: base.capacity,
        })
    }
}

fn adapter_of(adapter: AdapterType) -> Outcome<Option<vmdk::AdapterType>> {
    match adapter {
        AdapterType::IDE => Ok(Some(vmdk::AdapterType::Ide)),
        AdapterType::SCSI_BUSLOGIC => Ok(Some(vmdk::AdapterType::BusLogic)),
        AdapterType::SCSI_LSILOGIC => Ok(Some(vmdk::AdapterType::LsiLogic)),
        AdapterType(0) | AdapterType::UNKNOWN => Ok(None),
        other => Err(Failure::new(VixCode::INVALID_ARG, format!("{other:?} is no adapter that is known"))),
    }
}

pub(super) fn kind_of(kind: DiskType) -> Outcome<DiskKind> {
    match kind {
        DiskType::MONOLITHIC_SPARSE => Ok(DiskKind::MonolithicSparse),
        DiskType::MONOLITHIC_FLAT => Ok(DiskKind::MonolithicFlat),
        DiskType::SPLIT_SPARSE => Ok(DiskKind::SplitSparse),
        DiskType::SPLIT_FLAT => Ok(DiskKind::SplitFlat),
        DiskType::VMFS_FLAT => Ok(DiskKind::VmfsFlat),
        DiskType::STREAM_OPTIMIZED => Ok(DiskKind::StreamOptimized),
        DiskType::VMFS_THIN => Ok(DiskKind::VmfsThin),
        DiskType::VMFS_SPARSE => Ok(DiskKind::VmfsSparse),
        other => Err(Failure::new(VixCode::INVALID_ARG, format!("{other:?} is no kind of disk that can be made"))),
    }
}

fn bytes_of(sectors: Sectors) -> Outcome<u64> {
    let too_big =
        || Failure::new(VixCode::ARGUMENT_TOO_BIG, format!("{sectors} sectors are more than a disk can have"));
    sectors.checked_mul(SECTOR).ok_or_else(too_big)
}
