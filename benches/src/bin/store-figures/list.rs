//! A list of many keys, to the full set of keys and values in hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use etcd_client::{GetOptions, KeyValue, KvClient};
use orch_store::{EmbeddedStore, ListOptions, Store};

use crate::etcd::Etcd;
use crate::figure::{Aim, Other, median, tell};
use crate::place::Place;
use crate::writer::{Ours, Theirs, Writer};

const KEYS: usize = 10_000;
const ROUNDS: usize = 15;
const PREFIX: &str = "/registry/pods/default/";

/// The sizes of pages in which etcd is asked; 0 for all at once.
const PAGES: [i64; 3] = [0, 500, 2500];

pub(crate) async fn measure(place: &Place, etcd: &Path) -> anyhow::Result<()> {
    eprintln!("list of {KEYS} keys");
    let folder = place.folder("list")?;
    let store = Arc::new(EmbeddedStore::open(folder.path().join("ours")).await?);
    let server = Etcd::start(etcd, folder.path()).await?;
    let client = server.connect(1).await?.remove(0);
    let mut kv = client.kv_client().max_decoding_message_size(64 * 1024 * 1024);
    tokio::try_join!(fill(Ours(Arc::clone(&store))), fill(Theirs(client.kv_client())))?;
    let mut ours = Vec::new();
    let mut theirs = PAGES.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let page = store.list(PREFIX.as_bytes(), ListOptions::default()).await?;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(page.items.len() == KEYS, "our list is not complete");
        for (page, times) in PAGES.into_iter().zip(&mut theirs) {
            let began = Instant::now();
            let items = list(&mut kv, page).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            ensure!(items.len() == KEYS, "etcd's list is not complete");
        }
    }
    let ours = median(&ours);
    let (page, theirs) = PAGES
        .into_iter()
        .zip(theirs.each_ref().map(|times| median(times)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .context("there are pages")?;
    let name = match page {
        0 => "etcd, all at once".to_owned(),
        page => format!("etcd, pages of {page}"),
    };
    let other = Other::longer(name, ours, theirs);
    tell(
        "list of 10,000 keys",
        ours,
        "ms",
        Some(Aim::AtLeast(20.0)),
        Some(&other),
    );
    Ok(())
}

async fn fill(writer: impl Writer + Clone) -> anyhow::Result<()> {
    let writers = (0..50).map(|first| {
        let mut writer = writer.clone();
        async move {
            for index in (first..KEYS).step_by(50) {
                writer
                    .create(Bytes::from(format!("{PREFIX}web-{index:05}")))
                    .await?;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(writers).await?;
    Ok(())
}

/// All pages at the revision of the first, as kube-apiserver asks for them.
async fn list(client: &mut KvClient, page: i64) -> anyhow::Result<Vec<KeyValue>> {
    let end = prefix_end();
    let mut items: Vec<KeyValue> = Vec::new();
    let mut revision = 0;
    let mut start = PREFIX.as_bytes().to_vec();
    loop {
        let options = GetOptions::new()
            .with_range(end.clone())
            .with_limit(page)
            .with_revision(revision);
        let mut response = client.get(start, Some(options)).await?;
        revision = response.header().context("no header")?.revision();
        items.append(&mut response.take_kvs());
        if !response.more() {
            return Ok(items);
        }
        start = items
            .last()
            .context("a page with more holds something")?
            .key()
            .to_vec();
        start.push(0);
    }
}

/// The first key after all that begin with the prefix.
fn prefix_end() -> Vec<u8> {
    let mut end = PREFIX.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
