//! What CI runs, as a list of named steps.

use std::time::Instant;

use anyhow::Context;

use crate::{peers, run::command};

/// A step: its name and the cargo call that it is.
struct Step {
    name: &'static str,
    cargo: &'static [&'static str],
    environment: Option<(&'static str, &'static str)>,
}

const fn step(name: &'static str, cargo: &'static [&'static str]) -> Step {
    Step {
        name,
        cargo,
        environment: None,
    }
}

/// Quick checks first, so that a slip is told early.
const STEPS: &[Step] = &[
    step("fmt", &["fmt", "--all", "--check"]),
    step(
        "deny",
        &["deny", "--all-features", "check", "bans", "licenses", "sources"],
    ),
    step(
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
    ),
    // `cargo test --examples` would build each as a test of itself; the end to end tests start the programs.
    step(
        "examples",
        &["build", "--workspace", "--all-features", "--examples"],
    ),
    step(
        "tests",
        &[
            "test",
            "--workspace",
            "--all-features",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
        ],
    ),
    step("doc-tests", &["test", "--workspace", "--all-features", "--doc"]),
    Step {
        name: "docs",
        cargo: &["doc", "--workspace", "--no-deps", "--all-features", "--quiet"],
        environment: Some(("RUSTDOCFLAGS", "-D warnings")),
    },
];

/// Runs the steps whose name contains `only`, after installing the peers when `setup` is set.
pub(crate) fn run(only: Option<&str>, setup: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    if setup {
        timed("setup", peers::install)?;
    }
    for step in STEPS
        .iter()
        .filter(|step| only.is_none_or(|word| step.name.contains(word)))
    {
        timed(step.name, || {
            if let Some((name, value)) = step.environment {
                // One thread: nothing reads the environment at the same time.
                return with_environment(name, value, step.cargo);
            }
            command("cargo", step.cargo)
        })?;
    }
    println!("\nall steps passed in {} s", began.elapsed().as_secs());
    Ok(())
}

/// Runs all criterion benches, or the one of this name.
pub(crate) fn bench(name: Option<&str>) -> anyhow::Result<()> {
    let mut arguments = vec!["bench", "--package", "orch-benches"];
    if let Some(name) = name {
        arguments.extend(["--bench", name]);
    }
    command("cargo", &arguments)
}

fn timed(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("\n== {name}");
    let began = Instant::now();
    work().with_context(|| format!("step {name} failed; alone: cargo xtask test --only {name}"))?;
    println!("== {name} passed in {} s", began.elapsed().as_secs());
    Ok(())
}

fn with_environment(name: &str, value: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut all = vec![format!("{name}={value}"), "cargo".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    command("env", &all.iter().map(String::as_str).collect::<Vec<_>>())
}
