//! The store beside other users of the same etcd, and what only etcd does.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use orch_store::{Event, ListOptions, Revision, Store, StoreError, Watcher};

use crate::proxy::Proxy;
use crate::server::{CURRENT, DEBIAN, Plan, Server};

const PATIENCE: Duration = Duration::from_secs(30);

async fn events(watcher: &mut dyn Watcher, count: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = tokio::time::timeout(PATIENCE, watcher.next()).await;
        events.extend(batch.expect("an event in time").unwrap().events);
    }
    events
}

#[tokio::test]
async fn etcdctl_and_the_store_see_each_others_work() {
    let server = Server::alone(DEBIAN).await;
    let store = server.store().await;
    let json = r#"{"kind":"ConfigMap","apiVersion":"v1"}"#;
    let key = "/registry/configmaps/default/settings";
    let written = store.create(key.into(), json.into(), None).await.unwrap();
    assert_eq!(
        server.etcdctl(&["get", "--print-value-only", key]).trim_end(),
        json
    );

    let mut watcher = store.watch(b"/registry/", written.mod_revision).await.unwrap();
    server.etcdctl(&["put", key, "{}"]);
    server.etcdctl(&["del", key]);
    let events = events(watcher.as_mut(), 2).await;
    assert_eq!(events[0].kv.value, "{}");
    assert_eq!(events[0].previous.as_ref(), Some(&written));
    assert_eq!(events[1].kv.version, 2);
    let stale = store
        .update(key.into(), "x".into(), written.mod_revision, None)
        .await;
    assert!(
        matches!(stale, Err(StoreError::Conflict { current: None, .. })),
        "{stale:?}"
    );
}

#[tokio::test]
async fn what_a_transaction_writes_at_once_is_delivered_at_once() {
    let server = Server::alone(CURRENT).await;
    let store = server.store().await;
    let start = store.current_revision().await.unwrap();
    let mut watcher = store.watch(b"t/", start).await.unwrap();
    let puts: Vec<_> = (0..100)
        .map(|index| TxnOp::put(format!("t/{index:03}"), "v", None))
        .collect();
    let transaction = Txn::new().and_then(puts);
    server.client().await.txn(transaction).await.unwrap();
    let batch = tokio::time::timeout(PATIENCE, watcher.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(batch.events.len(), 100);
    assert!(
        batch
            .events
            .iter()
            .all(|event| event.revision() == batch.revision)
    );
}

/// Far more than is kept for watchers that are behind: they go on with a stream of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_is_far_behind_still_misses_nothing() {
    const KEYS: usize = 10_000;
    let server = Server::alone(CURRENT).await;
    let store = server.store().await;
    let start = store.current_revision().await.unwrap();
    let mut slow = store.watch(b"s/", start).await.unwrap();
    let mut quick = store.watch(b"s/", start).await.unwrap();
    let mut client = server.client().await;
    for chunk in 0..KEYS / 100 {
        // One revision each, or they would count as one.
        let puts = (0..100).map(|index| {
            let mut client = client.clone();
            async move {
                client
                    .put(format!("s/{chunk:03}/{index:02}"), "v", None)
                    .await
                    .unwrap()
            }
        });
        futures::future::join_all(puts).await;
        events(quick.as_mut(), 100).await;
    }
    let seen = events(slow.as_mut(), KEYS).await;
    assert_eq!(seen.len(), KEYS);
    assert!(seen.is_sorted_by(|a, b| a.revision() < b.revision()));

    // And if compaction was quicker, it says so.
    let mut late = store.watch(b"s/", start).await.unwrap();
    let now = client.put("s/last", "v", None).await.unwrap();
    let now = now.header().unwrap().revision();
    client.compact(now, None).await.unwrap();
    let error = loop {
        match tokio::time::timeout(PATIENCE, late.next()).await.unwrap() {
            Ok(batch) => assert!(
                batch.revision < Revision(now as u64),
                "it cannot have come this far"
            ),
            Err(error) => break error,
        }
    };
    assert!(error.is_compacted(), "{error}");
}

#[tokio::test]
async fn compaction_past_a_watcher_that_was_cut_off_is_told() {
    for program in [DEBIAN, CURRENT] {
        let server = Server::alone(program).await;
        let proxy = Proxy::to(server.url()).await;
        let store = orch_store::EtcdStore::options().endpoint(proxy.url());
        let store = store.connect().await.unwrap();
        let first = store.create("c/a".into(), "1".into(), None).await.unwrap();
        let mut watcher = store.watch(b"c/", Revision::FIRST).await.unwrap();
        assert_eq!(events(watcher.as_mut(), 1).await[0].kv, first);

        proxy.cut();
        let mut client = server.client().await;
        let mut last = 0;
        for _ in 0..10 {
            last = client
                .put("c/a", "2", None)
                .await
                .unwrap()
                .header()
                .unwrap()
                .revision();
        }
        client.compact(last, None).await.unwrap();
        proxy.mend();
        match tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap() {
            Err(StoreError::Compacted { requested, compacted }) => {
                assert_eq!(
                    (requested, compacted),
                    (first.mod_revision, Revision(last as u64))
                );
            }
            other => panic!("expected Compacted, got {other:?}"),
        }
        // The next one shares nothing with the one that has ended.
        let page = store.list(b"c/", ListOptions::default()).await.unwrap();
        let mut watcher = store.watch(b"c/", page.revision).await.unwrap();
        client.put("c/b", "1", None).await.unwrap();
        assert_eq!(events(watcher.as_mut(), 1).await[0].key(), "c/b");
    }
}

