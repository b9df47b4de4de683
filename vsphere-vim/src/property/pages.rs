//! Pages of a retrieve: the protocol behind [`Rows`](super::Rows).
//!
//! A walk through a large inventory takes many calls, and the session may die between any two of them. The token of
//! the next page dies with it. The walk then begins again and passes over the objects that were already delivered;
//! for that it keeps their ids, and nothing else.

use std::collections::HashSet;

use vsphere_vim_types::{
    ManagedObjectReference, MoRef, ObjectContent, PropertyFilterSpec, RetrieveOptions, RetrieveResult, methods, mo,
};

use super::{
    collect::RetrieveCall,
    spec::{FilterSpec, ObjectSpec, PropertySpec, TraversalSpec},
};
use crate::{
    call::{CallOptions, SessionUse},
    client::Vim,
    error::{Call, Error, Result},
};

/// Where the objects come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Start objects and traversals.
    Filter(FilterSpec),
    /// A container view below this object, made for this walk and destroyed after it.
    View(ManagedObjectReference, PropertySpec),
}

impl Source {
    /// No start object at all.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Filter(filter) if filter.is_empty())
    }

    /// What is read, by type.
    pub(crate) fn properties(&self) -> Vec<PropertySpec> {
        match self {
            Self::Filter(filter) => filter.properties().to_vec(),
            Self::View(_, properties) => vec![properties.clone()],
        }
    }
}

/// A walk, page by page.
#[derive(Debug)]
pub(super) struct Walk {
    vim: Vim,
    source: Source,
    page_size: Option<u32>,
    call: RetrieveCall,
    view: Option<MoRef<mo::ContainerView>>,
    token: Option<String>,
    /// The login in which the current token was issued.
    generation: u64,
    delivered: HashSet<ManagedObjectReference>,
    /// Objects that this pass may still name again: those delivered before it began.
    repeats: usize,
    /// Pages in a row without a new object and without one of [`repeats`](Self::repeats).
    idle: u32,
    restarts: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Middle,
    End,
}

impl Walk {
    pub(super) fn new(vim: Vim, source: Source, page_size: Option<u32>, call: Option<RetrieveCall>) -> Self {
        let by_version = match vim.version().is_at_least(PAGING_SINCE) {
            true => RetrieveCall::RetrievePropertiesEx,
            false => RetrieveCall::RetrieveProperties,
        };
        Self {
            vim,
            source,
            page_size,
            call: call.unwrap_or(by_version),
            view: None,
            token: None,
            generation: 0,
            delivered: HashSet::new(),
            repeats: 0,
            idle: 0,
            restarts: 0,
            state: State::Start,
        }
    }

