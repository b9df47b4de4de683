//! Files of datastores over HTTPS: settings and errors of the transport `https`, and whole disks put there.
//!
//! Single disks are read through a [`Connection`](crate::Connection) whose list names `https`. What `/folder` has no
//! request for is writing a part of a file; [`upload_disk`] puts a whole disk there, for a restore without port 902.

pub(crate) mod upload;

pub use self::upload::{UploadOptions, UploadedDisk, upload_disk};
pub use crate::transport::https::{HttpsError, HttpsOptions};
