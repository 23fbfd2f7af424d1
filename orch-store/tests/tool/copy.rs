//! `copy`, between folders.

use orch_store::{EmbeddedStore, Revision, Store};

use crate::support::{Folder, block_on, run, store, texts};

#[test]
fn a_copy_has_the_same_keys_and_values_and_no_old_revision() {
    let folder = Folder::new();
    let (from, to) = (folder.path("from"), folder.path("to"));
    store(&from, &[("/a", "1"), ("/b", "2"), ("/c", "3")]);
    run([&"copy", &from, &to]).code(0).tells("3 keys written, in ");
    assert_eq!(texts(&to), texts(&from));
    block_on(async {
        let store = EmbeddedStore::open(&to).await.unwrap();
        let error = store.watch(b"", Revision(3)).await.err().unwrap();
        assert!(error.is_compacted(), "{error}");
        assert_eq!(store.current_revision().await.unwrap(), Revision(4 + 3));
    });
}

#[test]
fn a_copy_goes_on_where_it_was_and_refuses_what_differs() {
    let folder = Folder::new();
    let (from, to) = (folder.path("from"), folder.path("to"));
    store(&from, &[("/a", "1"), ("/b", "2"), ("/c", "3")]);
    store(&to, &[("/a", "1"), ("/b", "mine")]);
    run([&"copy", &from, &to])
        .code(1)
        .tells("1 key written, 1 skipped, being there with the same value, 1 refused")
        .complains("1 key refused, being there with another value:\n  /b\n");
    assert_eq!(texts(&to)[1].1, "mine");
    run([&"copy", &from, &to, &"--overwrite"])
        .code(0)
        .tells("0 keys written, 1 overwritten, 2 skipped");
    assert_eq!(texts(&to), texts(&from));
    run([&"copy", &from, &to])
        .code(0)
        .tells("0 keys written, 3 skipped");
}

#[test]
fn prefixes_choose_what_is_copied() {
    let folder = Folder::new();
    let (from, to) = (folder.path("from"), folder.path("to"));
    store(
        &from,
        &[
            ("/a/1", "1"),
            ("/b/1", "2"),
            ("/b/2/x", "3"),
            ("/b/3", "4"),
            ("/c", "5"),
        ],
    );
    run([
        &"copy",
        &from,
        &to,
        &"--prefix",
        &"/b/",
        &"--exclude",
        &"/b/2/",
        &"--exclude",
        &"/b/3",
    ])
    .code(0);
    assert_eq!(texts(&to), [("/b/1".into(), "2".into())]);
}

#[test]
fn thousands_of_keys_go_in_pages() {
    let folder = Folder::new();
    let (from, to) = (folder.path("from"), folder.path("to"));
    block_on(async {
        let store = EmbeddedStore::open(&from).await.unwrap();
        let creates = (0..12_345).map(|number| {
            let key = format!("/key/{number}");
            store.create(key.into(), number.to_string().into(), None)
        });
        futures::future::try_join_all(creates).await.unwrap();
    });
    run([&"copy", &from, &to, &"--parallel", &"1000"])
        .code(0)
        .tells("12345 keys written");
    assert_eq!(texts(&to), texts(&from));
    run([&"copy", &from, &to, &"--parallel", &"0"])
        .code(2)
        .complains("from 1 on");
}

#[test]
fn a_store_is_not_copied_into_itself() {
    let folder = Folder::new();
    let from = folder.path("from");
    store(&from, &[("/a", "1")]);
    run([&"copy", &from, &from.join("../from")])
        .code(2)
        .complains("are the same store");
    run([&"copy", &"http://a:1,http://b:2", &"http://b:2"])
        .code(2)
        .complains("are the same store");
}
