use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::{Bounds, FanoutError, Router};
use crate::Revision;

/// How many items a cursor looks at while it holds the lock once.
const SCAN: usize = 4096;

/// The cursors of one topic. The numbers change only under the log's write lock.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) notify: Notify,
    /// The newest item of this topic, or later: a cursor at or beyond it has nothing to read.
    last: AtomicU64,
    /// The newest item of this topic that was dropped: a cursor before it has lost something.
    dropped: AtomicU64,
}

/// What a cursor finds.
#[derive(Debug)]
pub(super) struct Scan<T> {
    pub(super) items: Vec<T>,
    pub(super) position: u64,
    /// Whether the position is the end of what there is for this topic.
    pub(super) at_end: bool,
}

/// The items, in the order of their revisions, and who reads them.
#[derive(Debug)]
pub(super) struct Log<T, R: Router<T>> {
    items: VecDeque<(u64, T)>,
    weight: usize,
    floor: u64,
    head: u64,
    closed: bool,
    bounds: Bounds,
    router: R,
    groups: HashMap<R::Topic, (Arc<Group>, usize)>,
}

impl<T: Clone, R: Router<T>> Log<T, R> {
    pub(super) fn new(router: R, head: Revision, bounds: Bounds) -> Self {
        Self {
            items: VecDeque::new(),
            weight: 0,
            floor: head.0,
            head: head.0,
            closed: false,
            bounds,
            router,
            groups: HashMap::new(),
        }
    }

    pub(super) fn append(&mut self, items: impl IntoIterator<Item = (Revision, T)>) {
        let mut woken: Vec<Arc<Group>> = Vec::new();
        // Cursors that have reached the head would miss what is added to it.
        let before = self.head;
        for (Revision(revision), item) in items {
            assert!(
                revision > before && revision >= self.head,
                "revisions are published in order"
            );
            self.head = revision;
            self.weight += self.router.weight(&item);
            let groups = &self.groups;
            self.router.route(&item, &mut |topic| {
                if let Some((group, _)) = groups.get(topic) {
                    group.last.store(revision, Ordering::Relaxed);
                    if !woken.iter().any(|seen| Arc::ptr_eq(seen, group)) {
                        woken.push(Arc::clone(group));
                    }
                }
            });
            self.items.push_back((revision, item));
        }
        self.enforce_bounds();
        for group in woken {
            group.notify.notify_waiters();
        }
    }

    pub(super) fn advance(&mut self, revision: Revision) {
        self.head = self.head.max(revision.0);
    }

    pub(super) fn drop_until(&mut self, revision: Revision, at_most: usize) -> Vec<T> {
        let mut dropped = Vec::new();
        while dropped.len() < at_most && self.items.front().is_some_and(|(at, _)| *at <= revision.0) {
            dropped.extend(self.drop_oldest());
        }
        if dropped.len() < at_most {
            self.floor = self.floor.max(revision.0.min(self.head));
        }
        dropped
    }

    pub(super) fn join(&mut self, topic: &R::Topic, after: Revision) -> Result<Arc<Group>, FanoutError> {
        if self.closed {
            return Err(FanoutError::Closed);
        }
        if after.0 < self.floor {
            return Err(FanoutError::Lagged {
                position: after,
                dropped: Revision(self.floor),
            });
        }
        if after.0 > self.head {
            return Err(FanoutError::Future {
                position: after,
                head: Revision(self.head),
            });
        }
        if let Some((group, members)) = self.groups.get_mut(topic) {
            *members += 1;
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(Group {
            notify: Notify::new(),
            last: AtomicU64::new(self.head),
            dropped: AtomicU64::new(self.floor),
        });
        self.router.joined(topic);
        self.groups.insert(topic.clone(), (Arc::clone(&group), 1));
        Ok(group)
    }

    pub(super) fn leave(&mut self, topic: &R::Topic) {
        let Some((_, members)) = self.groups.get_mut(topic) else {
            return;
        };
        *members -= 1;
        if *members == 0 {
            self.groups.remove(topic);
            self.router.left(topic);
        }
    }

    /// Looks for items of `topic` after `position`.
    pub(super) fn scan(
        &self,
        topic: &R::Topic,
        group: &Group,
        position: u64,
        max: usize,
    ) -> Result<Scan<T>, FanoutError> {
        let dropped = group.dropped.load(Ordering::Relaxed);
        if position < dropped {
            return Err(FanoutError::Lagged {
                position: Revision(position),
                dropped: Revision(dropped),
            });
        }
        if group.last.load(Ordering::Relaxed) <= position {
            return self.end(position);
        }
        let start = self.items.partition_point(|(at, _)| *at <= position);
        let mut items = Vec::new();
        let mut reached = position;
        for (looked_at, (at, item)) in self.items.range(start..).enumerate() {
            // What belongs to one revision is never divided.
            if *at > reached && (looked_at >= SCAN || items.len() >= max) {
                return Ok(Scan {
                    items,
                    position: reached,
                    at_end: false,
                });
            }
            if self.router.matches(topic, item) {
                items.push(item.clone());
            }
            reached = *at;
        }
        Ok(Scan {
            items,
            position: self.head,
            at_end: true,
        })
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        for (group, _) in self.groups.values() {
            group.notify.notify_waiters();
        }
    }

    pub(super) fn head(&self) -> Revision {
        Revision(self.head)
    }

    pub(super) fn floor(&self) -> Revision {
        Revision(self.floor)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn cursors(&self) -> usize {
        self.groups.values().map(|(_, members)| members).sum()
    }

    fn end(&self, position: u64) -> Result<Scan<T>, FanoutError> {
        if self.closed {
            return Err(FanoutError::Closed);
        }
        Ok(Scan {
            items: Vec::new(),
            position: position.max(self.head),
            at_end: true,
        })
    }

    fn enforce_bounds(&mut self) {
        let too_many = |log: &Self| {
            log.bounds.max_items.is_some_and(|max| log.items.len() > max)
                || log.bounds.max_weight.is_some_and(|max| log.weight > max)
        };
        while too_many(self) && self.drop_oldest().is_some() {}
    }

    fn drop_oldest(&mut self) -> Option<T> {
        let (revision, item) = self.items.pop_front()?;
        self.floor = revision;
        self.weight -= self.router.weight(&item);
        let groups = &self.groups;
        self.router.route(&item, &mut |topic| {
            if let Some((group, _)) = groups.get(topic) {
                group.dropped.store(revision, Ordering::Relaxed);
            }
        });
        Some(item)
    }
}
