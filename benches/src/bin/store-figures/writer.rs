//! Guarded writes to either side, as kube-apiserver makes them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use etcd_client::{Client, Compare, CompareOp, KvClient, Txn, TxnOp};
use orch_store::{EmbeddedStore, Revision, Store};
use tokio::task::JoinSet;

/// How long a value is: 1 KiB.
pub(crate) const VALUE: usize = 1024;

/// A value with memory of its own, as one has that came in a request.
pub(crate) fn value() -> Bytes {
    Bytes::from(vec![b'x'; VALUE])
}

/// How often a key is written before its writer takes another: created once, then updated.
const WRITES_A_KEY: u64 = 8;

/// One writer of a store. The revision of each write is what guards the next.
pub(crate) trait Writer: Send + 'static {
    fn create(&mut self, key: Bytes) -> impl Future<Output = anyhow::Result<u64>> + Send;
    fn update(&mut self, key: Bytes, expected: u64) -> impl Future<Output = anyhow::Result<u64>> + Send;
}

#[derive(Clone)]
pub(crate) struct Ours(pub(crate) Arc<EmbeddedStore>);

impl Writer for Ours {
    async fn create(&mut self, key: Bytes) -> anyhow::Result<u64> {
        Ok(self.0.create(key, value(), None).await?.mod_revision.0)
    }

    async fn update(&mut self, key: Bytes, expected: u64) -> anyhow::Result<u64> {
        let updated = self.0.update(key, value(), Revision(expected), None).await?;
        Ok(updated.mod_revision.0)
    }
}

#[derive(Clone)]
pub(crate) struct Theirs(pub(crate) KvClient);

impl Theirs {
    /// One transaction: compare the key's revision, put, or read what is there instead.
    async fn put(&mut self, key: Bytes, expected: i64) -> anyhow::Result<u64> {
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, expected)])
            .and_then([TxnOp::put(key.clone(), value(), None)])
            .or_else([TxnOp::get(key, None)]);
        let response = self.0.txn(txn).await?;
        if !response.succeeded() {
            bail!("a guard did not hold");
        }
        let revision = response.header().context("no header")?.revision();
        Ok(u64::try_from(revision)?)
    }
}

impl Writer for Theirs {
    async fn create(&mut self, key: Bytes) -> anyhow::Result<u64> {
        self.put(key, 0).await
    }

    async fn update(&mut self, key: Bytes, expected: u64) -> anyhow::Result<u64> {
        self.put(key, i64::try_from(expected)?).await
    }
}

/// So many writers, spread over the connections.
pub(crate) fn theirs(clients: &[Client], writers: usize) -> Vec<Theirs> {
    let spread = clients.iter().cycle().take(writers);
    spread.map(|client| Theirs(client.kv_client())).collect()
}

pub(crate) fn ours(store: &Arc<EmbeddedStore>, writers: usize) -> Vec<Ours> {
    vec![Ours(Arc::clone(store)); writers]
}

/// When writers stop.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    /// This many writes of all writers together.
    Writes(u64),
}

/// Writes with all writers at once, below `prefix`, where nothing may be yet. Returns how many writes there were and how long
/// they took.
pub(crate) async fn write<W: Writer>(
    writers: Vec<W>,
    prefix: &str,
    until: Until,
) -> anyhow::Result<(u64, Duration)> {
    let count = writers.len() as u64;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, mut writer) in (0..).zip(writers) {
        let prefix = format!("{prefix}{index:04}-");
        let (end, most) = match until {
            Until::Elapsed(time) => (Some(began + time), u64::MAX),
            Until::Writes(writes) => (None, writes / count + u64::from(index < writes % count)),
        };
        tasks.spawn(async move {
            let mut written = 0;
            let mut revision = 0;
            let mut key = Bytes::new();
            while written < most && end.is_none_or(|end| Instant::now() < end) {
                revision = if written % WRITES_A_KEY == 0 {
                    key = format!("{prefix}{:06}", written / WRITES_A_KEY).into();
                    writer.create(key.clone()).await?
                } else {
                    writer.update(key.clone(), revision).await?
                };
                written += 1;
            }
            anyhow::Ok(written)
        });
    }
    let mut written = 0;
    while let Some(result) = tasks.join_next().await {
        written += result??;
    }
    Ok((written, began.elapsed()))
}
