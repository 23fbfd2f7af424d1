//! The embedded store in real directories.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orch_store::{EmbeddedStore, EventKind, ListOptions, OpenError, Revision, Store, StoreError, Watcher};

async fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::options()
        .segment_size(32 * 1024)
        .checkpoint_after(0)
        .open(path)
        .await
        .unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn size(directory: &Path) -> u64 {
    let entries = directory.read_dir().unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().map_or(0, |metadata| metadata.len()))
        .sum()
}

async fn next(watcher: &mut dyn Watcher) -> orch_store::WatchBatch {
    tokio::time::timeout(Duration::from_secs(30), watcher.next())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn only_the_owner_can_look_in() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    let store = open(&path).await;
    store.create("k".into(), "v".into(), None).await.unwrap();
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = path
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_second_store_is_kept_out_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let error = EmbeddedStore::open(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    store.create("k".into(), "v".into(), None).await.unwrap();
    drop(store);
    let store = open(directory.path()).await;
    assert!(store.get(b"k", None).await.unwrap().kv.is_some());
}

#[tokio::test]
async fn a_store_that_is_gone_leaves_no_lock_to_children_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let spawner = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        }
    });
    for _ in 0..200 {
        drop(EmbeddedStore::open(directory.path()).await.unwrap());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    spawner.join().unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    // Nobody makes directories there, not even root.
    let error = EmbeddedStore::open("/sys/kernel/orch-store-test")
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
    assert_eq!(error.to_string(), "/sys/kernel/orch-store-test is not writable");

    let file = tempfile::NamedTempFile::new().unwrap();
    let error = EmbeddedStore::open(file.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let first = store.create("a".into(), "1".into(), None).await.unwrap();
    let second = store
        .update("a".into(), "2".into(), first.mod_revision, None)
        .await
        .unwrap();
    store.create("b".into(), "x".into(), None).await.unwrap();
    let deleted = store.delete(b"b", None).await.unwrap();
    drop(store);

    let store = open(directory.path()).await;
    assert_eq!(store.current_revision().await.unwrap(), deleted.revision);
    let read = store.get(b"a", None).await.unwrap();
    assert_eq!(read.kv.as_ref(), Some(&second));
    let read = store.get(b"a", Some(first.mod_revision)).await.unwrap();
    assert_eq!(read.kv, Some(first), "history is kept too");
    let mut watcher = store.watch(b"", Revision::FIRST).await.unwrap();
    assert_eq!(next(watcher.as_mut()).await.events.len(), 4);
    let third = store
        .update("a".into(), "3".into(), second.mod_revision, None)
        .await
        .unwrap();
    assert_eq!(third.version, 3);
    assert!(third.mod_revision > deleted.revision);
}

#[tokio::test]
async fn time_to_live_goes_on_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let ttl = Some(Duration::from_millis(400));
    let kept = store.create("kept".into(), "v".into(), ttl).await.unwrap();
    let kv = store.create("k".into(), "v".into(), ttl).await.unwrap();
    let kept = store
        .update("kept".into(), "w".into(), kept.mod_revision, None)
        .await
        .unwrap();
    // Once more through a checkpoint, which has to know the times as well.
    store.compact(kept.mod_revision).await.unwrap();
    drop(store);

    let store = open(directory.path()).await;
    let mut watcher = store.watch(b"", kept.mod_revision).await.unwrap();
    let batch = next(watcher.as_mut()).await;
    assert_eq!(batch.events.len(), 1);
    assert_eq!(batch.events[0].kind, EventKind::Delete);
    assert_eq!(batch.events[0].previous, Some(kv));
    let page = store.list(b"", ListOptions::default()).await.unwrap();
    assert_eq!(page.items, [kept]);
}

#[tokio::test]
async fn compaction_gives_disk_space_back_while_serving() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut kv = store.create("k".into(), "v".into(), None).await.unwrap();
    for _ in 0..200 {
        let value = vec![b'x'; 4096].into();
        let update = store.update(kv.key.clone(), value, kv.mod_revision, None);
        kv = update.await.unwrap();
    }
    let before = size(directory.path());
    assert!(before > 800_000, "{before}");
    store.compact(kv.mod_revision).await.unwrap();
    let freed = async {
        // The thread that does it tells nobody when it is done.
        while size(directory.path()) > 100_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), freed)
        .await
        .unwrap();
    assert_eq!(store.get(b"k", None).await.unwrap().kv, Some(kv.clone()));
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.get(b"k", None).await.unwrap().kv, Some(kv));
    assert!(store.health().await.unwrap().warning.is_none());
}

#[tokio::test]
async fn dropping_the_store_ends_its_watchers() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let kv = store.create("k".into(), "v".into(), None).await.unwrap();
    let mut watcher = store.watch(b"", Revision::FIRST).await.unwrap();
    drop(store);
    assert_eq!(next(watcher.as_mut()).await.events[0].kv, kv);
    for _ in 0..2 {
        assert!(matches!(watcher.next().await, Err(StoreError::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn volatile_and_durable_writes_are_shown_in_one_order() {
    const WRITES: usize = 50;
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedStore::options().volatile_prefix("leases/");
    let store = Arc::new(options.open(directory.path()).await.unwrap());
    let mut watcher = store.watch(b"", Revision::FIRST).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = Arc::clone(&store);
        let kind = if writer % 2 == 0 { "leases" } else { "pods" };
        writers.spawn(async move {
            for round in 0..WRITES {
                let key = format!("{kind}/{writer}/{round}").into();
                store.create(key, "v".into(), None).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let mut seen = Vec::new();
    while seen.len() < 8 * WRITES {
        seen.extend(next(watcher.as_mut()).await.events);
    }
    assert!(seen.is_sorted_by(|a, b| a.revision() < b.revision()));
    assert_eq!(seen.len(), 8 * WRITES);
    drop(store);
    // Closing takes along what had not been written yet.
    let store = open(directory.path()).await;
    let page = store.list(b"leases/", ListOptions::default()).await.unwrap();
    assert_eq!(page.items.len(), 4 * WRITES);
}
