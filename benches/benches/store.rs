//! The store's hot paths: guarded writes by many writers, a long list, events to many watchers, and recovery.
//!
//! `cargo bench -p orch-benches --bench store`. The writes on disk are bound by the disk: `bare write and sync` is the
//! measure to hold them against.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use orch_store::{EmbeddedStore, ListOptions, MemoryStore, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const VALUE: Bytes = Bytes::from_static(&[b'x'; 1024]);
const WRITERS: [usize; 4] = [1, 16, 64, 256];
const WATCHERS: [usize; 3] = [1, 100, 1000];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// Splits `writes` guarded updates among `writers`, each with a key of its own.
async fn guarded_updates(store: &Arc<dyn Store>, writers: usize, writes: u64) -> Duration {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let share = writes / writers as u64 + u64::from((writer as u64) < writes % writers as u64);
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let key = Bytes::from(format!("/registry/things/{writer}"));
            let mut kv = match store.get(&key, None).await?.kv {
                Some(kv) => kv,
                None => store.create(key, VALUE, None).await?,
            };
            for _ in 0..share {
                let update = store.update(kv.key.clone(), VALUE, kv.mod_revision, None);
                kv = update.await?;
            }
            // History would fill the memory over the many rounds of a bench.
            store.compact(kv.mod_revision).await
        });
    }
    for result in tasks.join_all().await {
        result.expect("the store takes writes");
    }
    start.elapsed()
}

fn writes(c: &mut Criterion) {
    let runtime = runtime();
    let directory = tempfile::tempdir().expect("a directory can be made");
    let embedded = runtime.block_on(EmbeddedStore::open(directory.path().join("store")));
    let embedded = embedded.expect("the store opens");
    let stores: [(&str, Arc<dyn Store>); 2] = [
        ("memory", Arc::new(MemoryStore::new())),
        ("embedded", Arc::new(embedded)),
    ];
    let mut group = c.benchmark_group("guarded update of 1 KiB");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let mut file = File::create(directory.path().join("bare")).expect("a file can be made");
    group.bench_function("bare write and sync", |bencher| {
        bencher.iter(|| {
            file.write_all(&VALUE).expect("the disk takes writes");
            file.sync_data().expect("the disk syncs");
        });
    });
    for (name, store) in &stores {
        for writers in WRITERS {
            let id = BenchmarkId::new(*name, format!("{writers} writers"));
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|writes| runtime.block_on(guarded_updates(store, writers, writes)));
            });
        }
    }
}

fn lists(c: &mut Criterion) {
    const KEYS: usize = 10_000;
    let runtime = runtime();
    let store = MemoryStore::new();
    runtime.block_on(async {
        for index in 0..KEYS {
            let key = format!("/registry/pods/default/web-{index:05}").into();
            store.create(key, VALUE, None).await.expect("the key is new");
        }
    });
    let mut group = c.benchmark_group("list of 10,000 keys");
    group.throughput(Throughput::Elements(KEYS as u64));
    group.bench_function("all at once", |bencher| {
        bencher.iter(|| runtime.block_on(store.list(b"/registry/pods/", ListOptions::default())));
    });
    group.bench_function("a page of 500 with the remaining count", |bencher| {
        let options = ListOptions::default().limit(500).count();
        bencher.iter(|| runtime.block_on(store.list(b"/registry/pods/", options.clone())));
    });
}

/// Writes `writes` events and waits until every watcher has got them all.
async fn fan_out(store: &Arc<dyn Store>, watchers: usize, writes: u64) -> Duration {
    let from = store.current_revision().await.expect("the store answers");
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let watcher = store.watch(b"/registry/things/", from).await;
        let mut watcher = watcher.expect("the revision is the current one");
        tasks.spawn(async move {
            let mut seen = 0;
            while seen < writes {
                let batch = watcher.next().await.expect("nothing is compacted meanwhile");
                seen += batch.events.len() as u64;
            }
        });
    }
    let start = Instant::now();
    let key = Bytes::from_static(b"/registry/things/watched");
    let mut current = store.get(&key, None).await.expect("the store answers").kv;
    for _ in 0..writes {
        let written = match current {
            None => store.create(key.clone(), VALUE, None).await,
            Some(kv) => store.update(key.clone(), VALUE, kv.mod_revision, None).await,
        };
        current = Some(written.expect("nobody else writes"));
    }
    tasks.join_all().await;
    let elapsed = start.elapsed();
    let revision = store.current_revision().await.expect("the store answers");
    store.compact(revision).await.expect("it is the current one");
    elapsed
}

fn watches(c: &mut Criterion) {
    let runtime = runtime();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut group = c.benchmark_group("an event to all watchers");
    group.sample_size(10);
    for watchers in WATCHERS {
        group.throughput(Throughput::Elements(watchers as u64));
        group.bench_function(BenchmarkId::from_parameter(watchers), |bencher| {
            bencher.iter_custom(|writes| runtime.block_on(fan_out(&store, watchers, writes)));
        });
    }
}

/// Opens a store whose log holds so many keys, which was closed in good order.
fn recovery(c: &mut Criterion) {
    const KEYS: usize = 50_000;
    let runtime = runtime();
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("store");
    runtime.block_on(async {
        let store = EmbeddedStore::open(&path).await.expect("the store opens");
        let writes = (0..KEYS).map(|index| {
            let key = format!("/registry/pods/default/web-{index:05}").into();
            store.create(key, VALUE, None)
        });
        for result in futures::future::join_all(writes).await {
            result.expect("the key is new");
        }
    });
    let mut group = c.benchmark_group("recovery of 50,000 keys");
    group
        .throughput(Throughput::Elements(KEYS as u64))
        .sample_size(10);
    group.bench_function("from the log", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let start = Instant::now();
                let opened = runtime.block_on(EmbeddedStore::open(&path));
                total += start.elapsed();
                opened.expect("the store opens");
            }
            total
        });
    });
}

criterion_group!(benches, writes, lists, watches, recovery);
criterion_main!(benches);
