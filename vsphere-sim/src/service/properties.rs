//! PropertyCollector and PropertyFilter.

use std::time::Duration;

use vsphere_vim_types::methods::{
    CancelRetrievePropertiesEx, CancelWaitForUpdates, CheckForUpdates, ContinueRetrievePropertiesEx, CreateFilter,
    CreatePropertyCollector, CurrentTime, DestroyPropertyCollector, DestroyPropertyFilter, RetrieveProperties,
    RetrievePropertiesEx, WaitForUpdates, WaitForUpdatesEx,
};
use vsphere_vim_types::xml::Writer;
use vsphere_vim_types::{Any, MoRef, ObjectSpec, RetrieveResult, Value};

use crate::Fault;
use crate::collector::{self, Collector, Page, Sight, WaitFor};
use crate::inventory;
use crate::world::State;

use super::{Call, Reply};

/// Objects in one update when the client names no limit.
const DEFAULT_UPDATES: usize = 1000;
/// The longest wait in one call. A client that asks for more gets an empty answer and asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);

pub(super) async fn dispatch(call: &Call<'_>) -> Result<Reply, Fault> {
    match call.request.method {
        "RetrievePropertiesEx" => retrieve_ex(call),
        "ContinueRetrievePropertiesEx" => continue_ex(call),
        "CancelRetrievePropertiesEx" => {
            let args: CancelRetrievePropertiesEx = call.args()?;
            take_page(call, &args.token)?;
            Ok(call.reply::<CancelRetrievePropertiesEx>(&()))
        }
        "RetrieveProperties" => retrieve(call),
        "CreateFilter" => create_filter(call),
        "DestroyPropertyFilter" => destroy_filter(call),
        "CreatePropertyCollector" => create_collector(call),
        "DestroyPropertyCollector" => destroy_collector(call),
        "WaitForUpdatesEx" => {
            let args: WaitForUpdatesEx = call.args()?;
            let options = args.options.unwrap_or_default();
            let patience = match options.max_wait_seconds {
                None => None,
                Some(seconds) => Some(Duration::from_secs(
                    u64::try_from(seconds).map_err(|_| Fault::invalid_argument("options.maxWaitSeconds"))?,
                )),
            };
            let max_objects = match options.max_object_updates {
                None => DEFAULT_UPDATES,
                Some(max) => usize::try_from(max)
                    .ok()
                    .filter(|max| *max > 0)
                    .ok_or_else(|| Fault::invalid_argument("options.maxObjectUpdates"))?,
            };
            let update =
                wait(call, args.version, Some(patience.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)), max_objects).await?;
            Ok(call.reply::<WaitForUpdatesEx>(&update))
        }
        "WaitForUpdates" => {
            let args: WaitForUpdates = call.args()?;
            // This older call has no way to say "nothing": it waits as long as it takes.
            let update = wait(call, args.version, None, usize::MAX).await?;
            Ok(call.reply::<WaitForUpdates>(&update.unwrap_or_default()))
        }
        "CheckForUpdates" => {
            let args: CheckForUpdates = call.args()?;
            let update = wait(call, args.version, Some(Duration::ZERO), usize::MAX).await?;
            Ok(call.reply::<CheckForUpdates>(&update))
        }
        "CancelWaitForUpdates" => {
            with_collector(call, |_, collector| {
                collector.cancel_waits();
                Ok(())
            })?;
            call.world.touch();
            Ok(call.reply::<CancelWaitForUpdates>(&()))
        }
        other => Err(Fault::method_not_found(call.this(), other)),
    }
}

/// `Fetch`: one property of one object, as pyVmomi and other old clients read them. Not in the public model.
pub(super) fn fetch(call: &Call<'_>) -> Result<Reply, Fault> {
    // The argument belongs to no method of the model, so it is read from what a method without arguments leaves over.
    let args: CurrentTime = call.args()?;
    let wanted = args.unknown.elements().iter().find(|element| element.name() == "prop");
    let path = wanted.map(|element| element.text().to_owned()).ok_or_else(|| Fault::invalid_argument("prop"))?;
    inventory::check_path(call.this().type_name(), &path)?;
    let state = call.world.lock();
    let sight = Sight { world: call.world, state: &state, session: call.session.as_deref() };
    let found =
        inventory::find(call.world, &state, sight.session, call.this()).ok_or_else(|| Fault::not_found(call.this()))?;
    if inventory::denied(call.world, &state, call.this()) {
        return Err(Fault::no_permission(call.this(), "System.Read"));
    }
    let value = collector::value(sight, call.this(), &found, &path);
    let mut writer = Writer::new();
    writer.raw(concat!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"",
        " xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">",
        "<soapenv:Body><FetchResponse xmlns=\"urn:vim25\">"
    ));
    if value != Any::Null {
        writer.value("returnval", "anyType", value.shape());
    }
    writer.raw("</FetchResponse></soapenv:Body></soapenv:Envelope>");
    Ok(Reply { body: writer.finish(), cookie: None })
}

