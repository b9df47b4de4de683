//! What stands on the server for a waiter: a collector of its own, its filters and its views.
//!
//! The session's common collector would mix the updates of all waiters, and only one of them could wait; an own one
//! is cheap and takes its filters along when it is destroyed. Servers before 4.0 have only the common one; there the
//! filters are destroyed one by one.

use vsphere_vim_types::{MoRef, methods, mo};

use super::pages::{Source, make_view, view_filter};
use crate::{
    call::{CallOptions, SessionUse},
    client::Vim,
    error::{Error, Result},
};

/// It is destroyed when it is dropped: in the background, when a tokio runtime is at hand.
#[derive(Debug)]
pub(super) struct Remote {
    vim: Vim,
    pub(super) collector: MoRef<mo::PropertyCollector>,
    /// One for each source, in their order.
    pub(super) filters: Vec<MoRef<mo::PropertyFilter>>,
    views: Vec<MoRef<mo::ContainerView>>,
    own: bool,
    /// A wait was begun whose end was not seen.
    pub(super) waiting: bool,
    /// The login in which it was made.
    pub(super) generation: u64,
    gone: bool,
}

impl Remote {
    /// Makes it. When the returned future is dropped on the way, what was made so far is destroyed.
    pub(super) async fn set_up(vim: &Vim, sources: &[Source]) -> Result<Self> {
        let making = tokio::spawn(Self::make(vim.clone(), sources.to_vec()));
        // A task that ends by itself cannot be cancelled but by the end of the runtime.
        making.await.unwrap_or_else(|_| Err(Error::unsupported("a wait for updates", "the runtime is shutting down")))
    }

    async fn make(vim: Vim, sources: Vec<Source>) -> Result<Self> {
        let generation = vim.session().generation();
        let common = vim.content().property_collector.clone();
        let own = vim.version().is_at_least(OWN_COLLECTORS_SINCE);
        let collector = match own {
            true => vim.invoke_with(&common, methods::CreatePropertyCollector::default(), session_bound()).await?,
            false => common,
        };
        // From here on its drop destroys what there is.
        let mut remote = Self {
            vim: vim.clone(),
            collector,
            filters: Vec::new(),
            views: Vec::new(),
            own,
            waiting: false,
            generation,
            gone: false,
        };
        for source in sources {
            let spec = match source {
                Source::Filter(spec) => spec,
                Source::View(container, properties) => {
                    let view = make_view(&vim, &container, properties.type_name(), session_bound()).await?;
                    remote.views.push(view.clone());
                    view_filter(view, properties)
                }
            };
            // Nothing is left to be watched; the place among the others stays.
            if spec.is_empty() {
                remote.filters.push(MoRef::new(""));
                continue;
            }
            let args = methods::CreateFilter { spec: spec.to_wire()?, partial_updates: true, ..Default::default() };
            let filter = vim.invoke_with(&remote.collector, args, session_bound()).await?;
            remote.filters.push(filter);
        }
        Ok(remote)
    }

    /// Lets go of it: it went with its session.
    pub(super) fn forget(mut self) {
        self.gone = true;
    }

    /// Destroys it and waits for that.
    pub(super) async fn destroy(mut self) {
        if let Some(work) = self.leftovers() {
            work.await;
        }
    }

    /// What the server still holds, as work to be done; `None` when nothing.
    fn leftovers(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if std::mem::replace(&mut self.gone, true) {
            return None;
        }
        let vim = self.vim.clone();
        let (collector, own, waiting) = (self.collector.clone(), self.own, self.waiting);
        let filters = std::mem::take(&mut self.filters);
        let views = std::mem::take(&mut self.views);
        Some(async move {
            if waiting {
                cancel_wait(&vim, &collector).await;
            }
            if own {
                let args = methods::DestroyPropertyCollector::default();
                note(vim.invoke_with(&collector, args, session_bound()).await, "a property collector");
            } else {
                for filter in filters.iter().filter(|filter| !filter.value().is_empty()) {
                    let args = methods::DestroyPropertyFilter::default();
                    note(vim.invoke_with(filter, args, session_bound()).await, "a property filter");
                }
            }
            for view in views {
                let destroyed = vim.invoke_with(&view.cast(), methods::DestroyView::default(), session_bound()).await;
                note(destroyed, "a view");
            }
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && let Some(work) = self.leftovers()
        {
            runtime.spawn(work);
        }
    }
}

/// Ends the wait that is going on at a collector, if there is one.
pub(super) async fn cancel_wait(vim: &Vim, collector: &MoRef<mo::PropertyCollector>) {
    let cancelled = vim.invoke_with(collector, methods::CancelWaitForUpdates::default(), session_bound()).await;
    if let Err(error) = cancelled {
        tracing::debug!(%error, "a wait for updates was left to its end");
    }
}

fn note(outcome: Result<()>, what: &str) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "{what} was left to the end of the session");
    }
}

/// For what makes and destroys. Making it twice after a lost answer is harmless: the first one ends with the session.
/// Giving up would not be: what is waited for goes on, and its news would be lost.
fn session_bound() -> CallOptions {
    CallOptions::default().session(SessionUse::Report).idempotent(true)
}

/// `CreatePropertyCollector` came with vSphere 4.0.
const OWN_COLLECTORS_SINCE: &str = "4.0";
