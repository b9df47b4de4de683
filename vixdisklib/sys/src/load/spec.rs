//! Where to connect to, and what to create.

use std::{ffi::CString, fmt, ptr};

use zeroize::Zeroizing;

use super::{
    api::Api,
    error::{Error, Result},
    text,
};
use crate::{
    constants::{AdapterType, CredType, DiskType, HwVersion, SpecType},
    functions::FreeConnectParams,
    types::{
        ConnectParams, ConnectParamsBase, CreateParams, CreateParamsBase, Credentials, DatastoreSpec, Sectors,
        SessionCredentials, Spec, UserCredentials, VStorageObjectSpec,
    },
};

/// Where to connect to, as whom, and how.
#[doc(alias = "VixDiskLibConnectParams")]
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ConnectSpec {
    server: Option<Server>,
    object: Option<Object>,
    read_only: bool,
    snapshot: Option<String>,
    transports: Option<String>,
}

#[derive(Clone, Debug)]
struct Server {
    name: String,
    thumbprint: Option<String>,
    login: Login,
    port: u32,
    nfc_port: u32,
}

/// Who connects.
#[derive(Clone)]
#[non_exhaustive]
pub enum Login {
    /// A user and a password.
    User {
        /// The user.
        name: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A session that is logged in.
    Session {
        /// The value of the cookie `vmware_soap_session`.
        cookie: Zeroizing<String>,
        /// The user, where it is known.
        user: Option<String>,
        /// The password, where the library wants it.
        key: Option<Zeroizing<String>>,
    },
}

/// What is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// A virtual machine: `moref=vm-16`, or `dir/x.vmx?dcPath=..&dsName=..`.
    Vm(String),
    /// A first class disk. Needs a library since 6.7.
    FirstClassDisk {
        /// Its id.
        id: String,
        /// The datastore's managed object.
        datastore: String,
        /// The snapshot's id.
        snapshot: Option<String>,
    },
    /// A folder of a datastore: no snapshot, no changed blocks. Needs a library since 8.0.1; older ones take it for
    /// something else.
    Datastore {
        /// The datastore's managed object.
        datastore: String,
        /// The folder.
        folder: String,
    },
}

impl ConnectSpec {
    /// This machine's files.
    pub fn local() -> Self {
        Self::default()
    }

    /// A vCenter or host by name or address, on its usual ports.
    pub fn server(name: impl Into<String>, login: Login) -> Self {
        let server = Server { name: name.into(), thumbprint: None, login, port: 0, nfc_port: 0 };
        Self { server: Some(server), ..Self::default() }
    }

    /// The SHA-1 thumbprint of the server's certificate, in hexadecimal with colons.
    pub fn thumbprint(mut self, thumbprint: impl Into<String>) -> Self {
        if let Some(server) = &mut self.server {
            server.thumbprint = Some(thumbprint.into());
        }
        self
    }

    /// The ports of the management service and of NFC; 0 is the usual one.
    pub fn ports(mut self, port: u16, nfc_port: u16) -> Self {
        if let Some(server) = &mut self.server {
            (server.port, server.nfc_port) = (port.into(), nfc_port.into());
        }
        self
    }

    /// The VM or disk that is connected to.
    pub fn object(self, object: Object) -> Self {
        Self { object: Some(object), ..self }
    }

    /// For reading only.
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// The snapshot whose disks are opened: `snapshot-12`. Only for a VM.
    pub fn snapshot(self, reference: impl Into<String>) -> Self {
        Self { snapshot: Some(reference.into()), ..self }
    }

    /// The transports to try, as in `san:hotadd:nbdssl`; the library's own list if not set.
    pub fn transports(self, list: impl Into<String>) -> Self {
        Self { transports: Some(list.into()), ..self }
    }

    /// What the connection is to, for messages.
    pub(super) fn name(&self) -> String {
        match (&self.server, &self.object) {
            (None, _) => "this machine's files".into(),
            (Some(server), Some(Object::Vm(vm))) => format!("{vm} at {}", server.name),
            (Some(server), Some(Object::FirstClassDisk { id, .. })) => format!("disk {id} at {}", server.name),
            (Some(server), Some(Object::Datastore { datastore, .. })) => format!("{datastore} at {}", server.name),
            (Some(server), None) => server.name.clone(),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { name, .. } => f.debug_struct("User").field("name", name).finish_non_exhaustive(),
            Self::Session { user, .. } => f.debug_struct("Session").field("user", user).finish_non_exhaustive(),
        }
    }
}

