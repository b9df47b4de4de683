//! Tickets for the 902 server: what may be opened, once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::nfc::RedeemError;

/// Tickets kept after use or expiry, so that a second use is told from nonsense.
const KEPT: usize = 4096;

/// What a ticket allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Disks and files of a VM.
    Machine {
        /// The VM's managed object id.
        vm: String,
        /// One disk only; any file of the VM when absent.
        disk: Option<i32>,
        /// Whether the disk may be opened for writing.
        write: bool,
    },
    /// What clients stored in the datastore, and reading the VMs' files.
    Datastore,
}

struct Ticket {
    permit: Permit,
    service: &'static str,
    issued: Instant,
    used: bool,
}

/// All tickets handed out.
pub(crate) struct Tickets {
    lifetime: Duration,
    issued: Mutex<HashMap<String, Ticket>>,
}

impl Tickets {
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { lifetime, issued: Mutex::default() }
    }

    /// A new ticket's session id.
    pub(crate) fn issue(&self, permit: Permit, service: &'static str) -> String {
        let id = crate::ids::uuid();
        let mut issued = self.lock();
        if issued.len() >= KEPT {
            let lifetime = self.lifetime;
            issued.retain(|_, ticket| !ticket.used && ticket.issued.elapsed() < lifetime);
        }
        issued.insert(id.clone(), Ticket { permit, service, issued: Instant::now(), used: false });
        id
    }

    /// Uses a ticket up.
    pub(crate) fn redeem(&self, id: &str, service: &str) -> Result<Permit, RedeemError> {
        let mut issued = self.lock();
        let ticket = issued.get_mut(id).ok_or(RedeemError::Unknown)?;
        if ticket.used {
            return Err(RedeemError::Used);
        }
        if ticket.issued.elapsed() > self.lifetime {
            return Err(RedeemError::Expired);
        }
        if ticket.service != service {
            return Err(RedeemError::WrongService);
        }
        ticket.used = true;
        Ok(ticket.permit.clone())
    }

    /// Tickets that could still be used.
    pub(crate) fn outstanding(&self) -> usize {
        self.lock().values().filter(|ticket| !ticket.used && ticket.issued.elapsed() <= self.lifetime).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Ticket>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit() -> Permit {
        Permit::Machine { vm: "vm-1".into(), disk: Some(2000), write: false }
    }

    #[test]
    fn a_ticket_works_once_for_its_service_and_its_time() {
        let tickets = Tickets::new(Duration::from_secs(60));
        let id = tickets.issue(permit(), "nfc");
        assert_eq!(tickets.redeem(&id, "vpxa-nfc"), Err(RedeemError::WrongService));
        assert_eq!(tickets.outstanding(), 1);
        assert_eq!(tickets.redeem(&id, "nfc"), Ok(permit()));
        assert_eq!(tickets.redeem(&id, "nfc"), Err(RedeemError::Used));
        assert_eq!(tickets.redeem("x", "nfc"), Err(RedeemError::Unknown));
        assert_eq!(tickets.outstanding(), 0);
        let short = Tickets::new(Duration::ZERO);
        let id = short.issue(permit(), "nfc");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(short.redeem(&id, "nfc"), Err(RedeemError::Expired));
    }
}
