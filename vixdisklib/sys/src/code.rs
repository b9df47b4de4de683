//! What an error of the library says, whether trying again helps, and what to do.

use std::fmt;

/// An error as functions return it: a [`VixCode`] in the low 16 bits, and more of the library's own above.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct VixError(pub u64);

impl VixError {
    /// Success.
    #[doc(alias = "VIX_OK")]
    pub const OK: Self = Self(0);

    /// The code.
    #[doc(alias = "VIX_ERROR_CODE")]
    pub const fn code(self) -> VixCode {
        VixCode((self.0 & 0xFFFF) as u16)
    }

    /// True only when nothing failed: all bits are 0.
    #[doc(alias = "VIX_SUCCEEDED")]
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// True for [`VixCode::ASYNC`], the success of asynchronous calls.
    pub fn is_async(self) -> bool {
        self.code() == VixCode::ASYNC
    }
}

impl From<VixCode> for VixError {
    fn from(code: VixCode) -> Self {
        Self(u64::from(code.0))
    }
}

impl fmt::Debug for VixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 >> 16 {
            0 => write!(f, "{:?}", self.code()),
            more => write!(f, "{:?} (more: {more:#x})", self.code()),
        }
    }
}

/// The code of an error. A number without a name here is a value like any other.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VixCode(pub u16);

/// What is known about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeFacts {
    /// The code.
    pub code: VixCode,
    /// VMware's name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether the same call may succeed later without anybody changing anything.
    pub retry: Retry,
    /// What to do, where that is known.
    pub hint: Option<&'static str>,
}

/// Whether the same call may succeed later without anybody changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No: somebody has to change something first.
    No,
    /// It may, on the same connection, after a pause.
    Later,
    /// It may, on a new connection.
    Reconnect,
}

impl VixCode {
    /// What is known about the code; `None` for numbers without a name here.
    pub fn facts(self) -> Option<&'static CodeFacts> {
        let at = FACTS.binary_search_by_key(&self, |facts| facts.code).ok()?;
        Some(&FACTS[at])
    }

    /// What is known about all codes that have a name here, in ascending order.
    pub fn known() -> impl Iterator<Item = &'static CodeFacts> {
        FACTS.iter()
    }

    /// VMware's name; `None` where it is not known.
    pub fn name(self) -> Option<&'static str> {
        self.facts().map(|facts| facts.name)
    }

    /// What it means: of the code itself, else of the group of codes that it belongs to.
    pub fn meaning(self) -> &'static str {
        let group = || GROUPS.iter().find(|(codes, _)| codes.contains(&self.0)).map(|(_, meaning)| *meaning);
        self.facts().map(|facts| facts.meaning).or_else(group).unwrap_or("no meaning is known")
    }

    /// Whether the same call may succeed later.
    pub fn retry(self) -> Retry {
        self.facts().map_or(Retry::No, |facts| facts.retry)
    }

    /// What to do, where that is known.
    pub fn hint(self) -> Option<&'static str> {
        self.facts()?.hint
    }
}

impl fmt::Debug for VixCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "VIX error {}", self.0),
        }
    }
}

/// `VIX_E_DISK_OUTOFRANGE (16007): the range is not inside the disk`.
impl fmt::Display for VixCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", self.meaning())
    }
}

/// Codes of other parts of VMware's interface, which a disk library may hand on.
const GROUPS: &[(std::ops::RangeInclusive<u16>, &str)] = &[
    (1..=999, "a general error"),
    (1000..=1999, "an error of handles"),
    (2000..=2999, "an error of XML or properties"),
    (3000..=3999, "an error of the guest's tools, of a login or of a session"),
    (4000..=4999, "an error of the virtual machine"),
    (13000..=13999, "an error of snapshots"),
    (14000..=14999, "an error of files or of the network"),
    (16000..=16999, "an error of the disk"),
    (17000..=17999, "an error of encryption"),
    (18000..=18999, "an error of the remote host"),
    (24000..=24999, "an error of mounting"),
    (30000..=30999, "an answer of HTTP"),
];

macro_rules! codes {
    ($($value:literal $constant:ident $name:literal $retry:ident $meaning:literal $(, $hint:literal)?;)*) => {
        impl VixCode {
            $(
                #[doc = concat!($name, ": ", $meaning, ".")]
                #[doc(alias = $name)]
                pub const $constant: Self = Self($value);
            )*
        }

        /// In the order of the codes.
        static FACTS: &[CodeFacts] = &[$(CodeFacts {
            code: VixCode($value),
            name: $name,
            meaning: $meaning,
            retry: Retry::$retry,
            hint: codes!(@hint $($hint)?),
        },)*];
    };
    (@hint $hint:literal) => { Some($hint) };
    (@hint) => { None };
}

