//! Tickets for one HTTP request each: `vmware_cgi_ticket`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long an unused ticket is good for.
const LIFETIME: Duration = Duration::from_secs(30);

/// Tickets handed out and not used.
#[derive(Default)]
pub(crate) struct HttpTickets {
    waiting: BTreeMap<String, Ticket>,
}

struct Ticket {
    method: &'static str,
    resource: String,
    issued: Instant,
}

impl HttpTickets {
    /// A ticket for `method` on `resource` (path and query).
    pub(crate) fn issue(&mut self, method: &'static str, resource: &str) -> String {
        self.waiting.retain(|_, ticket| ticket.issued.elapsed() < LIFETIME);
        let id = crate::ids::uuid();
        self.waiting.insert(id.clone(), Ticket { method, resource: resource.into(), issued: Instant::now() });
        id
    }

    /// Uses a ticket up; false when it is not for this request.
    pub(crate) fn redeem(&mut self, id: &str, method: &str, resource: &str) -> bool {
        self.waiting.remove(id).is_some_and(|ticket| {
            ticket.method == method && ticket.resource == resource && ticket.issued.elapsed() < LIFETIME
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_one_request_of_its_kind() {
        let mut tickets = HttpTickets::default();
        let id = tickets.issue("GET", "/folder/x?dsName=a");
        assert!(!tickets.redeem("nonsense", "GET", "/folder/x?dsName=a"));
        assert!(tickets.redeem(&id, "GET", "/folder/x?dsName=a"));
        assert!(!tickets.redeem(&id, "GET", "/folder/x?dsName=a"));
        let id = tickets.issue("GET", "/folder/x?dsName=a");
        assert!(!tickets.redeem(&id, "PUT", "/folder/x?dsName=a"));
    }
}
