use std::sync::Arc;

use crate::testkit::Fixture;
use crate::testkit::fixture::{bytes, ok};
use crate::{KeyValue, ListOptions, Revision, Store, StoreError};

use super::watches::drain;

/// Before the revision nothing can be read; at it and after it everything can.
pub async fn compacted_history_is_gone_and_the_rest_stays(fixture: &Fixture) {
    let store = fixture.store();
    let first = fixture.create("compaction/a", "1").await;
    let gone = fixture.create("compaction/gone", "x").await;
    let deleted = fixture.delete(&gone).await;
    let second = fixture.update(&first, "2").await;
    let third = fixture.update(&second, "3").await;
    fixture.compact(second.mod_revision).await;

    for old in [first.mod_revision, deleted] {
        let errors = [
            store.get(b"compaction/a", Some(old)).await.err(),
            store
                .list(b"compaction/", ListOptions::default().at(old))
                .await
                .err(),
        ];
        for error in errors {
            expect_compacted(error, old, second.mod_revision);
        }
    }
    for kv in [&second, &third] {
        let at = kv.mod_revision;
        let page = fixture.list("compaction/", ListOptions::default().at(at)).await;
        assert_eq!(page.items, std::slice::from_ref(kv));
    }
    assert_eq!(fixture.get("compaction/a").await, Some(third.clone()));
    fixture.update(&third, "4").await;
}

/// A watch from before the compaction is refused, one from it on is not.
pub async fn a_watch_cannot_begin_before_the_compaction(fixture: &Fixture) {
    let store = fixture.store();
    let start = fixture.now().await;
    let first = fixture.create("compaction/a", "1").await;
    let second = fixture.update(&first, "2").await;
    let third = fixture.update(&second, "3").await;
    fixture.compact(second.mod_revision).await;
    expect_compacted(
        store.watch(b"compaction/", start).await.err(),
        start,
        second.mod_revision,
    );
    let mut watcher = fixture.watch("compaction/", second.mod_revision).await;
    let events = fixture.events(watcher.as_mut(), 1).await;
    assert_eq!(events[0].kv, third);
    assert_eq!(
        events[0].previous,
        Some(second),
        "the state at the compaction is kept for this"
    );
}

/// Compacting again, or to less, changes nothing.
pub async fn compaction_may_be_repeated(fixture: &Fixture) {
    let first = fixture.create("compaction/a", "1").await;
    let second = fixture.update(&first, "2").await;
    let third = fixture.update(&second, "3").await;
    for revision in [&second, &second, &first, &third, &second] {
        fixture.compact(revision.mod_revision).await;
    }
    assert_eq!(fixture.get("compaction/a").await, Some(third.clone()));
    let error = fixture
        .store()
        .get(b"compaction/a", Some(second.mod_revision))
        .await
        .err();
    expect_compacted(error, second.mod_revision, third.mod_revision);
}

/// A watcher that has delivered everything is not behind, however old its last event is.
pub async fn a_waiting_watcher_survives_compaction(fixture: &Fixture) {
    let mut watcher = fixture.watch("compaction/", fixture.now().await).await;
    let first = fixture.create("compaction/a", "1").await;
    fixture.events(watcher.as_mut(), 1).await;
    let mut last = first.mod_revision;
    for round in 0..50 {
        last = fixture
            .create(&format!("elsewhere/{round}"), "x")
            .await
            .mod_revision;
    }
    fixture.compact(last).await;
    let second = fixture.update(&first, "2").await;
    let events = fixture.events(watcher.as_mut(), 1).await;
    assert_eq!(events[0].kv, second);
    assert_eq!(events[0].previous, Some(first));
}

/// A watcher that was overtaken by compaction either had its events safe or says so: it never skips one.
pub async fn a_slow_watcher_is_complete_or_cut_off(fixture: &Fixture) {
    let mut watcher = fixture.watch("compaction/", fixture.now().await).await;
    let mut written = vec![fixture.create("compaction/a", "0").await];
    for round in 1..300 {
        let next = fixture.update(&written[round - 1], &round.to_string()).await;
        written.push(next);
    }
    fixture.compact(written[250].mod_revision).await;
    let (events, error) = drain(fixture, watcher.as_mut()).await;
    let seen: Vec<_> = events.iter().map(|event| event.kv.clone()).collect();
    match error {
        None => assert_eq!(seen, written),
        Some(error) => {
            assert!(error.is_compacted(), "{error}");
            assert_eq!(seen, written[..seen.len()], "what came before it was complete");
            let again = fixture.soon("the same error", watcher.next()).await;
            assert!(again.is_err(), "an error is the end of the watcher");
        }
    }
}

/// Writers, pages and watchers go on while history is cut off behind them again and again.
pub async fn compaction_under_load_disturbs_nobody(fixture: &Fixture) {
    const WRITERS: usize = 4;
    const WRITES: usize = 100;
    let start = fixture.now().await;
    let mut watcher = fixture.watch("compaction/", start).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(rewrite(fixture.store(), writer, WRITES));
    }
    let mut seen = Vec::new();
    while seen.len() < WRITERS * WRITES {
        let batch = fixture.batch(watcher.as_mut()).await;
        seen.extend(batch.events);
        // Up to what the watcher has delivered: it must not notice.
        fixture.compact(batch.revision).await;
        let page = fixture.list("compaction/", ListOptions::default()).await;
        assert!(page.items.len() <= WRITERS);
    }
    let mut newest = writers.join_all().await;
    newest.sort_by(|a, b| a.key.cmp(&b.key));
    let page = fixture.list("compaction/", ListOptions::default()).await;
    assert_eq!(page.items, newest);
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].revision() < pair[1].revision())
    );
}

async fn rewrite(store: Arc<dyn Store>, writer: usize, writes: usize) -> KeyValue {
    let key = bytes(&format!("compaction/{writer}"));
    let mut kv = ok("create", store.create(key, bytes("0"), None).await);
    for round in 1..writes {
        let value = bytes(&round.to_string());
        let update = store.update(kv.key.clone(), value, kv.mod_revision, None);
        kv = ok("update", update.await);
    }
    kv
}

fn expect_compacted(error: Option<StoreError>, asked: Revision, floor: Revision) {
    match error {
        Some(StoreError::Compacted { requested, compacted }) => {
            assert_eq!((requested, compacted), (asked, floor))
        }
        other => panic!("expected Compacted, got {other:?}"),
    }
}
