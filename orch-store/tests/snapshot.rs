//! Directories that are read beside their store, filled from another one, and given back.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use orch_store::{
    EmbeddedStore, ImportError, KeyValue, ListOptions, OpenError, Revision, SnapshotContent, Store,
    StoreError,
};

async fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::options()
        .segment_size(16 * 1024)
        .checkpoint_after(0)
        .open(path)
        .await
        .unwrap()
}

async fn put(store: &EmbeddedStore, key: &str, value: &str) -> KeyValue {
    store
        .create(key.to_owned().into(), value.to_owned().into(), None)
        .await
        .unwrap()
}

/// Every file's name and bytes.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn keys(items: &[KeyValue]) -> Vec<&[u8]> {
    items.iter().map(|kv| kv.key.as_ref()).collect()
}

#[tokio::test]
async fn a_snapshot_is_read_beside_the_store_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let a = put(&store, "a", "1").await;
    put(&store, "b", "2").await;
    store.delete(b"b", None).await.unwrap();
    let before = contents(directory.path());

    let snapshot = EmbeddedStore::snapshot_of(directory.path()).await.unwrap();
    assert_eq!(contents(directory.path()), before);
    assert_eq!(snapshot.revision(), store.current_revision().await.unwrap());
    assert_eq!(snapshot.shown(), snapshot.revision());
    assert!(!snapshot.was_closed());
    let page = snapshot.list(b"", &ListOptions::default()).unwrap();
    assert_eq!(page.items, std::slice::from_ref(&a));
    let earlier = snapshot
        .list(b"", &ListOptions::default().at(Revision(3)))
        .unwrap();
    assert_eq!(keys(&earlier.items), [b"a", b"b"]);
    assert_eq!(snapshot.get(b"a", None).unwrap().kv, Some(a));
    let mut watcher = store.watch(b"", Revision(2)).await.unwrap();
    assert_eq!(
        snapshot.events(Revision(2)).unwrap(),
        watcher.next().await.unwrap().events
    );
    assert!(snapshot.events(Revision(4)).unwrap().is_empty());
    let error = snapshot.events(Revision(5)).unwrap_err();
    assert!(matches!(error, StoreError::FutureRevision { .. }), "{error}");
    let error = snapshot.get(b"a", Some(Revision(99))).unwrap_err();
    assert!(matches!(error, StoreError::FutureRevision { .. }), "{error}");

    drop(store);
    let snapshot = EmbeddedStore::snapshot_of(directory.path()).await.unwrap();
    assert!(snapshot.was_closed());
    let [file] = snapshot.files() else {
        panic!("{:?}", snapshot.files());
    };
    assert_eq!(file.content, SnapshotContent::Log { frames: 3, torn: 0 });
}

#[tokio::test]
async fn a_value_of_zeros_is_not_taken_for_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let zeros = Bytes::from(vec![0; 5000]);
    let created = store.create("k".into(), zeros, None).await.unwrap();
    let snapshot = EmbeddedStore::snapshot_of(directory.path()).await.unwrap();
    assert!(!snapshot.was_closed());
    assert_eq!(snapshot.get(b"k", None).unwrap().kv, Some(created));
}

#[tokio::test]
async fn a_directory_without_a_store_has_no_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for path in [directory.path(), &missing] {
        let error = EmbeddedStore::snapshot_of(path).await.unwrap_err();
        assert!(matches!(error, OpenError::NoStore { .. }), "{error:?}");
        let error = EmbeddedStore::options()
            .must_exist()
            .open(path)
            .await
            .unwrap_err();
        assert!(matches!(error, OpenError::NoStore { .. }), "{error:?}");
    }
    assert!(!missing.exists());
    drop(open(&missing).await);
    EmbeddedStore::options()
        .must_exist()
        .open(&missing)
        .await
        .unwrap();
}

