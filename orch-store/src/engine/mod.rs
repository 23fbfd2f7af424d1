//! What the memory store and the embedded store share: the multi-version index, the order of writes and the
//! event log.
//!
//! A write goes through two steps. *Staging* checks its guard against the newest version, gives it its revision and
//! puts it into the index, all under one lock; *publishing* makes it visible. Without a [`Journal`] both
//! happen at once. With one, the journal publishes when the write is on disk, or [rolls back](Engine::roll_back).
//! Readers look at the published revision, so staged versions are invisible to them.
//!
//! Lock order: `state`, then the journal's queue, the fan-out's log or the expiry queue, each of which is a leaf.

mod clock;
mod expiry;
mod index;
mod read;
mod state;
mod topics;
mod watcher;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot};

pub(crate) use self::clock::Clock;
pub(crate) use self::expiry::Expiry;
pub(crate) use self::index::{Index, Version};
pub(crate) use self::state::{Op, Refusal, State};
pub(crate) use self::topics::PrefixTopics;
pub(crate) use self::watcher::EngineWatcher;

use crate::fanout::{Bounds, Fanout};
use crate::{Event, Health, KeyValue, Limits, Revision, StoreError};

/// How many dropped events a compaction works off while it holds the lock once.
const COMPACT_CHUNK: usize = 512;

/// Tells how a staged write went.
pub(crate) type Outcome = oneshot::Sender<Result<(), StoreError>>;

/// A write that has its revision and waits to be published.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) event: Arc<Event>,
    /// When the key ends, in milliseconds since 1970; 0 for never.
    pub(crate) deadline: u64,
    /// Whether readers see it already, before it is durable.
    pub(crate) is_published: bool,
    pub(crate) done: Option<Outcome>,
}

/// Makes staged writes durable, in the order in which they are submitted, and publishes them.
pub(crate) trait Journal: Send + Sync {
    /// Takes one write. Called under the state's lock: it must not block.
    fn submit(&self, staged: Staged);

    /// Whether this write may be shown before it is durable, if none before it waits.
    fn may_publish_first(&self, event: &Event) -> bool;

    /// Why no writes are taken any more, if so.
    fn refuses(&self) -> Option<StoreError>;
}

pub(crate) struct Engine {
    state: RwLock<State>,
    hub: Fanout<Arc<Event>, PrefixTopics>,
    limits: Limits,
    clock: Clock,
    expiry: Expiry,
    journal: Option<Box<dyn Journal>>,
    /// Fires after each publication and each roll-back.
    settled: Notify,
}

impl Engine {
    /// An engine that goes on from `state`; `events` are those since its compaction, in order.
    pub(crate) fn new(
        state: State,
        events: Vec<Arc<Event>>,
        limits: Limits,
        journal: Option<Box<dyn Journal>>,
    ) -> Arc<Self> {
        let floor = Revision(state.compacted);
        let hub = Fanout::new(PrefixTopics::default(), floor, Bounds::default());
        hub.publish_all(events.into_iter().map(|event| (event.revision(), event)));
        hub.advance(Revision(state.published));
        let engine = Arc::new(Self {
            hub,
            limits,
            clock: Clock::new(),
            expiry: Expiry::default(),
            journal,
            settled: Notify::new(),
            state: RwLock::new(state),
        });
        engine.arm_all();
        engine
    }