/// A [`ConnectSpec`] in C's words: the structure, and the texts that it points to.
pub(super) struct ConnectTexts {
    params: *mut ConnectParams,
    made_by: MadeBy,
    /// Whether what lies beyond the base was filled in.
    with_spec: bool,
    pub(super) read_only: bool,
    pub(super) snapshot: Option<CString>,
    pub(super) transports: Option<CString>,
    /// What the structure's pointers point to. Overwritten when dropped: there are passwords among them.
    texts: Vec<Zeroizing<Vec<u8>>>,
}

/// Who made the structure, and so has to free it.
enum MadeBy {
    Us,
    Library(FreeConnectParams),
}

impl ConnectTexts {
    pub(super) fn new(api: &Api, spec: &ConnectSpec) -> Result<Self> {
        let optional = |what, text: &Option<String>| text.as_deref().map(|text| text::to_c(what, text)).transpose();
        let (snapshot, transports) =
            (optional("snapshot reference", &spec.snapshot)?, optional("list of transports", &spec.transports)?);
        // SAFETY: the function takes nothing; null is dealt with.
        let theirs = api.allocate_connect_params.map(|allocate| unsafe { allocate() }).filter(|at| !at.is_null());
        let (params, made_by) = match theirs {
            Some(params) => (params, MadeBy::Library(api.free_connect_params)),
            None => (Box::into_raw(Box::new(EMPTY)), MadeBy::Us), // `from_raw` is in `Drop`.
        };
        let read_only = spec.read_only;
        let mut made = Self { params, made_by, with_spec: false, read_only, snapshot, transports, texts: Vec::new() };
        let filled = made.filled(spec)?;
        let with_spec = spec.object.as_ref().is_some_and(|object| !matches!(object, Object::Vm(_)));
        if with_spec && api.query_allocated_blocks.is_none() {
            // Of the same release as that function: an older library's structure may end before it.
            return Err(Error::TooOld { what: "first class disks and folders of datastores", since: "6.7" });
        }
        made.with_spec = with_spec;
        made.set(filled);
        Ok(made)
    }

    /// Fills in what a caller may. What lies beyond the base is touched only for objects that need it.
    fn set(&mut self, new: ConnectParams) {
        // SAFETY: made by this library for this purpose, or ours; every version has the base. Nobody else has it now.
        let base = unsafe { &mut (*self.params).base };
        *base = ConnectParamsBase { private_use: base.private_use, ..new.base };
        if self.with_spec {
            // SAFETY: as above; `new` made sure that the library knows this part.
            let params = unsafe { &mut *self.params };
            (params.spec, params.spec_type) = (new.spec, new.spec_type);
        }
    }

    /// Valid as long as this is.
    pub(super) fn as_ptr(&self) -> *const ConnectParams {
        self.params
    }

    fn filled(&mut self, spec: &ConnectSpec) -> Result<ConnectParams> {
        let mut params = EMPTY;
        if let Some(server) = &spec.server {
            params.base.server_name = self.keep("server's name", &server.name)?;
            params.base.thumbprint = self.keep_some("thumbprint", server.thumbprint.as_deref())?;
            (params.base.port, params.base.nfc_host_port) = (server.port, server.nfc_port);
            (params.base.cred_type, params.base.creds) = self.credentials(&server.login)?;
        }
        match &spec.object {
            None => {}
            Some(Object::Vm(vm)) => params.base.vmx_spec = self.keep("VM", vm)?,
            Some(Object::FirstClassDisk { id, datastore, snapshot }) => {
                params.spec_type = SpecType::VSTORAGE_OBJECT;
                params.spec.vstorage_object = VStorageObjectSpec {
                    id: self.keep("disk's id", id)?,
                    datastore_moref: self.keep("datastore", datastore)?,
                    snapshot_id: self.keep_some("snapshot's id", snapshot.as_deref())?,
                };
            }
            Some(Object::Datastore { datastore, folder }) => {
                params.spec_type = SpecType::DATASTORE;
                params.spec.datastore = DatastoreSpec {
                    datastore_moref: self.keep("datastore", datastore)?,
                    disk_folder: self.keep("folder", folder)?,
                };
            }
        }
        Ok(params)
    }

