//! `get` and `list`.

use std::io::Read;
use std::process::Stdio;

use orch_store::{EmbeddedStore, Store};

use crate::support::{Folder, block_on, put, run, store, tool};

#[test]
fn the_help_teaches_with_examples() {
    let said = run([&"--help"]).code(0).tells("Places:").tells("Examples:");
    for command in [
        "get", "list", "watch", "backup", "restore", "verify", "compact", "copy",
    ] {
        assert!(said.out.contains(&format!("\n  {command} ")), "{command}");
        run([&command, &"--help"]).code(0).tells("Examples:");
    }
    run([&"-h"]).code(0);
    run([]).code(2).complains("Usage:");
    run([&"frobnicate"]).code(2).complains("frobnicate");
}

#[test]
fn get_prints_the_value_as_it_is() {
    let folder = Folder::new();
    let path = folder.path("store");
    block_on(async {
        let store = EmbeddedStore::open(&path).await.unwrap();
        put(&store, "/a", "one").await;
        put(&store, "/a", "two\n").await;
        store
            .create("/b".into(), vec![0xff, 0, b'x'].into(), None)
            .await
            .unwrap();
    });
    assert_eq!(run([&"get", &path, &"/a"]).code(0).out, "two\n");
    assert_eq!(run([&"get", &path, &"/a", &"--at", &"2"]).code(0).out, "one");
    let output = tool().arg("get").arg(&path).arg("/b").output().unwrap();
    assert_eq!(output.stdout, [0xff, 0, b'x']);
    let said = run([&"get", &path, &"/a", &"--meta"]).code(0);
    assert_eq!(
        said.out,
        "key         /a\ncreated at  2\nwritten at  3\nversion     2\nsize        4 bytes\n"
    );
    let said = run([&"get", &path, &"/b", &"-o", &"json"]).code(0);
    assert_eq!(
        said.out,
        "{\"create_revision\":4,\"key\":\"/b\",\"mod_revision\":4,\"size\":3,\"value_base64\":\"/wB4\",\"version\":1}\n"
    );
}

#[test]
fn get_says_no_to_a_key_that_does_not_exist() {
    let folder = Folder::new();
    let path = folder.path("store");
    store(&path, &[("/a", "1")]);
    let said = run([&"get", &path, &"/b"]).code(1);
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("", "/b does not exist at revision 2\n")
    );
    run([&"get", &path, &"/a", &"--at", &"9"])
        .code(2)
        .complains("revision 9 is in the future")
        .complains("hint:  the newest revision is 2");
    run([&"get", &path, &"/a", &"--at", &"x"])
        .code(2)
        .complains("invalid value 'x'");
}

#[test]
fn list_shows_a_line_for_each_key() {
    let folder = Folder::new();
    let path = folder.path("store");
    store(
        &path,
        &[
            ("/b/2", "22"),
            ("/a/1", "1"),
            ("/b/1", "{\"x\":\n1}"),
            ("/b/\u{1b}[2J", ""),
        ],
    );
    let said = run([&"list", &path]).code(0);
    let expected = [
        "    REVISION  VERSION       SIZE  KEY",
        "           3        1          1  /a/1",
        "           5        1          0  /b/\\x1b[2J",
        "           4        1          8  /b/1",
        "           2        1          2  /b/2",
    ];
    assert_eq!(said.out.lines().collect::<Vec<_>>(), expected);
    assert_eq!(said.err, "4 keys at revision 5\n");

    assert_eq!(run([&"list", &path, &"/a", &"--keys"]).code(0).out, "/a/1\n");
    let said = run([&"list", &path, &"/b/1", &"--values"]).code(0);
    assert_eq!(said.out, "/b/1\n{\\\"x\\\":\\n1}\n");
    let said = run([&"list", &path, &"--limit", &"1", &"--keys"]).code(0);
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("/a/1\n", "1 key at revision 5, 3 more not shown\n")
    );
    let said = run([&"list", &path, &"--at", &"2", &"--keys"]).code(0);
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("/b/2\n", "1 key at revision 2\n")
    );
    let said = run([&"list", &path, &"/none"]).code(0);
    assert_eq!(said.err, "0 keys at revision 5\n");
    run([&"list", &path, &"--keys", &"--values"])
        .code(2)
        .complains("cannot be used with");
}

#[test]
fn list_gives_scripts_one_object_a_line() {
    let folder = Folder::new();
    let path = folder.path("store");
    store(&path, &[("/a", "{\"x\":1}"), ("/b", "2")]);
    let said = run([&"list", &path, &"--values", &"-o", &"json"]).code(0);
    let objects: Vec<serde_json::Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0]["value"], "{\"x\":1}");
    assert_eq!(objects[1]["mod_revision"], 3);
    let said = run([&"list", &path, &"-o", &"json", &"--keys"]).code(0);
    assert_eq!(said.out, "{\"key\":\"/a\"}\n{\"key\":\"/b\"}\n");
    let said = run([&"list", &path, &"/a", &"-o", &"json"]).code(0);
    assert!(!said.out.contains("value"), "{}", said.out);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = Folder::new();
    let path = folder.path("store");
    block_on(async {
        let store = EmbeddedStore::open(&path).await.unwrap();
        let creates = (0..3000).map(|number| {
            let key = format!("/{}/{number}", "x".repeat(200));
            store.create(key.into(), "v".into(), None)
        });
        futures::future::try_join_all(creates).await.unwrap();
    });
    let mut child = tool()
        .arg("list")
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
