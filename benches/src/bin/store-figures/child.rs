//! What runs in processes of its own, so that its memory can be told from ours.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use orch_store::{Compactor, EmbeddedStore, ListOptions, Revision, Store};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::process::{Owned, memory, read_from_disk};
use crate::writer::value;

const WRITERS: u64 = 64;

/// How many of the keys are written again behind a checkpoint: a tenth.
const AGAIN: u64 = 10;

/// What the parent asks of a child. Not meant for people.
#[derive(clap::Subcommand)]
#[command(hide = true)]
pub(crate) enum Task {
    /// Fill a store, then close it in good order
    Fill {
        directory: PathBuf,
        keys: u64,
        /// Compact, wait for the checkpoint, then write a tenth of the keys again
        #[arg(long)]
        checkpoint: bool,
    },
    /// Open a store and tell how long it took
    Open { directory: PathBuf, keys: u64 },
    /// Overwrite keys at a steady rate, with a compactor, until killed
    Overwrite {
        directory: PathBuf,
        keys: u64,
        rate: u64,
    },
}

impl Task {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Fill {
                directory,
                keys,
                checkpoint,
            } => fill(directory, *keys, *checkpoint).await,
            Self::Open { directory, keys } => open(directory, *keys).await,
            Self::Overwrite {
                directory,
                keys,
                rate,
            } => overwrite(directory, *keys, *rate).await,
        }
    }
}

/// Starts this program with a task.
pub(crate) fn start(task: &[&str]) -> anyhow::Result<Owned> {
    let child = Command::new(std::env::current_exe()?)
        .args(task)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a child")?;
    Ok(Owned(child))
}

/// Runs a task to its end; what it told.
pub(crate) async fn run(task: &[&str]) -> anyhow::Result<Value> {
    let mut child = start(task)?;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if !status.success() {
        bail!("the task {task:?} ended with {status}");
    }
    let output = child.0.stdout.take().context("a piped output")?;
    Ok(serde_json::from_reader(output)?)
}

fn key(index: u64) -> Bytes {
    format!("/registry/pods/default/web-{index:08}").into()
}

/// Writes the keys of a range with many writers.
async fn put(store: &Arc<EmbeddedStore>, keys: u64, create: bool) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            for index in (writer..keys).step_by(usize::try_from(WRITERS)?) {
                let key = key(index);
                if create {
                    store.create(key, value(), None).await?;
                } else {
                    let read = store.get(&key, None).await?;
                    let kv = read.kv.context("the key exists")?;
                    store.update(key, value(), kv.mod_revision, None).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(())
}

async fn fill(directory: &Path, keys: u64, checkpoint: bool) -> anyhow::Result<()> {
    let store = Arc::new(EmbeddedStore::open(directory).await?);
    put(&store, keys, true).await?;
    let written = memory(std::process::id())?;
    if checkpoint {
        let revision = store.current_revision().await?;
        store.compact(revision).await?;
        wait_for_checkpoint(directory, revision).await?;
    }
    // The store keeps its history after a compaction only.
    let compacted = memory(std::process::id())?;
    if checkpoint {
        put(&store, keys / AGAIN, false).await?;
    }
    println!(
        "{}",
        json!({"written": written.resident, "compacted": compacted.resident})
    );
    Ok(())
}

async fn wait_for_checkpoint(directory: &Path, revision: Revision) -> anyhow::Result<()> {
    let path = directory.join(format!("checkpoint-{:020}", revision.0));
    let began = Instant::now();
    while !path.exists() {
        ensure!(
            began.elapsed() < Duration::from_secs(120),
            "no checkpoint is written"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The segments before it go next.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn open(directory: &Path, keys: u64) -> anyhow::Result<()> {
    let before = read_from_disk()?;
    let began = Instant::now();
    let store = EmbeddedStore::open(directory).await?;
    let took = began.elapsed();
    let read = read_from_disk()? - before;
    let resident = memory(std::process::id())?.resident;
    let count = ListOptions::default().limit(0).count();
    let found = store.list(b"/registry/pods/", count).await?.remaining;
    ensure!(
        found == Some(usize::try_from(keys)?),
        "{found:?} keys were recovered"
    );
    println!(
        "{}",
        json!({"seconds": took.as_secs_f64(), "resident": resident, "read": read})
    );
    Ok(())
}

async fn overwrite(directory: &Path, keys: u64, rate: u64) -> anyhow::Result<()> {
    let store = Arc::new(EmbeddedStore::open(directory).await?);
    put(&store, keys, true).await?;
    let compactor = Compactor::new(store.clone()).keep(Duration::from_secs(10));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        compactor.run(CancellationToken::new()).await;
        Ok(())
    });
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        let mut turns = tokio::time::interval(Duration::from_micros(1_000_000 * WRITERS / rate));
        tasks.spawn(async move {
            let mut index = writer;
            loop {
                turns.tick().await;
                let key = key(index);
                let kv = store.get(&key, None).await?.kv.context("the key exists")?;
                store.update(key, value(), kv.mod_revision, None).await?;
                index = (index + WRITERS) % keys;
            }
        });
    }
    match tasks.join_next().await {
        Some(result) => result?,
        None => Ok(()),
    }
}
