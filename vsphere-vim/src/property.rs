//! Reading properties: typed paths in, typed rows out.
//!
//! The property collector is asked *what* to read (a [`Selection`] of typed paths), *where* to look
//! ([`FilterSpec`]: start objects and how to walk on from them) and answers page by page. A property that is missing
//! or forbidden is a value of its row ([`Property::Missing`]), not a failed call.
//!
//! ```no_run
//! use vsphere_vim::{Vim, mo::VirtualMachine};
//!
//! # async fn example(vim: Vim) -> vsphere_vim::Result<()> {
//! let mut rows = vim
//!     .properties::<VirtualMachine>()
//!     .under(vim.root())
//!     .select((VirtualMachine::NAME.of(), VirtualMachine::RUNTIME))
//!     .stream();
//! while let Some(row) = rows.try_next().await? {
//!     let (name, runtime): (vsphere_vim::property::Property<String>, _) = row.values;
//!     println!("{}: {:?} {:?}", row.object, name.present(), runtime.present().map(|runtime| runtime.power_state));
//! }
//! # Ok(())
//! # }
//! ```

mod collect;
pub(crate) mod pages;
mod remote;
mod select;
pub(crate) mod single;
pub mod spec;
mod structs;
pub(crate) mod waiter;

#[doc(hidden)]
pub use self::structs::read_field;
pub use self::{
    collect::{Properties, Query, RetrieveCall, Rows},
    select::{Property, PropertyFault, RawRow, Row, Selection},
    spec::{FilterSpec, ObjectSpec, PropertySpec, SelectionSpec, TraversalSpec},
    structs::{As, FromProperty, PropertyStruct},
    waiter::UpdateCall,
};
