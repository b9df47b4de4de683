//! The 43 functions, by topic.
//!
//! # Safety
//! What all of them ask of the program: a pointer is null or valid for what its type and name say, during the call; a
//! text ends in NUL; a buffer has the sectors that the call speaks of, those of asynchronous calls until completion.
//! Handles may be anything. Log functions stay callable until `Exit` has returned.

#![allow(clippy::missing_safety_doc)] // Said once, above.

mod connections;
mod data;
mod disks;
mod files;
mod life;
mod metadata;

pub use self::{connections::*, data::*, disks::*, files::*, life::*, metadata::*};

/// Every function has the type that the table of the interface states: a difference does not compile.
mod types {
    use vixdisklib_sys::functions as declared;

    macro_rules! as_declared {
        ($($name:ident = $function:ident,)*) => {
            $(const _: declared::$name = super::$function;)*

            #[test]
            fn all_functions_are_there() {
                let ours = [$(stringify!($function)),*];
                assert!(vixdisklib_sys::FUNCTIONS.iter().all(|declared| ours.contains(&declared.symbol)));
                assert_eq!(ours.len(), vixdisklib_sys::FUNCTIONS.len());
            }
        };
    }

    as_declared! {
        Init = VixDiskLib_Init,
        InitEx = VixDiskLib_InitEx,
        Exit = VixDiskLib_Exit,
        ListTransportModes = VixDiskLib_ListTransportModes,
        Cleanup = VixDiskLib_Cleanup,
        Connect = VixDiskLib_Connect,
        PrepareForAccess = VixDiskLib_PrepareForAccess,
        ConnectEx = VixDiskLib_ConnectEx,
        Disconnect = VixDiskLib_Disconnect,
        EndAccess = VixDiskLib_EndAccess,
        Create = VixDiskLib_Create,
        CreateChild = VixDiskLib_CreateChild,
        Open = VixDiskLib_Open,
        QueryAllocatedBlocks = VixDiskLib_QueryAllocatedBlocks,
        FreeBlockList = VixDiskLib_FreeBlockList,
        GetInfo = VixDiskLib_GetInfo,
        FreeInfo = VixDiskLib_FreeInfo,
        GetTransportMode = VixDiskLib_GetTransportMode,
        Close = VixDiskLib_Close,
        Read = VixDiskLib_Read,
        ReadAsync = VixDiskLib_ReadAsync,
        Write = VixDiskLib_Write,
        WriteAsync = VixDiskLib_WriteAsync,
        Flush = VixDiskLib_Flush,
        Wait = VixDiskLib_Wait,
        ReadMetadata = VixDiskLib_ReadMetadata,
        WriteMetadata = VixDiskLib_WriteMetadata,
        GetMetadataKeys = VixDiskLib_GetMetadataKeys,
        Unlink = VixDiskLib_Unlink,
        Grow = VixDiskLib_Grow,
        Shrink = VixDiskLib_Shrink,
        Defragment = VixDiskLib_Defragment,
        Rename = VixDiskLib_Rename,
        Clone = VixDiskLib_Clone,
        GetErrorText = VixDiskLib_GetErrorText,
        FreeErrorText = VixDiskLib_FreeErrorText,
        IsAttachPossible = VixDiskLib_IsAttachPossible,
        Attach = VixDiskLib_Attach,
        SpaceNeededForClone = VixDiskLib_SpaceNeededForClone,
        CheckRepair = VixDiskLib_CheckRepair,
        GetConnectParams = VixDiskLib_GetConnectParams,
        FreeConnectParams = VixDiskLib_FreeConnectParams,
        AllocateConnectParams = VixDiskLib_AllocateConnectParams,
    }
}
