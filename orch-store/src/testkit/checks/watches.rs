use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::testkit::Fixture;
use crate::testkit::fixture::{bytes, ok};
use crate::{Event, EventKind, KeyValue, ListOptions, Revision, Store, Watcher};

/// Creation, change, deletion and new creation, in order, each with what was there before.
pub async fn a_watch_delivers_every_event_with_its_previous_value(fixture: &Fixture) {
    let mut watcher = fixture.watch("watches/", fixture.now().await).await;
    let (writes, deleted) = one_life_and_another(fixture).await;
    let events = fixture.events(watcher.as_mut(), 4).await;
    check_life(&events, &writes, deleted);
}

/// A watch that begins in the past delivers what it would have then.
pub async fn a_watch_from_the_past_replays_it(fixture: &Fixture) {
    let start = fixture.now().await;
    let (writes, deleted) = one_life_and_another(fixture).await;
    let mut watcher = fixture.watch("watches/", start).await;
    let events = fixture.events(watcher.as_mut(), 4).await;
    check_life(&events, &writes, deleted);

    // The revision to begin from is exclusive.
    let mut watcher = fixture.watch("watches/", writes[1].mod_revision).await;
    let events = fixture.events(watcher.as_mut(), 2).await;
    assert_eq!(events[0].revision(), deleted);
    assert_eq!(events[0].previous.as_ref(), Some(&writes[1]));
}

/// Events of other keys are not delivered.
pub async fn a_watch_keeps_to_its_prefix(fixture: &Fixture) {
    let start = fixture.now().await;
    let mut all = fixture.watch("", start).await;
    let mut some = fixture.watch("watches/a", start).await;
    for key in ["watches/a", "watches", "watches/b", "watches/a/1", "x"] {
        fixture.create(key, "v").await;
    }
    let events = fixture.events(some.as_mut(), 2).await;
    assert_eq!(keys(&events), ["watches/a", "watches/a/1"]);
    let events = fixture.events(all.as_mut(), 5).await;
    assert_eq!(
        keys(&events),
        ["watches/a", "watches", "watches/b", "watches/a/1", "x"]
    );
}

/// Without events of its own a watcher can still say that it is up to date, before and while it waits.
pub async fn a_quiet_watcher_tells_its_progress_when_asked(fixture: &Fixture) {
    let mut watcher = fixture.watch("watches/", fixture.now().await).await;
    let current = fixture.create("elsewhere/a", "1").await.mod_revision;
    watcher.progress_requester().request();
    let batch = fixture.batch(watcher.as_mut()).await;
    assert_eq!(batch.events, []);
    assert!(batch.revision >= current);

    let requester = watcher.progress_requester();
    let waiting = tokio::spawn(async move {
        let batch = watcher.next().await;
        (watcher, batch)
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let current = fixture.create("elsewhere/b", "1").await.mod_revision;
    requester.request();
    let (mut watcher, batch) = fixture
        .soon("the progress mark", waiting)
        .await
        .expect("the waiting task ends");
    let batch = ok("the watcher's next", batch);
    assert_eq!(batch.events, []);
    assert!(batch.revision >= current);

    // One that comes with events still answers.
    let kv = fixture.create("watches/a", "1").await;
    watcher.progress_requester().request();
    let events = fixture.events_until(watcher.as_mut(), kv.mod_revision).await;
    assert_eq!(events.len(), 1);
}

/// Dropping the future of `next` again and again loses nothing.
pub async fn a_cancelled_wait_loses_no_event(fixture: &Fixture) {
    const COUNT: usize = 200;
    let mut watcher = fixture.watch("watches/", fixture.now().await).await;
    let writer = tokio::spawn(write_many(fixture.store(), COUNT));
    let mut events = Vec::new();
    let all = async {
        while events.len() < COUNT {
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_micros(50)) => {}
                batch = watcher.next() => events.extend(ok("next", batch).events),
            }
        }
    };
    fixture.soon("the last event", all).await;
    let written = writer.await.expect("the writer ends");
    let seen: Vec<_> = events.iter().map(|event| event.kv.clone()).collect();
    assert_eq!(seen, written);
}

/// A watcher that is lost in the middle is replaced by one from the last revision.
pub async fn a_watch_goes_on_where_another_ended(fixture: &Fixture) {
    const COUNT: usize = 200;
    let mut reached = fixture.now().await;
    let writer = tokio::spawn(write_many(fixture.store(), COUNT));
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        let mut watcher = fixture.watch("watches/", reached).await;
        let batch = fixture.batch(watcher.as_mut()).await;
        reached = batch.revision;
        seen.extend(batch.events.iter().map(|event| event.kv.clone()));
    }
    assert_eq!(seen, writer.await.expect("the writer ends"));
}

/// A cache filled by a list and kept by a watch from the list's revision ends up as the store does.
pub async fn list_and_watch_together_miss_nothing(fixture: &Fixture) {
    let writer = tokio::spawn(churn(fixture.store()));
    for _ in 0..10 {
        let page = fixture.list("watches/", ListOptions::default()).await;
        let mut cache: BTreeMap<_, _> = page.items.iter().map(|kv| (kv.key.clone(), kv.clone())).collect();
        let mut watcher = fixture.watch("watches/", page.revision).await;
        let target = fixture.list("watches/", ListOptions::default()).await;
        let mut reached = page.revision;
        watcher.progress_requester().request();
        while reached < target.revision {
            let batch = fixture.batch(watcher.as_mut()).await;
            for event in batch.events.iter() {
                if event.revision() <= target.revision {
                    follow(&mut cache, event);
                }
            }
            reached = batch.revision;
        }
        let cached: Vec<_> = cache.into_values().collect();
        assert_eq!(cached, target.items, "at {}", target.revision);
    }
    writer.await.expect("the writer ends");
}

