//! Scalars, handles, callbacks and structures, laid out as in C.
//!
//! Three structures grew with the versions. The part that every version has is a structure of its own (`…Base`) at
//! offset 0 of the whole, so that the size of what may be read is a matter of type: through a pointer from a library
//! before 7.0, [`InfoBase`] is all there is.
//!
//! On Windows, VMware's headers pack structures to four bytes; elsewhere alignment is natural. The sizes and offsets
//! were checked on Linux for x86-64 only.

use std::ffi::{c_char, c_int, c_long, c_void};

use crate::{
    code::VixError,
    constants::{AdapterType, CredType, DiskType, HwVersion, SpecType},
};

/// C's `Bool` of the interface: one byte, 0 is false.
pub type Bool = i8;

/// Sectors of 512 bytes, whatever the disk's logical sector size.
#[doc(alias = "VixDiskLibSectorType")]
pub type Sectors = u64;

/// Bytes of one of the sectors in which the interface counts.
#[doc(alias = "VIXDISKLIB_SECTOR_SIZE")]
pub const SECTOR: u64 = 512;

/// The finest grain of [`QueryAllocatedBlocks`](crate::functions::QueryAllocatedBlocks).
#[doc(alias = "VIXDISKLIB_MIN_CHUNK_SIZE")]
pub const MIN_CHUNK_SECTORS: Sectors = 128;

/// The most chunks that one call of [`QueryAllocatedBlocks`](crate::functions::QueryAllocatedBlocks) may ask about.
#[doc(alias = "VIXDISKLIB_MAX_CHUNK_NUMBER")]
pub const MAX_CHUNKS: u64 = 512 * 1024;

/// What a connection points to. Never seen, only pointed to.
#[doc(alias = "VixDiskLibConnection")]
#[repr(C)]
pub struct ConnectionObject {
    _opaque: [u8; 0],
}

/// What a disk's handle points to. Never seen, only pointed to.
#[doc(alias = "VixDiskLibHandle")]
#[repr(C)]
pub struct DiskObject {
    _opaque: [u8; 0],
}

/// A connection of the library.
#[doc(alias = "VixDiskLibConnection")]
pub type ConnectionHandle = *mut ConnectionObject;

/// An open disk of the library.
#[doc(alias = "VixDiskLibHandle")]
pub type DiskHandle = *mut DiskObject;

/// A `va_list` as it arrives in a parameter.
///
/// It has the size of a pointer and is handed on as it came: on x86-64 System V the list is an array, so that a
/// pointer to its first element is passed; on 64-bit ARM it is a structure too large for registers, so that a pointer
/// to a copy is passed; on Windows and Apple's ARM it is a `char *`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct VaList(pub *mut c_void);

/// Takes a line of the library's log, in the manner of `vprintf`. May be called on any thread.
#[doc(alias = "VixDiskLibGenericLogFunc")]
pub type LogFunc = unsafe extern "C" fn(format: *const c_char, arguments: VaList);

/// Hears of progress in percent; the same number may come again. The answer is ignored by the library.
#[doc(alias = "VixDiskLibProgressFunc")]
pub type ProgressFunc = unsafe extern "C" fn(data: *mut c_void, percent: c_int) -> Bool;

/// Hears that an asynchronous operation is done: on any thread, also inside the call that began it.
#[doc(alias = "VixDiskLibCompletionCB")]
pub type CompletionFunc = unsafe extern "C" fn(data: *mut c_void, result: VixError);

/// Where to connect to, as every version knows it: 80 bytes.
///
/// A library must not read more than this unless the structure came from its own
/// [`AllocateConnectParams`](crate::functions::AllocateConnectParams) (reasoned, not documented).
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Clone, Copy)]
pub struct ConnectParamsBase {
    /// `moref=vm-16`, or `dir/x.vmx?dcPath=..&dsName=..`; null for local disks.
    pub vmx_spec: *mut c_char,
    /// Host name or address.
    pub server_name: *mut c_char,
    /// Of the server's certificate: SHA-1 in hexadecimal with colons.
    pub thumbprint: *mut c_char,
    /// Of the library.
    pub private_use: c_long,
    /// Which of [`creds`](Self::creds) holds.
    pub cred_type: CredType,
    /// Who connects.
    pub creds: Credentials,
    /// Of the management service; 0 is 443.
    pub port: u32,
    /// Of NFC; 0 is 902.
    pub nfc_host_port: u32,
    /// Version of the server's interface; usually null.
    pub vim_api_version: *mut c_char,
}

