//! The hook by which a program that embeds the runtime also serves as its helper processes.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{exec, shim};

/// Name (argument zero) under which the program is started as a container's shim.
pub(super) const SHIM: &str = "orch-node-shim";
/// Name under which the program is started to run a command in a container.
pub(super) const EXEC: &str = "orch-node-exec";

/// To be called first in `main`, before any thread is started, by every program that opens an
/// [`EmbeddedRuntime`](super::EmbeddedRuntime).
///
/// The runtime starts the program again (from `/proc/self/exe`) as the small process that stays with each container. In
/// such a process this function does that work and ends the process; in any other it returns at once.
///
/// ```
/// // The first line of `main`:
/// orch_node::embedded::init();
/// ```
pub fn init() {
    let mut args = std::env::args_os();
    let code = match args.next() {
        Some(name) if name.as_bytes() == SHIM.as_bytes() => match args.next() {
            Some(dir) => shim::run(&PathBuf::from(dir)),
            None => 2,
        },
        Some(name) if name.as_bytes() == EXEC.as_bytes() => exec::run(),
        _ => return,
    };
    std::process::exit(code);
}
