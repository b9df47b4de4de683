//! A streaming XML reader and writer for the subset that SOAP uses.
//!
//! Our own because it is inside what this crate exists for: the reader works on borrowed bytes, resolves
//! namespaces only where they matter (`xsi:type`), knows no document types (so no entity can expand), and
//! is bounded in depth and in the memory that its input may claim.

mod base64;
mod escape;
mod malformed;
mod reader;
mod scan;
mod tag;
mod writer;

pub use base64::{decode_base64, encode_base64};
pub use malformed::Malformed;
pub use reader::{Limits, Reader};
pub use writer::Writer;
