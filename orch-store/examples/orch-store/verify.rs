//! `verify`: whether everything in a store or a backup is as it was written.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use orch_store::{EmbeddedStore, ListOptions, OpenError, Snapshot, SnapshotContent};

use crate::Answer;
use crate::access::Access;
use crate::cli::Verify;
use crate::file::{FileError, Header, Reader, Totals};
use crate::place::{self, Etcd, Place};
use crate::source::Source;
use crate::{advice, progress, show};

pub(crate) async fn run(access: &Access, arguments: Verify) -> Result<Answer> {
    let result = match &arguments.place {
        Place::Folder(path) if path.is_file() => backup(path),
        Place::Folder(path) => folder(path).await,
        Place::Etcd(endpoints) => {
            let store = place::connect(access, endpoints).await?;
            etcd(&arguments.place, store).await
        }
    };
    match result {
        Ok(()) => Ok(Answer::Yes),
        Err(error) if is_damage(&error) => {
            show::line(format_args!("damaged  {error:#}"))?;
            if let Some(advice) = advice::on(&error) {
                show::note(format_args!("hint:  {advice}"));
            }
            Ok(Answer::No)
        }
        Err(error) => Err(error),
    }
}

fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(OpenError::Corrupt { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(FileError::Damaged { .. } | FileError::NotABackup)
            )
    })
}

/// Reads all of a backup.
pub(crate) fn check_file(path: &Path) -> Result<(Header, Totals)> {
    let naming = || path.display().to_string();
    let reader = Reader::open(path).with_context(naming)?;
    let length = path.metadata().with_context(naming)?.len();
    let bar = progress::bytes("checking", length);
    let checked = reader.check(|offset| bar.set_position(offset));
    bar.finish_and_clear();
    checked.with_context(naming)
}

fn backup(path: &Path) -> Result<()> {
    let (header, totals) = check_file(path)?;
    let age = SystemTime::now().duration_since(header.taken).unwrap_or_default();
    let prefix = if header.prefix.is_empty() {
        "all"
    } else {
        &header.prefix
    };
    show::facts(&[
        ("backup", path.display().to_string()),
        ("taken", format!("{} ago", indicatif::HumanDuration(age))),
        ("prefix", prefix.to_owned()),
        ("revision", header.revision.to_string()),
        ("keys", totals.records.to_string()),
        (
            "content",
            format!("{} of keys and values", show::bytes(totals.bytes)),
        ),
        ("size", show::bytes(path.metadata()?.len())),
        ("good", "every checksum is right".to_owned()),
    ])?;
    Ok(())
}

async fn folder(path: &Path) -> Result<()> {
    let turning = progress::spinner(format!("checking {}", path.display()));
    let snapshot = EmbeddedStore::snapshot_of(path)
        .await
        .with_context(|| path.display().to_string())?;
    drop(turning);
    let page = snapshot.list(b"", &ListOptions::default())?;
    let content: usize = page.items.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let size: u64 = snapshot.files().iter().map(|file| file.bytes).sum();
    let end = if snapshot.was_closed() {
        "closed in good order"
    } else {
        "in use, or its process died"
    };
    show::facts(&[
        ("store", path.display().to_string()),
        ("state", end.to_owned()),
        ("revision", snapshot.revision().to_string()),
        (
            "compacted",
            format!("{}, the oldest that can be read", snapshot.compacted()),
        ),
        ("keys", page.items.len().to_string()),
        (
            "content",
            format!("{} of keys and values", show::bytes(content as u64)),
        ),
        ("size", show::bytes(size)),
    ])?;
    files(&snapshot)?;
    show::facts(&[("good", "every checksum is right".to_owned())])?;
    Ok(())
}

fn files(snapshot: &Snapshot) -> Result<()> {
    for file in snapshot.files() {
        let content = match file.content {
            SnapshotContent::Checkpoint { revision, keys } => {
                format!("{} at revision {revision}", show::keys(keys))
            }
            SnapshotContent::Log { frames, torn: 0 } => format!("{frames} frames"),
            SnapshotContent::Log { frames, torn } => {
                format!("{frames} frames, and {torn} bytes of a write that was never acknowledged")
            }
            _ => "of a kind this tool does not know".to_owned(),
        };
        show::line(format_args!(
            "file       {}  {}, {content}",
            file.name,
            show::bytes(file.bytes)
        ))?;
    }
    Ok(())
}

async fn etcd(place: &Place, etcd: Etcd) -> Result<()> {
    let health = etcd.store.health().await?;
    let mut pages = Source::Etcd(Arc::new(etcd)).pages("", None).await?;
    let bar = progress::keys("reading", pages.total() as u64);
    let (mut keys, mut content) = (0_u64, 0);
    while let Some(records) = pages.next(usize::MAX).await? {
        keys += records.len() as u64;
        let sizes = records
            .iter()
            .map(|record| record.kv.key.len() + record.kv.value.len());
        content += sizes.sum::<usize>() as u64;
        bar.inc(records.len() as u64);
    }
    bar.finish_and_clear();
    show::facts(&[
        ("etcd", place.to_string()),
        ("revision", pages.revision().to_string()),
        (
            "compacted",
            format!("{}, the oldest that can be read", health.compacted),
        ),
        ("keys", keys.to_string()),
        ("content", format!("{} of keys and values", show::bytes(content))),
        ("warning", health.warning.unwrap_or_else(|| "none".to_owned())),
        ("good", "it answers, and all keys could be read".to_owned()),
    ])?;
    Ok(())
}
