//! Upkeep of disks on the local file system: growing, renaming and removing them, with all their files.
//!
//! These work on disks that nobody has open. They read what the disk's own descriptor says, never its parents, and
//! touch no file outside of the descriptor's directory unless [`PathPolicy::Any`](crate::PathPolicy::Any) says so.

mod grow;
mod hosted;
mod own_files;
mod rename;
mod unlink;

pub(crate) use self::own_files::OwnFiles;
pub use self::{
    grow::{GrowOptions, grow},
    rename::rename,
    unlink::unlink,
};
