//! The functions of the interface: each as a Rust type, all of them as the table [`FUNCTIONS`].
//!
//! `since` is the first version of the VDDK whose documentation has the function; `"5.0"` stands for all that are met.
//!
//! # Safety
//! What all of them ask for: `InitEx` comes first, once a process, and `Exit` last. Pointers are valid for what they
//! are used for, strings end in NUL and stay the caller's; a handle is used by one thread at a time, and `Open` and
//! `Close` are called on one thread, or never at the same time. A connection outlives its disks. Buffers of
//! asynchronous calls live until the completion function was called.

use std::ffi::{c_char, c_void};

use crate::{
    code::VixError,
    constants::DiskType,
    shape::{HasShape, Shape},
    types::*,
};

/// One function of the interface.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// The symbol.
    pub symbol: &'static str,
    /// What it is called in this crate.
    pub name: &'static str,
    /// The first version of the VDDK that has it.
    pub since: &'static str,
    /// Whether a library can do without.
    pub need: Need,
    /// Its parameters, by our names.
    pub parameters: &'static [(&'static str, Shape)],
    /// What it returns.
    pub returns: Shape,
}

/// Whether a library can do without a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A library without it is not used.
    Mandatory,
    /// Without it, what it does is not offered.
    Optional,
}

/// Hands the list of all functions to a macro, so that there is one list only.
macro_rules! with_functions {
    ($then:ident) => {
        $then! {
            /// Prepares the library. Superseded by [`InitEx`].
            optional "5.0" init: Init = "VixDiskLib_Init"(
                major: u32, minor: u32, log: Option<LogFunc>, warn: Option<LogFunc>, panic: Option<LogFunc>,
                lib_dir: *const c_char) -> VixError;
            /// Prepares the library: once a process. Makes threads, so the process must not fork afterwards.
            mandatory "5.0" init_ex: InitEx = "VixDiskLib_InitEx"(
                major: u32, minor: u32, log: Option<LogFunc>, warn: Option<LogFunc>, panic: Option<LogFunc>,
                lib_dir: *const c_char, config_file: *const c_char) -> VixError;
            /// Ends the library. VMware's takes about a second.
            mandatory "5.0" exit: Exit = "VixDiskLib_Exit"() -> ();
            /// Names the transports: `file:san:hotadd:nbdssl:nbd`. The text is the library's.
            optional "5.0" list_transport_modes: ListTransportModes = "VixDiskLib_ListTransportModes"()
                -> *const c_char;
            /// Removes what crashed programs left behind. `vmx_spec` is null; counts may be null.
            optional "5.0" cleanup: Cleanup = "VixDiskLib_Cleanup"(
                params: *const ConnectParams, num_cleaned: *mut u32, num_remaining: *mut u32) -> VixError;
            /// Connects. Null parameters mean this machine's files.
            optional "5.0" connect: Connect = "VixDiskLib_Connect"(
                params: *const ConnectParams, connection: *mut ConnectionHandle) -> VixError;
            /// Keeps a VM from being moved, before a snapshot is made. The identity has up to 50 characters.
            optional "5.0" prepare_for_access: PrepareForAccess = "VixDiskLib_PrepareForAccess"(
                params: *const ConnectParams, identity: *const c_char) -> VixError;
            /// Connects by one of the transports of a list; null means the library's own list.
            mandatory "5.0" connect_ex: ConnectEx = "VixDiskLib_ConnectEx"(
                params: *const ConnectParams, read_only: Bool, snapshot_ref: *const c_char,
                transport_modes: *const c_char, connection: *mut ConnectionHandle) -> VixError;
            /// Ends a connection, after its disks were closed.
            mandatory "5.0" disconnect: Disconnect = "VixDiskLib_Disconnect"(connection: ConnectionHandle) -> VixError;
            /// Undoes [`PrepareForAccess`], also that of a program that crashed.
            optional "5.0" end_access: EndAccess = "VixDiskLib_EndAccess"(
                params: *const ConnectParams, identity: *const c_char) -> VixError;
            /// Creates a disk of this machine.
            mandatory "5.0" create: Create = "VixDiskLib_Create"(
                connection: ConnectionHandle, path: *const c_char, params: *const CreateParams,
                progress: Option<ProgressFunc>, progress_data: *mut c_void) -> VixError;
            /// Creates a disk of this machine that holds the difference to another.
            optional "5.0" create_child: CreateChild = "VixDiskLib_CreateChild"(
                parent: DiskHandle, child_path: *const c_char, disk_type: DiskType,
                progress: Option<ProgressFunc>, progress_data: *mut c_void) -> VixError;
            /// Opens a disk.
            mandatory "5.0" open: Open = "VixDiskLib_Open"(
                connection: ConnectionHandle, path: *const c_char, flags: u32, disk: *mut DiskHandle) -> VixError;
            /// Lists the allocated blocks of whole chunks.
            optional "6.7" query_allocated_blocks: QueryAllocatedBlocks = "VixDiskLib_QueryAllocatedBlocks"(
                disk: DiskHandle, start: Sectors, count: Sectors, chunk: Sectors, blocks: *mut *mut BlockList)
                -> VixError;
            /// Frees what [`QueryAllocatedBlocks`] gave.
            optional "6.7" free_block_list: FreeBlockList = "VixDiskLib_FreeBlockList"(
                blocks: *mut BlockList) -> VixError;
            /// Describes a disk.
            mandatory "5.0" get_info: GetInfo = "VixDiskLib_GetInfo"(
                disk: DiskHandle, info: *mut *mut Info) -> VixError;
            /// Frees what [`GetInfo`] gave.
            mandatory "5.0" free_info: FreeInfo = "VixDiskLib_FreeInfo"(info: *mut Info) -> ();
            /// Names the transport of a disk. The text is the library's.
            mandatory "5.0" get_transport_mode: GetTransportMode = "VixDiskLib_GetTransportMode"(
                disk: DiskHandle) -> *const c_char;
            /// Closes a disk.
            mandatory "5.0" close: Close = "VixDiskLib_Close"(disk: DiskHandle) -> VixError;
            /// Reads sectors.
            mandatory "5.0" read: Read = "VixDiskLib_Read"(
                disk: DiskHandle, start: Sectors, count: Sectors, buffer: *mut u8) -> VixError;
            /// Begins to read sectors: `VIX_ASYNC` is success.
            optional "6.0" read_async: ReadAsync = "VixDiskLib_ReadAsync"(
                disk: DiskHandle, start: Sectors, count: Sectors, buffer: *mut u8,
                completion: Option<CompletionFunc>, data: *mut c_void) -> VixError;
            /// Writes sectors.
            mandatory "5.0" write: Write = "VixDiskLib_Write"(
                disk: DiskHandle, start: Sectors, count: Sectors, buffer: *const u8) -> VixError;
            /// Begins to write sectors: `VIX_ASYNC` is success.
            optional "6.0" write_async: WriteAsync = "VixDiskLib_WriteAsync"(
                disk: DiskHandle, start: Sectors, count: Sectors, buffer: *const u8,
                completion: Option<CompletionFunc>, data: *mut c_void) -> VixError;
            /// Makes completed writes durable.
            optional "6.0" flush: Flush = "VixDiskLib_Flush"(disk: DiskHandle) -> VixError;
            /// Waits for all asynchronous operations of a disk.
            optional "6.5" wait: Wait = "VixDiskLib_Wait"(disk: DiskHandle) -> VixError;
            /// Reads a value of the disk data base. Too small a buffer gives error 24 and the length that is needed.
            optional "5.0" read_metadata: ReadMetadata = "VixDiskLib_ReadMetadata"(
                disk: DiskHandle, key: *const c_char, buffer: *mut c_char, len: usize, required: *mut usize)
                -> VixError;
            /// Writes a value of the disk data base.
            optional "5.0" write_metadata: WriteMetadata = "VixDiskLib_WriteMetadata"(
                disk: DiskHandle, key: *const c_char, value: *const c_char) -> VixError;
            /// Lists the keys of the disk data base: each ends in NUL, and one NUL more ends the list.
            optional "5.0" get_metadata_keys: GetMetadataKeys = "VixDiskLib_GetMetadataKeys"(
                disk: DiskHandle, keys: *mut c_char, len: usize, required: *mut usize) -> VixError;
            /// Deletes a disk with its extents.
            optional "5.0" unlink: Unlink = "VixDiskLib_Unlink"(
                connection: ConnectionHandle, path: *const c_char) -> VixError;
            /// Makes a disk larger.
            optional "5.0" grow: Grow = "VixDiskLib_Grow"(
                connection: ConnectionHandle, path: *const c_char, capacity: Sectors, update_geometry: Bool,
                progress: Option<ProgressFunc>, progress_data: *mut c_void) -> VixError;
            /// Gives the space of zeros back.
            optional "5.0" shrink: Shrink = "VixDiskLib_Shrink"(
                disk: DiskHandle, progress: Option<ProgressFunc>, progress_data: *mut c_void) -> VixError;
            /// Puts the blocks of a sparse disk in order.
            optional "5.0" defragment: Defragment = "VixDiskLib_Defragment"(
                disk: DiskHandle, progress: Option<ProgressFunc>, progress_data: *mut c_void) -> VixError;
            /// Renames a disk of this machine.
            optional "5.0" rename: Rename = "VixDiskLib_Rename"(from: *const c_char, to: *const c_char) -> VixError;
            /// Copies a disk, also to a server.
            optional "5.0" clone: Clone = "VixDiskLib_Clone"(
                to: ConnectionHandle, to_path: *const c_char, from: ConnectionHandle, from_path: *const c_char,
                params: *const CreateParams, progress: Option<ProgressFunc>, progress_data: *mut c_void,
                overwrite: Bool) -> VixError;
            /// Tells an error in words; null locale is the usual one.
            mandatory "5.0" get_error_text: GetErrorText = "VixDiskLib_GetErrorText"(
                error: VixError, locale: *const c_char) -> *mut c_char;
            /// Frees what [`GetErrorText`] gave.
            mandatory "5.0" free_error_text: FreeErrorText = "VixDiskLib_FreeErrorText"(text: *mut c_char) -> ();
            /// Tells whether a child may be put on a parent.
            optional "5.0" is_attach_possible: IsAttachPossible = "VixDiskLib_IsAttachPossible"(
                parent: DiskHandle, child: DiskHandle) -> VixError;
            /// Puts a child on a parent.
            optional "5.0" attach: Attach = "VixDiskLib_Attach"(parent: DiskHandle, child: DiskHandle) -> VixError;
            /// Tells the bytes that a copy needs.
            optional "5.0" space_needed_for_clone: SpaceNeededForClone = "VixDiskLib_SpaceNeededForClone"(
                disk: DiskHandle, disk_type: DiskType, bytes: *mut u64) -> VixError;
            /// Checks a sparse disk, and repairs it if asked to.
            optional "5.0" check_repair: CheckRepair = "VixDiskLib_CheckRepair"(
                connection: ConnectionHandle, file: *const c_char, repair: Bool) -> VixError;
            /// Gives a copy of the parameters of a connection.
            optional "5.0" get_connect_params: GetConnectParams = "VixDiskLib_GetConnectParams"(
                connection: ConnectionHandle, params: *mut *mut ConnectParams) -> VixError;
            /// Frees parameters that the library made.
            mandatory "5.0" free_connect_params: FreeConnectParams = "VixDiskLib_FreeConnectParams"(
                params: *mut ConnectParams) -> ();
            /// Makes empty parameters of the library's own size.
            optional "6.5" allocate_connect_params: AllocateConnectParams = "VixDiskLib_AllocateConnectParams"()
                -> *mut ConnectParams;
        }
    };
}

