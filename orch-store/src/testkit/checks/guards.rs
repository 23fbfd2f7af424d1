use crate::testkit::Fixture;
use crate::testkit::fixture::bytes;
use crate::{KeyValue, ListOptions, Revision, StoreError};

/// The second creation of a key gets what is there.
pub async fn a_key_in_use_cannot_be_created(fixture: &Fixture) {
    let first = fixture.create("guards/a", "1").await;
    let again = fixture.store().create(bytes("guards/a"), bytes("2"), None).await;
    match again {
        Err(StoreError::AlreadyExists { current }) => assert_eq!(*current, first),
        other => panic!("expected AlreadyExists, got {other:?}"),
    }
    assert_eq!(fixture.get("guards/a").await, Some(first));
}

/// An update names the newest revision or gets what is there.
pub async fn a_stale_update_is_refused(fixture: &Fixture) {
    let store = fixture.store();
    let first = fixture.create("guards/a", "1").await;
    let second = fixture.update(&first, "2").await;
    let stale = store
        .update(bytes("guards/a"), bytes("3"), first.mod_revision, None)
        .await;
    expect_conflict(stale.err(), first.mod_revision, Some(&second));

    let absent = store
        .update(bytes("guards/none"), bytes("3"), first.mod_revision, None)
        .await;
    expect_conflict(absent.err(), first.mod_revision, None);

    fixture.delete(&second).await;
    let gone = store
        .update(bytes("guards/a"), bytes("3"), second.mod_revision, None)
        .await;
    expect_conflict(gone.err(), second.mod_revision, None);
}

/// A guarded deletion names the newest revision or gets what is there.
pub async fn a_stale_delete_is_refused(fixture: &Fixture) {
    let store = fixture.store();
    let first = fixture.create("guards/a", "1").await;
    let second = fixture.update(&first, "2").await;
    let stale = store.delete(b"guards/a", Some(first.mod_revision)).await;
    expect_conflict(stale.err(), first.mod_revision, Some(&second));
    let absent = store.delete(b"guards/none", Some(first.mod_revision)).await;
    expect_conflict(absent.err(), first.mod_revision, None);

    fixture.delete(&second).await;
    let gone = store.delete(b"guards/a", Some(second.mod_revision)).await;
    expect_conflict(gone.err(), second.mod_revision, None);
}

/// An unguarded deletion removes whatever is there, but not nothing.
pub async fn a_delete_of_nothing_is_refused(fixture: &Fixture) {
    let store = fixture.store();
    let first = fixture.create("guards/a", "1").await;
    let deleted = store.delete(b"guards/a", None).await.expect("it was there");
    assert_eq!(deleted.previous, first);
    assert_eq!(fixture.get("guards/a").await, None);
    match store.delete(b"guards/a", None).await {
        Err(StoreError::NotFound { key, revision }) => {
            assert_eq!(key, "guards/a");
            assert!(revision >= deleted.revision);
        }
        other => panic!("expected NotFound, got {other:?}"),
    }
}

/// A write that is refused takes no revision, leaves no trace, and no watcher hears of it.
pub async fn a_refused_write_changes_nothing(fixture: &Fixture) {
    let store = fixture.store();
    let kv = fixture.create("guards/a", "1").await;
    let before = fixture.now().await;
    let mut watcher = fixture.watch("guards/", before).await;
    let wrong = Revision(kv.mod_revision.0 + 1);

    let refusals = [
        store.create(kv.key.clone(), bytes("2"), None).await.is_err(),
        store
            .update(kv.key.clone(), bytes("2"), wrong, None)
            .await
            .is_err(),
        store.delete(&kv.key, Some(wrong)).await.is_err(),
        store.delete(b"guards/none", None).await.is_err(),
        store.create(bytes(""), bytes("2"), None).await.is_err(),
    ];
    assert_eq!(refusals, [true; 5]);
    assert_eq!(fixture.now().await, before);
    let page = fixture.list("guards/", ListOptions::default()).await;
    assert_eq!(page.items, std::slice::from_ref(&kv));

    let next = fixture.update(&kv, "2").await;
    let events = fixture.events(watcher.as_mut(), 1).await;
    assert_eq!(events[0].kv, next, "the first event is the first real write");
}

fn expect_conflict(error: Option<StoreError>, guard: Revision, there: Option<&KeyValue>) {
    match error {
        Some(StoreError::Conflict {
            expected, current, ..
        }) => {
            assert_eq!(expected, guard);
            assert_eq!(current.as_deref(), there);
        }
        other => panic!("expected Conflict, got {other:?}"),
    }
}
