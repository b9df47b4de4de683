//! ServiceInstance: content and clock.

use vsphere_vim_types::DateTime;
use vsphere_vim_types::internal::{InternalContent, RetrieveInternalContent};
use vsphere_vim_types::methods::{CurrentTime, RetrieveServiceContent};

use crate::Fault;
use crate::inventory::fixed::content;
use crate::personality::Fixed;

use super::{Call, Reply};

pub(super) fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "RetrieveServiceContent" => Ok(call.reply::<RetrieveServiceContent>(&content(call.world))),
        "CurrentTime" => Ok(call.reply::<CurrentTime>(&DateTime::now())),
        "RetrieveInternalContent" => {
            let service = call.world.fixed(Fixed::NfcService);
            Ok(call.reply::<RetrieveInternalContent>(&InternalContent {
                nfc_service: Some(service.cast()),
                ..Default::default()
            }))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}
