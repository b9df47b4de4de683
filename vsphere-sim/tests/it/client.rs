//! A SOAP client as small as can be: one connection per call, nothing retried, nothing hidden.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vsphere_sim::Simulator;
use vsphere_vim_types::methods::{
    CreateSnapshot_Task, Login, Logout, PowerOffVM_Task, QueryChangedDiskAreas, ReconfigVM_Task, RemoveSnapshot_Task,
    RetrievePropertiesEx,
};
use vsphere_vim_types::{
    Any, DiskChangeInfo, ManagedObjectReference, Method, MoRef, ObjectSpec, PropertyFilterSpec, PropertySpec,
    RetrieveResult, TaskInfo, TaskInfoState, VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualMachineConfigInfo, mo,
    soap,
};

/// What came back over HTTP.
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A client of one simulator.
pub(crate) struct Client {
    address: std::net::SocketAddr,
    tls: TlsConnector,
    pub(crate) cookie: Option<String>,
    pub(crate) gzip: bool,
}

impl Client {
    pub(crate) fn new(sim: &Simulator) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(sim.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Self { address: sim.address(), tls: TlsConnector::from(Arc::new(config)), cookie: None, gzip: false }
    }

    /// Logged in.
    pub(crate) async fn login(sim: &Simulator) -> Self {
        let mut client = Self::new(sim);
        let credentials =
            Login { user_name: sim.username().into(), password: sim.password().into(), ..Default::default() };
        client.call(&root("SessionManager", sim_session_manager(sim)), &credentials).await.unwrap();
        client
    }

    pub(crate) async fn logout(&mut self) {
        self.call(&root("SessionManager", "SessionManager"), &Logout::default()).await.unwrap();
    }

    /// Sends a request and gives what came back; an error when the connection ended without an answer.
    pub(crate) async fn http(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Raw> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let mut stream = self.tls.connect(name, stream).await?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if let Some(cookie) = &self.cookie {
            head += &format!("Cookie: {cookie}\r\n");
        }
        if self.gzip {
            head += "Accept-Encoding: gzip\r\n";
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            // The end of the connection says it all; TLS without close_notify is the server's affair.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            other => drop(other?),
        }
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        Ok(Raw { status, head, body: answer[end + 4..].to_vec() })
    }