#[tokio::test]
async fn damage_that_stays_is_told_from_a_directory_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    put(&store, "a", "1").await;
    put(&store, "b", "2").await;
    let log = directory.path().join("log-00000000000000000001");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[90] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let error = EmbeddedStore::snapshot_of(directory.path()).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(
        text,
        "log-00000000000000000001 is damaged at byte 60: a frame is damaged, and it is not the last one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn snapshots_under_load_and_compaction_are_states_that_were() {
    const WRITERS: u64 = 4;
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()).await);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let key = Bytes::from(format!("writer/{writer}"));
            let mut last = store.create(key.clone(), "1".into(), None).await.unwrap();
            for number in 2_u64.. {
                let value = format!("{number}{}", " ".repeat(fastrand::usize(..3000)));
                let update = store.update(key.clone(), value.into(), last.mod_revision, None);
                last = update.await.unwrap();
            }
        });
    }
    for _ in 0..40 {
        let acknowledged = store.current_revision().await.unwrap();
        store.compact(acknowledged).await.unwrap();
        let snapshot = EmbeddedStore::snapshot_of(directory.path()).await.unwrap();
        assert!(snapshot.revision() >= acknowledged);
        let items = snapshot.list(b"", &ListOptions::default()).unwrap().items;
        // Every revision is one write of one key, so a state that was has all of them accounted for.
        let writes: u64 = items.iter().map(|kv| kv.version).sum();
        assert_eq!(snapshot.revision(), Revision(1 + writes));
        for kv in items {
            let value = std::str::from_utf8(&kv.value).unwrap();
            assert_eq!(value.trim().parse::<u64>().unwrap(), kv.version);
        }
    }
    writers.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_tells_what_volatile_writes_may_have_shown() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedStore::options().volatile_prefix("leases/");
    let store = options.open(directory.path()).await.unwrap();
    put(&store, "leases/a", "1").await;
    put(&store, "pods/a", "1").await;
    put(&store, "leases/b", "1").await;
    let snapshot = EmbeddedStore::snapshot_of(directory.path()).await.unwrap();
    assert!(snapshot.revision() >= Revision(3));
    assert!(snapshot.shown() > Revision(4));
    drop(store);
    let snapshot = EmbeddedStore::snapshot_of(directory.path()).await.unwrap();
    assert_eq!(
        (snapshot.revision(), snapshot.shown()),
        (Revision(4), Revision(4))
    );
}

fn some(key: &'static str, mod_revision: u64) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: "v".into(),
        create_revision: Revision(2),
        mod_revision: Revision(mod_revision),
        version: mod_revision - 1,
    }
}

#[tokio::test]
async fn an_import_keeps_revisions_and_times_to_live() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    let (a, b) = (some("a", 7), some("b", 3));
    let soon = SystemTime::now() + Duration::from_millis(300);
    let mut import = EmbeddedStore::import(&path, Revision(9)).await.unwrap();
    import.push(&a, None).unwrap();
    import.push(&b, Some(soon)).unwrap();
    assert_eq!(import.finish().unwrap(), Revision(9));

    let snapshot = EmbeddedStore::snapshot_of(&path).await.unwrap();
    assert!(snapshot.was_closed());
    assert_eq!(snapshot.expires(&a), None);
    let left = snapshot.expires(&b).unwrap().duration_since(soon);
    assert!(left.is_ok() || left.is_err_and(|error| error.duration() < Duration::from_millis(2)));

    let store = open(&path).await;
    assert_eq!(store.get(b"a", None).await.unwrap().kv, Some(a));
    let error = store.watch(b"", Revision(8)).await.err().unwrap();
    assert!(error.is_compacted(), "{error}");
    let mut watcher = store.watch(b"b", Revision(9)).await.unwrap();
    let batch = tokio::time::timeout(Duration::from_secs(30), watcher.next()).await;
    let batch = batch.unwrap().unwrap();
    assert_eq!(batch.events[0].previous, Some(b));
    assert_eq!(batch.events[0].revision(), Revision(10));
}

