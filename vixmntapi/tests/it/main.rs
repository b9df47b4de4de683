//! Behaviour of the crate as its users see it: one binary, a file for each subject.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod archive;
mod btrfs;
mod compare;
mod compare_files;
mod copy;
mod disks;
mod exfat;
mod ext;
mod fat;
mod find;
mod flips;
mod guest;
mod hostile;
mod images;
mod iso;
mod ldm;
mod luks;
mod lvm;
mod made_up;
mod md;
mod ntfs;
mod os;
mod part;
mod peers;
mod set;
mod tree;
mod vendor;
mod walk;
mod wrapped;
mod xfs;
