//! Whether a host drops a session of which it hears nothing.

use std::error::Error;
use std::time::Duration;

use vsphere_nfc::Retry;

use crate::nfc::told;
use crate::report::{Report, Verdict};
use crate::subject::Subject;

pub(crate) const TOPIC: &str = "Idle sessions";

/// Leaves a session alone for as long as the user wants to wait.
pub(crate) async fn run(subject: &Subject, report: &mut Report, wait: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let Some(wait) = wait else {
        report.add(TOPIC, "a session without requests", Verdict::NotAsked, "it takes time: try --idle SECONDS");
        return Ok(());
    };
    // Connecting again would hide what is to be seen.
    let mut options = subject.options().retry(Retry::never());
    options.reconnect = false;
    let disk = subject.open(options).await?;
    let before = disk.read_at(0, LEN).await?;
    tokio::time::sleep(wait).await;
    let question = format!("a session without requests for {} s", wait.as_secs());
    match disk.read_at(0, LEN).await {
        Ok(bytes) => report.holds(TOPIC, question, bytes == before, "it still answers"),
        Err(error) => report.seen(TOPIC, question, format!("dropped: {}", told(&error))),
    }
    // After a drop there is nothing to say goodbye to.
    let _ = disk.close().await;
    Ok(())
}

const LEN: usize = 64 << 10;
