//! `backup` and `restore`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use orch_store::{EmbeddedStore, Revision, Store};

use crate::support::{Folder, block_on, contents, items, put, run, store, texts, tool};

async fn current(path: &Path) -> Revision {
    let store = EmbeddedStore::open(path).await.unwrap();
    store.current_revision().await.unwrap()
}

#[test]
fn a_restored_store_has_the_same_keys_with_their_revisions() {
    let folder = Folder::new();
    let (path, file, new) = (folder.path("store"), folder.path("x.bak"), folder.path("new"));
    block_on(async {
        let store = EmbeddedStore::open(&path).await.unwrap();
        for number in 0..5 {
            put(&store, "/a", &"x".repeat(number * 100_000)).await;
            put(&store, &format!("/b/{number}"), "v").await;
        }
        store
            .create("/\u{0}\u{7f}".into(), vec![0xff; 3].into(), None)
            .await
            .unwrap();
        store.create("/empty".into(), "".into(), None).await.unwrap();
    });
    let said = run([&"backup", &path, &file])
        .code(0)
        .tells("8 keys at revision 13 in");
    assert_eq!(said.err, "", "no bar where there is no terminal");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!folder.path("x.bak.tmp").exists());

    run([&"restore", &file, &new])
        .code(0)
        .tells("8 keys of revision 13")
        .tells("stands at revision 1000000013");
    assert_eq!(items(&new), items(&path));
    block_on(async {
        assert_eq!(current(&new).await, Revision(1_000_000_013));
        let store = EmbeddedStore::open(&new).await.unwrap();
        // A client that has seen more than the backup has is sent back to list.
        for seen in [5, 13, 20] {
            let error = store.watch(b"", Revision(seen)).await.err().unwrap();
            assert!(error.is_compacted(), "{error}");
        }
        let written = put(&store, "/new", "1").await;
        assert_eq!(written.mod_revision, Revision(1_000_000_014));
    });
}

#[test]
fn restore_without_a_bump_ends_at_the_backups_revision() {
    let folder = Folder::new();
    let (path, file, new) = (folder.path("store"), folder.path("x.bak"), folder.path("new"));
    store(&path, &[("/a", "1"), ("/b", "2")]);
    run([&"backup", &path, &file]).code(0);
    run([&"restore", &file, &new, &"--bump-revision", &"0"]).code(0);
    assert_eq!(block_on(current(&new)), Revision(3));
    run([
        &"restore",
        &file,
        &folder.path("n"),
        &"--bump-revision",
        &"18446744073709551615",
    ])
    .code(2)
    .complains("leaves no revisions");
    assert!(!folder.path("n").exists());
}

#[test]
fn a_backup_of_a_prefix_has_only_that() {
    let folder = Folder::new();
    let (path, file, new) = (folder.path("store"), folder.path("x.bak"), folder.path("new"));
    store(&path, &[("/a/1", "1"), ("/b/1", "2"), ("/b/2", "3"), ("/c", "4")]);
    run([&"backup", &path, &file, &"--prefix", &"/b/"])
        .code(0)
        .tells("2 keys");
    run([&"verify", &file]).code(0).tells("prefix     /b/");
    run([&"restore", &file, &new]).code(0);
    assert_eq!(
        texts(&new),
        [("/b/1".into(), "2".into()), ("/b/2".into(), "3".into())]
    );
}

#[test]
fn an_empty_store_is_backed_up_and_restored_too() {
    let folder = Folder::new();
    let (path, file, new) = (folder.path("store"), folder.path("x.bak"), folder.path("new"));
    store(&path, &[]);
    run([&"backup", &path, &file])
        .code(0)
        .tells("0 keys at revision 1");
    run([&"restore", &file, &new]).code(0);
    assert!(items(&new).is_empty());
}

#[test]
fn a_backup_overwrites_nothing_unless_told_to() {
    let folder = Folder::new();
    let (path, file) = (folder.path("store"), folder.path("x.bak"));
    store(&path, &[("/a", "1")]);
    std::fs::write(&file, "precious").unwrap();
    run([&"backup", &path, &file])
        .code(2)
        .complains("exists")
        .complains("--force");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    // What a killed backup leaves is in nobody's way.
    std::fs::write(folder.path("x.bak.tmp"), "half").unwrap();
    run([&"backup", &path, &file, &"--force"]).code(0);
    run([&"verify", &file]).code(0);
    assert!(!folder.path("x.bak.tmp").exists());
    run([&"backup", &path, &folder.path("none/x.bak")])
        .code(2)
        .complains("cannot create");
}

#[test]
fn two_backups_do_not_write_one_file() {
    let folder = Folder::new();
    let (path, file) = (folder.path("store"), folder.path("x.bak"));
    store(&path, &[("/a", "1")]);
    let other = std::fs::File::create(folder.path("x.bak.tmp")).unwrap();
    other.try_lock().unwrap();
    run([&"backup", &path, &file])
        .code(2)
        .complains("is being written by another backup");
    drop(other);
    run([&"backup", &path, &file]).code(0);
}

