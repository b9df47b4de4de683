//! The asynchronous layer: many requests in flight on one connection.
//!
//! A reader task takes replies off the connection and gives each fragment to the request with its
//! operation id, in whatever order they come; a writer task puts requests on it. A caller that is
//! cancelled therefore never leaves half a message on the wire, and what the server still sends
//! for it is taken off and thrown away.
//!
//! What may be in flight is bounded in bytes by the session's buffers: a
//! request holds its part from before it is sent until its last byte is here.
//!
//! A host without this layer serves the same requests over its synchronous one, one after the other:
//! a single task takes the place of the two.

mod assembly;
mod connection;
mod keep_alive;
mod pending;
mod range_lock;
mod reader;
mod synchronous;
mod writer;

pub(crate) use connection::{Connection, InFlight};
pub(crate) use keep_alive::keep_alive;
pub(crate) use pending::Reply;
pub(crate) use range_lock::{Access, RangeGuard, RangeLock};
