//! The query and its stream of rows.

use std::{
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use vsphere_vim_types::{Managed, ManagedObjectReference, MoRef, ObjectContent};

use super::{
    pages::{Source, Walk},
    select::{RawRow, Row, Selection},
    spec::{FilterSpec, ObjectSpec, PropertySpec},
    waiter::UpdateCall,
};
use crate::{client::Vim, error::Result, transport::BoxFuture, watch::follow::Plan};

impl Vim {
    /// Begins to read properties of objects of type `T`: the whole inventory unless told otherwise.
    #[doc(alias = "PropertyCollector")]
    #[doc(alias = "RetrievePropertiesEx")]
    pub fn properties<T: Managed>(&self) -> Properties<T> {
        Properties { vim: self.clone(), scope: Scope::Under(self.root().into()), marker: PhantomData }
    }
}

/// Which objects to read; the next step is [`Properties::select`].
#[derive(Debug)]
#[must_use]
pub struct Properties<T> {
    vim: Vim,
    scope: Scope,
    marker: PhantomData<fn() -> T>,
}

#[derive(Clone, Debug)]
enum Scope {
    Under(ManagedObjectReference),
    View(ManagedObjectReference),
    Of(Vec<ManagedObjectReference>),
    Along(Vec<ObjectSpec>),
}

impl Scope {
    /// No object at all: without a spec there is nothing to ask.
    fn is_empty(&self) -> bool {
        matches!(self, Self::Of(objects) if objects.is_empty())
    }

    fn source(self, properties: PropertySpec) -> Source {
        let filter = |objects: Vec<ObjectSpec>| {
            Source::Filter(objects.into_iter().fold(FilterSpec::new().read(properties.clone()), FilterSpec::start))
        };
        match self {
            Self::Under(root) => filter(vec![ObjectSpec::from(root).through_inventory()]),
            Self::View(root) => Source::View(root, properties),
            Self::Of(objects) => filter(objects.into_iter().map(ObjectSpec::from).collect()),
            Self::Along(objects) => filter(objects),
        }
    }
}

fn properties_of<T: Managed, S: Selection<T>>(selection: &S) -> PropertySpec {
    selection.paths().into_iter().fold(PropertySpec::of::<T>(), PropertySpec::path_named)
}

impl<T: Managed> Properties<T> {
    /// All objects of the type below `root` (and `root` itself), found by the static traversal of the inventory.
    pub fn under(self, root: impl Into<ManagedObjectReference>) -> Self {
        Self { scope: Scope::Under(root.into()), ..self }
    }

    /// Finds the objects with a container view instead of a traversal; cheaper for the server in large inventories.
    /// The view lives as long as the stream.
    pub fn by_view(self) -> Self {
        let scope = match self.scope {
            Scope::Under(root) => Scope::View(root),
            other => other,
        };
        Self { scope, ..self }
    }

    /// Exactly these objects.
    pub fn of<'a>(self, objects: impl IntoIterator<Item = &'a MoRef<T>>) -> Self {
        Self { scope: Scope::Of(objects.into_iter().map(MoRef::erase).collect()), ..self }
    }

    /// The objects on ways of the caller's own.
    pub fn along(self, objects: impl IntoIterator<Item = ObjectSpec>) -> Self {
        Self { scope: Scope::Along(objects.into_iter().collect()), ..self }
    }

    /// Which properties: a typed path, or a tuple of up to eight.
    pub fn select<S: Selection<T>>(self, selection: S) -> Query<T, S> {
        Query {
            vim: self.vim,
            scope: self.scope,
            selection,
            page_size: Some(DEFAULT_PAGE),
            retrieve: None,
            update: None,
            marker: PhantomData,
        }
    }
}

/// With which call properties are read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetrieveCall {
    /// Page by page. Since 4.1, and the default there.
    RetrievePropertiesEx,
    /// All objects in one answer. The default before 4.1.
    RetrieveProperties,
}

/// Objects and properties; the next step is [`Query::stream`] or [`Query::watch`].
#[must_use]
pub struct Query<T, S> {
    vim: Vim,
    scope: Scope,
    selection: S,
    page_size: Option<u32>,
    retrieve: Option<RetrieveCall>,
    update: Option<UpdateCall>,
    marker: PhantomData<fn() -> T>,
}

impl<T: Managed, S: Selection<T>> Query<T, S> {
    /// Objects in one answer; the server may send fewer. 200 unless stated, `None` leaves it to the server.
    pub fn page_size(self, objects: impl Into<Option<u32>>) -> Self {
        Self { page_size: objects.into().map(|size| size.max(1)), ..self }
    }

    /// Reads with this call, whatever the server's version.
    #[doc(alias = "RetrieveProperties")]
    pub fn retrieve_by(self, call: RetrieveCall) -> Self {
        Self { retrieve: Some(call), ..self }
    }

    /// Watches with this call, whatever the server's version.
    pub fn updates_by(self, call: UpdateCall) -> Self {
        Self { update: Some(call), ..self }
    }