macro_rules! types_and_table {
    ($(
        $(#[$doc:meta])*
        $need:ident $since:literal $name:ident: $type:ident = $symbol:literal
        ($($parameter:ident: $parameter_type:ty),*) -> $returns:ty;
    )*) => {
        $(
            $(#[$doc])*
            #[doc(alias = $symbol)]
            pub type $type = unsafe extern "C" fn($($parameter: $parameter_type),*) -> $returns;
        )*

        /// All functions of the interface.
        pub const FUNCTIONS: &[Function] = &[$(Function {
            symbol: $symbol,
            name: stringify!($name),
            since: $since,
            need: types_and_table!(@need $need),
            parameters: &[$((stringify!($parameter), <$parameter_type as HasShape>::SHAPE)),*],
            returns: <$returns as HasShape>::SHAPE,
        },)*];
    };
    (@need mandatory) => { Need::Mandatory };
    (@need optional) => { Need::Optional };
}

with_functions!(types_and_table);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_function_once() {
        let mut symbols: Vec<_> = FUNCTIONS.iter().map(|function| function.symbol).collect();
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!((symbols.len(), FUNCTIONS.len()), (43, 43));
        assert!(symbols.iter().all(|symbol| symbol.starts_with("VixDiskLib_")));
    }

    #[test]
    fn shapes_of_parameters_are_those_of_the_declaration() {
        let open = FUNCTIONS.iter().find(|function| function.name == "open").unwrap();
        let shapes: Vec<_> = open.parameters.iter().map(|(_, shape)| shape.to_string()).collect();
        assert_eq!(shapes, ["ConnectionObject*", "i8*", "i32", "DiskObject**"]);
        assert_eq!(open.returns.to_string(), "i64");
    }

    #[test]
    fn nothing_is_mandatory_that_the_best_known_program_does_without() {
        let nbdkit = "InitEx Exit GetErrorText FreeErrorText FreeConnectParams ConnectEx Open GetTransportMode Close \
                      Disconnect GetInfo FreeInfo Read Write Create Flush ReadAsync WriteAsync Wait";
        let needed: Vec<_> = nbdkit.split_whitespace().map(|name| format!("VixDiskLib_{name}")).collect();
        let mandatory = FUNCTIONS.iter().filter(|function| function.need == Need::Mandatory);
        for function in mandatory {
            assert!(needed.iter().any(|symbol| symbol == function.symbol), "{}", function.symbol);
        }
    }
}