#[tokio::test]
async fn an_import_that_ends_early_leaves_an_empty_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut import = EmbeddedStore::import(directory.path(), Revision(9))
        .await
        .unwrap();
    let error = EmbeddedStore::open(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    // Larger than a block, so that some of it is on disk.
    let mut kv = some("a", 5);
    kv.value = vec![b'x'; 1024 * 1024].into();
    import.push(&kv, None).unwrap();
    drop(import);

    let store = open(directory.path()).await;
    assert_eq!(store.current_revision().await.unwrap(), Revision::FIRST);
    assert!(
        store
            .list(b"", ListOptions::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    store.reclaimed().await;
    let names: Vec<_> = contents(directory.path()).into_keys().collect();
    assert_eq!(names, ["lock", "log-00000000000000000001"]);
}

#[tokio::test]
async fn an_import_takes_the_place_of_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    put(&store, "a", "1").await;
    drop(store);
    let error = EmbeddedStore::import(directory.path(), Revision(9))
        .await
        .unwrap_err();
    assert!(matches!(error, ImportError::NotEmpty { keys: 1, .. }), "{error}");

    // Once the keys are gone it may, but no revision comes twice.
    let store = open(directory.path()).await;
    let deleted = store.delete(b"a", None).await.unwrap();
    drop(store);
    let mut import = EmbeddedStore::import(directory.path(), Revision(2))
        .await
        .unwrap();
    import.push(&some("b", 2), None).unwrap();
    assert_eq!(import.finish().unwrap(), deleted.revision);
    let store = open(directory.path()).await;
    assert_eq!(store.current_revision().await.unwrap(), deleted.revision);
    assert_eq!(put(&store, "c", "1").await.mod_revision, Revision(4));
    let page = store.list(b"", ListOptions::default()).await.unwrap();
    assert_eq!(keys(&page.items), [b"b", b"c"]);
}

#[tokio::test]
async fn an_import_refuses_what_no_store_could_hold() {
    let directory = tempfile::tempdir().unwrap();
    let mut import = EmbeddedStore::import(directory.path(), Revision(9))
        .await
        .unwrap();
    import.push(&some("b", 5), None).unwrap();
    let never_written = KeyValue {
        version: 0,
        ..some("c", 5)
    };
    for (kv, reason) in [
        (some("a", 5), "it does not come after the one before"),
        (some("b", 5), "it does not come after the one before"),
        (some("c", 10), "it was written after the revision of the state"),
        (never_written, "its revisions contradict each other"),
        (some("", 5), "it is empty"),
    ] {
        match import.push(&kv, None).unwrap_err() {
            ImportError::Invalid { reason: found, .. } => assert_eq!(found, reason),
            other => panic!("{other}"),
        }
    }
    import.push(&some("c", 9), None).unwrap();
    import.finish().unwrap();
}

#[tokio::test]
async fn skipped_revisions_are_never_given_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let a = put(&store, "a", "1").await;
    drop(store);
    for _ in 0..2 {
        let options = EmbeddedStore::options().skip_to_revision(Revision(1000));
        let store = options.open(directory.path()).await.unwrap();
        assert_eq!(store.current_revision().await.unwrap(), Revision(1000));
        assert_eq!(store.get(b"a", None).await.unwrap().kv.as_ref(), Some(&a));
        let error = store.watch(b"", a.mod_revision).await.err().unwrap();
        assert!(error.is_compacted(), "{error}");
    }
    let store = open(directory.path()).await;
    assert_eq!(put(&store, "b", "1").await.mod_revision, Revision(1001));
    drop(store);
    let options = EmbeddedStore::options().skip_to_revision(Revision(1000));
    let store = options.open(directory.path()).await.unwrap();
    assert!(
        store.watch(b"", Revision(1000)).await.is_ok(),
        "it was beyond, and kept its history"
    );
}

#[tokio::test]
async fn a_new_store_can_begin_at_any_revision() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedStore::options().skip_to_revision(Revision(1000));
    let store = options.open(directory.path()).await.unwrap();
    let written = put(&store, "a", "1").await;
    assert_eq!(written.mod_revision, Revision(1001));
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.get(b"a", None).await.unwrap().kv, Some(written));
    assert_eq!(store.health().await.unwrap().compacted, Revision(1000));
}

#[tokio::test]
async fn a_store_that_was_reclaimed_has_no_file_too_many() {
    let directory = tempfile::tempdir().unwrap();
    // All in one segment, and no write after the compaction.
    let options = EmbeddedStore::options().checkpoint_after(0);
    let store = options.open(directory.path()).await.unwrap();
    let mut kv = put(&store, "k", "v").await;
    for _ in 0..100 {
        let update = store.update("k".into(), vec![b'x'; 4096].into(), kv.mod_revision, None);
        kv = update.await.unwrap();
    }
    store.compact(kv.mod_revision).await.unwrap();
    store.reclaimed().await;
    let size: usize = contents(directory.path()).values().map(Vec::len).sum();
    assert!(size < 10_000, "{size}");
}
