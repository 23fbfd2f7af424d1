//! Whether memory and disk stay flat while keys are overwritten for a long time and the history is compacted.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use orch_store::{EmbeddedStore, Store};

use crate::child;
use crate::figure::{Aim, tell};
use crate::place::Place;
use crate::process::memory;

const KEYS: &str = "10000";
/// Writes a second.
const RATE: &str = "5000";
const EVERY: Duration = Duration::from_secs(1);

struct Sample {
    resident: f64,
    disk: f64,
}

pub(crate) async fn measure(place: &Place, seconds: u64) -> anyhow::Result<()> {
    eprintln!("overwriting for {seconds} s");
    let folder = place.folder("flat")?;
    let directory = folder.path().to_str().context("a UTF-8 path")?;
    let mut child = child::start(&["overwrite", directory, KEYS, RATE])?;
    let mut samples = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(EVERY).await;
        if let Some(status) = child.0.try_wait()? {
            bail!("the overwriting store ended with {status}");
        }
        samples.push(Sample {
            resident: memory(child.0.id())?.resident,
            disk: folder.bytes() as f64 / 1e6,
        });
    }
    drop(child);
    ensure!(samples.len() >= 6, "too short to tell anything");
    // Killed as it was, it opens again, and tells how much was written.
    let store = EmbeddedStore::open(folder.path()).await?;
    let writes = store.current_revision().await?.0 as f64 / seconds as f64;
    tell(
        "writes while memory and disk are watched",
        writes,
        "1/s",
        None,
        None,
    );
    report("memory", &samples, |sample| sample.resident);
    report("disk", &samples, |sample| sample.disk);
    Ok(())
}

/// The largest value in the last third over that in the second.
fn report(what: &str, samples: &[Sample], value: impl Fn(&Sample) -> f64) {
    let third = samples.len() / 3;
    let largest = |samples: &[Sample]| samples.iter().map(&value).fold(0.0, f64::max);
    let (second, last) = (
        largest(&samples[third..2 * third]),
        largest(&samples[2 * third..]),
    );
    let growth = format!("{what}, growth from the second to the last third");
    tell(&growth, last / second, "x", Some(Aim::AtMost(1.1)), None);
    tell(
        &format!("{what}, largest while overwriting"),
        last,
        "MB",
        None,
        None,
    );
}
