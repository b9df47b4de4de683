//! NfcService: tickets for the 902 server. Not in the public model.

use vsphere_vim_types::internal::{
    NfcFileManagement, NfcGetServerNfcLibVersion, NfcGetVmFiles, NfcRandomAccessOpenDisk, NfcRandomAccessOpenReadonly,
};
use vsphere_vim_types::{HostServiceTicket, ManagedObjectReference};

use crate::Fault;
use crate::personality::{Fixed, Personality};
use crate::ticket::Permit;

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "NfcGetVmFiles" => {
            let args: NfcGetVmFiles = call.args()?;
            Ok(call.reply::<NfcGetVmFiles>(&ticket(call, args.vm.as_untyped(), None, false)?))
        }
        "NfcRandomAccessOpenReadonly" => {
            let args: NfcRandomAccessOpenReadonly = call.args()?;
            check_host(call, args.host_for_access.map(Into::into))?;
            Ok(call.reply::<NfcRandomAccessOpenReadonly>(&ticket(
                call,
                args.vm.as_untyped(),
                Some(args.disk_device_key),
                false,
            )?))
        }
        "NfcRandomAccessOpenDisk" => {
            let args: NfcRandomAccessOpenDisk = call.args()?;
            check_host(call, args.host_for_access.map(Into::into))?;
            Ok(call.reply::<NfcRandomAccessOpenDisk>(&ticket(
                call,
                args.vm.as_untyped(),
                Some(args.disk_device_key),
                true,
            )?))
        }
        "NfcFileManagement" => {
            let args: NfcFileManagement = call.args()?;
            let datastore = args.ds.as_untyped();
            if *datastore != call.world.fixed(Fixed::Datastore) {
                return Err(Fault::not_found(datastore));
            }
            Ok(call.reply::<NfcFileManagement>(&issue(call, Permit::Datastore)?))
        }
        "NfcGetServerNfcLibVersion" => {
            // Releases without it name the method in an InvalidRequest.
            let version = call.world.settings.nfc_lib_version;
            let version = version.ok_or_else(|| Fault::new("InvalidRequest", UNKNOWN_METHOD))?;
            let args: NfcGetServerNfcLibVersion = call.args()?;
            if args.host_for_access.value().is_empty() {
                return Err(Fault::invalid_argument("hostForAccess"));
            }
            check_host(call, Some(args.host_for_access.into()))?;
            Ok(call.reply::<NfcGetServerNfcLibVersion>(&version.cast_signed()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

fn check_host(call: &Call<'_>, host: Option<ManagedObjectReference>) -> Result<(), Fault> {
    match host {
        Some(host) if host != call.world.fixed(Fixed::Host) => Err(Fault::not_found(&host)),
        _ => Ok(()),
    }
}

fn ticket(
    call: &Call<'_>,
    vm: &ManagedObjectReference,
    disk: Option<i32>,
    write: bool,
) -> Result<HostServiceTicket, Fault> {
    {
        let state = call.world.lock();
        let found = state.vms.get(vm.value()).ok_or_else(|| Fault::not_found(vm))?;
        if let Some(key) = disk {
            let attached = found.settings.disks.contains_key(&key);
            let in_snapshot = found.snapshots.values().any(|snapshot| snapshot.settings.disks.contains_key(&key));
            if !attached && !in_snapshot {
                return Err(Fault::invalid_argument("diskDeviceKey"));
            }
        }
    }
    issue(call, Permit::Machine { vm: vm.value().to_owned(), disk, write })
}

fn issue(call: &Call<'_>, permit: Permit) -> Result<HostServiceTicket, Fault> {
    let (address, thumbprint) =
        call.world.nfc.get().ok_or_else(|| Fault::new("SystemError", "The 902 server is not running"))?;
    let personality = call.world.personality();
    let service = personality.nfc_service();
    let session_id = call.world.tickets.issue(permit, service);
    Ok(HostServiceTicket {
        // A bare host leaves itself out: the client knows it.
        host: (personality == Personality::VCenter).then(|| address.ip().to_string()),
        port: Some(i32::from(address.port())),
        ssl_thumbprint: Some(thumbprint.clone()),
        service: service.into(),
        service_version: "1.1".into(),
        session_id,
        ..Default::default()
    })
}

/// The words of a capture; the release that lacks the method is 6.0.
const UNKNOWN_METHOD: &str = "Unable to resolve WSDL method name NfcGetServerNfcLibVersion";
