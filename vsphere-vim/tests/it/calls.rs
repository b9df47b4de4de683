//! Retries, faults and odd answers.

use vsphere_vim::{
    CallOptions, Error, ManagedObjectReference, MoRef, NewerFields, NewerMethods, Poly,
    error::TransportErrorKind,
    methods::{
        self, CreateSnapshot_Task, CurrentTime, FindByInventoryPath, QueryChangedDiskAreas, RetrievePropertiesEx,
    },
    mo,
    types::{
        Any, DateTime, InvalidPowerState, LocalizedMethodFault, MissingProperty, NoPermission, ObjectContent,
        RetrieveResult, VirtualMachineConfigInfo, VirtualMachineConfigSpec, VirtualMachinePowerState,
        VirtualMachineRuntimeInfo, soap,
    },
};

use crate::fake::{Fake, Reply, answer, fault, object};

fn vm() -> MoRef<mo::VirtualMachine> {
    MoRef::new("vm-42")
}

/// What a service answers that is not up yet: a fault, but of no type.
const NO_DETAIL: &str = "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body>\
    <soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>starting</faultstring></soapenv:Fault>\
    </soapenv:Body></soapenv:Envelope>";

fn failing_first(failures: usize, reply: fn() -> Reply) -> Fake {
    Fake::new(move |call| match (call.method, call.before < failures) {
        (_, true) => reply(),
        ("CurrentTime", false) => answer::<CurrentTime>(DateTime::from_unix(0, 0)),
        ("CreateSnapshot_Task", false) => answer::<CreateSnapshot_Task>(MoRef::new("task-1")),
        (other, _) => panic!("unexpected {other}"),
    })
}

#[tokio::test]
async fn reads_are_tried_again_when_the_network_or_a_proxy_fails() {
    let failures: [fn() -> Reply; 5] = [
        || Reply::Broken(TransportErrorKind::Disconnected, true),
        || Reply::Broken(TransportErrorKind::Connect, false),
        || Reply::Http(503, "text/html", "<html>Service Unavailable</html>"),
        || Reply::Http(500, "text/xml", "<html><body>not SOAP</body></html>"),
        || Reply::Http(503, "text/xml", NO_DETAIL),
    ];
    for failure in failures {
        let server = failing_first(2, failure);
        let vim = server.connect().await;
        vim.invoke(&MoRef::new("ServiceInstance"), CurrentTime::default()).await.unwrap();
        assert_eq!(server.count("CurrentTime"), 3);
    }
}

#[tokio::test]
async fn a_snapshot_that_may_have_been_taken_is_not_taken_twice() {
    let server = failing_first(1, || Reply::Broken(TransportErrorKind::Disconnected, true));
    let vim = server.connect().await;
    let error = vim.invoke(&vm(), CreateSnapshot_Task::default()).await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Disconnected));
    assert!(error.is_retryable(), "retry can help, but it is the caller's decision");
    assert_eq!(server.count("CreateSnapshot_Task"), 1);
    assert!(error.to_string().contains("CreateSnapshot_Task on VirtualMachine:vm-42"), "{error}");
}

#[tokio::test]
async fn a_snapshot_request_that_was_never_sent_is_sent_again() {
    let server = failing_first(2, || Reply::Broken(TransportErrorKind::Connect, false));
    let vim = server.connect().await;
    vim.invoke(&vm(), CreateSnapshot_Task::default()).await.unwrap();
    assert_eq!(server.count("CreateSnapshot_Task"), 3);
}

#[tokio::test]
async fn retries_end_and_say_how_many_there_were() {
    let server = failing_first(99, || Reply::Http(502, "text/html", "bad gateway"));
    let vim = server.connect().await;
    let error = vim.invoke(&MoRef::new("ServiceInstance"), CurrentTime::default()).await.unwrap_err();
    assert_eq!(server.count("CurrentTime"), 4);
    assert!(error.to_string().contains("4 tries"), "{error}");
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::HttpStatus(502)));
}

#[tokio::test]
async fn faults_keep_their_type_their_fields_and_their_message() {
    let server = Fake::new(|_| {
        let fault = InvalidPowerState { existing_state: VirtualMachinePowerState::PoweredOn, ..Default::default() };
        Reply::Fault(Poly::new(fault), "The attempted operation cannot be performed in the current state (Powered on).")
    });
    let vim = server.connect().await;
    let error = vim.power_on(&vm()).await.unwrap_err();
    assert_eq!(error.fault::<InvalidPowerState>().unwrap().existing_state, VirtualMachinePowerState::PoweredOn);
    assert!(error.is_fault("InvalidState") && error.is_fault("VimFault"), "the base chain is known");
    assert!(error.to_string().contains("Powered on"), "{error}");
    assert!(error.hint().is_some() && !error.is_retryable());
}

#[tokio::test]
async fn a_fault_that_the_model_does_not_have_keeps_its_name_and_chain() {
    for (name, base) in [("FileLocked", Some("FileFault")), ("FaultOfTomorrow", None)] {
        let server = Fake::new(move |_| Reply::Fault(fault(name), ""));
        let vim = server.connect().await;
        let error = vim.invoke(&vm(), QueryChangedDiskAreas::default()).await.unwrap_err();
        assert_eq!(error.fault_name(), Some(name));
        assert_eq!(error.is_fault("FileFault"), base.is_some());
        assert_eq!(error.hint().is_some_and(|hint| hint.contains("full backup")), base.is_some());
    }
}

