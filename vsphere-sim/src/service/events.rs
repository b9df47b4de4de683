//! EventManager and the collectors that read its log.

use vsphere_vim_types::{Event, EventFilterSpec, MoRef, Poly, methods};

use crate::Fault;
use crate::events::EventLog;

use super::{Call, Reply};

/// Collectors per session, as `maxCollector` says.
pub(crate) const MAX_COLLECTORS: i32 = 32;
/// Events in one answer.
const MAX_PAGE: i32 = 1000;
/// Events in one answer of a collector whose maker named no number.
const DEFAULT_PAGE: i32 = 10;

/// A collector of a session: its filter and how far it has been read.
pub(crate) struct EventCollector {
    pub(crate) filter: EventFilterSpec,
    pub(crate) page: usize,
    /// The key of the last event given out.
    position: i32,
}

impl EventCollector {
    /// The latest events of the filter; the API promises no order.
    pub(crate) fn latest_page(&self, log: &EventLog) -> Vec<Poly<Event>> {
        log.matching(&self.filter, 0).rev().take(self.page).cloned().collect()
    }
}

pub(super) fn on_manager(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "QueryEvents" => {
            let args: methods::QueryEvents = call.args()?;
            check(&args.filter)?;
            let page = page_size(args.filter.max_count)?;
            let state = call.world.lock();
            let mut latest: Vec<_> = state.events.matching(&args.filter, 0).rev().take(page).cloned().collect();
            latest.reverse();
            Ok(call.reply::<methods::QueryEvents>(&latest))
        }
        "CreateCollectorForEvents" => {
            let args: methods::CreateCollectorForEvents = call.args()?;
            check(&args.filter)?;
            let page = page_size(args.filter.max_count)?;
            let mut state = call.world.lock();
            let id = format!("session[{}]{}", crate::ids::uuid(), state.next_serial());
            // It stands before the latest page.
            let before: Vec<i32> =
                state.events.matching(&args.filter, 0).rev().skip(page).take(1).map(|event| event.key).collect();
            let session =
                state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
            if session.event_collectors.len() >= MAX_COLLECTORS as usize {
                return Err(Fault::new("InvalidState", "The maximum number of event collectors is reached."));
            }
            let position = before.first().copied().unwrap_or(0);
            session.event_collectors.insert(id.clone(), EventCollector { filter: args.filter, page, position });
            Ok(call.reply::<methods::CreateCollectorForEvents>(&MoRef::new(&id)))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

pub(super) fn on_collector(call: &Call<'_>) -> Result<Reply, Fault> {
    let mut state = call.world.lock();
    let state = &mut *state;
    let id = call.this().value();
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    let collector = session.event_collectors.get_mut(id).ok_or_else(|| Fault::not_found(call.this()))?;
    match call.request.method {
        "ReadNextEvents" => {
            let args: methods::ReadNextEvents = call.args()?;
            let most = usize::try_from(args.max_count).ok().filter(|most| *most > 0);
            let most = most.ok_or_else(|| Fault::invalid_argument("maxCount"))?.min(MAX_PAGE as usize);
            let events = state.events.matching(&collector.filter, collector.position);
            let events: Vec<_> = events.take(most).cloned().collect();
            collector.position = events.last().map_or(collector.position, |event| event.key);
            Ok(call.reply::<methods::ReadNextEvents>(&events))
        }
        "RewindCollector" => {
            collector.position = 0;
            Ok(call.reply::<methods::RewindCollector>(&()))
        }
        "ResetCollector" => {
            let latest = state.events.matching(&collector.filter, 0).rev();
            let before = latest.skip(collector.page).map(|event| event.key).next();
            collector.position = before.unwrap_or(0);
            Ok(call.reply::<methods::ResetCollector>(&()))
        }
        "SetCollectorPageSize" => {
            let args: methods::SetCollectorPageSize = call.args()?;
            collector.page = page_size(Some(args.max_count))?;
            Ok(call.reply::<methods::SetCollectorPageSize>(&()))
        }
        "DestroyCollector" => {
            session.event_collectors.remove(id);
            Ok(call.reply::<methods::DestroyCollector>(&()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

/// Refuses what this log cannot tell apart.
fn check(filter: &EventFilterSpec) -> Result<(), Fault> {
    let other = filter.alarm.is_some() || filter.scheduled_task.is_some();
    if other || !(filter.category.is_empty() && filter.tag.is_empty() && filter.type_.is_empty()) {
        return Err(Fault::not_supported("events by alarm, scheduled task, category, tag or the old list of types"));
    }
    Ok(())
}

fn page_size(wanted: Option<i32>) -> Result<usize, Fault> {
    match wanted.unwrap_or(DEFAULT_PAGE) {
        0 => Ok(DEFAULT_PAGE as usize),
        size @ 1..=MAX_PAGE => Ok(size as usize),
        _ => Err(Fault::invalid_argument("maxCount")),
    }
}
