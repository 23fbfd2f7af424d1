//! A work queue that holds each key once and gives it to one worker at a time.
//!
//! A key that is added while it waits is not added again; a key that is added while a worker has it comes back when
//! that worker is done. So work is neither lost nor done twice at once. [`WorkQueue::add_rate_limited`] delays a key
//! longer each time, until [`WorkQueue::forget`].
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let queue = orch_core::queue::WorkQueue::new();
//! queue.add("a");
//! queue.add("a");
//! assert_eq!(queue.len(), 1);
//! let work = queue.get().await.expect("not shut down");
//! assert_eq!(*work, "a");
//! # });
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The delays of [`WorkQueue::add_rate_limited`]: `base * 2^failures`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub base: Duration,
    /// Longest delay.
    pub max: Duration,
}

impl Default for Backoff {
    /// 5 ms to 1000 s, as client-go's controllers use.
    fn default() -> Self {
        Backoff {
            base: Duration::from_millis(5),
            max: Duration::from_secs(1000),
        }
    }
}

impl Backoff {
    /// The delay before the attempt that follows `failures` earlier ones.
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }
}

/// A de-duplicating queue with delays; clones are handles to one queue.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
    backoff: Backoff,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Added and not yet handed out since.
    dirty: HashSet<T>,
    /// Handed out.
    processing: HashSet<T>,
    /// By due time; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    next_number: u64,
    shutting_down: bool,
}

impl<T: Eq + Hash + Clone> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        WorkQueue {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("WorkQueue")
            .field("ready", &state.ready.len())
            .field("processing", &state.processing.len())
            .field("delayed", &state.delayed.len())
            .finish()
    }
}

impl<T: Eq + Hash + Clone> WorkQueue<T> {
    /// An empty queue with the usual back-off.
    pub fn new() -> Self {
        Self::with_backoff(Backoff::default())
    }

    /// An empty queue with a back-off of one's own.
    pub fn with_backoff(backoff: Backoff) -> Self {
        WorkQueue {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    ready: VecDeque::new(),
                    dirty: HashSet::new(),
                    processing: HashSet::new(),
                    delayed: BTreeMap::new(),
                    due: HashMap::new(),
                    failures: HashMap::new(),
                    next_number: 0,
                    shutting_down: false,
                }),
                changed: Notify::new(),
                backoff,
            }),
        }
    }

    /// Adds `item`, unless it waits already. After [`shut_down`](Self::shut_down) nothing is added.
    pub fn add(&self, item: T) {
        let queued = self.shared.state.lock().add(item);
        if queued {
            self.shared.changed.notify_one();
        }
    }

    /// Adds `item` once `delay` has passed. If it waits for a time already, the earlier one counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        let at = Instant::now() + delay;
        let scheduled = self.shared.state.lock().schedule(item, at);
        if scheduled {
            self.shared.changed.notify_one();
        }
    }

    /// Adds `item` after a delay that grows with each call since the last [`forget`](Self::forget).
    pub fn add_rate_limited(&self, item: T) {
        let failures = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(item.clone()).or_insert(0);
            let before = *failures;
            *failures = before.saturating_add(1);
            before
        };
        self.add_after(item, self.shared.backoff.delay(failures));
    }

    /// Lets the next [`add_rate_limited`](Self::add_rate_limited) of `item` begin at the shortest delay.
    pub fn forget(&self, item: &T) {
        self.shared.state.lock().failures.remove(item);
    }

    /// How often `item` was added with a rate limit since it was last forgotten.
    pub fn failures(&self, item: &T) -> u32 {
        self.shared.state.lock().failures.get(item).copied().unwrap_or(0)
    }

    /// How many items wait to be handed out now, without those that are delayed.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether nothing waits to be handed out now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next item, as soon as there is one. `None` once the queue is shut down and what waited is handed out.
    pub async fn get(&self) -> Option<Work<T>> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next_due = match self.shared.state.lock().next() {
                Next::Item(item, more) => {
                    if more {
                        self.shared.changed.notify_one();
                    }
                    let queue = self.clone();
                    return Some(Work { item, queue });
                }
                Next::Closed => {
                    // Each worker wakes the next one.
                    self.shared.changed.notify_one();
                    return None;
                }
                Next::Wait(next_due) => next_due,
            };
            match next_due {
                None => changed.await,
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// Refuses new items. What waits is still handed out; what is delayed is not.
    pub fn shut_down(&self) {
        let mut state = self.shared.state.lock();
        state.shutting_down = true;
        state.delayed.clear();
        state.due.clear();
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Whether the queue is shut down.
    pub fn is_shutting_down(&self) -> bool {
        self.shared.state.lock().shutting_down
    }

    fn done(&self, item: &T) {
        let queued = self.shared.state.lock().done(item);
        if queued {
            self.shared.changed.notify_one();
        }
    }
}

enum Next<T> {
    Item(T, bool),
    Wait(Option<Instant>),
    Closed,
}

impl<T: Eq + Hash + Clone> State<T> {
    fn add(&mut self, item: T) -> bool {
        if self.shutting_down || !self.dirty.insert(item.clone()) || self.processing.contains(&item) {
            return false;
        }
        self.ready.push_back(item);
        true
    }

    fn schedule(&mut self, item: T, at: Instant) -> bool {
        if self.shutting_down {
            return false;
        }
        if let Some(&present) = self.due.get(&item) {
            if present.0 <= at {
                return false;
            }
            self.delayed.remove(&present);
        }
        let key = (at, self.next_number);
        self.next_number += 1;
        self.delayed.insert(key, item.clone());
        self.due.insert(item, key);
        true
    }

    fn next(&mut self) -> Next<T> {
        let now = Instant::now();
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            let item = entry.remove();
            self.due.remove(&item);
            self.add(item);
        }
        let Some(item) = self.ready.pop_front() else {
            return match self.shutting_down {
                true => Next::Closed,
                false => Next::Wait(self.delayed.keys().next().map(|key| key.0)),
            };
        };
        self.dirty.remove(&item);
        self.processing.insert(item.clone());
        // Whoever comes next also watches over the delayed items.
        let more = !self.ready.is_empty() || !self.delayed.is_empty();
        Next::Item(item, more)
    }

    fn done(&mut self, item: &T) -> bool {
        self.processing.remove(item);
        let again = self.dirty.contains(item);
        if again {
            self.ready.push_back(item.clone());
        }
        again
    }
}

