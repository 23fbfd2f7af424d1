use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::testkit::Fixture;
use crate::testkit::fixture::{bytes, ok};
use crate::testkit::history::{Call, Entry, is_linearizable};
use crate::{EventKind, KeyValue, Revision, Store, StoreError};

/// Of many that create one key at once, one succeeds, and the others are shown its work.
pub async fn one_of_many_creators_wins(fixture: &Fixture) {
    for round in 0..20 {
        let key = bytes(&format!("concurrency/{round}"));
        let mut creators = JoinSet::new();
        for creator in 0..16 {
            let (store, key) = (fixture.store(), key.clone());
            creators.spawn(async move { store.create(key, bytes(&creator.to_string()), None).await });
        }
        let results = creators.join_all().await;
        let winners: Vec<&KeyValue> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1);
        for result in &results {
            match result {
                Ok(_) => {}
                Err(StoreError::AlreadyExists { current }) => assert_eq!(**current, *winners[0]),
                Err(error) => panic!("expected AlreadyExists, got {error}"),
            }
        }
    }
}

/// Read, add one, write back guarded, again on a conflict: no addition is lost.
pub async fn guarded_increments_are_never_lost(fixture: &Fixture) {
    const TASKS: u64 = 8;
    const INCREMENTS: u64 = 25;
    fixture.create("concurrency/sum", "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = fixture.store();
        tasks.spawn(async move {
            for _ in 0..INCREMENTS {
                increment(store.as_ref()).await;
            }
        });
    }
    fixture.soon("the last increment", tasks.join_all()).await;
    let kv = fixture.get("concurrency/sum").await.expect("it is there");
    assert_eq!(number(&kv), TASKS * INCREMENTS);
    assert_eq!(kv.version, TASKS * INCREMENTS + 1);
}

/// For the answers of concurrent callers there is an order that explains them all.
pub async fn concurrent_histories_are_linearizable(fixture: &Fixture) {
    const TASKS: u64 = 6;
    const CALLS: usize = 20;
    for round in 0..8 {
        let key = format!("concurrency/{round}");
        let clock = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let caller = Caller {
                store: fixture.store(),
                key: key.clone(),
                clock: Arc::clone(&clock),
                random: fastrand::Rng::with_seed(round * TASKS + task),
                known: None,
            };
            tasks.spawn(caller.run(CALLS));
        }
        let history = tasks.join_all().await.concat();
        assert!(is_linearizable(&history), "no order explains {history:#?}");
    }
}

/// A watcher sees the writes of all writers in the order of their revisions, each writer's own in its order.
pub async fn concurrent_writes_are_published_in_order(fixture: &Fixture) {
    const WRITERS: usize = 8;
    const WRITES: usize = 50;
    let mut watcher = fixture.watch("concurrency/", fixture.now().await).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = fixture.store();
        writers.spawn(async move {
            let mut written = Vec::new();
            for round in 0..WRITES {
                let key = bytes(&format!("concurrency/{writer}/{round}"));
                let kv = ok("create", store.create(key, bytes("v"), None).await);
                // Acknowledged is visible.
                let current = ok("current_revision", store.current_revision().await);
                assert!(current >= kv.mod_revision);
                written.push(kv.mod_revision);
            }
            written
        });
    }
    let events = fixture.events(watcher.as_mut(), WRITERS * WRITES).await;
    let seen: Vec<Revision> = events.iter().map(|event| event.revision()).collect();
    assert!(seen.is_sorted_by(|a, b| a < b));
    let mut written = Vec::new();
    for revisions in writers.join_all().await {
        assert!(revisions.is_sorted_by(|a, b| a < b));
        written.extend(revisions);
    }
    written.sort_unstable();
    assert_eq!(seen, written);
}

