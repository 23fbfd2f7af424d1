use std::time::Instant;

use crate::EventKind;
use crate::testkit::Fixture;
use crate::testkit::fixture::{bytes, ok};

/// A key with a time to live is there until then, and its end is an event like any other.
pub async fn a_key_ends_when_its_time_is_over(fixture: &Fixture) {
    let ttl = fixture.shortest_ttl();
    let mut watcher = fixture.watch("ttl/", fixture.now().await).await;
    let started = Instant::now();
    let store = fixture.store();
    let create = store.create(bytes("ttl/a"), bytes("1"), Some(ttl));
    let kv = ok("create", create.await);
    let forever = fixture.create("ttl/b", "1").await;
    fixture.events(watcher.as_mut(), 2).await;

    let events = fixture.events(watcher.as_mut(), 1).await;
    assert!(started.elapsed() >= ttl, "it ended early");
    assert_eq!(events[0].kind, EventKind::Delete);
    assert_eq!(events[0].previous, Some(kv));
    assert_eq!(fixture.get("ttl/a").await, None);
    assert_eq!(fixture.get("ttl/b").await, Some(forever));
}

/// Each update sets the time anew, or lifts it.
pub async fn an_update_renews_or_lifts_the_time_to_live(fixture: &Fixture) {
    let store = fixture.store();
    let ttl = fixture.shortest_ttl();
    let mut renewed = ok(
        "create",
        store.create(bytes("ttl/renewed"), bytes("0"), Some(ttl)).await,
    );
    let lifted = ok(
        "create",
        store.create(bytes("ttl/lifted"), bytes("0"), Some(ttl)).await,
    );
    let lifted = fixture.update(&lifted, "1").await;
    let mut last = Instant::now();
    for round in 0..4 {
        tokio::time::sleep(ttl / 3).await;
        last = Instant::now();
        let value = bytes(&round.to_string());
        let update = store.update(renewed.key.clone(), value, renewed.mod_revision, Some(ttl));
        renewed = ok("update of a key that is kept alive", update.await);
    }
    let mut watcher = fixture.watch("ttl/", renewed.mod_revision).await;
    let events = fixture.events(watcher.as_mut(), 1).await;
    assert!(last.elapsed() >= ttl, "it ended early");
    assert_eq!(events[0].kind, EventKind::Delete);
    assert_eq!(events[0].previous, Some(renewed));
    assert_eq!(fixture.get("ttl/lifted").await, Some(lifted));
}
