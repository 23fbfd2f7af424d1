//! The one place that starts outside programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Set by `cargo run` for the program it runs, beside `CARGO_PKG_*`.
const OF_THIS_PROGRAM: [&str; 3] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
];

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_owned()
}

/// Where cargo writes: `CARGO_TARGET_DIR`, or `target` below the root.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Whether a program is on the `PATH`, or in a system folder that root's `PATH` often lacks.
pub(crate) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|folder| folder.join(program).is_file())
}

/// Runs a command in the workspace's root and fails with its words when it fails.
pub(crate) fn command(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    // What cargo tells the program that it runs, this one, is not meant for another cargo: build scripts that look at
    // these would build anew each time a build is started from here and then by hand.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || OF_THIS_PROGRAM.iter().any(|own| name == *own)
        {
            command.env_remove(name);
        }
    }
    let status = command
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("`{program} {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// As [`command`], with root's rights: directly as root, else through `sudo -n`.
pub(crate) fn as_root(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    if is_root()? {
        return command(program, arguments);
    }
    let mut all = vec!["-n", program];
    all.extend(arguments);
    command("sudo", &all).context("installing needs root: run `sudo cargo xtask setup` once")
}

fn is_root() -> anyhow::Result<bool> {
    let id = Command::new("id").arg("-u").output().context("cannot start id")?;
    Ok(String::from_utf8_lossy(&id.stdout).trim() == "0")
}
