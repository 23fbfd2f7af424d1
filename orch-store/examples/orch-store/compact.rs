//! `compact`: forgets history.

use std::path::Path;

use anyhow::Result;
use orch_store::{EmbeddedStore, Revision, Store};

use crate::Answer;
use crate::access::Access;
use crate::cli::Compact;
use crate::place::{self, Place};
use crate::show;

pub(crate) async fn run(access: &Access, arguments: Compact) -> Result<Answer> {
    match &arguments.place {
        Place::Folder(path) => folder(path, &arguments).await,
        Place::Etcd(endpoints) => {
            let store = place::connect(access, endpoints).await?.store;
            let done = compact(store.as_ref(), &arguments).await?;
            show::line(format_args!("{}: {done}", arguments.place))?;
            Ok(Answer::Yes)
        }
    }
}

async fn folder(path: &Path, arguments: &Compact) -> Result<Answer> {
    let before = size(path);
    // However little there is to give back.
    let options = EmbeddedStore::options().must_exist().checkpoint_after(0);
    let store = options.open(path).await?;
    let done = compact(&store, arguments).await?;
    store.reclaimed().await;
    let warning = store.health().await?.warning;
    drop(store);
    show::line(format_args!(
        "{}: {done}; {} on disk before, {} now",
        path.display(),
        show::bytes(before),
        show::bytes(size(path))
    ))?;
    match warning {
        Some(warning) => anyhow::bail!(warning),
        None => Ok(Answer::Yes),
    }
}

/// What was done, in words.
async fn compact(store: &dyn Store, arguments: &Compact) -> Result<String> {
    let current = store.current_revision().await?;
    let wanted = match (arguments.revision, arguments.keep) {
        (Some(revision), _) => revision,
        (None, keep) => Revision(current.0.saturating_sub(keep.unwrap_or(0))),
    };
    let before = store.health().await?.compacted;
    if wanted <= before {
        return Ok(format!("nothing to forget, history begins at revision {before}"));
    }
    store.compact(wanted).await?;
    Ok(format!(
        "history before revision {wanted} is forgotten, the store stands at {current}"
    ))
}

/// Of all files, as far as can be told.
fn size(path: &Path) -> u64 {
    let entries = path.read_dir().into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
