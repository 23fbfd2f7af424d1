//! `restore`: from a backup into a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use orch_store::{EmbeddedStore, ListOptions, Revision, Store};

use crate::Answer;
use crate::access::Access;
use crate::cli::Restore;
use crate::file::{Header, Reader, Totals};
use crate::place::Place;
use crate::transfer::{Tally, Transfer};
use crate::{progress, show, verify};

/// How far above a backup's revision a store begins, unless told otherwise: more writes than any had since its last backup.
const BUMP: u64 = 1_000_000_000;

pub(crate) async fn run(access: &Access, arguments: Restore) -> Result<Answer> {
    let started = Instant::now();
    if arguments.bump_revision.is_some() && matches!(arguments.place, Place::Etcd(_)) {
        bail!("--bump-revision is for a folder: an etcd gives revisions of its own");
    }
    let (header, totals) = verify::check_file(&arguments.file)?;
    let from = floor(&header, arguments.bump_revision.unwrap_or(BUMP))?;
    let bar = progress::keys("restoring", totals.records);
    match &arguments.place {
        Place::Folder(path) if !arguments.merge => {
            let revision = import(&arguments.file, path, from, &bar).await?;
            bar.finish_and_clear();
            show::line(format_args!(
                "{} of revision {} in {}, whose store stands at revision {revision}, {}",
                show::keys(totals.records),
                header.revision,
                path.display(),
                show::pace(totals.records, started.elapsed())
            ))?;
            Ok(Answer::Yes)
        }
        place => {
            let options = EmbeddedStore::options().skip_to_revision(from);
            let store = place.open(access, options).await?;
            if !arguments.merge {
                refuse_keys(store.as_ref(), place).await?;
            }
            let tally = write(&arguments, Arc::clone(&store), &bar).await?;
            bar.finish_and_clear();
            report(&header, totals, &tally, store.as_ref(), &arguments, started).await
        }
    }
}

/// Where a folder's store begins.
fn floor(header: &Header, bump: u64) -> Result<Revision> {
    let floor = header.shown.max(header.revision).0.checked_add(bump);
    // etcd and kube count in signed numbers.
    floor
        .filter(|floor| *floor < i64::MAX as u64 / 2)
        .map(Revision)
        .context("--bump-revision leaves no revisions to go on with")
}

/// All or nothing, with revisions and times to live.
async fn import(file: &Path, to: &Path, revision: Revision, bar: &ProgressBar) -> Result<Revision> {
    let mut import = EmbeddedStore::import(to, revision).await?;
    let mut reader = Reader::open(file)?;
    while let Some(records) = reader.next()? {
        for record in &records {
            import.push(&record.kv, record.expires)?;
        }
        bar.inc(records.len() as u64);
        // A chance for Ctrl-C: nothing here ever waits.
        tokio::task::yield_now().await;
    }
    Ok(import.finish()?)
}

async fn refuse_keys(store: &dyn Store, place: &Place) -> Result<()> {
    let page = store.list(b"", ListOptions::default().limit(1)).await?;
    if let Some(kv) = page.items.first() {
        bail!(
            "{place} is not empty, it has {} for instance: --merge restores into it and keeps what is there",
            show::text(&kv.key)
        );
    }
    Ok(())
}

async fn write(arguments: &Restore, to: Arc<dyn Store>, bar: &ProgressBar) -> Result<Tally> {
    let transfer = Transfer {
        to,
        overwrite: arguments.overwrite,
        parallel: arguments.parallel,
    };
    let mut tally = Tally::default();
    let mut reader = Reader::open(&arguments.file)?;
    while let Some(records) = reader.next()? {
        let written = transfer.put_all(records, &mut tally, bar).await;
        written.context("not all was written; --merge goes on, and skips what is there")?;
    }
    Ok(tally)
}

async fn report(
    header: &Header,
    totals: Totals,
    tally: &Tally,
    store: &dyn Store,
    arguments: &Restore,
    started: Instant,
) -> Result<Answer> {
    let revision = store.current_revision().await?;
    show::line(format_args!(
        "{} of revision {} to {}, which stands at revision {revision}: {}, {}",
        show::keys(totals.records),
        header.revision,
        arguments.place,
        tally.summary(),
        show::pace(totals.records, started.elapsed())
    ))?;
    if revision < header.shown {
        show::note(format_args!(
            "note:  this is below the backup's revision {}: restart what has a cache of the old store",
            header.shown
        ));
    }
    Ok(tally.answer("--overwrite"))
}
