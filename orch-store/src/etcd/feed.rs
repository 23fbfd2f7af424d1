//! One watch of etcd per prefix, for all watchers of that prefix.
//!
//! A task keeps the stream: it opens it again, at the next member and after the last revision, whenever it is lost. What comes
//! goes into a bounded log; watchers are cursors in that. One that has fallen behind what the log keeps gets a feed of its own,
//! which takes the next message from etcd only when the one before has been read.
//!
//! **Progress.** To say "everything up to revision R", the task learns the current revision and then asks the stream for its
//! progress until that is reached. Versions of etcd whose answers may overtake events ([`Version::has_reliable_progress`]) are
//! not asked: there the watched range is one key longer, and the task writes that key and waits for its event.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::convert::{self, end_of, range_end, range_start};
use super::failure::{Failure, Refused};
use super::history::History;
use super::members::Members;
#[cfg(doc)]
use super::version::Version;
use crate::fanout::{Bounds, Cursor, Fanout, FanoutError, Router};
use crate::{Event, Revision, StoreError};

/// Ends the key that is written to learn the progress of an old etcd.
const MARK: &[u8] = b"\0orch-progress";

/// What watchers may be behind before they need a stream of their own.
const MAX_ITEMS: usize = 4096;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How often a stream that has not caught up is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The longest pause between attempts to open a stream.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Whether a key is none of the user's.
pub(super) fn is_mark(key: &[u8]) -> bool {
    key.ends_with(MARK)
}

/// The handle of a feed. Its task ends when the last one is dropped.
pub(super) struct Feed {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    hub: Fanout<Arc<Event>, Weighed>,
    /// The newest ticket that was given out.
    asked: AtomicU64,
    /// Up to which ticket the log is as fresh as was asked for.
    answered: watch::Sender<u64>,
    /// Wakes the task when somebody asks.
    wake: Notify,
    failure: OnceLock<StoreError>,
    /// How far the only reader is, if there is just one.
    read: Option<watch::Sender<Revision>>,
}

/// What a feed needs to reach etcd.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) members: Arc<Members>,
    pub(super) history: Arc<History>,
    /// Fires when the store is dropped.
    pub(super) closed: CancellationToken,
}

impl Feed {
    /// Watches `prefix` after the revision `from`, for any number of readers.
    pub(super) fn shared(source: Source, prefix: Bytes, from: Revision) -> Arc<Self> {
        let bounds = Bounds::default().max_items(MAX_ITEMS).max_weight(MAX_BYTES);
        Self::start(source, prefix, Fanout::new(Weighed, from, bounds), None)
    }

    /// As [`shared`](Self::shared), for one reader, who sets the pace: see [`has_read`](Self::has_read).
    pub(super) fn paced(source: Source, prefix: Bytes, from: Revision) -> Arc<Self> {
        let hub = Fanout::new(Weighed, from, Bounds::default());
        Self::start(source, prefix, hub, Some(watch::Sender::new(from)))
    }

    fn start(
        source: Source,
        prefix: Bytes,
        hub: Fanout<Arc<Event>, Weighed>,
        read: Option<watch::Sender<Revision>>,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            hub,
            read,
            asked: AtomicU64::new(0),
            answered: watch::Sender::new(0),
            wake: Notify::new(),
            failure: OnceLock::new(),
        });
        let worker = Worker {
            source,
            mark: mark_of(&prefix),
            prefix,
            shared: Arc::clone(&shared),
            pending: None,
            cleans: false,
            losses: 0,
        };
        Arc::new(Self {
            shared,
            _task: AbortOnDropHandle::new(tokio::spawn(worker.run())),
        })
    }

    /// A cursor after `from`, or as far as this feed is if it has not come that far.
    pub(super) fn subscribe(&self, from: Revision) -> Result<Cursor<Arc<Event>, Weighed>, FanoutError> {
        // It never goes back, so this is not ahead of the log.
        let from = from.min(self.shared.hub.head());
        self.shared.hub.subscribe((), from)
    }

    /// The reader of a paced feed has come so far.
    pub(super) fn has_read(&self, revision: Revision) {
        if let Some(read) = &self.shared.read {
            read.send_replace(revision);
        }
    }

    /// Why the feed has ended, if it has.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.shared.failure.get().cloned()
    }

    /// Asks that the log be as fresh as etcd is now; [`answered`](Self::answered) tells when that is so.
    pub(super) fn ask(&self) -> u64 {
        let ticket = self.shared.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.wake.notify_one();
        ticket
    }

    /// The newest ticket that was answered.
    pub(super) fn answered(&self) -> watch::Receiver<u64> {
        self.shared.answered.subscribe()
    }
}

/// Every reader gets everything, and values count towards the bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighed;

impl Router<Arc<Event>> for Weighed {
    type Topic = ();

