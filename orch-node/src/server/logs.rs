//! `/containerLogs/NAMESPACE/POD/CONTAINER`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use orch_core::key::NamespacedName;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::{Body, Handler, text};
use crate::log_file::{LogOptions, LogReader};
use crate::pod::view::find_container;
use crate::runtime::{ContainerFilter, ContainerId, ContainerState, ContainerStatus, Runtime, RuntimeError};

/// How often it is checked whether a followed container still runs. Its log's growth is an event.
const CHECK: Duration = Duration::from_millis(500);

/// What a request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    follow: bool,
    previous: bool,
    options: LogOptions,
}

impl Query {
    fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut parsed = Self::default();
        let pairs: HashMap<String, String> = pairs(query);
        let flag = |key: &str| match pairs.get(key).map(String::as_str) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => Err(format!("{key}: invalid value {other:?}: must be true or false")),
        };
        let number = |key: &str, least: u64| match pairs.get(key).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if number >= least => Ok(Some(number)),
                _ => Err(format!(
                    "{key}: invalid value {text:?}: must be a number greater than or equal to {least}"
                )),
            },
        };
        parsed.follow = flag("follow")?;
        parsed.previous = flag("previous")?;
        parsed.options.timestamps = flag("timestamps")?;
        parsed.options.tail_lines = number("tailLines", 0)?;
        parsed.options.limit_bytes = number("limitBytes", 1)?;
        let seconds = number("sinceSeconds", 1)?;
        let since = pairs.get("sinceTime").filter(|text| !text.is_empty());
        parsed.options.since = match (seconds, since) {
            (Some(_), Some(_)) => {
                return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
            }
            (Some(seconds), None) => {
                let seconds = i64::try_from(seconds).map_err(|_| "sinceSeconds: too large".to_owned())?;
                now.checked_sub(SignedDuration::from_secs(seconds)).ok()
            }
            (None, Some(text)) => Some(text.parse().map_err(|error| format!("sinceTime: {error}"))?),
            (None, None) => None,
        };
        Ok(parsed)
    }
}

fn pairs(query: &str) -> HashMap<String, String> {
    let split = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split.map(|(key, value)| (decode(key), decode(value))).collect()
}

/// Undoes the percent-encoding of a query.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let rest = bytes.as_slice_of_two();
                match rest {
                    Some(value) => out.push(value),
                    None => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

trait HexPair {
    fn as_slice_of_two(&mut self) -> Option<u8>;
}

impl HexPair for std::str::Bytes<'_> {
    /// Takes two hexadecimal digits; takes nothing when the next two bytes are others.
    fn as_slice_of_two(&mut self) -> Option<u8> {
        let mut ahead = self.clone();
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(ahead.next())?, digit(ahead.next())?);
        *self = ahead;
        u8::try_from(high * 16 + low).ok()
    }
}

/// Answers a request for a container's log.
pub(super) async fn serve(
    handler: &Handler,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Response<Body> {
    let query = match Query::parse(query, Timestamp::now()) {
        Ok(query) => query,
        Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, &message),
    };
    let found = match find(handler, namespace, pod, container, query.previous).await {
        Ok(found) => found,
        Err((status, message)) => return text(status, &message),
    };
    let Some(path) = found.log_path.clone() else {
        return text(
            StatusCode::NOT_IMPLEMENTED,
            "the runtime of this node keeps no logs",
        );
    };
    let reader = match LogReader::open(&path, query.options) {
        Ok(reader) => reader,
        Err(error) => {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("failed to open the log: {error}"),
            );
        }
    };
    let follow = (query.follow && found.state == ContainerState::Running)
        .then(|| Follow::new(handler, &found.id, &path));
    let follow = match follow.transpose() {
        Ok(follow) => follow,
        Err(error) => {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("failed to watch the log: {error}"),
            );
        }
    };
    let frames = stream::unfold(Some((reader, follow)), next_part);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

