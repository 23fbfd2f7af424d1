use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::testkit::Fixture;
use crate::testkit::caller::{check_history, is_passing};
use crate::testkit::fixture::bytes;
use crate::{EventKind, KeyValue, ListOptions, Revision, Store, StoreError};

/// How often the store is disrupted.
const DISRUPTIONS: usize = 3;

/// However often the way to the store is lost, a watcher delivers every event once, in order and with its previous
/// value, and no acknowledged write is lost. A store that nothing can disrupt has it easy.
pub async fn a_disrupted_watch_misses_nothing(fixture: &Fixture) {
    const WRITERS: usize = 4;
    let start = fixture.now().await;
    let mut watcher = fixture.watch("disruption/", start).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let key = bytes(&format!("disruption/{writer}"));
        writers.spawn(count_up(fixture.store(), key, Arc::clone(&is_over)));
    }
    let progress = watcher.progress_requester();
    let collect = async {
        let mut events = Vec::new();
        loop {
            let batch = fixture.batch(watcher.as_mut()).await;
            events.extend(batch.events);
            if is_over.load(Ordering::Acquire) {
                return (events, watcher);
            }
        }
    };
    let disrupt = async {
        for _ in 0..DISRUPTIONS {
            fixture.disrupted().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        is_over.store(true, Ordering::Release);
        // If all has been delivered already, this ends the wait.
        progress.request();
    };
    let ((mut events, mut watcher), ()) = tokio::join!(collect, disrupt);
    let acknowledged: Vec<KeyValue> = fixture.soon("the last write", writers.join_all()).await;
    let current = fixture.now_soon().await;
    events.extend(fixture.events_until(watcher.as_mut(), current).await);

    let mut state: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    let mut last = start;
    for event in events {
        assert!(event.revision() > last, "{event:?} came after {last}");
        last = event.revision();
        assert_eq!(event.kind, EventKind::Put);
        let before = state.insert(event.key().clone(), event.kv.clone());
        assert_eq!(before, event.previous, "nothing is left out before {last}");
    }
    for kv in acknowledged {
        assert!(
            state[&kv.key].mod_revision >= kv.mod_revision,
            "{kv:?} was acknowledged"
        );
    }
    let page = fixture.list("disruption/", ListOptions::default()).await;
    assert_eq!(page.items, state.into_values().collect::<Vec<_>>());
}

/// Also when answers are lost there is an order that explains all that were given.
pub async fn disrupted_histories_are_linearizable(fixture: &Fixture) {
    let is_over = AtomicBool::new(false);
    let disrupt = async {
        for _ in 0..DISRUPTIONS {
            fixture.disrupted().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        is_over.store(true, Ordering::Release);
    };
    let check = async {
        let mut round = 0;
        while !is_over.load(Ordering::Acquire) || round == 0 {
            let key = format!("disruption/{round}");
            check_history(fixture, &key, round, Some(Duration::from_millis(30))).await;
            round += 1;
        }
    };
    tokio::join!(disrupt, check);
}

/// Any call may be given up at any time: what is acknowledged stays, what others see is whole, and later calls work.
pub async fn every_call_may_be_cancelled(fixture: &Fixture) {
    const ROUNDS: u32 = 300;
    let start = fixture.now().await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut acknowledged: BTreeMap<Bytes, Revision> = BTreeMap::new();
    for round in 0..ROUNDS {
        let (store, key) = (fixture.store(), bytes(&format!("cancel/{}", random.u8(..4))));
        let name = key.clone();
        let call = tokio::spawn(async move { one_call(store.as_ref(), &name, round).await });
        for _ in 0..random.u32(0..6) {
            tokio::task::yield_now().await;
        }
        if random.bool() {
            call.abort();
        }
        match call.await {
            Ok(Ok(written)) => drop(written.map(|revision| acknowledged.insert(key, revision))),
            // A call that was given up before has arrived since.
            Ok(Err(error)) => assert!(error.is_conflict(), "{error}"),
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
    }
    let current = fixture.now().await;
    let mut watcher = fixture.watch("cancel/", start).await;
    let mut state: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    let mut newest: BTreeMap<Bytes, Revision> = BTreeMap::new();
    for event in fixture.events_until(watcher.as_mut(), current).await {
        let before = match event.kind {
            EventKind::Put => state.insert(event.key().clone(), event.kv.clone()),
            EventKind::Delete => state.remove(event.key()),
        };
        assert_eq!(before, event.previous);
        newest.insert(event.key().clone(), event.revision());
    }
    for (key, revision) in acknowledged {
        assert!(newest[&key] >= revision, "{key:?} was acknowledged at {revision}");
    }
    let at = ListOptions::default().at(current);
    let page = fixture.list("cancel/", at).await;
    assert_eq!(page.items, state.into_values().collect::<Vec<_>>());
}

/// A call of any kind; the revision that it has written.
async fn one_call(store: &dyn Store, key: &Bytes, round: u32) -> Result<Option<Revision>, StoreError> {
    let current = store.get(key, None).await?;
    let value = bytes(&round.to_string());
    match (round % 7, current.kv) {
        (0, _) => drop(store.list(b"cancel/", ListOptions::default().limit(2)).await?),
        (1, _) => {
            let mut watcher = store.watch(b"cancel/", current.revision).await?;
            watcher.progress_requester().request();
            watcher.next().await?;
        }
        // To where the history begins anyhow: what is checked is only that it can be given up.
        (2, _) => store.compact(Revision::FIRST).await?,
        (3, _) => drop(store.health().await?),
        (_, None) => return Ok(Some(store.create(key.clone(), value, None).await?.mod_revision)),
        (4, Some(kv)) => return Ok(Some(store.delete(key, Some(kv.mod_revision)).await?.revision)),
        (_, Some(kv)) => {
            let update = store.update(key.clone(), value, kv.mod_revision, None);
            return Ok(Some(update.await?.mod_revision));
        }
    }
    Ok(None)
}

/// Counts up in a key until told to stop; the last write that was acknowledged.
async fn count_up(store: Arc<dyn Store>, key: Bytes, is_over: Arc<AtomicBool>) -> KeyValue {
    let mut acknowledged = None;
    let mut number = 0_u64;
    while acknowledged.is_none() || !is_over.load(Ordering::Acquire) {
        match write_next(store.as_ref(), &key, number).await {
            Ok(kv) => acknowledged = Some(kv),
            Err(error) => assert!(is_passing(&error) || error.is_conflict(), "{error}"),
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    acknowledged.expect("the loop ends with one")
}

async fn write_next(store: &dyn Store, key: &Bytes, number: u64) -> Result<KeyValue, StoreError> {
    let value = bytes(&number.to_string());
    // Read each time: whether a write happened whose answer was lost, only this tells.
    match store.get(key, None).await?.kv {
        None => store.create(key.clone(), value, None).await,
        Some(kv) => store.update(key.clone(), value, kv.mod_revision, None).await,
    }
}
