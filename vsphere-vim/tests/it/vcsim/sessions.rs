//! Logins, lost sessions, any method by type and by name, and faults: as vcsim has them.

use std::sync::Arc;

use vsphere_vim::{
    Any, CallOptions, Credentials, Endpoint, Error, ManagedObjectReference, MoRef, NewerMethods, TlsTrust, Vim,
    credentials::ExtensionRoute,
    methods::{self, CurrentTime},
    mo::{Folder, ServiceInstance, VirtualMachine},
    sts::{TokenIssuer, TokenRequest},
    transport::{HttpOptions, HttpTransport},
    types::{DuplicateName, InvalidPowerState, ManagedObjectNotFound, VirtualMachinePowerState},
};

use super::Vcsim;

async fn alive(vim: &Vim) -> vsphere_vim::Result<bool> {
    Ok(vim.virtual_machines().try_next().await?.is_some())
}

async fn one_machine(vim: &Vim) -> MoRef<VirtualMachine> {
    vim.virtual_machines().try_next().await.unwrap().unwrap().moref
}

#[tokio::test]
async fn a_token_of_its_token_service_lets_us_in() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let endpoint = Endpoint::parse(&vcsim.url).unwrap();
    let trust = TlsTrust::from(vcsim.thumbprint);
    let transport = Arc::new(HttpTransport::new(endpoint, &trust, HttpOptions::default()).unwrap());
    let request = TokenRequest::new(&vcsim.user, vcsim.password.as_str()).path("/sts/STSService/vsphere.local");
    let token = request.issue(&*transport).await.unwrap();
    assert_eq!(token.subject(), Some("Administrator@VSPHERE.LOCAL"));
    assert!(token.assertion().expose().starts_with("<saml2:Assertion ") && token.expires().is_some());
    for credentials in
        [Credentials::token(token.clone()), Credentials::token_source(TokenIssuer::new(request, transport))]
    {
        let vim = vcsim.builder().credentials(credentials).connect().await.unwrap();
        assert!(alive(&vim).await.unwrap());
        assert_eq!(vim.current_session().await.unwrap().unwrap().user, "Administrator@VSPHERE.LOCAL");
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn an_extension_comes_in_through_its_tunnel() {
    let Some(vcsim) = Vcsim::start(&["-tunnel"]) else { return };
    let made = rcgen::generate_simple_self_signed(["backup".to_owned()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for route in [ExtensionRoute::Tunnel { proxy_port: vcsim.tunnel }, ExtensionRoute::Direct] {
        let credentials =
            Credentials::extension("com.example.backup", pem.as_bytes(), key.as_bytes()).unwrap().route(route);
        let vim = vcsim.builder().credentials(credentials).connect().await.unwrap();
        assert_eq!(vim.current_session().await.unwrap().unwrap().user, "com.example.backup");
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn sessions_are_cloned_adopted_listed_and_healed_when_terminated() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let first = vcsim.connect().await;
    let ticket = first.clone_ticket().await.unwrap();
    let clone = vcsim.builder().credentials(Credentials::clone_of(ticket.clone())).connect().await.unwrap();
    assert!(alive(&clone).await.unwrap());
    let again = vcsim.builder().credentials(Credentials::clone_of(ticket)).connect().await.unwrap_err();
    assert_eq!(again.fault_name(), Some("InvalidLogin"));

    let cookie = first.session_cookie().unwrap();
    let guest = vcsim.builder().credentials(Credentials::adopted_cookie(cookie)).connect().await.unwrap();
    assert!(alive(&guest).await.unwrap());
    guest.logout().await.unwrap();
    assert!(alive(&first).await.unwrap(), "the owner's session lives on");

    let support = vcsim.connect().await;
    let others: Vec<_> = support.sessions().await.unwrap().into_iter().filter(|session| !session.own).collect();
    assert!(others.len() >= 2, "{others:?}");
    support.terminate_sessions(others.iter().map(|session| &session.key)).await.unwrap();
    assert!(alive(&first).await.unwrap(), "healed by its password");
    let error = alive(&clone).await.unwrap_err();
    assert!(matches!(error, Error::SessionEnded { .. }), "{error}");
    let unknown = support.terminate_sessions(["no such session"]).await.unwrap_err();
    assert_eq!(unknown.fault_name(), Some("NotFound"));
    for vim in [first, clone, support] {
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_session_is_renewed() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let before = vim.session_cookie();
    vim.renew_session().await.unwrap();
    assert_ne!(vim.session_cookie(), before);
    assert!(alive(&vim).await.unwrap());
    assert_eq!(vim.sessions().await.unwrap().len(), 1, "the old one is gone");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn any_method_is_called_by_type_and_by_name() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let root: MoRef<ServiceInstance> = MoRef::new("ServiceInstance");
    let time = vim.invoke(&root, CurrentTime::default()).await.unwrap();
    assert!(time.unix_seconds() > 1_500_000_000);
    let answer = vim.invoke_dynamic(root.as_untyped(), "CurrentTime", &[], CallOptions::default()).await.unwrap();
    assert!(answer[0].text().starts_with("20"), "{answer:?}");

    let index = ManagedObjectReference::of("SearchIndex", "SearchIndex");
    let args = [("inventoryPath", Any::from("DC0/vm"))];
    let found = vim.invoke_dynamic(&index, "FindByInventoryPath", &args, CallOptions::default()).await.unwrap();
    assert_eq!(found[0].attribute("type"), Some("Folder"));
    assert_eq!(vim.find_by_inventory_path("DC0/vm").await.unwrap().unwrap().value(), found[0].text());
    assert!(vim.find_by_inventory_path("DC0/nothing").await.unwrap().is_none());
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn faults_are_typed_and_keep_their_fields() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let missing: MoRef<VirtualMachine> = MoRef::new("vm-999999");
    let error = vim.power_on(&missing).await.unwrap_err();
    let fault = error.fault::<ManagedObjectNotFound>().unwrap();
    assert_eq!(fault.obj.value(), "vm-999999");

    // vcsim's machines run from the start.
    let vm = one_machine(&vim).await;
    let error = vim.power_on(&vm).await.unwrap_err();
    assert!(matches!(error, Error::TaskFailed(_)), "{error}");
    let fault = error.fault::<InvalidPowerState>().unwrap();
    assert_eq!(fault.existing_state, VirtualMachinePowerState::PoweredOn);
    assert!(error.is_fault("InvalidState"), "a fault is also what it extends");

    let folder: MoRef<Folder> = vim.find_by_inventory_path("DC0/vm").await.unwrap().unwrap().cast();
    let create = || methods::CreateFolder { name: "backup".into(), ..Default::default() };
    vim.invoke(&folder, create()).await.unwrap();
    let error = vim.invoke(&folder, create()).await.unwrap_err();
    assert_eq!(error.fault::<DuplicateName>().unwrap().name, "backup");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_method_newer_than_the_spoken_version_is_not_sent() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let old = vsphere_vim::version::WireVersion::new("5.0").unwrap();
    let vim = vcsim.builder().credentials(vcsim.credentials()).api_version(old.clone()).connect().await.unwrap();
    let vm = one_machine(&vim).await;
    let error = vim.invoke(&vm, methods::InstantClone_Task::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    vim.logout().await.unwrap();
    let sending = vcsim.builder().credentials(vcsim.credentials()).api_version(old).newer_methods(NewerMethods::Send);
    let vim = sending.connect().await.unwrap();
    let error = vim.invoke(&vm, methods::InstantClone_Task::default()).await;
    assert!(!matches!(error, Err(Error::Unsupported { .. })), "vcsim was asked");
    vim.logout().await.unwrap();
}