/// Many watchers of overlapping prefixes see the same events in the same order.
pub async fn many_watchers_see_the_same(fixture: &Fixture) {
    const COUNT: usize = 100;
    let start = fixture.now().await;
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..50 {
        let prefix = if reader % 2 == 0 { "watches/" } else { "watch" };
        let mut watcher = fixture.watch(prefix, start).await;
        readers.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < COUNT {
                let batch = ok("next", watcher.next().await);
                seen.extend(batch.events.iter().map(|event| event.kv.clone()));
            }
            seen
        });
    }
    let written = write_many(fixture.store(), COUNT).await;
    let all = fixture.soon("the last event of all", readers.join_all()).await;
    for seen in all {
        assert_eq!(seen, written);
    }
}

/// An event is not seen before the state that it tells of.
pub async fn who_sees_an_event_reads_its_state(fixture: &Fixture) {
    const COUNT: usize = 100;
    let mut watcher = fixture.watch("watches/", fixture.now().await).await;
    let writer = tokio::spawn(write_many(fixture.store(), COUNT));
    let mut seen = 0;
    while seen < COUNT {
        let batch = fixture.batch(watcher.as_mut()).await;
        seen += batch.events.len();
        let current = fixture.now().await;
        assert!(current >= batch.revision, "{current} < {}", batch.revision);
        for event in &batch.events {
            let read = fixture.store().get(event.key(), None).await;
            let read = ok("get", read);
            assert!(read.revision >= event.revision());
            let kv = read.kv.expect("the key is there");
            assert!(kv.mod_revision >= event.revision());
        }
    }
    writer.await.expect("the writer ends");
}

async fn one_life_and_another(fixture: &Fixture) -> ([KeyValue; 3], Revision) {
    let first = fixture.create("watches/a", "1").await;
    let second = fixture.update(&first, "2").await;
    let deleted = fixture.delete(&second).await;
    let third = fixture.create("watches/a", "3").await;
    ([first, second, third], deleted)
}

fn check_life(events: &[Arc<Event>], writes: &[KeyValue; 3], deleted: Revision) {
    let [first, second, third] = writes;
    let put = |kv: &KeyValue, previous: Option<&KeyValue>| Event {
        kind: EventKind::Put,
        kv: kv.clone(),
        previous: previous.cloned(),
    };
    assert_eq!(*events[0], put(first, None));
    assert!(events[0].is_create());
    assert_eq!(*events[1], put(second, Some(first)));
    assert_eq!(events[2].kind, EventKind::Delete);
    assert_eq!(events[2].revision(), deleted);
    assert_eq!(events[2].key(), &second.key);
    assert_eq!(events[2].kv.value, "");
    assert_eq!(events[2].previous.as_ref(), Some(second));
    assert_eq!(*events[3], put(third, None));
}

fn keys(events: &[Arc<Event>]) -> Vec<&str> {
    let keys = events.iter().map(|event| std::str::from_utf8(event.key()));
    keys.map(|key| key.expect("keys of this check are text"))
        .collect()
}

/// Ten keys, written round and round.
async fn write_many(store: Arc<dyn Store>, count: usize) -> Vec<KeyValue> {
    let mut newest: BTreeMap<usize, KeyValue> = BTreeMap::new();
    let mut written = Vec::new();
    for round in 0..count {
        let key = bytes(&format!("watches/{}", round % 10));
        let value = bytes(&round.to_string());
        let kv = match newest.get(&(round % 10)) {
            None => store.create(key, value, None).await,
            Some(kv) => store.update(key, value, kv.mod_revision, None).await,
        };
        let kv = ok("write", kv);
        newest.insert(round % 10, kv.clone());
        written.push(kv);
    }
    written
}

/// Creates, changes and deletes a few keys for a while.
async fn churn(store: Arc<dyn Store>) {
    for round in 0..300_u32 {
        let key = bytes(&format!("watches/{}", round % 7));
        let current = ok("get", store.get(&key, None).await).kv;
        match current {
            None => drop(ok("create", store.create(key, Bytes::new(), None).await)),
            Some(kv) if round % 3 == 0 => {
                ok("delete", store.delete(&key, Some(kv.mod_revision)).await);
            }
            Some(kv) => {
                let value = bytes(&round.to_string());
                ok("update", store.update(key, value, kv.mod_revision, None).await);
            }
        }
    }
}

fn follow(cache: &mut BTreeMap<Bytes, KeyValue>, event: &Event) {
    let before = cache.get(event.key()).cloned();
    assert_eq!(before, event.previous, "the cache knows the previous value");
    match event.kind {
        EventKind::Put => cache.insert(event.key().clone(), event.kv.clone()),
        EventKind::Delete => cache.remove(event.key()),
    };
}

/// Used by the checks of compaction: all that is left to read before an error.
pub(super) async fn drain(
    fixture: &Fixture,
    watcher: &mut dyn Watcher,
) -> (Vec<Arc<Event>>, Option<crate::StoreError>) {
    let mut events = Vec::new();
    loop {
        // Again each time: a batch of events may have been the answer to the request before.
        watcher.progress_requester().request();
        match fixture.soon("the next event", watcher.next()).await {
            Ok(batch) if batch.events.is_empty() => return (events, None),
            Ok(batch) => events.extend(batch.events),
            Err(error) => return (events, Some(error)),
        }
    }
}