/// Where to connect to: 128 bytes, since 6.5.
#[doc(alias = "VixDiskLibConnectParams")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Clone, Copy)]
pub struct ConnectParams {
    /// What every version knows.
    pub base: ConnectParamsBase,
    /// Of the library.
    pub reserved: [c_char; 8],
    /// Of the library.
    pub state: *mut c_void,
    /// What is connected to, where it is not a VM.
    pub spec: Spec,
    /// Which of [`spec`](Self::spec) holds.
    pub spec_type: SpecType,
}

/// Who connects.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Credentials {
    /// With [`CredType::UID`].
    pub uid: UserCredentials,
    /// With [`CredType::SESSIONID`].
    pub session_id: SessionCredentials,
    /// With [`CredType::TICKETID`].
    pub ticket_id: *mut c_void,
}

/// A user and a password.
#[doc(alias = "VixDiskLibUidPasswdCreds")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Clone, Copy)]
pub struct UserCredentials {
    /// The user.
    pub user_name: *mut c_char,
    /// The password.
    pub password: *mut c_char,
}

/// A session that somebody has logged in.
#[doc(alias = "VixDiskLibSessionIdCreds")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Clone, Copy)]
pub struct SessionCredentials {
    /// The value of the cookie `vmware_soap_session`.
    pub cookie: *mut c_char,
    /// The user.
    pub user_name: *mut c_char,
    /// The password.
    pub key: *mut c_char,
}

/// What is connected to, where it is not a VM.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Spec {
    /// With [`SpecType::VSTORAGE_OBJECT`].
    pub vstorage_object: VStorageObjectSpec,
    /// With [`SpecType::DATASTORE`], since 8.0.1.
    pub datastore: DatastoreSpec,
}

/// A first class disk.
#[doc(alias = "VixDiskLibVStorageObjectSpec")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Clone, Copy)]
pub struct VStorageObjectSpec {
    /// Its id.
    pub id: *mut c_char,
    /// The datastore's managed object.
    pub datastore_moref: *mut c_char,
    /// The snapshot's id.
    pub snapshot_id: *mut c_char,
}

/// A folder of a datastore.
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Clone, Copy)]
pub struct DatastoreSpec {
    /// The datastore's managed object.
    pub datastore_moref: *mut c_char,
    /// The folder.
    pub disk_folder: *mut c_char,
}

/// Cylinders, heads and sectors.
#[doc(alias = "VixDiskLibGeometry")]
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Number of cylinders.
    pub cylinders: u32,
    /// Heads of a cylinder.
    pub heads: u32,
    /// Sectors of a track.
    pub sectors: u32,
}

/// Facts about a disk, as every version tells them: 56 bytes.
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Debug, Clone, Copy)]
pub struct InfoBase {
    /// What the guest's BIOS is told.
    pub bios_geometry: Geometry,
    /// The physical geometry.
    pub physical_geometry: Geometry,
    /// The disk's size.
    pub capacity: Sectors,
    /// The controller.
    pub adapter_type: AdapterType,
    /// Files of the chain.
    pub num_links: c_int,
    /// Where the parent was when the disk was made; or null.
    pub parent_file_name_hint: *mut c_char,
    /// The disk's id; or null.
    pub uuid: *mut c_char,
}

/// Facts about a disk: 64 bytes, since 7.0.
#[doc(alias = "VixDiskLibInfo")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// What every version tells.
    pub base: InfoBase,
    /// Bytes of a logical sector.
    pub logical_sector_size: u32,
    /// Bytes of a physical sector.
    pub physical_sector_size: u32,
}

/// What to create, as every version knows it: 24 bytes.
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Debug, Clone, Copy)]
pub struct CreateParamsBase {
    /// The kind of disk.
    pub disk_type: DiskType,
    /// The controller.
    pub adapter_type: AdapterType,
    /// The virtual hardware that has to understand it.
    pub hw_version: HwVersion,
    /// The disk's size.
    pub capacity: Sectors,
}

/// What to create: 32 bytes, since 7.0.
#[doc(alias = "VixDiskLibCreateParams")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Debug, Clone, Copy)]
pub struct CreateParams {
    /// What every version knows.
    pub base: CreateParamsBase,
    /// Bytes of a logical sector.
    pub logical_sector_size: u32,
    /// Bytes of a physical sector.
    pub physical_sector_size: u32,
}