    /// The next objects; `None` at the end. After an error the walk is over.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<ObjectContent>>> {
        let outcome = self.next_page_or_restart().await;
        if !matches!(outcome, Ok(Some(_))) {
            self.clean_up().await;
        }
        outcome
    }

    async fn next_page_or_restart(&mut self) -> Result<Option<Vec<ObjectContent>>> {
        loop {
            if self.state == State::End {
                return Ok(None);
            }
            let page = match self.fetch().await {
                Ok(page) => page,
                Err(error) if self.lost_with_session(&error) && self.restarts < MAX_RESTARTS => {
                    tracing::info!(%error, delivered = self.delivered.len(), "the session ended within a walk; starting it again");
                    if !self.vim.log_in_again_if_dead(self.generation, &error).await? {
                        return Err(error);
                    }
                    // The session lives, and so do the view and perhaps the token.
                    if self.vim.session().generation() == self.generation
                        && let Some(work) = self.leftovers()
                    {
                        work.await;
                    }
                    self.restart();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let page = page.filter(|page| !page.objects.is_empty() || page.token.is_some());
            let Some(page) = page else {
                // Nothing at all is also what an expired session gets to see.
                if self.restarts < MAX_RESTARTS
                    && !self.vim.session_is_alive().await?
                    && self.vim.log_in_again(self.generation).await?
                {
                    self.restart();
                    continue;
                }
                self.state = State::End;
                return Ok(None);
            };
            // So is a listing in which nothing may be read any more.
            if self.restarts < MAX_RESTARTS
                && page.objects.iter().any(lacks_authentication)
                && !self.vim.session_is_alive().await?
                && self.vim.log_in_again(self.generation).await?
            {
                self.restart();
                continue;
            }
            self.token = page.token.filter(|token| !token.is_empty());
            self.state = if self.token.is_some() { State::Middle } else { State::End };
            let mut objects = page.objects;
            let named = objects.len();
            objects.retain(|content| self.delivered.insert(content.obj.clone()));
            if !objects.is_empty() {
                self.idle = 0;
                return Ok(Some(objects));
            }
            self.expect_progress(named)?;
        }
    }

    /// Ends a walk whose pages, `named` objects in the last one, lead nowhere; the server would be asked for ever.
    fn expect_progress(&mut self, named: usize) -> Result<()> {
        if named > 0 && named <= self.repeats {
            self.repeats -= named;
            self.idle = 0;
            return Ok(());
        }
        self.idle += 1;
        if self.idle < MAX_IDLE_PAGES || self.token.is_none() {
            return Ok(());
        }
        let call = Call::on("ContinueRetrievePropertiesEx", self.vim.content().property_collector.as_untyped());
        Err(Error::protocol(call, format!("{MAX_IDLE_PAGES} pages without a new object, and still no end")))
    }

    async fn fetch(&mut self) -> Result<Option<RetrieveResult>> {
        let collector = self.vim.content().property_collector.clone();
        if let Some(token) = self.token.clone() {
            let args = methods::ContinueRetrievePropertiesEx { token, ..Default::default() };
            return self.vim.invoke_with(&collector, args, session_bound()).await.map(Some);
        }
        self.generation = self.vim.session().generation();
        let spec = self.filter().await?;
        if self.call == RetrieveCall::RetrieveProperties {
            let args = methods::RetrieveProperties { spec_set: vec![spec], ..Default::default() };
            let objects = self.vim.invoke_with(&collector, args, session_bound()).await?;
            return Ok((!objects.is_empty()).then(|| RetrieveResult { objects, ..Default::default() }));
        }
        let max_objects = self.page_size.map(|size| i32::try_from(size).unwrap_or(i32::MAX));
        let args = methods::RetrievePropertiesEx {
            spec_set: vec![spec],
            options: RetrieveOptions { max_objects, ..Default::default() },
            ..Default::default()
        };
        self.vim.invoke_with(&collector, args, session_bound()).await
    }

    async fn filter(&mut self) -> Result<PropertyFilterSpec> {
        match &self.source {
            Source::Filter(filter) => filter.to_wire(),
            Source::View(container, properties) => {
                let view = match self.view.clone() {
                    Some(view) => view,
                    None => make_view(&self.vim, container, properties.type_name(), session_bound()).await?,
                };
                self.view = Some(view.clone());
                view_filter(view, properties.clone()).to_wire()
            }
        }
    }

    /// True when the error means that token or view went away together with the session.
    fn lost_with_session(&self, error: &Error) -> bool {
        let new_login = self.vim.session().generation() != self.generation;
        let refused = matches!(error, Error::Fault(_));
        let broken = matches!(error, Error::Transport(cause) if cause.source.is_retryable());
        // A broken answer to "continue" leaves open whether the token was used up; beginning again is always right.
        let token_in_doubt = self.token.is_some() && broken;
        error.is_fault("NotAuthenticated") || (refused && new_login) || token_in_doubt
    }

    fn restart(&mut self) {
        self.restarts += 1;
        self.repeats = self.delivered.len();
        self.idle = 0;
        self.token = None;
        self.view = None;
        self.state = State::Start;
    }

    async fn clean_up(&mut self) {
        self.state = State::End;
        if let Some(work) = self.leftovers() {
            work.await;
        }
    }

    /// What the server still holds for this walk, as work to be done; `None` when nothing.
    pub(super) fn leftovers(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (token, view) = (self.token.take(), self.view.take());
        if token.is_none() && view.is_none() {
            return None;
        }
        let vim = self.vim.clone();
        Some(async move {
            let collector = vim.content().property_collector.clone();
            if let Some(token) = token {
                let args = methods::CancelRetrievePropertiesEx { token, ..Default::default() };
                if let Err(error) = vim.invoke_with(&collector, args, session_bound()).await {
                    tracing::debug!(%error, "an unfinished retrieve was left to the server");
                }
            }
            if let Some(view) = view {
                let destroyed = vim.invoke_with(&view.cast(), methods::DestroyView::default(), session_bound()).await;
                if let Err(error) = destroyed {
                    tracing::debug!(%error, "a view was left to the end of the session");
                }
            }
        })
    }
}

/// Makes a view of everything of a type below `container`. Whoever makes it destroys it.
pub(super) async fn make_view(
    vim: &Vim,
    container: &ManagedObjectReference,
    type_name: &str,
    options: CallOptions,
) -> Result<MoRef<mo::ContainerView>> {
    let args = methods::CreateContainerView {
        container: container.cast(),
        type_: vec![type_name.to_owned()],
        recursive: true,
        ..Default::default()
    };
    let manager = vim.manager("ViewManager", vim.content().view_manager.as_ref())?;
    vim.invoke_with(&manager, args, options).await
}

/// Reads what is in a view, and not the view itself.
pub(super) fn view_filter(view: MoRef<mo::ContainerView>, properties: PropertySpec) -> FilterSpec {
    let along = TraversalSpec::along_named("ContainerView", "view").name("view");
    FilterSpec::new().read(properties).start(ObjectSpec::from(view).skip().then(along))
}

/// Reads properties in one call without pages, for results known to be small.
pub(crate) async fn retrieve(vim: &Vim, filter: &FilterSpec, options: CallOptions) -> Result<Vec<ObjectContent>> {
    let spec = filter.to_wire()?;
    let args = methods::RetrieveProperties { spec_set: vec![spec], ..Default::default() };
    vim.invoke_with(&vim.content().property_collector, args, options).await
}

fn session_bound() -> CallOptions {
    CallOptions::default().session(SessionUse::Report)
}

/// `RetrievePropertiesEx` and its pages came with vSphere 4.1.
const PAGING_SINCE: &str = "4.1";

/// Pages in a row that may bring nothing new. Servers are not known to send even one.
const MAX_IDLE_PAGES: u32 = 16;

/// True when a property could not be read for want of a session.
pub(crate) fn lacks_authentication(content: &ObjectContent) -> bool {
    content.missing_set.iter().any(|missing| missing.fault.fault.is_a("NotAuthenticated"))
}

/// Sessions lost within one walk before it is given up.
const MAX_RESTARTS: u32 = 5;