    fn matches(&self, (): &(), _: &Arc<Event>) -> bool {
        true
    }

    fn route(&self, _: &Arc<Event>, visit: &mut dyn FnMut(&())) {
        visit(&());
    }

    fn weight(&self, event: &Arc<Event>) -> usize {
        let previous = event.previous.as_ref().map_or(0, |kv| kv.value.len());
        event.key().len() + event.kv.value.len() + previous
    }
}

/// The key that follows all keys with `prefix`, or is one where none can follow, and that nobody else writes.
fn mark_of(prefix: &[u8]) -> Vec<u8> {
    let mut mark = end_of(prefix).unwrap_or_else(|| prefix.to_vec());
    mark.extend_from_slice(MARK);
    mark
}

/// Why a stream came to its end.
enum End {
    /// It has to be opened again.
    Lost(String),
    /// The feed is over.
    Failed(StoreError),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(Refused::Denied(reason)) => Self::Failed(StoreError::Denied { reason }),
            other => Self::Lost(other.into_error().to_string()),
        }
    }
}

/// A request for progress under way.
struct Pending {
    ticket: u64,
    /// Where the log has to come, once that is known.
    target: Option<Revision>,
}

struct Worker {
    source: Source,
    prefix: Bytes,
    mark: Vec<u8>,
    shared: Arc<Shared>,
    pending: Option<Pending>,
    /// Whether a mark was written that has to be removed.
    cleans: bool,
    /// How often the stream was lost since something came.
    losses: u32,
}

impl Worker {
    async fn run(mut self) {
        let closed = self.source.closed.clone();
        let error = tokio::select! {
            biased;
            () = closed.cancelled() => StoreError::Closed,
            error = self.follow_on() => error,
        };
        self.shared.failure.set(error).ok();
        self.shared.hub.close();
        // Whoever waits for progress has to look again.
        self.shared.answered.send_modify(|_| ());
    }

    /// Opens stream after stream until one ends for good.
    async fn follow_on(&mut self) -> StoreError {
        loop {
            let member = self.source.members.current();
            let reason = match self.follow(member).await {
                End::Failed(error) => return error,
                End::Lost(reason) => reason,
            };
            let (url, head) = (self.source.members.url(member), self.shared.hub.head());
            tracing::debug!(member = url, reason, revision = %head, "a watch of etcd was lost");
            self.source.members.move_on(member);
            self.losses += 1;
            if self.losses == 10 {
                tracing::warn!(member = url, reason, "etcd cannot be watched; trying again");
            }
            let pause = Duration::from_millis(10) * 2_u32.pow(self.losses.min(8) - 1);
            tokio::time::sleep(pause.min(MAX_PAUSE)).await;
        }
    }