/// A run of allocated sectors.
#[doc(alias = "VixDiskLibBlock")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block {
    /// Its first sector.
    pub offset: Sectors,
    /// How many.
    pub length: Sectors,
}

/// Runs of allocated sectors: the head of a structure that [`num_blocks`](Self::num_blocks) blocks follow.
#[doc(alias = "VixDiskLibBlockList")]
#[cfg_attr(not(windows), repr(C))]
#[cfg_attr(windows, repr(C, packed(4)))]
pub struct BlockList {
    /// How many blocks follow.
    pub num_blocks: u32,
    /// The first of them. The type says one, or none; the memory says how many.
    pub blocks: [Block; 0],
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use std::mem::{align_of, offset_of, size_of};

    use super::*;

    #[test]
    fn connect_params_are_laid_out_as_documented() {
        use ConnectParamsBase as Base;
        let base = [
            offset_of!(Base, vmx_spec),
            offset_of!(Base, server_name),
            offset_of!(Base, thumbprint),
            offset_of!(Base, private_use),
            offset_of!(Base, cred_type),
            offset_of!(Base, creds),
            offset_of!(Base, port),
            offset_of!(Base, nfc_host_port),
            offset_of!(Base, vim_api_version),
            size_of::<Base>(),
        ];
        assert_eq!(base, [0, 8, 16, 24, 32, 40, 64, 68, 72, 80]);
        let grown = [
            offset_of!(ConnectParams, base),
            offset_of!(ConnectParams, reserved),
            offset_of!(ConnectParams, state),
            offset_of!(ConnectParams, spec),
            offset_of!(ConnectParams, spec_type),
            size_of::<ConnectParams>(),
        ];
        assert_eq!(grown, [0, 80, 88, 96, 120, 128]);
        assert_eq!((size_of::<Credentials>(), size_of::<Spec>()), (24, 24));
        assert_eq!((offset_of!(SessionCredentials, key), offset_of!(UserCredentials, password)), (16, 8));
        assert_eq!((offset_of!(VStorageObjectSpec, snapshot_id), offset_of!(DatastoreSpec, disk_folder)), (16, 8));
    }

    #[test]
    fn info_is_laid_out_as_documented_in_both_sizes() {
        use InfoBase as Base;
        let base = [
            offset_of!(Base, bios_geometry),
            offset_of!(Base, physical_geometry),
            offset_of!(Base, capacity),
            offset_of!(Base, adapter_type),
            offset_of!(Base, num_links),
            offset_of!(Base, parent_file_name_hint),
            offset_of!(Base, uuid),
            size_of::<Base>(),
        ];
        assert_eq!(base, [0, 12, 24, 32, 36, 40, 48, 56]);
        assert_eq!(offset_of!(Info, logical_sector_size), 56);
        assert_eq!((offset_of!(Info, physical_sector_size), size_of::<Info>()), (60, 64));
    }

    #[test]
    fn create_params_are_laid_out_as_documented_in_both_sizes() {
        use CreateParamsBase as Base;
        let base = [
            offset_of!(Base, disk_type),
            offset_of!(Base, adapter_type),
            offset_of!(Base, hw_version),
            offset_of!(Base, capacity),
            size_of::<Base>(),
        ];
        assert_eq!(base, [0, 4, 8, 16, 24]);
        assert_eq!((offset_of!(CreateParams, logical_sector_size), size_of::<CreateParams>()), (24, 32));
        assert_eq!(offset_of!(CreateParams, physical_sector_size), 28);
    }

    #[test]
    fn blocks_follow_the_head_of_their_list() {
        assert_eq!((offset_of!(Block, offset), offset_of!(Block, length), size_of::<Block>()), (0, 8, 16));
        assert_eq!((offset_of!(BlockList, blocks), align_of::<BlockList>()), (8, 8));
    }

    #[test]
    fn scalars_have_the_size_that_calls_pass() {
        assert_eq!((size_of::<Bool>(), size_of::<VixError>(), size_of::<VaList>()), (1, 8, 8));
        assert_eq!((size_of::<DiskType>(), size_of::<HwVersion>(), size_of::<CredType>()), (4, 2, 4));
    }
}
