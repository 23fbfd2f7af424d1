//! Writes records into a store, many at a time, so that repeating it does no harm.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use indicatif::ProgressBar;
use orch_store::{Store, StoreError};

use crate::source::Record;
use crate::{Answer, show};

/// How often a write that may succeed later is tried, waiting twice as long each time.
const TRIES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How many refused keys are named.
const NAMED: usize = 10;

pub(crate) struct Transfer {
    pub(crate) to: Arc<dyn Store>,
    /// Replace what is there with another value.
    pub(crate) overwrite: bool,
    /// How many writes are under way at a time.
    pub(crate) parallel: usize,
}

/// What became of one record.
enum Outcome {
    Written,
    Overwritten,
    Same,
    Expired,
    Refused(Bytes),
}

/// What became of all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    written: u64,
    overwritten: u64,
    same: u64,
    expired: u64,
    refused: Vec<Bytes>,
}

impl Transfer {
    pub(crate) async fn put_all(
        &self,
        records: Vec<Record>,
        tally: &mut Tally,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let writes = futures::stream::iter(records.into_iter().map(|record| self.put(record)));
        let mut outcomes = writes.buffer_unordered(self.parallel);
        while let Some(outcome) = outcomes.next().await {
            tally.add(outcome?);
            bar.inc(1);
        }
        Ok(())
    }

    async fn put(&self, record: Record) -> anyhow::Result<Outcome> {
        let outcome = self.try_often(&record).await;
        outcome.with_context(|| format!("cannot write {}", show::text(&record.kv.key)))
    }

    async fn try_often(&self, record: &Record) -> Result<Outcome, StoreError> {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match self.attempt(record).await {
                Err(error) if error.is_retryable() || error.is_conflict() => {}
                result => return result,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.attempt(record).await
    }

    async fn attempt(&self, record: &Record) -> Result<Outcome, StoreError> {
        let Some(ttl) = record.time_left() else {
            return Ok(Outcome::Expired);
        };
        let (key, value) = (record.kv.key.clone(), record.kv.value.clone());
        match self.to.create(key.clone(), value.clone(), ttl).await {
            Ok(_) => Ok(Outcome::Written),
            Err(StoreError::AlreadyExists { current }) if current.value == value => Ok(Outcome::Same),
            Err(StoreError::AlreadyExists { current }) if self.overwrite => {
                self.to.update(key, value, current.mod_revision, ttl).await?;
                Ok(Outcome::Overwritten)
            }
            Err(StoreError::AlreadyExists { .. }) => Ok(Outcome::Refused(key)),
            Err(error) => Err(error),
        }
    }
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Written => self.written += 1,
            Outcome::Overwritten => self.overwritten += 1,
            Outcome::Same => self.same += 1,
            Outcome::Expired => self.expired += 1,
            Outcome::Refused(key) => self.refused.push(key),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.written + self.overwritten + self.same + self.expired + self.refused.len() as u64
    }

    /// All that there is to say, without what did not happen.
    pub(crate) fn summary(&self) -> String {
        let mut parts = vec![format!("{} written", show::keys(self.written))];
        for (count, what) in [
            (self.overwritten, "overwritten"),
            (self.same, "skipped, being there with the same value"),
            (self.expired, "left out, their time to live having passed"),
            (self.refused.len() as u64, "refused"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        parts.join(", ")
    }

    /// Names what was refused, and what to do about it.
    pub(crate) fn answer(&self, overwrite_flag: &str) -> Answer {
        if self.refused.is_empty() {
            return Answer::Yes;
        }
        let count = show::keys(self.refused.len() as u64);
        show::note(format_args!("{count} refused, being there with another value:"));
        for key in self.refused.iter().take(NAMED) {
            show::note(format_args!("  {}", show::text(key)));
        }
        if self.refused.len() > NAMED {
            show::note(format_args!("  and {} more", self.refused.len() - NAMED));
        }
        show::note(format_args!("hint:  {overwrite_flag} replaces them"));
        Answer::No
    }
}
