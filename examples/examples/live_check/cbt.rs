//! The rules of changed block tracking on this server.

use std::error::Error;

use vsphere_cbt::preflight;

use crate::nfc::told;
use crate::report::{Report, Verdict};
use crate::subject::Subject;

pub(crate) const TOPIC: &str = "Changed block tracking";

/// Asks for them; questions about areas need a snapshot.
pub(crate) async fn run(subject: &Subject, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let preflight = preflight(&subject.vim, &subject.vm.moref).await?;
    report.seen(TOPIC, "state", format!("{preflight:?}"));
    let Some(snapshot) = &subject.snapshot else {
        report.add(TOPIC, "areas", Verdict::NotAsked, "the machine has no snapshot: try --snapshot");
        return Ok(());
    };
    let id = subject.disk.backing.change_id.clone();
    report.seen(TOPIC, "form of the change id", id.as_deref().map_or("none".into(), form));
    let ask = async |start, since: &str| {
        subject.vim.query_changed_disk_areas(&subject.vm.moref, Some(snapshot), subject.disk.key, start, since).await
    };
    // All pages of what is allocated, checked as a backup checks them.
    let (mut start, mut pages, mut areas, mut bytes, mut broken) = (0, 0, 0, 0, Vec::new());
    let mut unit = u64::MAX;
    while start < subject.disk.capacity {
        let page = match ask(start, "*").await {
            Ok(page) => page,
            Err(error) => {
                report.seen(TOPIC, "allocated areas by *", told(&error));
                return Ok(());
            }
        };
        pages += 1;
        if page.window.start != start {
            broken.push("the window does not begin where it was asked for");
        }
        if page.window.end <= page.window.start.max(start) {
            broken.push("a window that leads no further");
            break;
        }
        let mut last = page.window.start;
        for area in &page.areas {
            if area.start < last || area.end > page.window.end {
                broken.push("an area out of order or outside its window");
            }
            last = area.end;
            areas += 1;
            bytes += area.end - area.start;
            for edge in [area.start, area.end].into_iter().filter(|edge| *edge > 0 && *edge < subject.disk.capacity) {
                unit = unit.min(1 << edge.trailing_zeros());
            }
        }
        start = page.window.end;
    }
    let unit = if unit == u64::MAX { "not to be seen".to_owned() } else { format!("{unit} bytes") };
    report.seen(TOPIC, "allocated areas by *", format!("{areas} areas, {bytes} bytes, {pages} pages, unit {unit}"));
    report.holds(TOPIC, "pages follow the rules", broken.is_empty(), broken.join("; "));
    let beyond = ask(subject.disk.capacity, "*").await;
    let detail = beyond.as_ref().map_or_else(|error| told(error), |page| format!("{page:?}"));
    report.holds(TOPIC, "a start at the capacity is refused", beyond.is_err(), detail);
    if let Some(id) = id {
        let none = ask(0, &id).await;
        let detail = none.as_ref().map_or_else(|error| told(error), |page| format!("{} areas", page.areas.len()));
        let empty = none.is_ok_and(|page| page.areas.is_empty());
        report.holds(TOPIC, "nothing changed since the snapshot's own id", empty, detail);
        let broken = ask(0, "52 de ad be ef 00 00 00-00 00 00 00 00 00 00 00/1").await;
        let detail = broken.as_ref().map_or_else(|error| told(error), |page| format!("{} areas", page.areas.len()));
        report.holds(TOPIC, "an unknown change id is refused", broken.is_err(), detail);
    }
    Ok(())
}

/// A change id with its digits hidden.
fn form(id: &str) -> String {
    id.chars().map(|letter| if letter.is_ascii_hexdigit() { 'x' } else { letter }).collect()
}
