//! What the host knows of a disk without its data: metadata, and which parts have storage.

use std::error::Error;

use crate::nfc::told;
use crate::report::Report;
use crate::subject::Subject;

const TOPIC: &str = "Allocation and metadata";

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
    Ok(())
}
