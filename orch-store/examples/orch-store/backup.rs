//! `backup`: the state at one revision into a file.

use std::time::{Instant, SystemTime};

use anyhow::Result;
use orch_store::StoreError;

use crate::Answer;
use crate::access::Access;
use crate::cli::Backup;
use crate::file::{Header, Totals, Writer};
use crate::source::{Pages, Source};
use crate::{progress, show};

/// How often it begins anew when compaction overtakes it.
const ATTEMPTS: u32 = 3;

pub(crate) async fn run(access: &Access, arguments: Backup) -> Result<Answer> {
    let started = Instant::now();
    // What can be refused at once is not found out after a long read.
    crate::file::refuse_existing(&arguments.file, arguments.force)?;
    let source = Source::open(&arguments.place, access).await?;
    let mut attempt = 1;
    let (header, totals, length) = loop {
        match write(&source, &arguments).await {
            Err(error) if attempt < ATTEMPTS && is_compacted(&error) => {
                show::note(format_args!("the store was compacted meanwhile, beginning anew"));
                attempt += 1;
            }
            result => break result?,
        }
    };
    show::line(format_args!(
        "{} at revision {} in {}, {}, {}",
        show::keys(totals.records),
        header.revision,
        arguments.file.display(),
        show::bytes(length),
        show::pace(totals.records, started.elapsed())
    ))?;
    Ok(Answer::Yes)
}

async fn write(source: &Source, arguments: &Backup) -> Result<(Header, Totals, u64)> {
    let mut pages = source.pages(&arguments.prefix, None).await?.with_ends().await?;
    let header = Header {
        revision: pages.revision(),
        shown: source.shown(pages.revision()),
        taken: SystemTime::now(),
        prefix: arguments.prefix.clone(),
    };
    let writer = Writer::create(&arguments.file, arguments.force, &header)?;
    let bar = progress::keys("backing up", pages.total() as u64);
    let (totals, length) = copy(&mut pages, writer, &bar).await?;
    bar.finish_and_clear();
    Ok((header, totals, length))
}

async fn copy(pages: &mut Pages, mut writer: Writer, bar: &indicatif::ProgressBar) -> Result<(Totals, u64)> {
    while let Some(records) = pages.next(usize::MAX).await? {
        for record in &records {
            writer.push(record)?;
        }
        bar.inc(records.len() as u64);
        // A chance for Ctrl-C: a snapshot is read without ever waiting.
        tokio::task::yield_now().await;
    }
    writer.finish()
}

fn is_compacted(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<StoreError>()
        .is_some_and(StoreError::is_compacted)
}
