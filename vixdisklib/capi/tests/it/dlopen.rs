//! The library as a Rust program loads it: by `dlopen`, through the declarations of `vixdisklib-sys`.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::Path,
    ptr::{null, null_mut},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use vixdisklib_sys::{
    AdapterType, Bool, ConnectParams, ConnectionHandle, CreateParams, CreateParamsBase, CredType, DiskHandle, DiskType,
    FUNCTIONS, HwVersion, OpenFlags, SECTOR, SpecType, VaList, VixCode, VixError, load::Api,
};

use crate::{
    site::{PATH, Site},
    support::library,
};

const SECTORS: u64 = 65536;
const READ_ONLY: u32 = OpenFlags::READ_ONLY.0;

/// Calls a function of the loaded library, remembers that it ran, and gives what it returned. Those that a library may
/// lack are called with a `?`.
macro_rules! call {
    ($loaded:ident.$name:ident?($($argument:expr),*)) => {{
        let function = $loaded.api.$name.unwrap();
        $loaded.ran(stringify!($name));
        // SAFETY: pointers are null or to values and buffers of this test that outlive the call, of the size that the
        // call speaks of; texts end in NUL. What else is wrong with them, the library has to find out.
        unsafe { function($($argument),*) }
    }};
    ($loaded:ident.$name:ident($($argument:expr),*)) => {{
        let function = $loaded.api.$name;
        $loaded.ran(stringify!($name));
        // SAFETY: as above.
        unsafe { function($($argument),*) }
    }};
}

/// Calls a function whose answer has to be this code.
macro_rules! gives {
    ($code:ident, $loaded:ident.$name:ident $($rest:tt)*) => {{
        let error: VixError = call!($loaded.$name $($rest)*);
        assert_eq!(error.code(), VixCode::$code, "{}: {}", stringify!($name), error.code());
    }};
}

/// The library, loaded once a process and used by one test at a time: it has one beginning and one end.
struct Loaded {
    api: Api,
    ran: Mutex<BTreeSet<&'static str>>,
    _alone: MutexGuard<'static, ()>,
}

impl Loaded {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the file is the library of this crate.
        let api = unsafe { Api::load(&library()) }.unwrap();
        assert!(api.missing().is_empty(), "{:?}", api.missing());
        Self { api, ran: Mutex::default(), _alone: alone }
    }

    fn begun() -> Self {
        let lib = Self::new();
        gives!(OK, lib.init_ex(8, 0, Some(on_log), Some(on_log), Some(on_panic), null(), null()));
        lib
    }

    fn ran(&self, name: &'static str) {
        self.ran.lock().unwrap().insert(name);
    }

    fn local(&self) -> ConnectionHandle {
        let mut connection = null_mut();
        gives!(OK, self.connect?(null(), &mut connection));
        connection
    }

    fn open(&self, connection: ConnectionHandle, path: &CStr, flags: u32) -> DiskHandle {
        let mut disk = null_mut();
        gives!(OK, self.open(connection, path.as_ptr(), flags, &mut disk));
        assert!(!disk.is_null());
        disk
    }

    fn mode(&self, disk: DiskHandle) -> &'static CStr {
        let mode = call!(self.get_transport_mode(disk));
        // SAFETY: a text of the library's, valid for ever.
        unsafe { CStr::from_ptr(mode) }
    }

    fn sector(&self, disk: DiskHandle, at: u64) -> u8 {
        let mut sector = [0xee_u8; SECTOR as usize];
        gives!(OK, self.read(disk, at, 1, sector.as_mut_ptr()));
        assert!(sector.iter().all(|byte| *byte == sector[0]));
        sector[0]
    }

    /// Reads through the asynchronous call and `Wait`.
    fn begun_and_awaited(&self, disk: DiskHandle, at: u64, buffer: &mut [u8]) {
        let done = AtomicUsize::new(0);
        let (count, data) = (buffer.len() as u64 / SECTOR, (&raw const done).cast_mut().cast());
        gives!(ASYNC, self.read_async?(disk, at, count, buffer.as_mut_ptr(), Some(on_completion), data));
        gives!(OK, self.wait?(disk));
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}