    /// Calls a method.
    pub(crate) async fn call<M: Method>(
        &mut self,
        this: &ManagedObjectReference,
        args: &M,
    ) -> Result<M::Output, soap::Error> {
        let body = soap::encode_request(this, args, soap::RequestOptions::default());
        let raw = self.http("POST", "/sdk", body.as_bytes()).await.unwrap();
        if let Some(line) = raw.head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:")) {
            self.cookie = Some(line["set-cookie:".len()..].split(';').next().unwrap().trim().to_owned());
        }
        let answer = soap::decode_response::<M>(&raw.body, soap::Limits::default());
        assert_eq!(raw.status, if matches!(answer, Err(soap::Error::Fault(_))) { 500 } else { 200 });
        answer
    }

    /// Calls a method that must fail, and gives the fault's name.
    pub(crate) async fn refused<M: Method>(&mut self, this: &ManagedObjectReference, args: &M) -> String {
        match self.call(this, args).await {
            Err(soap::Error::Fault(fault)) => fault.detail.unwrap().type_name().to_owned(),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{} did not fail", M::NAME),
        }
    }

    /// Starts a task and waits for its end.
    pub(crate) async fn task<M: Method<Output = MoRef<mo::Task>>>(
        &mut self,
        this: &ManagedObjectReference,
        args: &M,
    ) -> TaskInfo {
        let task = self.call(this, args).await.unwrap();
        loop {
            let info: TaskInfo = self.get(&task.erase(), "info").await.unwrap();
            if matches!(info.state, TaskInfoState::Success | TaskInfoState::Error) {
                return info;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// A task that must succeed; its result.
    pub(crate) async fn done<M: Method<Output = MoRef<mo::Task>>>(
        &mut self,
        this: &ManagedObjectReference,
        args: &M,
    ) -> Any {
        let info = self.task(this, args).await;
        assert_eq!(info.state, TaskInfoState::Success, "{:?}", info.error);
        info.result.unwrap_or_default()
    }

    /// A task that must fail; its fault's name.
    pub(crate) async fn fails<M: Method<Output = MoRef<mo::Task>>>(
        &mut self,
        this: &ManagedObjectReference,
        args: &M,
    ) -> String {
        let info = self.task(this, args).await;
        info.error.expect("the task failed").fault.type_name().to_owned()
    }

    /// One property of one object; `None` when it is unset.
    pub(crate) async fn get<T: vsphere_vim_types::FromAny>(
        &mut self,
        object: &ManagedObjectReference,
        path: &str,
    ) -> Option<T> {
        let args = RetrievePropertiesEx { spec_set: vec![one(object, path)], ..Default::default() };
        let result: Option<RetrieveResult> =
            self.call(&root("PropertyCollector", "propertyCollector"), &args).await.unwrap();
        let object = result.unwrap().objects.remove(0);
        assert_eq!(object.missing_set, []);
        object.prop_set.into_iter().next().map(|property| property.val.into_typed().unwrap())
    }

    pub(crate) async fn snapshot(&mut self, vm: &ManagedObjectReference, name: &str) -> ManagedObjectReference {
        let args = CreateSnapshot_Task { name: name.into(), ..Default::default() };
        self.done(vm, &args).await.into_typed().unwrap()
    }

    pub(crate) async fn remove_snapshot(&mut self, snapshot: &ManagedObjectReference, children: bool) {
        let args = RemoveSnapshot_Task { remove_children: children, consolidate: Some(true), ..Default::default() };
        self.done(snapshot, &args).await;
    }

    pub(crate) async fn power_off(&mut self, vm: &ManagedObjectReference) {
        self.done(vm, &PowerOffVM_Task::default()).await;
    }

    pub(crate) async fn reconfigure(
        &mut self,
        vm: &ManagedObjectReference,
        spec: vsphere_vim_types::VirtualMachineConfigSpec,
    ) -> TaskInfo {
        self.task(vm, &ReconfigVM_Task { spec, ..Default::default() }).await
    }

    /// File name and change id of a disk of a VM or snapshot.
    pub(crate) async fn backing(&mut self, object: &ManagedObjectReference, key: i32) -> (String, Option<String>) {
        let config: VirtualMachineConfigInfo = self.get(object, "config").await.unwrap();
        let device = config.hardware.device.iter().find(|device| device.key == key).expect("the disk is there");
        let disk: &VirtualDisk = device.downcast_ref().unwrap();
        let backing: &VirtualDiskFlatVer2BackingInfo = disk.backing.as_ref().unwrap().downcast_ref().unwrap();
        (backing.file_name.clone(), backing.change_id.clone())
    }

    pub(crate) async fn areas_page(
        &mut self,
        vm: &ManagedObjectReference,
        snapshot: &ManagedObjectReference,
        start: i64,
        since: &str,
    ) -> Result<DiskChangeInfo, soap::Error> {
        let args = QueryChangedDiskAreas {
            snapshot: Some(snapshot.cast()),
            device_key: 2000,
            start_offset: start,
            change_id: since.into(),
            ..Default::default()
        };
        self.call(vm, &args).await
    }

    /// All areas as (start, length), looped to the end.
    pub(crate) async fn areas(
        &mut self,
        vm: &ManagedObjectReference,
        snapshot: &ManagedObjectReference,
        capacity: i64,
        since: &str,
    ) -> Vec<(i64, i64)> {
        let (mut start, mut areas) = (0, Vec::new());
        while start < capacity {
            let page = self.areas_page(vm, snapshot, start, since).await.unwrap();
            assert_eq!(page.start_offset, start);
            assert!(page.length > 0);
            areas.extend(page.changed_area.iter().map(|area| (area.start, area.length)));
            start += page.length;
        }
        areas
    }
}

/// A reference to one of the fixed objects.
pub(crate) fn root(kind: &str, id: &str) -> ManagedObjectReference {
    ManagedObjectReference::of(kind, id)
}

/// The reference of a VM by name.
pub(crate) fn vm(sim: &Simulator, name: &str) -> ManagedObjectReference {
    ManagedObjectReference::of("VirtualMachine", sim.vm(name).unwrap().id())
}

/// Selects one path of one object.
pub(crate) fn one(object: &ManagedObjectReference, path: &str) -> PropertyFilterSpec {
    PropertyFilterSpec {
        prop_set: vec![PropertySpec {
            type_: object.type_name().into(),
            path_set: vec![path.into()],
            ..Default::default()
        }],
        object_set: vec![ObjectSpec { obj: object.clone(), ..Default::default() }],
        ..Default::default()
    }
}

/// The name of the fault in an error.
pub(crate) fn fault_name(error: &soap::Error) -> String {
    match error {
        soap::Error::Fault(fault) => fault.detail.as_ref().unwrap().type_name().to_owned(),
        other => panic!("{other}"),
    }
}

fn sim_session_manager(sim: &Simulator) -> &'static str {
    // The two personalities differ in the ids of their singletons.
    if sim.vm("esx").is_ok() { "ha-sessionmgr" } else { "SessionManager" }
}