    pub(crate) async fn create(
        self: &Arc<Self>,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<KeyValue, StoreError> {
        self.limits.check_key(&key)?;
        self.limits.check_value(&value)?;
        let deadline = self.clock.deadline(ttl);
        let event = self.write(Op::Create { key, value, deadline }).await?;
        Ok(event.kv.clone())
    }

    pub(crate) async fn update(
        self: &Arc<Self>,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<KeyValue, StoreError> {
        self.limits.check_key(&key)?;
        self.limits.check_value(&value)?;
        let deadline = self.clock.deadline(ttl);
        let event = self
            .write(Op::Update {
                key,
                value,
                expected: expected.0,
                deadline,
            })
            .await?;
        Ok(event.kv.clone())
    }

    pub(crate) async fn delete(
        self: &Arc<Self>,
        key: &[u8],
        expected: Option<Revision>,
    ) -> Result<Arc<Event>, StoreError> {
        self.limits.check_key(key)?;
        self.write(Op::Delete {
            key: Bytes::copy_from_slice(key),
            expected: expected.map(Revision::get),
        })
        .await
    }

    pub(crate) fn watch(&self, prefix: &[u8], from: Revision) -> Result<EngineWatcher, StoreError> {
        // Under the state's lock, so that no compaction comes between the check and the subscription.
        let state = self.state.read();
        state.check_readable(from)?;
        let cursor = self
            .hub
            .subscribe(Bytes::copy_from_slice(prefix), from)
            .map_err(watcher::store_error)?;
        drop(state);
        Ok(EngineWatcher::new(cursor))
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.state.read().published)
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.state.read();
        Health::good(Revision(state.published), Revision(state.compacted))
    }

    /// Whether compacting to `revision` would forget anything.
    pub(crate) fn would_compact(&self, revision: Revision) -> Result<bool, StoreError> {
        let state = self.state.read();
        if revision.0 > state.published {
            return Err(StoreError::FutureRevision {
                requested: revision,
                current: Revision(state.published),
            });
        }
        Ok(revision.0 > state.compacted)
    }

    /// Makes `revision`, which has been published, the oldest that can be read. Memory comes back with
    /// [`drop_compacted`](Self::drop_compacted).
    pub(crate) fn mark_compacted(&self, revision: Revision) {
        let mut state = self.state.write();
        state.compacted = state.compacted.max(revision.0);
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.state.read().compacted
    }

    /// Gives back the memory of some of the history before `floor`, which was compacted. Returns whether there may
    /// be more.
    pub(crate) fn drop_compacted(&self, floor: u64) -> bool {
        let mut state = self.state.write();
        let events = self.hub.drop_until(Revision(floor), COMPACT_CHUNK);
        for event in &events {
            state.index.compact(event.key(), floor);
        }
        events.len() == COMPACT_CHUNK
    }

    /// Makes staged writes visible, in order.
    pub(crate) fn publish(&self, events: Vec<Arc<Event>>) {
        let mut state = self.state.write();
        self.publish_locked(&mut state, events);
    }

    /// Takes back staged writes that did not reach the disk: `events`, the oldest first, which must be all
    /// that are staged and not published.
    pub(crate) fn roll_back(self: &Arc<Self>, state: &mut State, events: &[Arc<Event>]) {
        for event in events.iter().rev() {
            state.index.pop(event.key());
            if let Some(version) = state.index.newest(event.key())
                && version.deadline != 0
            {
                // An expiry may be among the failed writes: it has to be tried again, not at once.
                let again = version.deadline.max(self.clock.now() + 1000);
                self.arm(event.key(), version.mod_revision, again);
            }
        }
        state.staged = 0;
        state.roll_backs += 1;
        self.settled.notify_waiters();
    }

    /// The state, for a journal that has to act while no write can be staged.
    pub(crate) fn state(&self) -> &RwLock<State> {
        &self.state
    }

    /// Ends all watchers and the expiry thread.
    pub(crate) fn close(&self) {
        self.expiry.stop();
        self.hub.close();
    }

    async fn write(self: &Arc<Self>, op: Op) -> Result<Arc<Event>, StoreError> {
        loop {
            match self.stage(op.clone()) {
                Ok((event, None)) => return Ok(event),
                Ok((event, Some(done))) => {
                    done.await.map_err(|_| StoreError::Closed)??;
                    return Ok(event);
                }
                Err(refusal) => {
                    if self.is_settled(&refusal).await {
                        return Err(refusal.error);
                    }
                }
            }
        }
    }

    /// Gives the write its revision and hands it on. The receiver, if any, tells when it is published.
    #[allow(
        clippy::type_complexity,
        reason = "the pair is taken apart at once by the one caller"
    )]
    fn stage(
        self: &Arc<Self>,
        op: Op,
    ) -> Result<(Arc<Event>, Option<oneshot::Receiver<Result<(), StoreError>>>), Refusal> {
        let deadline = op.deadline();
        let mut state = self.state.write();
        if let Some(error) = self.journal.as_ref().and_then(|journal| journal.refuses()) {
            return Err(Refusal::now(error));
        }
        let event = state.stage(op)?;
        let journal = self.journal.as_ref();
        // Only alone: what comes before it in the order is to be seen before it.
        let at_once = journal.is_none_or(|journal| journal.may_publish_first(&event)) && state.staged == 1;
        if at_once {
            self.publish_locked(&mut state, vec![Arc::clone(&event)]);
        }
        let outcome = journal.and_then(|journal| {
            let (done, outcome) = oneshot::channel();
            journal.submit(Staged {
                event: Arc::clone(&event),
                deadline,
                is_published: at_once,
                done: (!at_once).then_some(done),
            });
            (!at_once).then_some(outcome)
        });
        drop(state);
        self.arm(event.key(), event.revision().0, deadline);
        Ok((event, outcome))
    }

    /// Waits until what a refusal relies on is published, and so may be told. Returns false when it was rolled back
    /// instead, so that the write has to be tried again.
    async fn is_settled(&self, refusal: &Refusal) -> bool {
        loop {
            let mut settled = pin!(self.settled.notified());
            settled.as_mut().enable();
            {
                let state = self.state.read();
                if state.published >= refusal.seen {
                    return true;
                }
                if state.roll_backs != refusal.roll_backs {
                    return false;
                }
            }
            if let Some(error) = self.journal.as_ref().and_then(|journal| journal.refuses()) {
                tracing::debug!(%error, "a refused write cannot settle");
                return false;
            }
            settled.await;
        }
    }

    fn publish_locked(&self, state: &mut State, events: Vec<Arc<Event>>) {
        let Some(last) = events.last() else { return };
        state.published = last.revision().0;
        state.staged -= events.len();
        self.hub
            .publish_all(events.into_iter().map(|event| (event.revision(), event)));
        self.settled.notify_waiters();
    }

    fn arm(self: &Arc<Self>, key: &Bytes, revision: u64, deadline: u64) {
        if deadline != 0 {
            self.expiry
                .arm(self, expiry::Due::new(deadline, revision, key.clone()));
        }
    }

    fn arm_all(self: &Arc<Self>) {
        let state = self.state.read();
        for (key, version) in state.index.range(b"", std::ops::Bound::Unbounded, u64::MAX) {
            if let Some(version) = version {
                self.arm(key, version.mod_revision, version.deadline);
            }
        }
    }

    /// Deletes a key whose time has come, unless it was written since.
    fn expire(self: &Arc<Self>, due: &expiry::Due) {
        let op = Op::Delete {
            key: due.key.clone(),
            expected: Some(due.revision),
        };
        // Nobody waits for the outcome: a refusal means that the key was written or deleted since, a failed
        // write is armed again when it is rolled back.
        if let Err(refusal) = self.stage(op) {
            tracing::trace!(error = %refusal.error, "a key did not expire");
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}
