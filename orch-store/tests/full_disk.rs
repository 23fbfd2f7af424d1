//! The embedded store on file systems that are full or read-only: real ones, mounted for the test. Needs root.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orch_store::{EmbeddedStore, KeyValue, ListOptions, OpenError, Store, StoreError};

/// A file system in memory of a few MB, unmounted when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs", text(folder.path())],
        );
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, text(self.path())]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["--lazy", text(self.path())]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {told} (it needs root)"
    );
}

async fn open(path: &Path) -> Result<EmbeddedStore, OpenError> {
    let options = EmbeddedStore::options()
        .segment_size(256 * 1024)
        .checkpoint_after(0);
    options.open(path).await
}

/// Writes until the disk is full; what was acknowledged.
async fn fill(store: &EmbeddedStore) -> Vec<KeyValue> {
    let mut acknowledged = Vec::new();
    loop {
        let key = format!("k/{:05}", acknowledged.len());
        match store.create(key.into(), vec![b'x'; 10_000].into(), None).await {
            Ok(kv) => acknowledged.push(kv),
            Err(error) => {
                assert!(matches!(error, StoreError::WriteFailed { .. }), "{error:?}");
                return acknowledged;
            }
        }
    }
}

async fn items(store: &EmbeddedStore) -> Vec<KeyValue> {
    store.list(b"k/", ListOptions::default()).await.unwrap().items
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let mount = Mount::new("2m");
    let folder = mount.path().join("store");
    let store = open(&folder).await.unwrap();
    let acknowledged = fill(&store).await;
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    // Again and again: each is refused, none leaves anything behind.
    for _ in 0..20 {
        let refused = store
            .create("k/more".into(), vec![b'x'; 10_000].into(), None)
            .await;
        assert!(
            matches!(refused, Err(StoreError::WriteFailed { .. })),
            "{refused:?}"
        );
    }
    assert!(store.health().await.is_err(), "it cannot write, and says so");
    assert!(items(&store).await == acknowledged, "reads go on");
    drop(store);
    let store = open(&folder).await.unwrap();
    assert!(items(&store).await == acknowledged, "opening it needs no space");

    // As soon as there is space, writes go on.
    mount.remount("size=4m");
    let again = store.create("again".into(), "v".into(), None).await.unwrap();
    assert!(again.mod_revision > acknowledged.last().unwrap().mod_revision);
    store.health().await.unwrap();
    drop(store);
    let store = open(&folder).await.unwrap();
    assert!(items(&store).await == acknowledged);
    assert_eq!(store.get(b"again", None).await.unwrap().kv, Some(again));
}

/// History has filled the disk. Compaction needs room for the state before it can give back what the history takes:
/// until there is any it says so, and then it goes on where it was.
#[tokio::test]
async fn compaction_frees_a_disk_that_history_has_filled() {
    let mount = Mount::new("2m");
    let store = open(&mount.path().join("store")).await.unwrap();
    let mut kv = store.create("k/a".into(), "v".into(), None).await.unwrap();
    let value = vec![b'x'; 10_000];
    let full = loop {
        let update = store.update(kv.key.clone(), value.clone().into(), kv.mod_revision, None);
        match update.await {
            Ok(next) => kv = next,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::WriteFailed { .. }), "{full:?}");
    let freed = async {
        for size in 2048.. {
            mount.remount(&format!("size={size}k"));
            match store.compact(kv.mod_revision).await {
                Ok(()) => {}
                Err(error) => assert!(matches!(error, StoreError::WriteFailed { .. }), "{error:?}"),
            }
            let update = store.update(kv.key.clone(), vec![b'y'; 500_000].into(), kv.mod_revision, None);
            match update.await {
                Ok(kv) => return (kv, size),
                Err(error) => assert!(matches!(error, StoreError::WriteFailed { .. }), "{error:?}"),
            }
            // A thread of the store's own gives the space back.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!("it fits in the end")
    };
    let (written, size) = tokio::time::timeout(Duration::from_secs(60), freed)
        .await
        .unwrap();
    assert!(
        size < 2148,
        "a little room was enough to give back much: {size} KiB"
    );
    assert_eq!(items(&store).await, [written]);
    assert!(store.health().await.unwrap().warning.is_none());
}

#[tokio::test]
async fn a_read_only_file_system_is_named() {
    let mount = Mount::new("8m");
    let folder = mount.path().join("store");
    let store = open(&folder).await.unwrap();
    let kv = store.create("k/a".into(), "v".into(), None).await.unwrap();
    drop(store);
    mount.remount("ro");
    let error = open(&folder).await.unwrap_err();
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("{} is not writable", folder.display()));
    mount.remount("rw");
    assert_eq!(items(&open(&folder).await.unwrap()).await, [kv]);
}
