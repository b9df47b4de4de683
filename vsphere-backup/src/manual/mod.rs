//! The manual: pages to be read, without code of their own.
//!
//! - [`defaults`]: every default of a backup and of a job, and why
//! - [`failures`]: what happens when something goes wrong, and what is promised then
//! - [`holds`]: who holds what when
//! - [`restore`]: which way to restore, what it costs, what it leaves when it ends early

pub mod defaults;
pub mod failures;
pub mod holds;
pub mod restore;
