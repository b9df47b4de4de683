//! Following properties: a stream of typed events instead of one answer.
//!
//! [`Query::watch`] first tells every object as [`WatchEvent::Entered`], then [`WatchEvent::Complete`], then what
//! changes. Behind it stand a property collector of its own on the server, which is destroyed with the watch, and a
//! pure state machine that merges partial updates into the kept values. A session that dies, a connection that drops
//! and a server that restarts are gone through: the watch looks at everything anew and reports only what really
//! differs.
//!
//! ```no_run
//! use vsphere_vim::{Vim, mo::VirtualMachine, watch::WatchEvent};
//!
//! # async fn example(vim: Vim) -> vsphere_vim::Result<()> {
//! let mut events = vim.properties::<VirtualMachine>().select((VirtualMachine::NAME, VirtualMachine::RUNTIME)).watch();
//! while let Some(event) = events.try_next().await? {
//!     match event {
//!         WatchEvent::Entered(row) => println!("{} is here: {:?}", row.object, row.values.0.present()),
//!         WatchEvent::Changed(row, paths) => println!("{} changed: {paths:?}", row.object),
//!         WatchEvent::Left(vm) => println!("{vm} is gone"),
//!         WatchEvent::Complete => println!("all were told"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub(crate) mod follow;
mod inventory;
pub(crate) mod machine;
mod view;

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use vsphere_vim_types::{Managed, MoRef};

pub use self::inventory::{Inventory, InventoryBuilder, InventoryChange, Node, Tree};
use self::{
    follow::{Follower, News},
    machine::Output,
};
use crate::{
    error::Result,
    property::{Query, Row, Selection, waiter::Bell},
};

/// What is new.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WatchEvent<T, V> {
    /// An object is in sight: it was there at the beginning, was created, or moved in.
    #[doc(alias = "enter")]
    Entered(Row<T, V>),
    /// An object's values have changed; these of the selected paths. The row is whole.
    #[doc(alias = "modify")]
    Changed(Row<T, V>, Vec<String>),
    /// An object is out of sight: deleted, or moved away.
    #[doc(alias = "leave")]
    Left(MoRef<T>),
    /// Everything that was there at the beginning has been told. Comes once.
    Complete,
    /// A [`WatchWaker`] was used. Nothing is new.
    Woken,
}

/// A stream of events; made by [`Query::watch`].
///
/// It ends by itself only when it was limited to certain objects ([`of`](crate::property::Properties::of)) and all of
/// them have left. After an error that may pass ([`is_retryable`](crate::Error::is_retryable)) it goes on where it
/// was when it is asked again; any other error ends it.
///
/// Dropping it destroys what the server holds for it (in the background, when a tokio runtime is at hand);
/// [`Watch::close`] waits for that.
#[must_use = "a watch does nothing until it is asked for events"]
pub struct Watch<T, S> {
    follower: Follower,
    selection: S,
    marker: PhantomData<fn() -> T>,
}

impl<T: Managed, S: Selection<T>> Query<T, S> {
    /// Follows the objects and their properties. Nothing is sent before the first event is asked for.
    #[doc(alias = "PropertyCollector")]
    #[doc(alias = "CreateFilter")]
    #[doc(alias = "WaitForUpdates")]
    #[doc(alias = "WaitForUpdatesEx")]
    #[doc(alias = "CheckForUpdates")]
    pub fn watch(self) -> Watch<T, S> {
        let (vim, plan, selection) = self.into_plan();
        Watch { follower: Follower::new(&vim, plan), selection, marker: PhantomData }
    }
}

impl<T: Managed, S: Selection<T>> Watch<T, S> {
    /// The next event, however long it takes; `None` at the end.
    ///
    /// # Errors
    /// As [`Rows::try_next`](crate::property::Rows::try_next); [`Error::Transport`](crate::Error::Transport) when the
    /// server stays out of reach for longer than the retry policy allows. Such an error passes: ask again.
    ///
    /// # Privileges
    /// `System.View` on the objects, and what the properties need.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    pub async fn try_next(&mut self) -> Result<Option<WatchEvent<T, S::Values>>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await.transpose()
    }

    /// What has happened until now, without waiting for more: for programs that look from time to time. The first
    /// time it is everything that is there, with [`WatchEvent::Complete`] at the end.
    ///
    /// A wait that was begun by [`Watch::try_next`] and given up is ended first.
    ///
    /// # Errors
    /// As [`Watch::try_next`]. What was taken in before the error comes with the next call.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    #[doc(alias = "CheckForUpdates")]
    pub async fn check(&mut self) -> Result<Vec<WatchEvent<T, S::Values>>> {
        let news = self.follower.check().await?;
        Ok(news.into_iter().filter_map(|news| self.event(news)).collect())
    }

    /// The objects in sight and their present values, as far as they have been taken in.
    pub fn rows(&self) -> impl Iterator<Item = Row<T, S::Values>> + '_ {
        self.follower.machine().objects().filter_map(|object| self.row(&object.cast()))
    }

    /// The present values of one object; `None` when it is not in sight.
    pub fn row(&self, object: &MoRef<T>) -> Option<Row<T, S::Values>> {
        let mut raw = self.follower.row(object.as_untyped())?;
        Some(Row { object: object.clone(), values: self.selection.read(&mut raw) })
    }

    /// A handle with which another task can end the present wait.
    pub fn waker(&self) -> WatchWaker {
        WatchWaker(self.follower.bell())
    }

    /// Destroys what the server holds for the watch, and waits for that.
    ///
    /// # Cancel safety
    /// When the future is dropped, it happens in the background.
    #[doc(alias = "DestroyPropertyCollector")]
    #[doc(alias = "DestroyPropertyFilter")]
    #[doc(alias = "DestroyView")]
    pub async fn close(self) {
        self.follower.close().await;
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> PollEvent<T, S::Values> {
        loop {
            match ready!(self.follower.poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(news)) => {
                    if let Some(event) = self.event(news) {
                        return Poll::Ready(Some(Ok(event)));
                    }
                }
            }
        }
    }

    fn event(&self, news: News) -> Option<WatchEvent<T, S::Values>> {
        Some(match news {
            News::Woken => WatchEvent::Woken,
            News::Output(Output::Entered(object)) => WatchEvent::Entered(self.row(&object.cast())?),
            News::Output(Output::Changed(object, paths)) => WatchEvent::Changed(self.row(&object.cast())?, paths),
            News::Output(Output::Left(object)) => WatchEvent::Left(object.cast()),
            News::Output(Output::Complete) => WatchEvent::Complete,
            News::Output(Output::Unclear { .. }) => return None,
        })
    }
}

type PollEvent<T, V> = Poll<Option<Result<WatchEvent<T, V>>>>;

impl<T: Managed, S: Selection<T> + Unpin> Stream for Watch<T, S> {
    type Item = Result<WatchEvent<T, S::Values>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

impl<T, S> fmt::Debug for Watch<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("objects", &self.follower.machine().len()).finish_non_exhaustive()
    }
}

/// Ends a wait of a [`Watch`] from another task; made by [`Watch::waker`].
#[derive(Clone, Debug)]
pub struct WatchWaker(Bell);

impl WatchWaker {
    /// Ends the present wait, or the next one: the watch reports [`WatchEvent::Woken`].
    #[doc(alias = "CancelWaitForUpdates")]
    pub fn wake(&self) {
        self.0.ring();
    }
}