/// An item that a worker holds; the queue gives it to no other until this is dropped.
pub struct Work<T: Eq + Hash + Clone> {
    item: T,
    queue: WorkQueue<T>,
}

impl<T: Eq + Hash + Clone> Deref for Work<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T: Eq + Hash + Clone> Drop for Work<T> {
    fn drop(&mut self) {
        self.queue.done(&self.item);
    }
}

impl<T: Eq + Hash + Clone + fmt::Debug> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Work").field(&self.item).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test]
    async fn a_waiting_item_is_not_added_twice() {
        let queue = WorkQueue::new();
        queue.add(1);
        queue.add(2);
        queue.add(1);
        assert_eq!(queue.len(), 2);
        assert_eq!(*queue.get().await.unwrap(), 1);
        assert_eq!(*queue.get().await.unwrap(), 2);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn an_item_added_while_processed_comes_back_when_done() {
        let queue = WorkQueue::new();
        queue.add(1);
        let work = queue.get().await.unwrap();
        queue.add(1);
        queue.add(1);
        assert_eq!(queue.len(), 0, "no other worker may have it now");
        drop(work);
        assert_eq!(queue.len(), 1);
        drop(queue.get().await.unwrap());
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_item_comes_at_its_earliest_time() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after(1, Duration::from_secs(10));
        queue.add_after(1, Duration::from_secs(5));
        queue.add_after(1, Duration::from_secs(20));
        assert_eq!(*queue.get().await.unwrap(), 1);
        assert_eq!(start.elapsed().as_secs(), 5);
        advance(Duration::from_secs(60)).await;
        queue.shut_down();
        assert!(queue.get().await.is_none(), "the later times are void");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay_up_to_the_maximum() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        for _ in 0..3 {
            queue.add_rate_limited("a");
            drop(queue.get().await.unwrap());
        }
        assert_eq!(start.elapsed().as_millis(), 5 + 10 + 20);
        assert_eq!(queue.failures(&"a"), 3);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
        assert_eq!(Backoff::default().delay(200), Duration::from_secs(1000));
    }

    #[tokio::test]
    async fn shutting_down_drains_and_wakes_every_worker() {
        let queue = WorkQueue::new();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut seen = 0;
                    while queue.get().await.is_some() {
                        seen += 1;
                    }
                    seen
                })
            })
            .collect();
        tokio::task::yield_now().await;
        for item in 0..20 {
            queue.add(item);
        }
        queue.shut_down();
        queue.add(99);
        let mut total = 0;
        for worker in workers {
            total += worker.await.unwrap();
        }
        assert_eq!(total, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_earlier_deadline_wakes_a_waiting_worker() {
        let queue = WorkQueue::new();
        queue.add_after(1, Duration::from_secs(100));
        let waiting = queue.clone();
        let worker = tokio::spawn(async move { *waiting.get().await.unwrap() });
        tokio::task::yield_now().await;
        queue.add_after(2, Duration::from_secs(1));
        assert_eq!(worker.await.unwrap(), 2);
    }
}
