//! Which events are wanted.

use std::time::Duration;

use vsphere_vim_types::{
    DateTime, Event, EventFilterSpec, EventFilterSpecByEntity, EventFilterSpecByTime, EventFilterSpecByUsername,
    EventFilterSpecRecursionOption, Managed, MoRef, Poly, methods, mo,
};

use super::EventStream;
use crate::{client::Vim, error::Result};

/// Whose events are meant by an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(alias = "EventFilterSpecRecursionOption")]
pub enum Recursion {
    /// The entity's own.
    Itself,
    /// Those of what lies directly and indirectly in it.
    Children,
    /// Both.
    All,
}

/// A question for events; the next step is [`Events::stream`] or [`Events::latest`].
#[doc(alias = "EventFilterSpec")]
#[derive(Clone, Debug)]
#[must_use]
pub struct Events {
    pub(super) vim: Vim,
    pub(super) filter: EventFilterSpec,
    pub(super) page: i32,
    pub(super) follow: Option<Duration>,
}

impl Vim {
    /// Begins to ask for events: all of them unless told otherwise.
    #[doc(alias = "EventManager")]
    pub fn events(&self) -> Events {
        Events { vim: self.clone(), filter: EventFilterSpec::default(), page: DEFAULT_PAGE, follow: None }
    }
}

impl Events {
    /// Only those about an entity.
    pub fn about<T: Managed>(mut self, entity: &MoRef<T>, recursion: Recursion) -> Self {
        let recursion = match recursion {
            Recursion::Itself => EventFilterSpecRecursionOption::Self_,
            Recursion::Children => EventFilterSpecRecursionOption::Children,
            Recursion::All => EventFilterSpecRecursionOption::All,
        };
        let entity = entity.as_untyped().cast();
        self.filter.entity = Some(EventFilterSpecByEntity { entity, recursion, ..Default::default() });
        self
    }

    /// Only those from that moment on, by the server's clock.
    pub fn since(mut self, begin: DateTime) -> Self {
        self.filter.time.get_or_insert_default().begin_time = Some(begin);
        self
    }

    /// Only those up to that moment, by the server's clock.
    pub fn until(mut self, end: DateTime) -> Self {
        let time: &mut EventFilterSpecByTime = self.filter.time.get_or_insert_default();
        time.end_time = Some(end);
        self
    }

    /// Only those of these types: `VmPoweredOnEvent`, or for extended events their id, `esx.problem.net.connectivity.lost`.
    pub fn types(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.filter.event_type_id.extend(ids.into_iter().map(Into::into));
        self
    }

    /// Only those that these users have caused.
    pub fn users(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let users: &mut EventFilterSpecByUsername = self.filter.user_name.get_or_insert_default();
        users.user_list.extend(names.into_iter().map(Into::into));
        self
    }

    /// Only those that belong together with one event, such as all that a task has led to.
    #[doc(alias = "eventChainId")]
    pub fn chain(mut self, id: i32) -> Self {
        self.filter.event_chain_id = Some(id);
        self
    }

    /// Events in one answer, 1 to 1000. 500 unless stated.
    pub fn page_size(self, events: u16) -> Self {
        Self { page: i32::from(events.clamp(1, LARGEST_PAGE)), ..self }
    }

    /// Does not end with the history: asks every `interval` for what has happened since.
    pub fn follow(self, interval: Duration) -> Self {
        Self { follow: Some(interval), ..self }
    }

    /// Streams the events, oldest first. What the server keeps for the question lives as long as the stream.
    ///
    /// # Privileges
    /// `System.View`.
    #[doc(alias = "CreateCollectorForEvents")]
    #[doc(alias = "EventHistoryCollector")]
    #[doc(alias = "ReadNextEvents")]
    pub fn stream(self) -> EventStream {
        EventStream::new(self)
    }

    /// The latest events, in the server's order, by one call. Servers answer with some hundred at most.
    ///
    /// # Errors
    /// As [`Vim::invoke`]. Hosts that keep no history answer `NotSupported` or `NotImplemented`.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "QueryEvents")]
    pub async fn latest(self) -> Result<Vec<Poly<Event>>> {
        let manager = event_manager(&self.vim)?;
        let filter = EventFilterSpec { max_count: Some(self.page), ..self.filter };
        self.vim.invoke(&manager, methods::QueryEvents { filter, ..Default::default() }).await
    }
}

pub(super) fn event_manager(vim: &Vim) -> Result<MoRef<mo::EventManager>> {
    vim.manager("EventManager", vim.content().event_manager.as_ref())
}

const DEFAULT_PAGE: i32 = 500;

/// What servers give in one answer at most.
const LARGEST_PAGE: u16 = 1000;