codes! {
    0 OK "VIX_OK" No "success";
    1 FAIL "VIX_E_FAIL" No "it failed, and no reason is given",
        "look into the library's log; at opening, check the server's thumbprint";
    2 OUT_OF_MEMORY "VIX_E_OUT_OF_MEMORY" Later "this machine or the host is out of memory",
        "open fewer disks at once, or ask for smaller NFC buffers";
    3 INVALID_ARG "VIX_E_INVALID_ARG" No "an argument is not valid";
    4 FILE_NOT_FOUND "VIX_E_FILE_NOT_FOUND" No "there is no such file",
        "take the path from the VM's present hardware; snapshots and consolidation change it";
    5 OBJECT_IS_BUSY "VIX_E_OBJECT_IS_BUSY" Later "the object is busy";
    6 NOT_SUPPORTED "VIX_E_NOT_SUPPORTED" No "this is not supported";
    7 FILE_ERROR "VIX_E_FILE_ERROR" No "a file could not be used";
    8 DISK_FULL "VIX_E_DISK_FULL" No "the file system is full", "make room";
    9 INCORRECT_FILE_TYPE "VIX_E_INCORRECT_FILE_TYPE" No "the file is not of the right kind";
    10 CANCELLED "VIX_E_CANCELLED" Later "it was cancelled";
    11 FILE_READ_ONLY "VIX_E_FILE_READ_ONLY" No "the file may only be read";
    12 FILE_ALREADY_EXISTS "VIX_E_FILE_ALREADY_EXISTS" No "the file exists already";
    13 FILE_ACCESS_ERROR "VIX_E_FILE_ACCESS_ERROR" No "no access: the library's word for many things",
        "check the right on the disk, the snapshot reference, free slots for hot-add, and before 8.0.2 the network";
    14 REQUIRES_LARGE_FILES "VIX_E_REQUIRES_LARGE_FILES" No "the file system cannot hold files of that size";
    15 FILE_ALREADY_LOCKED "VIX_E_FILE_ALREADY_LOCKED" Later "the file is locked",
        "power the VM off, or read a snapshot of it; another backup may be running";
    16 VMDB "VIX_E_VMDB" No "the host's internal data base failed";
    20 NOT_SUPPORTED_ON_REMOTE_OBJECT "VIX_E_NOT_SUPPORTED_ON_REMOTE_OBJECT" No
        "this is only for disks of this machine";
    21 FILE_TOO_BIG "VIX_E_FILE_TOO_BIG" No "the file is too big for its file system";
    22 FILE_NAME_INVALID "VIX_E_FILE_NAME_INVALID" No "the file's name is not valid";
    23 ALREADY_EXISTS "VIX_E_ALREADY_EXISTS" No "it exists already";
    24 BUFFER_TOOSMALL "VIX_E_BUFFER_TOOSMALL" No "the buffer is too small";
    25 OBJECT_NOT_FOUND "VIX_E_OBJECT_NOT_FOUND" No "there is no such object";
    26 HOST_NOT_CONNECTED "VIX_E_HOST_NOT_CONNECTED" Reconnect "the host is not connected";
    27 INVALID_UTF8_STRING "VIX_E_INVALID_UTF8_STRING" No "a text is not UTF-8";
    29 UNFINISHED_JOB "VIX_E_UNFINISHED_JOB" Later "a job is not finished";
    30 NEED_KEY "VIX_E_NEED_KEY" No "a key is needed";
    31 OP_ALREADY_IN_PROGRESS "VIX_E_OPERATION_ALREADY_IN_PROGRESS" Later "the operation is under way already";
    32 LICENSE "VIX_E_LICENSE" No "the licence does not allow it", "the free edition of ESXi cannot be backed up so";
    34 VM_HOST_DISCONNECTED "VIX_E_VM_HOST_DISCONNECTED" Later "the VM's host is disconnected from the vCenter";
    35 AUTHENTICATION_FAIL "VIX_E_AUTHENTICATION_FAIL" No "the login was refused";
    36 HOST_CONNECTION_LOST "VIX_E_HOST_CONNECTION_LOST" Reconnect "the connection to the host was lost";
    41 DUPLICATE_NAME "VIX_E_DUPLICATE_NAME" No "the name is taken";
    44 ARGUMENT_TOO_BIG "VIX_E_ARGUMENT_TOO_BIG" No "an argument is too big";
    1000 INVALID_HANDLE "VIX_E_INVALID_HANDLE" No "the handle is not valid";
    1001 NOT_SUPPORTED_ON_HANDLE_TYPE "VIX_E_NOT_SUPPORTED_ON_HANDLE_TYPE" No "the handle is of another kind";
    1002 TOO_MANY_HANDLES "VIX_E_TOO_MANY_HANDLES" Later "there are too many handles";
    2000 NOT_FOUND "VIX_E_NOT_FOUND" No "it was not found";
    3014 HOST_USER_PERMISSIONS "VIX_E_HOST_USER_PERMISSIONS" No "the user lacks a right on the host",
        "the user needs VirtualMachine.Provisioning.DiskRandomRead, to write DiskRandomAccess, and Global.Licenses";
    3046 TOO_MANY_LOGONS "VIX_E_TOO_MANY_LOGONS" Later "there are too many logins";
    3047 INVALID_AUTHENTICATION_SESSION "VIX_E_INVALID_AUTHENTICATION_SESSION" Reconnect "the session is not valid";
    4000 VM_NOT_FOUND "VIX_E_VM_NOT_FOUND" No "there is no such VM";
    13000 SNAPSHOT_INVAL "VIX_E_SNAPSHOT_INVAL" No "the snapshot is not valid";
    13003 SNAPSHOT_NOTFOUND "VIX_E_SNAPSHOT_NOTFOUND" No "there is no such snapshot";
    13010 SNAPSHOT_LOCKED "VIX_E_SNAPSHOT_LOCKED" Later "the snapshot is locked";
    13019 SNAPSHOT_MAXSNAPSHOTS "VIX_E_SNAPSHOT_MAXSNAPSHOTS" No "there are too many snapshots";
    14003 INVALID_VALUE "VIX_E_INVALID_VALUE" No "a value is not valid";
    14004 SECTORSIZE "VIX_E_SECTORSIZE" No "not a multiple of the sector size";
    14005 FILE_ERROR_EOF "VIX_E_FILE_ERROR_EOF" No "the file ended early";
    14006 NETBLKDEV_HANDSHAKE "VIX_E_NETBLKDEV_HANDSHAKE" Reconnect "the NFC handshake failed";
    14007 SOCKET_CREATION_ERROR "VIX_E_SOCKET_CREATION_ERROR" Later "no socket could be made";
    14008 SERVER_NOT_FOUND "VIX_E_SERVER_NOT_FOUND" No "the server's name is not known",
        "the host has to be reachable by the name under which the vCenter knows it";
    14009 NETWORK_CONN_REFUSED "VIX_E_NETWORK_CONN_REFUSED" Reconnect "the server refused the connection",
        "ports 443 and 902 have to be open";
    14010 TCP_SOCKET_ERROR "VIX_E_TCP_SOCKET_ERROR" Reconnect "the network failed";
    14011 TCP_CONN_LOST "VIX_E_TCP_CONN_LOST" Reconnect "the connection was lost";
    14012 NBD_HASHFILE_VOLUME "VIX_E_NBD_HASHFILE_VOLUME" No "the hash file is for another volume";
    14013 NBD_HASHFILE_INIT "VIX_E_NBD_HASHFILE_INIT" No "the hash file could not be begun";
    14014 HOST_SERVER_SHUTDOWN "VIX_E_HOST_SERVER_SHUTDOWN" Reconnect "the host is entering maintenance mode",
        "wait until the VM runs on another host";
    14015 HOST_SERVER_NOT_AVAILABLE "VIX_E_HOST_SERVER_NOT_AVAILABLE" Reconnect "the host is in maintenance mode",
        "wait until the VM runs on another host";
    16000 DISK_INVAL "VIX_E_DISK_INVAL" No "a parameter is not valid for the disk";
    16001 DISK_NOINIT "VIX_E_DISK_NOINIT" No "the library was not prepared", "call InitEx first";
    16002 DISK_NOIO "VIX_E_DISK_NOIO" No "the disk cannot be read or written";
    16003 DISK_PARTIALCHAIN "VIX_E_DISK_PARTIALCHAIN" No "the chain is opened in part only";
    16006 DISK_NEEDSREPAIR "VIX_E_DISK_NEEDSREPAIR" No "the disk needs repair", "check and repair it first";
    16007 DISK_OUTOFRANGE "VIX_E_DISK_OUTOFRANGE" No "the range is not inside the disk";
    16008 DISK_CID_MISMATCH "VIX_E_DISK_CID_MISMATCH" No "the parent was changed after its child was made";
    16009 DISK_CANTSHRINK "VIX_E_DISK_CANTSHRINK" No "the disk cannot be shrunk";
    16010 DISK_PARTMISMATCH "VIX_E_DISK_PARTMISMATCH" No "the partition table is not the one that was written down";
    16011 DISK_UNSUPPORTEDDISKVERSION "VIX_E_DISK_UNSUPPORTEDDISKVERSION" No "the disk's format is too new";
    16012 DISK_OPENPARENT "VIX_E_DISK_OPENPARENT" No "a parent cannot be opened";
    16013 DISK_NOTSUPPORTED "VIX_E_DISK_NOTSUPPORTED" No "the disk does not support this";
    16014 DISK_NEEDKEY "VIX_E_DISK_NEEDKEY" No "the disk is encrypted and no key was given";
    16015 DISK_NOKEYOVERRIDE "VIX_E_DISK_NOKEYOVERRIDE" No "the key cannot be replaced";
    16016 DISK_NOTENCRYPTED "VIX_E_DISK_NOTENCRYPTED" No "a key was given for a disk that is not encrypted";
    16017 DISK_NOKEY "VIX_E_DISK_NOKEY" No "there is no key";
    16022 DISK_NEEDVMFS "VIX_E_DISK_NEEDVMFS" No "this kind of disk needs VMFS";
    16024 DISK_RAWTOOBIG "VIX_E_DISK_RAWTOOBIG" No "the raw device is larger than its mapping";
    16027 DISK_TOOMANYOPENFILES "VIX_E_DISK_TOOMANYOPENFILES" Later "too many files are open";
    16028 DISK_TOOMANYREDO "VIX_E_DISK_TOOMANYREDO" No "the chain is too long";
    16029 DISK_RAWTOOSMALL "VIX_E_DISK_RAWTOOSMALL" No "the raw device is smaller than its mapping";
    16030 DISK_INVALIDCHAIN "VIX_E_DISK_INVALIDCHAIN" No "the chain is not valid";
    16052 DISK_KEY_NOTFOUND "VIX_E_DISK_KEY_NOTFOUND" No "the disk data base has no such key";
    16053 DISK_SUBSYSTEM_INIT_FAIL "VIX_E_DISK_SUBSYSTEM_INIT_FAIL" No "a part of the library could not begin",
        "check that the library's directory is complete and its plugins can be loaded";
    16054 DISK_INVALID_CONNECTION "VIX_E_DISK_INVALID_CONNECTION" No "the connection is not valid";
    16061 DISK_ENCODING "VIX_E_DISK_ENCODING" No "the descriptor's encoding is not supported";
    16062 DISK_CANTREPAIR "VIX_E_DISK_CANTREPAIR" No "the disk cannot be repaired";
    16063 DISK_INVALIDDISK "VIX_E_DISK_INVALIDDISK" No "the disk is not valid";
    16064 DISK_NOLICENSE "VIX_E_DISK_NOLICENSE" No "no licence allows it";
    16065 DISK_NODEVICE "VIX_E_DISK_NODEVICE" No "there is no such device";
    16066 DISK_UNSUPPORTEDDEVICE "VIX_E_DISK_UNSUPPORTEDDEVICE" No "the device is not supported";
    16067 DISK_CAPACITY_MISMATCH "VIX_E_DISK_CAPACITY_MISMATCH" No "parent and child are not of the same size";
    16068 DISK_PARENT_NOTALLOWED "VIX_E_DISK_PARENT_NOTALLOWED" No "the disk cannot be a parent";
    16069 DISK_ATTACH_ROOTLINK "VIX_E_DISK_ATTACH_ROOTLINK" No "a disk without a parent cannot be attached";
    18000 CANNOT_CONNECT_TO_HOST "VIX_E_CANNOT_CONNECT_TO_HOST" Reconnect "the host cannot be connected to",
        "port 902 of the host has to be open for this machine";
    24000 MNTAPI_MOUNTPT_NOT_FOUND "VIX_E_MNTAPI_MOUNTPT_NOT_FOUND" No "there is no such mount point";
    24001 MNTAPI_MOUNTPT_IN_USE "VIX_E_MNTAPI_MOUNTPT_IN_USE" Later "the mount point is in use";
    24002 MNTAPI_DISK_NOT_FOUND "VIX_E_MNTAPI_DISK_NOT_FOUND" No "there is no such disk";
    24003 MNTAPI_DISK_NOT_MOUNTED "VIX_E_MNTAPI_DISK_NOT_MOUNTED" No "the disk is not mounted";
    24004 MNTAPI_DISK_IS_MOUNTED "VIX_E_MNTAPI_DISK_IS_MOUNTED" No "the disk is mounted already";
    24005 MNTAPI_DISK_NOT_SAFE "VIX_E_MNTAPI_DISK_NOT_SAFE" No "it is not safe to mount the disk",
        "mount a snapshot's disk read-only, or a child of it";
    24006 MNTAPI_DISK_CANT_OPEN "VIX_E_MNTAPI_DISK_CANT_OPEN" No "the disk cannot be opened";
    24007 MNTAPI_CANT_READ_PARTS "VIX_E_MNTAPI_CANT_READ_PARTS" No "the partition table cannot be read";
    24008 MNTAPI_UMOUNT_APP_NOT_FOUND "VIX_E_MNTAPI_UMOUNT_APP_NOT_FOUND" No "there is no program to unmount with",
        "install fusermount and umount where the library looks for them";
    24009 MNTAPI_UMOUNT "VIX_E_MNTAPI_UMOUNT" Later "it cannot be unmounted",
        "close what is open on the volume; lsof and fuser name who has it";
    24010 MNTAPI_NO_MOUNTABLE_PARTITONS "VIX_E_MNTAPI_NO_MOUNTABLE_PARTITONS" No "no partition can be mounted",
        "swap space, extended partitions and members of volume groups cannot be";
    24011 MNTAPI_PARTITION_RANGE "VIX_E_MNTAPI_PARTITION_RANGE" No "there is no partition of this number";
    24012 MNTAPI_PERM "VIX_E_MNTAPI_PERM" No "this user may not do it", "mounting needs root";
    24013 MNTAPI_DICT "VIX_E_MNTAPI_DICT" No "the list of mounts cannot be used";
    24014 MNTAPI_DICT_LOCKED "VIX_E_MNTAPI_DICT_LOCKED" Later "the list of mounts is locked",
        "another program mounts; one at a time is the rule";
    24015 MNTAPI_OPEN_HANDLES "VIX_E_MNTAPI_OPEN_HANDLES" Later "files on it are open";
    24016 MNTAPI_CANT_MAKE_VAR_DIR "VIX_E_MNTAPI_CANT_MAKE_VAR_DIR" No "the directory for mounts cannot be made";
    24017 MNTAPI_NO_ROOT "VIX_E_MNTAPI_NO_ROOT" No "it needs root", "run as root";
    24018 MNTAPI_LOOP_FAILED "VIX_E_MNTAPI_LOOP_FAILED" Later "no loop device could be set up",
        "the kernel needs the module loop and a free device";
    24019 MNTAPI_DAEMON "VIX_E_MNTAPI_DAEMON" Later "the process that serves the disk failed",
        "the kernel needs FUSE, and this machine its programs";
    24020 MNTAPI_INTERNAL "VIX_E_MNTAPI_INTERNAL" No "an error inside the library";
    24021 MNTAPI_SYSTEM "VIX_E_MNTAPI_SYSTEM" No "a call of the operating system failed";
    24022 MNTAPI_NO_CONNECTION_DETAILS "VIX_E_MNTAPI_NO_CONNECTION_DETAILS" No
        "the connection does not tell how it was made";
    24300 MNTAPI_INCOMPATIBLE_VERSION "VIX_E_MNTAPI_INCOMPATIBLE_VERSION" No "the version is not one that fits";
    24301 MNTAPI_OS_ERROR "VIX_E_MNTAPI_OS_ERROR" No "the operating system refused or failed";
    24302 MNTAPI_DRIVE_LETTER_IN_USE "VIX_E_MNTAPI_DRIVE_LETTER_IN_USE" No "the drive letter is in use";
    24303 MNTAPI_DRIVE_LETTER_ALREADY_ASSIGNED "VIX_E_MNTAPI_DRIVE_LETTER_ALREADY_ASSIGNED" No
        "the volume has a drive letter already";
    24304 MNTAPI_VOLUME_NOT_MOUNTED "VIX_E_MNTAPI_VOLUME_NOT_MOUNTED" No "the volume is not mounted";
    24305 MNTAPI_VOLUME_ALREADY_MOUNTED "VIX_E_MNTAPI_VOLUME_ALREADY_MOUNTED" No
        "the volume is mounted already: as good as a success";
    24306 MNTAPI_FORMAT_FAILURE "VIX_E_MNTAPI_FORMAT_FAILURE" No "formatting failed";
    24307 MNTAPI_NO_DRIVER "VIX_E_MNTAPI_NO_DRIVER" No "there is no driver for mounting",
        "install vstor2-mntapi, the driver of the VDDK for Windows";
    24308 MNTAPI_ALREADY_OPENED "VIX_E_MNTAPI_ALREADY_OPENED" No "it is open already";
    24309 MNTAPI_ITEM_NOT_FOUND "VIX_E_MNTAPI_ITEM_NOT_FOUND" No "there is no such item";
    24310 MNTAPI_UNSUPPROTED_BOOT_LOADER "VIX_E_MNTAPI_UNSUPPROTED_BOOT_LOADER" No
        "the guest's boot loader is not supported";
    24311 MNTAPI_UNSUPPROTED_OS "VIX_E_MNTAPI_UNSUPPROTED_OS" No "the guest's operating system is not supported",
        "only Windows is looked into";
    24312 MNTAPI_CODECONVERSION "VIX_E_MNTAPI_CODECONVERSION" No "a text could not be converted";
    24313 MNTAPI_REGWRITE_ERROR "VIX_E_MNTAPI_REGWRITE_ERROR" No "the registry could not be written";
    24314 MNTAPI_UNSUPPORTED_FT_VOLUME "VIX_E_MNTAPI_UNSUPPORTED_FT_VOLUME" No
        "fault-tolerant volumes of this kind are not supported";
    24315 MNTAPI_PARTITION_NOT_FOUND "VIX_E_MNTAPI_PARTITION_NOT_FOUND" No "there is no such partition";
    24316 MNTAPI_PUTFILE_ERROR "VIX_E_MNTAPI_PUTFILE_ERROR" No "a file could not be written";
    24317 MNTAPI_GETFILE_ERROR "VIX_E_MNTAPI_GETFILE_ERROR" No "a file could not be read";
    24318 MNTAPI_REG_NOT_OPENED "VIX_E_MNTAPI_REG_NOT_OPENED" No "the guest's registry could not be opened",
        "mount its system volume first, and let no other program use the registry of the same guest";
    24319 MNTAPI_REGDELKEY_ERROR "VIX_E_MNTAPI_REGDELKEY_ERROR" No "a key of the registry could not be deleted";
    24320 MNTAPI_CREATE_PARTITIONTABLE_ERROR "VIX_E_MNTAPI_CREATE_PARTITIONTABLE_ERROR" No
        "a partition table could not be created";
    24321 MNTAPI_OPEN_FAILURE "VIX_E_MNTAPI_OPEN_FAILURE" No "it could not be opened";
    24322 MNTAPI_VOLUME_NOT_WRITABLE "VIX_E_MNTAPI_VOLUME_NOT_WRITABLE" No "the volume is not writable";
    25000 ASYNC "VIX_ASYNC" No "an asynchronous operation has begun: a success, not an error";
    26000 ASYNC_MIXEDMODE_UNSUPPORTED "VIX_E_ASYNC_MIXEDMODE_UNSUPPORTED" No
        "asynchronous and synchronous calls were mixed on one disk";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ascending_so_that_every_code_is_found() {
        assert!(FACTS.is_sorted_by(|a, b| a.code < b.code));
        for facts in FACTS {
            assert_eq!(facts.code.facts(), Some(facts));
            assert!(facts.name.starts_with("VIX_"), "{facts:?}");
        }
    }

    #[test]
    fn the_code_is_the_low_half_and_the_rest_is_kept() {
        let error = VixError(0x5_0000 | 14009);
        assert_eq!(error.code(), VixCode::NETWORK_CONN_REFUSED);
        assert_eq!(format!("{error:?}"), "VIX_E_NETWORK_CONN_REFUSED (14009) (more: 0x5)");
        assert!(!VixError(0x1_0000).is_ok(), "success is all bits 0");
        assert!(VixError::from(VixCode::ASYNC).is_async());
    }

    #[test]
    fn codes_without_a_name_still_say_what_they_are_about() {
        assert_eq!(VixCode(17004).to_string(), "VIX error 17004: an error of encryption");
        assert_eq!(VixCode(9999).to_string(), "VIX error 9999: no meaning is known");
        assert_eq!((VixCode(9999).retry(), VixCode(9999).hint()), (Retry::No, None));
    }
}
