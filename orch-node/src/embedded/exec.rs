//! The helper that runs a command inside a running container.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir};
use serde::{Deserialize, Serialize};

use super::record::ProcessRecord;
use super::{launch, sys};
use crate::runtime::SecurityContext;

/// What to run and where; the helper reads it from its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExecRequest {
    pub(super) process: ProcessRecord,
    pub(super) command: Vec<String>,
    pub(super) envs: Vec<(String, String)>,
    pub(super) working_dir: String,
    pub(super) hostname: Option<String>,
    pub(super) security_context: SecurityContext,
    pub(super) cgroups: Vec<PathBuf>,
}

/// The exit code of the helper when it could not run the command; upstream's runtimes answer 126 or 127 as shells do.
const CANNOT_RUN: i32 = 126;

/// Runs the helper.
pub(super) fn run() -> i32 {
    match try_run() {
        Ok(code) => code,
        Err(message) => complain(&message),
    }
}

#[allow(
    clippy::print_stderr,
    reason = "the command's standard error is where the caller looks"
)]
fn complain(message: &str) -> i32 {
    eprintln!("{message}");
    CANNOT_RUN
}

fn try_run() -> Result<i32, String> {
    let mut input = Vec::new();
    std::io::stdin()
        .read_to_end(&mut input)
        .map_err(|e| format!("read the request: {e}"))?;
    let request: ExecRequest =
        serde_json::from_slice(&input).map_err(|e| format!("read the request: {e}"))?;
    let null = File::open("/dev/null").map_err(|e| format!("open /dev/null: {e}"))?;
    sys::set_standard_stream(&null, 0).map_err(|e| format!("set standard input: {e}"))?;
    launch::join_cgroups(&request.cgroups).map_err(|e| e.to_string())?;
    let target =
        sys::pidfd_open(request.process.pid).map_err(|e| format!("find the container's process: {e}"))?;
    if !request.process.is_alive() {
        return Err("the container is not running".into());
    }
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    setns(target, all).map_err(|e| format!("enter the container: {e}"))?;
    match sys::fork().map_err(|e| format!("fork: {e}"))? {
        ForkResult::Child => sys::exit_now(complain(&become_command(&request))),
        ForkResult::Parent { child } => match waitpid(child, None).map_err(|e| format!("wait: {e}"))? {
            WaitStatus::Exited(_, code) => Ok(code),
            WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
            _ => Err("unexpected end of the command".into()),
        },
    }
}

fn become_command(request: &ExecRequest) -> String {
    let dir = if request.working_dir.is_empty() {
        "/"
    } else {
        &request.working_dir
    };
    if let Err(errno) = chdir(dir) {
        return format!("enter working directory {dir}: {errno}");
    }
    let envs = launch::environment(
        &request.envs,
        request.hostname.as_deref(),
        &request.security_context,
    );
    let argv: Vec<&String> = request.command.iter().collect();
    match launch::drop_rights(&request.security_context).and_then(|()| launch::exec(&argv, &envs)) {
        Ok(never) => match never {},
        Err(error) => error.to_string(),
    }
}
