//! What the host knows of a disk without its data: metadata, and which parts have storage.

use std::error::Error;

use vsphere_nfc::Retry;

use crate::nfc::told;
use crate::report::{Report, Verdict};
use crate::subject::Subject;

pub(crate) const TOPIC: &str = "Allocation and metadata";

/// What VDDK asks for.
const KEYS: [&str; 16] = [
    "adapterType",
    "uuid",
    "geometry.cylinders",
    "geometry.heads",
    "geometry.sectors",
    "geometry.biosCylinders",
    "geometry.biosHeads",
    "geometry.biosSectors",
    "logicalSectorSize",
    "physicalSectorSize",
    "isDigest",
    "isNativeLinkedClone",
    "iofilters",
    "KMFilters",
    "sidecars",
    "resumeConsolidateSector",
];

/// Asks both.
pub(crate) async fn run(subject: &Subject, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let Ok(disk) = subject.open(subject.options()).await else { return Ok(()) };
    let mut present = Vec::new();
    for key in KEYS {
        if let Some(value) = disk.metadata(key).await? {
            // What identifies the disk stays here.
            let harmless = value.bytes().all(|byte| byte.is_ascii_digit()) || key == "adapterType";
            present.push(if harmless { format!("{key}={value}") } else { key.to_owned() });
        }
    }
    report.seen(TOPIC, "keys that the disk has", present.join(" "));
    report.holds(TOPIC, "the capacity is the one of SOAP", disk.capacity() == subject.disk.capacity, "");
    match disk.query_allocated(0..disk.capacity(), 64 << 10).await {
        Ok(ranges) => {
            let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            report.seen(TOPIC, "allocation in chunks of 64 KiB", format!("{bytes} bytes in {} runs", ranges.len()));
            // What has no storage reads as zeros.
            let mut next = 0;
            let mut wrong = 0;
            let mut asked = 0;
            for hole in ranges
                .iter()
                .map(|range| range.start)
                .chain([disk.capacity()])
                .zip(std::iter::once(0).chain(ranges.iter().map(|range| range.end)))
            {
                let (end, start) = hole;
                let len = end.saturating_sub(start).min(1 << 20) / 512 * 512;
                next = next.max(end);
                if len == 0 || asked >= 64 {
                    continue;
                }
                asked += 1;
                let bytes = disk.read_at(start, usize::try_from(len)?).await?;
                wrong += usize::from(bytes.iter().any(|byte| *byte != 0));
            }
            report.holds(TOPIC, "holes read as zeros", wrong == 0, format!("{wrong} of {asked} looked at do not"));
        }
        Err(error) => report.holds(TOPIC, "allocation can be asked for", false, told(&error)),
    }
    // A refused query ends the connection; then there is nothing to say goodbye to.
    let _ = disk.close().await;
    misaligned(subject, report).await
}

/// What a host says to a query that is not aligned, and whether its next answer is in step with the question: nobody
/// knows how long its errors are.
async fn misaligned(subject: &Subject, report: &mut Report) -> Result<(), Box<dyn Error>> {
    const CHUNK: u64 = 64 << 10;
    let mut options = subject.options().retry(Retry::never());
    options.reconnect = false;
    options.quirks.allocation_shift = 512;
    options.quirks.survive_errors = true;
    let disk = subject.open(options).await?;
    if disk.capacity() < 2 * CHUNK {
        report.add(TOPIC, "a misaligned query", Verdict::NotAsked, "the disk is too small");
        disk.close().await?;
        return Ok(());
    }
    let before = disk.read_at(0, 4096).await?;
    let asked = disk.query_allocated(0..CHUNK, CHUNK).await;
    let detail = asked.as_ref().map_or_else(|error| told(error), |_| "it was answered".to_owned());
    report.holds(TOPIC, "a misaligned query is refused", asked.is_err(), detail);
    let after = disk.read_at(0, 4096).await;
    let detail = match &after {
        Ok(bytes) if *bytes == before => "in step".to_owned(),
        Ok(_) => "OTHER BYTES".to_owned(),
        Err(error) => told(error),
    };
    report.seen(TOPIC, "the reply after that refusal", detail);
    // A connection that is out of step has no goodbye.
    let _ = disk.close().await;
    Ok(())
}
