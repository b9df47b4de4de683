//! A conversation with a server, written down without its secrets and given again offline.
//!
//! For defects that only a customer's server shows: [`Recorder`] wraps any transport and writes each exchange to a text
//! that a person can read and review; [`Replay`] answers from that text. Passwords, tokens, cookies, tickets and every
//! field that the model calls secret are replaced before anything is written; user names, host names and addresses on
//! request ([`Scrub`]).
//!
//! ```
//! use std::sync::Arc;
//! use vsphere_vim::{Credentials, Vim, transport::{Recorder, Replay, ReplayMode, Scrub, Transport}};
//!
//! # async fn example(real: Arc<dyn Transport>, file: std::fs::File, recorded: &[u8]) -> vsphere_vim::Result<()> {
//! // At the customer's:
//! let recorder = Arc::new(Recorder::new(real, file, Scrub::secrets()));
//! let vim = Vim::builder("https://vc.example").transport(recorder.clone());
//! // ... work ...
//! recorder.finish().expect("the file is writable");
//!
//! // At home:
//! let replay = Replay::read(recorded, ReplayMode::Lenient)?;
//! let vim = Vim::builder("https://vc.example")
//!     .credentials(Credentials::password("anybody", "anything"))
//!     .transport(Arc::new(replay))
//!     .connect()
//!     .await?;
//! # Ok(()) }
//! ```

mod exchange;
mod leaves;
mod recorder;
mod replay;
mod scrub;

pub use self::{
    recorder::Recorder,
    replay::{Replay, ReplayMode},
    scrub::Scrub,
};
