//! `watch`: each write as it happens.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use orch_store::{EmbeddedStore, Event, EventKind, Revision, Snapshot, Store};
use serde_json::{Value, json};

use crate::Answer;
use crate::access::Access;
use crate::cli::{Format, Watch};
use crate::place::{self, Place};
use crate::show;

/// How often a folder is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// How far apart changes have to be for a file system to give them different times, and more.
const GRAIN: Duration = Duration::from_millis(50);

pub(crate) async fn run(access: &Access, arguments: Watch) -> Result<Answer> {
    match &arguments.place {
        Place::Folder(path) => follow(path, &arguments).await,
        Place::Etcd(endpoints) => {
            let store = place::connect(access, endpoints).await?.store;
            watch(store.as_ref(), &arguments).await
        }
    }
}

async fn watch(store: &dyn Store, arguments: &Watch) -> Result<Answer> {
    let mut reached = match arguments.from {
        Some(from) => from,
        None => store.current_revision().await?,
    };
    let mut watcher = store.watch(arguments.prefix.as_bytes(), reached).await?;
    begin(reached, arguments);
    loop {
        let batch = watcher.next().await.with_context(|| ended(reached))?;
        for event in &batch.events {
            print(event, arguments)?;
        }
        reached = batch.revision;
    }
}

/// Beside the process that has the folder open, which tells nobody: the folder is read again when its files have changed.
async fn follow(path: &Path, arguments: &Watch) -> Result<Answer> {
    let mut reached = None;
    loop {
        let files = Files::now(path)?;
        let started = Instant::now();
        let snapshot = EmbeddedStore::snapshot_of(path).await?;
        reached = Some(show_after(reached, &snapshot, arguments)?);
        drop(snapshot);
        // However large the folder is, most of the time is spent waiting.
        tokio::time::sleep(started.elapsed() * 4).await;
        files.until_changed(path).await?;
    }
}

/// Prints what happened after `reached`, which is nothing yet the first time. Returns how far that is.
fn show_after(reached: Option<Revision>, snapshot: &Snapshot, arguments: &Watch) -> Result<Revision> {
    let from = reached.or(arguments.from).unwrap_or(snapshot.revision());
    let events = snapshot.events(from).with_context(|| ended(from))?;
    if reached.is_none() {
        begin(from, arguments);
    }
    for event in events {
        if event.key().starts_with(arguments.prefix.as_bytes()) {
            print(event, arguments)?;
        }
    }
    Ok(snapshot.revision())
}

fn begin(from: Revision, arguments: &Watch) {
    let what = match arguments.prefix.as_str() {
        "" => "all keys",
        prefix => prefix,
    };
    show::note(format_args!(
        "watching {what} from revision {from} on; Ctrl-C ends it"
    ));
}

fn ended(reached: Revision) -> String {
    format!("the watch ends, having shown everything up to revision {reached}")
}

/// What the files of a folder look like from outside.
struct Files {
    /// Length and time of the last change.
    by_name: BTreeMap<OsString, (u64, SystemTime)>,
    /// A change was so recent that a further one may bear the same time.
    is_young: bool,
}

impl Files {
    fn now(path: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        let entries = path.read_dir().into_iter().flatten();
        for entry in entries {
            let entry = entry?;
            // One that is gone by now is a change that the next look sees.
            if let Ok(metadata) = entry.metadata() {
                by_name.insert(entry.file_name(), (metadata.len(), metadata.modified()?));
            }
        }
        let recent = SystemTime::now().checked_sub(GRAIN);
        let is_young = by_name.values().any(|(_, changed)| Some(*changed) > recent);
        Ok(Self { by_name, is_young })
    }

    async fn until_changed(&self, path: &Path) -> Result<()> {
        loop {
            tokio::time::sleep(PAUSE).await;
            if self.is_young || Self::now(path)?.by_name != self.by_name {
                return Ok(());
            }
        }
    }
}

fn print(event: &Event, arguments: &Watch) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match arguments.output {
        Format::Json => {
            let mut object = show::object(&event.kv, arguments.values);
            object.insert("event".into(), json!(kind(event).to_lowercase()));
            if let Some(previous) = &event.previous {
                object.insert("previous_revision".into(), json!(previous.mod_revision.0));
            }
            writeln!(out, "{}", Value::Object(object))?;
        }
        Format::Text => {
            write!(
                out,
                "{:>12} {:6} {}",
                event.revision(),
                kind(event),
                show::text(event.key())
            )?;
            if event.kind == EventKind::Put {
                write!(out, " ({} bytes)", event.kv.value.len())?;
                if arguments.values {
                    write!(out, " {}", show::text(&event.kv.value))?;
                }
            }
            writeln!(out)?;
        }
    }
    // Into a pipe too: whoever reads it waits for this line.
    out.flush()
}

fn kind(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Put if event.is_create() => "CREATE",
        EventKind::Put => "UPDATE",
        EventKind::Delete => "DELETE",
    }
}
