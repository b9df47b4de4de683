//! Mounts through FUSE as programs of others see them: one binary, a file for each subject.
//!
//! A binary of its own, because a test that a mount holds up must not hold up those of the readers.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod agree;
mod calls;
mod ends;
mod hostile;
mod process;
mod sets;
mod speed;
mod support;

#[path = "../it/disks.rs"]
mod disks;
#[path = "../it/made_up.rs"]
mod made_up;
#[path = "../it/ntfs/image.rs"]
#[allow(dead_code)]
mod ntfs;
#[path = "../it/peers.rs"]
mod peers;
#[path = "../it/tree.rs"]
mod tree;
