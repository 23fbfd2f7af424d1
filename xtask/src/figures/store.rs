//! The store beside etcd. The measuring is done by a program of the benches, so that this one needs no store.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::Figure;
use crate::run::{command, target};

/// Measures the figures of the area `store`; `arguments` go to the program that does it.
pub(crate) fn measure(arguments: &[String]) -> anyhow::Result<Vec<Figure>> {
    command(
        "cargo",
        &[
            "build",
            "--release",
            "--package",
            "orch-benches",
            "--features",
            "etcd",
            "--bin",
            "store-figures",
        ],
    )?;
    let mut child = Command::new(target().join("release/store-figures"))
        .arg("--etcd")
        .arg(target().join("peers/etcd-debian"))
        .arg("--data")
        .arg(target().join("figures"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start store-figures")?;
    let output = BufReader::new(child.stdout.take().context("a piped standard output")?);
    let mut figures = Vec::new();
    for line in output.lines() {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(figure) => figures.push(figure),
            // Such as the answer to `--help`.
            Err(_) => println!("{line}"),
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("store-figures ended with {status}");
    }
    Ok(figures)
}
