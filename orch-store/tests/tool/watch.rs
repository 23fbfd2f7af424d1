//! `watch`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orch_store::{EmbeddedStore, Store};

use crate::support::{Folder, block_on, put, run, store, tool};

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

fn interrupt(child: Child) -> i32 {
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
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

#[test]
fn watch_sees_a_time_to_live_end() {
    let folder = Folder::new();
    let path = folder.path("store");
    block_on(async {
        let store = EmbeddedStore::open(&path).await.unwrap();
        let ttl = Some(Duration::from_millis(700));
        store.create("/lease".into(), "v".into(), ttl).await.unwrap();
    });
    let (child, mut lines) = start(tool().arg("watch").arg(&path).args(["--from", "2"]));
    assert_eq!(lines.next().as_deref(), Some("           3 DELETE /lease"));
    assert_eq!(interrupt(child), 0);
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
    store(&folder.path("empty"), &[]);
}
