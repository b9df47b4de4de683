//! Connections, and what is done around them on a server.

use std::{ffi::c_char, ptr, sync::Arc};

use vixdisklib::Access;
use vixdisklib_sys::{Bool, ConnectParams, ConnectionHandle, VixError};

use crate::{
    access::{self, Guarding},
    call::{self, Failure, Outcome},
    connection::{CONNECTIONS, Linked, Wish, invalid, linked},
    given::{self, Kind, Texts},
    library::Library,
    target::Target,
    text,
};

/// Connects for reading and writing, by whatever transport works.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Connect(
    params: *const ConnectParams,
    connection: *mut ConnectionHandle,
) -> VixError {
    call::entry("VixDiskLib_Connect", |library| {
        // SAFETY: as the program promises.
        unsafe { connect(library, params, Wish { access: Access::ReadWrite, snapshot: None, modes: None }, connection) }
    })
}

/// Connects by the transports of a list, for reading or for writing too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ConnectEx(
    params: *const ConnectParams,
    read_only: Bool,
    snapshot_ref: *const c_char,
    transport_modes: *const c_char,
    connection: *mut ConnectionHandle,
) -> VixError {
    call::entry("VixDiskLib_ConnectEx", |library| {
        let access = if read_only == 0 { Access::ReadWrite } else { Access::ReadOnly };
        // SAFETY: as the program promises.
        unsafe {
            let snapshot = text::optional("snapshotRef", snapshot_ref)?;
            let modes = text::optional("transportModes", transport_modes)?;
            connect(library, params, Wish { access, snapshot, modes }, connection)
        }
    })
}

/// # Safety
/// As every function of the interface.
unsafe fn connect(
    library: &Arc<Library>,
    params: *const ConnectParams,
    wish: Wish,
    connection: *mut ConnectionHandle,
) -> Outcome<()> {
    if connection.is_null() {
        return Err(Failure::null("connection"));
    }
    // SAFETY: not null; valid, as the program promises.
    unsafe { connection.write(ptr::null_mut()) };
    // SAFETY: as the program promises.
    let target = unsafe { Target::of_disks(params) }?;
    let linked = Arc::new(Linked::open(library, target, &wish)?);
    let handle = match library.admit(|| CONNECTIONS.insert(Arc::clone(&linked))) {
        Ok(handle) => handle,
        Err(failure) => {
            linked.release(library);
            return Err(failure);
        }
    };
    // SAFETY: as above.
    unsafe { connection.write(handle as ConnectionHandle) };
    Ok(())
}

/// Ends a connection. Disks that are open stay usable; the server's session ends with the last of them.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_Disconnect(connection: ConnectionHandle) -> VixError {
    call::entry("VixDiskLib_Disconnect", |library| {
        let linked = CONNECTIONS.remove(connection as usize).ok_or_else(|| invalid("connection"))?;
        linked.release(library);
        Ok(())
    })
}

/// Gives back what the connection was made with, without passwords and cookies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetConnectParams(
    connection: ConnectionHandle,
    params: *mut *mut ConnectParams,
) -> VixError {
    call::entry("VixDiskLib_GetConnectParams", |_| {
        if params.is_null() {
            return Err(Failure::null("connectParams"));
        }
        // SAFETY: not null; valid, as the program promises.
        unsafe { params.write(ptr::null_mut()) };
        let given = linked(connection)?.to_params();
        // SAFETY: as above.
        unsafe { params.write(given) };
        Ok(())
    })
}

/// Frees parameters that this library made, with the texts that it put there; those of the program stay its own.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_FreeConnectParams(params: *mut ConnectParams) {
    call::guarded("VixDiskLib_FreeConnectParams", || given::take_back(params, Kind::Params));
}

/// Makes empty parameters of full size.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_AllocateConnectParams() -> *mut ConnectParams {
    let given =
        call::guarded("VixDiskLib_AllocateConnectParams", || given::params(given::no_params(), Texts::default()));
    given.unwrap_or(ptr::null_mut())
}

/// Keeps the virtual machine from being moved, until `EndAccess`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_PrepareForAccess(
    params: *const ConnectParams,
    identity: *const c_char,
) -> VixError {
    call::entry("VixDiskLib_PrepareForAccess", |library| {
        // SAFETY: as the program promises.
        unsafe { Guarding::of(params, identity) }?.prepare(library)
    })
}

/// Undoes `PrepareForAccess`, also that of a program that crashed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_EndAccess(params: *const ConnectParams, identity: *const c_char) -> VixError {
    call::entry("VixDiskLib_EndAccess", |library| {
        // SAFETY: as the program promises.
        unsafe { Guarding::of(params, identity) }?.end(library)
    })
}

/// Undoes what crashed programs left behind on this server, as the journal in `tmpDirectory` tells: locks of
/// `PrepareForAccess`. Without that setting nothing is known, and nothing is found.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Cleanup(
    params: *const ConnectParams,
    num_cleaned: *mut u32,
    num_remaining: *mut u32,
) -> VixError {
    call::entry("VixDiskLib_Cleanup", |library| {
        // SAFETY: as the program promises.
        let target = unsafe { Target::of_server(params) }?;
        let done = access::clean_up(library, &target)?;
        let remaining = u32::try_from(done.remaining.len()).unwrap_or(u32::MAX);
        for (count, number) in [(num_cleaned, done.cleaned), (num_remaining, remaining)] {
            if !count.is_null() {
                // SAFETY: not null; valid, as the program promises.
                unsafe { count.write(number) };
            }
        }
        Ok(())
    })
}
