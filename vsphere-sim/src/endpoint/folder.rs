//! `/folder`: the datastore's files over HTTP.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LAST_MODIFIED, RANGE};
use hyper::{Method, Request, Response, StatusCode};

use crate::files::{self, FilePath, Found, Made};
use crate::inject::Injection;
use crate::personality::{Fixed, Personality};
use crate::storage::Access;
use crate::world::{RangeAnswers, World};

use super::body::Body;
use super::http::{Dropped, cookie, plain};

/// Bytes read or sent at once.
const PIECE: usize = 256 << 10;

/// Answers one request. `path` is the URL's, still encoded.
pub(super) async fn answer(world: &Arc<World>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let injection = world.faults.take(&format!("{} /folder", request.method()));
    let metered = world.folder.begin();
    match &injection {
        Some(Injection::DropBefore) => return Err(Dropped),
        Some(Injection::Http(status)) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return Ok(text(status, "injected"));
        }
        Some(Injection::Delay(delay)) => tokio::time::sleep(*delay).await,
        _ => {}
    }
    let by_ticket = match authorise(world, &request) {
        Some(by_ticket) => by_ticket,
        None => return Ok(text(StatusCode::UNAUTHORIZED, "Unauthorized")),
    };
    let Some(path) = locate(world, &request, by_ticket) else {
        return Ok(text(StatusCode::NOT_FOUND, "Not Found"));
    };
    let response = match request.method().clone() {
        Method::GET | Method::HEAD => read(world, &request, &path, injection.as_ref()),
        Method::PUT => write(world, request, &path).await,
        Method::DELETE => delete(world, &path),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
    };
    if injection == Some(Injection::DropAfter) { Err(Dropped) } else { Ok(response.map(|body| body.metered(metered))) }
}

/// Whether the caller may: `Some(true)` by a ticket for exactly this request.
fn authorise(world: &World, request: &Request<Incoming>) -> Option<bool> {
    let mut state = world.lock();
    if let Some(ticket) = cookie(request, "vmware_cgi_ticket") {
        let resource = request.uri().path_and_query().map_or("", |all| all.as_str());
        let good = state.http_tickets.redeem(&ticket, request.method().as_str(), resource);
        return good.then_some(true);
    }
    let key = cookie(request, super::http::SESSION_COOKIE)?;
    state.use_session(&key, &world.settings).then_some(false)
}

/// The path that the URL names; `None` when datacenter or datastore do not exist.
fn locate(world: &World, request: &Request<Incoming>, by_ticket: bool) -> Option<FilePath> {
    let value = |name: &str| {
        let query = request.uri().query().unwrap_or_default();
        let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(own, _)| *own == name)?;
        decode(&pair.1.replace('+', " "))
    };
    // A request with a ticket goes to the host itself, which has one datacenter.
    let at_host = by_ticket || world.personality() == Personality::Esxi;
    let datacenter = if at_host { "ha-datacenter" } else { world.personality().name(Fixed::Datacenter) };
    let known = value("dcPath")? == datacenter && value("dsName")? == world.datastore.name();
    let within = decode(request.uri().path().strip_prefix("/folder")?)?;
    if known { FilePath::new(world, &within) } else { None }
}

fn read(
    world: &Arc<World>,
    request: &Request<Incoming>,
    path: &FilePath,
    injection: Option<&Injection>,
) -> Response<Body> {
    let found = files::find(world, &world.lock(), path);
    match found {
        None => text(StatusCode::NOT_FOUND, "Not Found"),
        Some(Found::Folder) => listing(world, path),
        Some(Found::Stored(host)) => {
            let Ok(meta) = std::fs::metadata(&host) else { return text(StatusCode::NOT_FOUND, "Not Found") };
            let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            ranged(world, request, meta.len(), modified, injection, move |range, send| {
                let mut file = std::fs::File::open(&host)?;
                file.seek(io::SeekFrom::Start(range.start))?;
                let mut file = file.take(range.end - range.start);
                let mut buffer = vec![0; PIECE];
                loop {
                    let read = file.read(&mut buffer)?;
                    if read == 0 {
                        return Ok(());
                    }
                    send(Bytes::copy_from_slice(&buffer[..read]))?;
                }
            })
        }
        Some(Found::Made(made)) => {
            if made.is_extent() && made.running && world.settings.files.lock_running_disks {
                let why = "Unable to access the file since it is locked by the running virtual machine";
                let status = StatusCode::from_u16(world.settings.files.locked_status);
                return text(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), why);
            }
            serve_made(world, request, made, injection)
        }
    }
}

fn serve_made(world: &World, request: &Request<Incoming>, made: Made, injection: Option<&Injection>) -> Response<Body> {
    let (size, modified) = (made.size(), made.modified());
    match made.content() {
        files::Content::Bytes(bytes) => ranged(world, request, size, modified, injection, move |range, send| {
            send(Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]))
        }),
        files::Content::Flat(store, node) => {
            let Ok(handle) = store.open(node, Access::ReadOnly) else {
                return text(StatusCode::NOT_FOUND, "Not Found");
            };
            ranged(world, request, size, modified, injection, move |range, send| {
                let mut at = range.start;
                while at < range.end {
                    let mut piece = vec![0; (range.end - at).min(PIECE as u64) as usize];
                    handle.read_at(at, &mut piece).map_err(io::Error::other)?;
                    at += piece.len() as u64;
                    send(piece.into())?;
                }
                Ok(())
            })
        }
        files::Content::Delta(store, node, format) => {
            let delta = files::Delta::new(store, node, format);
            ranged(world, request, size, modified, injection, move |range, send| delta.send(range, send))
        }
    }
}

