//! What the data model promises, on real shapes of the API.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod damage;
mod hostile;
mod json;
mod oracle;
mod round_trip;
mod soap;