fn retrieve_ex(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: RetrievePropertiesEx = call.args()?;
    let size = match args.options.max_objects {
        Some(max) => usize::try_from(max)
            .ok()
            .filter(|max| *max > 0)
            .ok_or_else(|| Fault::invalid_argument("options.maxObjects"))?,
        None => call.world.settings.default_page,
    };
    let mut state = call.world.lock();
    let page = collector::begin(sight(call, &state), args.spec_set, size)?;
    let result = answer_page(call, &mut state, page)?;
    // Nothing selected is no result at all.
    let result = (!result.objects.is_empty()).then_some(result);
    Ok(call.reply::<RetrievePropertiesEx>(&result))
}

fn continue_ex(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: ContinueRetrievePropertiesEx = call.args()?;
    let page = take_page(call, &args.token)?;
    let mut state = call.world.lock();
    let result = answer_page(call, &mut state, page)?;
    Ok(call.reply::<ContinueRetrievePropertiesEx>(&result))
}

fn retrieve(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: RetrieveProperties = call.args()?;
    let state = call.world.lock();
    let mut page = collector::begin(sight(call, &state), args.spec_set, usize::MAX)?;
    let objects = collector::next_page(sight(call, &state), &mut page);
    Ok(call.reply::<RetrieveProperties>(&objects))
}

/// Reads a page and keeps the rest under a new token.
fn answer_page(call: &Call<'_>, state: &mut State, mut page: Page) -> Result<RetrieveResult, Fault> {
    let objects = collector::next_page(sight(call, state), &mut page);
    let mut result = RetrieveResult { objects, ..Default::default() };
    if !page.is_done() {
        let token = state.next_serial().to_string();
        let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
        if session.pages.len() >= collector::MAX_PAGES {
            session.pages.pop_first();
        }
        session.pages.insert(token.clone(), page);
        result.token = Some(token);
    }
    Ok(result)
}

fn take_page(call: &Call<'_>, token: &str) -> Result<Page, Fault> {
    let mut state = call.world.lock();
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    session
        .pages
        .remove(token)
        .ok_or_else(|| Fault::new("InvalidProperty", "The token is not valid").field("name", "token"))
}

fn create_filter(call: &Call<'_>) -> Result<Reply, Fault> {
    let args: CreateFilter = call.args()?;
    if args.spec.report_missing_objects_in_results != Some(true) {
        let state = call.world.lock();
        let session = call.session.as_deref();
        let missing = |start: &&ObjectSpec| inventory::find(call.world, &state, session, &start.obj).is_none();
        if let Some(start) = args.spec.object_set.iter().find(missing) {
            return Err(Fault::not_found(&start.obj));
        }
    }
    let id = with_collector(call, |state_serial, collector| {
        let id = format!("session[{}]{}", state_serial, crate::ids::uuid());
        collector.add(id.clone(), args.spec, args.partial_updates)?;
        Ok(id)
    })?;
    call.world.touch();
    Ok(call.reply::<CreateFilter>(&MoRef::new(&id)))
}

fn destroy_filter(call: &Call<'_>) -> Result<Reply, Fault> {
    let mut state = call.world.lock();
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    let removed = session.collectors.values_mut().any(|collector| collector.remove(call.this().value()));
    if !removed {
        return Err(Fault::not_found(call.this()));
    }
    Ok(call.reply::<DestroyPropertyFilter>(&()))
}

fn create_collector(call: &Call<'_>) -> Result<Reply, Fault> {
    let mut state = call.world.lock();
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    let id = format!("session[{}]{}", crate::ids::uuid(), crate::ids::uuid());
    session.collectors.insert(id.clone(), Collector::default());
    Ok(call.reply::<CreatePropertyCollector>(&MoRef::new(&id)))
}

fn destroy_collector(call: &Call<'_>) -> Result<Reply, Fault> {
    let mut state = call.world.lock();
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    // The session's default collector is not one that was created.
    if call.world.personality().find(call.this()).is_some() || session.collectors.remove(call.this().value()).is_none()
    {
        return Err(Fault::not_supported("this collector cannot be destroyed"));
    }
    drop(state);
    call.world.touch();
    Ok(call.reply::<DestroyPropertyCollector>(&()))
}

async fn wait(
    call: &Call<'_>,
    version: Option<String>,
    patience: Option<Duration>,
    max_objects: usize,
) -> Result<Option<vsphere_vim_types::UpdateSet>, Fault> {
    with_collector(call, |_, _| Ok(()))?;
    let wanted = WaitFor {
        collector: call.this().value().to_owned(),
        version: version.unwrap_or_default(),
        patience,
        max_objects,
    };
    collector::wait(call.world, call.session()?, wanted).await
}

/// The collector called on, made if it is the session's default one.
fn with_collector<T>(
    call: &Call<'_>,
    then: impl FnOnce(String, &mut Collector) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut state = call.world.lock();
    let session = state.sessions.get_mut(call.session()?).ok_or_else(|| Fault::not_authenticated(call.this()))?;
    let id = call.this().value();
    if call.world.personality().find(call.this()).is_some() {
        session.collectors.entry(id.to_owned()).or_default();
    }
    let collector = session.collectors.get_mut(id).ok_or_else(|| Fault::not_found(call.this()))?;
    then(crate::ids::uuid(), collector)
}

fn sight<'a>(call: &'a Call<'_>, state: &'a State) -> Sight<'a> {
    Sight { world: call.world, state, session: call.session.as_deref() }
}
