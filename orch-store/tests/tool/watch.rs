//! `watch`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orch_store::{EmbeddedStore, Store};

use crate::support::{Folder, block_on, put, run, tool};

/// A store with a creation, an update and a deletion, at revision 5.
fn history(path: &Path) {
    block_on(async {
        let store = EmbeddedStore::open(path).await.unwrap();
        put(&store, "/a", "1").await;
        put(&store, "/b", "1").await;
        put(&store, "/a", "22").await;
        store.delete(b"/b", None).await.unwrap();
    });
}

fn start(command: &mut Command) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map(|line| line.unwrap()))
}

fn signal(child: &Child, name: &str) {
    let killed = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
}

fn interrupt(child: Child) -> i32 {
    signal(&child, "INT");
    child
        .wait_with_output()
        .unwrap()
        .status
        .code()
        .expect("it ends by itself")
}

#[test]
fn watch_shows_a_line_for_each_write_until_it_is_interrupted() {
    let folder = Folder::new();
    let path = folder.path("store");
    history(&path);
    let (child, mut lines) = start(tool().arg("watch").arg(&path).args(["--from", "1"]));
    let expected = [
        "           2 CREATE /a (1 bytes)",
        "           3 CREATE /b (1 bytes)",
        "           4 UPDATE /a (2 bytes)",
        "           5 DELETE /b",
    ];
    for line in expected {
        assert_eq!(lines.next().as_deref(), Some(line));
    }
    assert_eq!(interrupt(child), 0);
    assert_eq!(lines.next(), None);
}

#[test]
fn watch_gives_scripts_objects_with_values() {
    let folder = Folder::new();
    let path = folder.path("store");
    history(&path);
    let words = ["/a", "--from", "3", "--values", "-o", "json"];
    let (child, mut lines) = start(tool().arg("watch").arg(&path).args(words));
    let object: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(object["event"], "update");
    assert_eq!(object["value"], "22");
    assert_eq!(object["previous_revision"], 2);
    assert_eq!(interrupt(child), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_follows_what_another_process_writes() {
    const WRITES: usize = 300;
    let folder = Folder::new();
    let path = folder.path("store");
    let store = EmbeddedStore::options()
        .segment_size(10_000)
        .checkpoint_after(0)
        .open(&path)
        .await
        .unwrap();
    put(&store, "/before", "x").await;
    let (child, mut lines) = start(tool().arg("watch").arg(&path).args(["/a/", "--from", "2"]));
    let mut expected = Vec::new();
    for number in 0..WRITES {
        let kv = put(&store, &format!("/a/{}", number % 7), &"x".repeat(number)).await;
        let kind = if kv.version == 1 { "CREATE" } else { "UPDATE" };
        let key = std::str::from_utf8(&kv.key).unwrap();
        expected.push(format!("{:>12} {kind} {key} ({number} bytes)", kv.mod_revision));
        put(&store, "/other", "x").await;
        if number % 50 == 0 {
            // It has seen these, so that their history may go.
            for line in expected.drain(..) {
                assert_eq!(lines.next(), Some(line));
            }
            // So far, but not further: the write of the other key may be waiting to be seen.
            store.compact(kv.mod_revision).await.unwrap();
        }
    }
    for line in expected {
        assert_eq!(lines.next(), Some(line));
    }
    let ttl = Some(Duration::from_millis(300));
    let kv = store.create("/a/lease".into(), "v".into(), ttl).await.unwrap();
    let revision = kv.mod_revision;
    assert_eq!(
        lines.next(),
        Some(format!("{revision:>12} CREATE /a/lease (1 bytes)"))
    );
    let revision = revision.next();
    assert_eq!(lines.next(), Some(format!("{revision:>12} DELETE /a/lease")));
    assert_eq!(interrupt(child), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_does_not_pass_over_history_that_was_lost_to_it() {
    let folder = Folder::new();
    let path = folder.path("store");
    let store = EmbeddedStore::open(&path).await.unwrap();
    put(&store, "/a", "1").await;
    let (child, mut lines) = start(tool().arg("watch").arg(&path).args(["--from", "1"]));
    assert_eq!(lines.next().as_deref(), Some("           2 CREATE /a (1 bytes)"));
    // Stopped, it cannot see what is written and forgotten.
    signal(&child, "STOP");
    let status = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&status).unwrap().contains(") T ") {
        std::thread::yield_now();
    }
    put(&store, "/a", "2").await;
    let last = put(&store, "/a", "3").await;
    store.compact(last.mod_revision).await.unwrap();
    signal(&child, "CONT");
    assert_eq!(lines.next(), None);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("having shown everything up to revision 2"),
        "{told}"
    );
    assert!(
        told.contains("hint:  what happened before revision 4 is forgotten"),
        "{told}"
    );
}

#[test]
fn watch_says_what_to_do_when_history_is_gone() {
    let folder = Folder::new();
    let path = folder.path("store");
    history(&path);
    run([&"compact", &path]).code(0);
    run([&"watch", &path, &"--from", &"2"])
        .code(2)
        .complains("revision 2 has been compacted, history begins at 5")
        .complains("hint:  what happened before revision 5 is forgotten: `list` shows the state now");
    run([&"watch", &path, &"--from", &"9"])
        .code(2)
        .complains("the newest revision is 5");
}
