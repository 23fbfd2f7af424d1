//! `compact`.

use std::path::Path;

use orch_store::EmbeddedStore;

use crate::support::{Folder, block_on, contents, items, put, run};

/// A store with one key that was written a hundred times.
fn overwritten(path: &Path) {
    block_on(async {
        let store = EmbeddedStore::open(path).await.unwrap();
        for number in 0..100 {
            put(&store, "/a", &format!("{number}{}", "x".repeat(4000))).await;
        }
    });
}

fn size(path: &Path) -> usize {
    contents(path).values().map(Vec::len).sum()
}

#[test]
fn compaction_gives_the_disk_back_before_it_ends() {
    let folder = Folder::new();
    let path = folder.path("store");
    overwritten(&path);
    let before = items(&path);
    assert!(size(&path) > 400_000);
    run([&"compact", &path])
        .code(0)
        .tells("history before revision 101 is forgotten, the store stands at 101; ")
        .tells(" on disk before, ");
    assert!(size(&path) < 10_000, "{}", size(&path));
    assert_eq!(items(&path), before);
    run([&"verify", &path]).code(0).tells("compacted  101,");
    run([&"compact", &path])
        .code(0)
        .tells("nothing to forget, history begins at revision 101");
}

#[test]
fn some_history_can_be_kept() {
    let folder = Folder::new();
    let path = folder.path("store");
    overwritten(&path);
    run([&"compact", &path, &"--revision", &"40"]).code(0);
    run([&"get", &path, &"/a", &"--at", &"39"])
        .code(2)
        .complains("has been compacted");
    run([&"get", &path, &"/a", &"--at", &"40"]).code(0);
    run([&"compact", &path, &"--keep", &"10"])
        .code(0)
        .tells("before revision 91");
    run([&"get", &path, &"/a", &"--at", &"91"]).code(0);
    run([&"compact", &path, &"--keep", &"1000"])
        .code(0)
        .tells("nothing to forget");
    run([&"compact", &path, &"--revision", &"500"])
        .code(2)
        .complains("revision 500 is in the future");
    run([&"compact", &path, &"--revision", &"95", &"--keep", &"1"])
        .code(2)
        .complains("cannot be used with");
}
