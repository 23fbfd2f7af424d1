//! Backups of a store that another process writes to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use orch_store::{EmbeddedStore, KeyValue, ListOptions, Revision, Store};
use parking_lot::Mutex;

use crate::support::{Folder, block_on, run};

const WRITERS: usize = 6;
const BACKUPS: usize = 12;

/// Every write that was acknowledged, by its revision; `None` for a deletion.
type History = Arc<Mutex<BTreeMap<Revision, (Bytes, Option<KeyValue>)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn backups_under_load_are_what_was_acknowledged_by_then() {
    let folder = Folder::new();
    let path = folder.path("store");
    let store = EmbeddedStore::options()
        .segment_size(30_000)
        .checkpoint_after(0)
        .open(&path)
        .await
        .unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let history = History::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (store, history, stop) = (Arc::clone(&store), Arc::clone(&history), Arc::clone(&stop));
        writers.spawn(write(store, history, stop, writer));
    }
    let mut taken = Vec::new();
    for number in 0..BACKUPS {
        // Segments go away under the backup's eyes.
        store
            .compact(store.current_revision().await.unwrap())
            .await
            .unwrap();
        let before = history.lock().keys().next_back().copied();
        let file = folder.path(&format!("{number}.bak"));
        let from = path.clone();
        tokio::task::spawn_blocking(move || run([&"backup", &from, &file]).code(0))
            .await
            .unwrap();
        taken.push(before.unwrap_or(Revision::FIRST));
    }
    // Those under way are finished and noted.
    stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let history = Arc::try_unwrap(history).unwrap().into_inner();
    assert!(history.len() > BACKUPS * 10, "there was load");

    for (number, before) in taken.into_iter().enumerate() {
        let new = folder.path(&format!("{number}.new"));
        let file = folder.path(&format!("{number}.bak"));
        run([&"restore", &file, &new, &"--bump-revision", &"0"]).code(0);
        check(&new, before, &history).await;
    }
}

/// The state must be that of all acknowledged writes up to its revision, among them all from before it began.
async fn check(path: &Path, before: Revision, history: &BTreeMap<Revision, (Bytes, Option<KeyValue>)>) {
    let snapshot = EmbeddedStore::snapshot_of(path).await.unwrap();
    let revision = snapshot.revision();
    assert!(revision >= before, "{revision} < {before}");
    let mut expected = BTreeMap::new();
    for (key, kv) in history.range(..=revision).map(|(_, write)| write) {
        match kv {
            Some(kv) => expected.insert(key.clone(), kv.clone()),
            None => expected.remove(key),
        };
    }
    let found = snapshot.list(b"", &ListOptions::default()).unwrap().items;
    let expected: Vec<_> = expected.into_values().collect();
    assert_eq!(found, expected, "at revision {revision}");
}

/// Creates, updates and deletes a few keys in turn.
async fn write(store: Arc<dyn Store>, history: History, stop: Arc<AtomicBool>, writer: usize) {
    while !stop.load(Ordering::Relaxed) {
        let key = Bytes::from(format!("/{writer}/{}", fastrand::u32(..5)));
        let value = Bytes::from("x".repeat(fastrand::usize(..5000)));
        let (revision, kv) = match store.get(&key, None).await.unwrap().kv {
            None => {
                let kv = store.create(key.clone(), value, None).await.unwrap();
                (kv.mod_revision, Some(kv))
            }
            Some(kv) if fastrand::u32(..4) == 0 => {
                let deleted = store.delete(&key, Some(kv.mod_revision)).await.unwrap();
                (deleted.revision, None)
            }
            Some(kv) => {
                let update = store.update(key.clone(), value, kv.mod_revision, None);
                let kv = update.await.unwrap();
                (kv.mod_revision, Some(kv))
            }
        };
        history.lock().insert(revision, (key, kv));
    }
}

#[test]
fn a_backup_of_a_store_whose_process_was_killed_is_whole() {
    let folder = Folder::new();
    let (path, file) = (folder.path("store"), folder.path("x.bak"));
    block_on(async {
        let store = EmbeddedStore::open(&path).await.unwrap();
        store.create("/a".into(), "1".into(), None).await.unwrap();
    });
    std::fs::remove_file(path.join("closed")).unwrap();
    run([&"backup", &path, &file])
        .code(0)
        .tells("1 key at revision 2");
    run([&"verify", &file]).code(0);
}
