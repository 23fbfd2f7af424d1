//! `watch`: each write as it happens.

use std::io::{self, Write};

use anyhow::{Context, Result};
use orch_store::{Event, EventKind};
use serde_json::{Value, json};

use crate::Answer;
use crate::access::Access;
use crate::cli::{Format, Watch};
use crate::show;

pub(crate) async fn run(access: &Access, arguments: Watch) -> Result<Answer> {
    let store = arguments.place.open_existing(access).await?;
    let from = match arguments.from {
        Some(from) => from,
        None => store.current_revision().await?,
    };
    let mut watcher = store.watch(arguments.prefix.as_bytes(), from).await?;
    show::note(format_args!(
        "watching {} from revision {from} on; Ctrl-C ends it",
        if arguments.prefix.is_empty() {
            "all keys"
        } else {
            &arguments.prefix
        }
    ));
    let mut reached = from;
    loop {
        let batch = watcher
            .next()
            .await
            .with_context(|| format!("the watch ended; everything up to revision {reached} was shown"))?;
        reached = batch.revision;
        for event in &batch.events {
            print(event, &arguments)?;
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
