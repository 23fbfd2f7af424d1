//! `copy`: from one store into another.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use orch_store::EmbeddedStore;

use crate::Answer;
use crate::access::Access;
use crate::cli::Copy;
use crate::source::{Record, Source};
use crate::transfer::{Tally, Transfer};
use crate::{progress, show};

pub(crate) async fn run(access: &Access, arguments: Copy) -> Result<Answer> {
    let started = Instant::now();
    if arguments.from.is(&arguments.to) {
        bail!("{} and {} are the same store", arguments.from, arguments.to);
    }
    let source = Source::open(&arguments.from, access).await?;
    let mut pages = source.pages(&arguments.prefix, None).await?.with_ends().await?;
    // Clients that come over from the old store must not meet its revisions a second time.
    let options = EmbeddedStore::options().skip_to_revision(source.shown(pages.revision()));
    let transfer = Transfer {
        to: arguments.to.open(access, options).await?,
        overwrite: arguments.overwrite,
        parallel: arguments.parallel,
    };
    let bar = progress::keys("copying", pages.total() as u64);
    let mut tally = Tally::default();
    let mut page = pages.next(usize::MAX).await?;
    while let Some(records) = page {
        let records = keep(records, &arguments.exclude, &bar);
        // The next page is read while this one is written.
        let (written, next) = tokio::join!(
            transfer.put_all(records, &mut tally, &bar),
            pages.next(usize::MAX)
        );
        written.context("not all was copied; the same command goes on, and skips what is there")?;
        page = next?;
    }
    bar.finish_and_clear();
    show::line(format_args!(
        "{} from {} at revision {} to {}: {}, {}",
        show::keys(tally.total()),
        arguments.from,
        pages.revision(),
        arguments.to,
        tally.summary(),
        show::pace(tally.total(), started.elapsed())
    ))?;
    Ok(tally.answer("--overwrite"))
}

fn keep(mut records: Vec<Record>, exclude: &[String], bar: &indicatif::ProgressBar) -> Vec<Record> {
    let before = records.len();
    records.retain(|record| {
        let is_excluded = |prefix: &String| record.kv.key.starts_with(prefix.as_bytes());
        !exclude.iter().any(is_excluded)
    });
    bar.inc((before - records.len()) as u64);
    records
}
