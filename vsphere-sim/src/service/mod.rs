//! SOAP calls: parse, authenticate, dispatch, answer.
//!
//! One module per kind of managed object; a handler takes a [`Call`] and returns the body of the answer or a
//! [`Fault`].

mod alarm;
mod authorization;
mod events;
mod fcd;
pub(crate) mod files;
mod folder;
mod lease;
mod nfc;
mod properties;
mod root;
mod search;
mod session;
mod task;
mod vapp;
mod view;
pub(crate) mod virtual_disks;
mod vm;
mod vslm;

use std::sync::Arc;

pub(crate) use events::{EventCollector, MAX_COLLECTORS as MAX_EVENT_COLLECTORS};

use vsphere_vim_types::{Any, ManagedObjectReference, Method, MoRef, mo, soap};

use crate::Fault;
use crate::inject::Injection;
use crate::world::World;

/// Nesting and memory bounds of a request.
const LIMITS: soap::Limits = soap::Limits { depth: 64, memory: 64 << 20 };

/// What goes back to the client.
pub(crate) enum Answer {
    /// Nothing: the connection is closed.
    Drop,
    /// An HTTP status with a body that is not SOAP.
    Http(u16),
    /// A SOAP answer.
    Soap {
        /// Whether it is a fault (HTTP 500).
        fault: bool,
        /// The envelope.
        body: String,
        /// A new session key for the cookie.
        cookie: Option<String>,
    },
}

/// A successful answer.
pub(crate) struct Reply {
    body: String,
    cookie: Option<String>,
}

/// One call as a handler sees it.
pub(crate) struct Call<'a> {
    pub(crate) world: &'a Arc<World>,
    pub(crate) request: soap::Request<'a>,
    /// The caller's session key; handlers that need none see `None` before login.
    session: Option<String>,
    /// A fault that the task started by this call is to end with.
    task_fault: Option<Fault>,
    /// The whole request: what the security header says is signed byte by byte.
    body: &'a [u8],
    /// The certificate that the client showed, in DER form.
    certificate: Option<&'a [u8]>,
}

/// Who sends a request, as far as the connection and its head say.
#[derive(Default)]
pub(crate) struct Caller {
    /// The session's key.
    pub(crate) cookie: Option<String>,
    /// The client's certificate, in DER form.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

impl Call<'_> {
    /// The object on which the method is called.
    pub(crate) fn this(&self) -> &ManagedObjectReference {
        &self.request.this
    }

    /// The arguments.
    pub(crate) fn args<M: Method>(&self) -> Result<M, Fault> {
        self.request.args().map_err(|error| Fault::invalid_request(&error.to_string()))
    }

    /// The caller's session.
    pub(crate) fn session(&self) -> Result<&str, Fault> {
        self.session.as_deref().ok_or_else(|| Fault::not_authenticated(self.this()))
    }

    /// Who calls, for tasks.
    pub(crate) fn user(&self) -> String {
        let state = self.world.lock();
        let session = self.session.as_deref().and_then(|key| state.sessions.get(key));
        session.map_or_else(String::new, |session| session.user.clone())
    }

    /// The answer of method `M`.
    pub(crate) fn reply<M: Method>(&self, output: &M::Output) -> Reply {
        Reply { body: soap::encode_response::<M>(output), cookie: None }
    }
}

/// At which door a request came in.
pub(crate) enum Door {
    /// The main service; the session is named by the cookie.
    Main(Caller),
    /// The storage lifecycle service; the main service's session is named in the envelope.
    Vslm,
}

/// Carries out one request.
pub(crate) async fn call(world: Arc<World>, door: Door, body: &[u8]) -> Answer {
    let request = match soap::Request::parse(body, LIMITS) {
        Ok(request) => request,
        Err(error) => return fault(&Fault::invalid_request(&error.to_string())),
    };
    let method = request.method.to_owned();
    let injection = world.faults.take(&method);
    let mut task_fault = None;
    let mut drop_after = false;
    match injection {
        Some(Injection::Fault(injected)) => return fault(&injected),
        Some(Injection::TaskFault(injected)) => task_fault = Some(injected),
        Some(Injection::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Injection::DropBefore) => return Answer::Drop,
        Some(Injection::DropAfter) => drop_after = true,
        Some(Injection::Http(status)) => return Answer::Http(status),
        // These concern bodies, and calls have none worth it.
        Some(Injection::CutBody(_) | Injection::StallBody(_) | Injection::Ranges(_)) | None => {}
    }
    let (key, certificate, beside) = match door {
        Door::Main(caller) => (caller.cookie, caller.certificate, false),
        Door::Vslm => (request.session.clone(), None, true),
    };
    let session = key.filter(|key| world.lock().use_session(key, &world.settings));
    if session.is_none() && (beside || !is_open(&method)) {
        return fault(&Fault::not_authenticated(&request.this));
    }
    let certificate = certificate.as_deref();
    let call = Call { world: &world, request, session, task_fault, body, certificate };
    let outcome = if beside { vslm::dispatch(&call).await } else { dispatch(&call).await };
    tracing::debug!(method, fault = outcome.as_ref().err().map(Fault::name), "call");
    match outcome {
        _ if drop_after => Answer::Drop,
        Ok(reply) => Answer::Soap { fault: false, body: reply.body, cookie: reply.cookie },
        Err(refused) => fault(&refused),
    }
}

