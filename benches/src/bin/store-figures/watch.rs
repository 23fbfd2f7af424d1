//! Events to many watchers of one prefix, each with the key's previous value, as kube-apiserver asks for them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use etcd_client::{Client, WatchOptions, WatchStream};
use orch_store::{EmbeddedStore, Store};
use tokio::task::JoinSet;

use crate::etcd::Etcd;
use crate::figure::{Aim, Other, median, tell};
use crate::place::Place;
use crate::writer::{self, Until};

const ROUNDS: usize = 5;
const WRITERS: usize = 64;
const PREFIX: &str = "/registry/configmaps/";

/// How many watchers, and how many writes they see in one round.
const SHAPES: [(usize, u64); 3] = [(1, 8000), (100, 1000), (1000, 200)];

/// Over how many connections and streams etcd's watches are spread.
const SPREADS: [(usize, usize); 3] = [(1, 1), (4, 4), (4, 40)];

pub(crate) async fn measure(place: &Place, etcd: &Path) -> anyhow::Result<()> {
    for (watchers, writes) in SHAPES {
        eprintln!("events, watchers: {watchers}");
        let folder = place.folder("watch")?;
        let store = Arc::new(EmbeddedStore::open(folder.path().join("ours")).await?);
        let server = Etcd::start(etcd, folder.path()).await?;
        let mut ours = Vec::new();
        let mut theirs = SPREADS.map(|_| Vec::new());
        let writing = server.connect(4).await?;
        for round in 0..ROUNDS {
            let prefix = format!("{PREFIX}{round}-");
            let delivered = watchers as f64 * writes as f64;
            ours.push(delivered / our_round(&store, &prefix, watchers, writes).await?);
            for ((connections, streams), rates) in SPREADS.into_iter().zip(&mut theirs) {
                if streams > watchers {
                    continue;
                }
                let prefix = format!("{prefix}{streams}-");
                let clients = server.connect(connections).await?;
                let streams = etcd_streams(&clients, streams, watchers).await?;
                rates.push(delivered / etcd_round(&writing, streams, &prefix, writes).await?);
            }
        }
        report(watchers, &ours, &theirs);
    }
    Ok(())
}

fn report(watchers: usize, ours: &[f64], theirs: &[Vec<f64>; 3]) {
    let ours = median(ours);
    let best = SPREADS
        .into_iter()
        .zip(theirs)
        .filter(|(_, rates)| !rates.is_empty())
        .map(|(spread, rates)| (spread, median(rates)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let Some(((connections, streams), theirs)) = best else {
        return;
    };
    let other = Other::slower(
        format!("etcd, {streams} stream(s), {connections} connection(s)"),
        ours,
        theirs,
    );
    let plural = if watchers == 1 { "" } else { "s" };
    let name = format!("events delivered to {watchers} watcher{plural}");
    tell(&name, ours, "1/s", Some(Aim::AtLeast(10.0)), Some(&other));
}

/// Seconds until every watcher has every event.
async fn our_round(
    store: &Arc<EmbeddedStore>,
    prefix: &str,
    watchers: usize,
    writes: u64,
) -> anyhow::Result<f64> {
    let from = store.current_revision().await?;
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut watcher = store.watch(PREFIX.as_bytes(), from).await?;
        tasks.spawn(async move {
            let mut seen = 0;
            let mut last = from;
            while seen < writes {
                for event in watcher.next().await?.events {
                    ensure!(event.revision() > last, "an event comes out of order");
                    last = event.revision();
                    seen += 1;
                }
            }
            ensure!(seen == writes, "a watcher got too much");
            anyhow::Ok(())
        });
    }
    let began = Instant::now();
    writer::write(writer::ours(store, WRITERS), prefix, Until::Writes(writes)).await?;
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Opens the streams with their watches, and waits until all exist.
async fn etcd_streams(
    clients: &[Client],
    streams: usize,
    watchers: usize,
) -> anyhow::Result<Vec<(WatchStream, usize)>> {
    let mut opened = Vec::new();
    for (index, client) in clients.iter().cycle().take(streams).enumerate() {
        let share = watchers / streams + usize::from(index < watchers % streams);
        let options = WatchOptions::new().with_prefix().with_prev_key();
        let mut stream = client.watch_client().watch(PREFIX, Some(options.clone())).await?;
        for watch in 0..share {
            if watch > 0 {
                stream.watch(PREFIX, Some(options.clone())).await?;
            }
            let answer = stream.message().await?.context("the stream ended")?;
            ensure!(answer.created(), "a watch was not created");
        }
        opened.push((stream, share));
    }
    Ok(opened)
}

async fn etcd_round(
    writing: &[Client],
    streams: Vec<(WatchStream, usize)>,
    prefix: &str,
    writes: u64,
) -> anyhow::Result<f64> {
    let mut tasks = JoinSet::new();
    for (stream, watches) in streams {
        tasks.spawn(read_all(stream, watches, writes));
    }
    let began = Instant::now();
    writer::write(writer::theirs(writing, WRITERS), prefix, Until::Writes(writes)).await?;
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Reads until each watch of the stream has all events.
async fn read_all(mut stream: WatchStream, watches: usize, writes: u64) -> anyhow::Result<()> {
    let mut seen = vec![0; watches];
    let mut complete = 0;
    while complete < watches {
        let response = stream.message().await?.context("the stream ended")?;
        if response.canceled() {
            bail!("etcd cancelled a watch: {}", response.cancel_reason());
        }
        let seen = seen
            .get_mut(usize::try_from(response.watch_id())?)
            .context("a watch that nobody made")?;
        let before = *seen;
        *seen += response.events().len() as u64;
        ensure!(*seen <= writes, "a watch got too much");
        complete += usize::from(before < writes && *seen == writes);
    }
    Ok(())
}
