//! The disk data base.

use std::ffi::c_char;

use vixdisklib_sys::{DiskHandle, VixCode, VixError};

use crate::{
    call::{self, Failure, Outcome},
    disk::disk,
    text,
};

/// Reads a value. A null buffer, or one too small, gives error 24 and the size that is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ReadMetadata(
    handle: DiskHandle,
    key: *const c_char,
    buffer: *mut c_char,
    len: usize,
    required: *mut usize,
) -> VixError {
    call::entry("VixDiskLib_ReadMetadata", |_| {
        // SAFETY: as the program promises.
        let key = unsafe { text::required("key", key) }?;
        let value = disk(handle)?.enter()?.metadata(&key)?;
        let value = value.ok_or_else(|| Failure::new(VixCode::DISK_KEY_NOTFOUND, format!("there is no {key}")))?;
        // SAFETY: as the program promises.
        unsafe { hand_out(value.as_bytes(), buffer, len, required) }
    })
}

/// Writes a value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_WriteMetadata(
    handle: DiskHandle,
    key: *const c_char,
    value: *const c_char,
) -> VixError {
    call::entry("VixDiskLib_WriteMetadata", |library| {
        // SAFETY: as the program promises.
        let key = unsafe { text::required("key", key) }?;
        if value.is_null() {
            return Err(Failure::null("value"));
        }
        // SAFETY: as the program promises.
        let value = unsafe { text::optional("value", value) }?.unwrap_or_default();
        let opened = disk(handle)?;
        let disk = opened.enter()?;
        Ok(library.block_on(disk.asynchronous().set_metadata(&key, &value))?)
    })
}

/// Lists the keys: each ends in NUL, and one NUL more ends the list. Sizes are as with `ReadMetadata`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetMetadataKeys(
    handle: DiskHandle,
    buffer: *mut c_char,
    len: usize,
    required: *mut usize,
) -> VixError {
    call::entry("VixDiskLib_GetMetadataKeys", |library| {
        let keys = library.block_on(disk(handle)?.enter()?.asynchronous().metadata_keys())?;
        let list: Vec<u8> = keys.iter().flat_map(|key| key.bytes().chain([0])).collect();
        // SAFETY: as the program promises.
        unsafe { hand_out(&list, buffer, len, required) }
    })
}

/// Copies bytes and a NUL to the program, if there is room.
///
/// # Safety
/// `buffer` is null or has `len` bytes, `required` is null or valid.
unsafe fn hand_out(bytes: &[u8], buffer: *mut c_char, len: usize, required: *mut usize) -> Outcome<()> {
    let needed = bytes.len() + 1;
    if !required.is_null() {
        // SAFETY: not null; valid, as the caller promises.
        unsafe { required.write(needed) };
    }
    if buffer.is_null() || len < needed {
        return Err(Failure::new(VixCode::BUFFER_TOOSMALL, format!("{needed} bytes are needed, not {len}")));
    }
    // SAFETY: there is room for the bytes and the NUL, and the program's memory is not ours.
    unsafe {
        buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        buffer.add(bytes.len()).write(0);
    }
    Ok(())
}
