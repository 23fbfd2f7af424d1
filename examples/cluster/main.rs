//! A whole cluster in one process: `cargo run --release --example cluster`, `-- --help` for its flags.

#![allow(clippy::print_stdout, reason = "a program that talks to a person")]

mod assemble;
mod demo;
mod host;
mod identity;
mod node;
mod options;
mod store;
mod web;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use options::{Command, Options};

fn main() -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    // First of all: this program is also the helper process that stays with each container …
    orch_node::embedded::init();
    // … and the demo's web server.
    let called_as = std::env::args_os().next().unwrap_or_default();
    if std::path::Path::new(&called_as)
        .file_name()
        .is_some_and(|name| name == "web")
    {
        return web::main().map(|()| ExitCode::SUCCESS);
    }

    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&options.log_level)?)
        .with_writer(std::io::stderr)
        .init();
    // Two threads carry a small cluster; more only hold memory.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(options, began))
}

async fn run(options: Options, began: Instant) -> anyhow::Result<ExitCode> {
    if matches!(options.command, Some(Command::Clean)) {
        return assemble::clean(&options).await.map(|()| ExitCode::SUCCESS);
    }
    // From here on a signal stops the cluster in order, however early it comes.
    let mut signals = host::StopSignals::install()?;
    let mut cluster = assemble::start(&options).await?;
    let shown = show(cluster.view(), &options, began);
    let outcome = tokio::select! {
        shown = shown => shown,
        error = cluster.any_ended() => Err(error),
        () = signals.received() => match options.command {
            Some(Command::Demo { exit: true }) => Err(anyhow::anyhow!("interrupted")),
            _ => Ok(()),
        },
    };
    println!("stopping: pods get the time that they ask for; Ctrl-C again leaves them to the next start");
    tokio::select! {
        () = cluster.stop() => outcome.map(|()| ExitCode::SUCCESS),
        () = signals.received() => anyhow::bail!("stopped at once: pods go on until the next start, or until `cluster clean`"),
    }
}

/// Waits until all is ready, shows what was asked for, and ends only if the program is to end then.
async fn show(cluster: assemble::View, options: &Options, began: Instant) -> anyhow::Result<()> {
    cluster.ready().await?;
    println!("ready in {} ms", began.elapsed().as_millis());
    if let Some(Command::Demo { exit }) = options.command {
        demo::run(&cluster).await.context("the demo failed")?;
        if exit {
            return Ok(());
        }
        println!("\nThe cluster goes on.");
    }
    println!("Ctrl-C stops it.");
    std::future::pending().await
}
