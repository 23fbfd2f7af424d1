use crate::testkit::Fixture;
use crate::{ListOptions, Revision, StoreError};

/// Every write takes a higher revision, which is then the current one; reads take none.
pub async fn a_write_raises_the_revision_and_a_read_does_not(fixture: &Fixture) {
    let start = fixture.now().await;
    assert!(start >= Revision::FIRST);
    let first = fixture.create("revisions/a", "1").await;
    assert!(first.mod_revision > start);
    assert_eq!(fixture.now().await, first.mod_revision);

    let second = fixture.update(&first, "2").await;
    assert!(second.mod_revision > first.mod_revision);
    fixture.get("revisions/a").await;
    fixture.list("revisions/", ListOptions::default()).await;
    assert_eq!(fixture.now().await, second.mod_revision);

    let deleted = fixture.delete(&second).await;
    assert!(deleted > second.mod_revision);
    assert_eq!(fixture.now().await, deleted);
}

/// `create_revision` and `version` belong to one life of a key.
pub async fn versions_count_the_writes_of_one_life(fixture: &Fixture) {
    let first = fixture.create("revisions/a", "1").await;
    assert_eq!(first.create_revision, first.mod_revision);
    assert_eq!(first.version, 1);
    let second = fixture.update(&first, "2").await;
    assert_eq!(second.create_revision, first.create_revision);
    assert_eq!(second.version, 2);
    assert_eq!(fixture.get("revisions/a").await, Some(second.clone()));

    fixture.delete(&second).await;
    let again = fixture.create("revisions/a", "3").await;
    assert_eq!(again.create_revision, again.mod_revision);
    assert_eq!(again.version, 1);
}

/// `get` and `list` at a revision see what was there then, also keys deleted since.
pub async fn reads_at_a_revision_show_the_state_of_that_time(fixture: &Fixture) {
    let store = fixture.store();
    let before = fixture.now().await;
    let first = fixture.create("revisions/a", "1").await;
    let second = fixture.update(&first, "2").await;
    let other = fixture.create("revisions/b", "x").await;
    let deleted = fixture.delete(&second).await;

    let expected = [
        (before, vec![]),
        (first.mod_revision, vec![first]),
        (second.mod_revision, vec![second.clone()]),
        (other.mod_revision, vec![second, other.clone()]),
        (deleted, vec![other]),
    ];
    for (at, items) in expected {
        let page = fixture.list("revisions/", ListOptions::default().at(at)).await;
        assert_eq!(page.items, items, "the list at {at}");
        assert_eq!(page.revision, at);
        let read = store.get(b"revisions/a", Some(at)).await;
        let read = read.expect("a read within the history");
        let expected = items.into_iter().find(|kv| kv.key == "revisions/a");
        assert_eq!(read.kv, expected, "the key at {at}");
        assert_eq!(read.revision, at);
    }
}

/// What has not happened cannot be read, watched from or compacted.
pub async fn revisions_of_the_future_are_refused(fixture: &Fixture) {
    let store = fixture.store();
    let current = fixture.create("revisions/a", "1").await.mod_revision;
    let future = Revision(current.0 + 1000);
    let errors = [
        store.get(b"revisions/a", Some(future)).await.err(),
        store
            .list(b"revisions/", ListOptions::default().at(future))
            .await
            .err(),
        store.watch(b"revisions/", future).await.err(),
        store.compact(future).await.err(),
    ];
    for error in errors {
        match error {
            Some(StoreError::FutureRevision {
                requested,
                current: told,
            }) => {
                assert_eq!((requested, told), (future, current));
            }
            other => panic!("expected FutureRevision, got {other:?}"),
        }
    }
}
