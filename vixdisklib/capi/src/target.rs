//! `ConnectParams`: what a program wants to be connected to.

use std::{ffi::c_char, fmt, ptr};

use vixdisklib_sys::{ConnectParams, ConnectParamsBase, CredType, SpecType, VixCode};
use vsphere_vim::{Credentials, MoRef, Vim, VmLookup, mo};

use crate::{
    call::{Failure, Outcome},
    given::{self, Texts},
    text,
};

/// A server, and a virtual machine on it.
pub(crate) struct Target {
    server: String,
    port: u32,
    thumbprint: Option<String>,
    login: Login,
    vmx_spec: Option<String>,
    nfc_port: u32,
}

/// Who connects.
enum Login {
    Password {
        user: String,
        password: String,
    },
    /// The session of somebody else: used, and left alone afterwards.
    Cookie(String),
}

impl Target {
    /// Reads parameters; `None` when they mean this machine, by being null or by naming no virtual machine.
    ///
    /// # Safety
    /// `params` is null, or points to parameters of at least 80 bytes whose pointers are null or valid texts, and
    /// whose credentials are of the type that they say.
    pub(crate) unsafe fn of_disks(params: *const ConnectParams) -> Outcome<Option<Self>> {
        if params.is_null() {
            return Ok(None);
        }
        if given::are_ours(params) {
            // SAFETY: made by AllocateConnectParams, so of full size, and not null.
            let kind = unsafe { (&raw const (*params).spec_type).read() };
            if kind != SpecType::VMX {
                let text = format!("connections to {kind:?} are not offered; name the virtual machine by vmxSpec");
                return Err(Failure::new(VixCode::NOT_SUPPORTED, text));
            }
        }
        // SAFETY: as the caller promises; programs of old versions have no more than the base.
        let base = unsafe { base(params) };
        // SAFETY: as the caller promises.
        match unsafe { text::optional("vmxSpec", base.vmx_spec) }? {
            None => Ok(None),
            // SAFETY: as the caller promises.
            Some(spec) => unsafe { Self::of(&base, Some(spec)) }.map(Some),
        }
    }

    /// Reads parameters of which only the server matters.
    ///
    /// # Safety
    /// As [`of_disks`](Self::of_disks).
    pub(crate) unsafe fn of_server(params: *const ConnectParams) -> Outcome<Self> {
        if params.is_null() {
            return Err(Failure::null("connectParams"));
        }
        // SAFETY: as the caller promises.
        let base = unsafe { base(params) };
        // SAFETY: as the caller promises.
        let spec = unsafe { text::optional("vmxSpec", base.vmx_spec) }?;
        // SAFETY: as the caller promises.
        unsafe { Self::of(&base, spec) }
    }

    /// # Safety
    /// As [`of_disks`](Self::of_disks).
    unsafe fn of(base: &ConnectParamsBase, vmx_spec: Option<String>) -> Outcome<Self> {
        // SAFETY: as the caller promises.
        let (server, thumbprint) = unsafe {
            (text::required("serverName", base.server_name)?, text::optional("thumbPrint", base.thumbprint)?)
        };
        // SAFETY: as the caller promises.
        let login = unsafe { login(base) }?;
        Ok(Self { server, port: base.port, thumbprint, login, vmx_spec, nfc_port: base.nfc_host_port })
    }

    /// Logs in.
    pub(crate) async fn connect(&self) -> Outcome<Vim> {
        let host = if self.server.contains(':') && !self.server.starts_with('[') {
            format!("[{}]", self.server)
        } else {
            self.server.clone()
        };
        let port = if self.port == 0 { HTTPS } else { self.port };
        let builder = Vim::builder(format!("https://{host}:{port}/sdk"));
        let builder = match &self.thumbprint {
            Some(thumbprint) => builder.thumbprint(thumbprint.parse()?),
            None => builder.system_roots(),
        };
        Ok(builder.credentials(self.login.credentials()).connect().await?)
    }

    /// The virtual machine that `vmxSpec` names.
    pub(crate) async fn machine(&self, vim: &Vim) -> Outcome<MoRef<mo::VirtualMachine>> {
        let spec = self.vmx_spec.as_deref().ok_or_else(|| Failure::null("vmxSpec"))?;
        match VmxSpec::parse(spec)? {
            VmxSpec::MoRef(value) => Ok(MoRef::new(&value)),
            VmxSpec::File(path) => Ok(vim.find_vm(&VmLookup::DatastorePath(path)).await?.moref),
        }
    }

    /// The parameters as a program may have them back. Passwords and cookies stay here.
    pub(crate) fn to_params(&self) -> *mut ConnectParams {
        let mut texts = Texts::default();
        let mut params = given::no_params();
        params.base.server_name = texts.pointer(Some(&self.server));
        params.base.thumbprint = texts.pointer(self.thumbprint.as_deref());
        params.base.vmx_spec = texts.pointer(self.vmx_spec.as_deref());
        params.base.port = self.port;
        params.base.nfc_host_port = self.nfc_port;
        match &self.login {
            Login::Password { user, .. } => {
                params.base.cred_type = CredType::UID;
                params.base.creds.uid.user_name = texts.pointer(Some(user));
            }
            Login::Cookie(_) => params.base.cred_type = CredType::SESSIONID,
        }
        given::params(params, texts)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.vmx_spec.as_deref().unwrap_or("no virtual machine"), self.server)
    }
}

