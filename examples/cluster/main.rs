//! A whole cluster in one process: `cargo run --release --example cluster`, `-- --help` for its flags.

#![allow(clippy::print_stdout, reason = "a program that talks to a person")]

mod assemble;
mod demo;
mod host;
mod identity;
mod node;
mod options;
mod web;

use std::process::ExitCode;
use std::time::Instant;

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
    let mut cluster = assemble::start(&options).await?;
    cluster.ready().await?;
    println!("ready in {} ms", began.elapsed().as_millis());
    let mut worked = true;
    if let Some(Command::Demo { exit }) = options.command {
        let shown = tokio::select! {
            shown = demo::run(&cluster) => shown,
            () = host::stop_signal() => Err(anyhow::anyhow!("interrupted")),
        };
        if let Err(error) = shown {
            eprintln!("the demo failed: {error:#}");
            worked = false;
        }
        if !exit && worked {
            println!("\nThe cluster goes on. Ctrl-C stops it.");
            cluster.run_until_stopped().await?;
        }
    } else {
        println!("Ctrl-C stops it.");
        cluster.run_until_stopped().await?;
    }
    cluster.stop().await;
    Ok(if worked {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
