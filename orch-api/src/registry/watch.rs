//! Watches: the initial state where asked for, then every change, with bookmarks.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use orch_core::status::{ApiError, Reason};
use orch_store::fanout::{Cursor, FanoutError};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Resource;
use super::options::ListOptions;
use super::selection::Selection;
use super::table::{self, IncludeObject};
use crate::cache::entry::{Change, Entry, EventType, frame};
use crate::cache::snapshot::Snapshot;
use crate::cache::topic::Topics;
use crate::http::accept::Shape;
use crate::http::body::Body;
use crate::http::response;

/// How often a watcher that wants bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long a watch lasts at least when the client does not say; up to twice that, as upstream.
const MIN_TIMEOUT: Duration = Duration::from_secs(1800);
/// How many changes are taken at once.
const BATCH: usize = 64;

/// Begins a watch.
pub(crate) async fn watch(
    resource: Arc<Resource>,
    selection: Selection,
    options: &ListOptions,
    shape: Shape,
    include: IncludeObject,
) -> Result<Response<Body>, ApiError> {
    let begin = begin(&resource, &selection, options).await?;
    let timeout = options
        .timeout
        .unwrap_or_else(|| MIN_TIMEOUT.mul_f64(1.0 + fastrand::f64()));
    let now = Instant::now();
    let mut stream = Stream {
        stopped: Box::pin(resource.retired.clone().cancelled_owned()),
        resource,
        selection,
        shape,
        include,
        cursor: None,
        queue: VecDeque::new(),
        deadline: Box::pin(sleep_until(now + timeout)),
        bookmark: options
            .bookmarks
            .then(|| Box::pin(sleep_until(now + BOOKMARK_PERIOD.min(timeout)))),
        told: 0,
        columns_sent: false,
    };
    match begin {
        Begin::At {
            initial,
            after,
            cursor,
        } => {
            stream.told = after;
            if let Some(snapshot) = initial {
                stream.initial(&snapshot);
            }
            if options.send_initial_events == Some(true) {
                stream.push_bookmark(true);
            }
            stream.cursor = Some(cursor);
        }
        Begin::TooOld(error) => stream.fail(&error),
    }
    let frames = futures::stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((frame, stream))
    });
    let mut response = response::json(http::StatusCode::OK, Body::stream(frames));
    if matches!(shape, Shape::Object) {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

enum Begin {
    At {
        initial: Option<Arc<Snapshot>>,
        after: u64,
        cursor: Cursor<Arc<Change>, Topics>,
    },
    TooOld(ApiError),
}

/// Finds where the watch begins, and what it tells first.
async fn begin(resource: &Resource, selection: &Selection, options: &ListOptions) -> Result<Begin, ApiError> {
    let cache = &resource.cache;
    let wants_state = match options.send_initial_events {
        Some(wanted) => wanted,
        None => matches!(options.resource_version, None | Some(0)),
    };
    let snapshot = match options.resource_version {
        None => Some(cache.fresh().await?),
        Some(0) => Some(cache.any().await?),
        Some(version) if options.send_initial_events == Some(true) => {
            Some(cache.not_older_than(version).await?)
        }
        Some(version) => {
            cache.not_older_than(version).await?;
            None
        }
    };
    let after = snapshot
        .as_ref()
        .map_or(options.resource_version.unwrap_or(0), |snapshot| {
            snapshot.revision
        });
    match cache
        .subscribe(selection.topic(&*resource.strategy), after)
        .await?
    {
        Ok(cursor) => Ok(Begin::At {
            initial: snapshot.filter(|_| wants_state),
            after,
            cursor,
        }),
        Err(FanoutError::Lagged { position, dropped }) => Ok(Begin::TooOld(ApiError::expired(format!(
            "too old resource version: {position} ({dropped})"
        )))),
        Err(error) => Err(ApiError::new(Reason::ServiceUnavailable, error.to_string())),
    }
}

/// The state of one watch. It is driven by whoever reads the response's body: a reader who does not read costs
/// nothing but its place in the log of changes.
struct Stream {
    resource: Arc<Resource>,
    selection: Selection,
    shape: Shape,
    include: IncludeObject,
    /// `None` once the watch is over.
    cursor: Option<Cursor<Arc<Change>, Topics>>,
    queue: VecDeque<Bytes>,
    deadline: Pin<Box<Sleep>>,
    bookmark: Option<Pin<Box<Sleep>>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The client knows everything up to this revision.
    told: u64,
    columns_sent: bool,
}

/// What a watch wakes up for.
enum Wake {
    Changes(Vec<Arc<Change>>, u64),
    BookmarkDue,
    Timeout,
    Ended,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Some(frame);
            }
            match self.wake().await {
                Wake::Changes(changes, revision) => self.changes(&changes, revision),
                Wake::BookmarkDue => self.ask_for_bookmark().await,
                Wake::Timeout => {
                    if self.bookmark.is_some() {
                        self.push_bookmark(false);
                    }
                    self.cursor = None;
                }
                Wake::Ended => return None,
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let Some(cursor) = &mut self.cursor else {
            return Wake::Ended;
        };
        // What has happened is told before the end.
        if self.resource.retired.is_cancelled() {
            return match cursor.try_next(BATCH) {
                Ok(Some(batch)) if !batch.items.is_empty() => {
                    Wake::Changes(batch.items, batch.revision.get())
                }
                _ => Wake::Ended,
            };
        }
        tokio::select! {
            biased;
            () = &mut self.stopped => Wake::Changes(Vec::new(), 0),
            () = &mut self.deadline => Wake::Timeout,
            () = due(&mut self.bookmark) => Wake::BookmarkDue,
            batch = cursor.next(BATCH) => match batch {
                Ok(batch) => Wake::Changes(batch.items, batch.revision.get()),
                // Too slow, or the cache starts over: the client lists again.
                Err(_) => Wake::Ended,
            },
        }
    }

    fn initial(&mut self, snapshot: &Snapshot) {
        let resource = Arc::clone(&self.resource);
        let prefix = self.selection.prefix(&*resource.strategy);
        for entry in snapshot.range(prefix.as_bytes(), Bound::Unbounded) {
            if self.selection.matches(&*resource.strategy, entry) {
                let frame = match self.shape {
                    Shape::Object => frame(EventType::Added.as_str(), &entry.json),
                    _ => self.shaped(EventType::Added, entry),
                };
                self.queue.push_back(frame);
            }
        }
    }

    fn changes(&mut self, changes: &[Arc<Change>], revision: u64) {
        let resource = Arc::clone(&self.resource);
        for change in changes {
            let seen = change.seen_by(|entry| self.selection.matches(&*resource.strategy, entry));
            let Some(event) = seen else { continue };
            let frame = match self.shape {
                Shape::Object => change.frame(event),
                _ => self.shaped(event, change.object(event)),
            };
            self.queue.push_back(frame);
        }
        self.told = self.told.max(revision);
        // An empty batch is the mark that was asked for when a bookmark was due.
        if changes.is_empty() && revision > 0 && self.bookmark.is_some() {
            self.push_bookmark(false);
        }
    }

    fn shaped(&mut self, event: EventType, entry: &Entry) -> Bytes {
        let strategy = &*self.resource.strategy;
        let object = match self.shape {
            Shape::Table(version) => {
                let list = table::ListMeta {
                    resource_version: entry.revision.to_string(),
                    ..table::ListMeta::default()
                };
                let first = !std::mem::replace(&mut self.columns_sent, true);
                table::table(
                    strategy,
                    version,
                    self.include,
                    std::iter::once(&entry.json),
                    list,
                    first,
                )
            }
            shape => table::object(strategy, shape, self.include, &entry.json),
        };
        match object {
            Ok(object) => frame(event.as_str(), &object),
            Err(error) => error_frame(&error),
        }
    }

    fn push_bookmark(&mut self, initial_end: bool) {
        let object = table::bookmark(&*self.resource.strategy, self.shape, self.told, initial_end);
        self.queue.push_back(frame("BOOKMARK", &object));
    }

    /// Brings the cache up to the store and asks where that leaves this watch.
    async fn ask_for_bookmark(&mut self) {
        if let Err(error) = self.resource.cache.fresh().await {
            tracing::debug!(%error, "cache is behind at a bookmark");
        }
        if let Some(cursor) = &self.cursor {
            cursor.progress_requester().request();
        }
        if let Some(bookmark) = &mut self.bookmark {
            bookmark.as_mut().reset(Instant::now() + BOOKMARK_PERIOD);
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.queue.push_back(error_frame(error));
        self.cursor = None;
    }
}

fn error_frame(error: &ApiError) -> Bytes {
    frame("ERROR", &serde_json::to_vec(error).unwrap_or_default())
}

/// Waits for a timer that may not be there.
async fn due(timer: &mut Option<Pin<Box<impl Future<Output = ()>>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
