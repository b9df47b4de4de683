//! Rows 25 and 26, and everything else about the classic layer: whole files and disks.

mod disks;
mod errors;
mod peer;
mod plain;
mod random;
mod store;
