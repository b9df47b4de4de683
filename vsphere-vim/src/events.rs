//! Events: what has happened on the server, from its history or as it happens.
//!
//! ```no_run
//! # use vsphere_vim::{Vim, MoRef, mo};
//! use futures_util::TryStreamExt as _;
//! use vsphere_vim::events::Recursion;
//!
//! # async fn example(vim: Vim, vm: MoRef<mo::VirtualMachine>) -> vsphere_vim::Result<()> {
//! let mut events = vim.events().about(&vm, Recursion::Itself).types(["VmPoweredOnEvent", "VmPoweredOffEvent"]).stream();
//! while let Some(event) = events.try_next().await? {
//!     println!("{} {} {}", event.created_time, event.type_name(), event.full_formatted_message.as_deref().unwrap_or(""));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! An event is a [`Poly<Event>`]: the fields that all events have are fields of it, [`Poly::is_a`] knows all of vSphere's
//! event types, and what only its own type has is in [`Event::unknown`](vsphere_vim_types::Event::unknown).

mod filter;
mod stream;

pub use self::{
    filter::{Events, Recursion},
    stream::EventStream,
};

#[cfg(doc)]
use vsphere_vim_types::Poly;
