//! The embedded runtime's helper process as a program of its own, for those who do not want the runtime to start their own
//! program again: give its path to `EmbeddedRuntimeBuilder::helper_program`.

use std::process::ExitCode;

#[allow(clippy::print_stderr, reason = "a program's usage message")]
fn main() -> ExitCode {
    orch_node::embedded::init();
    eprintln!("this program is started by orch-node's embedded runtime only");
    ExitCode::from(2)
}