impl Login {
    fn credentials(&self) -> Credentials {
        match self {
            Self::Password { user, password } => Credentials::password(user, password.as_str()),
            Self::Cookie(cookie) => Credentials::adopted_cookie(cookie.as_str()),
        }
    }
}

/// # Safety
/// `params` is not null and points to at least 80 bytes.
unsafe fn base(params: *const ConnectParams) -> ConnectParamsBase {
    // SAFETY: as the caller promises; a program may have put the structure anywhere.
    unsafe { ptr::read_unaligned(params.cast()) }
}

/// # Safety
/// The credentials are of the type that they say, and their pointers are null or valid texts.
unsafe fn login(base: &ConnectParamsBase) -> Outcome<Login> {
    match base.cred_type {
        CredType::UID => {
            // SAFETY: the type says that this is what the union holds.
            let uid = unsafe { base.creds.uid };
            // SAFETY: as the caller promises.
            let (user, password) = unsafe { (text::required("userName", uid.user_name)?, secret(uid.password)?) };
            Ok(Login::Password { user, password })
        }
        CredType::SESSIONID => {
            // SAFETY: the type says that this is what the union holds.
            let session = unsafe { base.creds.session_id };
            // SAFETY: as the caller promises.
            Ok(Login::Cookie(unsafe { text::required("cookie", session.cookie) }?))
        }
        other => Err(Failure::new(
            VixCode::NOT_SUPPORTED,
            format!(
                "credentials of the type {other:?} are not offered; use a user and password, or a session's cookie"
            ),
        )),
    }
}

/// A password, which may be empty.
///
/// # Safety
/// `password` is null or a valid text.
unsafe fn secret(password: *const c_char) -> Outcome<String> {
    // SAFETY: as the caller promises.
    unsafe { text::optional("password", password) }.map(Option::unwrap_or_default)
}

/// The ways of `vmxSpec` to name a virtual machine.
#[derive(Debug, PartialEq, Eq)]
enum VmxSpec {
    /// `moref=vm-16`.
    MoRef(String),
    /// `web/web.vmx?dcPath=dc1&dsName=ds1`, as a datastore path.
    File(String),
}

impl VmxSpec {
    fn parse(spec: &str) -> Outcome<Self> {
        let spec = spec.trim();
        if let Some(value) = spec.strip_prefix("moref=").filter(|value| !value.is_empty()) {
            return Ok(Self::MoRef(value.to_owned()));
        }
        let (file, query) = spec.split_once('?').unwrap_or((spec, ""));
        let datastore = query.split('&').find_map(|pair| pair.strip_prefix("dsName="));
        match datastore.filter(|name| !name.is_empty() && !file.is_empty()) {
            Some(datastore) => Ok(Self::File(format!("[{datastore}] {file}"))),
            None => Err(Failure::new(
                VixCode::INVALID_ARG,
                format!("vmxSpec {spec:?} is neither moref=vm-16 nor dir/x.vmx?dcPath=dc&dsName=datastore"),
            )),
        }
    }
}

const HTTPS: u32 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_named_by_reference_or_by_file() {
        assert_eq!(VmxSpec::parse("moref=vm-16").unwrap(), VmxSpec::MoRef("vm-16".into()));
        let file = VmxSpec::parse("web/web.vmx?dcPath=dc1&dsName=ds one").unwrap();
        assert_eq!(file, VmxSpec::File("[ds one] web/web.vmx".into()));
        for spec in ["moref=", "web/web.vmx", "?dsName=ds1", "vm-16"] {
            assert_eq!(VmxSpec::parse(spec).unwrap_err().code, VixCode::INVALID_ARG, "{spec}");
        }
    }

    #[test]
    fn parameters_that_name_no_machine_mean_this_machine() {
        let nothing = given::no_params();
        // SAFETY: all pointers are null.
        assert!(unsafe { Target::of_disks(&nothing) }.unwrap().is_none());
        // SAFETY: as above.
        assert!(unsafe { Target::of_disks(ptr::null()) }.unwrap().is_none());
        // SAFETY: as above.
        assert!(unsafe { Target::of_server(&nothing) }.is_err());
    }

    #[test]
    fn parameters_come_back_without_secrets() {
        let login = Login::Password { user: "backup".into(), password: "secret".into() };
        let (server, vmx_spec) = ("vc".to_owned(), Some("moref=vm-1".to_owned()));
        let target = Target { server, port: 0, thumbprint: None, login, vmx_spec, nfc_port: 902 };
        let params = target.to_params();
        // SAFETY: just given.
        let uid = unsafe { (*params).base.creds.uid };
        assert!(uid.password.is_null() && !uid.user_name.is_null());
        // SAFETY: just given, and its texts are valid.
        let failure = unsafe { Target::of_disks(params) };
        assert!(failure.is_ok());
        assert!(given::take_back(params, given::Kind::Params));
    }
}