/// The container whose log is asked for.
async fn find(
    handler: &Handler,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<ContainerStatus, (StatusCode, String)> {
    let known = handler.pods.get(&NamespacedName::new(namespace, pod));
    let known = known.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist\n")))?;
    if find_container(&known, container).is_none() {
        let message = format!("container {container:?} not found in pod {pod:?}\n");
        return Err((StatusCode::NOT_FOUND, message));
    }
    let uid = known.metadata.uid.clone().unwrap_or_default();
    let unavailable = |error: RuntimeError| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let runtime = &handler.shared.runtime;
    let mut all = runtime
        .list_containers(&ContainerFilter::pod(uid))
        .await
        .map_err(unavailable)?;
    all.retain(|c| c.metadata.name == container && c.state != ContainerState::Created);
    all.sort_by_key(|c| std::cmp::Reverse((c.metadata.attempt, c.created_at)));
    match all.get(usize::from(previous)) {
        Some(found) => match runtime
            .container_status(&found.id)
            .await
            .known()
            .map_err(unavailable)?
        {
            Some(status) => Ok(status),
            None => Err((
                StatusCode::NOT_FOUND,
                format!("container {container:?} was removed\n"),
            )),
        },
        None if previous => {
            let message = format!("previous terminated container {container:?} in pod {pod:?} not found");
            Err((StatusCode::BAD_REQUEST, message))
        }
        None => {
            let reason = waiting_reason(&known, container);
            Err((
                StatusCode::BAD_REQUEST,
                format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"),
            ))
        }
    }
}

fn waiting_reason(pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> String {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|s| {
        s.container_statuses
            .iter()
            .flatten()
            .chain(s.init_container_statuses.iter().flatten())
    });
    let waiting = all
        .filter(|c| c.name == container)
        .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    waiting.unwrap_or_else(|| "ContainerCreating".into())
}

/// Waits for a log to grow.
struct Follow {
    runtime: Arc<dyn Runtime>,
    id: ContainerId,
    grows: AsyncFd<OwnedFd>,
    shutdown: CancellationToken,
    ended: bool,
}

impl Follow {
    fn new(handler: &Handler, id: &ContainerId, path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        Ok(Self {
            runtime: Arc::clone(&handler.shared.runtime),
            id: id.clone(),
            grows: crate::fd::watch(inotify.into())?,
            shutdown: handler.shutdown.clone(),
            ended: false,
        })
    }

    /// `false`: nothing will come any more.
    async fn wait(&mut self) -> bool {
        if self.ended {
            return false;
        }
        tokio::select! {
            () = self.shutdown.cancelled() => return false,
            ready = self.grows.readable() => if let Ok(mut ready) = ready {
                let mut events = [0; 4096];
                while nix::unistd::read(ready.get_inner(), &mut events).is_ok_and(|n| n > 0) {}
                ready.clear_ready();
            },
            () = tokio::time::sleep(CHECK) => {
                // What it wrote before its end is still to be read, once.
                let status = self.runtime.container_status(&self.id).await.known();
                self.ended = matches!(status, Ok(status) if status.as_ref().is_none_or(|s| s.state == ContainerState::Exited));
            }
        }
        true
    }
}

type Part = Result<Frame<Bytes>, io::Error>;
type State = Option<(LogReader, Option<Follow>)>;

async fn next_part(state: State) -> Option<(Part, State)> {
    let (mut reader, mut follow) = state?;
    loop {
        match reader.read() {
            Ok(part) if !part.is_empty() => {
                return Some((Ok(Frame::data(part.into())), Some((reader, follow))));
            }
            Ok(_) if reader.is_exhausted() => return None,
            Ok(_) => {
                let more = match &mut follow {
                    Some(follow) => follow.wait().await,
                    None => false,
                };
                if !more {
                    return None;
                }
            }
            Err(error) => return Some((Err(error), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_the_api_server_sends_them() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(100);
        let query = Query::parse(
            "follow=true&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00Z&timestamps=true",
            now,
        )
        .unwrap();
        assert!(query.follow && query.options.timestamps);
        assert_eq!(query.options.tail_lines, Some(5));
        assert_eq!(query.options.since, "2026-01-01T00:00:00Z".parse().ok());
        let query = Query::parse("sinceSeconds=40&limitBytes=10", now).unwrap();
        assert_eq!(query.options.since, Timestamp::from_second(60).ok());
        assert_eq!(query.options.limit_bytes, Some(10));
        for bad in [
            "tailLines=-1",
            "follow=maybe",
            "limitBytes=0",
            "sinceTime=now",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
        ] {
            assert!(Query::parse(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(decode("a%3Ab+c%zz%4"), "a:b c%zz%4");
    }
}
