//! The memory that a million keys take, and how soon they are back after a restart.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use etcd_client::{Client, Txn, TxnOp};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::Value;

use crate::child;
use crate::etcd::Etcd;
use crate::figure::{self, Aim, Other, median, tell};
use crate::place::Place;
use crate::process::memory;
use crate::writer::value;

/// Puts in one transaction. It makes filling quicker, and yet there are enough transactions that etcd does what it does every
/// 100,000: writes a snapshot and drops its log from memory.
const TXN: u64 = 9;
const TXNS_AT_ONCE: u64 = 64;
const OPENS: usize = 3;

pub(crate) async fn measure(place: &Place, etcd: &Path, keys: u64) -> anyhow::Result<()> {
    let theirs = their_side(place, etcd, keys).await?;
    let folder = place.folder("million")?;
    for shape in [Shape::Checkpoint, Shape::Log] {
        eprintln!("{} keys, {}", figure::thousands(keys), shape.name());
        let directory = folder.path().join(shape.name());
        let directory = directory.to_str().context("a UTF-8 path")?;
        let number = keys.to_string();
        let mut task = vec!["fill", directory, &number];
        task.extend(shape.flag());
        let filled = child::run(&task).await?;
        if shape == Shape::Checkpoint {
            report_memory(&filled, keys, &theirs)?;
        }
        opens(directory, keys, shape).await?;
    }
    Ok(())
}

/// What is on disk when a store is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Log,
    Checkpoint,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Checkpoint => "checkpoint and log",
        }
    }

    fn flag(self) -> Option<&'static str> {
        (self == Self::Checkpoint).then_some("--checkpoint")
    }
}

struct Theirs {
    resident: f64,
    anonymous: f64,
    /// Seconds from the start of the process to its first answer.
    restart: f64,
}

async fn their_side(place: &Place, program: &Path, keys: u64) -> anyhow::Result<Theirs> {
    eprintln!("{} keys, etcd", figure::thousands(keys));
    let folder = place.folder("million-etcd")?;
    let server = Etcd::start(program, folder.path()).await?;
    let client = server.connect(1).await?.remove(0);
    fill(&client, keys).await?;
    let used = memory(server.id())?;
    drop(server);
    let again = Etcd::start(program, folder.path()).await?;
    Ok(Theirs {
        resident: used.resident,
        anonymous: used.anonymous,
        restart: again.start.as_secs_f64(),
    })
}

async fn fill(client: &Client, keys: u64) -> anyhow::Result<()> {
    let writers = (0..TXNS_AT_ONCE).map(|writer| {
        let mut kv = client.kv_client();
        async move {
            let step = usize::try_from(TXN * TXNS_AT_ONCE)?;
            for first in (writer * TXN..keys).step_by(step) {
                let puts = (first..keys.min(first + TXN)).map(|index| {
                    let key = format!("/registry/pods/default/web-{index:08}");
                    TxnOp::put(key, value(), None)
                });
                kv.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await?;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(writers).await?;
    Ok(())
}

fn report_memory(filled: &Value, keys: u64, theirs: &Theirs) -> anyhow::Result<()> {
    let keys = figure::thousands(keys);
    let written = number(filled, "written")?;
    let other = Other::longer("etcd", written, theirs.resident);
    tell(
        &format!("memory, {keys} keys of 1 KiB as written"),
        written,
        "MB",
        None,
        Some(&other),
    );
    let compacted = number(filled, "compacted")?;
    let other = Other::longer("etcd without its mapped file", compacted, theirs.anonymous);
    tell(
        &format!("memory, {keys} keys of 1 KiB, compacted"),
        compacted,
        "MB",
        None,
        Some(&other),
    );
    tell(
        &format!("restart of etcd with {keys} keys"),
        theirs.restart,
        "s",
        None,
        None,
    );
    Ok(())
}

/// Opens the store several times, first with its files out of the page cache, then with them in it.
async fn opens(directory: &str, keys: u64, shape: Shape) -> anyhow::Result<()> {
    for cached in [false, true] {
        let mut seconds = Vec::new();
        let mut read = Vec::new();
        let mut resident = Vec::new();
        for _ in 0..OPENS {
            if !cached {
                forget(Path::new(directory))?;
            }
            let opened = child::run(&["open", directory, &keys.to_string()]).await?;
            seconds.push(number(&opened, "seconds")?);
            read.push(number(&opened, "read")?);
            resident.push(number(&opened, "resident")?);
        }
        let (keys, shape, read) = (figure::thousands(keys), shape.name(), median(&read));
        let name = format!("recovery of {keys} keys, {shape}, {read:.0} MB from disk");
        tell(&name, median(&seconds), "s", Some(Aim::AtMost(5.0)), None);
        if cached {
            tell(
                &format!("memory after it, {shape}"),
                median(&resident),
                "MB",
                None,
                None,
            );
        }
    }
    Ok(())
}

/// Takes the files out of the page cache.
fn forget(directory: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

fn number(told: &Value, field: &str) -> anyhow::Result<f64> {
    told[field]
        .as_f64()
        .with_context(|| format!("no {field} was told"))
}
