use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::testkit::Fixture;
use crate::testkit::caller::check_history;
use crate::testkit::fixture::{bytes, ok};
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
    for round in 0..8 {
        check_history(fixture, &format!("concurrency/{round}"), round, None).await;
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
