//! What a host says when it refuses: the codes and texts that are known of none but a few.

use std::error::Error;
use std::sync::Arc;

use vixdisklib::Access;
use vsphere_nfc::{Mode, NfcDisk, Ticket, TicketError, TicketSource};
use vsphere_vim::PowerState;

use crate::nfc::told;
use crate::report::{Report, Verdict};
use crate::subject::Subject;

pub(crate) const TOPIC: &str = "Refusals";

/// Asks for what has to be refused.
pub(crate) async fn run(subject: &Subject, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let reading = || subject.tickets(Access::ReadOnly);
    let options = || subject.options();
    let missing = NfcDisk::open(reading(), "[no such datastore] no/such.vmdk", Mode::ReadOnly, options()).await;
    refused(report, "a file that is not there", missing).await;

    match (&subject.power, subject.vim.disks(&subject.vm.moref).await?.into_iter().next()) {
        (PowerState::On, Some(disk)) => {
            let path = disk.backing.file_name.unwrap_or_default();
            refused(report, "the file that a running machine writes to", {
                NfcDisk::open(reading(), &path, Mode::ReadOnly, options()).await
            })
            .await;
        }
        _ => report.add(TOPIC, "the file that a running machine writes to", Verdict::NotAsked, "the machine is off"),
    }
    if let Some(path) = subject.readable(TOPIC, report) {
        // Nothing is written, should it be allowed.
        let writing = NfcDisk::open(reading(), path, Mode::ReadWrite, options()).await;
        refused(report, "writing with a ticket for reading", writing).await;
        used_ticket(subject, report, path).await?;
    }
    Ok(())
}

/// What a ticket says that was used before.
async fn used_ticket(subject: &Subject, report: &mut Report, path: &str) -> Result<(), Box<dyn Error>> {
    let ticket = subject.tickets(Access::ReadOnly).ticket().await?;
    let again: Arc<dyn TicketSource> = Arc::new(move || {
        let ticket: Ticket = ticket.clone();
        async move { Ok::<_, TicketError>(ticket) }
    });
    NfcDisk::open(Arc::clone(&again), path, Mode::ReadOnly, subject.options()).await?.close().await?;
    let second = NfcDisk::open(again, path, Mode::ReadOnly, subject.options()).await;
    refused(report, "a ticket that was used before", second).await;
    Ok(())
}

async fn refused(report: &mut Report, what: &str, opened: vsphere_nfc::Result<NfcDisk>) {
    match opened {
        Err(error) => report.holds(TOPIC, format!("{what} is refused"), true, told(&error)),
        Ok(disk) => {
            // It should not be open at all; whether it closes well adds nothing.
            let _ = disk.close().await;
            report.holds(TOPIC, format!("{what} is refused"), false, "it was allowed");
        }
    }
}