/// Writers whose futures are dropped halfway leave the store whole: its state is what its events add up to, and what
/// was acknowledged is there.
pub async fn a_cancelled_write_happens_wholly_or_not_at_all(fixture: &Fixture) {
    let start = fixture.now().await;
    let mut acknowledged: BTreeMap<String, KeyValue> = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..200 {
        let key = format!("concurrency/{}", round % 5);
        let current = fixture.get(&key).await;
        let (store, name) = (fixture.store(), bytes(&key));
        let write = tokio::spawn(async move {
            match current {
                None => store.create(name, bytes("v"), None).await,
                Some(kv) => store.update(name, bytes("w"), kv.mod_revision, None).await,
            }
        });
        for _ in 0..random.u32(0..4) {
            tokio::task::yield_now().await;
        }
        write.abort();
        if let Ok(result) = write.await {
            match result {
                Ok(kv) => drop(acknowledged.insert(key, kv)),
                // One that was cancelled before has arrived since.
                Err(error) => assert!(error.is_conflict(), "{error}"),
            }
        }
    }
    let current = fixture.now().await;
    let mut watcher = fixture.watch("concurrency/", start).await;
    let events = fixture.events_until(watcher.as_mut(), current).await;
    let mut state = BTreeMap::new();
    for event in events {
        assert_eq!(event.kind, EventKind::Put);
        let before = state.insert(event.key().clone(), event.kv.clone());
        assert_eq!(before, event.previous);
    }
    for (key, kv) in acknowledged {
        let found = &state[key.as_bytes()];
        assert!(found.mod_revision >= kv.mod_revision, "{key} was acknowledged");
    }
}

async fn increment(store: &dyn Store) {
    let mut kv = ok("get", store.get(b"concurrency/sum", None).await)
        .kv
        .expect("it is there");
    loop {
        let value = bytes(&(number(&kv) + 1).to_string());
        match store.update(kv.key.clone(), value, kv.mod_revision, None).await {
            Ok(_) => return,
            Err(StoreError::Conflict {
                current: Some(current),
                ..
            }) => kv = *current,
            Err(error) => panic!("expected Conflict, got {error}"),
        }
    }
}

fn number(kv: &KeyValue) -> u64 {
    let text = std::str::from_utf8(&kv.value).expect("this check writes numbers");
    text.parse().expect("this check writes numbers")
}

/// Makes random calls on one key and notes the answers.
struct Caller {
    store: Arc<dyn Store>,
    key: String,
    clock: Arc<AtomicU64>,
    random: fastrand::Rng,
    /// The newest state that it was told of.
    known: Option<Revision>,
}

impl Caller {
    async fn run(mut self, calls: usize) -> Vec<Entry> {
        let mut history = Vec::new();
        for _ in 0..calls {
            let start = self.clock.fetch_add(1, Ordering::SeqCst);
            let call = self.call().await;
            let end = self.clock.fetch_add(1, Ordering::SeqCst);
            history.push(Entry { start, end, call });
        }
        history
    }

    async fn call(&mut self) -> Call {
        let call = match (self.random.u8(..10), self.known) {
            (0..3, _) => self.read().await,
            (3..5, _) | (_, None) => self.create().await,
            (5..9, Some(known)) => self.update(known).await,
            (_, Some(known)) => self.delete(known).await,
        };
        self.known = match call {
            Call::Read(state) | Call::Refused(_, state) => state,
            Call::Created(at) | Call::NotCreated(at) | Call::Updated(_, at) => Some(at),
            Call::Deleted(..) => None,
        };
        call
    }

    async fn read(&self) -> Call {
        let read = ok("get", self.store.get(self.key.as_bytes(), None).await);
        Call::Read(read.kv.map(|kv| kv.mod_revision))
    }

    async fn create(&self) -> Call {
        match self.store.create(bytes(&self.key), bytes("v"), None).await {
            Ok(kv) => Call::Created(kv.mod_revision),
            Err(StoreError::AlreadyExists { current }) => Call::NotCreated(current.mod_revision),
            Err(error) => panic!("create failed: {error}"),
        }
    }

    async fn update(&self, known: Revision) -> Call {
        let update = self.store.update(bytes(&self.key), bytes("w"), known, None);
        match update.await {
            Ok(kv) => Call::Updated(known, kv.mod_revision),
            Err(error) => refused(known, error),
        }
    }

    async fn delete(&self, known: Revision) -> Call {
        match self.store.delete(self.key.as_bytes(), Some(known)).await {
            Ok(deleted) => Call::Deleted(known, deleted.revision),
            Err(error) => refused(known, error),
        }
    }
}

fn refused(known: Revision, error: StoreError) -> Call {
    match error {
        StoreError::Conflict { current, .. } => Call::Refused(known, current.map(|kv| kv.mod_revision)),
        other => panic!("expected Conflict, got {other}"),
    }
}