#[tokio::test]
async fn permission_faults_have_a_hint() {
    let server = Fake::new(|_| {
        Reply::Fault(Poly::new(NoPermission { privilege_id: Some("System.Read".into()), ..Default::default() }), "")
    });
    let vim = server.connect().await;
    let error = vim.find_by_inventory_path("dc1/vm/web").await.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.contains("System.Read"), "{hint}");
}

#[tokio::test]
async fn any_method_can_be_called_without_a_typed_wrapper() {
    let server = Fake::new(|call| {
        assert_eq!(call.method, "FindByInventoryPath");
        let args = call.args::<FindByInventoryPath>();
        let found =
            (args.inventory_path == "dc1").then(|| ManagedObjectReference::of("Datacenter", "datacenter-2").cast());
        answer::<FindByInventoryPath>(found)
    });
    let vim = server.connect().await;
    let index = ManagedObjectReference::of("SearchIndex", "SearchIndex");
    let call = |path: &'static str| {
        let (vim, index) = (vim.clone(), index.clone());
        async move {
            let args = [("inventoryPath", Any::from(path))];
            vim.invoke_dynamic(&index, "FindByInventoryPath", &args, CallOptions::default()).await
        }
    };
    let found = call("dc1").await.unwrap();
    assert_eq!((found[0].text(), found[0].attribute("type")), ("datacenter-2", Some("Datacenter")));
    assert!(call("dc2").await.unwrap().is_empty());
    let error = vim.invoke_dynamic(&index, "Find<", &[], CallOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }));
}

#[tokio::test]
async fn hostile_answers_are_errors() {
    for body in
        ["", "<", "<a/>", "<soapenv:Envelope/>", "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>"]
    {
        let server = Fake::new(move |_| Reply::Http(200, "text/xml", body));
        let vim = server.connect().await;
        let error = vim.invoke(&MoRef::new("ServiceInstance"), CurrentTime::default()).await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{body:?}: {error}");
    }
}

#[tokio::test]
async fn each_call_carries_an_operation_id_of_its_own() {
    let server = Fake::new(|_| answer::<CurrentTime>(DateTime::from_unix(0, 0)));
    let vim = server.connect().await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..3 {
        vim.invoke(&MoRef::new("ServiceInstance"), methods::CurrentTime::default()).await.unwrap();
        let body = server.last_body();
        let request = soap::Request::parse(body.as_bytes(), soap::Limits::default()).unwrap();
        assert!(ids.insert(request.operation_id.unwrap()));
    }
}

#[tokio::test]
async fn snapshots_that_may_not_be_seen_are_not_taken_for_none() {
    let server = Fake::new(|_| {
        let config = Any::Object(Box::new(VirtualMachineConfigInfo::default()));
        let runtime = Any::Object(Box::new(VirtualMachineRuntimeInfo::default()));
        let missing = MissingProperty {
            path: "snapshot".into(),
            fault: LocalizedMethodFault { fault: fault("NoPermission"), ..Default::default() },
            ..Default::default()
        };
        let content = ObjectContent {
            missing_set: vec![missing],
            ..object("vm-42", &[("config", config), ("runtime", runtime)])
        };
        answer::<RetrievePropertiesEx>(Some(RetrieveResult { objects: vec![content], ..Default::default() }))
    });
    let vim = server.connect().await;
    let error = vim.vm_details(&vm()).await.unwrap_err();
    assert!(matches!(error, Error::Property(_)) && error.is_fault("NoPermission"), "{error:?}");
}

#[tokio::test]
async fn a_method_newer_than_the_server_is_refused_before_it_is_sent() {
    let server = Fake::new(|call| panic!("unexpected {}", call.method)).version(Some("6.0"));
    let vim = server.connect().await;
    let calls = server.log().len();
    let error = vim.invoke(&vm(), methods::InstantClone_Task::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("InstantClone_Task") && text.contains("6.7") && text.contains("6.0"), "{text}");
    assert_eq!(server.log().len(), calls, "nothing was sent");
}

#[tokio::test]
async fn newer_methods_and_fields_are_sent_when_the_caller_says_so() {
    let server = Fake::new(|_| answer::<methods::ReconfigVM_Task>(MoRef::new("task-1"))).version(Some("6.0"));
    let spec = VirtualMachineConfigSpec { name: Some("web".into()), sev_enabled: Some(true), ..Default::default() };
    let reconfigure = methods::ReconfigVM_Task { spec, ..Default::default() };
    let connect = |fields, methods| {
        let credentials = vsphere_vim::Credentials::password("root", crate::fake::PASSWORD);
        server.builder().credentials(credentials).newer_fields(fields).newer_methods(methods).connect()
    };
    let vim = connect(NewerFields::Drop, NewerMethods::Refuse).await.unwrap();
    vim.invoke(&vm(), reconfigure.clone()).await.unwrap();
    assert!(server.last_body().contains("web") && !server.last_body().contains("sevEnabled"));

    let vim = connect(NewerFields::Refuse, NewerMethods::Refuse).await.unwrap();
    let error = vim.invoke(&vm(), reconfigure.clone()).await.unwrap_err();
    assert!(error.to_string().contains("ReconfigVM_Task.spec.sevEnabled"), "{error}");

    let vim = connect(NewerFields::Send, NewerMethods::Send).await.unwrap();
    vim.invoke(&vm(), reconfigure).await.unwrap();
    assert!(server.last_body().contains("sevEnabled"));
    vim.invoke(&vm(), methods::InstantClone_Task::default()).await.unwrap();
}
