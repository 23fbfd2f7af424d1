//! The tool for stores: backs them up, restores, checks, compacts and copies them, and shows what is in them.
//!
//! `cargo run --release --example orch-store -- --help` tells how it is used; with `--features etcd` it also speaks to etcd,
//! for which its build needs protoc.
//!
//! Exit status: 0 when it did what it was asked to, 1 when the answer is no (a key that does not exist, damage, keys
//! that were refused), 2 when it could not do it.

mod access;
mod advice;
mod backup;
mod cli;
mod compact;
mod copy;
mod file;
mod get;
mod list;
mod place;
mod progress;
mod restore;
mod show;
mod source;
mod transfer;
mod verify;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::cli::{Cli, Command};

/// How a command ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tell(&error.into()),
    };
    let result = runtime.block_on(until_stopped(cli));
    // What still reads a file for a command that was interrupted is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(Some(Answer::Yes)) => ExitCode::SUCCESS,
        Ok(Some(Answer::No)) => ExitCode::from(1),
        Ok(None) => ExitCode::from(130),
        Err(error) => tell(&error),
    }
}

/// `None` when it was interrupted.
async fn until_stopped(cli: Cli) -> anyhow::Result<Option<Answer>> {
    let ends_by_signal = matches!(cli.command, Command::Watch(_));
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = run(cli) => result.map(Some),
        _ = interrupt.recv() => Ok(ends_by_signal.then_some(Answer::Yes)),
        _ = terminate.recv() => Ok(ends_by_signal.then_some(Answer::Yes)),
    }
}

async fn run(cli: Cli) -> anyhow::Result<Answer> {
    let Cli { access, command } = cli;
    if access.is_given() && !command.has_etcd() {
        bail!("--cacert, --cert, --key and --user are for an etcd, and none is named");
    }
    match command {
        Command::Get(arguments) => get::run(&access, arguments).await,
        Command::List(arguments) => list::run(&access, arguments).await,
        Command::Watch(arguments) => watch::run(&access, arguments).await,
        Command::Backup(arguments) => backup::run(&access, arguments).await,
        Command::Restore(arguments) => restore::run(&access, arguments).await,
        Command::Verify(arguments) => verify::run(&access, arguments).await,
        Command::Compact(arguments) => compact::run(&access, arguments).await,
        Command::Copy(arguments) => copy::run(&access, arguments).await,
    }
}

/// The error with its causes, and what to do next.
fn tell(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // `list | head` has seen enough.
        return ExitCode::SUCCESS;
    }
    let mut text = format!("error: {error:#}\n");
    if let Some(advice) = advice::on(error) {
        text += &format!("hint:  {advice}\n");
    }
    // Nobody is left to be told that this failed.
    io::stderr().write_all(text.as_bytes()).ok();
    ExitCode::from(2)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