    async fn follow(&mut self, member: usize) -> End {
        match self.try_follow(member).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// Follows one stream for as long as it lasts.
    async fn try_follow(&mut self, member: usize) -> Result<std::convert::Infallible, End> {
        let marks = !self.source.members.version(member).await?.has_reliable_progress();
        let mut stream = self.open(member, marks).await?;
        let mut again = tokio::time::interval(ASK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        loop {
            self.settle(marks);
            let source = self.source.clone();
            let mark = self.mark.clone();
            let wants_target = self
                .pending
                .as_ref()
                .is_some_and(|pending| pending.target.is_none());
            let wants_clean = self.cleans && self.pending.is_none();
            let wants_answer = !marks
                && self
                    .pending
                    .as_ref()
                    .is_some_and(|pending| pending.target.is_some());
            let mut fence = pin!(async move {
                if wants_clean {
                    return remove_mark(&source, mark).await.map(|()| None);
                }
                target(&source, marks.then_some(mark)).await.map(Some)
            });
            // The fence goes on while events arrive, so that neither waits for the other.
            loop {
                tokio::select! {
                    message = stream.message() => {
                        let message = message.map_err(Failure::from)?;
                        let message = message.ok_or_else(|| End::Lost("etcd ended the stream".into()))?;
                        self.take(message, member).await?;
                        if !(wants_target || wants_clean) {
                            break;
                        }
                    }
                    reached = &mut fence, if wants_target || wants_clean => {
                        self.fenced(reached, marks).await;
                        again.reset_immediately();
                        break;
                    }
                    _ = again.tick(), if wants_answer => {
                        stream.request_progress().await.map_err(Failure::from)?;
                    }
                    () = shared.wake.notified(), if self.pending.is_none() => break,
                }
            }
        }
    }

    async fn open(&self, member: usize, marks: bool) -> Result<WatchStream, End> {
        let members = &self.source.members;
        let connection = members.connection(member).await?;
        let mut end = range_end(&self.prefix);
        if marks && end != [0] {
            end = [&self.mark[..], &[0]].concat();
        }
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(convert::signed(self.shared.hub.head().next()))
            .with_prev_key()
            .with_progress_notify();
        let mut client = connection.watch.clone();
        let open = client.watch(range_start(&self.prefix), Some(options));
        Ok(members.in_time(members.patience(), open).await?)
    }

    /// Begins with the newest request for progress, and answers the one that is fulfilled.
    fn settle(&mut self, marks: bool) {
        let head = self.shared.hub.head();
        if let Some(Pending {
            ticket,
            target: Some(target),
        }) = self.pending
            && head >= target
        {
            self.pending = None;
            self.cleans |= marks;
            self.shared.answered.send_replace(ticket);
        }
        let asked = self.shared.asked.load(Ordering::Acquire);
        if self.pending.is_none() && asked > *self.shared.answered.borrow() {
            self.pending = Some(Pending {
                ticket: asked,
                target: None,
            });
        }
    }

    async fn fenced(&mut self, reached: Result<Option<Revision>, Failure>, marks: bool) {
        match (reached, &mut self.pending) {
            (Ok(Some(revision)), Some(pending)) => pending.target = Some(revision),
            (Ok(_), _) => self.cleans = false,
            (Err(failure), _) => {
                tracing::debug!(?failure, marks, "etcd did not tell its revision");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Takes in one message of the stream.
    async fn take(&mut self, mut message: WatchResponse, member: usize) -> Result<(), End> {
        let head = self.shared.hub.head();
        if message.canceled() {
            return Err(self.cancelled(&message, member).await);
        }
        self.losses = 0;
        if message.0.events.is_empty() {
            if !message.created() {
                let header = message.0.header.as_ref();
                self.shared.hub.advance(convert::header(header));
            }
            return Ok(());
        }
        let mut reached = head;
        let mut events = Vec::with_capacity(message.0.events.len());
        for event in std::mem::take(&mut message.0.events) {
            let kv = event.kv.as_ref();
            reached = reached.max(kv.map_or(head, |kv| convert::revision(kv.mod_revision)));
            if kv.is_none_or(|kv| is_mark(&kv.key) || !kv.key.starts_with(&self.prefix)) {
                continue;
            }
            let Some(event) = convert::event(event) else {
                // Compaction has overtaken this event: its past is gone.
                let failure = Failure::Refused(Refused::Compacted);
                return Err(End::Failed(self.source.history.explain(failure, head).await));
            };
            if event.revision() > head {
                events.push((event.revision(), Arc::new(event)));
            }
        }
        let last = events.last().map(|(revision, _)| *revision);
        // etcd never divides a revision between messages.
        self.shared.hub.publish_all(events);
        self.shared.hub.advance(reached);
        if let Some(last) = last {
            self.keep_pace(last).await;
        }
        Ok(())
    }

    /// Waits for the reader, if it is only one, and forgets what it has read.
    async fn keep_pace(&self, last: Revision) {
        let Some(read) = &self.shared.read else { return };
        // It cannot fail: the sender is at hand.
        read.subscribe().wait_for(|read| *read >= last).await.ok();
        self.shared.hub.drop_until(last, usize::MAX);
    }

    async fn cancelled(&self, message: &WatchResponse, member: usize) -> End {
        if message.compact_revision() > 0 {
            return End::Failed(StoreError::Compacted {
                requested: self.shared.hub.head(),
                compacted: convert::revision(message.compact_revision()),
            });
        }
        let reason = message.cancel_reason();
        match Failure::of_message(reason) {
            Some(Failure::Refused(Refused::BadToken(_))) => {
                match self.source.members.refresh_token(member).await {
                    Ok(()) => End::Lost(reason.to_owned()),
                    Err(failure) => failure.into(),
                }
            }
            Some(failure) => failure.into(),
            None => End::Lost(reason.to_owned()),
        }
    }
}

/// The revision that the log has to reach: the current one, or that of a mark which is written.
async fn target(source: &Source, mark: Option<Vec<u8>>) -> Result<Revision, Failure> {
    let Some(mark) = mark else {
        return source.history.current().await;
    };
    let put = source.members.write(|connection| {
        let mark = mark.clone();
        async move { connection.kv.clone().put(mark, "", None).await }
    });
    Ok(convert::header(put.await?.0.header.as_ref()))
}

async fn remove_mark(source: &Source, mark: Vec<u8>) -> Result<(), Failure> {
    let delete = source.members.write(|connection| {
        let mark = mark.clone();
        async move { connection.kv.clone().delete(mark, None).await }
    });
    delete.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_follows_the_keys_of_its_prefix_and_has_none_of_their_names() {
        for prefix in [&b"/registry/pods/"[..], b"a\xff", b"a"] {
            let mark = mark_of(prefix);
            assert!(is_mark(&mark) && !mark.starts_with(prefix));
            assert!(mark[..] > [prefix, b"\xff\xff\xff"].concat()[..]);
        }
        assert!(is_mark(&mark_of(b"")));
    }
}
