//! Envelopes, both sides.

use vsphere_vim_types::soap::{self, Error, Limits, Request, RequestOptions};
use vsphere_vim_types::*;

#[test]
fn a_request_is_read_as_it_was_written() {
    let vm: MoRef<mo::VirtualMachine> = MoRef::new("vm-42");
    let args = methods::QueryChangedDiskAreas {
        snapshot: Some(MoRef::new("snapshot-7")),
        device_key: 2000,
        start_offset: 1 << 41,
        change_id: "*".into(),
        ..Default::default()
    };
    let options = RequestOptions { operation_id: Some("op-1"), ..RequestOptions::default() };
    let text = soap::encode_request(&vm.erase(), &args, options);
    let request = Request::parse(text.as_bytes(), Limits::default()).unwrap();
    assert_eq!((request.method, request.namespace.as_str()), ("QueryChangedDiskAreas", "urn:vim25"));
    assert_eq!(request.this, vm.erase());
    assert_eq!(request.operation_id.as_deref(), Some("op-1"));
    assert_eq!(request.args::<methods::QueryChangedDiskAreas>().unwrap(), args);
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    type M = methods::QueryChangedDiskAreas;
    let info = DiskChangeInfo {
        start_offset: 0,
        length: 1 << 20,
        changed_area: vec![DiskChangeExtent { start: 65536, length: 65536, ..Default::default() }],
        ..Default::default()
    };
    let text = soap::encode_response::<M>(&info);
    assert_eq!(soap::decode_response::<M>(text.as_bytes(), Limits::default()).unwrap(), info);
    let none = soap::encode_response::<methods::Logout>(&());
    soap::decode_response::<methods::Logout>(none.as_bytes(), Limits::default()).unwrap();
}

