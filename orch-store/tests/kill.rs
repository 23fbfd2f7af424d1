//! A process that is killed while it writes loses nothing that it had acknowledged.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use orch_store::{EmbeddedStore, KeyValue, ListOptions, Revision, Store, StoreError};

const DIRECTORY: &str = "ORCH_STORE_TEST_DIRECTORY";
const WRITERS: usize = 8;
const KILLS: usize = 20;

#[test]
fn acknowledged_writes_survive_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for kill in 0..KILLS {
        let mut child = writer(directory.path());
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = 0;
        let wanted = fastrand::usize(WRITERS..600);
        let mut line = String::new();
        while lines < wanted {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child ended");
            lines += usize::from(note(&mut acknowledged, &line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts, but for a line that it did not finish.
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        for line in rest.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            note(&mut acknowledged, line);
        }
        check(directory.path(), &acknowledged, kill);
    }
}

/// The child: every writer counts up in a key of its own and tells of each write that was acknowledged.
#[test]
#[ignore = "run by the test above, to be killed"]
fn write_until_killed() {
    let directory = std::env::var_os(DIRECTORY).expect("only to be run by the test above");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::options()
            .segment_size(20_000)
            .checkpoint_after(0)
            .open(directory)
            .await
            .unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(count_up(Arc::clone(&store), format!("writer/{writer}")));
        }
        loop {
            let current = store.current_revision().await.unwrap();
            store
                .compact(Revision(current.0.saturating_sub(100)))
                .await
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
}

async fn count_up(store: Arc<dyn Store>, key: String) {
    let mut last = store.get(key.as_bytes(), None).await.unwrap().kv;
    for number in last.as_ref().map_or(0, number) + 1.. {
        // Larger than a page, so that a write can be torn.
        let value = format!("{number} {}", "x".repeat(fastrand::usize(..6000)));
        let written: Result<KeyValue, StoreError> = match &last {
            None => store.create(key.clone().into(), value.into(), None).await,
            Some(kv) => {
                let update = store.update(kv.key.clone(), value.into(), kv.mod_revision, None);
                update.await
            }
        };
        let written = written.unwrap();
        let line = format!("acknowledged {key} {number} {}\n", written.mod_revision);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        last = Some(written);
    }
}

fn number(kv: &KeyValue) -> u64 {
    let text = std::str::from_utf8(&kv.value).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn writer(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Notes a line of the child; the test harness writes others, even into the same line.
fn note(acknowledged: &mut BTreeMap<String, (u64, u64)>, line: &str) -> bool {
    let Some((_, line)) = line.split_once("acknowledged ") else {
        return false;
    };
    let mut words = line.split_whitespace();
    let key = words.next().unwrap().to_owned();
    let mut number = || words.next().unwrap().parse().unwrap();
    acknowledged.insert(key, (number(), number()));
    true
}

fn check(directory: &Path, acknowledged: &BTreeMap<String, (u64, u64)>, kill: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let items = runtime.block_on(async {
        let store = EmbeddedStore::open(directory).await.unwrap();
        let page = store.list(b"", ListOptions::default()).await.unwrap();
        page.items
    });
    assert_eq!(items.len(), WRITERS);
    for kv in items {
        let key = std::str::from_utf8(&kv.key).unwrap();
        let (last, revision) = acknowledged[key];
        let found = number(&kv);
        // One write more may have reached the disk without its acknowledgement.
        assert!(
            (last..=last + 1).contains(&found),
            "{key} is at {found}, {last} was acknowledged before kill {kill}"
        );
        assert_eq!(kv.version, found, "every write of {key} counts");
        assert!(kv.mod_revision.0 >= revision);
    }
}