#[test]
fn a_store_with_keys_is_only_merged_into() {
    let folder = Folder::new();
    let (path, file, new) = (folder.path("store"), folder.path("x.bak"), folder.path("new"));
    store(&path, &[("/a", "1"), ("/b", "2"), ("/c", "3")]);
    run([&"backup", &path, &file]).code(0);
    store(&new, &[("/b", "2"), ("/c", "other"), ("/d", "4")]);
    let before = contents(&new);
    run([&"restore", &file, &new])
        .code(2)
        .complains("has 3 keys already")
        .complains("add --merge");
    assert_eq!(
        contents(&new).get("log-00000000000000000001"),
        before.get("log-00000000000000000001")
    );
    run([&"restore", &file, &new, &"--overwrite"])
        .code(2)
        .complains("--merge");

    run([&"restore", &file, &new, &"--merge"])
        .code(1)
        .tells("1 key written, 1 skipped, being there with the same value, 1 refused")
        .complains("  /c\n")
        .complains("--overwrite replaces them");
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    };
    assert_eq!(
        texts(&new),
        pairs(&[("/a", "1"), ("/b", "2"), ("/c", "other"), ("/d", "4")])
    );
    run([&"restore", &file, &new, &"--merge", &"--overwrite"])
        .code(0)
        .tells("0 keys written, 1 overwritten, 2 skipped");
    assert_eq!(
        texts(&new),
        pairs(&[("/a", "1"), ("/b", "2"), ("/c", "3"), ("/d", "4")])
    );
    assert!(
        block_on(current(&new)) >= Revision(1_000_000_004),
        "clients of the old store are safe here too"
    );
}

#[test]
fn times_to_live_come_back() {
    let folder = Folder::new();
    let (path, file) = (folder.path("store"), folder.path("x.bak"));
    block_on(async {
        let store = EmbeddedStore::open(&path).await.unwrap();
        let ttl = |seconds| Some(Duration::from_secs(seconds));
        store.create("/long".into(), "v".into(), ttl(3600)).await.unwrap();
        store.create("/short".into(), "v".into(), ttl(1)).await.unwrap();
    });
    run([&"backup", &path, &file]).code(0).tells("2 keys");
    let merged = folder.path("merged");
    store(&merged, &[("/other", "v")]);
    std::thread::sleep(Duration::from_millis(1100));
    run([&"restore", &file, &merged, &"--merge"])
        .code(0)
        .tells("1 key written, 1 left out, their time to live having passed");
    let whole = folder.path("whole");
    run([&"restore", &file, &whole]).code(0);
    let expires = |path: &Path| {
        block_on(async {
            let snapshot = EmbeddedStore::snapshot_of(path).await.unwrap();
            let kv = snapshot.get(b"/long", None).unwrap().kv.unwrap();
            snapshot.expires(&kv).unwrap()
        })
    };
    assert_eq!(expires(&whole), expires(&path));
    let drift = expires(&merged)
        .duration_since(expires(&path))
        .unwrap_or_default();
    assert!(drift < Duration::from_millis(5), "{drift:?}");
    block_on(async {
        let store = EmbeddedStore::open(&whole).await.unwrap();
        let from = store.current_revision().await.unwrap();
        if store.get(b"/short", None).await.unwrap().kv.is_some() {
            let mut watcher = store
                .watch(b"/short", Revision(from.0.min(1_000_000_003)))
                .await
                .unwrap();
            watcher.next().await.unwrap();
        }
        assert!(store.get(b"/short", None).await.unwrap().kv.is_none());
    });
}

/// A backup that takes a moment.
fn large(folder: &Folder) -> std::path::PathBuf {
    let (path, file) = (folder.path("store"), folder.path("x.bak"));
    block_on(async {
        let store = EmbeddedStore::open(&path).await.unwrap();
        let creates = (0..4000).map(|number| {
            let value = vec![b'x'; 5000].into();
            store.create(format!("/{number}").into(), value, None)
        });
        futures::future::try_join_all(creates).await.unwrap();
    });
    run([&"backup", &path, &file]).code(0);
    file
}

#[test]
fn a_restore_that_is_killed_leaves_an_empty_store() {
    let folder = Folder::new();
    let file = large(&folder);
    let new = folder.path("new");
    let mut child = tool().arg("restore").arg(&file).arg(&new).spawn().unwrap();
    let begun = || {
        let names = new.read_dir().into_iter().flatten().flatten();
        names
            .map(|entry| entry.file_name())
            .any(|name| name.to_string_lossy().ends_with(".tmp"))
    };
    while !begun() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it could be killed"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(items(&new).is_empty());
    run([&"restore", &file, &new]).code(0).tells("4000 keys");
    assert_eq!(items(&new), items(&folder.path("store")));
}

#[test]
fn a_backup_that_is_interrupted_leaves_nothing() {
    let folder = Folder::new();
    large(&folder);
    let mut interrupted = 0;
    for number in 0..10 {
        let (file, temporary) = (
            folder.path(&format!("{number}.bak")),
            folder.path(&format!("{number}.bak.tmp")),
        );
        let mut child = tool()
            .arg("backup")
            .arg(folder.path("store"))
            .arg(&file)
            .spawn()
            .unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !temporary.exists() && !file.exists() {
            assert!(std::time::Instant::now() < until, "it makes no file");
        }
        let id = child.id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap();
        assert!(status.success());
        // It may have been too late, and then the file is whole.
        let code = child.wait().unwrap().code();
        assert!(!temporary.exists());
        assert_eq!(file.exists(), code == Some(0), "{code:?}");
        if code == Some(130) {
            interrupted += 1;
        } else {
            run([&"verify", &file]).code(0);
        }
    }
    assert!(interrupted > 0, "some were in time");
}