/// All of a file or a range of it.
fn ranged(
    world: &World,
    request: &Request<Incoming>,
    size: u64,
    modified: SystemTime,
    injection: Option<&Injection>,
    produce: impl FnOnce(Range<u64>, &mut dyn FnMut(Bytes) -> io::Result<()>) -> io::Result<()> + Send + 'static,
) -> Response<Body> {
    let answers = match injection {
        Some(Injection::Ranges(answers)) => *answers,
        _ => world.settings.files.ranges,
    };
    let wanted = request.headers().get(RANGE).filter(|_| answers != RangeAnswers::Ignored);
    let wanted = wanted.and_then(|value| value.to_str().ok()).and_then(|text| range(text, size));
    let (status, range) = match wanted {
        None => (StatusCode::OK, 0..size),
        Some(Some(range)) => (StatusCode::PARTIAL_CONTENT, answers.of(range)),
        Some(None) => {
            let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "Range Not Satisfiable");
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return response;
        }
    };
    let len = range.end - range.start;
    let body = if request.method() == Method::HEAD || len == 0 {
        Body::Full(Full::default())
    } else {
        let range = range.clone();
        Body::piped(Some(len), injection, move |send| produce(range, send))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    set(&mut response, CONTENT_LENGTH, &len.to_string());
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, LAST_MODIFIED, &http_date(modified));
    if status == StatusCode::PARTIAL_CONTENT && answers != RangeAnswers::Unsaid {
        set(&mut response, CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)));
    }
    response
}

impl RangeAnswers {
    /// What is sent instead of a range.
    fn of(self, range: Range<u64>) -> Range<u64> {
        match self {
            Self::Honest | Self::Ignored | Self::Unsaid => range,
            Self::Shifted => (range.start + 512).min(range.end - 1)..range.end,
            Self::Halved => range.start..range.start + (range.end - range.start).div_ceil(2),
        }
    }
}

/// `bytes=5-9`, `bytes=5-`, `bytes=-5`: the range, `Some(None)` when it lies outside, `None` when there is none.
fn range(text: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (start.parse::<u64>(), end.parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => start..size.min(end.saturating_add(1)),
        (Ok(start), Err(_)) if end.is_empty() => start..size,
        (Err(_), Ok(last)) if start.is_empty() => size.saturating_sub(last)..size,
        _ => return None,
    };
    Some((range.start < range.end).then_some(range))
}

async fn write(world: &Arc<World>, request: Request<Incoming>, path: &FilePath) -> Response<Body> {
    match files::find(world, &world.lock(), path) {
        Some(Found::Folder) => return text(StatusCode::CONFLICT, "A folder has this name"),
        Some(Found::Made(_)) => {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "The file belongs to a virtual machine");
        }
        Some(Found::Stored(_)) | None => {}
    }
    let host = files::host_path(world, path);
    match store(&host, request.into_body()).await {
        Ok(()) => {
            world.touch();
            text(StatusCode::CREATED, "Created")
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot write {path}: {error}")),
    }
}

/// Keeps what arrived, also of an upload that broke off: that is what a host does.
async fn store(host: &Path, mut body: Incoming) -> io::Result<()> {
    if let Some(folder) = host.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = std::fs::File::create(host)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Some(data) = frame.data_ref() {
            file.write_all(data)?;
        }
    }
    Ok(())
}

fn delete(world: &Arc<World>, path: &FilePath) -> Response<Body> {
    let found = files::find(world, &world.lock(), path);
    match found {
        None => text(StatusCode::NOT_FOUND, "Not Found"),
        Some(Found::Stored(host)) => match std::fs::remove_file(host) {
            Ok(()) => text(StatusCode::OK, "Deleted"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        Some(Found::Folder | Found::Made(_)) => text(StatusCode::INTERNAL_SERVER_ERROR, "The file is in use"),
    }
}

fn listing(world: &World, path: &FilePath) -> Response<Body> {
    let entries = files::list(world, &world.lock(), path).unwrap_or_default();
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let rows: String = entries
        .iter()
        .map(|entry| {
            let name = format!("{}{}", escape(&entry.name), if entry.folder { "/" } else { "" });
            format!("<tr><td><a href=\"{name}\">{name}</a></td><td>{}</td></tr>\n", entry.size)
        })
        .collect();
    text(
        StatusCode::OK,
        &format!("<html><body><h1>Index of {}</h1><table>\n{rows}</table></body></html>", escape(&path.to_string())),
    )
}

/// Undoes percent-encoding; `None` when the result is no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = if *first == b'%' { tail.first_chunk::<2>() } else { None };
        let value = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).ok()
}

pub(super) fn text(status: StatusCode, body: &str) -> Response<Body> {
    plain(status, body).map(Body::Full)
}

fn set(response: &mut Response<Body>, name: hyper::header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn http_date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Civil date from the day number: years begin in March, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    const MONTHS: [&str; 12] = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[(month % 12) as usize],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn ranges_are_cut_at_the_end_or_refused() {
        assert_eq!(range("bytes=5-9", 100), Some(Some(5..10)));
        assert_eq!(range("bytes=5-900", 100), Some(Some(5..100)));
        assert_eq!(range("bytes=5-", 100), Some(Some(5..100)));
        assert_eq!(range("bytes=-5", 100), Some(Some(95..100)));
        assert_eq!(range("bytes=100-", 100), Some(None));
        assert_eq!(range("bytes=9-5", 100), None);
        assert_eq!(range("items=1-2", 100), None);
    }

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(decode("a%20%C3%9C%252f").unwrap(), "a Ü%2f");
        assert_eq!(decode("100%").unwrap(), "100%");
        assert_eq!(decode("%ff"), None);
    }
}
