//! The functions of the interface: each as a Rust type, all of them as the table [`FUNCTIONS`].
//!
//! # Safety
//! What all of them ask for: VixDiskLib is begun before `Init` and ended after `Exit`, each once a process. Pointers are
//! valid for what they are used for, strings end in NUL and stay the caller's. Calls do not overlap, nor do those of
//! `Open` and `Close` of VixDiskLib with them. A connection, or the disks that a set is made of, outlive the set; the
//! set is closed after its volumes were dismounted and their handles freed. What a function gave is freed by its
//! counterpart, once.

use std::ffi::c_char;

pub use vixdisklib_sys::functions::{Function, Need};
use vixdisklib_sys::{VixError, shape::HasShape};

use crate::types::*;

/// Hands the list of all functions to a macro, so that there is one list only.
macro_rules! with_functions {
    ($then:ident) => {
        $then! {
            /// Prepares the library: once a process.
            mandatory init: Init = "VixMntapi_Init"(
                major: u32, minor: u32, log: Option<LogFunc>, warn: Option<LogFunc>, panic: Option<LogFunc>,
                lib_dir: *const c_char, config_file: *const c_char) -> VixError;
            /// Ends the library: once a process.
            mandatory exit: Exit = "VixMntapi_Exit"() -> ();
            /// Makes a set of open disks. The libraries for Linux do not have it.
            optional open_disk_set: OpenDiskSet = "VixMntapi_OpenDiskSet"(
                disks: *mut DiskHandle, count: usize, open_mode: u32, set: *mut DiskSetHandle) -> VixError;
            /// Opens disks by their paths and makes a set of them; on Linux, of one.
            mandatory open_disks: OpenDisks = "VixMntapi_OpenDisks"(
                connection: ConnectionHandle, names: *const *const c_char, count: usize, flags: u32,
                set: *mut DiskSetHandle) -> VixError;
            /// Describes a set.
            mandatory get_disk_set_info: GetDiskSetInfo = "VixMntapi_GetDiskSetInfo"(
                set: DiskSetHandle, info: *mut *mut DiskSetInfo) -> VixError;
            /// Frees what [`GetDiskSetInfo`] gave.
            mandatory free_disk_set_info: FreeDiskSetInfo = "VixMntapi_FreeDiskSetInfo"(info: *mut DiskSetInfo) -> ();
            /// Closes a set, before its connection ends.
            mandatory close_disk_set: CloseDiskSet = "VixMntapi_CloseDiskSet"(set: DiskSetHandle) -> VixError;
            /// Lists the volumes of a set. The array is the library's.
            mandatory get_volume_handles: GetVolumeHandles = "VixMntapi_GetVolumeHandles"(
                set: DiskSetHandle, count: *mut usize, volumes: *mut *mut VolumeHandle) -> VixError;
            /// Frees what [`GetVolumeHandles`] gave.
            mandatory free_volume_handles: FreeVolumeHandles = "VixMntapi_FreeVolumeHandles"(
                volumes: *mut VolumeHandle) -> ();
            /// Tells which Windows is installed. Its system volume and the one that it boots from are mounted before;
            /// the former stays so.
            mandatory get_os_info: GetOsInfo = "VixMntapi_GetOsInfo"(
                set: DiskSetHandle, info: *mut *mut OsInfo) -> VixError;
            /// Frees what [`GetOsInfo`] gave.
            mandatory free_os_info: FreeOsInfo = "VixMntapi_FreeOsInfo"(info: *mut OsInfo) -> ();
            /// Mounts a volume, and locks its disk.
            mandatory mount_volume: MountVolume = "VixMntapi_MountVolume"(
                volume: VolumeHandle, read_only: Bool) -> VixError;
            /// Dismounts a volume; by force, also while files are open.
            mandatory dismount_volume: DismountVolume = "VixMntapi_DismountVolume"(
                volume: VolumeHandle, force: Bool) -> VixError;
            /// Describes a volume that is mounted.
            mandatory get_volume_info: GetVolumeInfo = "VixMntapi_GetVolumeInfo"(
                volume: VolumeHandle, info: *mut *mut VolumeInfo) -> VixError;
            /// Frees what [`GetVolumeInfo`] gave.
            mandatory free_volume_info: FreeVolumeInfo = "VixMntapi_FreeVolumeInfo"(info: *mut VolumeInfo) -> ();
        }
    };
}

macro_rules! types_and_table {
    ($(
        $(#[$doc:meta])*
        $need:ident $name:ident: $type:ident = $symbol:literal
        ($($parameter:ident: $parameter_type:ty),*) -> $returns:ty;
    )*) => {
        $(
            $(#[$doc])*
            #[doc(alias = $symbol)]
            pub type $type = unsafe extern "C" fn($($parameter: $parameter_type),*) -> $returns;
        )*

        /// All functions of the interface. `since` is `"5.0"` for all: it stands for every VDDK that is met.
        pub const FUNCTIONS: &[Function] = &[$(Function {
            symbol: $symbol,
            name: stringify!($name),
            since: "5.0",
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
        assert_eq!((symbols.len(), FUNCTIONS.len()), (15, 15));
    }

    #[test]
    fn only_what_linux_lacks_is_optional() {
        let optional = FUNCTIONS.iter().filter(|function| function.need == Need::Optional);
        assert_eq!(optional.map(|function| function.symbol).collect::<Vec<_>>(), ["VixMntapi_OpenDiskSet"]);
    }

    #[test]
    fn shapes_of_parameters_are_those_of_the_declaration() {
        let of = |name: &str| {
            let function = FUNCTIONS.iter().find(|function| function.name == name).unwrap();
            function.parameters.iter().map(|(_, shape)| shape.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("open_disks"), ["ConnectionObject*", "i8**", "i64", "i32", "DiskSetObject**"]);
        assert_eq!(of("get_volume_handles"), ["DiskSetObject*", "i64*", "VolumeObject***"]);
        assert_eq!(of("mount_volume"), ["VolumeObject*", "i8"]);
    }
}
