//! Measures the embedded store beside a real etcd, in one run on one disk: `cargo xtask figures store` runs it.
//!
//! Each figure is one line of JSON on standard output; progress goes to standard error. What is compared takes turns in
//! short slices, and medians are told, since machines differ from minute to minute.

#![allow(clippy::print_stdout, reason = "the figures go to standard output")]

mod child;
mod etcd;
mod figure;
mod flat;
mod list;
mod million;
mod place;
mod process;
mod puts;
mod watch;
mod writer;

use std::path::PathBuf;

use anyhow::bail;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::place::Place;

/// Measures the embedded store beside etcd.
#[derive(Parser)]
struct Options {
    /// The etcd to measure against
    #[arg(long, default_value = "target/peers/etcd-debian")]
    etcd: PathBuf,
    /// Where to make the data folders, which are removed at the end
    #[arg(long, default_value = "target/figures")]
    data: PathBuf,
    /// Measure only these
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// How long to overwrite keys to see whether memory and disk stay flat
    #[arg(long, default_value_t = 600, env = "ORCH_FIGURES_FLAT_SECONDS")]
    flat_seconds: u64,
    /// Keys in the stores whose memory and recovery is measured
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[command(subcommand)]
    child: Option<child::Task>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Durable guarded writes by 1 to 256 writers
    Puts,
    /// A list of 10,000 keys
    List,
    /// Events to 1 to 1,000 watchers
    Watch,
    /// Memory and recovery of a million keys
    Million,
    /// Memory and disk over a long time of overwriting
    Flat,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(task) = &options.child {
        return runtime.block_on(task.run());
    }
    let place = Place::new(&options.data)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Whatever ends it, processes are ended and folders removed by what is dropped here.
        tokio::select! {
            result = measure(&options, &place) => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn measure(options: &Options, place: &Place) -> anyhow::Result<()> {
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if wanted(Part::Puts) {
        puts::measure(place, &options.etcd).await?;
    }
    if wanted(Part::List) {
        list::measure(place, &options.etcd).await?;
    }
    if wanted(Part::Watch) {
        watch::measure(place, &options.etcd).await?;
    }
    if wanted(Part::Million) {
        million::measure(place, &options.etcd, options.keys).await?;
    }
    if wanted(Part::Flat) {
        flat::measure(place, options.flat_seconds).await?;
    }
    Ok(())
}