#[tokio::test]
async fn watchers_of_one_prefix_share_one_watch_of_etcd() {
    let server = Server::alone(CURRENT).await;
    let store = server.store().await;
    let start = store.current_revision().await.unwrap();
    let mut watchers = Vec::new();
    for _ in 0..50 {
        watchers.push(store.watch(b"m/", start).await.unwrap());
    }
    store.create("m/a".into(), "v".into(), None).await.unwrap();
    for watcher in &mut watchers {
        assert_eq!(events(watcher.as_mut(), 1).await.len(), 1);
    }
    let open = |metrics: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with("etcd_debugging_mvcc_watcher_total"));
        line.unwrap().split(' ').next_back().unwrap().parse().unwrap()
    };
    assert_eq!(open(&metrics(server.url()).await), 1.0);
    drop(watchers);
    let gone = async {
        while open(&metrics(server.url()).await) > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("the watch ends with its last watcher");
}

/// What the server says about itself, over plain HTTP.
async fn metrics(url: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn times_to_live_can_be_read() {
    let server = Server::alone(DEBIAN).await;
    let store = server.store().await;
    for index in 0..20_u64 {
        let ttl = Duration::from_secs(100 + 100 * (index % 2));
        store
            .create(format!("t/{index}").into(), "v".into(), Some(ttl))
            .await
            .unwrap();
        store
            .create(format!("u/{index}").into(), "v".into(), None)
            .await
            .unwrap();
    }
    let times = store.times_to_live(b"").await.unwrap();
    assert_eq!(times.len(), 20);
    for index in 0..20_u64 {
        let left = times[format!("t/{index}").as_bytes()].as_secs();
        // A little more, for those that come later and share the lease; a little less, for the time since.
        let expected = 100 + 100 * (index % 2);
        assert!((expected - 30..=expected + 10).contains(&left), "{left}");
    }
    assert_eq!(
        server.etcdctl(&["lease", "list"]).lines().count(),
        3,
        "a lease for each length"
    );
    assert_eq!(store.times_to_live(b"u/").await.unwrap().len(), 0);
}

#[tokio::test]
async fn dropping_the_store_ends_its_watchers() {
    let server = Server::alone(DEBIAN).await;
    let store = server.store().await;
    let mut watcher = store.watch(b"", Revision::FIRST).await.unwrap();
    drop(store);
    for _ in 0..2 {
        let ended = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap();
        assert!(matches!(ended, Err(StoreError::Closed)), "{ended:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_for_the_server_is_refused() {
    let server = Server::start_and_wait(Plan::alone(DEBIAN).with(&["--max-request-bytes", "100000"])).await;
    let store = server.store().await;
    for size in [120_000, 1_000_000] {
        let create = store.create("k".into(), vec![b'x'; size].into(), None).await;
        assert!(
            matches!(create, Err(StoreError::ValueTooLarge { size: told, .. }) if told == size),
            "{create:?}"
        );
    }
    assert_eq!(store.get(b"k", None).await.unwrap().kv, None);
    store
        .create("k".into(), vec![b'x'; 90_000].into(), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn pages_of_large_values_come_whole() {
    let server = Server::alone(CURRENT).await;
    let store = server.store().await;
    let mut written = Vec::new();
    for index in 0..40 {
        let value = vec![b'x'; 1_000_000];
        let key = format!("large/{index:02}");
        written.push(store.create(key.into(), value.into(), None).await.unwrap());
    }
    let page = store.list(b"large/", ListOptions::default()).await.unwrap();
    assert!(page.items == written, "all of them, as they were written");
    // Many of them in one message of the watch.
    let mut watcher = store.watch(b"large/", Revision::FIRST).await.unwrap();
    let events = events(watcher.as_mut(), 40).await;
    assert!(events.iter().map(|event| &event.kv).eq(&written));
}

#[tokio::test]
async fn a_full_quota_is_told_and_can_be_mended() {
    let server =
        Server::start_and_wait(Plan::alone(DEBIAN).with(&["--quota-backend-bytes", "2000000"])).await;
    let store = server.store().await;
    let mut last = Revision::FIRST;
    let error = loop {
        let key = format!("q/{last}");
        match store.create(key.into(), vec![b'x'; 100_000].into(), None).await {
            Ok(kv) => last = kv.mod_revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::WriteFailed { .. }), "{error:?}");
    assert!(!error.outcome_is_unknown());
    assert!(store.health().await.is_err(), "nothing can be written");
    assert!(
        !store
            .list(b"q/", ListOptions::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );

    server.etcdctl(&["del", "--prefix", "q/"]);
    store
        .compact(store.current_revision().await.unwrap())
        .await
        .unwrap();
    server.etcdctl(&["defrag"]);
    server.etcdctl(&["alarm", "disarm"]);
    store.create("q/again".into(), "v".into(), None).await.unwrap();
    let health = store.health().await.unwrap();
    assert!(
        health.compacted > Revision::FIRST && health.warning.is_none(),
        "{health:?}"
    );
}