fn fault(fault: &Fault) -> Answer {
    Answer::Soap { fault: true, body: soap::encode_fault(&fault.to_wire(), fault.message()), cookie: None }
}

/// Methods that need no session.
fn is_open(method: &str) -> bool {
    matches!(
        method,
        "RetrieveServiceContent"
            | "CurrentTime"
            | "Login"
            | "LoginByToken"
            | "LoginExtensionByCertificate"
            | "CloneSession"
            | "SessionIsActive"
    )
}

async fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    let this = call.this();
    {
        let state = call.world.lock();
        // A session's own objects are looked up with it; everything else exists or does not.
        if crate::inventory::find(call.world, &state, call.session.as_deref(), this).is_none() {
            return Err(Fault::not_found(this));
        }
        if let Some(vm) = state.vms.get(this.value())
            && let Some((source, _)) = vm.disabled.keys().find(|(_, method)| *method == call.request.method)
        {
            return Err(Fault::new("MethodDisabled", "The method is disabled by the source").field("source", source));
        }
    }
    if call.request.method == "Fetch" {
        return properties::fetch(call);
    }
    match this.type_name() {
        "ServiceInstance" => root::dispatch(call),
        "SessionManager" => session::dispatch(call),
        "PropertyCollector" | "PropertyFilter" => properties::dispatch(call).await,
        "ViewManager" | "ContainerView" => view::dispatch(call),
        "SearchIndex" => search::dispatch(call),
        "Task" | "TaskManager" => task::dispatch(call),
        "AuthorizationManager" => authorization::dispatch(call),
        "NfcService" => nfc::dispatch(call),
        "HttpNfcLease" => lease::dispatch(call),
        "ResourcePool" | "VirtualApp" if call.request.method == "ImportVApp" => lease::on_pool(call),
        "FileManager" | "HostDatastoreBrowser" => files::dispatch(call),
        "VirtualDiskManager" => virtual_disks::dispatch(call),
        "VirtualMachine" | "VirtualMachineSnapshot" => vm::dispatch(call).await,
        "Folder" => folder::dispatch(call),
        "AlarmManager" => alarm::on_manager(call),
        "EventManager" => events::on_manager(call),
        "EventHistoryCollector" => events::on_collector(call),
        "VcenterVStorageObjectManager" => fcd::on_vcenter(call).await,
        "HostVStorageObjectManager" => fcd::on_host(call),
        "ResourcePool" | "VirtualApp" => vapp::dispatch(call),
        _ => Err(Fault::method_not_found(this, call.request.method)),
    }
}

/// Starts a task on a VM and answers with its reference.
fn start_task<M: Method<Output = MoRef<mo::Task>>>(
    call: &Call<'_>,
    vm_id: &str,
    work: impl FnOnce(&Arc<World>) -> Result<Any, Fault> + Send + 'static,
) -> Result<Reply, Fault> {
    let (gate, entity, entity_name) = {
        let state = call.world.lock();
        let vm = state.vms.get(vm_id).ok_or_else(|| Fault::not_found(call.this()))?;
        (vm.gate.clone(), vm.reference(), vm.name().to_owned())
    };
    start_task_on::<M>(call, entity, entity_name, gate, work)
}

/// Starts a task on any inventory object; tasks with the same gate run one after the other.
fn start_task_on<M: Method<Output = MoRef<mo::Task>>>(
    call: &Call<'_>,
    entity: ManagedObjectReference,
    entity_name: String,
    gate: Arc<tokio::sync::Mutex<()>>,
    work: impl FnOnce(&Arc<World>) -> Result<Any, Fault> + Send + 'static,
) -> Result<Reply, Fault> {
    let injected = call.task_fault.clone();
    let job = crate::task::Job { method: M::NAME, entity, entity_name, user: call.user(), gate, injected };
    Ok(call.reply::<M>(&crate::task::start(call.world, job, work)))
}
