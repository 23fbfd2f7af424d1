//! Callers that work on one key at the same time, and whether one order explains what they were told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Fixture;
use super::fixture::bytes;
use super::history::{Call, Entry, is_linearizable};
use crate::{Event, EventKind, Revision, Store, StoreError};

const CALLERS: u64 = 6;
const CALLS: usize = 20;

/// Lets callers work on `key`, which must not exist, and checks their history. With a pause, they wait up to that long
/// between calls and put up with a store that is unavailable now and then.
///
/// # Panics
/// When no order explains the history.
pub(super) async fn check_history(fixture: &Fixture, key: &str, seed: u64, pause: Option<Duration>) {
    let start = fixture.now_soon().await;
    let clock = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..CALLERS {
        let caller = Caller {
            store: fixture.store(),
            key: key.to_owned(),
            name: task,
            clock: Arc::clone(&clock),
            random: fastrand::Rng::with_seed(seed * CALLERS + task),
            known: None,
            pause,
        };
        tasks.spawn(caller.run(CALLS));
    }
    let told: Vec<Told> = tasks.join_all().await.concat();
    // What became of the calls whose answer was lost, the events tell.
    let current = fixture.now_soon().await;
    let mut watcher = fixture.watch_soon(key, start).await;
    let events = fixture.events_until(watcher.as_mut(), current).await;
    let history = resolve(told, &events);
    assert!(is_linearizable(&history), "no order explains {history:#?}");
}

/// What a caller was told.
#[derive(Debug, Clone)]
enum Told {
    Answer(Entry),
    /// The answer was lost: the call may have taken effect at any time since its start.
    Nothing {
        start: u64,
        write: Write,
    },
}

/// A write, by which its event can be recognised.
#[derive(Debug, Clone)]
enum Write {
    /// Every value is written by one call only.
    Put {
        value: String,
        expected: Option<Revision>,
    },
    Delete {
        expected: Revision,
    },
}

impl Write {
    /// The answer that the caller would have got, if this event is its work.
    fn answer(&self, event: &Event) -> Option<Call> {
        match (self, event.kind) {
            (Self::Put { value, expected }, EventKind::Put) if event.kv.value == *value.as_bytes() => {
                Some(match expected {
                    None => Call::Created(event.revision()),
                    Some(expected) => Call::Updated(*expected, event.revision()),
                })
            }
            (Self::Delete { expected }, EventKind::Delete) => {
                let previous = event.previous.as_ref()?.mod_revision;
                (previous == *expected).then(|| Call::Deleted(*expected, event.revision()))
            }
            _ => None,
        }
    }
}

fn resolve(told: Vec<Told>, events: &[Arc<Event>]) -> Vec<Entry> {
    let mut history = Vec::new();
    let mut lost = Vec::new();
    let mut explained = HashSet::new();
    for told in told {
        match told {
            Told::Answer(entry) => {
                if let Call::Created(at) | Call::Updated(_, at) | Call::Deleted(_, at) = entry.call {
                    explained.insert(at);
                }
                history.push(entry);
            }
            Told::Nothing { start, write } => lost.push((start, write)),
        }
    }
    for (start, write) in lost {
        let done = events.iter().find_map(|event| {
            let call = write.answer(event)?;
            explained.insert(event.revision()).then_some(call)
        });
        let end = u64::MAX;
        history.extend(done.map(|call| Entry { start, end, call }));
    }
    history
}

/// Makes random calls on one key and notes the answers.
struct Caller {
    store: Arc<dyn Store>,
    key: String,
    name: u64,
    clock: Arc<AtomicU64>,
    random: fastrand::Rng,
    /// The newest state that it was told of.
    known: Option<Revision>,
    pause: Option<Duration>,
}

impl Caller {
    async fn run(mut self, calls: usize) -> Vec<Told> {
        let mut history = Vec::new();
        for number in 0..calls {
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause.mul_f64(self.random.f64())).await;
            }
            let start = self.clock.fetch_add(1, Ordering::SeqCst);
            let (write, answer) = self.call(number).await;
            let end = self.clock.fetch_add(1, Ordering::SeqCst);
            match answer {
                Ok(call) => {
                    self.known = state_after(call);
                    history.push(Told::Answer(Entry { start, end, call }));
                }
                Err(error) => {
                    let is_expected = self.pause.is_some() && is_passing(&error);
                    assert!(is_expected, "a call failed: {error}");
                    history.extend(write.map(|write| Told::Nothing { start, write }));
                }
            }
        }
        history
    }

    async fn call(&mut self, number: usize) -> (Option<Write>, Result<Call, StoreError>) {
        let value = format!("{}/{number}", self.name);
        match (self.random.u8(..10), self.known) {
            (0..3, _) => (None, self.read().await),
            (3..5, _) | (_, None) => {
                let answer = self.create(&value).await;
                let expected = None;
                (Some(Write::Put { value, expected }), answer)
            }
            (5..9, Some(known)) => {
                let answer = self.update(&value, known).await;
                let expected = Some(known);
                (Some(Write::Put { value, expected }), answer)
            }
            (_, Some(expected)) => (Some(Write::Delete { expected }), self.delete(expected).await),
        }
    }

    async fn read(&self) -> Result<Call, StoreError> {
        let read = self.store.get(self.key.as_bytes(), None).await?;
        Ok(Call::Read(read.kv.map(|kv| kv.mod_revision)))
    }

    async fn create(&self, value: &str) -> Result<Call, StoreError> {
        match self.store.create(bytes(&self.key), bytes(value), None).await {
            Ok(kv) => Ok(Call::Created(kv.mod_revision)),
            Err(StoreError::AlreadyExists { current }) => Ok(Call::NotCreated(current.mod_revision)),
            Err(error) => Err(error),
        }
    }

    async fn update(&self, value: &str, known: Revision) -> Result<Call, StoreError> {
        let update = self.store.update(bytes(&self.key), bytes(value), known, None);
        match update.await {
            Ok(kv) => Ok(Call::Updated(known, kv.mod_revision)),
            Err(error) => refused(known, error),
        }
    }

    async fn delete(&self, known: Revision) -> Result<Call, StoreError> {
        match self.store.delete(self.key.as_bytes(), Some(known)).await {
            Ok(deleted) => Ok(Call::Deleted(known, deleted.revision)),
            Err(error) => refused(known, error),
        }
    }
}

/// Whether an error may come of a disruption.
pub(super) fn is_passing(error: &StoreError) -> bool {
    error.is_retryable() || error.outcome_is_unknown()
}

fn state_after(call: Call) -> Option<Revision> {
    match call {
        Call::Read(state) | Call::Refused(_, state) => state,
        Call::Created(at) | Call::NotCreated(at) | Call::Updated(_, at) => Some(at),
        Call::Deleted(..) => None,
    }
}

fn refused(known: Revision, error: StoreError) -> Result<Call, StoreError> {
    match error {
        StoreError::Conflict { current, .. } => Ok(Call::Refused(known, current.map(|kv| kv.mod_revision))),
        other => Err(other),
    }
}