    /// Sends the query and streams the rows, in constant memory: one page, and the ids of what was delivered.
    pub fn stream(self) -> Rows<T, S> {
        let nothing = self.scope.is_empty();
        let source = self.scope.source(properties_of(&self.selection));
        let walk = Walk::new(self.vim, source, self.page_size, self.retrieve);
        Rows {
            selection: Arc::new(self.selection),
            page: VecDeque::new(),
            walk: if nothing { Progress::Over } else { Progress::Idle(Box::new(walk)) },
            marker: PhantomData,
        }
    }

    /// The same query as something to follow.
    pub(crate) fn into_plan(self) -> (Vim, Plan, S) {
        let by_name = matches!(self.scope, Scope::Of(_));
        let sources = vec![self.scope.source(properties_of(&self.selection))];
        (self.vim, Plan { sources, by_name, call: self.update, page_size: self.page_size }, self.selection)
    }

    /// Sends the query and collects all rows, for results known to be small.
    ///
    /// # Errors
    /// As [`Rows::try_next`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn collect(self) -> Result<Vec<Row<T, S::Values>>> {
        let mut rows = self.stream();
        let mut all = Vec::new();
        while let Some(row) = rows.try_next().await? {
            all.push(row);
        }
        Ok(all)
    }
}

impl<T: Managed, S: Selection<T> + fmt::Debug> fmt::Debug for Query<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("scope", &self.scope).field("selection", &self.selection).finish_non_exhaustive()
    }
}

/// The rows of a query: a [`Stream`], with [`Rows::try_next`] for those without stream combinators.
///
/// Dropping it early tells the server to forget the rest (in the background, when a tokio runtime is at hand).
pub struct Rows<T, S> {
    selection: Arc<S>,
    page: VecDeque<ObjectContent>,
    walk: Progress,
    marker: PhantomData<fn() -> T>,
}

type Fetch = BoxFuture<'static, (Box<Walk>, Result<Option<Vec<ObjectContent>>>)>;

type PollRow<T, V> = Poll<Option<Result<Row<T, V>>>>;

enum Progress {
    Idle(Box<Walk>),
    Fetching(Fetch),
    Over,
}

impl<T: Managed, S: Selection<T>> Rows<T, S> {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Fault`](crate::Error::Fault) with `InvalidProperty` when a path does not exist in the server's
    /// version, with `ManagedObjectNotFound` when a start object is gone. After an error the stream ends.
    ///
    /// # Cancel safety
    /// Cancel safe: no row is lost.
    pub async fn try_next(&mut self) -> Result<Option<Row<T, S::Values>>> {
        std::future::poll_fn(|cx| self.poll_row(cx)).await.transpose()
    }

    fn poll_row(&mut self, cx: &mut Context<'_>) -> PollRow<T, S::Values> {
        loop {
            if let Some(content) = self.page.pop_front() {
                let mut raw = RawRow::from(content);
                let object = raw.object().cast();
                let values = self.selection.read(&mut raw);
                return Poll::Ready(Some(Ok(Row { object, values })));
            }
            match std::mem::replace(&mut self.walk, Progress::Over) {
                Progress::Over => return Poll::Ready(None),
                Progress::Idle(mut walk) => {
                    self.walk = Progress::Fetching(Box::pin(async move {
                        let page = walk.next_page().await;
                        (walk, page)
                    }));
                }
                Progress::Fetching(mut fetch) => {
                    let polled = fetch.as_mut().poll(cx);
                    if polled.is_pending() {
                        self.walk = Progress::Fetching(fetch);
                    }
                    let (walk, page) = ready!(polled);
                    match page {
                        Ok(Some(objects)) => {
                            self.page = objects.into();
                            self.walk = Progress::Idle(walk);
                        }
                        Ok(None) => return Poll::Ready(None),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
        }
    }
}

impl<T: Managed, S: Selection<T>> Stream for Rows<T, S> {
    type Item = Result<Row<T, S::Values>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_row(cx)
    }
}

impl<T, S> Unpin for Rows<T, S> {}

impl<T, S> Drop for Rows<T, S> {
    fn drop(&mut self) {
        // A page that is just being fetched is finished first: only its answer holds the token to cancel.
        let walk = std::mem::replace(&mut self.walk, Progress::Over);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        match walk {
            Progress::Over => {}
            Progress::Idle(mut walk) => {
                if let Some(work) = walk.leftovers() {
                    runtime.spawn(work);
                }
            }
            Progress::Fetching(fetch) => {
                runtime.spawn(async move {
                    let (mut walk, _page) = fetch.await;
                    if let Some(work) = walk.leftovers() {
                        work.await;
                    }
                });
            }
        }
    }
}

impl<T, S> fmt::Debug for Rows<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("buffered", &self.page.len()).finish_non_exhaustive()
    }
}

/// Large enough that round trips do not matter, small enough that a page of fat virtual machines stays at some MB.
const DEFAULT_PAGE: u32 = 200;
