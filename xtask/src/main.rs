//! Development tasks: `cargo xtask setup` installs the real peers, `test` runs what CI runs, `figures` measures.

#![allow(clippy::print_stdout, reason = "a command line tool prints")]

mod figures;
mod peers;
mod run;
mod steps;

use clap::{Parser, Subcommand};

/// orch's development tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need: nftables, protoc, kubectls, etcds, a Python client, cargo-deny (as root, or through sudo)
    Setup,
    /// Set up, then run everything that CI runs; stops at the first step that fails
    #[command(visible_alias = "ci")]
    Test {
        /// Run only the steps whose name contains this word
        #[arg(long, value_name = "WORD")]
        only: Option<String>,
        /// Do not install anything first
        #[arg(long)]
        no_setup: bool,
    },
    /// Run the criterion benches
    Bench {
        /// Only this one: store, watch_fanout, scheduler or proxy_rules
        bench: Option<String>,
    },
    /// Measure what the project promises, print a table and write `target/figures/AREA.jsonl`
    Figures {
        /// What to measure
        #[arg(value_enum)]
        area: figures::Area,
        /// For the program that measures, after `--`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Options::parse().task {
        Task::Setup => peers::install(),
        Task::Test { only, no_setup } => steps::run(only.as_deref(), !no_setup),
        Task::Bench { bench } => steps::bench(bench.as_deref()),
        Task::Figures { area, arguments } => figures::run(area, &arguments),
    }
}
