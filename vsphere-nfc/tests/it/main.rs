//! The crate against others' programs. What needs a server is tested in `vsphere-sim`.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod fastlz;
mod legacy_tls;