    fn credentials(&mut self, login: &Login) -> Result<(CredType, Credentials)> {
        Ok(match login {
            Login::User { name, password } => {
                let user_name = self.keep("user's name", name)?;
                let uid = UserCredentials { user_name, password: self.keep("password", password)? };
                (CredType::UID, Credentials { uid })
            }
            Login::Session { cookie, user, key } => {
                let cookie = self.keep("session's cookie", cookie)?;
                let user_name = self.keep_some("user's name", user.as_deref())?;
                let key = self.keep_some("session's key", key.as_ref().map(|key| key.as_str()))?;
                (CredType::SESSIONID, Credentials { session_id: SessionCredentials { cookie, user_name, key } })
            }
        })
    }

    fn keep(&mut self, what: &'static str, text: &str) -> Result<*mut std::ffi::c_char> {
        let text = Zeroizing::new(text::to_c(what, text)?.into_bytes_with_nul());
        let at = text.as_ptr().cast_mut().cast();
        self.texts.push(text);
        Ok(at)
    }

    fn keep_some(&mut self, what: &'static str, text: Option<&str>) -> Result<*mut std::ffi::c_char> {
        text.map_or(Ok(ptr::null_mut()), |text| self.keep(what, text))
    }
}

impl Drop for ConnectTexts {
    fn drop(&mut self) {
        match self.made_by {
            MadeBy::Us => {
                // SAFETY: from `into_raw` in `new`; `Drop` runs once.
                drop(unsafe { Box::from_raw(self.params) });
            }
            MadeBy::Library(free) => {
                // Whether a library frees texts that are not its own is not documented, so it does not get to see them.
                self.set(EMPTY);
                // SAFETY: made by the same library's `AllocateConnectParams`; `Drop` runs once.
                unsafe { free(self.params) };
            }
        }
    }
}

/// What to create.
#[doc(alias = "VixDiskLibCreateParams")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct CreateSpec {
    /// The disk's size.
    pub capacity: Sectors,
    /// How it is stored.
    pub disk_type: DiskType,
    /// The controller that it is for.
    pub adapter_type: AdapterType,
    /// The virtual hardware that has to understand it.
    pub hw_version: HwVersion,
    /// Bytes of a logical and a physical sector. Libraries before 7.0 do not look at them.
    pub sector_sizes: (u32, u32),
}

impl CreateSpec {
    /// For virtual hardware of Workstation 5 and later, an LSI Logic controller, sectors of 512 bytes.
    pub fn new(capacity: Sectors, disk_type: DiskType) -> Self {
        Self {
            capacity,
            disk_type,
            adapter_type: AdapterType::SCSI_LSILOGIC,
            hw_version: HwVersion::WORKSTATION_5,
            sector_sizes: (512, 512),
        }
    }

    pub(super) fn to_c(self) -> CreateParams {
        let Self { capacity, disk_type, adapter_type, hw_version, sector_sizes } = self;
        CreateParams {
            base: CreateParamsBase { disk_type, adapter_type, hw_version, capacity },
            logical_sector_size: sector_sizes.0,
            physical_sector_size: sector_sizes.1,
        }
    }
}

const EMPTY: ConnectParams = ConnectParams {
    base: ConnectParamsBase {
        vmx_spec: ptr::null_mut(),
        server_name: ptr::null_mut(),
        thumbprint: ptr::null_mut(),
        private_use: 0,
        cred_type: CredType(0),
        creds: Credentials {
            session_id: SessionCredentials {
                cookie: ptr::null_mut(),
                user_name: ptr::null_mut(),
                key: ptr::null_mut(),
            },
        },
        port: 0,
        nfc_host_port: 0,
        vim_api_version: ptr::null_mut(),
    },
    reserved: [0; 8],
    state: ptr::null_mut(),
    spec: Spec {
        vstorage_object: VStorageObjectSpec {
            id: ptr::null_mut(),
            datastore_moref: ptr::null_mut(),
            snapshot_id: ptr::null_mut(),
        },
    },
    spec_type: SpecType::VMX,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let login = Login::User { name: "root".into(), password: Zeroizing::new("hunter2".into()) };
        let spec = ConnectSpec::server("vc", login).object(Object::Vm("moref=vm-1".into()));
        let text = format!("{spec:?}");
        assert!(text.contains("root") && !text.contains("hunter2"), "{text}");
        assert_eq!(spec.name(), "moref=vm-1 at vc");
    }
}