static LOGGED: AtomicUsize = AtomicUsize::new(0);
static PANICKED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_log(format: *const c_char, _: VaList) {
    // SAFETY: the library hands a text.
    assert_eq!(unsafe { CStr::from_ptr(format) }, c"%s");
    LOGGED.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn on_panic(_: *const c_char, _: VaList) {
    PANICKED.fetch_add(1, Ordering::SeqCst);
}

/// Counts what went well.
unsafe extern "C" fn on_completion(done: *mut c_void, result: VixError) {
    // SAFETY: the counter of the one who began the call, and who waits for it.
    unsafe { &*done.cast::<AtomicUsize>() }.fetch_add(usize::from(result.is_ok()), Ordering::SeqCst);
}

/// Keeps the highest percentage.
unsafe extern "C" fn on_progress(percent: *mut c_void, now: c_int) -> Bool {
    // SAFETY: the counter of the one who called.
    unsafe { &*percent.cast::<AtomicUsize>() }.fetch_max(usize::try_from(now).unwrap(), Ordering::SeqCst);
    1
}

fn pointer(counter: &AtomicUsize) -> *mut c_void {
    (&raw const *counter).cast_mut().cast()
}

fn text(folder: &Path, name: &str) -> CString {
    CString::new(folder.join(name).to_str().unwrap()).unwrap()
}

fn sparse() -> CreateParams {
    let base = CreateParamsBase {
        disk_type: DiskType::MONOLITHIC_SPARSE,
        adapter_type: AdapterType::SCSI_LSILOGIC,
        hw_version: HwVersion::ESX65,
        capacity: SECTORS,
    };
    CreateParams { base, logical_sector_size: 512, physical_sector_size: 512 }
}

/// Neither a handle nor memory of the library.
fn foreign<T>() -> *mut T {
    static MEMORY: [u64; 32] = [0; 32];
    MEMORY.as_ptr().cast_mut().cast()
}

#[test]
fn every_function_answers_right_and_wrong_arguments() {
    let lib = Loaded::new();
    let folder = tempfile::tempdir().unwrap();
    before_it_is_ready(&lib);
    gives!(INVALID_ARG, lib.init?(99, 0, None, None, None, null()));
    gives!(INVALID_ARG, lib.init_ex(0, 0, None, None, None, null(), null()));
    gives!(OK, lib.init_ex(8, 0, Some(on_log), Some(on_log), Some(on_panic), c"/nowhere".as_ptr(), null()));
    assert!(LOGGED.load(Ordering::SeqCst) > 0);
    connections_and_servers(&lib);
    texts(&lib);
    let connection = lib.local();
    disks(&lib, connection, folder.path());
    chains(&lib, connection, folder.path());
    files(&lib, connection, folder.path());
    gives!(OK, lib.disconnect(connection));
    gives!(INVALID_HANDLE, lib.disconnect(connection));
    call!(lib.exit());
    gives!(DISK_NOINIT, lib.connect?(null(), &mut null_mut()));
    assert_eq!(PANICKED.load(Ordering::SeqCst), 0);
    let all: BTreeSet<_> = FUNCTIONS.iter().map(|function| function.name).collect();
    assert_eq!(*lib.ran.lock().unwrap(), all);
}

fn before_it_is_ready(lib: &Loaded) {
    let (mut connection, mut disk, mut sector) = (null_mut(), null_mut(), [0; 512]);
    gives!(DISK_NOINIT, lib.connect?(null(), &mut connection));
    gives!(DISK_NOINIT, lib.connect_ex(null(), 1, null(), null(), &mut connection));
    gives!(DISK_NOINIT, lib.open(foreign(), c"a".as_ptr(), 0, &mut disk));
    gives!(DISK_NOINIT, lib.read(foreign(), 0, 1, sector.as_mut_ptr()));
    gives!(DISK_NOINIT, lib.rename?(c"a".as_ptr(), c"b".as_ptr()));
    assert!(call!(lib.get_transport_mode(null_mut())).is_null());
    call!(lib.exit());
}

fn connections_and_servers(lib: &Loaded) {
    let modes = call!(lib.list_transport_modes?());
    // SAFETY: a text of the library's, valid for ever.
    let modes = unsafe { CStr::from_ptr(modes) }.to_str().unwrap();
    assert_eq!(modes, "file:nbdssl:nbd:https");
    let (mut connection, mut given) = (null_mut(), null_mut());
    gives!(INVALID_ARG, lib.connect?(null(), null_mut()));
    gives!(INVALID_ARG, lib.connect_ex(null(), 1, null(), c"pigeon".as_ptr(), &mut connection));
    gives!(NOT_SUPPORTED, lib.connect_ex(null(), 1, null(), c"nbd".as_ptr(), &mut connection));
    gives!(OK, lib.connect_ex(null(), 1, null(), c"nbd:file".as_ptr(), &mut connection));
    gives!(INVALID_ARG, lib.get_connect_params?(connection, null_mut()));
    gives!(OK, lib.get_connect_params?(connection, &mut given));
    call!(lib.free_connect_params(given));
    call!(lib.free_connect_params(given));
    call!(lib.free_connect_params(foreign()));
    gives!(OK, lib.disconnect(connection));
    gives!(INVALID_HANDLE, lib.get_connect_params?(connection, &mut given));
    gives!(INVALID_HANDLE, lib.disconnect(foreign()));

    gives!(INVALID_ARG, lib.prepare_for_access?(null(), c"test".as_ptr()));
    gives!(INVALID_ARG, lib.end_access?(null(), c"test".as_ptr()));
    gives!(INVALID_ARG, lib.cleanup?(null(), null_mut(), null_mut()));
    let params: *mut ConnectParams = call!(lib.allocate_connect_params?());
    // SAFETY: just made, of full size.
    unsafe {
        (*params).base.vmx_spec = c"moref=vm-1".as_ptr().cast_mut();
        (*params).spec_type = SpecType::VSTORAGE_OBJECT;
    }
    gives!(NOT_SUPPORTED, lib.connect?(params, &mut connection));
    // SAFETY: as above.
    unsafe { (*params).spec_type = SpecType::VMX };
    gives!(INVALID_ARG, lib.connect?(params, &mut connection));
    assert!(connection.is_null());
    call!(lib.free_connect_params(params));
}

fn texts(lib: &Loaded) {
    let text = call!(lib.get_error_text(VixError(16052), null()));
    // SAFETY: a text of the library's, until it is freed.
    assert!(unsafe { CStr::from_ptr(text) }.to_str().unwrap().contains("VIX_E_DISK_KEY_NOTFOUND"));
    call!(lib.free_error_text(text));
    call!(lib.free_error_text(text));
    call!(lib.free_error_text(foreign()));
}

fn disks(lib: &Loaded, connection: ConnectionHandle, folder: &Path) {
    let (path, spec, percent) = (text(folder, "disk.vmdk"), sparse(), AtomicUsize::new(0));
    gives!(OK, lib.create(connection, path.as_ptr(), &spec, Some(on_progress), pointer(&percent)));
    assert_eq!(percent.load(Ordering::SeqCst), 100);
    gives!(FILE_ALREADY_EXISTS, lib.create(connection, path.as_ptr(), &spec, None, null_mut()));
    gives!(INVALID_ARG, lib.create(connection, path.as_ptr(), null(), None, null_mut()));
    let mut disk = null_mut();
    gives!(INVALID_ARG, lib.open(connection, path.as_ptr(), 1 << 31, &mut disk));
    gives!(FILE_NOT_FOUND, lib.open(connection, text(folder, "none.vmdk").as_ptr(), 0, &mut disk));
    let disk = lib.open(connection, &path, 0);
    assert_eq!(lib.mode(disk), c"file");

    let mut info = null_mut();
    gives!(INVALID_ARG, lib.get_info(disk, null_mut()));
    gives!(OK, lib.get_info(disk, &mut info));
    // SAFETY: just given.
    assert_eq!(unsafe { ((*info).base.capacity, (*info).logical_sector_size) }, (SECTORS, 512));
    call!(lib.free_info(info));
    call!(lib.free_info(info));

    let mut buffer = vec![7; 128 << 10];
    gives!(OK, lib.write(disk, 2048, 256, buffer.as_ptr()));
    gives!(DISK_OUTOFRANGE, lib.write(disk, SECTORS, 1, buffer.as_ptr()));
    gives!(DISK_OUTOFRANGE, lib.read(disk, u64::MAX, u64::MAX, buffer.as_mut_ptr()));
    gives!(INVALID_ARG, lib.read(disk, 0, 1, null_mut()));
    gives!(INVALID_HANDLE, lib.read(foreign(), 0, 1, buffer.as_mut_ptr()));
    let done = AtomicUsize::new(0);
    let write = buffer.as_ptr();
    gives!(ASYNC, lib.write_async?(disk, 4096, 128, write, Some(on_completion), pointer(&done)));
    gives!(OK, lib.wait?(disk));
    assert_eq!(done.load(Ordering::SeqCst), 1);
    gives!(INVALID_ARG, lib.write_async?(disk, 0, 1, write, None, null_mut()));
    gives!(
        DISK_OUTOFRANGE,
        lib.read_async?(disk, SECTORS, 1, buffer.as_mut_ptr(), Some(on_completion), pointer(&done))
    );
    buffer.fill(0);
    lib.begun_and_awaited(disk, 4096, &mut buffer[..64 << 10]);
    assert!(buffer[..64 << 10].iter().all(|byte| *byte == 7));
    gives!(OK, lib.flush?(disk));
    gives!(INVALID_HANDLE, lib.flush?(foreign()));

    let mut list = null_mut();
    gives!(INVALID_ARG, lib.query_allocated_blocks?(disk, 0, 128, 64, &mut list));
    gives!(OK, lib.query_allocated_blocks?(disk, 0, SECTORS, 128, &mut list));
    // SAFETY: just given.
    assert!(unsafe { (*list).num_blocks } >= 1);
    gives!(OK, lib.free_block_list?(list));
    gives!(INVALID_ARG, lib.free_block_list?(list));

    let (mut required, mut value) = (0, [0; 64]);
    gives!(OK, lib.write_metadata?(disk, c"comment".as_ptr(), c"by Rust".as_ptr()));
    gives!(BUFFER_TOOSMALL, lib.read_metadata?(disk, c"comment".as_ptr(), null_mut(), 0, &mut required));
    assert_eq!(required, 8);
    gives!(OK, lib.read_metadata?(disk, c"comment".as_ptr(), value.as_mut_ptr(), value.len(), null_mut()));
    gives!(DISK_KEY_NOTFOUND, lib.read_metadata?(disk, c"none".as_ptr(), value.as_mut_ptr(), 64, null_mut()));
    gives!(BUFFER_TOOSMALL, lib.get_metadata_keys?(disk, null_mut(), 0, &mut required));
    let mut keys = vec![0; required];
    gives!(OK, lib.get_metadata_keys?(disk, keys.as_mut_ptr(), required, null_mut()));
    gives!(OK, lib.close(disk));
    gives!(INVALID_HANDLE, lib.close(disk));
}

fn chains(lib: &Loaded, connection: ConnectionHandle, folder: &Path) {
    let parent = lib.open(connection, &text(folder, "disk.vmdk"), READ_ONLY);
    let child = text(folder, "child.vmdk");
    gives!(INVALID_ARG, lib.create_child?(parent, null(), DiskType::MONOLITHIC_SPARSE, None, null_mut()));
    gives!(OK, lib.create_child?(parent, child.as_ptr(), DiskType::MONOLITHIC_SPARSE, None, null_mut()));
    let single = lib.open(connection, &child, READ_ONLY | OpenFlags::SINGLE_LINK.0);
    assert_eq!(lib.sector(single, 2048), 0, "the child alone");
    gives!(DISK_ATTACH_ROOTLINK, lib.is_attach_possible?(single, parent));
    gives!(OK, lib.is_attach_possible?(parent, single));
    gives!(INVALID_HANDLE, lib.attach?(foreign(), single));
    gives!(OK, lib.attach?(parent, single));
    assert_eq!(lib.sector(single, 2048), 7, "the chain");
    gives!(OK, lib.close(single));
    gives!(OK, lib.close(parent));
}

fn files(lib: &Loaded, connection: ConnectionHandle, folder: &Path) {
    let (disk, copy, other) = (text(folder, "child.vmdk"), text(folder, "copy.vmdk"), text(folder, "other.vmdk"));
    let (percent, data) = (AtomicUsize::new(0), null_mut());
    let counter = pointer(&percent);
    gives!(INVALID_HANDLE, lib.clone?(foreign(), copy.as_ptr(), connection, disk.as_ptr(), null(), None, data, 0));
    gives!(OK, lib.clone?(connection, copy.as_ptr(), connection, disk.as_ptr(), null(), Some(on_progress), counter, 0));
    assert_eq!(percent.load(Ordering::SeqCst), 100);
    gives!(
        FILE_ALREADY_EXISTS,
        lib.clone?(connection, copy.as_ptr(), connection, disk.as_ptr(), null(), None, data, 0)
    );
    let opened = lib.open(connection, &copy, 0);
    assert_eq!(lib.sector(opened, 2048), 7);
    let mut space = 0;
    gives!(INVALID_ARG, lib.space_needed_for_clone?(opened, DiskType::UNKNOWN, &mut space));
    gives!(OK, lib.space_needed_for_clone?(opened, DiskType::MONOLITHIC_FLAT, &mut space));
    assert_eq!(space, SECTORS * SECTOR);
    gives!(OK, lib.shrink?(opened, None, data));
    gives!(OK, lib.defragment?(opened, None, data));
    gives!(INVALID_HANDLE, lib.shrink?(foreign(), None, data));
    gives!(INVALID_HANDLE, lib.defragment?(foreign(), None, data));
    assert_eq!(lib.sector(opened, 2048), 7);
    gives!(OK, lib.close(opened));

    gives!(OK, lib.grow?(connection, copy.as_ptr(), 2 * SECTORS, 1, None, data));
    gives!(ARGUMENT_TOO_BIG, lib.grow?(connection, copy.as_ptr(), u64::MAX, 1, None, data));
    gives!(OK, lib.check_repair?(connection, copy.as_ptr(), 0));
    gives!(INVALID_ARG, lib.check_repair?(connection, null(), 0));
    gives!(OK, lib.rename?(copy.as_ptr(), other.as_ptr()));
    gives!(FILE_NOT_FOUND, lib.rename?(copy.as_ptr(), other.as_ptr()));
    gives!(OK, lib.unlink?(connection, other.as_ptr()));
    gives!(FILE_NOT_FOUND, lib.unlink?(connection, other.as_ptr()));
}

/// Where a simulated vCenter is, as texts for C.
struct Address {
    host: CString,
    port: u32,
    thumbprint: CString,
    user: CString,
    password: CString,
    vm: CString,
}

impl Address {
    fn of(site: &Site) -> Self {
        let address = site.address();
        let (host, port) = address.rsplit_once(':').unwrap();
        let text = |text: &str| CString::new(text).unwrap();
        Self {
            host: text(host),
            port: port.parse().unwrap(),
            thumbprint: text(&site.thumbprint_sha1()),
            user: text(site.user()),
            password: text(site.password()),
            vm: text(&format!("moref={}", site.moref())),
        }
    }

    fn params(&self, lib: &Loaded) -> *mut ConnectParams {
        let params: *mut ConnectParams = call!(lib.allocate_connect_params?());
        // SAFETY: just made, of full size; the texts are this value's, which outlives its use.
        let base = unsafe { &mut (*params).base };
        base.server_name = self.host.as_ptr().cast_mut();
        base.port = self.port;
        base.thumbprint = self.thumbprint.as_ptr().cast_mut();
        base.vmx_spec = self.vm.as_ptr().cast_mut();
        base.cred_type = CredType::UID;
        base.creds.uid.user_name = self.user.as_ptr().cast_mut();
        base.creds.uid.password = self.password.as_ptr().cast_mut();
        params
    }

    fn connect(&self, lib: &Loaded, read_only: Bool, modes: &CStr) -> ConnectionHandle {
        let (params, mut connection) = (self.params(lib), null_mut());
        gives!(OK, lib.connect_ex(params, read_only, null(), modes.as_ptr(), &mut connection));
        call!(lib.free_connect_params(params));
        connection
    }
}

#[test]
fn disks_of_a_server_are_read_and_written() {
    let (lib, site) = (Loaded::begun(), Site::new());
    let (address, path) = (Address::of(&site), CString::new(PATH).unwrap());

    let params = address.params(&lib);
    gives!(OK, lib.prepare_for_access?(params, c"dlopen".as_ptr()));
    gives!(OBJECT_IS_BUSY, lib.prepare_for_access?(params, c"another".as_ptr()));
    gives!(OK, lib.end_access?(params, c"dlopen".as_ptr()));
    let (mut cleaned, mut remaining) = (9, 9);
    gives!(OK, lib.cleanup?(params, &mut cleaned, &mut remaining));
    assert_eq!((cleaned, remaining), (0, 0), "without tmpDirectory nothing is known");
    // SAFETY: made by the library and not freed yet.
    unsafe { (*params).base.creds.uid.password = c"wrong".as_ptr().cast_mut() };
    gives!(AUTHENTICATION_FAIL, lib.connect?(params, &mut null_mut()));
    call!(lib.free_connect_params(params));

    for (modes, mode) in [(c"hotadd:nbdssl", c"nbdssl"), (c"nbd", c"nbd"), (c"https", c"https")] {
        let connection = address.connect(&lib, 1, modes);
        let disk = lib.open(connection, &path, READ_ONLY | OpenFlags::COMPRESSION_SKIPZ.0);
        assert_eq!(lib.mode(disk), mode);
        assert_eq!((lib.sector(disk, 2047), lib.sector(disk, 2048)), (0, 5));
        let mut buffer = vec![1; 64 << 10];
        lib.begun_and_awaited(disk, 2048, &mut buffer);
        assert!(buffer.iter().all(|byte| *byte == 5));
        gives!(FILE_READ_ONLY, lib.write(disk, 0, 1, buffer.as_ptr()));
        gives!(OK, lib.close(disk));
        gives!(OK, lib.disconnect(connection));
    }

    let connection = address.connect(&lib, 0, c"nbdssl");
    let disk = lib.open(connection, &path, 0);
    gives!(OK, lib.write(disk, 4096, 2, [6; 1024].as_ptr()));
    gives!(OK, lib.flush?(disk));
    assert_eq!((lib.sector(disk, 4097), lib.sector(disk, 4098)), (6, 0));
    gives!(OK, lib.close(disk));
    gives!(OK, lib.disconnect(connection));
    call!(lib.exit());
    site.end();
}

#[test]
fn eight_threads_work_on_eight_disks() {
    let (lib, folder) = (Loaded::begun(), tempfile::tempdir().unwrap());
    let (lib, folder) = (&lib, folder.path());
    thread::scope(|scope| {
        for number in 0..8_u8 {
            scope.spawn(move || {
                let (connection, path) = (lib.local(), text(folder, &format!("{number}.vmdk")));
                gives!(OK, lib.create(connection, path.as_ptr(), &sparse(), None, null_mut()));
                for round in 0..20 {
                    let (at, data) = (u64::from(round) * 384, vec![number * 20 + round; 64 << 10]);
                    let disk = lib.open(connection, &path, 0);
                    gives!(OK, lib.write(disk, at, 128, data.as_ptr()));
                    let mut back = vec![0; data.len()];
                    lib.begun_and_awaited(disk, at, &mut back);
                    assert!(back == data, "thread {number}, round {round}");
                    gives!(OK, lib.close(disk));
                }
                gives!(OK, lib.disconnect(connection));
            });
        }
    });
    call!(lib.exit());
    assert_eq!(PANICKED.load(Ordering::SeqCst), 0);
}

#[test]
fn eight_threads_read_a_disk_of_a_server_by_eight_handles() {
    let (lib, site) = (Loaded::begun(), Site::new());
    let (address, path) = (Address::of(&site), CString::new(PATH).unwrap());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (lib, connection) = (&lib, address.connect(&lib, 1, c"nbdssl"));
                let disk = lib.open(connection, &path, READ_ONLY);
                let mut buffer = vec![1; 64 << 10];
                for at in [2048, 2176, 2432] {
                    lib.begun_and_awaited(disk, at, &mut buffer);
                    let end = buffer.iter().position(|byte| *byte != 5).unwrap_or(buffer.len()) as u64;
                    assert_eq!(end, (200_000 - (at - 2048) * SECTOR).min(64 << 10));
                }
                gives!(OK, lib.close(disk));
                gives!(OK, lib.disconnect(connection));
            });
        }
    });
    call!(lib.exit());
    site.end();
}