fn fault(detail: &str) -> soap::SoapFault {
    let text = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/' xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'><e:Body><e:Fault>\
         <faultcode>ServerFaultCode</faultcode><faultstring/><detail>{detail}</detail></e:Fault></e:Body></e:Envelope>"
    );
    match soap::decode_response::<methods::Logout>(text.as_bytes(), Limits::default()) {
        Err(Error::Fault(fault)) => *fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn faults_keep_their_type_and_their_ancestors() {
    let known = fault(
        "<InvalidPowerStateFault xsi:type='InvalidPowerState'><requestedState>poweredOn</requestedState><existingState>poweredOn</existingState></InvalidPowerStateFault>",
    );
    let detail = known.detail.unwrap();
    assert!(detail.is_a("InvalidState") && detail.is_a("MethodFault"));
    assert_eq!(detail.downcast_ref::<InvalidPowerState>().unwrap().existing_state, VirtualMachinePowerState::PoweredOn);

    let untyped =
        fault("<NotAuthenticatedFault><object type='Folder'>g</object></NotAuthenticatedFault>").detail.unwrap();
    assert!(untyped.is_a("NotAuthenticated") && untyped.is_a("NoPermission"));

    let without_struct = fault("<x xsi:type='LargeRDMNotSupportedOnDatastore'><device>d</device></x>").detail.unwrap();
    assert_eq!(without_struct.type_name(), "LargeRDMNotSupportedOnDatastore");
    assert!(without_struct.is_a("VmConfigFault"));

    let by_element =
        fault("<LargeRDMNotSupportedOnDatastoreFault><device>d</device></LargeRDMNotSupportedOnDatastoreFault>");
    let by_element = by_element.detail.unwrap();
    assert_eq!(by_element.type_name(), "LargeRDMNotSupportedOnDatastore");
    assert!(by_element.downcast_ref::<VmConfigFault>().is_some(), "held as its nearest ancestor with a struct");
    assert_eq!(fault("<FileFault><file>f</file></FileFault>").detail.unwrap().type_name(), "FileFault");

    let new =
        fault("<FaultOfTomorrowFault xsi:type='FaultOfTomorrow'><why>x</why></FaultOfTomorrowFault>").detail.unwrap();
    assert_eq!(new.type_name(), "FaultOfTomorrow");
    assert_eq!(new.unknown.elements()[0].name(), "why");
}

#[test]
fn a_fault_is_read_as_it_was_written() {
    let detail: Poly<MethodFault> = Poly::new(FileFault { file: "[ds1] a.vmdk".into(), ..Default::default() });
    let text = soap::encode_fault(&detail, "Change tracking is not enabled");
    match soap::decode_response::<methods::Logout>(text.as_bytes(), Limits::default()) {
        Err(Error::Fault(fault)) => {
            assert_eq!(fault.detail.unwrap(), detail);
            assert_eq!(fault.string, "Change tracking is not enabled");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn internal_methods_have_their_own_namespace() {
    let args = internal::DisableMethods {
        entity: vec![ManagedObjectReference::of("VirtualMachine", "vm-1")],
        method: vec![internal::DisabledMethodRequest {
            method: "RelocateVM_Task".into(),
            reason_id: "backup".into(),
            ..Default::default()
        }],
        source_id: "s".into(),
        ..Default::default()
    };
    let this = ManagedObjectReference::of("AuthorizationManager", "AuthorizationManager");
    let text = soap::encode_request(&this, &args, RequestOptions::default());
    let request = Request::parse(text.as_bytes(), Limits::default()).unwrap();
    assert_eq!(request.namespace, "urn:internalvim25");
    assert_eq!(request.args::<internal::DisableMethods>().unwrap(), args);
    assert!(soap::encode_response::<internal::DisableMethods>(&()).contains("xmlns=\"urn:vim25\""));
}

#[test]
fn texts_that_are_no_answer_are_errors() {
    for text in [
        "",
        "<html><body>503</body></html>",
        "<Envelope/>",
        "<Envelope><Body/></Envelope>",
        "\u{0}",
        "<Envelope><Body><X>",
    ] {
        let result = soap::decode_response::<methods::CurrentTime>(text.as_bytes(), Limits::default());
        assert!(matches!(result, Err(Error::Malformed(_))), "{text}: {result:?}");
    }
    assert!(soap::decode_response::<methods::CurrentTime>(&[0xff, 0xfe], Limits::default()).is_err());
}

#[test]
fn a_service_beside_the_main_one_gets_each_field_in_the_namespace_of_its_type() {
    let base = VslmCreateSpecBackingSpec { datastore: MoRef::new("datastore-1"), ..Default::default() };
    let backing = VslmCreateSpecDiskFileBackingSpec { base, ..Default::default() };
    let profile = VirtualMachineDefinedProfileSpec { profile_id: "gold".into(), ..Default::default() };
    let spec = VslmCreateSpec {
        name: "data".into(),
        backing_spec: Poly::new(backing),
        capacity_in_mb: 64,
        profile: vec![Poly::new(profile)],
        ..Default::default()
    };
    let args = methods::VslmCreateDisk_Task { spec, ..Default::default() };
    assert_eq!(args.info().namespace(), None);
    let this = ManagedObjectReference::of("VslmVStorageObjectManager", "VStorageObjectManager");
    let text = soap::encode_request(&this, &args, soap::RequestOptions::default());
    for expected in [
        "<VslmCreateDisk_Task xmlns=\"urn:vslm\"><_this type=\"VslmVStorageObjectManager\">",
        "<spec><name xmlns=\"urn:vim25\">data</name>",
        "<backingSpec xmlns=\"urn:vim25\" xsi:type=\"VslmCreateSpecDiskFileBackingSpec\"><datastore type",
        "<capacityInMB xmlns=\"urn:vim25\">64</capacityInMB>",
        "<profile xmlns=\"urn:vim25\" xsi:type=\"VirtualMachineDefinedProfileSpec\"><profileId>gold</profileId>",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let request = soap::Request::parse(text.as_bytes(), soap::Limits::default()).unwrap();
    assert_eq!(request.args::<methods::VslmCreateDisk_Task>().unwrap(), args);
    assert_eq!(request.namespace, "urn:vslm");

    let update = methods::VslmAttachDisk_Task::default();
    let direct = soap::encode_request(&this, &update, soap::RequestOptions::default());
    assert!(direct.contains("<id><id xmlns=\"urn:vim25\"></id></id><vm type=\"VirtualMachine\"></vm>"), "{direct}");
}

#[test]
fn the_session_travels_in_the_envelope_beside_the_operation_id() {
    let this = ManagedObjectReference::of("VslmServiceInstance", "ServiceInstance");
    let args = vsphere_vim_types::methods::RetrieveContent::default();
    for operation_id in [None, Some("op-1")] {
        let text = soap::encode_request(&this, &args, soap::RequestOptions { operation_id, ..Default::default() });
        let text = soap::with_session_header(&text, "\"52ab&\"");
        let request = soap::Request::parse(text.as_bytes(), soap::Limits::default()).unwrap();
        assert_eq!(request.session.as_deref(), Some("52ab&"));
        assert_eq!(request.operation_id.as_deref(), operation_id);
        assert!(!format!("{request:?}").contains("52ab"));
    }
}
