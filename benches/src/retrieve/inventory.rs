//! Machines as a server describes them, page by page.

use std::fmt::Write as _;

use bytes::Bytes;

/// So many machines, answered so many at a time.
#[derive(Clone, Copy)]
pub(super) struct Inventory {
    pub(super) machines: usize,
    pub(super) per_page: usize,
}

impl Inventory {
    pub(super) fn pages(self) -> impl Iterator<Item = Bytes> {
        (0..).map_while(move |at| self.page(at))
    }

    /// The answer with the machines of one page; its token is the number of the next one.
    pub(super) fn page(self, at: usize) -> Option<Bytes> {
        let first = at * self.per_page;
        let last = self.machines.min(first + self.per_page);
        if first >= last {
            return None;
        }
        let (machine, snapshot) = (one_line(MACHINE), one_line(SNAPSHOT));
        let method = if at == 0 { "RetrievePropertiesEx" } else { "ContinueRetrievePropertiesEx" };
        let mut text = String::with_capacity((last - first) * 2 * machine.len());
        let _ = write!(text, "{HEAD}<{method}Response xmlns=\"urn:vim25\"><returnval>");
        if last < self.machines {
            let _ = write!(text, "<token>{}</token>", at + 1);
        }
        for id in first..last {
            let snapshot = if id % 4 == 0 { snapshot.as_str() } else { "" };
            let described = machine.replace("@snapshot", snapshot);
            text.push_str(&described.replace("@id", &id.to_string()).replace("@pad", &format!("{id:012}")));
        }
        let _ = write!(text, "</returnval></{method}Response></soapenv:Body></soapenv:Envelope>");
        text.shrink_to_fit();
        Some(text.into())
    }
}

fn one_line(text: &str) -> String {
    text.lines().collect()
}

/// Fifteen devices, as a vCenter lists them, and the other selected properties.
const MACHINE: &str = include_str!("machine.xml");
const SNAPSHOT: &str = include_str!("snapshot.xml");
const HEAD: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"",
    " xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body>"
);
